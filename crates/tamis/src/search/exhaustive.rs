//! All full states, so that the optimum is known.

use std::collections::HashSet;

use tamis_nn::seed::Seed;

use crate::{
    Error, Result,
    env::{
        Environment,
        pool::{Pool, State},
    },
    problem::{Problem, Trajectory},
    search::Selector,
};

/// States that are scored side by side.
const BATCH: usize = 256;

/// Enumeration, where the evaluations last for it.
#[derive(Debug, Clone, Copy)]
pub struct Exhaustive;

impl Selector for Exhaustive {
    fn select(&mut self, problem: &mut Problem<'_>, _seed: Seed) -> Result<()> {
        let most = usize::try_from(problem.remaining()).unwrap_or(usize::MAX);
        let Some(paths) = full_paths(problem.pool(), most) else {
            return Err(Error::setting(
                "agent",
                format!(
                    "for `exhaustive` a pool of at most {most} full selections, as many as `max_evaluations` pays for"
                ),
                format!(
                    "{} clusters, of which more selections can be made",
                    problem.pool().clusters()
                ),
            )
            .with_hint(
                "fewer clusters (`clusters`), larger chunks (`chunk`) or a smaller budget make fewer selections",
            ));
        };
        for batch in paths.chunks(BATCH) {
            if problem.remaining() == 0 {
                break;
            }
            problem.score_paths(batch)?;
        }
        Ok(())
    }
}

/// A path to every full state of a pool, or nothing if there are more than `most`.
pub fn full_paths(pool: &Pool, most: usize) -> Option<Vec<Trajectory>> {
    /// States on the way that are kept for each full one: far more are a sign that there are too many.
    const INNER: usize = 64;
    let mut met: HashSet<State> = HashSet::from([pool.empty()]);
    let mut full = Vec::new();
    let mut waiting = vec![(pool.empty(), Trajectory::new())];
    while let Some((state, path)) = waiting.pop() {
        let mut open = false;
        for (cluster, range) in pool.legal(&state).into_iter().enumerate() {
            let Some(range) = range else { continue };
            open = true;
            let next = pool.after(&state, cluster, &range);
            if met.insert(next.clone()) {
                waiting.push((next, [path.as_slice(), &[(cluster, range)]].concat()));
            }
        }
        if !open && !path.is_empty() {
            full.push(path);
        }
        if full.len() > most || met.len() > most.saturating_mul(INNER) {
            return None;
        }
    }
    Some(full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::toy::Toy;

    #[test]
    fn every_full_state_is_met_once() {
        // 4 clusters of 3 chunks each, 3 of which are taken: multisets of 3 out of 4, C(6, 3) = 20
        let toy = Toy::new(4);
        let pool = toy.pool(3);
        assert_eq!(full_paths(&pool, 20).expect("few").len(), 20);
        assert!(full_paths(&pool, 19).is_none());
        let spent = toy.problem(&pool, 100, |mut problem| {
            Exhaustive.select(&mut problem, Seed(1)).expect("enumerates");
            problem.evaluations()
        });
        // and the empty one, which every problem scores
        assert_eq!(spent, 21);
    }

    #[test]
    fn too_many_states_are_refused_with_a_way_out() {
        let toy = Toy::new(4);
        let pool = toy.pool(3);
        let error = toy.problem(&pool, 10, |mut problem| {
            Exhaustive.select(&mut problem, Seed(1)).expect_err("too many")
        });
        assert!(error.to_string().contains("exhaustive"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("clusters")));
    }
}

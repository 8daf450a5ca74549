//! A bandit over clusters: it judges a cluster only by the rewards that the cluster earned before.
//!
//! At each step the legal cluster with the greatest upper confidence bound is taken and paid for. Rewards count as distances from
//! the baseline of their depth, since first chunks earn a hundred times what last ones do.
//!
//! Source: Auer, Cesa-Bianchi & Fischer 2002 (UCB1). It does not know what is taken already, on which rewards do depend; the agents do.

use rand::RngExt;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::Environment,
    problem::Problem,
    reward_models::baseline::DepthBaseline,
    search::{Selector, random::PATIENCE},
};

/// UCB1 with clusters as arms.
#[derive(Debug, Clone, Copy)]
pub struct Bandit {
    /// What the width of the confidence bound is multiplied by.
    pub exploration: f64,
}

impl Default for Bandit {
    fn default() -> Self {
        Self { exploration: 0.5 }
    }
}

impl Selector for Bandit {
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()> {
        let clusters = problem.legal().len();
        // A tiny random number each, so that clusters are first tried in a random order.
        let mut rng = seed.rng();
        let tie_breakers: Vec<f64> = (0..clusters).map(|_| 1e-9 * rng.random::<f64>()).collect();
        let mut arms = vec![(0.0, 0.0f64); clusters];
        let mut baseline = DepthBaseline::default();
        let (mut pulls, mut stalled) = (0.0f64, 0);
        while stalled < PATIENCE {
            let before = problem.evaluations();
            problem.restart()?;
            for depth in 0.. {
                if problem.remaining() == 0 {
                    return Ok(());
                }
                let bound = |c: usize| {
                    let (sum, count) = arms[c];
                    if count == 0.0 {
                        return f64::MAX * tie_breakers[c];
                    }
                    sum / count + self.exploration * (2.0 * pulls.ln() / count).sqrt() + tie_breakers[c]
                };
                let open = (0..clusters).filter(|&c| problem.legal()[c].is_some());
                let Some(cluster) = open.max_by(|&a, &b| bound(a).total_cmp(&bound(b))) else {
                    break;
                };
                let reward = problem.take(cluster)?;
                baseline.add(depth, reward);
                arms[cluster].0 += f64::from(baseline.standardise(depth, reward)).clamp(-3.0, 3.0);
                arms[cluster].1 += 1.0;
                pulls += 1.0;
            }
            stalled = if problem.evaluations() == before {
                stalled + 1
            } else {
                0
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::toy::{Toy, optimum};

    #[test]
    fn it_learns_which_clusters_are_worth_taking() {
        let toy = Toy::new(8);
        let pool = toy.pool(4);
        let found = toy.problem(&pool, 250, |mut problem| {
            Bandit::default().select(&mut problem, Seed(1)).expect("searches");
            problem.best().iter().next().expect("a state").0
        });
        let optimum = optimum(&toy, &pool);
        assert!(found > 0.9 * optimum, "{found} of {optimum}");
    }

    #[test]
    fn a_pool_of_one_cluster_is_exhausted() {
        let toy = Toy::new(1);
        let pool = toy.pool(2);
        let spent = toy.problem(&pool, 1000, |mut problem| {
            Bandit::default().select(&mut problem, Seed(1)).expect("searches");
            problem.evaluations()
        });
        assert_eq!(spent, 3);
    }
}

//! The search: the problem is posed, and the agent of the settings spends its evaluations.

use tamis_nn::Seed;

use std::collections::HashSet;

use crate::{
    Error, Result,
    budget::{Limit, not_for_a_row},
    data::RowId,
    env::pool::{ChunkSize, Pool},
    pipeline::{candidates::Candidates, context::Context, describe, target::Target},
    problem::{Curve, FeatureContext, Limits, Problem, Trajectory},
    records::portfolio::PortfolioRecord,
    scorer::{Scorer, batch::BatchScorer, whole::WholeSelections},
    search::Selector,
    settings::select::{ProxyKind, SelectSettings},
    store::ScoreStore,
};

/// The candidates cut into chunks for one budget, and what agents read of them.
pub(crate) struct Chunks {
    pub(crate) limit: Limit,
    pub(crate) pool: Pool,
    pub(crate) features: FeatureContext,
}

impl Chunks {
    pub(crate) fn cut(context: Context<'_>, candidates: &Candidates, chunk: ChunkSize, limit: Limit) -> Result<Self> {
        let clusters = &candidates.clustered.clusters;
        let traits = describe::traits(context, &candidates.vectors.splits.validation, clusters)?;
        let pool = candidates.pool(context, chunk, limit);
        Ok(Self {
            limit,
            features: FeatureContext::new(traits, &pool),
            pool,
        })
    }
}

/// What rewards a search.
pub(crate) struct Rewards<'a> {
    pub(crate) probe: &'a dyn Scorer,
    /// The slow scorer, where it rewards; models of its scores then read the probe's as well.
    pub(crate) slow: Option<Box<dyn Scorer + 'a>>,
}

impl<'a> Rewards<'a> {
    pub(crate) fn new(
        context: Context<'_>,
        probe: &'a dyn Scorer,
        target: Option<&Target>,
        trainer: Option<&'a dyn BatchScorer>,
    ) -> Self {
        let slow: Option<Box<dyn Scorer + 'a>> = match (context.settings.proxy, target, trainer) {
            (ProxyKind::Finetune, Some(target), _) => Some(Box::new(target.rewarding(context))),
            (ProxyKind::Trainer, _, Some(trainer)) => Some(Box::new(WholeSelections(trainer))),
            _ => None,
        };
        Self { probe, slow }
    }

    /// The problem of choosing from these chunks, with nothing spent; `seed` is that of the scorer's trainings.
    pub(crate) fn pose<'p>(
        &'p self,
        context: Context<'p>,
        chunks: &'p Chunks,
        store: &'p mut dyn ScoreStore,
        limits: Limits,
        seed: Seed,
    ) -> Result<Problem<'p>> {
        let scorer: &dyn Scorer = match &self.slow {
            Some(slow) => &**slow,
            None => self.probe,
        };
        let features = chunks.features.clone();
        let problem = Problem::new(&chunks.pool, scorer, store, features, limits, seed, context.monitor())?;
        Ok(match &self.slow {
            Some(_) => problem.with_hint(self.probe),
            None => problem,
        })
    }
}

/// What a search came to.
pub(crate) struct Found {
    /// The best full states, best first.
    pub(crate) finalists: Vec<Finalist>,
    /// In which mode of the run the curve's states are.
    pub(crate) mode: usize,
    /// Evaluations spent.
    pub(crate) evaluations: u64,
    /// Those of them that failed.
    pub(crate) failures: u64,
    /// How the search went.
    pub(crate) curve: Curve,
    /// Seconds that earlier starts of a run that was killed searched.
    pub(crate) earlier_seconds: f64,
    /// How a portfolio decided; the first finalist is then its choice.
    pub(crate) portfolio: Option<Decided>,
}

impl Found {
    /// Leaves out every finalist that has the rows of a better one, so that none is trained on twice.
    pub(crate) fn keep_distinct(&mut self) {
        let mut seen = HashSet::new();
        let new: Vec<bool> = (self.finalists.iter())
            .map(|finalist| {
                let mut rows = finalist.rows.clone();
                rows.sort_unstable();
                seen.insert(rows)
            })
            .collect();
        let (mut of_finalists, mut of_order) = (new.iter(), new.iter());
        self.finalists.retain(|_| of_finalists.next() == Some(&true));
        if let Some(decided) = &mut self.portfolio {
            decided.order.retain(|_| of_order.next() == Some(&true));
        }
    }
}

/// A selection that may be chosen.
pub(crate) struct Finalist {
    /// In the order in which they were taken.
    pub(crate) rows: Vec<RowId>,
    /// The way to it in a mode of the run; none where a rule chose it.
    pub(crate) path: Option<(usize, Trajectory)>,
}

impl Finalist {
    pub(crate) fn by_rule(rows: Vec<RowId>) -> Self {
        Self { rows, path: None }
    }
}

/// How a portfolio decided.
pub(crate) struct Decided {
    pub(crate) record: PortfolioRecord,
    /// The entrant of each finalist.
    pub(crate) order: Vec<usize>,
}

/// Lets the agent of the settings spend a problem's evaluations; `chunks` are those that it was posed with, in the run's only mode.
pub(crate) fn search(problem: Problem<'_>, chunks: &Chunks, settings: &SelectSettings) -> Result<Found> {
    let seed = settings.seed;
    let mut selector = settings
        .agent
        .selector(&problem, settings.methods(), seed.derive("agent"))?;
    search_by(problem, &mut *selector, (0, chunks), seed.derive("search"))
}

/// Lets a selector spend a problem's evaluations in this mode of the run. What was paid for is stored, also when the search was stopped.
pub(crate) fn search_by(
    mut problem: Problem<'_>,
    selector: &mut dyn Selector,
    (mode, chunks): (usize, &Chunks),
    seed: Seed,
) -> Result<Found> {
    let outcome = selector.select(&mut problem, seed);
    problem.finish()?;
    outcome?;
    let curve = problem.curve();
    let best = problem.best().iter();
    Ok(Found {
        earlier_seconds: curve.earlier_seconds(),
        finalists: best
            .map(|(_, state, trajectory)| Finalist {
                rows: chunks.pool.rows_of(state),
                path: Some((mode, trajectory.to_vec())),
            })
            .collect(),
        mode,
        portfolio: None,
        evaluations: problem.evaluations(),
        failures: problem.failures(),
        curve,
    })
}

/// Whether the evaluations last for an episode, and the budget for a row; the most steps that an episode can have.
pub(crate) fn check_episode(settings: &SelectSettings, pool: &Pool, tokens: &[u32]) -> Result<u64> {
    let longest = pool.longest_episode();
    if longest == 0 || pool.legal(&pool.empty()).iter().all(Option::is_none) {
        return Err(not_for_a_row(settings.budget, tokens));
    }
    if longest >= settings.max_evaluations && settings.agent.pays_for_steps(settings.reward_model) {
        return Err(Error::setting(
            "max_evaluations",
            format!("more than the {longest} that one episode may take"),
            settings.max_evaluations.to_string(),
        )
        .with_hint("larger chunks make shorter episodes: `chunk <rows>`"));
    }
    Ok(longest)
}

/// The limits ended the search before the budget was spent even once.
pub(crate) fn too_short(settings: &SelectSettings, longest: u64, evaluations: u64) -> Error {
    match settings.max_time {
        Some(seconds) if evaluations < settings.max_evaluations => Error::setting(
            "max_time",
            "time for at least one whole episode",
            format!("{seconds} s, which ended after {evaluations} evaluations"),
        )
        .with_hint("start again in another folder with more time, or with fewer steps: `chunk <rows>`"),
        _ => Error::setting(
            "max_evaluations",
            format!("enough for one whole episode of up to {longest} steps, each of which tries several actions"),
            settings.max_evaluations.to_string(),
        )
        .with_hint(format!(
            "start again in another folder with `max_evaluations {}`, or with fewer steps: `chunk <rows>`",
            20 * longest
        )),
    }
}

//! The search: the problem is posed, and the agent of the settings spends its evaluations.

use tamis_nn::{Monitor, seed::Seed};

use crate::{
    Error, Result,
    env::pool::{Pool, State},
    problem::{Curve, FeatureContext, Limits, Problem, Trajectory},
    scorer::{Scorer, finetune::FinetuneScorer, ridge::probe::Probe},
    settings::select::SelectSettings,
    store::ledger::Ledger,
};

/// Whether the evaluations last for an episode, and the budget for a row; the most steps that an episode can have.
pub(crate) fn check_episode(settings: &SelectSettings, pool: &Pool, tokens: &[u32]) -> Result<u64> {
    let longest = pool.longest_episode();
    if longest == 0 || pool.legal(&pool.empty()).iter().all(Option::is_none) {
        let (least, most) = (tokens.iter().min().unwrap_or(&0), tokens.iter().max().unwrap_or(&0));
        return Err(Error::setting(
            "budget",
            format!("enough for one row (rows have {least} to {most} tokens)"),
            format!("`{}`", settings.budget),
        ));
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

/// A problem for the proxy of a run, with nothing spent. Where scores are dear, models of them read the probe's as well.
pub(crate) fn pose<'a>(
    pool: &'a Pool,
    (probe, dear): (&'a Probe, Option<&'a FinetuneScorer>),
    ledger: &'a mut Ledger,
    (features, limits, seed): (FeatureContext, Limits, Seed),
    monitor: &'a dyn Monitor,
) -> Result<Problem<'a>> {
    let proxy: &dyn Scorer = dear.map_or(probe as &dyn Scorer, |dear| dear);
    let problem = Problem::new(pool, proxy, ledger, features, limits, seed.derive("proxy"), monitor)?;
    Ok(match dear {
        Some(_) => problem.with_hint(probe),
        None => problem,
    })
}

/// What a search came to.
pub(crate) struct Found {
    /// The best full states with the paths to them, best first.
    pub(crate) finalists: Vec<(State, Trajectory)>,
    /// Evaluations spent.
    pub(crate) evaluations: u64,
    /// Those of them that failed.
    pub(crate) failures: u64,
    /// How the search went.
    pub(crate) curve: Curve,
    /// Seconds that earlier starts of a run that was killed searched.
    pub(crate) earlier: f64,
}

/// Lets the agent of the settings spend a problem's evaluations. What was paid for is on disk, also when the search was stopped.
pub(crate) fn search(mut problem: Problem<'_>, settings: &SelectSettings, seed: Seed) -> Result<Found> {
    let mut selector = settings
        .agent
        .selector(&problem, settings.methods(), seed.derive("agent"))?;
    let outcome = selector.select(&mut problem, seed.derive("search"));
    problem.finish()?;
    outcome?;
    let curve = problem.curve();
    let best = problem.best().iter();
    Ok(Found {
        earlier: curve.earlier_seconds(),
        finalists: best.map(|(_, state, path)| (state.clone(), path.to_vec())).collect(),
        evaluations: problem.evaluations(),
        failures: problem.failures(),
        curve,
    })
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

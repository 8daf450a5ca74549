//! `check agent`: how much of the optimum does each agent reach where the optimum is known?
//!
//! The user's own pool is clustered coarsely and cut into chunks so large that all full selections can be enumerated. Every agent then
//! gets a fifth of the evaluations that enumeration takes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tamis_nn::{Monitor, monitor::Quiet, seed::Seed};

use crate::{
    Error, Result,
    budget::Limit,
    candidates::domain::{self, Contrast},
    cluster::{self, KMeansSettings},
    data,
    env::pool::{ChunkSize, Pool},
    pipeline::{
        candidates::probe_of,
        context::Context,
        describe,
        embed::{self, Vectors},
        gradients::vectors,
        probe::{MOMENTS_MEMORY, TunedProbes},
        session::{Read, read},
        stages::Stages,
    },
    problem::{FeatureContext, Limits, Problem, Trajectory},
    records::selection::{ReadRecord, StageRecord, VERSION},
    scorer::Scorer,
    search::{Method, full_paths},
    settings::select::SelectSettings,
    stats::power::mean_and_sd,
    store::ScoreStore,
    vectors::VectorStore,
    workspace::{folder, json},
};

/// Clusters and chunks chosen from them, problem after problem: 816 to 15,504 selections where no cluster runs out.
const LADDER: [(usize, u64); 10] = [
    (16, 3),
    (12, 4),
    (10, 5),
    (14, 4),
    (16, 4),
    (12, 5),
    (10, 6),
    (14, 5),
    (12, 6),
    (16, 5),
];
/// Agents may spend this share of what enumeration takes.
const SHARE: u64 = 5;
/// More selections than this are not enumerated: many short chunks make a problem larger than it was meant to be.
const MOST: usize = 100_000;
/// States that are scored side by side.
const BATCH: usize = 256;
/// What share of the optimum's gain counts as reaching it.
const REACHED: f64 = 0.99;

/// The settings of a check of the agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckAgentSettings {
    /// The selection whose pool and proxy the problems are made from; its agent does not count.
    pub select: SelectSettings,
    /// The agents that are checked. Default: all but `auto` and `exhaustive`, which finds the optimum.
    pub agents: Vec<Method>,
    /// How many problems. Default: 20.
    pub problems: usize,
    /// How many seeds an agent and problem. Default: 5.
    pub seeds: usize,
}

impl Default for CheckAgentSettings {
    fn default() -> Self {
        let all = Method::NAMES.iter().map(|(method, ..)| *method);
        Self {
            select: SelectSettings::default(),
            agents: all
                .filter(|method| !matches!(method, Method::Auto | Method::Exhaustive))
                .collect(),
            problems: 20,
            seeds: 5,
        }
    }
}

/// `check_agent.json`: the problems, and what each agent made of them.
#[derive(Debug, Clone, Serialize)]
pub struct CheckAgentRecord {
    /// The format's version.
    pub version: u32,
    /// The program's version.
    pub tamis: String,
    /// What became of the rows of the training files.
    pub read: ReadRecord,
    /// The metric that rewards are made of.
    pub metric: String,
    /// The problems.
    pub problems: Vec<ProblemRecord>,
    /// The agents, in the order asked.
    pub agents: Vec<AgentRecord>,
    /// Seeds an agent and problem.
    pub seeds: usize,
    /// What to make of it, in a sentence.
    pub verdict: String,
    /// Seconds and memory by stage.
    pub stages: Vec<StageRecord>,
    /// The settings as resolved.
    pub settings: serde_json::Value,
}

/// A problem whose optimum is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProblemRecord {
    /// Clusters, which are the actions.
    pub clusters: usize,
    /// Chunks that may be taken.
    pub steps: u64,
    /// Rows of a chunk.
    pub chunk: u32,
    /// Full selections, which is what enumeration pays for.
    pub selections: usize,
    /// Evaluations that agents may spend.
    pub evaluations: u64,
    /// The score of nothing, of the mean full selection, and of the best one.
    pub empty: f64,
    /// See `empty`.
    pub mean: f64,
    /// See `empty`.
    pub optimum: f64,
}

/// What an agent reached, over all problems and seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentRecord {
    /// Its name.
    pub agent: String,
    /// Share of the optimum's gain over nothing: mean, and standard deviation over runs.
    pub gain: f64,
    /// See `gain`.
    pub gain_sd: f64,
    /// Share of the optimum's gain over the mean selection, which is what choosing at random makes: mean.
    pub over_random: f64,
    /// The least share of the gain over nothing.
    pub worst: f64,
    /// Share of the runs that reached 99% of the gain.
    pub reached: f64,
    /// Evaluations after which the best selection was found, as a mean, and as a share of what enumeration takes.
    pub evaluations: f64,
    /// See `evaluations`.
    pub of_enumeration: f64,
}

/// A problem small enough to be enumerated, and what is needed to pose it.
struct EnumerableProblem {
    pool: Pool,
    features: FeatureContext,
    seed: Seed,
}

impl EnumerableProblem {
    fn pose<'a>(&'a self, bench: &'a mut Bench<'_>, evaluations: u64) -> Result<Problem<'a>> {
        let limits = Limits::evaluations(evaluations);
        let (features, store) = (self.features.clone(), &mut *bench.store);
        Problem::new(
            &self.pool,
            bench.scorer,
            store,
            features,
            limits,
            self.seed,
            bench.monitor,
        )
    }
}

/// What every run of an agent needs.
struct Bench<'a> {
    settings: &'a SelectSettings,
    scorer: &'a dyn Scorer,
    store: &'a mut dyn ScoreStore,
    monitor: &'a dyn Monitor,
}

impl CheckAgentSettings {
    fn check(&self) -> Result<()> {
        for (name, value) in [("problems", self.problems), ("seeds", self.seeds)] {
            if value == 0 {
                return Err(Error::setting(name, "a number above 0", "0"));
            }
        }
        Ok(())
    }
}

/// Poses small problems from the user's pool, finds their optima by enumeration, and lets every agent look for them.
///
/// # Errors
///
/// If the data, the settings or the folder are not as they must be, a file cannot be written, or the user stopped the run.
pub fn check_agent(settings: &CheckAgentSettings, monitor: &dyn Monitor) -> Result<CheckAgentRecord> {
    settings.check()?;
    let (stages, quiet) = (Stages::new(monitor), Quiet(monitor));
    let Read {
        settings: given,
        dataset,
        folds,
        responses,
    } = read(&settings.select, &stages)?;
    let responses = responses.as_ref();
    let mut store = folder::open(&given, &embed::sources(&given, &dataset, responses)?)?;
    data::write_rejects(&dataset.rejects, &given.out)?;
    let context = Context::new(&given, &dataset, &folds, responses, &stages);

    let vectors = vectors(context)?;
    let limit = vectors.limit(given.budget)?;
    let probe = probe_of(context, &vectors)?;
    let probes = TunedProbes::new(context, &*probe, &vectors, limit)?;
    let (pool, fold) = (vectors.of_pool(context)?, vectors.of_fold(context)?);
    let Contrast { domain_auc, .. } = domain::contrast(&*pool, &fold, given.seed.derive("pool"))?;
    let select = given.resolved(given.shifted(domain_auc, pool.count(), fold.rows()));
    let metric = select.reward_metric();
    let scorer = probes.at_budget.scorer(metric, MOMENTS_MEMORY)?;
    let mut bench = Bench {
        settings: &select,
        scorer: &*scorer,
        store: &mut store,
        monitor: &quiet,
    };

    let posed = stages.run("enumerate", Some(settings.problems as u64), || {
        let mut posed = Vec::new();
        for (i, &(clusters, steps)) in LADDER.iter().cycle().take(settings.problems).enumerate() {
            let seed = select.seed.derive("small problem").index(i as u64);
            let small = small(context, &vectors, &*pool, limit, clusters, steps, seed)?;
            posed.extend(enumerate(&small, steps, &mut bench)?.map(|record| (small, record)));
            monitor.advance(1);
        }
        Ok(posed)
    })?;
    if posed.is_empty() {
        return Err(Error::setting(
            "budget",
            "a pool and a budget that leave at least 20 selections to choose from",
            format!("`{}` of {} rows", select.budget, dataset.pool.len()),
        ));
    }
    let agents = attempts(settings, &posed, &mut bench, &stages)?;
    let record = CheckAgentRecord {
        version: VERSION,
        tamis: env!("CARGO_PKG_VERSION").to_owned(),
        read: ReadRecord::of(&dataset),
        metric: metric.to_string(),
        verdict: verdict(&agents, select.agent),
        problems: posed.into_iter().map(|(_, record)| record).collect(),
        agents,
        seeds: settings.seeds,
        stages: stages.records(),
        settings: serde_json::to_value(settings).unwrap_or_default(),
    };
    json::write_json(&check_agent_path(settings), &record)?;
    Ok(record)
}

/// A problem of so many clusters and steps; `pool` is one vector a row of the pool.
fn small(
    context: Context<'_>,
    vectors: &Vectors,
    pool: &dyn VectorStore,
    limit: Limit,
    clusters: usize,
    steps: u64,
    seed: Seed,
) -> Result<EnumerableProblem> {
    let (dataset, tokens) = (context.dataset, &vectors.tokens);
    let rows = match limit {
        Limit::Rows(rows) => rows,
        // As many rows as the tokens make on average.
        Limit::Tokens(limit) => {
            let all: u64 = tokens.iter().map(|&tokens| u64::from(tokens)).sum();
            limit * dataset.pool.len() as u64 / all.max(1)
        }
    };
    let k_means = KMeansSettings {
        clusters: clusters.min(pool.count()),
        ..context.settings.k_means.clone()
    };
    let clusters = cluster::k_means(pool, &k_means, seed, &Quiet(context.monitor()))?;
    let chunk = rows.div_ceil(steps).max(1) as u32;
    let limit = Limit::Rows((u64::from(chunk) * steps).min(pool.count() as u64));
    let count = clusters.centroids.rows();
    let chunk = ChunkSize::Rows(chunk);
    let pool = Pool::new(&dataset.pool, &clusters.assignment, tokens, count, chunk, limit, seed);
    let traits = describe::traits(context, &vectors.splits.validation, &clusters)?;
    let features = FeatureContext::new(traits, &pool);
    Ok(EnumerableProblem { pool, features, seed })
}

/// The problem's record, or nothing if it has too few selections to choose from, or too many to look at.
fn enumerate(small: &EnumerableProblem, steps: u64, bench: &mut Bench<'_>) -> Result<Option<ProblemRecord>> {
    let Some(paths) = full_paths(&small.pool, MOST).filter(|paths| paths.len() >= 20) else {
        return Ok(None);
    };
    let mut problem = small.pose(bench, u64::MAX)?;
    let empty = problem.score_paths(&[Trajectory::new()])?[0];
    let mut scores = Vec::with_capacity(paths.len());
    for batch in paths.chunks(BATCH) {
        scores.extend(problem.score_paths(batch)?);
    }
    problem.finish()?;
    let evaluations = (paths.len() as u64 / SHARE).max(small.pool.longest_episode() + 2);
    Ok(Some(ProblemRecord {
        clusters: small.pool.clusters(),
        steps,
        chunk: small.pool.chunk().unwrap_or(0),
        selections: paths.len(),
        evaluations,
        empty,
        mean: scores.iter().sum::<f64>() / scores.len() as f64,
        optimum: scores.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }))
}

/// What every agent reaches over all problems and seeds.
fn attempts(
    settings: &CheckAgentSettings,
    posed: &[(EnumerableProblem, ProblemRecord)],
    bench: &mut Bench<'_>,
    stages: &Stages<'_>,
) -> Result<Vec<AgentRecord>> {
    let count = settings.agents.len() * settings.seeds * posed.len();
    stages.run("agents", Some(count as u64), || {
        let mut agents = Vec::new();
        for &method in &settings.agents {
            let mut runs = Vec::new();
            for (small, record) in posed {
                for seed in 0..settings.seeds as u64 {
                    let seed = small.seed.derive("agents").index(seed);
                    runs.push(attempt(method, small, record, bench, seed)?);
                    stages.monitor().advance(1);
                }
            }
            agents.push(summarise(method, &runs));
        }
        Ok(agents)
    })
}

/// One run of an agent on a problem: shares of the gain over nothing and over the mean selection, evaluations until the best was
/// found, and those as a share of enumeration's.
fn attempt(
    method: Method,
    small: &EnumerableProblem,
    record: &ProblemRecord,
    bench: &mut Bench<'_>,
    seed: Seed,
) -> Result<[f64; 4]> {
    let settings = bench.settings;
    let mut problem = small.pose(bench, record.evaluations)?;
    let mut selector = method.selector(&problem, settings.methods(), seed.derive("agent"))?;
    selector.select(&mut problem, seed.derive("search"))?;
    problem.finish()?;
    let found = problem
        .curve()
        .improvements()
        .last()
        .map(|best| (best.reward, best.evaluations));
    let (score, evaluations) = found.unwrap_or((record.empty, problem.evaluations()));
    let share = |from: f64| {
        let whole = record.optimum - from;
        if whole > 0.0 { (score - from) / whole } else { 1.0 }
    };
    Ok([
        share(record.empty),
        share(record.mean),
        evaluations as f64,
        evaluations as f64 / record.selections as f64,
    ])
}

fn summarise(method: Method, runs: &[[f64; 4]]) -> AgentRecord {
    let count = runs.len().max(1) as f64;
    let mean = |i: usize| runs.iter().map(|run| run[i]).sum::<f64>() / count;
    let (gain, gain_sd) = mean_and_sd(&runs.iter().map(|run| run[0]).collect::<Vec<f64>>());
    AgentRecord {
        agent: method.to_string(),
        gain,
        gain_sd,
        over_random: mean(1),
        worst: runs.iter().map(|run| run[0]).fold(f64::INFINITY, f64::min),
        reached: runs.iter().filter(|run| run[0] >= REACHED).count() as f64 / count,
        evaluations: mean(2),
        of_enumeration: mean(3),
    }
}

/// What to make of it: whether the agent in use can be trusted to find what is there.
fn verdict(agents: &[AgentRecord], used: Method) -> String {
    let Some(best) = agents.iter().max_by(|a, b| a.gain.total_cmp(&b.gain)) else {
        return String::new();
    };
    let told = |agent: &AgentRecord| {
        format!(
            "{} reaches {:.1}% of the optimum's gain over nothing and {:.1}% of that over random selections",
            agent.agent,
            100.0 * agent.gain,
            100.0 * agent.over_random
        )
    };
    match agents.iter().find(|agent| agent.agent == used.to_string()) {
        Some(agent) if agent.gain >= REACHED => format!("Sound: {}.", told(agent)),
        Some(agent) if agent.agent == best.agent => format!("No agent finds the optima: {} at best.", told(agent)),
        Some(agent) => format!("{}; {}: use `agent {}`.", told(agent), told(best), best.agent),
        None => format!("Best: {}.", told(best)),
    }
}

/// Where the record of a check is.
pub fn check_agent_path(settings: &CheckAgentSettings) -> PathBuf {
    settings.select.out.join("check_agent.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_summed_up_as_worked_by_hand() {
        let record = summarise(Method::Greedy, &[[1.0, 1.0, 10.0, 0.1], [0.5, 0.0, 30.0, 0.3]]);
        assert_eq!((record.gain, record.over_random, record.worst), (0.75, 0.5, 0.5));
        assert_eq!(
            (record.reached, record.evaluations, record.of_enumeration),
            (0.5, 20.0, 0.2)
        );
        assert!((record.gain_sd - 0.125f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_verdict_names_what_to_use() {
        let agent = |method: Method, gain: f64| summarise(method, &[[gain, gain, 1.0, 0.1]]);
        let agents = [agent(Method::Dqn, 0.9), agent(Method::Ppo, 0.995)];
        assert!(verdict(&agents, Method::Dqn).ends_with("use `agent ppo`."));
        assert!(verdict(&agents, Method::Ppo).starts_with("Sound"));
        assert!(verdict(&agents[..1], Method::Dqn).starts_with("No agent"));
        assert!(verdict(&agents, Method::Bandit).starts_with("Best: ppo"));
    }
}

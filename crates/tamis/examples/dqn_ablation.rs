//! What each part of the DQN is worth on weighted coverage: the table of docs/lab/2026-11-dqn-ablation.md.
//!
//! ```sh
//! cargo run --release --example dqn_ablation
//! ```
//!
//! Three problems that the greedy choice does not solve and whose optimum is known by enumeration, five seeds each, and the same
//! number of observed rewards for every variant. One part is changed at a time. The first table starts from the default settings, but
//! with 5 actions tried at a step and not 18, since there are no more than 28. The second starts from plain DQN, which observes no
//! reward but that of the action taken. Columns are percent of the optimum: the best episode of the run, which is what a selection is
//! after, and the greedy episode of the trained network.

use rayon::prelude::*;
use tamis::{
    Result,
    agents::{
        Agent, TrainEvent,
        dqn::{Dqn, DqnSettings},
        network::NetworkKind,
    },
    env::{
        Environment,
        coverage::{Counted, Coverage},
    },
};
use tamis_nn::seed::Seed;

/// Actions, items, picks.
const PROBLEMS: [(usize, usize, usize); 3] = [(20, 80, 5), (24, 96, 5), (28, 112, 5)];
/// Rewards that an agent may see, those of a lookahead and of states known already included.
const REWARDS: u64 = 600;
const SEEDS: u64 = 5;

/// The default is for runs of several times as many rewards.
const LEARNING_STARTS: usize = 50;

/// A change to the settings, by name.
type Change = (&'static str, fn(DqnSettings) -> DqnSettings);

const CHANGES: [Change; 11] = [
    ("as it is", |settings| settings),
    ("not double", |settings| DqnSettings {
        double: false,
        ..settings
    }),
    ("one-step returns", |settings| DqnSettings { n_steps: 1, ..settings }),
    ("replay of one episode (`buffer_size = 1`)", |settings| DqnSettings {
        buffer_size: 1,
        ..settings
    }),
    ("no epsilon", |settings| DqnSettings {
        exploration_initial_eps: 0.0,
        exploration_final_eps: 0.0,
        ..settings
    }),
    ("no mask on what comes next", |settings| DqnSettings {
        mask_next: false,
        ..settings
    }),
    ("no observed rewards", |settings| DqnSettings {
        reward_batch_size: 0,
        ..settings
    }),
    ("flat network", |settings| DqnSettings {
        network: NetworkKind::Flat,
        ..settings
    }),
    ("futures not calibrated (plain: calibrated)", |settings| DqnSettings {
        calibrate: !settings.calibrate,
        ..settings
    }),
    (NO_EXPLORERS, |settings| DqnSettings {
        explorers: 0,
        ..settings
    }),
    (WHOLE, |settings| DqnSettings {
        split: false,
        ..settings
    }),
];

/// Changes that mean something with a lookahead alone, and without one alone.
const NO_EXPLORERS: &str = "no explorers";
const WHOLE: &str = "reward and future learned as one (`split = false`)";

/// Shares of the optimum: the best episode, the network alone.
fn run(settings: DqnSettings, problem: &Coverage, optimum: f64, seed: Seed) -> Result<[f64; 2]> {
    let mut env = Counted::new(problem.clone(), REWARDS);
    let mut agent = Dqn::new(env.shape(), settings, seed.derive("agent"))?;
    let mut best = f64::NEG_INFINITY;
    let mut log = |event: &TrainEvent| {
        best = best.max(event.episode_return);
        Ok(())
    };
    agent.train(&mut env, seed, &mut log)?;
    let mut seen = env.reset(Seed(0))?;
    let mut alone = 0.0;
    while seen.legal.contains(&true) {
        let step = env.step(agent.act(&seen))?;
        alone += step.reward;
        seen = step.observation;
    }
    Ok([best, alone].map(|value| 100.0 * value / optimum))
}

fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

fn main() -> Result<()> {
    let problems: Vec<(Coverage, f64)> = PROBLEMS
        .par_iter()
        .enumerate()
        .map(|(i, &(actions, items, picks))| {
            // The first problem of this size that taking the greatest gain at each step does not solve.
            let mut seeds = (0..).map(|k| Seed(100 + i as u64).index(k));
            loop {
                let seed = seeds.next().unwrap_or(Seed(0));
                let problem = Coverage::random(actions, items, picks, u64::MAX, seed);
                let optimum = problem.optimum();
                if problem.greedy() < 0.995 * optimum {
                    return (problem, optimum);
                }
            }
        })
        .collect();
    let plain = DqnSettings {
        lookahead: 0,
        calibrate: false,
        exploration_initial_eps: 0.5,
        learning_starts: LEARNING_STARTS,
        ..DqnSettings::default()
    };
    let bases = [
        (
            "default, 5 tried",
            DqnSettings {
                lookahead: 4,
                explorers: 1,
                learning_starts: LEARNING_STARTS,
                ..DqnSettings::default()
            },
        ),
        ("plain", plain),
    ];
    for (name, base) in bases {
        println!("| {name} | best episode, % of the optimum | sd | the network alone, % | sd |\n|---|---|---|---|---|");
        for (change, apply) in CHANGES {
            if change == if base.lookahead == 0 { NO_EXPLORERS } else { WHOLE } {
                continue;
            }
            let settings = apply(base.clone());
            let shares: Vec<[f64; 2]> = (0..PROBLEMS.len() * SEEDS as usize)
                .into_par_iter()
                .map(|i| {
                    let (problem, optimum) = &problems[i % PROBLEMS.len()];
                    run(settings.clone(), problem, *optimum, Seed((i / PROBLEMS.len()) as u64))
                })
                .collect::<Result<_>>()?;
            let column = |k: usize| mean_and_spread(&shares.iter().map(|share| share[k]).collect::<Vec<_>>());
            let ((best, best_sd), (alone, alone_sd)) = (column(0), column(1));
            println!("| {change} | {best:.1} | {best_sd:.1} | {alone:.1} | {alone_sd:.1} |");
        }
        println!();
    }
    Ok(())
}

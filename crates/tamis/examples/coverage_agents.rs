//! Trains our agents on a weighted coverage problem and writes the problem to a file, so that other programs can train theirs.
//!
//! ```sh
//! cargo run --release --example coverage_agents -- <actions> <picks> <steps> <seed> <problem.json>
//! ```
//!
//! The last line is JSON: the value of the greedy choice, the optimum (null where there are too many choices to enumerate), and the
//! results of each agent. `experiments/peers/agents.py` trains other implementations on the same problem, and `experiments/benchmarks.py` prints both
//! side by side.
//!
//! The budget is a number of observed rewards: a step is one, and so is every action of a lookahead. An agent that looks ahead
//! therefore takes fewer steps.

use std::{fs, time::Instant};

use serde_json::json;
use tamis::{
    Result,
    agents::{
        Agent, TrainEvent,
        dqn::{Dqn, DqnSettings},
        network::NetworkKind,
        ppo::{Pay, Ppo, PpoSettings},
    },
    env::{
        Environment,
        coverage::{Counted, Coverage},
    },
};
use tamis_nn::seed::Seed;

/// Up to how many choices are enumerated to find the optimum.
const CHOICES: f64 = 1e6;

/// Trains an agent until the budget is spent; `training_steps` tells how often it learned.
fn run<A: Agent>(
    problem: &Coverage,
    mut agent: A,
    steps: u64,
    seed: Seed,
    training_steps: impl Fn(&A) -> u64,
) -> Result<serde_json::Value> {
    let mut env = Counted::new(problem.clone(), steps);
    let mut returns = Vec::new();
    let mut log = |event: &TrainEvent| {
        returns.push(event.episode_return);
        Ok(())
    };
    let began = Instant::now();
    agent.train(&mut env, seed, &mut log)?;
    let seconds = began.elapsed().as_secs_f64();
    let (seen, taken) = (env.seen(), env.steps());
    let mut observation = env.reset(Seed(0))?;
    let mut last = 0.0;
    while observation.legal.contains(&true) {
        let step = env.step(agent.act(&observation))?;
        last += step.reward;
        observation = step.observation;
    }
    let updates = training_steps(&agent);
    Ok(json!({
        "rewards_seen": seen,
        "environment_steps": taken,
        "training_steps": updates,
        "seconds": seconds,
        "training_steps_per_second": updates as f64 / seconds,
        "last_return": last,
        "best_return": returns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [actions, picks, steps, seed, path] = arguments.as_slice() else {
        panic!("usage: coverage_agents <actions> <picks> <steps> <seed> <problem.json>");
    };
    let number = |text: &String| -> u64 { text.parse().unwrap_or_else(|_| panic!("`{text}` is no number")) };
    let (actions, picks) = (number(actions) as usize, number(picks) as usize);
    let (steps, seed) = (number(steps), Seed(number(seed)));
    let problem = Coverage::random(actions, 4 * actions, picks, u64::MAX, Seed(11));
    fs::write(path, json!(problem).to_string()).unwrap_or_else(|error| panic!("{path}: {error}"));

    // What Stable-Baselines3's DQN does, so far as ours can: the same network, batch size, learning rate, targets and exploration.
    let plain = DqnSettings {
        network: NetworkKind::Flat,
        hidden: 64,
        split: false,
        learning_rate: 1e-3,
        batch_size: 32,
        reward_batch_size: 0,
        gradient_steps: 2,
        n_steps: 5,
        double: false,
        lookahead: 0,
        calibrate: false,
        exploration_initial_eps: 0.5,
        exploration_final_eps: 0.05,
        learning_starts: 200,
        ..DqnSettings::default()
    };
    let agents = [
        ("tamis, DQN as Stable-Baselines3's", plain),
        ("tamis, DQN as it is by default", DqnSettings::default()),
    ];
    let mut results = serde_json::Map::new();
    for (name, settings) in agents {
        let agent = Dqn::new(problem.shape(), settings, seed.derive("agent"))?;
        results.insert(name.to_owned(), run(&problem, agent, steps, seed, Dqn::training_steps)?);
    }
    // Stable-Baselines3's networks, rate, batch and passes, on rounds as long.
    let ppo = PpoSettings {
        network: NetworkKind::Flat,
        hidden: 64,
        learning_rate: 3e-4,
        pay: Pay::Steps,
        episodes: 256 / picks.clamp(1, 256),
        n_epochs: 10,
        batch_size: 64,
        ent_coef: 0.0,
        // It does not stop early either.
        target_kl: f64::MAX,
        ..PpoSettings::default()
    };
    let ppos = [
        ("tamis, PPO as MaskablePPO", ppo),
        ("tamis, PPO as it is by default", PpoSettings::default()),
    ];
    for (name, settings) in ppos {
        let agent = Ppo::new(problem.shape(), settings, seed.derive("agent"))?;
        results.insert(name.to_owned(), run(&problem, agent, steps, seed, Ppo::training_steps)?);
    }
    let choices: f64 = (0..picks).map(|i| (actions - i) as f64 / (i + 1) as f64).product();
    let optimum = (choices <= CHOICES).then(|| problem.optimum());
    println!(
        "{}",
        json!({"greedy": problem.greedy(), "optimum": optimum, "agents": results})
    );
    Ok(())
}

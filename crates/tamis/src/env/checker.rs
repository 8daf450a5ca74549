//! A conformance check for environments: do they keep the contract that agents rely on?

use rand::RngExt;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    env::{Action, Environment, Observation, Shape},
};

/// Runs `episodes` random episodes and lists every violation; an empty list is a pass.
///
/// The contract: shapes never change; features are finite; rewards are finite and equal those of a lookahead; a lookahead changes
/// nothing; an episode ends if and only if no action is legal; the same actions give the same episode; a simulation has the same
/// legal actions as the episode, and the return of a plan is that of its episode.
///
/// # Errors
///
/// If the environment itself fails.
pub fn check(env: &mut dyn Environment, episodes: u64, seed: Seed) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for episode in 0..episodes {
        let mut rng = seed.index(episode).rng();
        let mut played: Vec<(Action, f64)> = Vec::new();
        let first = env.reset(seed)?;
        let mut observation = first.clone();
        loop {
            broken.extend(faults(env.shape(), &observation));
            let legal = observation.legal_actions();
            if legal.is_empty() {
                break;
            }
            let action = legal[rng.random_range(0..legal.len())];
            let ahead = env.lookahead(&[action, legal[0]])?;
            let again = env.lookahead(&[action])?;
            let step = env.step(action)?;
            if ahead[0] != again[0] || (ahead[0] - step.reward).abs() > 1e-9 {
                broken.push(format!(
                    "step {}: a lookahead said {} and {}, the step earned {}",
                    played.len(),
                    ahead[0],
                    again[0],
                    step.reward
                ));
            }
            if !step.reward.is_finite() {
                broken.push(format!("step {}: a reward of {}", played.len(), step.reward));
            }
            if step.terminated == step.observation.legal.contains(&true) {
                broken.push(format!(
                    "step {}: terminated is {}, but a legal action is {}",
                    played.len(),
                    step.terminated,
                    !step.terminated
                ));
            }
            played.push((action, step.reward));
            observation = step.observation;
            if step.terminated || step.truncated {
                break;
            }
        }
        broken.extend(simulation_faults(env, &played)?);
        if env.reset(seed)?.legal != first.legal {
            broken.push("two resets differ in their legal actions".into());
        }
        for (i, &(action, reward)) in played.iter().enumerate() {
            let step = env.step(action)?;
            if (step.reward - reward).abs() > 1e-9 {
                broken.push(format!(
                    "step {i}: the same actions earned {reward}, then {}",
                    step.reward
                ));
            }
        }
    }
    Ok(broken)
}

/// Simulates and evaluates the plan of an episode that was played.
fn simulation_faults(env: &mut dyn Environment, played: &[(Action, f64)]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let shape = env.shape();
    {
        let mut simulation = env.simulate()?;
        for (i, &(action, reward)) in played.iter().enumerate() {
            if !simulation.observe()?.legal[action] {
                faults.push(format!(
                    "step {i}: action {action} was legal, and is not in a simulation"
                ));
                return Ok(faults);
            }
            let afterstates = simulation.afterstates(&[action])?;
            if (afterstates.rows(), afterstates.cols()) != (1, shape.state_features)
                || !afterstates.as_slice().iter().all(|x| x.is_finite())
            {
                faults.push(format!("step {i}: afterstates of {afterstates:?}"));
            }
            simulation.take(action, reward)?;
        }
        if simulation.observe()?.legal.contains(&true) {
            faults.push("an episode ended where a simulation goes on".into());
        }
    }
    let earned: f64 = played.iter().map(|(_, reward)| reward).sum();
    let plan = played.iter().map(|&(action, _)| action).collect();
    let value = env.evaluate_plans(&[plan])?[0];
    if (value - earned).abs() > 1e-9 {
        faults.push(format!("an episode earned {earned}, its plan {value}"));
    }
    Ok(faults)
}

fn faults(shape: Shape, observation: &Observation) -> Vec<String> {
    let mut faults = Vec::new();
    let found = Shape {
        actions: observation.actions.rows(),
        action_features: observation.actions.cols(),
        global_features: observation.global.len(),
        ..shape
    };
    if found != shape || observation.legal.len() != shape.actions {
        faults.push(format!(
            "an observation of {found:?} with {} masks, expected {shape:?}",
            observation.legal.len()
        ));
    }
    if !observation
        .actions
        .as_slice()
        .iter()
        .chain(&observation.global)
        .all(|x| x.is_finite())
    {
        faults.push("a feature is not finite".into());
    }
    faults
}

//! A check that anyone can run on an environment: does it keep the promises that agents rely on?

use rand::RngExt;

use super::{Action, Environment, Observation, Shape};
use crate::{Result, seed::Seed};

/// Runs `episodes` random episodes and lists every broken promise; an empty list is a pass.
///
/// Promises: shapes never change; features are finite; rewards are finite and equal to what was peeked; a peek changes
/// nothing; an episode ends if and only if no action is legal; the same actions give the same episode.
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
            let open: Vec<Action> = (0..observation.legal.len()).filter(|&a| observation.legal[a]).collect();
            if open.is_empty() {
                break;
            }
            let action = open[rng.random_range(0..open.len())];
            let peeked = env.peek(&[action, open[0]])?;
            let again = env.peek(&[action])?;
            let step = env.step(action)?;
            if peeked[0] != again[0] || (peeked[0] - step.reward).abs() > 1e-9 {
                broken.push(format!(
                    "step {}: peeked {} and {}, earned {}",
                    played.len(),
                    peeked[0],
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

fn faults(shape: Shape, observation: &Observation) -> Vec<String> {
    let mut faults = Vec::new();
    let found = Shape {
        actions: observation.actions.rows(),
        action_features: observation.actions.cols(),
        global_features: observation.global.len(),
    };
    if found != shape || observation.legal.len() != shape.actions {
        faults.push(format!(
            "an observation of {found:?} with {} masks, promised {shape:?}",
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

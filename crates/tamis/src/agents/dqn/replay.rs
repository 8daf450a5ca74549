//! Replay: episodes are kept whole, and their steps are drawn again for training, uniformly.

use std::collections::VecDeque;

use rand::{Rng, RngExt};

use crate::env::{Action, Observation};

/// Episodes; the oldest are dropped when there are too many steps.
#[derive(Debug, Default)]
pub struct Replay {
    episodes: VecDeque<Episode>,
    capacity: usize,
    steps: usize,
}

/// An episode, perhaps still under way: one observation more than there are steps.
#[derive(Debug)]
struct Episode {
    observations: Vec<Observation>,
    actions: Vec<Action>,
    rewards: Vec<f64>,
}

/// `n` steps of an episode from one state on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition<'a> {
    /// The state.
    pub observation: &'a Observation,
    /// The action taken.
    pub action: Action,
    /// Its reward.
    pub reward: f64,
    /// The sum of the rewards of the next `n - 1` steps, or fewer at the end of an episode.
    pub more: f64,
    /// The state after those; no action is legal there if the episode ended.
    pub next: &'a Observation,
}

impl Replay {
    /// Room for `capacity` steps.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Begins an episode.
    pub fn begin(&mut self, first: Observation) {
        self.episodes.push_back(Episode {
            observations: vec![first],
            actions: Vec::new(),
            rewards: Vec::new(),
        });
    }

    /// Adds a step to the latest episode.
    ///
    /// # Panics
    ///
    /// If no episode was begun.
    pub fn push(&mut self, action: Action, reward: f64, next: Observation) {
        let episode = self.episodes.back_mut().expect("an episode was begun");
        episode.actions.push(action);
        episode.rewards.push(reward);
        episode.observations.push(next);
        self.steps += 1;
        while self.steps > self.capacity && self.episodes.len() > 1 {
            self.steps -= self.episodes.pop_front().map_or(0, |oldest| oldest.actions.len());
        }
    }

    /// How many steps there are to draw.
    pub fn len(&self) -> usize {
        self.steps
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// A step drawn uniformly, with its `n`-step return.
    ///
    /// # Panics
    ///
    /// If there is nothing to draw.
    pub fn sample(&self, n: usize, rng: &mut impl Rng) -> Transition<'_> {
        let mut at = rng.random_range(0..self.steps);
        for episode in &self.episodes {
            if let Some(transition) = episode.transition(at, n) {
                return transition;
            }
            at -= episode.actions.len();
        }
        unreachable!("the episodes hold as many steps as were counted")
    }

    /// What was earned from each step of the latest episode on, its own reward included.
    pub fn latest_returns(&self) -> Vec<f64> {
        let rewards = self.episodes.back().map_or(&[][..], |episode| &episode.rewards);
        let mut returns: Vec<f64> = rewards
            .iter()
            .rev()
            .scan(0.0, |sum, reward| {
                *sum += reward;
                Some(*sum)
            })
            .collect();
        returns.reverse();
        returns
    }
}

impl Episode {
    fn transition(&self, at: usize, n: usize) -> Option<Transition<'_>> {
        let action = *self.actions.get(at)?;
        let end = (at + n.max(1)).min(self.actions.len());
        Some(Transition {
            observation: &self.observations[at],
            action,
            reward: self.rewards[at],
            more: self.rewards[at + 1..end].iter().sum(),
            next: &self.observations[end],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamis_nn::{Matrix, seed::Seed};

    fn observation(mark: f32) -> Observation {
        Observation {
            actions: Matrix::zeros(1, 1),
            global: vec![mark],
            step: 0,
            legal: vec![true],
        }
    }

    fn filled(capacity: usize) -> Replay {
        let mut replay = Replay::new(capacity);
        for episode in 0..3 {
            replay.begin(observation(episode as f32 * 10.0));
            for step in 0..4 {
                replay.push(
                    step,
                    1.0 + step as f64,
                    observation(episode as f32 * 10.0 + step as f32 + 1.0),
                );
            }
        }
        replay
    }

    #[test]
    fn n_steps_are_summed_and_cut_at_the_end() {
        let replay = filled(100);
        let episode = &replay.episodes[0];
        let two = episode.transition(1, 3).expect("a step");
        // rewards 1 2 3 4: from step 1, two more steps earn 3 + 4, and the state after them is the last
        assert_eq!((two.reward, two.more, two.next.global[0]), (2.0, 7.0, 4.0));
        let last = episode.transition(3, 3).expect("a step");
        assert_eq!((last.reward, last.more, last.next.global[0]), (4.0, 0.0, 4.0));
        assert_eq!(replay.latest_returns(), [10.0, 9.0, 7.0, 4.0]);
    }

    #[test]
    fn the_oldest_episodes_go_and_every_step_left_is_drawn() {
        let replay = filled(9);
        assert_eq!(replay.len(), 8);
        let mut rng = Seed(1).rng();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..400 {
            let drawn = replay.sample(1, &mut rng);
            assert!(drawn.observation.global[0] >= 10.0, "a step of the dropped episode");
            seen.insert(drawn.observation.global[0] as u32);
        }
        assert_eq!(seen.len(), 8);
    }
}

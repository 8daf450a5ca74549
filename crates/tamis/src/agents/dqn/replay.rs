//! Replay: whole episodes are kept, and steps of them drawn again for training, uniformly or by priority.

use std::collections::VecDeque;

use rand::{Rng, RngExt};

use crate::{
    agents::dqn::priority::Priorities,
    env::{Action, Observation},
};

/// Episodes seen, the oldest dropped when there are too many steps.
#[derive(Debug, Default)]
pub struct Replay {
    episodes: VecDeque<Episode>,
    capacity: usize,
    steps: usize,
    /// What steps are drawn by, if not uniformly.
    priorities: Option<Priorities>,
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
    /// What it earned.
    pub reward: f64,
    /// What the at most `n - 1` steps after it earned together.
    pub more: f64,
    /// The state after those; nothing is legal there if the episode ended.
    pub next: &'a Observation,
}

/// A step that was drawn to learn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn<'a> {
    /// The number of the step since replay began: by it [`Replay::learned`] finds the step again.
    pub step: usize,
    /// What its loss is multiplied by, 0 to 1.
    pub weight: f32,
    /// The step and those after it.
    pub transition: Transition<'a>,
}

impl Replay {
    /// Room for `capacity` steps, drawn uniformly.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Room for `capacity` steps, drawn in proportion to the size of their last error to the power `exponent`; new ones as
    /// those of the largest error (Schaul et al. 2016, section 3.3).
    pub fn prioritised(capacity: usize, exponent: f64) -> Self {
        Self {
            capacity,
            priorities: Some(Priorities::new(exponent)),
            ..Self::default()
        }
    }

    /// An episode begins.
    pub fn begin(&mut self, first: Observation) {
        self.episodes.push_back(Episode {
            observations: vec![first],
            actions: Vec::new(),
            rewards: Vec::new(),
        });
    }

    /// A step of the latest episode.
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
        if let Some(priorities) = &mut self.priorities {
            priorities.push();
        }
        while self.steps > self.capacity && self.episodes.len() > 1 {
            let dropped = self.episodes.pop_front().map_or(0, |oldest| oldest.actions.len());
            self.steps -= dropped;
            if let Some(priorities) = &mut self.priorities {
                priorities.drop_oldest(dropped);
            }
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

    /// A step drawn uniformly, with what came within `n` steps.
    ///
    /// # Panics
    ///
    /// If there is nothing to draw.
    pub fn sample(&self, n: usize, rng: &mut impl Rng) -> Transition<'_> {
        self.transition(rng.random_range(0..self.steps), n)
    }

    /// `count` steps to learn from, each with what came within `n` steps. By priority, one step is drawn from each of `count`
    /// equal parts of the sum of priorities, and `importance` (0 to 1) says how far weights make up for some steps being drawn
    /// more often; drawn uniformly, all weigh 1.
    ///
    /// # Panics
    ///
    /// If there is nothing to draw.
    pub fn draw(&self, count: usize, n: usize, importance: f64, rng: &mut impl Rng) -> Vec<Drawn<'_>> {
        let Some(priorities) = &self.priorities else {
            let uniform = |_| Drawn {
                step: 0,
                weight: 1.0,
                transition: self.sample(n, rng),
            };
            return (0..count).map(uniform).collect();
        };
        let steps: Vec<usize> = (0..count)
            .map(|part| priorities.at((part as f64 + rng.random::<f64>()) / count as f64))
            .collect();
        let weights = priorities.weights(&steps, importance);
        steps
            .into_iter()
            .zip(weights)
            .map(|(step, weight)| Drawn {
                step,
                weight,
                transition: self.transition(step - priorities.first(), n),
            })
            .collect()
    }

    /// A drawn step was learned from with this error, which becomes its priority. Without priorities nothing happens.
    pub fn learned(&mut self, step: usize, error: f64) {
        if let Some(priorities) = &mut self.priorities {
            priorities.learned(step, error);
        }
    }

    /// The step at a place, counted from the oldest there is.
    fn transition(&self, mut at: usize, n: usize) -> Transition<'_> {
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
        fill(Replay::new(capacity))
    }

    fn fill(mut replay: Replay) -> Replay {
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

    #[test]
    fn steps_of_large_errors_are_drawn_more_often_also_after_others_were_dropped() {
        // 12 steps came, the first 4 are gone
        let mut replay = fill(Replay::prioritised(9, 1.0));
        for step in 0..12 {
            replay.learned(step, if step == 6 { 7.0 } else { 0.99 });
        }
        let mut rng = Seed(1).rng();
        // The priority of step 6 is 7.01 of 14.01: 32 of 64 equal parts are its own, perhaps one more or less.
        let drawn = replay.draw(64, 2, 1.0, &mut rng);
        let of_six: Vec<_> = drawn.iter().filter(|drawn| drawn.step == 6).collect();
        assert!((31..=33).contains(&of_six.len()), "{}", of_six.len());
        // step 6 is the third of the second episode: from state 12, rewards 3 and 4
        let transition = of_six[0].transition;
        assert_eq!(
            (transition.observation.global[0], transition.reward, transition.more),
            (12.0, 3.0, 4.0)
        );
        // weights at full importance: P(other) / P(6)
        assert!((of_six[0].weight - 1.0 / 7.01).abs() < 1e-6);
        assert!(drawn.iter().all(|drawn| drawn.step >= 4));
    }

    #[test]
    fn without_priorities_a_draw_is_so_many_samples() {
        let replay = filled(100);
        let (mut one, mut other) = (Seed(3).rng(), Seed(3).rng());
        let drawn = replay.draw(9, 2, 0.5, &mut one);
        assert!(
            drawn
                .iter()
                .all(|drawn| drawn.weight == 1.0 && drawn.transition == replay.sample(2, &mut other))
        );
    }
}

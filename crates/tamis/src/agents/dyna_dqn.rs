//! DynaDQN: deep Q-learning that also learns from imagined episodes.
//!
//! The transitions of a selection problem are known; only scores cost. So the model that Dyna learns is one of the score
//! ([`GaussianProcess`]), and an imagined episode visits real states with predicted rewards. Three things alternate until the
//! evaluations are spent:
//!
//! 1. **A real episode** of the [`Dqn`] pays for few actions a step: those of the greatest Q and those of the greatest optimistic
//!    gain by the model. Every score that is paid for trains both.
//! 2. **Imagined episodes** keep all but a few actions of one of the best known plans, and choose the others by the greatest
//!    predicted gain plus the network's calibrated future, or at random. The network learns from them by replay as from real ones.
//! 3. **Confirmation** pays for the imagined plans of the greatest optimistic return, one evaluation each, which corrects the model
//!    where it was wrong. Once real episodes meet nothing new, the rest of the evaluations is spent so.
//!
//! "Optimistic" means that standard deviations are added to a prediction, as in an upper confidence bound.
//!
//! Sources: Sutton 1990 (Dyna); Peng et al. 2018 (Dyna with deep Q-networks); Ecoffet et al. 2021 (going back to the best
//! states first); Shaw 1998 (keeping a part of the best solution and building the rest anew).

use std::collections::HashSet;

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tamis_nn::{Matrix, seed::Seed};

use crate::{
    Error, Result,
    agents::{
        Agent, TrainEvent, best,
        dqn::{
            Dqn, DqnSettings,
            late_exploration::{STALL_LIMIT, sorted},
        },
    },
    env::{Action, Environment, Observation, Shape},
    error::range::{above, check},
    reward_models::{Prediction, gaussian_process::GaussianProcess},
    stats::agreement::spearman,
};

/// Plans paid for between two fits of the model.
const PLAN_BATCH: usize = 32;
/// States that the model must have seen before its predictions are used.
const MIN_STATES: usize = 64;
/// The best plans, from which imagined episodes begin.
const ELITE_SIZE: usize = 4;
/// The most actions of such a plan that are chosen anew.
const MAX_CHANGES: usize = 4;

/// How a [`DynaDqn`] learns, besides what its [`DqnSettings`] say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynaDqnSettings {
    /// Actions that are tried at a step of a real episode, at least 1; fewer where the evaluations would not last for 4 episodes.
    /// Default: 6.
    pub lookahead: usize,
    /// Imagined plans that are paid for, for each evaluation that real episodes spent, 0 to 1000. Default: 2.
    pub confirmed: f64,
    /// Imagined episodes for each plan that is paid for, at least 1. Default: 8.
    pub imagined: usize,
    /// Actions of which the model predicts the gain at an imagined step, at least 1. Default: 32.
    pub candidates: usize,
    /// How many standard deviations are added to a prediction, 0 to 1000. Default: 0.5.
    pub bonus: f64,
    /// Training steps for each plan that is paid for. Default: 1.
    pub gradient_steps: usize,
}

impl Default for DynaDqnSettings {
    fn default() -> Self {
        Self {
            lookahead: 6,
            confirmed: 2.0,
            imagined: 8,
            candidates: 32,
            bonus: 0.5,
            gradient_steps: 1,
        }
    }
}

impl DynaDqnSettings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        check("dyna_dqn.lookahead", self.lookahead, above(0))?;
        check("dyna_dqn.confirmed", self.confirmed, 0.0..=1000.0)?;
        check("dyna_dqn.imagined", self.imagined, above(0))?;
        check("dyna_dqn.candidates", self.candidates, above(0))?;
        check("dyna_dqn.bonus", self.bonus, 0.0..=1000.0)
    }
}

/// A deep Q-learning agent with a model of the score.
pub struct DynaDqn {
    settings: DynaDqnSettings,
    /// Actions tried at a step; the setting, or fewer where evaluations are few.
    lookahead: usize,
    dqn: Dqn,
    model: GaussianProcess,
    /// How many states the model had seen when it was last fitted; 0 if it never was.
    fitted: usize,
    /// Plans that were paid for, with their actions sorted.
    known: HashSet<Vec<Action>>,
    /// The best of them with their returns, best first.
    elite: Vec<(f64, Vec<Action>)>,
}

/// An episode under way: the actions taken, and what they earned.
struct PartialEpisode {
    plan: Vec<Action>,
    earned: f64,
}

/// An imagined episode.
struct Imagined {
    plan: Vec<Action>,
    /// The state features of its last state, shape `(state_features,)`.
    end: Vec<f32>,
    /// The states before each action that was not kept from another plan, and the state after the last.
    observations: Vec<Observation>,
    /// Predicted rewards of those actions; one less than there are observations.
    rewards: Vec<f64>,
}

impl DynaDqn {
    /// An agent for environments of this shape.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or reward and future are not two outputs (`dqn.split`).
    pub fn new(shape: Shape, dqn: DqnSettings, settings: DynaDqnSettings, seed: Seed) -> Result<Self> {
        settings.check()?;
        if !dqn.split {
            return Err(Error::setting(
                "dqn.split",
                "true: dyna-dqn adds predicted gains to predicted futures",
                "false",
            ));
        }
        Ok(Self {
            dqn: Dqn::new(shape, dqn, seed)?,
            model: GaussianProcess::new(shape.state_features),
            fitted: 0,
            known: HashSet::new(),
            elite: Vec::new(),
            lookahead: settings.lookahead,
            settings,
        })
    }

    /// Fits the model again once it has seen a twentieth more states than last time.
    fn fit(&mut self) {
        let states = self.model.len();
        if states >= MIN_STATES && 20 * states >= 21 * self.fitted {
            self.model.fit();
            self.fitted = states;
        }
    }

    /// Optimistic gains over the score `earned` so far: predictions with [`DynaDqnSettings::bonus`] standard deviations added.
    fn optimistic(&self, predicted: &Prediction, earned: f64) -> Vec<f64> {
        let both = predicted.mean.iter().zip(&predicted.spread);
        both.map(|(mean, spread)| mean + self.settings.bonus * spread - earned)
            .collect()
    }

    /// Plays an episode and pays for the actions it tries; returns the episode and the mean loss of its training steps. `None`: the
    /// evaluations were spent before its end.
    fn real_episode(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<(PartialEpisode, f64)>> {
        let mut observation = env.reset(seed)?;
        self.dqn.replay.begin(observation.clone());
        let mut partial = PartialEpisode {
            plan: Vec::new(),
            earned: 0.0,
        };
        let (mut predicted, mut losses) = (Vec::new(), Vec::new());
        while observation.legal.contains(&true) {
            let left = env.remaining();
            if left == 0 {
                return Ok(None);
            }
            let values = self.dqn.online.values(&[&observation]).remove(0);
            let estimates = self.dqn.estimates(&values, &observation);
            let mut tried = observation.legal_actions();
            tried.shuffle(rng);
            if self.dqn.warmed_up() {
                tried = self.shortlist(env, &tried, &partial, |action| estimates.q(action))?;
            }
            tried.truncate(self.lookahead.min(usize::try_from(left).unwrap_or(usize::MAX)));
            let rewards = env.lookahead(&tried)?;
            let features = afterstates(env, &partial.plan, &tried)?;
            for ((&action, &reward), features) in tried.iter().zip(&rewards).zip(features.iter_rows()) {
                self.dqn.observe_reward(&observation, action, reward);
                self.model
                    .add(features, partial.plan.len() + 1, partial.earned + reward);
            }
            let future = |i: usize| {
                if self.dqn.warmed_up() {
                    estimates.futures[tried[i]]
                } else {
                    0.0
                }
            };
            let places: Vec<usize> = (0..tried.len()).collect();
            let action = tried[best(&places, |i| rewards[i] + future(i))];
            predicted.push(self.dqn.predicted_difference(&values, &observation, action));
            let step = env.step(action)?;
            self.dqn.replay.push(action, step.reward, step.observation.clone());
            observation = step.observation;
            partial.earned += step.reward;
            partial.plan.push(action);
            self.dqn.updates(&mut losses, rng);
            if step.terminated || step.truncated {
                break;
            }
        }
        self.dqn.end_episode(&predicted);
        self.record(partial.plan.clone(), partial.earned);
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        Ok(Some((partial, loss)))
    }

    /// The legal actions, with the best by the network and the best by the model in turn first.
    fn shortlist(
        &self,
        env: &dyn Environment,
        legal: &[Action],
        partial: &PartialEpisode,
        q: impl Fn(Action) -> f64,
    ) -> Result<Vec<Action>> {
        let mut by_network = legal.to_vec();
        by_network.sort_by(|&a, &b| q(b).total_cmp(&q(a)));
        if self.fitted == 0 {
            return Ok(by_network);
        }
        let afterstates = afterstates(env, &partial.plan, legal)?;
        let gains = self.optimistic(
            &self
                .model
                .predict(&afterstates, &vec![partial.plan.len() + 1; legal.len()]),
            partial.earned,
        );
        let mut by_model: Vec<usize> = (0..legal.len()).collect();
        by_model.sort_by(|&a, &b| gains[b].total_cmp(&gains[a]));
        let mut chosen = Vec::with_capacity(legal.len());
        for (&network, &model) in by_network.iter().zip(&by_model) {
            for action in [network, legal[model]] {
                if !chosen.contains(&action) {
                    chosen.push(action);
                }
            }
        }
        Ok(chosen)
    }

    /// Records a plan that was paid for. It is not paid for again, and imagined episodes begin from it if it is among the best.
    fn record(&mut self, plan: Vec<Action>, episode_return: f64) {
        if self.known.insert(sorted(&plan)) {
            let at = self.elite.partition_point(|(other, _)| *other >= episode_return);
            self.elite.insert(at, (episode_return, plan));
            self.elite.truncate(ELITE_SIZE);
        }
    }

    /// Imagines an episode that keeps most actions of one of the best plans.
    fn imagine(&self, env: &dyn Environment, rng: &mut ChaCha8Rng) -> Result<Imagined> {
        let (_, elite) = &self.elite[rng.random_range(0..self.elite.len())];
        let max_changes = MAX_CHANGES.min(elite.len()).max(1);
        let epsilon = rng.random::<f64>();
        let mut places: Vec<usize> = (0..elite.len()).collect();
        places.shuffle(rng);
        places.truncate(elite.len().saturating_sub(rng.random_range(1..=max_changes)));
        // In their old order all of them stay legal, since less is taken before each.
        places.sort_unstable();
        let kept: Vec<Action> = places.into_iter().map(|place| elite[place]).collect();
        let mut simulation = env.simulate()?;
        let (mut earned, mut end) = (0.0, Vec::new());
        for (i, &action) in kept.iter().enumerate() {
            if i + 1 == kept.len() {
                let afterstates = simulation.afterstates(&[action])?;
                earned = self.model.mean(&afterstates, &[kept.len()])[0];
                end = afterstates.row(0).to_vec();
            }
            simulation.take(action, 0.0)?;
        }
        let mut observations = vec![simulation.observe()?];
        let mut partial = PartialEpisode { plan: kept, earned };
        let mut rewards = Vec::new();
        while let Some(observation) = observations
            .last()
            .filter(|observation| observation.legal.contains(&true))
        {
            let values = self.dqn.online.values(&[observation]).remove(0);
            let estimates = self.dqn.estimates(&values, observation);
            let mut legal = observation.legal_actions();
            let count = if rng.random::<f64>() < epsilon {
                1
            } else {
                self.settings.candidates.min(legal.len())
            };
            let tried = legal.partial_shuffle(rng, count).0;
            if count == 1 && !partial.plan.is_empty() && rng.random::<bool>() {
                let again = partial.plan[rng.random_range(0..partial.plan.len())];
                if observation.legal[again] {
                    tried[0] = again;
                }
            }
            let afterstates = simulation.afterstates(tried)?;
            let predicted = self
                .model
                .mean(&afterstates, &vec![partial.plan.len() + 1; tried.len()]);
            let places: Vec<usize> = (0..tried.len()).collect();
            let chosen = best(&places, |i| predicted[i] + estimates.futures[tried[i]]);
            let reward = predicted[chosen] - partial.earned;
            end = afterstates.row(chosen).to_vec();
            simulation.take(tried[chosen], reward)?;
            partial.earned += reward;
            partial.plan.push(tried[chosen]);
            rewards.push(reward);
            observations.push(simulation.observe()?);
        }
        Ok(Imagined {
            plan: partial.plan,
            end,
            observations,
            rewards,
        })
    }

    /// Imagined episodes with their optimistic returns, best first.
    fn ranked(&self, episodes: Vec<Imagined>) -> Vec<(f64, Imagined)> {
        let ends: Vec<f32> = episodes.iter().flat_map(|episode| &episode.end).copied().collect();
        let ends = Matrix::from_vec(ends, episodes.len(), self.model.features());
        let steps: Vec<usize> = episodes.iter().map(|episode| episode.plan.len()).collect();
        let returns = self.optimistic(&self.model.predict(&ends, &steps), 0.0);
        let mut ranked: Vec<(f64, Imagined)> = returns.into_iter().zip(episodes).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked
    }

    /// Adds an imagined episode to replay; returns its plan.
    fn add_to_replay(&mut self, imagined: Imagined) -> Vec<Action> {
        let taken = &imagined.plan[imagined.plan.len() - imagined.rewards.len()..];
        let mut observations = imagined.observations.into_iter();
        if let Some(first) = observations.next() {
            self.dqn.replay.begin(first);
        }
        for ((next, &action), &reward) in observations.zip(taken).zip(&imagined.rewards) {
            self.dqn.replay.push(action, reward, next);
        }
        imagined.plan
    }

    /// Imagines plans and pays for the best of them, until so many evaluations are spent. Returns the rank correlation of their
    /// optimistic with their true returns; NaN if nothing was paid for.
    fn confirm(&mut self, env: &mut dyn Environment, evaluations: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
        let mut left = evaluations;
        let (mut predicted, mut earned) = (Vec::new(), Vec::new());
        while left > 0 {
            let count = PLAN_BATCH
                .min(left)
                .min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            let (mut episodes, mut seen) = (Vec::new(), HashSet::new());
            for _ in 0..count * self.settings.imagined {
                let imagined = self.imagine(env, rng)?;
                let key = sorted(&imagined.plan);
                if !self.known.contains(&key) && seen.insert(key) {
                    episodes.push(imagined);
                }
            }
            if episodes.is_empty() {
                break;
            }
            let mut episodes = self.ranked(episodes);
            episodes.truncate(count);
            predicted.extend(episodes.iter().map(|(prediction, _)| *prediction));
            let plans: Vec<Vec<Action>> = episodes
                .into_iter()
                .map(|(_, imagined)| self.add_to_replay(imagined))
                .collect();
            for _ in 0..self.settings.gradient_steps * plans.len() {
                self.dqn.update(rng);
            }
            let returns = env.evaluate_plans(&plans)?;
            earned.extend_from_slice(&returns);
            for (plan, episode_return) in plans.into_iter().zip(returns) {
                if let Some((&last, before)) = plan.split_last() {
                    let features = afterstates(env, before, &[last])?;
                    self.model.add(features.row(0), plan.len(), episode_return);
                }
                self.record(plan, episode_return);
            }
            self.fit();
            left -= count;
        }
        Ok(if earned.is_empty() {
            f64::NAN
        } else {
            spearman(&predicted, &earned)
        })
    }
}

/// Features of the states that each of these actions leads to after a plan, shape `(actions.len(), state_features)`.
fn afterstates(env: &dyn Environment, plan: &[Action], actions: &[Action]) -> Result<Matrix> {
    let mut simulation = env.simulate()?;
    for &action in plan {
        simulation.take(action, 0.0)?;
    }
    simulation.afterstates(actions)
}

impl Agent for DynaDqn {
    fn train(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        log: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()> {
        let mut rng = seed.derive("dyna-dqn").rng();
        self.lookahead = self.settings.lookahead.min(self.dqn.fit_schedule(env)?);
        let (mut episode, mut steps, mut stalled) = (0, 0, 0);
        while stalled < STALL_LIMIT {
            let before = env.remaining();
            if before == 0 {
                break;
            }
            let Some((partial, loss)) = self.real_episode(env, seed.index(episode), &mut rng)? else {
                break;
            };
            self.fit();
            episode += 1;
            steps += partial.plan.len() as u64;
            let spent = before - env.remaining();
            let agreement = if self.fitted > 0 {
                let paid = (self.settings.confirmed * spent as f64).ceil() as usize;
                self.confirm(env, paid, &mut rng)?
            } else {
                f64::NAN
            };
            log(&TrainEvent {
                episode,
                steps,
                episode_return: partial.earned,
                loss,
                epsilon: 0.0,
                agreement,
            })?;
            stalled = if env.remaining() == before { stalled + 1 } else { 0 };
        }
        // Episodes meet nothing new: the rest of the evaluations is for imagined plans.
        while self.fitted > 0 {
            let before = env.remaining();
            let agreement = self.confirm(env, PLAN_BATCH, &mut rng)?;
            if env.remaining() == before {
                break;
            }
            episode += 1;
            log(&TrainEvent {
                episode,
                steps,
                episode_return: self.elite[0].0,
                loss: f64::NAN,
                epsilon: 0.0,
                agreement,
            })?;
        }
        Ok(())
    }

    fn act(&mut self, observation: &Observation) -> Action {
        self.dqn.act(observation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::coverage::Coverage;

    fn trained(evaluations: u64, seed: u64) -> (Coverage, f64) {
        let mut env = Coverage::random(16, 60, 5, evaluations, Seed(11));
        let dqn = DqnSettings {
            learning_starts: 40,
            ..DqnSettings::default()
        };
        let settings = DynaDqnSettings {
            lookahead: 3,
            ..DynaDqnSettings::default()
        };
        let mut agent = DynaDqn::new(env.shape(), dqn, settings, Seed(seed)).expect("sound settings");
        agent.train(&mut env, Seed(seed), &mut |_| Ok(())).expect("trains");
        assert!(env.evaluations() <= evaluations);
        (env, agent.elite[0].0)
    }

    #[test]
    fn it_comes_near_the_optimum_that_enumeration_finds() {
        // 4,368 full states; a seventh of them may be evaluated.
        for seed in 0..3 {
            let (env, found) = trained(600, seed);
            let optimum = env.optimum();
            assert!(found > 0.97 * optimum, "seed {seed}: {found} of {optimum}");
        }
    }

    #[test]
    fn one_seed_one_run() {
        assert_eq!(trained(200, 1).1.to_bits(), trained(200, 1).1.to_bits());
    }

    #[test]
    fn a_single_action_is_no_trouble() {
        let mut env = Coverage::random(1, 5, 1, 50, Seed(1));
        let settings = DynaDqnSettings::default();
        let mut agent = DynaDqn::new(env.shape(), DqnSettings::default(), settings, Seed(1)).expect("sound settings");
        agent.train(&mut env, Seed(2), &mut |_| Ok(())).expect("trains");
        let first = env.reset(Seed(0)).expect("resets");
        assert_eq!(agent.act(&first), 0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let settings = DynaDqnSettings {
            bonus: f64::NAN,
            ..DynaDqnSettings::default()
        };
        let error = settings.check().expect_err("out of range").to_string();
        assert!(error.starts_with("dyna_dqn.bonus"), "{error}");
        let dqn = DqnSettings {
            split: false,
            lookahead: 0,
            ..DqnSettings::default()
        };
        let shape = Coverage::random(3, 5, 1, 50, Seed(1)).shape();
        let error = DynaDqn::new(shape, dqn, DynaDqnSettings::default(), Seed(1))
            .err()
            .expect("refused");
        assert!(error.to_string().starts_with("dqn.split"), "{error}");
    }
}

//! Deep Q-learning with legal-action masks.
//!
//! Sources: Mnih et al. 2015 (replay, target network, Huber loss), van Hasselt et al. 2016 (double Q-learning), Sutton & Barto
//! 2018, section 7.1 (n-step returns), all with gamma 1, since the return is the final score. What we do differently:
//!
//! 1. Q is learned as *immediate reward* plus *future return* ([`crate::agents::network`]). Every reward that was looked at, taken
//!    or not, teaches the first. With `split = false` it is learned whole, as in the paper; "future" then means all that is earned
//!    from here on.
//! 2. An action is not taken on the network's word alone: the `lookahead` actions with the greatest Q and `explorers`
//!    random ones are tried ([`Environment::lookahead`]), and the one with the greatest *true* reward plus predicted future is
//!    taken. With `lookahead = 0` this is plain DQN: the greatest Q is taken, and only that is paid for.
//! 3. Predicted differences between futures count as far as earlier episodes bore them out ([`DqnSettings::calibrate`]).
//! 4. Rewards and futures are learned as distances from what is usual at their depth of the episode.
//! 5. The target network follows slowly (Lillicrap et al. 2016) and is never copied at intervals, as in the paper.
//!
//! What each of these is worth is measured in `docs/algorithms/dqn.md`.

pub(crate) mod late_exploration;
pub mod replay;

use std::collections::VecDeque;

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tamis_nn::seed::Seed;

use crate::{
    Error, Result,
    agents::{
        Agent, TrainEvent, best,
        dqn::{
            late_exploration::{Beyond, SETTLED},
            replay::{Replay, Transition},
        },
        network::{Lesson, NetworkKind, QNetwork, Training, Values},
    },
    env::{Action, Environment, Observation, Shape},
    reward_models::baseline::DepthBaseline,
};

/// For how many episodes the evaluations are made to last, by trying fewer actions at a step.
const EPISODES: u64 = 4;
/// The largest share of the evaluations that is spent before the network is trusted.
const BLIND: u64 = 10;
/// The most bytes that observations kept for replay may take; the number of steps kept is lowered to fit.
const REPLAY_BYTES: usize = 256 << 20;
/// Looked-at rewards that are kept.
const REWARDS_KEPT: usize = 20_000;
/// The norm above which gradients are scaled down (Wang et al. 2016, section 4.2).
const CLIP: f32 = 10.0;

/// How a [`Dqn`] learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each switches one part of the method off, independently of the others"
)]
pub struct DqnSettings {
    /// The network. Default: shared.
    pub network: NetworkKind,
    /// Units of each of the two hidden layers. Default: 64.
    pub hidden: usize,
    /// Whether an action's reward and the future after it are learned apart, which a lookahead needs. Default: true.
    pub split: bool,
    /// Adam's learning rate. Default: 0.001.
    pub learning_rate: f32,
    /// Transitions a training step learns from. Default: 32.
    pub batch: usize,
    /// Looked-at rewards that it learns from beside them. Default: 128.
    pub reward_batch: usize,
    /// Training steps an environment step. Default: 2.
    pub updates: usize,
    /// Steps that replay keeps. Default: 10,000.
    pub replay: usize,
    /// Rewards that are summed before the target network is asked. Default: 5.
    pub n_step: usize,
    /// By what share the target network follows at a training step, 0 to 1. Default: 0.01.
    pub target_rate: f32,
    /// Whether the online network names the next action and the target network values it. Default: true.
    pub double: bool,
    /// Whether only actions that are legal there count as what could come next. Default: true.
    pub mask_next: bool,
    /// Actions of the greatest Q that are tried at a step; 0 for plain DQN. Fewer are where the evaluations would not last for 4
    /// episodes. Default: 14.
    pub lookahead: usize,
    /// Random actions that are tried beside them; fewer in proportion. Default: 4.
    pub explorers: usize,
    /// Share of steps, at first, on which the actions tried (in plain DQN: taken) are all random. Default: 0.1.
    pub epsilon_start: f64,
    /// The same at the end; it falls linearly with the evaluations spent. Default: 0.05.
    pub epsilon_end: f64,
    /// Whether predicted differences between futures count only as far as earlier episodes bore them out. Default: true.
    pub calibrate: bool,
    /// Rewards seen before the network is trusted, or a tenth of the evaluations if that is less; until then the actions tried
    /// are random. Default: 200.
    pub warm_up: usize,
}

impl Default for DqnSettings {
    fn default() -> Self {
        Self {
            network: NetworkKind::Shared,
            hidden: 64,
            split: true,
            learning_rate: 1e-3,
            batch: 32,
            reward_batch: 128,
            updates: 2,
            replay: 10_000,
            n_step: 5,
            target_rate: 0.01,
            double: true,
            mask_next: true,
            lookahead: 14,
            explorers: 4,
            epsilon_start: 0.1,
            epsilon_end: 0.05,
            calibrate: true,
            warm_up: 200,
        }
    }
}

impl DqnSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or does not go with another.
    pub fn check(&self) -> Result<()> {
        // Upper bounds keep a slip of the hand from asking for more memory than there is.
        let counts = [
            ("dqn.hidden", self.hidden, 4096),
            ("dqn.batch", self.batch, 65_536),
            ("dqn.replay", self.replay, usize::MAX),
            ("dqn.n_step", self.n_step, usize::MAX),
        ];
        if self.reward_batch > 65_536 {
            return Err(Error::setting(
                "dqn.reward_batch",
                "from 0 to 65536",
                self.reward_batch.to_string(),
            ));
        }
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                let expected = if most == usize::MAX {
                    "a number above 0".to_owned()
                } else {
                    format!("from 1 to {most}")
                };
                return Err(Error::setting(name, expected, value.to_string()));
            }
        }
        if !self.split && self.lookahead > 0 {
            return Err(Error::setting(
                "dqn.split",
                "true, or dqn.lookahead = 0: a lookahead adds true rewards to futures",
                "false".to_owned(),
            ));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::setting(
                "dqn.learning_rate",
                "a number above 0",
                self.learning_rate.to_string(),
            ));
        }
        let shares = [
            ("dqn.target_rate", f64::from(self.target_rate)),
            ("dqn.epsilon_start", self.epsilon_start),
            ("dqn.epsilon_end", self.epsilon_end),
        ];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::setting(name, "a share from 0 to 1", value.to_string()));
            }
        }
        Ok(())
    }
}

/// A deep Q-learning agent.
pub struct Dqn {
    settings: DqnSettings,
    pub(crate) online: QNetwork,
    target: QNetwork,
    training: Training,
    /// Training steps done.
    trained: u64,
    pub(crate) replay: Replay,
    /// Rewards looked at.
    rewards: VecDeque<Looked>,
    rewards_seen: usize,
    pub(crate) episodes: u64,
    pace: Pace,
    /// What is usually earned at a depth, and what usually follows.
    usual_reward: DepthBaseline,
    usual_future: DepthBaseline,
    trust: Trust,
}

/// How the settings are stretched over the evaluations that there are.
#[derive(Debug, Clone, Copy)]
struct Pace {
    lookahead: usize,
    explorers: usize,
    warm_up: usize,
}

/// What the agent expects of every action, in units of the score; shapes `(actions,)`.
pub(crate) struct Estimates {
    rewards: Vec<f64>,
    pub(crate) futures: Vec<f64>,
}

impl Estimates {
    pub(crate) fn q(&self, action: Action) -> f64 {
        self.rewards[action] + self.futures[action]
    }
}

/// A reward that was looked at: what the network reads, the action, how deep in the episode, the reward.
struct Looked {
    input: Vec<f32>,
    action: Action,
    depth: usize,
    reward: f64,
}

/// How far predicted differences between futures come true: the slope of what followed on what was predicted.
///
/// A return is the final score less the present one, so what an action earns now is mostly what can no longer be earned
/// later, and the futures of two actions differ far less than a network's error. Taken at its word, such a network makes
/// choices worse than greedy ones; its differences count as far as earlier episodes bore them out.
#[derive(Debug, Clone, Copy, Default)]
struct Trust {
    /// Products of predicted and actual differences, and squares of predicted ones.
    covariance: f64,
    variance: f64,
}

impl Trust {
    /// A future was predicted to be so much better than another action's, and was so much better than usual.
    fn learn(&mut self, predicted: f64, followed: f64) {
        self.covariance += predicted * followed;
        self.variance += predicted * predicted;
    }

    /// What a predicted difference is multiplied by, 0 to 1.
    fn slope(&self) -> f64 {
        if self.variance > 0.0 {
            (self.covariance / self.variance).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

impl Dqn {
    /// An agent for environments of this shape.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(shape: Shape, settings: DqnSettings, seed: Seed) -> Result<Self> {
        settings.check()?;
        let online = QNetwork::new(
            settings.network,
            shape,
            settings.hidden,
            settings.split,
            seed.derive("network"),
        );
        let observation = size_of::<f32>() * (shape.actions * (shape.action_features + 1) + shape.global_features);
        let capacity = settings.replay.min(REPLAY_BYTES / observation.max(1)).max(1);
        Ok(Self {
            training: Training::new(&online, settings.learning_rate, CLIP),
            trained: 0,
            target: online.clone(),
            replay: Replay::new(capacity),
            rewards: VecDeque::new(),
            rewards_seen: 0,
            episodes: 0,
            pace: Pace {
                lookahead: settings.lookahead,
                explorers: settings.explorers,
                warm_up: settings.warm_up,
            },
            usual_reward: DepthBaseline::default(),
            usual_future: DepthBaseline::default(),
            trust: Trust::default(),
            online,
            settings,
        })
    }

    /// Training steps done so far.
    pub fn training_steps(&self) -> u64 {
        self.trained
    }

    /// Immediate reward and future return of every action, in units of the score; shapes `(actions,)`. The futures of
    /// legal actions differ as far as [`Trust`] lets them.
    pub(crate) fn estimates(&self, values: &Values, observation: &Observation) -> Estimates {
        let restored = |values: &[f32], usual: &DepthBaseline| -> Vec<f64> {
            let (mean, spread) = usual.at(observation.step);
            values.iter().map(|&x| mean + spread * f64::from(x)).collect()
        };
        let mut futures = restored(&values.future, &self.usual_future);
        if self.settings.calibrate {
            let open = observation.legal_actions();
            let mean = open.iter().map(|&action| futures[action]).sum::<f64>() / open.len().max(1) as f64;
            let slope = self.trust.slope();
            for future in &mut futures {
                *future = mean + slope * (*future - mean);
            }
        }
        Estimates {
            rewards: restored(&values.reward, &self.usual_reward),
            futures,
        }
    }

    /// Whether it has seen enough rewards for its network to mean something.
    pub(crate) fn trusted(&self) -> bool {
        self.rewards_seen >= self.pace.warm_up
    }

    /// Stretches the settings over the evaluations that the environment has left. Returns how many actions they allow to be tried
    /// at a step.
    ///
    /// # Errors
    ///
    /// If the environment cannot be walked through.
    pub(crate) fn set_pace(&mut self, env: &dyn Environment) -> Result<usize> {
        let most = tries_a_step(env)?;
        let whole = self.settings.lookahead + self.settings.explorers;
        self.pace.explorers = self.settings.explorers * most.min(whole) / whole.max(1);
        self.pace.lookahead = self.settings.lookahead.min(most - self.pace.explorers.min(most));
        let blind = usize::try_from(env.remaining() / BLIND).unwrap_or(usize::MAX);
        self.pace.warm_up = self.settings.warm_up.min(blind);
        Ok(most)
    }

    /// Training steps an environment step.
    pub(crate) fn updates(&self) -> usize {
        self.settings.updates
    }

    /// Chooses an action. In a lookahead the rewards of all actions tried are paid for; else nothing is.
    fn choose(
        &mut self,
        env: &mut dyn Environment,
        seen: &Observation,
        estimates: &Estimates,
        epsilon: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Action> {
        let mut open = seen.legal_actions();
        let all = open.len();
        let trusted = self.trusted();
        let at_random = !trusted || rng.random::<f64>() < epsilon;
        if self.settings.lookahead == 0 {
            return Ok(if at_random {
                open[rng.random_range(0..open.len())]
            } else {
                best(&open, |action| estimates.q(action))
            });
        }
        open.shuffle(rng);
        if !at_random {
            // The sort is stable, so equal values stand in random order.
            open.sort_by(|&a, &b| estimates.q(b).total_cmp(&estimates.q(a)));
            let guided = self.pace.lookahead.min(open.len());
            open[guided..].shuffle(rng);
        }
        let tries = self.pace.lookahead + self.pace.explorers;
        open.truncate(tries.min(usize::try_from(env.remaining()).unwrap_or(usize::MAX)).max(1));
        let earned = env.lookahead(&open)?;
        for (&action, &reward) in open.iter().zip(&earned) {
            self.remember(seen, action, reward);
        }
        // Where all actions are tried, trying some at random explores nothing: then one is taken at random.
        if at_random && trusted && open.len() == all {
            return Ok(open[rng.random_range(0..open.len())]);
        }
        let future = |action: Action| if trusted { estimates.futures[action] } else { 0.0 };
        let places: Vec<usize> = (0..open.len()).collect();
        Ok(open[best(&places, |i| earned[i] + future(open[i]))])
    }

    /// The action of the greatest Q and the reward expected of it.
    fn expects(&self, seen: &Observation) -> (Action, f64) {
        let estimates = self.estimates(&self.online.values(&[seen])[0], seen);
        let action = best(&seen.legal_actions(), |action| estimates.q(action));
        (action, estimates.rewards[action])
    }

    /// By how much the network takes this action's future to be better than that of the mean legal action.
    pub(crate) fn predicted_difference(&self, values: &Values, observation: &Observation, action: Action) -> f64 {
        let open = observation.legal_actions();
        let mean = open.iter().map(|&action| values.future[action]).sum::<f32>() / open.len().max(1) as f32;
        f64::from(values.future[action] - mean) * self.usual_future.at(observation.step).1
    }

    /// A reward was looked at.
    pub(crate) fn remember(&mut self, seen: &Observation, action: Action, reward: f64) {
        self.rewards_seen += 1;
        if !self.settings.split {
            return;
        }
        if self.rewards.len() == REWARDS_KEPT {
            self.rewards.pop_front();
        }
        self.usual_reward.add(seen.step, reward);
        self.rewards.push_back(Looked {
            input: self.online.input(seen, action),
            action,
            depth: seen.step,
            reward,
        });
    }

    /// What the network thinks of the states that drawn steps led to: the future of each step, in the units of training.
    fn futures(&self, drawn: &[Transition<'_>]) -> Vec<f32> {
        let next: Vec<&Observation> = drawn.iter().map(|transition| transition.next).collect();
        let valued = self.target.values(&next);
        let named = if self.settings.double {
            self.online.values(&next)
        } else {
            valued.clone()
        };
        drawn
            .iter()
            .zip(valued.iter().zip(&named))
            .map(|(transition, (valued, named))| {
                let mut open = transition.next.legal_actions();
                let ahead = if open.is_empty() {
                    0.0
                } else {
                    if !self.settings.mask_next {
                        open = (0..transition.next.legal.len()).collect();
                    }
                    let named = self.estimates(named, transition.next);
                    self.estimates(valued, transition.next)
                        .q(best(&open, |action| named.q(action)))
                };
                let now = if self.settings.split { 0.0 } else { transition.reward };
                self.usual_future
                    .standardise(transition.observation.step, now + transition.more + ahead)
            })
            .collect()
    }

    /// One training step; returns its loss.
    pub(crate) fn update(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        let drawn: Vec<Transition<'_>> = (0..self.settings.batch)
            .map(|_| self.replay.sample(self.settings.n_step, rng))
            .collect();
        let futures = self.futures(&drawn);
        let inputs: Vec<Vec<f32>> = drawn
            .iter()
            .map(|transition| self.online.input(transition.observation, transition.action))
            .collect();
        let mut lessons: Vec<Lesson<'_>> = drawn
            .iter()
            .zip(inputs.iter().zip(futures))
            .map(|(transition, (input, future))| Lesson {
                input,
                action: transition.action,
                reward: self.settings.split.then(|| {
                    self.usual_reward
                        .standardise(transition.observation.step, transition.reward)
                }),
                future: Some(future),
            })
            .collect();
        for _ in 0..self.settings.reward_batch.min(self.rewards.len()) {
            let looked = &self.rewards[rng.random_range(0..self.rewards.len())];
            lessons.push(Lesson {
                input: &looked.input,
                action: looked.action,
                reward: Some(self.usual_reward.standardise(looked.depth, looked.reward)),
                future: None,
            });
        }
        let loss = self.online.learn(&lessons, &mut self.training);
        self.training.step(&mut self.online);
        self.trained += 1;
        self.target.follow(&self.online, self.settings.target_rate);
        loss
    }

    /// An episode has ended: what followed each of its steps tells what is usual, and how far predictions came true.
    pub(crate) fn end_episode(&mut self, predicted: &[f64]) {
        let returns = self.replay.latest_returns();
        let followed = returns.iter().skip(usize::from(self.settings.split)).chain(&[0.0]);
        for (depth, (&predicted, &followed)) in predicted.iter().zip(followed).enumerate() {
            if self.episodes > 0 {
                self.trust.learn(predicted, followed - self.usual_future.at(depth).0);
            }
            self.usual_future.add(depth, followed);
        }
        self.episodes += 1;
    }
}

impl Agent for Dqn {
    fn train(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        log: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()> {
        let mut rng = seed.derive("dqn").rng();
        let whole = env.remaining().max(1);
        self.set_pace(env)?;
        let (mut episode, mut steps, mut idle) = (0, 0, 0);
        let mut beyond = Beyond::default();
        // A plan to be followed in the next episode.
        let mut found = None;
        while env.remaining() > 0 {
            if idle == SETTLED {
                found = beyond.look(env, |seen| self.expects(seen), &mut rng)?;
                if found.is_none() {
                    break;
                }
                idle = 0;
            }
            let before = env.remaining();
            let mut plan = Vec::new();
            let mut seen = env.reset(seed.index(episode))?;
            self.replay.begin(seen.clone());
            let (mut episode_return, mut losses, mut updates) = (0.0, 0.0, 0u32);
            let mut epsilon = 0.0;
            let mut predicted = Vec::new();
            while seen.legal.contains(&true) {
                let left = env.remaining();
                if left == 0 {
                    return Ok(());
                }
                let spent = 1.0 - left as f64 / whole as f64;
                epsilon =
                    self.settings.epsilon_start + spent * (self.settings.epsilon_end - self.settings.epsilon_start);
                let values = self.online.values(&[&seen]).remove(0);
                let estimates = self.estimates(&values, &seen);
                let action = match &found {
                    Some(found) => found[plan.len()],
                    None => self.choose(env, &seen, &estimates, epsilon, &mut rng)?,
                };
                plan.push(action);
                predicted.push(self.predicted_difference(&values, &seen, action));
                let step = env.step(action)?;
                if self.settings.lookahead == 0 {
                    self.remember(&seen, action, step.reward);
                }
                self.replay.push(action, step.reward, step.observation.clone());
                seen = step.observation;
                episode_return += step.reward;
                steps += 1;
                if episode > 0 {
                    for _ in 0..self.settings.updates {
                        losses += self.update(&mut rng);
                        updates += 1;
                    }
                }
                if step.terminated || step.truncated {
                    break;
                }
            }
            self.end_episode(&predicted);
            beyond.note(&plan, episode_return);
            found = None;
            episode += 1;
            let loss = losses / f64::from(updates);
            log(&TrainEvent {
                episode,
                steps,
                episode_return,
                loss,
                epsilon,
                agreement: f64::NAN,
            })?;
            idle = if env.remaining() == before { idle + 1 } else { 0 };
        }
        Ok(())
    }

    fn act(&mut self, observation: &Observation) -> Action {
        self.expects(observation).0
    }
}

/// How many actions can be tried at each step if the evaluations are to last for [`EPISODES`] episodes; at least one.
fn tries_a_step(env: &dyn Environment) -> Result<usize> {
    let mut walk = env.simulate()?;
    let mut steps = 0;
    while let Some(action) = walk.observe()?.legal.iter().position(|&legal| legal) {
        walk.take(action, 0.0)?;
        steps += 1;
    }
    let tries = env.remaining() / (EPISODES * steps.max(1));
    Ok(usize::try_from(tries).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::coverage::Coverage;

    /// The value of the episode that the trained agent plays by its network alone.
    fn played(agent: &mut Dqn, env: &mut Coverage) -> f64 {
        let mut seen = env.reset(Seed(0)).expect("resets");
        let mut sum = 0.0;
        while seen.legal.contains(&true) {
            let step = env.step(agent.act(&seen)).expect("steps");
            sum += step.reward;
            seen = step.observation;
        }
        sum
    }

    fn trained(settings: DqnSettings, evaluations: u64) -> (Dqn, Coverage, Vec<f64>) {
        let mut env = Coverage::random(10, 40, 4, evaluations, Seed(11));
        let mut agent = Dqn::new(env.shape(), settings, Seed(1)).expect("sound settings");
        let mut returns = Vec::new();
        let mut log = |event: &TrainEvent| {
            returns.push(event.episode_return);
            Ok(())
        };
        agent.train(&mut env, Seed(2), &mut log).expect("trains");
        (agent, env, returns)
    }

    #[test]
    fn every_kind_comes_near_the_optimum_that_enumeration_finds() {
        let plain = DqnSettings {
            split: false,
            lookahead: 0,
            calibrate: false,
            epsilon_start: 0.5,
            warm_up: 40,
            updates: 4,
            ..DqnSettings::default()
        };
        let split = DqnSettings {
            split: true,
            ..plain.clone()
        };
        let kinds = [
            (
                "shared, lookahead",
                DqnSettings {
                    warm_up: 40,
                    lookahead: 3,
                    ..DqnSettings::default()
                },
            ),
            ("shared, plain", plain.clone()),
            (
                "flat, plain",
                DqnSettings {
                    network: NetworkKind::Flat,
                    updates: 8,
                    ..plain.clone()
                },
            ),
            (
                "shared, plain, not double",
                DqnSettings {
                    double: false,
                    ..plain.clone()
                },
            ),
            ("shared, plain, a small replay", DqnSettings { replay: 100, ..plain }),
            ("shared, plain, split", split.clone()),
            (
                "shared, plain, split, no looked-at rewards",
                DqnSettings {
                    reward_batch: 0,
                    ..split
                },
            ),
        ];
        for (name, settings) in kinds {
            let (mut agent, mut env, returns) = trained(settings, 320);
            let optimum = env.optimum();
            let best = returns.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let alone = played(&mut agent, &mut env);
            assert!(best > 0.97 * optimum, "{name}: best episode {best}, optimum {optimum}");
            assert!(
                alone > 0.85 * optimum,
                "{name}: the network alone {alone}, optimum {optimum}"
            );
        }
    }

    #[test]
    fn one_seed_one_run() {
        let run = || trained(DqnSettings::default(), 150).2;
        assert_eq!(run(), run());
    }

    #[test]
    fn it_stops_at_the_limit_and_when_nothing_is_left_to_learn() {
        let (_, env, _) = trained(DqnSettings::default(), 37);
        assert_eq!(env.evaluations(), 37);
        // 10 actions, 4 picks: 385 states are all there are
        let (_, env, _) = trained(
            DqnSettings {
                explorers: 20,
                ..DqnSettings::default()
            },
            100_000,
        );
        assert!(env.evaluations() <= 385, "{}", env.evaluations());
    }

    #[test]
    fn a_single_action_is_no_trouble() {
        let mut env = Coverage::random(1, 5, 1, 50, Seed(1));
        let mut agent = Dqn::new(env.shape(), DqnSettings::default(), Seed(1)).expect("sound settings");
        agent.train(&mut env, Seed(2), &mut |_| Ok(())).expect("trains");
        let first = env.reset(Seed(0)).expect("resets");
        assert_eq!(agent.act(&first), 0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (settings, name) in [
            (
                DqnSettings {
                    batch: 0,
                    ..DqnSettings::default()
                },
                "dqn.batch",
            ),
            (
                DqnSettings {
                    learning_rate: f32::NAN,
                    ..DqnSettings::default()
                },
                "dqn.learning_rate",
            ),
            (
                DqnSettings {
                    epsilon_start: 1.5,
                    ..DqnSettings::default()
                },
                "dqn.epsilon_start",
            ),
            (
                DqnSettings {
                    target_rate: -0.1,
                    ..DqnSettings::default()
                },
                "dqn.target_rate",
            ),
            (
                DqnSettings {
                    split: false,
                    ..DqnSettings::default()
                },
                "dqn.split",
            ),
            (
                DqnSettings {
                    reward_batch: 100_000,
                    ..DqnSettings::default()
                },
                "dqn.reward_batch",
            ),
        ] {
            assert!(
                settings
                    .check()
                    .expect_err("out of range")
                    .to_string()
                    .starts_with(name)
            );
        }
    }
}

//! Deep Q-learning with legal-action masks.
//!
//! Sources: Mnih et al. 2015 (replay, target network, Huber loss), van Hasselt et al. 2016 (double Q-learning), Sutton & Barto
//! 2018, section 7.1 (n-step returns), Lillicrap et al. 2016 (soft target updates). Gamma is 1, since the return is the final
//! score. We differ in this:
//!
//! 1. Q is the sum of two outputs, the *immediate reward* and the *future return* ([`crate::agents::network`]). Every observed
//!    reward, of an action taken or only tried, trains the first. With `split = false` Q is one output, as in the paper, and
//!    "future" below means all that is earned from here on.
//! 2. Actions are tried before one is taken: the `lookahead` actions of the greatest Q and `explorers` random ones
//!    ([`Environment::lookahead`]). The one of the greatest *true* reward plus predicted future is taken. With `lookahead = 0` this
//!    is plain DQN: the action of the greatest Q is taken, and only its reward is paid for.
//! 3. Predicted differences between futures are scaled by how well earlier ones came true (`FutureCalibration`).
//! 4. Rewards and futures are standardised by depth (`DepthBaseline`).
//! 5. Once episodes meet nothing new, the rest of the evaluations is spent around the best plan (`late_exploration`).
//!
//! `docs/lab/2026-11-dqn-ablation.md` has measurements of what each part is worth.

mod calibration;
pub(crate) mod late_exploration;
pub mod replay;
mod settings;

use std::collections::VecDeque;

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tamis_nn::seed::Seed;

use crate::{
    Result,
    agents::{
        Agent, TrainEvent, best,
        dqn::{
            calibration::FutureCalibration,
            late_exploration::{LateExploration, STALL_LIMIT},
            replay::{Replay, Transition},
        },
        network::{QNetwork, Training, TrainingSample, Values},
    },
    env::{Action, Environment, Observation, Shape},
    reward_models::baseline::DepthBaseline,
};

pub use settings::DqnSettings;

/// Fewer actions are tried at a step where the evaluations would not last for this many episodes.
const MIN_EPISODES: u64 = 4;
/// The warm-up lasts for at most the number of evaluations divided by this.
const WARM_UP_DIVISOR: u64 = 10;
/// The most bytes of observations in replay; the number of steps kept is lowered to fit.
const REPLAY_BYTES: usize = 256 << 20;
/// Observed rewards that are kept; the oldest go first.
const MAX_REWARDS: usize = 20_000;
/// The norm to which larger gradients are scaled down (Wang et al. 2016, section 4.2).
const MAX_GRAD_NORM: f32 = 10.0;

/// A deep Q-learning agent.
pub struct Dqn {
    settings: DqnSettings,
    pub(crate) online: QNetwork,
    target: QNetwork,
    training: Training,
    training_steps: u64,
    pub(crate) replay: Replay,
    rewards: VecDeque<ObservedReward>,
    rewards_observed: usize,
    pub(crate) episodes: u64,
    schedule: Schedule,
    /// What steps at a depth earn.
    reward_baseline: DepthBaseline,
    /// What is earned after steps at a depth.
    future_baseline: DepthBaseline,
    calibration: FutureCalibration,
}

/// The settings that depend on how many evaluations there are, fitted to them.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    lookahead: usize,
    explorers: usize,
    learning_starts: usize,
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

/// The reward of an action that was taken or tried.
struct ObservedReward {
    /// What the network reads of the action ([`QNetwork::input`]).
    input: Vec<f32>,
    action: Action,
    depth: usize,
    reward: f64,
}

/// An episode that was played to its end.
#[derive(Default)]
struct Played {
    actions: Vec<Action>,
    /// By how much each action's future was predicted to be better than the mean legal action's.
    predicted: Vec<f64>,
    episode_return: f64,
    /// Mean over its training steps; NaN if there were none.
    loss: f64,
    /// The exploration rate at its last step.
    epsilon: f64,
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
        let capacity = settings.buffer_size.min(REPLAY_BYTES / observation.max(1)).max(1);
        Ok(Self {
            training: Training::new(&online, settings.learning_rate, MAX_GRAD_NORM),
            training_steps: 0,
            target: online.clone(),
            replay: Replay::new(capacity),
            rewards: VecDeque::new(),
            rewards_observed: 0,
            episodes: 0,
            schedule: Schedule {
                lookahead: settings.lookahead,
                explorers: settings.explorers,
                learning_starts: settings.learning_starts,
            },
            reward_baseline: DepthBaseline::default(),
            future_baseline: DepthBaseline::default(),
            calibration: FutureCalibration::default(),
            online,
            settings,
        })
    }

    /// Training steps done so far.
    pub fn training_steps(&self) -> u64 {
        self.training_steps
    }

    /// Immediate reward and future return of every action, in units of the score; shapes `(actions,)`. Differences between the
    /// futures of legal actions are scaled by [`FutureCalibration`].
    pub(crate) fn estimates(&self, values: &Values, observation: &Observation) -> Estimates {
        let restored = |values: &[f32], baseline: &DepthBaseline| -> Vec<f64> {
            let (mean, spread) = baseline.at(observation.step);
            values.iter().map(|&x| mean + spread * f64::from(x)).collect()
        };
        let mut futures = restored(&values.future, &self.future_baseline);
        if self.settings.calibrate {
            let legal = observation.legal_actions();
            let mean = legal.iter().map(|&action| futures[action]).sum::<f64>() / legal.len().max(1) as f64;
            let slope = self.calibration.slope();
            for future in &mut futures {
                *future = mean + slope * (*future - mean);
            }
        }
        Estimates {
            rewards: restored(&values.reward, &self.reward_baseline),
            futures,
        }
    }

    /// Whether enough rewards were observed for the network's predictions to be used.
    pub(crate) fn warmed_up(&self) -> bool {
        self.rewards_observed >= self.schedule.learning_starts
    }

    /// Fits the schedule to the evaluations that the environment has left. Returns how many actions they allow to be tried at a
    /// step.
    ///
    /// # Errors
    ///
    /// If the environment cannot be simulated.
    pub(crate) fn fit_schedule(&mut self, env: &dyn Environment) -> Result<usize> {
        let affordable = affordable_tries(env)?;
        let wanted = self.settings.lookahead + self.settings.explorers;
        self.schedule.explorers = self.settings.explorers * affordable.min(wanted) / wanted.max(1);
        self.schedule.lookahead = self
            .settings
            .lookahead
            .min(affordable - self.schedule.explorers.min(affordable));
        let longest = usize::try_from(env.remaining() / WARM_UP_DIVISOR).unwrap_or(usize::MAX);
        self.schedule.learning_starts = self.settings.learning_starts.min(longest);
        Ok(affordable)
    }

    /// Chooses an action. In a lookahead the rewards of all tried actions are paid for; without one nothing is.
    fn choose(
        &mut self,
        env: &mut dyn Environment,
        observation: &Observation,
        estimates: &Estimates,
        epsilon: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Action> {
        let mut tried = observation.legal_actions();
        let legal = tried.len();
        let warmed_up = self.warmed_up();
        let at_random = !warmed_up || rng.random::<f64>() < epsilon;
        if self.settings.lookahead == 0 {
            return Ok(if at_random {
                tried[rng.random_range(0..legal)]
            } else {
                best(&tried, |action| estimates.q(action))
            });
        }
        tried.shuffle(rng);
        if !at_random {
            // The sort is stable, so actions of equal Q stay in random order.
            tried.sort_by(|&a, &b| estimates.q(b).total_cmp(&estimates.q(a)));
            let guided = self.schedule.lookahead.min(legal);
            tried[guided..].shuffle(rng);
        }
        let tries = self.schedule.lookahead + self.schedule.explorers;
        tried.truncate(tries.min(usize::try_from(env.remaining()).unwrap_or(usize::MAX)).max(1));
        let rewards = env.lookahead(&tried)?;
        for (&action, &reward) in tried.iter().zip(&rewards) {
            self.observe_reward(observation, action, reward);
        }
        // Where all legal actions are tried, trying random ones explores nothing. A random one is taken instead.
        if at_random && warmed_up && tried.len() == legal {
            return Ok(tried[rng.random_range(0..legal)]);
        }
        let future = |action: Action| if warmed_up { estimates.futures[action] } else { 0.0 };
        let places: Vec<usize> = (0..tried.len()).collect();
        Ok(tried[best(&places, |i| rewards[i] + future(tried[i]))])
    }

    /// The action of the greatest Q, and its predicted reward.
    fn greedy(&self, observation: &Observation) -> (Action, f64) {
        let estimates = self.estimates(&self.online.values(&[observation])[0], observation);
        let action = best(&observation.legal_actions(), |action| estimates.q(action));
        (action, estimates.rewards[action])
    }

    /// By how much the network predicts this action's future to be better than the mean legal action's, before calibration; in
    /// units of the score.
    pub(crate) fn predicted_difference(&self, values: &Values, observation: &Observation, action: Action) -> f64 {
        let legal = observation.legal_actions();
        let mean = legal.iter().map(|&action| values.future[action]).sum::<f32>() / legal.len().max(1) as f32;
        f64::from(values.future[action] - mean) * self.future_baseline.at(observation.step).1
    }

    /// Keeps a reward to learn from.
    pub(crate) fn observe_reward(&mut self, observation: &Observation, action: Action, reward: f64) {
        self.rewards_observed += 1;
        if !self.settings.split {
            return;
        }
        if self.rewards.len() == MAX_REWARDS {
            self.rewards.pop_front();
        }
        self.reward_baseline.add(observation.step, reward);
        self.rewards.push_back(ObservedReward {
            input: self.online.input(observation, action),
            action,
            depth: observation.step,
            reward,
        });
    }

    /// The target of each transition's future return, standardised: its n-step rewards and the value of the state after them.
    fn future_targets(&self, transitions: &[Transition<'_>]) -> Vec<f32> {
        let next: Vec<&Observation> = transitions.iter().map(|transition| transition.next).collect();
        let target = self.target.values(&next);
        let choosing = if self.settings.double {
            self.online.values(&next)
        } else {
            target.clone()
        };
        transitions
            .iter()
            .zip(target.iter().zip(&choosing))
            .map(|(transition, (target, choosing))| {
                let mut actions = transition.next.legal_actions();
                let bootstrapped = if actions.is_empty() {
                    0.0
                } else {
                    if !self.settings.mask_next {
                        actions = (0..transition.next.legal.len()).collect();
                    }
                    let choosing = self.estimates(choosing, transition.next);
                    let action = best(&actions, |action| choosing.q(action));
                    self.estimates(target, transition.next).q(action)
                };
                // Where reward and future are one output, it learns the reward as well.
                let reward = if self.settings.split { 0.0 } else { transition.reward };
                self.future_baseline
                    .standardise(transition.observation.step, reward + transition.more + bootstrapped)
            })
            .collect()
    }

    /// One training step, on transitions and observed rewards; returns the loss.
    pub(crate) fn update(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        let transitions: Vec<Transition<'_>> = (0..self.settings.batch_size)
            .map(|_| self.replay.sample(self.settings.n_steps, rng))
            .collect();
        let futures = self.future_targets(&transitions);
        let inputs: Vec<Vec<f32>> = transitions
            .iter()
            .map(|transition| self.online.input(transition.observation, transition.action))
            .collect();
        let mut samples: Vec<TrainingSample<'_>> = transitions
            .iter()
            .zip(inputs.iter().zip(futures))
            .map(|(transition, (input, future))| TrainingSample {
                input,
                action: transition.action,
                reward: self.settings.split.then(|| {
                    self.reward_baseline
                        .standardise(transition.observation.step, transition.reward)
                }),
                future: Some(future),
            })
            .collect();
        for _ in 0..self.settings.reward_batch_size.min(self.rewards.len()) {
            let observed = &self.rewards[rng.random_range(0..self.rewards.len())];
            samples.push(TrainingSample {
                input: &observed.input,
                action: observed.action,
                reward: Some(self.reward_baseline.standardise(observed.depth, observed.reward)),
                future: None,
            });
        }
        let loss = self.online.learn(&samples, &mut self.training);
        self.training.step(&mut self.online);
        self.training_steps += 1;
        self.target.follow(&self.online, self.settings.tau);
        loss
    }

    /// The training steps after an environment step; adds their losses to `losses`. The first episode has none: only its end
    /// tells the baseline of the futures.
    pub(crate) fn updates(&mut self, losses: &mut Vec<f64>, rng: &mut ChaCha8Rng) {
        if self.episodes > 0 {
            losses.extend((0..self.settings.gradient_steps).map(|_| self.update(rng)));
        }
    }

    /// Plays an episode and learns on the way. `plan` has the actions to take, if they are not to be chosen; `total` is the number
    /// of evaluations at the start of training. `None`: the evaluations were spent before the episode's end.
    fn play(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        total: u64,
        plan: Option<&[Action]>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Played>> {
        let mut played = Played::default();
        let mut losses = Vec::new();
        let mut observation = env.reset(seed)?;
        self.replay.begin(observation.clone());
        while observation.legal.contains(&true) {
            let left = env.remaining();
            if left == 0 {
                return Ok(None);
            }
            let spent = 1.0 - left as f64 / total as f64;
            let (first, last) = (
                self.settings.exploration_initial_eps,
                self.settings.exploration_final_eps,
            );
            played.epsilon = first + spent * (last - first);
            let values = self.online.values(&[&observation]).remove(0);
            let estimates = self.estimates(&values, &observation);
            let action = match plan {
                Some(plan) => plan[played.actions.len()],
                None => self.choose(env, &observation, &estimates, played.epsilon, rng)?,
            };
            played.actions.push(action);
            played
                .predicted
                .push(self.predicted_difference(&values, &observation, action));
            let step = env.step(action)?;
            if self.settings.lookahead == 0 {
                self.observe_reward(&observation, action, step.reward);
            }
            played.episode_return += step.reward;
            self.replay.push(action, step.reward, step.observation.clone());
            observation = step.observation;
            self.updates(&mut losses, rng);
            if step.terminated || step.truncated {
                break;
            }
        }
        self.end_episode(&played.predicted);
        played.loss = losses.iter().sum::<f64>() / losses.len() as f64;
        Ok(Some(played))
    }

    /// Learns the baseline of the futures, and how well predictions came true, from what followed each step of the latest episode.
    pub(crate) fn end_episode(&mut self, predicted: &[f64]) {
        let returns = self.replay.latest_returns();
        let followed = returns.iter().skip(usize::from(self.settings.split)).chain(&[0.0]);
        for (depth, (&predicted, &followed)) in predicted.iter().zip(followed).enumerate() {
            if self.episodes > 0 {
                self.calibration
                    .add(predicted, followed - self.future_baseline.at(depth).0);
            }
            self.future_baseline.add(depth, followed);
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
        let total = env.remaining().max(1);
        self.fit_schedule(env)?;
        let (mut episode, mut steps, mut stalled) = (0, 0, 0);
        let mut late = LateExploration::default();
        // What the next episode does, if that is known.
        let mut plan = None;
        while env.remaining() > 0 {
            if stalled == STALL_LIMIT {
                plan = late.search(env, |observation| self.greedy(observation), &mut rng)?;
                if plan.is_none() {
                    break;
                }
                stalled = 0;
            }
            let before = env.remaining();
            let Some(played) = self.play(env, seed.index(episode), total, plan.take().as_deref(), &mut rng)? else {
                break;
            };
            late.record(&played.actions, played.episode_return);
            episode += 1;
            steps += played.actions.len() as u64;
            log(&TrainEvent {
                episode,
                steps,
                episode_return: played.episode_return,
                loss: played.loss,
                epsilon: played.epsilon,
                agreement: f64::NAN,
            })?;
            stalled = if env.remaining() == before { stalled + 1 } else { 0 };
        }
        Ok(())
    }

    fn act(&mut self, observation: &Observation) -> Action {
        self.greedy(observation).0
    }
}

/// How many actions can be tried at each step if the evaluations are to last for [`MIN_EPISODES`] episodes; at least one.
fn affordable_tries(env: &dyn Environment) -> Result<usize> {
    let mut simulation = env.simulate()?;
    let mut steps = 0;
    while let Some(&action) = simulation.observe()?.legal_actions().first() {
        simulation.take(action, 0.0)?;
        steps += 1;
    }
    let tries = env.remaining() / (MIN_EPISODES * steps.max(1));
    Ok(usize::try_from(tries).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents::network::NetworkKind, env::coverage::Coverage};

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

    fn with(base: &DqnSettings, change: impl FnOnce(&mut DqnSettings)) -> DqnSettings {
        let mut settings = base.clone();
        change(&mut settings);
        settings
    }

    #[test]
    fn every_kind_comes_near_the_optimum_that_enumeration_finds() {
        let plain = with(&DqnSettings::default(), |settings| {
            (settings.split, settings.lookahead, settings.calibrate) = (false, 0, false);
            (settings.exploration_initial_eps, settings.learning_starts) = (0.5, 40);
            settings.gradient_steps = 4;
        });
        let split = with(&plain, |settings| settings.split = true);
        let flat = with(&plain, |settings| {
            (settings.network, settings.gradient_steps) = (NetworkKind::Flat, 8);
        });
        let lookahead = with(&DqnSettings::default(), |settings| {
            (settings.lookahead, settings.learning_starts) = (3, 40);
        });
        let no_rewards = with(&split, |settings| settings.reward_batch_size = 0);
        let kinds = [
            ("shared, lookahead", lookahead),
            ("flat, plain", flat),
            (
                "shared, plain, not double",
                with(&plain, |settings| settings.double = false),
            ),
            (
                "shared, plain, a small buffer",
                with(&plain, |settings| settings.buffer_size = 100),
            ),
            ("shared, plain", plain),
            ("shared, plain, split", split),
            ("shared, plain, split, no observed rewards", no_rewards),
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
}

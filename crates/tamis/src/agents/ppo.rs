//! Proximal policy optimisation with legal-action masks.
//!
//! The policy gives every legal action a probability, and episodes are played by drawing from it. After a round of episodes the
//! policy takes a few epochs of small steps towards the actions that earned more than the value network expected, within the clip
//! range.
//!
//! Sources: Schulman et al. 2017 (the clipped objective, value loss and entropy bonus of eq. 9, section 5); Schulman et al. 2016
//! (generalised advantage estimates, eq. 16); Huang & Ontañón 2022 (masked logits). Gamma is 1, since the return is the final
//! score. We differ in this:
//!
//! 1. An episode is simulated to its end and only its last state is paid for ([`Environment::evaluate_plans`]), so that an
//!    evaluation buys a whole episode; all reward comes with the last step. With `pay = "steps"` every step is paid for, as in the
//!    paper.
//! 2. Beside the shared network each action has a learned offset ([`crate::agents::policy`]).
//! 3. The value network learns returns that are standardised by depth (`DepthBaseline`).
//! 4. Once rounds draw nothing new, the rest of the evaluations is spent around the best plan
//!    (`crate::agents::dqn::late_exploration`); the policy does not learn from that.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tamis_nn::{mlp::Trace, seed::Seed};

use crate::{
    Result,
    agents::{
        Agent, TrainEvent, best,
        dqn::late_exploration::{LateExploration, STALL_LIMIT},
        network::NetworkKind,
        policy::{ActorCritic, LossCoefficients, Losses, Sample},
    },
    env::{Action, Environment, Observation, Shape},
    error::range::{above, check},
    reward_models::baseline::DepthBaseline,
};

/// Which states of an episode are paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pay {
    /// The last one.
    #[default]
    End,
    /// All of them.
    Steps,
}

/// How a [`Ppo`] learns. Names are those of Stable-Baselines3 where the meaning is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoSettings {
    /// The networks. Default: shared.
    pub network: NetworkKind,
    /// Units of each of the two hidden layers, 1 to 4096. Default: 32.
    pub hidden: usize,
    /// Adam's learning rate, above 0; that of the offsets is ten times as large. Default: 0.003.
    pub learning_rate: f32,
    /// Which states are paid for: `end` or `steps`. Default: end.
    pub pay: Pay,
    /// Episodes of a round, after which the policy is updated, 1 to 65,536. Default: 16.
    pub episodes: usize,
    /// The most passes over the steps of a round, 1 to 1000. Default: 3.
    pub n_epochs: usize,
    /// Steps of a training step, 1 to 65,536. Default: 128.
    pub batch_size: usize,
    /// How far the ratio of a new to an old probability may move from 1, above 0. Default: 0.2.
    pub clip_range: f32,
    /// Lambda of the advantage estimates, from 0 (one step) to 1 (whole episodes). Default: 0.95.
    pub gae_lambda: f64,
    /// Weight of the value loss, at least 0. Default: 0.5.
    pub vf_coef: f32,
    /// Weight of the entropy bonus, at least 0. Default: 0.003.
    pub ent_coef: f32,
    /// No further epoch is begun once the policy has moved this far, in nats of KL divergence; above 0. Default: 0.03.
    pub target_kl: f64,
}

impl Default for PpoSettings {
    fn default() -> Self {
        Self {
            network: NetworkKind::Shared,
            hidden: 32,
            learning_rate: 3e-3,
            pay: Pay::End,
            episodes: 16,
            n_epochs: 3,
            batch_size: 128,
            clip_range: 0.2,
            gae_lambda: 0.95,
            vf_coef: 0.5,
            ent_coef: 0.003,
            target_kl: 0.03,
        }
    }
}

impl PpoSettings {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        // Upper bounds keep a typing error from asking for more memory than there is.
        check("ppo.hidden", self.hidden, 1..=4096)?;
        check("ppo.learning_rate", self.learning_rate, above(0.0))?;
        check("ppo.episodes", self.episodes, 1..=65_536)?;
        check("ppo.n_epochs", self.n_epochs, 1..=1000)?;
        check("ppo.batch_size", self.batch_size, 1..=65_536)?;
        check("ppo.clip_range", self.clip_range, above(0.0))?;
        check("ppo.gae_lambda", self.gae_lambda, 0.0..=1.0)?;
        check("ppo.vf_coef", self.vf_coef, 0.0..)?;
        check("ppo.ent_coef", self.ent_coef, 0.0..)?;
        check("ppo.target_kl", self.target_kl, above(0.0))
    }
}

/// A proximal policy optimisation agent.
pub struct Ppo {
    settings: PpoSettings,
    networks: ActorCritic,
    /// What is earned from a depth on.
    return_baseline: DepthBaseline,
    trace: Trace,
    training_steps: u64,
}

/// An episode: one observation, action, log-probability and reward a step.
#[derive(Debug, Default)]
struct Episode {
    observations: Vec<Observation>,
    actions: Vec<Action>,
    log_probs: Vec<f32>,
    rewards: Vec<f64>,
}

/// What the steps of an episode teach, in units of the score; shapes `(steps,)`.
struct Targets {
    /// What was earned from each step on, its own reward included.
    returns: Vec<f64>,
    /// By how much that is more than the value network expected: generalised advantage estimates.
    advantages: Vec<f64>,
}

impl Ppo {
    /// An agent for environments of this shape.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn new(shape: Shape, settings: PpoSettings, seed: Seed) -> Result<Self> {
        settings.check()?;
        let seed = seed.derive("ppo");
        Ok(Self {
            networks: ActorCritic::new(settings.network, shape, settings.hidden, settings.learning_rate, seed),
            return_baseline: DepthBaseline::default(),
            trace: Trace::default(),
            training_steps: 0,
            settings,
        })
    }

    /// Training steps done so far.
    pub fn training_steps(&self) -> u64 {
        self.training_steps
    }

    /// Draws an action from the policy; returns it with the logarithm of its probability.
    fn draw(&self, observation: &Observation, rng: &mut ChaCha8Rng) -> (Action, f32) {
        let log = self.networks.evaluate(&[observation]).remove(0).log_probs;
        let legal = observation.legal_actions();
        let mut rest = rng.random::<f32>();
        for &action in &legal {
            rest -= log[action].exp();
            if rest <= 0.0 {
                return (action, log[action]);
            }
        }
        // The probabilities may sum to a little less than 1.
        let last = legal[legal.len() - 1];
        (last, log[last])
    }

    /// The most likely action.
    fn choose(&self, observation: &Observation) -> Action {
        let log = self.networks.evaluate(&[observation]).remove(0).log_probs;
        best(&observation.legal_actions(), |action| f64::from(log[action]))
    }

    /// Simulates episodes to their ends and pays for their last states.
    fn play_for_the_end(&self, env: &mut dyn Environment, rng: &mut ChaCha8Rng) -> Result<Vec<Episode>> {
        let count = self
            .settings
            .episodes
            .min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
        let mut episodes = Vec::with_capacity(count);
        for _ in 0..count {
            let mut simulation = env.simulate()?;
            let mut episode = Episode::default();
            let mut observation = simulation.observe()?;
            while observation.legal.contains(&true) {
                let (action, log_prob) = self.draw(&observation, rng);
                simulation.take(action, 0.0)?;
                episode.push(observation, action, log_prob, 0.0);
                observation = simulation.observe()?;
            }
            episodes.push(episode);
        }
        let plans: Vec<Vec<Action>> = episodes.iter().map(|episode| episode.actions.clone()).collect();
        for (episode, episode_return) in episodes.iter_mut().zip(env.evaluate_plans(&plans)?) {
            if let Some(last) = episode.rewards.last_mut() {
                *last = episode_return;
            }
        }
        Ok(episodes)
    }

    /// Plays episodes and pays for every step; an episode for which the evaluations do not last is dropped.
    fn play_every_step(&self, env: &mut dyn Environment, seed: Seed, rng: &mut ChaCha8Rng) -> Result<Vec<Episode>> {
        let mut episodes = Vec::new();
        for i in 0..self.settings.episodes {
            let mut episode = Episode::default();
            let mut observation = env.reset(seed.index(i as u64))?;
            while observation.legal.contains(&true) {
                if env.remaining() == 0 {
                    return Ok(episodes);
                }
                let (action, log_prob) = self.draw(&observation, rng);
                let step = env.step(action)?;
                episode.push(observation, action, log_prob, step.reward);
                observation = step.observation;
            }
            episodes.push(episode);
        }
        Ok(episodes)
    }

    /// Returns and generalised advantage estimates, in units of the score.
    fn targets(&self, episode: &Episode) -> Targets {
        let observations: Vec<&Observation> = episode.observations.iter().collect();
        let outputs = self.networks.evaluate(&observations);
        let expected: Vec<f64> = outputs
            .iter()
            .zip(&observations)
            .map(|(output, observation)| self.return_baseline.restore(observation.step, output.value))
            .collect();
        let steps = episode.rewards.len();
        let mut targets = Targets {
            returns: vec![0.0; steps],
            advantages: vec![0.0; steps],
        };
        let (mut sum, mut advantage) = (0.0, 0.0);
        for t in (0..steps).rev() {
            let next = expected.get(t + 1).copied().unwrap_or(0.0);
            sum += episode.rewards[t];
            advantage = episode.rewards[t] + next - expected[t] + self.settings.gae_lambda * advantage;
            targets.returns[t] = sum;
            targets.advantages[t] = advantage;
        }
        targets
    }

    /// Learns from a round of episodes; returns the mean losses of the last epoch.
    fn update(&mut self, episodes: &[Episode], rng: &mut ChaCha8Rng) -> Losses {
        // The first round sets the baseline, in whose units the values are.
        if self.return_baseline.is_empty() {
            self.update_baseline(episodes);
        }
        let targets: Vec<Targets> = episodes.iter().map(|episode| self.targets(episode)).collect();
        self.update_baseline(episodes);
        let advantages = || targets.iter().flat_map(|targets| &targets.advantages);
        let count = advantages().count().max(1) as f64;
        let mean = advantages().sum::<f64>() / count;
        let spread = (advantages().map(|a| (a - mean).powi(2)).sum::<f64>() / count).sqrt();
        // Where all episodes have the same return, no action is better than another.
        let unit = if spread > 1e-12 { spread.recip() } else { 0.0 };
        let mut samples = Vec::new();
        for (episode, targets) in episodes.iter().zip(&targets) {
            for (t, observation) in episode.observations.iter().enumerate() {
                samples.push(Sample {
                    observation,
                    action: episode.actions[t],
                    log_prob: episode.log_probs[t],
                    advantage: ((targets.advantages[t] - mean) * unit) as f32,
                    value_target: self
                        .return_baseline
                        .standardise(observation.step, targets.returns[t])
                        .clamp(-5.0, 5.0),
                });
            }
        }
        let coefficients = LossCoefficients {
            clip_range: self.settings.clip_range,
            vf_coef: self.settings.vf_coef,
            ent_coef: self.settings.ent_coef,
        };
        let mut losses = Losses::default();
        for _ in 0..self.settings.n_epochs {
            samples.shuffle(rng);
            losses = Losses::default();
            let share = 1.0 / samples.len().div_ceil(self.settings.batch_size).max(1) as f64;
            for batch in samples.chunks(self.settings.batch_size) {
                let found = self.networks.learn(batch, coefficients, &mut self.trace);
                self.training_steps += 1;
                losses.policy += share * found.policy;
                losses.value += share * found.value;
                losses.entropy += share * found.entropy;
                losses.approx_kl += share * found.approx_kl;
            }
            if losses.approx_kl > self.settings.target_kl {
                break;
            }
        }
        losses
    }

    /// Adds the returns of these episodes to the baseline.
    fn update_baseline(&mut self, episodes: &[Episode]) {
        for episode in episodes {
            let mut sum = 0.0;
            for (observation, reward) in episode.observations.iter().zip(&episode.rewards).rev() {
                sum += reward;
                self.return_baseline.add(observation.step, sum);
            }
        }
    }
}

impl Episode {
    fn push(&mut self, observation: Observation, action: Action, log_prob: f32, reward: f64) {
        self.observations.push(observation);
        self.actions.push(action);
        self.log_probs.push(log_prob);
        self.rewards.push(reward);
    }
}

impl Agent for Ppo {
    fn train(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        log: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()> {
        let mut rng = seed.derive("ppo").rng();
        let (mut episode, mut steps, mut stalled) = (0, 0, 0);
        let mut late = LateExploration::default();
        for round in 0.. {
            let before = env.remaining();
            if before == 0 {
                break;
            }
            if stalled == STALL_LIMIT {
                // The policy draws nothing new any more, and can learn nothing from single plans.
                while late
                    .search(env, |observation| (self.choose(observation), 0.0), &mut rng)?
                    .is_some()
                {}
                break;
            }
            let episodes = match self.settings.pay {
                Pay::End => self.play_for_the_end(env, &mut rng)?,
                Pay::Steps => self.play_every_step(env, seed.index(round), &mut rng)?,
            };
            if episodes.is_empty() {
                break;
            }
            let losses = self.update(&episodes, &mut rng);
            for played in &episodes {
                let episode_return = played.rewards.iter().sum();
                late.record(&played.actions, episode_return);
                episode += 1;
                steps += played.actions.len() as u64;
                log(&TrainEvent {
                    episode,
                    steps,
                    episode_return,
                    loss: losses.policy + losses.value,
                    epsilon: 0.0,
                    agreement: f64::NAN,
                })?;
            }
            stalled = if env.remaining() == before { stalled + 1 } else { 0 };
        }
        Ok(())
    }

    fn act(&mut self, observation: &Observation) -> Action {
        self.choose(observation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::coverage::Coverage;

    fn trained(settings: PpoSettings, evaluations: u64) -> (Ppo, Coverage, Vec<f64>) {
        let mut env = Coverage::random(10, 40, 4, evaluations, Seed(11));
        let mut agent = Ppo::new(env.shape(), settings, Seed(1)).expect("sound settings");
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
        let kinds = [
            ("shared, paid at the end", 160, PpoSettings::default()),
            (
                "shared, paid step by step",
                320,
                PpoSettings {
                    pay: Pay::Steps,
                    ..PpoSettings::default()
                },
            ),
            (
                "flat, paid at the end",
                160,
                PpoSettings {
                    network: NetworkKind::Flat,
                    ..PpoSettings::default()
                },
            ),
        ];
        for (name, evaluations, settings) in kinds {
            let (mut agent, mut env, returns) = trained(settings, evaluations);
            let optimum = env.optimum();
            let found = returns.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut seen = env.reset(Seed(0)).expect("resets");
            let mut alone = 0.0;
            while seen.legal.contains(&true) {
                let step = env.step(agent.act(&seen)).expect("steps");
                alone += step.reward;
                seen = step.observation;
            }
            assert!(
                found > 0.97 * optimum,
                "{name}: best episode {found}, optimum {optimum}"
            );
            assert!(
                alone > 0.85 * optimum,
                "{name}: the policy alone {alone}, optimum {optimum}"
            );
        }
    }

    #[test]
    fn one_seed_one_run() {
        let run = || trained(PpoSettings::default(), 100).2;
        assert_eq!(run(), run());
    }

    #[test]
    fn advantages_worked_by_hand() {
        let mut agent = Ppo::new(
            Coverage::random(2, 5, 2, 10, Seed(1)).shape(),
            PpoSettings::default(),
            Seed(1),
        )
        .expect("sound");
        agent.settings.gae_lambda = 0.5;
        let mut env = Coverage::random(2, 5, 2, 10, Seed(1));
        let first = env.reset(Seed(0)).expect("resets");
        let second = env.step(0).expect("steps").observation;
        let mut episode = Episode::default();
        episode.push(first, 0, 0.0, 1.0);
        episode.push(second, 1, 0.0, 2.0);
        agent.update_baseline(std::slice::from_ref(&episode));
        let outputs = agent
            .networks
            .evaluate(&[&episode.observations[0], &episode.observations[1]]);
        // baseline: 3 at depth 0, 2 at depth 1, both with a spread of 1 for want of more episodes
        let (v0, v1) = (3.0 + f64::from(outputs[0].value), 2.0 + f64::from(outputs[1].value));
        let targets = agent.targets(&episode);
        assert_eq!(targets.returns, [3.0, 2.0]);
        assert!((targets.advantages[1] - (2.0 - v1)).abs() < 1e-9);
        assert!((targets.advantages[0] - (1.0 + v1 - v0 + 0.5 * (2.0 - v1))).abs() < 1e-9);
    }

    #[test]
    fn two_thousand_actions_and_a_single_one_are_no_trouble() {
        for actions in [1, 2000] {
            let mut env = Coverage::random(actions, 5, 1, 64, Seed(1));
            let mut agent = Ppo::new(env.shape(), PpoSettings::default(), Seed(1)).expect("sound settings");
            let mut sound = true;
            let mut log = |event: &TrainEvent| {
                sound &= event.loss.is_finite() && event.episode_return.is_finite();
                Ok(())
            };
            agent.train(&mut env, Seed(2), &mut log).expect("trains");
            assert!(sound, "{actions} actions");
            let seen = env.reset(Seed(0)).expect("resets");
            assert!(agent.act(&seen) < actions);
            assert!(agent.networks.evaluate(&[&seen])[0].value.is_finite());
        }
    }

    /// Makes settings unsound.
    type Change = fn(&mut PpoSettings);

    #[test]
    fn settings_out_of_range_are_named() {
        let cases: [(Change, &str); 4] = [
            (|settings| settings.clip_range = 0.0, "ppo.clip_range"),
            (|settings| settings.gae_lambda = f64::NAN, "ppo.gae_lambda"),
            (|settings| settings.episodes = 0, "ppo.episodes"),
            (|settings| settings.ent_coef = -1.0, "ppo.ent_coef"),
        ];
        for (change, name) in cases {
            let mut settings = PpoSettings::default();
            change(&mut settings);
            let error = settings.check().expect_err("out of range").to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
    }
}

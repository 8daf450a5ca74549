//! Proximal policy optimisation with legal-action masks.
//!
//! Episodes are played by drawing actions from a masked categorical policy; then the policy takes a few epochs of small steps
//! towards what earned more than the value network expected, as far as the clipped objective lets it.
//!
//! Sources: Schulman et al. 2017 (the clipped objective, value loss and entropy bonus of eq. 9, section 5); Schulman et al. 2016
//! (generalised advantage estimates, eq. 16); Huang & Ontañón 2022 (masked logits). Gamma is 1, since the return is the final
//! score. What we do differently:
//!
//! 1. An episode is imagined to its end and only its last state is paid for ([`Environment::evaluate_plans`]), so that an evaluation
//!    buys a whole episode; all reward comes with the last step. `pay = "steps"` pays for every step, as usual.
//! 2. Beside the shared network each action has an offset of its own ([`crate::agents::policy`]).
//! 3. The value network learns distances from what is usual at a depth, as the [DQN](crate::agents::dqn) does.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tamis_nn::{mlp::Trace, seed::Seed};

use crate::{
    Error, Result,
    agents::{
        Agent, TrainEvent, best,
        dqn::late_exploration::{Beyond, SETTLED},
        network::NetworkKind,
        policy::{ActorCritic, Losses, Sample, Weights},
    },
    env::{Action, Environment, Observation, Shape},
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

/// How a [`Ppo`] learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoSettings {
    /// The networks. Default: shared.
    pub network: NetworkKind,
    /// Units of each of the two hidden layers. Default: 32.
    pub hidden: usize,
    /// Adam's learning rate; the offsets' is ten times as large. Default: 0.003.
    pub learning_rate: f32,
    /// Which states are paid for: `end` or `steps`. Default: end.
    pub pay: Pay,
    /// Episodes between two updates. Default: 16.
    pub episodes: usize,
    /// The most passes over their steps. Default: 3.
    pub epochs: usize,
    /// Steps a training step learns from. Default: 128.
    pub batch: usize,
    /// How far a probability's ratio may move from 1. Default: 0.2.
    pub clip: f32,
    /// Lambda of the advantage estimates, 0 (one step) to 1 (whole episodes). Default: 0.95.
    pub lambda: f64,
    /// Weight of the value loss. Default: 0.5.
    pub value_weight: f32,
    /// Weight of the entropy bonus. Default: 0.003.
    pub entropy_weight: f32,
    /// No further epoch is begun once the policy has moved this far, in nats of KL divergence. Default: 0.03.
    pub target_divergence: f64,
}

impl Default for PpoSettings {
    fn default() -> Self {
        Self {
            network: NetworkKind::Shared,
            hidden: 32,
            learning_rate: 3e-3,
            pay: Pay::End,
            episodes: 16,
            epochs: 3,
            batch: 128,
            clip: 0.2,
            lambda: 0.95,
            value_weight: 0.5,
            entropy_weight: 0.003,
            target_divergence: 0.03,
        }
    }
}

impl PpoSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("ppo.hidden", self.hidden, 4096),
            ("ppo.episodes", self.episodes, 65_536),
            ("ppo.epochs", self.epochs, 1000),
            ("ppo.batch", self.batch, 65_536),
        ];
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(Error::setting(name, format!("from 1 to {most}"), value.to_string()));
            }
        }
        let above = [
            ("ppo.learning_rate", f64::from(self.learning_rate)),
            ("ppo.clip", f64::from(self.clip)),
            ("ppo.target_divergence", self.target_divergence),
        ];
        for (name, value) in above {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::setting(name, "a number above 0", value.to_string()));
            }
        }
        let weights = [
            ("ppo.value_weight", self.value_weight),
            ("ppo.entropy_weight", self.entropy_weight),
        ];
        for (name, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(name, "a number of at least 0", value.to_string()));
            }
        }
        if !(0.0..=1.0).contains(&self.lambda) {
            return Err(Error::setting("ppo.lambda", "from 0 to 1", self.lambda.to_string()));
        }
        Ok(())
    }
}

/// A proximal policy optimisation agent.
pub struct Ppo {
    settings: PpoSettings,
    networks: ActorCritic,
    /// What is usually still earned at a depth.
    usual_future: DepthBaseline,
    trace: Trace,
    /// Training steps done.
    trained: u64,
}

/// An episode that was played: one observation, action, log-probability and reward a step.
#[derive(Debug, Default)]
struct Episode {
    seen: Vec<Observation>,
    actions: Vec<Action>,
    log_probabilities: Vec<f32>,
    rewards: Vec<f64>,
}

/// What each step of an episode earned, and by how much that was more than expected.
struct Hindsight {
    earned: Vec<f64>,
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
            usual_future: DepthBaseline::default(),
            trace: Trace::default(),
            trained: 0,
            settings,
        })
    }

    /// Training steps done so far.
    pub fn training_steps(&self) -> u64 {
        self.trained
    }

    /// Draws an action; returns it with the logarithm of its probability.
    fn draw(&self, seen: &Observation, rng: &mut ChaCha8Rng) -> (Action, f32) {
        let log = self.networks.judge(&[seen]).remove(0).log_probabilities;
        let open = seen.legal_actions();
        let mut ticket = rng.random::<f32>();
        for &action in &open {
            ticket -= log[action].exp();
            if ticket <= 0.0 {
                return (action, log[action]);
            }
        }
        // Rounding left a crumb of the ticket.
        let last = open[open.len() - 1];
        (last, log[last])
    }

    /// The likeliest action.
    fn choose(&self, seen: &Observation) -> Action {
        let log = self.networks.judge(&[seen]).remove(0).log_probabilities;
        best(&seen.legal_actions(), |action| f64::from(log[action]))
    }

    /// Imagines episodes to their ends and pays for their last states.
    fn play_for_the_end(&self, env: &mut dyn Environment, rng: &mut ChaCha8Rng) -> Result<Vec<Episode>> {
        let count = self
            .settings
            .episodes
            .min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
        let mut episodes = Vec::with_capacity(count);
        for _ in 0..count {
            let mut walk = env.simulate()?;
            let mut episode = Episode::default();
            let mut seen = walk.observe()?;
            while seen.legal.contains(&true) {
                let (action, log_probability) = self.draw(&seen, rng);
                walk.take(action, 0.0)?;
                episode.push(seen, action, log_probability, 0.0);
                seen = walk.observe()?;
            }
            episodes.push(episode);
        }
        let plans: Vec<Vec<Action>> = episodes.iter().map(|episode| episode.actions.clone()).collect();
        for (episode, earned) in episodes.iter_mut().zip(env.evaluate_plans(&plans)?) {
            if let Some(last) = episode.rewards.last_mut() {
                *last = earned;
            }
        }
        Ok(episodes)
    }

    /// Plays episodes and pays for every step; one that the limit cuts off is left out.
    fn play_every_step(&self, env: &mut dyn Environment, seed: Seed, rng: &mut ChaCha8Rng) -> Result<Vec<Episode>> {
        let mut episodes = Vec::new();
        for i in 0..self.settings.episodes {
            let mut episode = Episode::default();
            let mut seen = env.reset(seed.index(i as u64))?;
            while seen.legal.contains(&true) {
                if env.remaining() == 0 {
                    return Ok(episodes);
                }
                let (action, log_probability) = self.draw(&seen, rng);
                let step = env.step(action)?;
                episode.push(seen, action, log_probability, step.reward);
                seen = step.observation;
            }
            episodes.push(episode);
        }
        Ok(episodes)
    }

    /// Returns and generalised advantage estimates, in units of the score.
    fn look_back(&self, episode: &Episode) -> Hindsight {
        let seen: Vec<&Observation> = episode.seen.iter().collect();
        let judged = self.networks.judge(&seen);
        let expected: Vec<f64> = judged
            .iter()
            .zip(&episode.seen)
            .map(|(judgement, seen)| self.usual_future.restore(seen.step, judgement.value))
            .collect();
        let steps = episode.rewards.len();
        let mut hindsight = Hindsight {
            earned: vec![0.0; steps],
            advantages: vec![0.0; steps],
        };
        let (mut earned, mut advantage) = (0.0, 0.0);
        for t in (0..steps).rev() {
            let next = expected.get(t + 1).copied().unwrap_or(0.0);
            earned += episode.rewards[t];
            advantage = episode.rewards[t] + next - expected[t] + self.settings.lambda * advantage;
            hindsight.earned[t] = earned;
            hindsight.advantages[t] = advantage;
        }
        hindsight
    }

    /// Learns from a round of episodes; returns the mean losses of the last epoch.
    fn update(&mut self, episodes: &[Episode], rng: &mut ChaCha8Rng) -> Losses {
        // The first round has to set what is usual before values can be read in its units.
        if self.usual_future.is_empty() {
            self.note(episodes);
        }
        let hindsight: Vec<Hindsight> = episodes.iter().map(|episode| self.look_back(episode)).collect();
        self.note(episodes);
        let advantages = || hindsight.iter().flat_map(|h| &h.advantages);
        let count = advantages().count().max(1) as f64;
        let mean = advantages().sum::<f64>() / count;
        let spread = (advantages().map(|a| (a - mean).powi(2)).sum::<f64>() / count).sqrt();
        // Episodes that all earned the same teach nothing about what is better.
        let unit = if spread > 1e-12 { spread.recip() } else { 0.0 };
        let mut samples = Vec::new();
        for (episode, hindsight) in episodes.iter().zip(&hindsight) {
            for (t, observation) in episode.seen.iter().enumerate() {
                samples.push(Sample {
                    observation,
                    action: episode.actions[t],
                    log_probability: episode.log_probabilities[t],
                    advantage: ((hindsight.advantages[t] - mean) * unit) as f32,
                    earned: self
                        .usual_future
                        .standardise(observation.step, hindsight.earned[t])
                        .clamp(-5.0, 5.0),
                });
            }
        }
        let weights = Weights {
            clip: self.settings.clip,
            value: self.settings.value_weight,
            entropy: self.settings.entropy_weight,
        };
        let mut losses = Losses::default();
        for _ in 0..self.settings.epochs {
            samples.shuffle(rng);
            losses = Losses::default();
            let share = 1.0 / samples.len().div_ceil(self.settings.batch).max(1) as f64;
            for batch in samples.chunks(self.settings.batch) {
                let found = self.networks.learn(batch, weights, &mut self.trace);
                self.trained += 1;
                losses.policy += share * found.policy;
                losses.value += share * found.value;
                losses.entropy += share * found.entropy;
                losses.divergence += share * found.divergence;
            }
            if losses.divergence > self.settings.target_divergence {
                break;
            }
        }
        losses
    }

    /// What is usually still earned is told by what these episodes earned.
    fn note(&mut self, episodes: &[Episode]) {
        for episode in episodes {
            let mut earned = 0.0;
            for (seen, reward) in episode.seen.iter().zip(&episode.rewards).rev() {
                earned += reward;
                self.usual_future.add(seen.step, earned);
            }
        }
    }
}

impl Episode {
    fn push(&mut self, seen: Observation, action: Action, log_probability: f32, reward: f64) {
        self.seen.push(seen);
        self.actions.push(action);
        self.log_probabilities.push(log_probability);
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
        let (mut episode, mut steps, mut idle) = (0, 0, 0);
        let mut beyond = Beyond::default();
        for round in 0.. {
            let before = env.remaining();
            if before == 0 {
                break;
            }
            if idle == SETTLED {
                // The policy draws nothing new any more, and has nothing to learn from single plans.
                while beyond.look(env, |seen| (self.choose(seen), 0.0), &mut rng)?.is_some() {}
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
                let earned = played.rewards.iter().sum();
                beyond.note(&played.actions, earned);
                episode += 1;
                steps += played.actions.len() as u64;
                log(&TrainEvent {
                    episode,
                    steps,
                    episode_return: earned,
                    loss: losses.policy + losses.value,
                    epsilon: 0.0,
                    agreement: f64::NAN,
                })?;
            }
            idle = if env.remaining() == before { idle + 1 } else { 0 };
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
        agent.settings.lambda = 0.5;
        let mut env = Coverage::random(2, 5, 2, 10, Seed(1));
        let first = env.reset(Seed(0)).expect("resets");
        let second = env.step(0).expect("steps").observation;
        let mut episode = Episode::default();
        episode.push(first, 0, 0.0, 1.0);
        episode.push(second, 1, 0.0, 2.0);
        agent.note(std::slice::from_ref(&episode));
        let judged = agent.networks.judge(&[&episode.seen[0], &episode.seen[1]]);
        // usual: 3 at depth 0, 2 at depth 1, each of spread 1 for want of more
        let (v0, v1) = (3.0 + f64::from(judged[0].value), 2.0 + f64::from(judged[1].value));
        let hindsight = agent.look_back(&episode);
        assert_eq!(hindsight.earned, [3.0, 2.0]);
        assert!((hindsight.advantages[1] - (2.0 - v1)).abs() < 1e-9);
        assert!((hindsight.advantages[0] - (1.0 + v1 - v0 + 0.5 * (2.0 - v1))).abs() < 1e-9);
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
            assert!(agent.networks.judge(&[&seen])[0].value.is_finite());
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let check = |settings: PpoSettings| settings.check().expect_err("out of range").to_string();
        let clip = PpoSettings {
            clip: 0.0,
            ..PpoSettings::default()
        };
        assert!(check(clip).starts_with("ppo.clip"));
        let lambda = PpoSettings {
            lambda: f64::NAN,
            ..PpoSettings::default()
        };
        assert!(check(lambda).starts_with("ppo.lambda"));
        let episodes = PpoSettings {
            episodes: 0,
            ..PpoSettings::default()
        };
        assert!(check(episodes).starts_with("ppo.episodes"));
    }
}

//! DynaDQN: deep Q-learning that also learns from episodes it only imagines.
//!
//! Transitions of a selection problem are known; only scores cost. So the model that Dyna learns is one of the score
//! ([`GaussianProcess`]), and an imagined episode visits real states with predicted rewards. Three things alternate until the
//! evaluations are spent:
//!
//! 1. **A real episode** of the [`Dqn`], which pays for few actions a step: those that the Q-network or the model takes to be
//!    best, counting what the model is unsure of in their favour. Every score paid for teaches both.
//! 2. **Imagined episodes**: each keeps all but a few actions of one of the best plans known and is played to the end by the
//!    greatest predicted gain plus the network's calibrated future, but for a share of random actions. They are replayed for
//!    Q-learning like real ones.
//! 3. **Confirmation**: the imagined plans of the greatest predicted return, again with a bonus for uncertainty, are paid for,
//!    one evaluation each, and teach the model where it was wrong. Once real episodes meet nothing new, all that is left is
//!    spent so.
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
            late_exploration::{SETTLED, sorted},
        },
    },
    env::{Action, Environment, Observation, Shape},
    reward_models::{Prediction, gaussian_process::GaussianProcess},
    stats::agreement::spearman,
};

/// Plans paid for between two fits of the model.
const WAVE: usize = 32;
/// States that the model must have seen before it is asked.
const FIRST: usize = 64;
/// Best plans that imagined episodes begin from.
const ELITE: usize = 4;
/// The most actions of such a plan that are chosen anew, and no more than half of them.
const SWAPS: usize = 4;

/// How a [`DynaDqn`] learns, besides what its [`DqnSettings`] say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynaDqnSettings {
    /// Actions that are tried at a step of a real episode; fewer where the evaluations would not last for 4 episodes. Default: 6.
    pub lookahead: usize,
    /// Plans that are paid for, for each evaluation that real episodes spent. Default: 2.
    pub confirmed: f64,
    /// Imagined episodes for each plan that is paid for. Default: 8.
    pub imagined: usize,
    /// Actions of which the model predicts the gain at an imagined step. Default: 32.
    pub candidates: usize,
    /// How many standard deviations of the ensemble are added to a prediction. Default: 0.5.
    pub bonus: f64,
    /// Training steps for each plan that is paid for. Default: 1.
    pub updates: usize,
}

impl Default for DynaDqnSettings {
    fn default() -> Self {
        Self {
            lookahead: 6,
            confirmed: 2.0,
            imagined: 8,
            candidates: 32,
            bonus: 0.5,
            updates: 1,
        }
    }
}

impl DynaDqnSettings {
    /// Looks for values that mean nothing.
    ///
    /// # Errors
    ///
    /// If a setting is out of range.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("dyna_dqn.lookahead", self.lookahead),
            ("dyna_dqn.imagined", self.imagined),
            ("dyna_dqn.candidates", self.candidates),
        ];
        for (name, value) in counts {
            if value == 0 {
                return Err(Error::setting(name, "a number above 0", "0"));
            }
        }
        let reals = [("dyna_dqn.confirmed", self.confirmed), ("dyna_dqn.bonus", self.bonus)];
        for (name, value) in reals {
            if !(0.0..=1000.0).contains(&value) {
                return Err(Error::setting(name, "from 0 to 1000", value.to_string()));
            }
        }
        Ok(())
    }
}

/// A deep Q-learning agent with a model of the score.
pub struct DynaDqn {
    settings: DynaDqnSettings,
    /// Actions tried at a step, given the evaluations that there are.
    lookahead: usize,
    dqn: Dqn,
    model: GaussianProcess,
    /// States the model had learned from when it was last fitted.
    fitted: usize,
    /// Plans paid for, as sorted actions, and the best of them with their returns, best first.
    paid: HashSet<Vec<Action>>,
    elite: Vec<(f64, Vec<Action>)>,
}

/// An episode under way: what was taken, and what it earned.
struct Course {
    plan: Vec<Action>,
    earned: f64,
}

/// An imagined episode.
struct Imagined {
    plan: Vec<Action>,
    /// What the model reads of the state at its end.
    end: Vec<f32>,
    /// The steps of the plan that were not kept from another: what was seen before each and after the last, and the predicted
    /// rewards.
    seen: Vec<Observation>,
    rewards: Vec<f64>,
}

impl DynaDqn {
    /// An agent for environments of this shape.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, or rewards and futures are not learned apart.
    pub fn new(shape: Shape, dqn: DqnSettings, settings: DynaDqnSettings, seed: Seed) -> Result<Self> {
        settings.check()?;
        if !dqn.split {
            return Err(Error::setting(
                "dqn.split",
                "true: dyna-dqn adds predicted gains to futures",
                "false".to_owned(),
            ));
        }
        Ok(Self {
            dqn: Dqn::new(shape, dqn, seed)?,
            model: GaussianProcess::new(shape.state_features),
            fitted: 0,
            paid: HashSet::new(),
            elite: Vec::new(),
            lookahead: settings.lookahead,
            settings,
        })
    }

    /// Fits the model when a twentieth more is known than last time.
    fn fit(&mut self) {
        let known = self.model.len();
        if known >= FIRST && 20 * known >= 21 * self.fitted {
            self.model.fit();
            self.fitted = known;
        }
    }

    /// What each action is predicted to earn at this point of an episode, with a bonus for what is unsure.
    fn promise(&self, predicted: &Prediction, earned: f64) -> Vec<f64> {
        let both = predicted.mean.iter().zip(&predicted.spread);
        both.map(|(mean, spread)| mean + self.settings.bonus * spread - earned)
            .collect()
    }

    /// Plays an episode and pays for what it tries; returns what was taken and earned, and the mean loss. `None`: the evaluations
    /// were spent before its end.
    fn real_episode(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<(Course, f64)>> {
        let mut seen = env.reset(seed)?;
        self.dqn.replay.begin(seen.clone());
        let mut course = Course {
            plan: Vec::new(),
            earned: 0.0,
        };
        let (mut predicted, mut losses, mut updates) = (Vec::new(), 0.0, 0u32);
        while seen.legal.contains(&true) {
            let left = env.remaining();
            if left == 0 {
                return Ok(None);
            }
            let values = self.dqn.online.values(&[&seen]).remove(0);
            let estimates = self.dqn.estimates(&values, &seen);
            let mut open = seen.legal_actions();
            open.shuffle(rng);
            if self.dqn.trusted() {
                open = self.shortlist(env, &open, &course, |action| estimates.q(action))?;
            }
            open.truncate(self.lookahead.min(usize::try_from(left).unwrap_or(usize::MAX)));
            let earned = env.lookahead(&open)?;
            let described = afterstates(env, &course.plan, &open)?;
            for ((&action, &reward), features) in open.iter().zip(&earned).zip(described.iter_rows()) {
                self.dqn.remember(&seen, action, reward);
                self.model.add(features, course.plan.len() + 1, course.earned + reward);
            }
            let future = |i: usize| {
                if self.dqn.trusted() {
                    estimates.futures[open[i]]
                } else {
                    0.0
                }
            };
            let places: Vec<usize> = (0..open.len()).collect();
            let action = open[best(&places, |i| earned[i] + future(i))];
            predicted.push(self.dqn.predicted_difference(&values, &seen, action));
            let step = env.step(action)?;
            self.dqn.replay.push(action, step.reward, step.observation.clone());
            seen = step.observation;
            course.earned += step.reward;
            course.plan.push(action);
            if self.dqn.episodes > 0 {
                for _ in 0..self.dqn.updates() {
                    losses += self.dqn.update(rng);
                    updates += 1;
                }
            }
            if step.terminated || step.truncated {
                break;
            }
        }
        self.dqn.end_episode(&predicted);
        self.keep(course.plan.clone(), course.earned);
        Ok(Some((course, losses / f64::from(updates))))
    }

    /// The open actions, those that the network and the model take to be best in turn.
    fn shortlist(
        &self,
        env: &dyn Environment,
        open: &[Action],
        course: &Course,
        q: impl Fn(Action) -> f64,
    ) -> Result<Vec<Action>> {
        let mut by_network = open.to_vec();
        by_network.sort_by(|&a, &b| q(b).total_cmp(&q(a)));
        if self.fitted == 0 {
            return Ok(by_network);
        }
        let afterstates = afterstates(env, &course.plan, open)?;
        let promise = self.promise(
            &self
                .model
                .predict(&afterstates, &vec![course.plan.len() + 1; open.len()]),
            course.earned,
        );
        let mut by_model: Vec<usize> = (0..open.len()).collect();
        by_model.sort_by(|&a, &b| promise[b].total_cmp(&promise[a]));
        let mut chosen = Vec::with_capacity(open.len());
        for (&network, &model) in by_network.iter().zip(&by_model) {
            for action in [network, open[model]] {
                if !chosen.contains(&action) {
                    chosen.push(action);
                }
            }
        }
        Ok(chosen)
    }

    /// A plan was paid for: it is never paid for again, and if it is good, imagination begins from it.
    fn keep(&mut self, plan: Vec<Action>, earned: f64) {
        if self.paid.insert(sorted(&plan)) {
            let at = self.elite.partition_point(|(other, _)| *other >= earned);
            self.elite.insert(at, (earned, plan));
            self.elite.truncate(ELITE);
        }
    }

    /// Imagines an episode that begins with the most of a good plan.
    fn imagine(&self, env: &dyn Environment, rng: &mut ChaCha8Rng) -> Result<Imagined> {
        let (_, elite) = &self.elite[rng.random_range(0..self.elite.len())];
        let most = SWAPS.min(elite.len()).max(1);
        let epsilon = rng.random::<f64>();
        let mut places: Vec<usize> = (0..elite.len()).collect();
        places.shuffle(rng);
        places.truncate(elite.len().saturating_sub(rng.random_range(1..=most)));
        // In their old order each of them is as legal as it was: less is taken before it.
        places.sort_unstable();
        let kept: Vec<Action> = places.into_iter().map(|place| elite[place]).collect();
        let mut walk = env.simulate()?;
        let (mut earned, mut end) = (0.0, Vec::new());
        for (i, &action) in kept.iter().enumerate() {
            if i + 1 == kept.len() {
                let afterstates = walk.afterstates(&[action])?;
                earned = self.model.mean(&afterstates, &[kept.len()])[0];
                end = afterstates.row(0).to_vec();
            }
            walk.take(action, 0.0)?;
        }
        let mut seen = vec![walk.observe()?];
        let mut course = Course { plan: kept, earned };
        let mut rewards = Vec::new();
        while let Some(now) = seen.last().filter(|now| now.legal.contains(&true)) {
            let values = self.dqn.online.values(&[now]).remove(0);
            let estimates = self.dqn.estimates(&values, now);
            let mut open = now.legal_actions();
            let tried = if rng.random::<f64>() < epsilon {
                1
            } else {
                self.settings.candidates.min(open.len())
            };
            let open = open.partial_shuffle(rng, tried).0;
            if tried == 1 && !course.plan.is_empty() && rng.random::<bool>() {
                let again = course.plan[rng.random_range(0..course.plan.len())];
                if now.legal[again] {
                    open[0] = again;
                }
            }
            let afterstates = walk.afterstates(open)?;
            let predicted = self.model.mean(&afterstates, &vec![course.plan.len() + 1; open.len()]);
            let places: Vec<usize> = (0..open.len()).collect();
            let chosen = best(&places, |i| predicted[i] + estimates.futures[open[i]]);
            let reward = predicted[chosen] - course.earned;
            end = afterstates.row(chosen).to_vec();
            walk.take(open[chosen], reward)?;
            course.earned += reward;
            course.plan.push(open[chosen]);
            rewards.push(reward);
            seen.push(walk.observe()?);
        }
        Ok(Imagined {
            plan: course.plan,
            end,
            seen,
            rewards,
        })
    }

    /// Imagined episodes with their promises, best first.
    fn promising(&self, episodes: Vec<Imagined>) -> Vec<(f64, Imagined)> {
        let ends: Vec<f32> = episodes.iter().flat_map(|episode| &episode.end).copied().collect();
        let ends = Matrix::from_vec(ends, episodes.len(), self.model.features());
        let steps: Vec<usize> = episodes.iter().map(|episode| episode.plan.len()).collect();
        let promises = self.promise(&self.model.predict(&ends, &steps), 0.0);
        let mut promising: Vec<(f64, Imagined)> = promises.into_iter().zip(episodes).collect();
        promising.sort_by(|a, b| b.0.total_cmp(&a.0));
        promising
    }

    /// The Q-network will learn from an imagined episode as from a real one.
    fn remember(&mut self, imagined: Imagined) -> Vec<Action> {
        let taken = &imagined.plan[imagined.plan.len() - imagined.rewards.len()..];
        let mut seen = imagined.seen.into_iter();
        if let Some(first) = seen.next() {
            self.dqn.replay.begin(first);
        }
        for ((seen, &action), &reward) in seen.zip(taken).zip(&imagined.rewards) {
            self.dqn.replay.push(action, reward, seen);
        }
        imagined.plan
    }

    /// Imagines, and pays for the most promising plans, until as many evaluations are spent as asked for. Returns the rank correlation of
    /// promises and returns; NaN if nothing was paid for.
    fn confirm(&mut self, env: &mut dyn Environment, evaluations: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
        let mut left = evaluations;
        let (mut promised, mut followed) = (Vec::new(), Vec::new());
        while left > 0 {
            let wave = WAVE
                .min(left)
                .min(usize::try_from(env.remaining()).unwrap_or(usize::MAX));
            if wave == 0 {
                break;
            }
            let (mut episodes, mut met) = (Vec::new(), HashSet::new());
            for _ in 0..wave * self.settings.imagined {
                let imagined = self.imagine(env, rng)?;
                let key = sorted(&imagined.plan);
                if !self.paid.contains(&key) && met.insert(key) {
                    episodes.push(imagined);
                }
            }
            if episodes.is_empty() {
                break;
            }
            let mut episodes = self.promising(episodes);
            episodes.truncate(wave);
            promised.extend(episodes.iter().map(|(promise, _)| *promise));
            let plans: Vec<Vec<Action>> = episodes
                .into_iter()
                .map(|(_, imagined)| self.remember(imagined))
                .collect();
            for _ in 0..self.settings.updates * plans.len() {
                self.dqn.update(rng);
            }
            let returns = env.evaluate_plans(&plans)?;
            followed.extend_from_slice(&returns);
            for (plan, earned) in plans.into_iter().zip(returns) {
                if let Some((&last, before)) = plan.split_last() {
                    let features = afterstates(env, before, &[last])?;
                    self.model.add(features.row(0), plan.len(), earned);
                }
                self.keep(plan, earned);
            }
            self.fit();
            left -= wave;
        }
        Ok(if followed.is_empty() {
            f64::NAN
        } else {
            spearman(&promised, &followed)
        })
    }
}

/// Features of the states that these actions lead to after a plan.
fn afterstates(env: &dyn Environment, plan: &[Action], actions: &[Action]) -> Result<Matrix> {
    let mut walk = env.simulate()?;
    for &action in plan {
        walk.take(action, 0.0)?;
    }
    walk.afterstates(actions)
}

impl Agent for DynaDqn {
    fn train(
        &mut self,
        env: &mut dyn Environment,
        seed: Seed,
        log: &mut dyn FnMut(&TrainEvent) -> Result<()>,
    ) -> Result<()> {
        let mut rng = seed.derive("dyna-dqn").rng();
        self.lookahead = self.settings.lookahead.min(self.dqn.set_pace(env)?);
        let (mut episode, mut steps, mut idle) = (0, 0, 0);
        while idle < SETTLED {
            let before = env.remaining();
            if before == 0 {
                break;
            }
            let Some((course, loss)) = self.real_episode(env, seed.index(episode), &mut rng)? else {
                break;
            };
            self.fit();
            episode += 1;
            steps += course.plan.len() as u64;
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
                episode_return: course.earned,
                loss,
                epsilon: 0.0,
                agreement,
            })?;
            idle = if env.remaining() == before { idle + 1 } else { 0 };
        }
        // Episodes meet nothing new: what is left is for imagined plans.
        while self.fitted > 0 {
            let before = env.remaining();
            let agreement = self.confirm(env, WAVE, &mut rng)?;
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
            warm_up: 40,
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
        // 4,368 full states; a seventh of them may be looked at.
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

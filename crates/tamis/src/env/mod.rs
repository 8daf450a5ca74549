//! The interface between agents and the problems they act on.
//!
//! It differs from Gymnasium's in two ways. An observation carries the legal-action mask. And since transitions are known, an
//! environment can say what several actions would earn ([`Environment::lookahead`]), can be simulated without any score
//! ([`Environment::simulate`]), and can give the return of a plan for the score of its last state alone
//! ([`Environment::evaluate_plans`]).

pub mod checker;
#[cfg(any(test, feature = "test-util"))]
pub mod coverage;
pub mod pool;

use tamis_nn::{Matrix, seed::Seed};

use crate::Result;

/// The index of an action.
pub type Action = usize;

/// The sizes of an environment's observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Actions, legal or not.
    pub actions: usize,
    /// Features of one action.
    pub action_features: usize,
    /// Features of the state as a whole.
    pub global_features: usize,
    /// Features of a state for a model of the score ([`Simulation::afterstates`]).
    pub state_features: usize,
}

/// What an agent reads of a state.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// One row of features an action, shape `(actions, action_features)`, each roughly within [-1, 1].
    pub actions: Matrix,
    /// Features of the state as a whole, shape `(global_features,)`.
    pub global: Vec<f32>,
    /// How many actions of the episode came before.
    pub step: usize,
    /// Which actions are legal, shape `(actions,)`; none is in a terminal state.
    pub legal: Vec<bool>,
}

impl Observation {
    /// The legal actions, in ascending order.
    pub fn legal_actions(&self) -> Vec<Action> {
        (0..self.legal.len()).filter(|&action| self.legal[action]).collect()
    }
}

/// What follows an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state reached.
    pub observation: Observation,
    /// The change of the score; higher is better.
    pub reward: f64,
    /// The episode is over by its own rules: nothing follows, nothing is bootstrapped.
    pub terminated: bool,
    /// The episode was cut off from outside; its last state is still bootstrapped.
    pub truncated: bool,
}

impl Step {
    /// A step that ends the episode where the state that it reached has no legal action.
    pub fn to(observation: Observation, reward: f64) -> Self {
        Self {
            terminated: !observation.legal.contains(&true),
            observation,
            reward,
            truncated: false,
        }
    }
}

/// A Markov decision process with finitely many actions.
pub trait Environment {
    /// The sizes of its observations; they never change.
    fn shape(&self) -> Shape;

    /// Begins an episode.
    ///
    /// # Errors
    ///
    /// If the first observation cannot be computed.
    fn reset(&mut self, seed: Seed) -> Result<Observation>;

    /// Takes an action.
    ///
    /// # Errors
    ///
    /// If the reward cannot be computed.
    ///
    /// # Panics
    ///
    /// If the action is illegal, or no episode is under way.
    fn step(&mut self, action: Action) -> Result<Step>;

    /// The reward that each of these legal actions would earn in the present state, in the order given; the state stays as it is.
    ///
    /// # Errors
    ///
    /// If a reward cannot be computed.
    ///
    /// # Panics
    ///
    /// If an action is illegal, or no episode is under way.
    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>>;

    /// The returns of the episodes that take these actions from the first state on, in the order given. Only their last states are
    /// scored, for one evaluation each; the present state stays as it is. There may be at most [`Environment::remaining`] plans.
    ///
    /// # Errors
    ///
    /// If a score cannot be computed.
    ///
    /// # Panics
    ///
    /// If an action is illegal where it is taken.
    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>>;

    /// A simulated episode, at the first state. It costs no evaluation.
    ///
    /// # Errors
    ///
    /// If the first state cannot be computed.
    fn simulate(&self) -> Result<Box<dyn Simulation + '_>>;

    /// How many more evaluations may be spent; steps and lookaheads to known states cost none. An agent stops training when this is 0.
    /// `u64::MAX` where there is no limit.
    fn remaining(&self) -> u64;
}

/// A simulated episode: its states are real, its scores are never computed.
pub trait Simulation {
    /// The observation of the present state, without the features that need a trained proxy.
    ///
    /// # Errors
    ///
    /// If the observation cannot be computed.
    fn observe(&mut self) -> Result<Observation>;

    /// Takes an action. `reward` is by how much the score is assumed to change, which is a feature of observations.
    ///
    /// # Errors
    ///
    /// If the state reached cannot be computed.
    ///
    /// # Panics
    ///
    /// If the action is illegal.
    fn take(&mut self, action: Action, reward: f64) -> Result<()>;

    /// Features of the states that each of these legal actions leads to, shape `(actions.len(), state_features)`, for a learned model
    /// of the score. They depend on the state reached and not on the path.
    ///
    /// # Errors
    ///
    /// If they cannot be computed.
    fn afterstates(&mut self, actions: &[Action]) -> Result<Matrix>;
}

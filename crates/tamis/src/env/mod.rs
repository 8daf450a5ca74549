//! The seam between agents and what they act on.
//!
//! Differs from Gymnasium's API in that an observation carries the legal-action mask, and in what known transitions allow: an
//! environment can be asked what several actions would earn ([`Environment::lookahead`]), be walked through without looking at any
//! score ([`Environment::simulate`]), and be asked for the score at the end of a plan alone ([`Environment::evaluate_plans`]).

pub mod checker;
#[cfg(any(test, feature = "test-util"))]
pub mod coverage;
pub mod pool;

use tamis_nn::{Matrix, seed::Seed};

use crate::Result;

/// The index of an action.
pub type Action = usize;

/// How large an environment's observations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Actions, legal or not.
    pub actions: usize,
    /// Features of one action.
    pub action_features: usize,
    /// Features of the state as a whole.
    pub global_features: usize,
    /// Features that tell a state apart from others by what was taken ([`Simulation::afterstates`]).
    pub state_features: usize,
}

/// What an agent sees of a state.
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
    /// The episode was cut off from outside; its last value is still bootstrapped.
    pub truncated: bool,
}

/// A Markov decision process with finitely many actions.
pub trait Environment {
    /// The sizes of its observations; they never change.
    fn shape(&self) -> Shape;

    /// Begins an episode.
    ///
    /// # Errors
    ///
    /// If the first observation cannot be made.
    fn reset(&mut self, seed: Seed) -> Result<Observation>;

    /// Takes an action.
    ///
    /// # Errors
    ///
    /// If the reward cannot be had.
    ///
    /// # Panics
    ///
    /// If the action is illegal, or no episode is going on.
    fn step(&mut self, action: Action) -> Result<Step>;

    /// What each of these legal actions would earn in the present state, in the order asked; the state stays as it is.
    ///
    /// # Errors
    ///
    /// If a reward cannot be had.
    ///
    /// # Panics
    ///
    /// If an action is illegal, or no episode is going on.
    fn lookahead(&mut self, actions: &[Action]) -> Result<Vec<f64>>;

    /// What the episodes that take these actions, in order, from the first state on, would earn altogether: their returns, in
    /// the order asked. Only the states at their ends are scored, each at the price of one evaluation; the present state stays
    /// as it is. At most [`Environment::remaining`] plans may be asked for at once.
    ///
    /// # Errors
    ///
    /// If a score cannot be had.
    ///
    /// # Panics
    ///
    /// If an action is illegal where it is taken.
    fn evaluate_plans(&mut self, plans: &[Vec<Action>]) -> Result<Vec<f64>>;

    /// A walk from the first state on. It costs no evaluation.
    ///
    /// # Errors
    ///
    /// If the first state cannot be made.
    fn simulate(&self) -> Result<Box<dyn Simulation + '_>>;

    /// How many more evaluations may be spent; steps and peeks at states known already cost none. An agent stops training
    /// when this is 0. `u64::MAX` where nothing limits it.
    fn remaining(&self) -> u64;
}

/// An episode that is only imagined: its states are the real ones, its scores are never looked at.
pub trait Simulation {
    /// What an agent sees of the present state, less what only a trained proxy can tell of it.
    ///
    /// # Errors
    ///
    /// If the observation cannot be made.
    fn observe(&mut self) -> Result<Observation>;

    /// Takes an action, and takes the score to have changed by `reward`, of which observations tell.
    ///
    /// # Errors
    ///
    /// If the state reached cannot be made.
    ///
    /// # Panics
    ///
    /// If the action is illegal.
    fn take(&mut self, action: Action, reward: f64) -> Result<()>;

    /// Features of the states that each of these legal actions leads to, shape `(actions.len(), state_features)`: what a learned
    /// model of the score reads. They depend on the state reached and not on the way there.
    ///
    /// # Errors
    ///
    /// If they cannot be computed.
    fn afterstates(&mut self, actions: &[Action]) -> Result<Matrix>;
}

//! Ways to spend a budget, behind one seam: agents and searches propose states, the proxy scores them, the best are kept.

mod agents;
mod bandit;
mod curve;
mod exhaustive;
mod features;
mod local_search;
mod problem;
mod search;
#[cfg(test)]
mod toy;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use agents::LearnedSelector;
pub use bandit::Bandit;
pub use curve::{Curve, EPISODES_KEPT, Episode, Improvement};
pub use exhaustive::{Exhaustive, full_paths};
pub use features::{ClusterTraits, FeatureContext};
pub use local_search::LocalSearch;
pub use problem::{Best, Limits, Path, Problem};
pub use search::{Greedy, Random};

use crate::{
    Error, Result,
    agent::{
        dqn::{Dqn, DqnSettings},
        dyna_dqn::{DynaDqn, DynaDqnSettings},
        ppo::{Ppo, PpoSettings},
    },
    mdp::Environment,
    seed::Seed,
};

/// Spends a problem's evaluations on finding good states. What it finds is in [`Problem::best`].
pub trait Selector {
    /// Searches until the problem's evaluations are spent.
    ///
    /// # Errors
    ///
    /// If a score cannot be had, or the user asked to stop.
    fn select(&mut self, problem: &mut Problem<'_>, seed: Seed) -> Result<()>;
}

/// The ways to spend a budget, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A deep Q-network.
    #[default]
    Dqn,
    /// A deep Q-network that also learns from episodes imagined by a model of the score.
    DynaDqn,
    /// Proximal policy optimisation.
    Ppo,
    /// Stochastic greedy search with restarts.
    Greedy,
    /// Chunks swapped around the best state.
    LocalSearch,
    /// An upper-confidence-bound bandit whose arms are the clusters.
    Bandit,
    /// Random full states, the best of which is kept.
    Random,
    /// All full states, where they are few.
    Exhaustive,
}

/// How each method works; one field a method that can be set.
#[derive(Debug, Clone, Copy)]
pub struct MethodSettings<'a> {
    /// The deep Q-network.
    pub dqn: &'a DqnSettings,
    /// What it does with a model of the score.
    pub dyna_dqn: &'a DynaDqnSettings,
    /// Proximal policy optimisation.
    pub ppo: &'a PpoSettings,
}

impl Method {
    /// A selector for this problem.
    ///
    /// # Errors
    ///
    /// If the settings are out of range.
    pub fn selector(
        self,
        problem: &Problem<'_>,
        settings: MethodSettings<'_>,
        seed: Seed,
    ) -> Result<Box<dyn Selector>> {
        let shape = problem.shape();
        Ok(match self {
            Self::Dqn => Box::new(LearnedSelector(Dqn::new(shape, settings.dqn.clone(), seed)?)),
            Self::DynaDqn => {
                let (dqn, dyna_dqn) = (settings.dqn.clone(), settings.dyna_dqn.clone());
                Box::new(LearnedSelector(DynaDqn::new(shape, dqn, dyna_dqn, seed)?))
            }
            Self::Ppo => Box::new(LearnedSelector(Ppo::new(shape, settings.ppo.clone(), seed)?)),
            Self::Greedy => Box::new(Greedy::default()),
            Self::LocalSearch => Box::new(LocalSearch::default()),
            Self::Bandit => Box::new(Bandit::default()),
            Self::Random => Box::new(Random),
            Self::Exhaustive => Box::new(Exhaustive),
        })
    }

    /// Every method with its name on the command line.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::Dqn, "dqn"),
        (Self::DynaDqn, "dyna-dqn"),
        (Self::Ppo, "ppo"),
        (Self::Greedy, "greedy"),
        (Self::LocalSearch, "local-search"),
        (Self::Bandit, "bandit"),
        (Self::Random, "random"),
        (Self::Exhaustive, "exhaustive"),
    ];

    /// Whether it walks through episodes and pays for their steps, so that the evaluations have to last for at least one.
    pub fn pays_for_steps(self) -> bool {
        !matches!(self, Self::Ppo | Self::Random | Self::Exhaustive)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(method, _)| method == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(method, _)| *method).ok_or_else(|| {
            let names = Self::NAMES.map(|(_, name)| name).join(", ");
            Error::setting("--agent", format!("one of {names}"), format!("`{text}`"))
        })
    }
}

//! Ways to spend a budget, behind one seam: agents and searches propose states, the proxy scores them, the best are kept.

mod agents;
mod curve;
mod features;
mod problem;
mod search;
#[cfg(test)]
mod toy;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use agents::LearnedSelector;
pub use curve::{Curve, EPISODES_KEPT, Episode, Improvement};
pub use features::{ClusterTraits, FeatureContext};
pub use problem::{Best, Limits, Path, Problem};
pub use search::{Greedy, Random};

use crate::{
    Error, Result,
    agent::dqn::{Dqn, DqnSettings},
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
    /// Stochastic greedy search with restarts.
    Greedy,
    /// Random full states, the best of which is kept.
    Random,
}

/// How each method works; one field a method that can be set.
#[derive(Debug, Clone, Copy)]
pub struct MethodSettings<'a> {
    /// The deep Q-network.
    pub dqn: &'a DqnSettings,
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
        Ok(match self {
            Self::Dqn => Box::new(LearnedSelector(Dqn::new(problem.shape(), settings.dqn.clone(), seed)?)),
            Self::Greedy => Box::new(Greedy::default()),
            Self::Random => Box::new(Random),
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dqn => "dqn",
            Self::Greedy => "greedy",
            Self::Random => "random",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "dqn" => Ok(Self::Dqn),
            "greedy" => Ok(Self::Greedy),
            "random" => Ok(Self::Random),
            _ => Err(Error::setting("--agent", "dqn, greedy or random", format!("`{text}`"))),
        }
    }
}

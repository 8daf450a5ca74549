//! Ways to spend a budget, behind one seam: agents and searches propose states, the proxy scores them, the best are kept.

mod agents;
mod climb_disc;
mod features;
mod modelled;
mod problem;
mod search;
#[cfg(test)]
mod toy;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use agents::LearnedSelector;
pub use climb_disc::{ClimbDisc, ClimbDiscSettings};
pub use features::{ClusterTraits, FeatureContext};
pub use modelled::{Modelled, ModelledSelector};
pub use problem::{Best, Limits, Path, Problem};
pub use search::{Greedy, Random};

use crate::{
    Error, Result,
    agent::{
        Agent,
        dqn::{Dqn, DqnSettings},
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
    /// Stochastic greedy search with restarts.
    Greedy,
    /// Random full states, the best of which is kept.
    Random,
    /// Rounds of full states that boosted trees think well of.
    ClimbDisc,
}

/// Who scores the states that a learning agent meets, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardModelKind {
    /// The proxy scores every one of them.
    #[default]
    None,
    /// Trees that a part of the evaluations is spent on, and that are frozen then; the proxy confirms the best states.
    ClimbDisc,
}

/// How each method works; one field a method that can be set.
#[derive(Debug, Clone, Copy)]
pub struct MethodSettings<'a> {
    /// The deep Q-network.
    pub dqn: &'a DqnSettings,
    /// The rounds of CLIMB, as a search or as a reward model.
    pub climb_disc: &'a ClimbDiscSettings,
    /// Who scores the states that a learning agent meets.
    pub reward_model: RewardModelKind,
}

impl Method {
    /// A selector for this problem.
    ///
    /// # Errors
    ///
    /// If the settings are out of range, or name a reward model for a method that learns nothing.
    pub fn selector(
        self,
        problem: &Problem<'_>,
        settings: MethodSettings<'_>,
        seed: Seed,
    ) -> Result<Box<dyn Selector>> {
        self.check(settings.reward_model)?;
        Ok(match self {
            Self::Dqn => learned(Dqn::new(problem.shape(), settings.dqn.clone(), seed)?, settings)?,
            Self::Greedy => Box::new(Greedy::default()),
            Self::Random => Box::new(Random),
            Self::ClimbDisc => Box::new(ClimbDisc::new(settings.climb_disc.clone())?),
        })
    }

    /// Whether this is a learning agent, and not a search.
    fn learns(self) -> bool {
        matches!(self, Self::Dqn)
    }

    /// Whether an episode is walked step by step, each step at the price of an evaluation at least.
    pub fn pays_for_steps(self, reward_model: RewardModelKind) -> bool {
        !matches!(self, Self::Random | Self::ClimbDisc) && reward_model == RewardModelKind::None
    }

    /// Whether the method can be rewarded like this.
    ///
    /// # Errors
    ///
    /// If a search that learns nothing is to learn from a reward model.
    pub fn check(self, reward_model: RewardModelKind) -> Result<()> {
        if self.learns() || reward_model == RewardModelKind::None {
            return Ok(());
        }
        Err(Error::setting(
            "--reward-model",
            "a learning agent beside it (`--agent dqn`)",
            format!("`{reward_model}` with `--agent {self}`"),
        ))
    }
}

/// A learning agent, on the problem itself or on a reward model.
fn learned(agent: impl Agent + 'static, settings: MethodSettings<'_>) -> Result<Box<dyn Selector>> {
    Ok(match settings.reward_model {
        RewardModelKind::None => Box::new(LearnedSelector(agent)),
        RewardModelKind::ClimbDisc => Box::new(ModelledSelector::new(agent, settings.climb_disc.clone())?),
    })
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dqn => "dqn",
            Self::Greedy => "greedy",
            Self::Random => "random",
            Self::ClimbDisc => "climb-disc",
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
            "climb-disc" => Ok(Self::ClimbDisc),
            _ => Err(Error::setting(
                "--agent",
                "dqn, greedy, random or climb-disc",
                format!("`{text}`"),
            )),
        }
    }
}

impl fmt::Display for RewardModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ClimbDisc => "climb-disc",
        })
    }
}

impl FromStr for RewardModelKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "climb-disc" => Ok(Self::ClimbDisc),
            _ => Err(Error::setting(
                "--reward-model",
                "none or climb-disc",
                format!("`{text}`"),
            )),
        }
    }
}

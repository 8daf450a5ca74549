//! Ways to spend a budget, behind one interface: agents and searches propose states, the proxy scores them, the best are kept.

mod bandit;
mod climb_disc;
mod exhaustive;
mod greedy;
mod learned;
mod local_search;
mod modelled;
mod random;
#[cfg(test)]
pub(crate) mod toy;

use tamis_nn::{named_enum, seed::Seed};

use crate::{
    Error, Result,
    agents::{
        Agent,
        dqn::{Dqn, DqnSettings},
        dyna_dqn::{DynaDqn, DynaDqnSettings},
        ppo::{Ppo, PpoSettings},
    },
    env::Environment,
    problem::Problem,
};

pub use bandit::Bandit;
pub use climb_disc::{ClimbDisc, ClimbDiscSettings};
pub use exhaustive::{Exhaustive, full_paths};
pub use greedy::Greedy;
pub use learned::LearnedSelector;
pub use local_search::LocalSearch;
pub use modelled::{Modelled, ModelledSelector};
pub use random::Random;
pub(crate) use random::completed;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// A portfolio: rules, and searches in several modes, decided by validation rows that none of them saw. On one problem, which has one
    /// mode, the deep Q-network.
    #[default]
    Auto,
    /// A deep Q-network.
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
    /// Rounds of full states that boosted trees think well of.
    ClimbDisc,
}

named_enum!(Method, "agent", Error, {
    Auto => "auto": "rules and searches in several modes; validation rows that none of them saw decide",
    Dqn => "dqn": "a deep Q-network",
    DynaDqn => "dyna-dqn": "a deep Q-network that also learns from episodes imagined by a model of the score",
    Ppo => "ppo": "proximal policy optimisation",
    ClimbDisc => "climb-disc": "rounds of full selections that boosted trees think well of",
    Greedy => "greedy": "stochastic greedy search with restarts",
    LocalSearch => "local-search": "swaps of chunks around the best selection",
    Bandit => "bandit": "an upper-confidence-bound bandit whose arms are the clusters",
    Random => "random": "the best of many random selections",
    Exhaustive => "exhaustive": "all selections, where they are few",
});

/// Who scores the states that a learning agent meets, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RewardModelKind {
    /// The proxy scores every one of them.
    #[default]
    None,
    /// Trees that a part of the evaluations is spent on, and that are frozen then; the proxy confirms the best states.
    ClimbDisc,
}

named_enum!(RewardModelKind, "reward_model", Error, {
    None => "none": "what is trained at every state scores it",
    ClimbDisc => "climb-disc": "boosted trees that a part of the evaluations is spent on first",
});

/// How each method works; one field a method that can be set.
#[derive(Debug, Clone, Copy)]
pub struct MethodSettings<'a> {
    /// The deep Q-network.
    pub dqn: &'a DqnSettings,
    /// What it does with a model of the score.
    pub dyna_dqn: &'a DynaDqnSettings,
    /// Proximal policy optimisation.
    pub ppo: &'a PpoSettings,
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
        let shape = problem.shape();
        Ok(match self {
            Self::Auto | Self::Dqn => learned(Dqn::new(shape, settings.dqn.clone(), seed)?, settings)?,
            Self::DynaDqn => {
                let (dqn, dyna_dqn) = (settings.dqn.clone(), settings.dyna_dqn.clone());
                Box::new(LearnedSelector(DynaDqn::new(shape, dqn, dyna_dqn, seed)?))
            }
            Self::Ppo => learned(Ppo::new(shape, settings.ppo.clone(), seed)?, settings)?,
            Self::ClimbDisc => Box::new(ClimbDisc::new(settings.climb_disc.clone())?),
            Self::Greedy => Box::new(Greedy::default()),
            Self::LocalSearch => Box::new(LocalSearch::default()),
            Self::Bandit => Box::new(Bandit::default()),
            Self::Random => Box::new(Random),
            Self::Exhaustive => Box::new(Exhaustive),
        })
    }

    /// Whether an episode is walked step by step, each step at the price of an evaluation at least.
    pub fn pays_for_steps(self, reward_model: RewardModelKind) -> bool {
        let at_the_end = matches!(
            self,
            Self::Auto | Self::Ppo | Self::ClimbDisc | Self::Random | Self::Exhaustive
        );
        !at_the_end && reward_model == RewardModelKind::None
    }

    /// Whether a reward model can score the states that the method meets: it learns, and brings no model of its own.
    pub fn takes_reward_model(self) -> bool {
        matches!(self, Self::Auto | Self::Dqn | Self::Ppo)
    }

    /// Whether the method can be rewarded like this.
    ///
    /// # Errors
    ///
    /// If it is no learning agent, or brings a model of its own.
    pub fn check(self, reward_model: RewardModelKind) -> Result<()> {
        if self.takes_reward_model() || reward_model == RewardModelKind::None {
            return Ok(());
        }
        Err(Error::setting(
            "reward_model",
            "a learning agent beside it (`agent dqn` or `agent ppo`)",
            format!("`{reward_model}` with the agent `{self}`"),
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

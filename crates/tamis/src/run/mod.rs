//! The run directory, its stages, and going on after a kill: the only place where the parts are put together.

mod check_agent;
mod check_clusters;
mod check_proxy;
mod command;
mod compose;
mod curves;
mod describe;
mod finetune;
mod folder;
mod judge;
mod map;
mod prepare;
mod proxy_verdict;
mod settings;
mod side_by_side;
mod stages;
mod study;
mod target;
mod tensorboard;
mod vectors;

use crate::record;

pub use crate::record::{
    BudgetRecord, ChosenRow, ClusterRecord, DataRecord, Finetuned, LabelRecord, ReadRecord, Scored, Scores,
    SelectionRecord, StageRecord, VERSION,
};
pub use check_agent::{
    AgentRecord, CheckAgentRecord, CheckAgentSettings, ProblemRecord, check_agent, check_agent_path,
};
pub use check_clusters::{
    CheckClustersRecord, CheckClustersSettings, CheckedCluster, CountRecord, LabelsRecord, NearRow, check_clusters,
    check_clusters_path,
};
pub use check_proxy::{CheckProxyRecord, CheckProxySettings, CheckedState, Rung, check_proxy, check_proxy_path};
pub use compose::select;
pub use finetune::{EpochRecord, FinetuneRecord, FinetuneSettings, TargetScores, finetune, selection_data};
pub use proxy_verdict::{Costs, Telling};
pub use settings::{ProxyKind, RewardKind, SelectSettings};
pub use study::{StudyMethod, StudySettings, study, study_path};

//! What the `tamis` command does, one file a subcommand.

pub(crate) mod check_agent;
pub(crate) mod check_clusters;
pub(crate) mod check_proxy;
pub(crate) mod finetune;
pub(crate) mod select;
pub(crate) mod study;
mod tables;

pub use crate::pipeline::session::Outside;
pub use check_agent::{
    AgentRecord, CheckAgentRecord, CheckAgentSettings, ProblemRecord, check_agent, check_agent_path,
};
pub use check_clusters::{
    CheckClustersRecord, CheckClustersSettings, CheckedCluster, CountRecord, LabelsRecord, NearRow, check_clusters,
    check_clusters_path,
};
pub use check_proxy::{
    CheckProxyRecord, CheckProxySettings, CheckedReward, CheckedSelection, Costs, DetectableEffect, Fidelity, RowScore,
    SelectionKind, check_proxy, check_proxy_path,
};
pub use finetune::{finetune, selection_data};
pub use select::{select, select_with};
pub use study::{study, study_path};
pub use tables::{Conversation, conversations, keep_table, table_path, texts};

//! The run directory, its stages, and going on after a kill: the only place where the parts are put together.

mod check;
mod compose;
mod curves;
mod describe;
mod finetune;
mod folder;
mod judge;
mod prepare;
mod record;
mod settings;
mod stages;
mod target;
mod tensorboard;
mod vectors;

pub use check::{CheckProxyRecord, CheckProxySettings, CheckedState, Rung, check_proxy, check_proxy_path};
pub use compose::select;
pub use finetune::{EpochRecord, FinetuneRecord, FinetuneSettings, TargetScores, finetune, selection_data};
pub use record::{
    BudgetRecord, ChosenRow, ClusterRecord, DataRecord, Finetuned, LabelRecord, Scored, Scores, SelectionRecord,
    VERSION,
};
pub use settings::{ProxyKind, RewardKind, SelectSettings};
pub use stages::StageRecord;

//! Everything that can be set, and what it may be.

pub(crate) mod finetune;
mod secrets;
pub(crate) mod select;
pub(crate) mod study;
pub(crate) mod study_method;

pub use finetune::{FinetuneSettings, LanguageModelSettings};
pub use select::{JudgeKind, ProxyKind, RewardKind, SelectSettings};
pub use study::StudySettings;
pub use study_method::StudyMethod;
pub use tamis_nn::{
    decoder::Projection, encoder::Dtype, hub::language_model::ADAPTER_CONFIG, kernels::packed::ProductDtype,
};

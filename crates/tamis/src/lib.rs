//! `tamis` picks the small part of a fine-tuning set that is worth training on.
//!
//! Training rows become embeddings ([`embed`]), embeddings clusters ([`cluster`]), clusters chunks ([`pool`]), chunks the
//! actions of a Markov decision process ([`mdp`]). An agent ([`agent`]) or a search ([`select`]) spends the budget, rewarded by
//! the change of a cheap proxy model's score ([`proxy`]) on one half of the validation rows; the other half makes the final
//! choice ([`folds`]). [`run`] puts the parts together:
//!
//! ```
//! use tamis::{Silent, budget::Budget, data::DataSettings, demo, run::{SelectSettings, select}, seed::Seed};
//!
//! # fn main() -> tamis::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("tamis-doc-{}", std::process::id()));
//! let files = demo::write(&folder.join("data"), Seed(0))?;
//! let settings = SelectSettings {
//!     budget: Budget::Rows(200),
//!     max_evaluations: 1000,
//!     out: folder.join("run"),
//!     data: DataSettings {
//!         train: vec![files.train],
//!         validation: vec![files.validation],
//!         test: vec![files.test],
//!         ..DataSettings::default()
//!     },
//!     ..SelectSettings::default()
//! };
//! let record = select(&settings, &Silent)?;
//!
//! assert_eq!(record.budget.rows, 200);
//! let test = record.scores.test.expect("there are test rows");
//! println!("{:.3} beside {:.3} for random rows", test.chosen, test.random_mean);
//! assert!(folder.join("run/selected.jsonl").exists());
//! # std::fs::remove_dir_all(&folder).expect("removes");
//! # Ok(())
//! # }
//! ```

pub mod agents;
pub mod baselines;
pub mod budget;
pub mod candidates;
pub mod cluster;
pub mod commands;
pub mod data;
pub mod embed;
pub mod env;
mod error;
pub mod metrics;
pub(crate) mod pipeline;
pub mod problem;
pub mod records;
pub mod report;
pub mod reward_models;
pub mod scorer;
pub mod search;
pub mod settings;
pub mod stats;
pub mod store;
pub mod target;
pub(crate) mod workspace;

pub use error::{Error, Place, Result};
pub use tamis_nn::{Fingerprint, Matrix, Monitor, Seed, Silent, named};

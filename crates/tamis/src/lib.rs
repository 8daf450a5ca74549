//! `tamis` picks the small part of a fine-tuning set that is worth training on.
//!
//! Training rows become vectors ([`embed`]), vectors clusters ([`cluster`]). Rows that may be chosen ([`candidates`]) are cut into
//! chunks, the actions of a Markov decision process ([`mod@env`], [`problem`]). An agent ([`agents`]) or a search ([`search`]) spends the
//! budget, rewarded by the change of a cheap model's score ([`scorer`]) on one half of the validation rows; the other half makes the
//! final choice.
//!
//! # Start here
//!
//! | to | see |
//! |---|---|
//! | run what the `tamis` command runs | [`commands::select`], [`commands::study`], [`commands::finetune`] |
//! | say what a run does | [`SelectSettings`], [`budget::Budget`], [`data::DataSettings`] |
//! | read what it found | [`records::selection::SelectionRecord`] |
//! | bring rows of your own | [`data::Dataset::from_rows`] |
//! | bring vectors of your own | [`embed::VectorStore`] |
//! | reward selections otherwise | [`scorer::Scorer`], [`scorer::batch::BatchScorer`] |
//! | keep scores elsewhere | [`store::ScoreStore`] |
//! | write an agent | [`agents::Agent`], [`env::Environment`], and [`env::checker`] to test it |
//! | hear of progress, and stop | [`Monitor`] |
//! | handle what goes wrong | [`Error`] |
//!
//! ```
//! use tamis::{Seed, SelectSettings, Silent, budget::Budget, commands::select, data::{DataSettings, demo}};
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
pub(crate) mod linalg;
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
pub(crate) mod vectors;
pub(crate) mod workspace;

pub use error::{Error, Place, Result};
pub use settings::SelectSettings;
pub use tamis_nn::{Fingerprint, Matrix, Monitor, Seed, Silent, named, unwind};

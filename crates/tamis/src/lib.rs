//! `tamis` picks the small part of a fine-tuning set that is worth training on.

mod error;
mod fingerprint;
mod matrix;
mod monitor;
pub mod agent;
pub mod cluster;
pub mod data;
pub mod embed;
pub mod ledger;
pub mod mdp;
pub mod metric;
pub mod nn;
pub mod pool;
pub mod proxy;
pub mod run;
pub mod seed;
pub mod select;

pub use error::{Error, Place, Result};
pub use fingerprint::Fingerprint;
pub use matrix::Matrix;
pub use monitor::{Monitor, Silent};

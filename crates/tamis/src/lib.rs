//! `tamis` picks the small part of a fine-tuning set that is worth training on.

pub mod agent;
pub mod budget;
pub mod cluster;
pub mod data;
pub mod demo;
pub mod embed;
mod error;
mod fingerprint;
pub mod folds;
pub mod ledger;
mod matrix;
pub mod mdp;
pub mod metric;
mod monitor;
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

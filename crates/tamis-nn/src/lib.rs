//! The engine of `tamis`: matrix kernels, transformer encoders and decoders forward and backward, optimisers, and the files of models.
//!
//! Numbers go in and numbers come out: it knows no rows of a data set, no budgets and no run folders.

pub mod atomic_write;
pub mod decoder;
pub mod encoder;
mod error;
pub mod file_lock;
pub mod fingerprint;
pub mod hub;
pub mod kernels;
mod matrix;
pub mod mlp;
pub mod monitor;
pub mod named;
pub mod optim;
pub mod seed;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;
pub mod train;
pub mod unwind;

pub use error::{Error, Place, Result};
pub use fingerprint::Fingerprint;
pub use matrix::Matrix;
pub use monitor::{Monitor, Silent};
pub use seed::Seed;

//! The folder of a run: whose it is, and what stands in it.

pub(crate) mod folder;
pub(crate) mod json;
pub(crate) mod tensorboard;

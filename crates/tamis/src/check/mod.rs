//! Whether the cheap proxy's scores can be trusted: checks of them against dearer ones.

pub mod agreement;

//! How long work tells the outside how far it is, and hears that it should stop. The library itself never prints.

use crate::{Error, Result};

/// Told of progress; asked whether to stop.
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use tamis_nn::Monitor;
///
/// /// Prints the stages, and stops when told to.
/// struct Printer(AtomicBool);
///
/// impl Monitor for Printer {
///     fn begin(&self, stage: &str, _total: Option<u64>) {
///         println!("{stage}");
///     }
///     fn advance(&self, _steps: u64) {}
///     fn note(&self, _text: &str) {}
///     fn end(&self) {}
///     fn cancelled(&self) -> bool {
///         self.0.load(Ordering::Relaxed)
///     }
/// }
///
/// let printer = Printer(AtomicBool::new(false));
/// assert!(printer.proceed().is_ok());
/// printer.0.store(true, Ordering::Relaxed);
/// assert!(printer.proceed().is_err());
/// ```
pub trait Monitor: Sync {
    /// A stage begins; `total` is how many steps it has, if that is known.
    fn begin(&self, stage: &str, total: Option<u64>);
    /// `steps` more steps of the present stage are done.
    fn advance(&self, steps: u64);
    /// A short word on how the present stage is doing, such as the best score so far.
    fn note(&self, text: &str);
    /// Something that the user should know and that stops nothing, such as a cache that cannot be written. Told once each; the default
    /// drops it. A setting that opens what stands between two backticks goes by its name, as in errors.
    fn warn(&self, _text: &str) {}
    /// The present stage is over.
    fn end(&self);
    /// Whether the user asked to stop.
    fn cancelled(&self) -> bool;

    /// Where long loops end if the user asked to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] if so.
    fn proceed(&self) -> Result<()> {
        if self.cancelled() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// A monitor that says nothing and never stops anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn begin(&self, _stage: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _text: &str) {}
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// A monitor that only warns and hears when to stop, for parts of a stage that have no progress of their own to show.
pub struct Quiet<'a>(pub &'a dyn Monitor);

impl Monitor for Quiet<'_> {
    fn begin(&self, _stage: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _text: &str) {}
    fn warn(&self, text: &str) {
        self.0.warn(text);
    }
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// A monitor of a user who has asked to stop.
#[cfg(any(test, feature = "test-util"))]
pub struct Stop;

#[cfg(any(test, feature = "test-util"))]
impl Monitor for Stop {
    fn begin(&self, _stage: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _text: &str) {}
    fn end(&self) {}
    fn cancelled(&self) -> bool {
        true
    }
}

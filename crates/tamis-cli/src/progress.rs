//! Progress on the terminal: a bar for each long stage; plain lines where standard error is not a terminal.

use std::{
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tamis::Monitor;

use crate::output;

/// Set by Ctrl-C. A second Ctrl-C ends the process at once.
static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) struct Progress {
    terminal: bool,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    name: String,
    began: Instant,
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        // Without a handler (on a system that allows none) Ctrl-C ends the process; the ledger is safe either way.
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        Self {
            terminal: std::io::stderr().is_terminal(),
            stage: Mutex::new(None),
        }
    }

    /// Takes an unfinished bar off the terminal.
    pub(crate) fn clear(&self) {
        if let Some(stage) = self.stage().take() {
            stage.bar.finish_and_clear();
        }
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for Progress {
    fn begin(&self, name: &str, total: Option<u64>) {
        let bar = match (self.terminal, total) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(total)) => {
                ProgressBar::new(total).with_style(style("{prefix:9} {wide_bar} {pos}/{len} {eta:>4} {msg}"))
            }
            (true, None) => ProgressBar::new_spinner().with_style(style("{prefix:9} {spinner} {elapsed} {msg}")),
        };
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.stage() = Some(Stage {
            name: name.to_owned(),
            began: Instant::now(),
            bar,
        });
    }

    fn advance(&self, steps: u64) {
        if let Some(stage) = &*self.stage() {
            stage.bar.inc(steps);
        }
    }

    fn note(&self, text: &str) {
        if let Some(stage) = &*self.stage() {
            stage.bar.set_message(text.to_owned());
        }
    }

    fn end(&self) {
        if let Some(Stage { name, began, bar }) = self.stage().take() {
            bar.finish_and_clear();
            let seconds = began.elapsed().as_secs_f64();
            if seconds >= 0.05 {
                output::say(&format!("{name:9} {seconds:8.1} s"));
            }
        }
    }

    fn cancelled(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

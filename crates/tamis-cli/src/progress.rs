//! Progress on the terminal: a bar for each long stage. Where standard error is not a terminal (Slurm, CI, a file): a line when a stage
//! ends, and every half minute while it lasts.

use std::{
    collections::BTreeSet,
    io::IsTerminal,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tamis::Monitor;

use crate::{messages::Messages, output};

/// Set by Ctrl-C. A second Ctrl-C ends the process at once.
static STOP: AtomicBool = AtomicBool::new(false);

/// How often a stage is heard of where there is no bar to look at.
const EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Progress<'a> {
    messages: &'a Messages,
    terminal: bool,
    stage: Mutex<Option<Stage>>,
    /// Each is said once.
    warnings: Mutex<BTreeSet<String>>,
}

struct Stage {
    name: String,
    began: Instant,
    /// When it last said a line.
    said: Instant,
    bar: ProgressBar,
}

impl Stage {
    /// How far it is, as one line.
    fn line(&self) -> String {
        let (bar, name) = (&self.bar, &self.name);
        let done = bar.position();
        let mut line = match bar.length() {
            Some(total) => format!("{name:9} {done} of {total}, {} left", HumanDuration(bar.eta())),
            None => format!("{name:9} {} so far", HumanDuration(self.began.elapsed())),
        };
        let note = bar.message();
        if !note.is_empty() {
            line.push_str(", ");
            line.push_str(&note);
        }
        line
    }
}

impl<'a> Progress<'a> {
    /// Warnings are shown in the words of these messages.
    pub(crate) fn new(messages: &'a Messages) -> Self {
        // Without a handler (on a system that allows none) Ctrl-C ends the process; the ledger is safe either way.
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        Self {
            messages,
            terminal: std::io::stderr().is_terminal(),
            stage: Mutex::default(),
            warnings: Mutex::default(),
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

impl Monitor for Progress<'_> {
    fn begin(&self, name: &str, total: Option<u64>) {
        let (target, template) = match (self.terminal, total) {
            (false, _) => (ProgressDrawTarget::hidden(), ""),
            (true, Some(_)) => (
                ProgressDrawTarget::stderr(),
                "{prefix:9} {wide_bar} {pos}/{len} {eta:>4} {msg}",
            ),
            (true, None) => (ProgressDrawTarget::stderr(), "{prefix:9} {spinner} {elapsed} {msg}"),
        };
        let bar = ProgressBar::with_draw_target(total, target).with_style(style(template));
        bar.set_prefix(name.to_owned());
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        let now = Instant::now();
        *self.stage() = Some(Stage {
            name: name.to_owned(),
            began: now,
            said: now,
            bar,
        });
    }

    fn advance(&self, steps: u64) {
        if let Some(stage) = &mut *self.stage() {
            stage.bar.inc(steps);
            if !self.terminal && stage.said.elapsed() >= EVERY {
                stage.said = Instant::now();
                output::say(&stage.line());
            }
        }
    }

    fn note(&self, text: &str) {
        if let Some(stage) = &*self.stage() {
            stage.bar.set_message(text.to_owned());
        }
    }

    fn warn(&self, text: &str) {
        let warning = format!("warning: {}", self.messages.text(text));
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.insert(warning.clone()) {
            return;
        }
        match &*self.stage() {
            // Above the bar, which is drawn again below.
            Some(stage) => stage.bar.suspend(|| output::say(&warning)),
            None => output::say(&warning),
        }
    }

    fn end(&self) {
        if let Some(Stage { name, began, bar, .. }) = self.stage().take() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_stage_is() {
        let now = Instant::now();
        let stage = |total| Stage {
            name: "targets".to_owned(),
            began: now,
            said: now,
            bar: ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()),
        };
        let counted = stage(Some(22));
        counted.bar.set_position(22);
        counted.bar.set_message("best .61");
        assert_eq!(counted.line(), "targets   22 of 22, 0 seconds left, best .61");
        assert_eq!(stage(None).line(), "targets   0 seconds so far");
    }
}

//! How long each stage took, and how much memory it held.

use std::{cell::RefCell, collections::BTreeMap, time::Instant};

use tamis_nn::Monitor;

use crate::{Result, records::selection::StageRecord};

/// Runs stages and keeps their records.
pub(crate) struct Stages<'a> {
    monitor: &'a dyn Monitor,
    records: RefCell<Vec<StageRecord>>,
}

impl<'a> Stages<'a> {
    pub(crate) fn new(monitor: &'a dyn Monitor) -> Self {
        Self {
            monitor,
            records: RefCell::default(),
        }
    }

    /// Runs one stage of `total` steps, if that is known.
    pub(crate) fn run<T>(&self, name: &str, total: Option<u64>, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        reset_peak();
        let began = Instant::now();
        self.monitor.begin(name, total);
        let result = stage();
        self.monitor.end();
        self.records.borrow_mut().push(StageRecord {
            name: name.to_owned(),
            seconds: began.elapsed().as_secs_f64(),
            peak_bytes: peak_bytes(),
        });
        result
    }

    /// The latest stage also took so many seconds in earlier starts of the run.
    pub(crate) fn add_to_latest(&self, seconds: f64) {
        if let Some(latest) = self.records.borrow_mut().last_mut() {
            latest.seconds += seconds;
        }
    }

    /// Wall-clock seconds so far, by stage.
    pub(crate) fn seconds(&self) -> BTreeMap<String, f64> {
        let mut seconds = BTreeMap::new();
        for record in self.records.borrow().iter() {
            *seconds.entry(record.name.clone()).or_default() += record.seconds;
        }
        seconds
    }

    /// The stages that have ended, in their order.
    pub(crate) fn records(&self) -> Vec<StageRecord> {
        self.records.borrow().clone()
    }

    /// Who is told of progress, and says when to stop.
    pub(crate) fn monitor(&self) -> &'a dyn Monitor {
        self.monitor
    }
}

/// Makes Linux count the process's peak memory anew; elsewhere, and where it may not, the peak is that of the whole run.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The process's peak resident memory.
fn peak_bytes() -> Option<u64> {
    bytes_in("/proc/self/status", "VmHWM:")
}

/// Seconds of all cores that the process has spent; where the system does not tell, wall-clock seconds times threads since it was first
/// asked.
pub(crate) fn cpu_seconds() -> f64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(unix))]
    {
        static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        FIRST.get_or_init(Instant::now).elapsed().as_secs_f64() * rayon::current_num_threads() as f64
    }
}

/// What a file of Linux's process file system says behind this name, in kB there; none where there is no such file or name.
pub(crate) fn bytes_in(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

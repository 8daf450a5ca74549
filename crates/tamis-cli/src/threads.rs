//! The number of threads of a command.

use tamis::Error;

/// More than any machine has, and few enough that starting them is no harm.
const MOST_THREADS: usize = 1024;

/// Works with so many threads; without a number rayon's own rule holds (RAYON_NUM_THREADS, else all).
///
/// # Errors
///
/// If there can not be so many, and those of the work.
pub(crate) fn with_threads<T: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    if let Some(threads) = threads
        && !(1..=MOST_THREADS).contains(&threads)
    {
        let expected = format!("a number from 1 to {MOST_THREADS}");
        return Err(Error::setting("threads", expected, threads.to_string()).into());
    }
    // 0 stands for rayon's own rule. Threads of its own, since a process that was forked has lost the shared ones.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .build();
    pool.map_err(|error| Error::setting("threads", "a number that the system allows", error.to_string()))?
        .install(work)
}

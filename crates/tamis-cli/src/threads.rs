//! The number of threads, for the whole process.

use tamis::Error;

/// More than any machine has, and few enough that starting them is no harm.
const MOST_THREADS: usize = 1024;

/// Sets the number of threads for the whole process; without a number rayon's own rule holds (RAYON_NUM_THREADS, else all).
pub(crate) fn use_threads(threads: Option<usize>) -> Result<(), Error> {
    match threads {
        None => Ok(()),
        Some(threads) if !(1..=MOST_THREADS).contains(&threads) => Err(Error::setting(
            "threads",
            format!("a number from 1 to {MOST_THREADS}"),
            threads.to_string(),
        )),
        Some(threads) => rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Error::setting("threads", "a number that the system allows", error.to_string())),
    }
}

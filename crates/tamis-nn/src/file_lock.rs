//! Locks on files, by which processes keep out of each other's way.

use std::{
    fs::{File, TryLockError},
    time::Duration,
};

/// How often, and how far apart, a lock is asked for.
const TRIES: u32 = 5;
const APART: Duration = Duration::from_millis(10);

/// Locks a file for this process alone, until it is closed. A program that a thread is just starting has the process's files open for a
/// moment, and with them their locks: so it is asked for a few times.
///
/// # Errors
///
/// If another process has the lock, or the file system has no locks.
pub fn try_lock(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(APART),
            answer => return answer,
        }
    }
    file.try_lock()
}

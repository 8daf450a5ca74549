//! Long jobs side by side, each on cores of its own, and what they make filed as it comes.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, mpsc},
};

use tamis_nn::Monitor;

use crate::Result;

/// Works on these jobs in their order, as many at once as there are threads, each with `threads` of them to itself, and files each with
/// what it made on the calling thread. An error of `file` ends it: whoever still works ends the job at hand, nobody begins another.
///
/// Each worker has a pool of its own: a job that waits for its own parts takes up no other job's, so its seconds are its own.
///
/// # Errors
///
/// If `file` fails, or the user stopped the run.
pub(crate) fn side_by_side<J: Send + Sync, T: Send>(
    jobs: Vec<J>,
    threads: usize,
    monitor: &dyn Monitor,
    work: &(dyn Fn(&J) -> T + Sync),
    file: &mut dyn FnMut(J, T) -> Result<()>,
) -> Result<()> {
    let workers = rayon::current_num_threads() / threads.max(1);
    let start = |_| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let alone = |pool: &mut std::result::Result<rayon::ThreadPool, _>, job: &J| match pool {
        Ok(pool) => pool.install(|| work(job)),
        Err(_) => work(job),
    };
    shared_out(jobs, workers, monitor, &start, &alone, file)
}

/// Works on these jobs in their order, so many at once, and files each with what it made on the calling thread. A worker begins with what
/// `start` makes of its number. Errors as those of [`side_by_side`].
pub(crate) fn shared_out<J: Send + Sync, W, T: Send>(
    jobs: Vec<J>,
    workers: usize,
    monitor: &dyn Monitor,
    start: &(dyn Fn(usize) -> W + Sync),
    work: &(dyn Fn(&mut W, &J) -> T + Sync),
    file: &mut dyn FnMut(J, T) -> Result<()>,
) -> Result<()> {
    let workers = workers.clamp(1, jobs.len().max(1));
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..workers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut worker = start(number);
                while let (Some(job), false) = (next(), monitor.cancelled()) {
                    let made = work(&mut worker, &job);
                    if sender.send((job, made)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let filed = receiver.iter().try_for_each(|(job, made)| file(job, made));
        if filed.is_err() {
            queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        filed
    })?;
    Ok(monitor.proceed()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use tamis_nn::{Silent, monitor::Stop};

    #[test]
    fn every_job_is_done_once_with_its_own_threads_and_filed_with_what_it_made() {
        for threads in [1, 2] {
            let mut filed = Vec::new();
            let work = |&job: &u32| (job * job, rayon::current_num_threads());
            side_by_side((0..20).collect(), threads, &Silent, &work, &mut |job, made| {
                assert_eq!(made, (job * job, threads));
                filed.push(job);
                Ok(())
            })
            .expect("works");
            filed.sort_unstable();
            assert_eq!(filed, (0..20).collect::<Vec<u32>>());
        }
        side_by_side(Vec::<u32>::new(), 1, &Silent, &|_| (), &mut |_, ()| Ok(())).expect("nothing to do");
    }

    #[test]
    fn an_error_ends_it_and_a_stop_is_heard() {
        let mut filed = 0;
        let failed = side_by_side((0..1000).collect::<Vec<u32>>(), 1, &Silent, &|_| (), &mut |_, ()| {
            filed += 1;
            Err(Error::setting("budget", "less", "more"))
        });
        assert!(matches!(failed, Err(Error::Setting { .. })) && filed == 1);
        let stopped = side_by_side(vec![1], 1, &Stop, &|_| (), &mut |_, ()| Ok(()));
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
}

//! Jobs side by side, each on its share of the cores.
//!
//! The models of a laptop's experiment are too small for more threads than one to pay: two trainings
//! on a core each take the time of one on two.

use std::sync::{Condvar, Mutex};

use mi2rage_models::kernels::leading;

use crate::device;

/// Runs `work` on every job and returns the results in the jobs' order. The first error stops the
/// jobs that have not begun.
///
/// # Errors
///
/// The first job's, in the jobs' order, that failed.
pub fn run<J: Send, T: Send, E: Send>(
    workers: usize,
    jobs: Vec<J>,
    work: impl Fn(J) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let count = jobs.len();
    let (workers, threads) = share_cores(workers, count);
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let results: Mutex<Vec<Option<Result<T, E>>>> =
        Mutex::new(std::iter::repeat_with(|| None).take(count).collect());
    let worker = || {
        loop {
            let job = lock(&queue).next();
            let Some((index, job)) = job else { return };
            let result = work(job);
            let failed = result.is_err();
            lock(&results)[index] = Some(result);
            if failed {
                lock(&queue).by_ref().for_each(drop);
                return;
            }
        }
    };
    spawn(workers, threads, worker);
    let results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut done = Vec::with_capacity(count);
    let mut failure = None;
    for result in results.into_iter().flatten() {
        match result {
            Ok(value) => done.push(value),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(done), Err)
}

/// Runs `work` on jobs of which some need others: always the first, in the jobs' order, all of whose
/// needs are done. What is needed but no job of `jobs` counts as done.
///
/// # Errors
///
/// That of the first job that failed; jobs that have not begun by then do not begin.
pub fn run_in_turn<J: Copy + PartialEq + Send + Sync, E: Send>(
    workers: usize,
    jobs: &[J],
    needs: impl Fn(J) -> Vec<J> + Sync,
    work: impl Fn(J) -> Result<(), E> + Sync,
) -> Result<(), E> {
    struct State<J, E> {
        waiting: Vec<J>,
        running: Vec<J>,
        failure: Option<E>,
    }
    let (workers, threads) = share_cores(workers, jobs.len());
    let state = Mutex::new(State { waiting: jobs.to_vec(), running: Vec::new(), failure: None });
    let changed = Condvar::new();
    let worker = || {
        let mut now = lock(&state);
        while now.failure.is_none() && !now.waiting.is_empty() {
            let open = |job: &J| now.waiting.contains(job) || now.running.contains(job);
            let ready = |job: &J| !needs(*job).iter().any(open);
            let Some(at) = now.waiting.iter().position(ready) else {
                // With nothing running either, the needs go in a circle.
                assert!(!now.running.is_empty(), "some job can always run");
                now = changed.wait(now).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            let job = now.waiting.remove(at);
            now.running.push(job);
            drop(now);
            let result = work(job);
            now = lock(&state);
            now.running.retain(|other| *other != job);
            if let Err(error) = result {
                now.failure.get_or_insert(error);
            }
            changed.notify_all();
        }
    };
    spawn(workers, threads, worker);
    let state = state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    state.failure.map_or(Ok(()), Err)
}

/// Workers, at most one a job, and threads of each.
fn share_cores(workers: usize, jobs: usize) -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.clamp(1, jobs.max(1));
    (workers, (cores / workers).max(1))
}

fn spawn(workers: usize, threads: usize, worker: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // Everything that burn-flex computes inside stays on this worker's threads.
                match device::pool().num_threads(threads).build() {
                    Ok(pool) => pool.install(|| leading(&worker)),
                    Err(_) => worker(),
                }
            });
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_jobs_order_whatever_the_workers() {
        for workers in [1, 2, 5] {
            let squares = run(workers, (0..20).collect(), |job: usize| Ok::<_, ()>(job * job));
            assert_eq!(squares.unwrap(), (0..20).map(|job| job * job).collect::<Vec<_>>());
        }
    }

    #[test]
    fn jobs_wait_for_what_they_need() {
        // 4 needs 3, 3 needs 1; 9 is no job.
        let needs = |job| match job {
            4 => vec![3, 9],
            3 => vec![1],
            _ => vec![],
        };
        for workers in [1, 2, 4] {
            let order = Mutex::new(Vec::new());
            let work = |job: i32| {
                order.lock().unwrap().push(job);
                if job == 5 { Err("five") } else { Ok(()) }
            };
            run_in_turn(workers, &[4, 3, 1, 2], needs, work).unwrap();
            let order = std::mem::take(&mut *order.lock().unwrap());
            let place = |job| order.iter().position(|other| *other == job).unwrap();
            assert_eq!(order.len(), 4);
            assert!(place(1) < place(3) && place(3) < place(4), "{order:?}");
        }
        let failed = run_in_turn(2, &[5, 1], needs, |job| if job == 5 { Err(job) } else { Ok(()) });
        assert_eq!(failed, Err(5));
    }

    #[test]
    fn an_error_is_returned_and_stops_what_has_not_begun() {
        let ran = Mutex::new(0);
        let result = run(1, (0..20).collect(), |job: usize| {
            *ran.lock().unwrap() += 1;
            if job == 3 { Err(job) } else { Ok(job) }
        });
        assert_eq!(result, Err(3));
        assert_eq!(*ran.lock().unwrap(), 4);
    }
}

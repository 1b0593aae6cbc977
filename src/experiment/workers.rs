//! Jobs side by side, each on its share of the cores.
//!
//! The models of a laptop's experiment are too small for more threads than one to pay: two trainings
//! on a core each take the time of one on two.

use std::sync::Mutex;

use rayon::ThreadPoolBuilder;

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
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.clamp(1, count.max(1));
    let threads = (cores / workers).max(1);
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
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // Everything that burn-flex computes inside stays on this worker's threads.
                match ThreadPoolBuilder::new().num_threads(threads).build() {
                    Ok(pool) => pool.install(worker),
                    Err(_) => worker(),
                }
            });
        }
    });
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

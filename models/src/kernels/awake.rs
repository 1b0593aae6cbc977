//! Threads that wait awake for the next operation.
//!
//! A thread of rayon's that finds nothing to do soon sleeps, and the system takes tens of microseconds to wake
//! it: as long as many an operation of a small model. OpenMP's threads wait awake for the same reason.

use std::cell::{Cell, RefCell};
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long a thread waits awake: about as long as the longest of what happens on one thread alone between
/// two operations of a small model.
const PATIENCE: Duration = Duration::from_micros(200);

thread_local! {
    /// On a thread that leads: how many threads have not yet done what [`others`] asked of them last.
    static ASKED: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
    /// Whether this thread is at a part of an operation: what it would wait for may be done before.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread of a pool, whose other threads wait awake between the operations of `work`. A tenth
/// to a quarter of a small model's update is saved so. Elsewhere it changes nothing.
pub fn leading<T>(work: impl FnOnce() -> T) -> T {
    let before = ASKED.replace(Some(Arc::default()));
    let result = work();
    ASKED.set(before);
    result
}

/// Has the others awake, where this thread leads, for an operation that begins and for those that follow it.
pub(super) fn others() {
    let Some(asked) = ASKED.with_borrow(Option::clone) else { return };
    let Some(leader) = rayon::current_thread_index() else { return };
    let threads = rayon::current_num_threads();
    // All are asked anew when all are done, this thread among them, which is when it waits for another: so that
    // none waits twice at once, and what is asked of a thread that never waits does not pile up.
    if threads == 1
        || asked.compare_exchange(0, threads, Ordering::Relaxed, Ordering::Relaxed).is_err()
    {
        return;
    }
    rayon::spawn_broadcast(move |thread| {
        if thread.index() != leader && !AT_WORK.get() {
            wait();
        }
        asked.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Works with others until there has been nothing to do for a while.
fn wait() {
    let mut last = Instant::now();
    while last.elapsed() < PATIENCE {
        if rayon::yield_now() == Some(Yield::Executed) {
            last = Instant::now();
        }
        (0..20).for_each(|_| spin_loop());
    }
}

/// Does a part of an operation.
pub(super) fn at_work<T>(part: impl FnOnce() -> T) -> T {
    let before = AT_WORK.replace(true);
    let result = part();
    AT_WORK.set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::parts::write_pieces;

    #[test]
    fn operations_within_operations_end_and_all_threads_are_let_go() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (sum, asked): (f32, _) = pool.install(|| {
                leading(|| {
                    let ones = |count| {
                        write_pieces(count, 3, |_, piece| {
                            let piece = piece.zeros();
                            piece.fill(1.0);
                            piece
                        })
                    };
                    let nested = |index: usize| {
                        write_pieces(40, 2, move |_, piece| {
                            piece.collected(ones(index + 2).into_iter().take(2))
                        })
                    };
                    let sum = (0..200).flat_map(nested).sum();
                    (sum, ASKED.with_borrow(Option::clone).unwrap())
                })
            });
            assert_eq!(sum, 200.0 * 40.0);
            while asked.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
            pool.install(|| assert!(ASKED.with_borrow(Option::is_none)));
        }
    }
}

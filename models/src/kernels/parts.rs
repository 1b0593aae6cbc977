//! Work divided among threads, so that its results do not depend on their number.

use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::awake;

/// Into how many parts a sum over samples is split: as many threads can take part in it.
const PARTS: usize = 8;

/// The samples of each part, in order.
pub(super) fn parts(samples: usize) -> Vec<Range<usize>> {
    let size = samples.div_ceil(PARTS).max(1);
    (0..samples).step_by(size).map(|start| start..(start + size).min(samples)).collect()
}

/// The sum of equally long vectors, in order.
pub(super) fn sum_in_order(vectors: Vec<Vec<f32>>) -> Vec<f32> {
    vectors
        .into_iter()
        .reduce(|mut sum, vector| {
            for (sum, value) in sum.iter_mut().zip(vector) {
                *sum += value;
            }
            sum
        })
        .unwrap_or_default()
}

/// The lengths of `count` numbers cut into pieces of `size`.
pub(super) fn pieces(count: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(size.max(1)).map(move |start| size.min(count - start))
}

/// A vector made of [`pieces`], of which `write` gets the index and where the piece goes, on some thread:
/// neighbours on the same one as far as possible, in whose cache they may still be.
pub(super) fn write_pieces(
    count: usize,
    size: usize,
    write: impl for<'a> Fn(usize, Blank<'a>) -> &'a mut [f32] + Send + Sync,
) -> Vec<f32> {
    made_of(pieces(count, size).collect(), |parts| fill_pieces(parts, true, write))
}

/// Fills parts, neighbours on the same thread as far as possible, or all on this one.
fn fill_pieces(
    parts: Vec<Part>,
    on_all_threads: bool,
    write: impl for<'a> Fn(usize, Blank<'a>) -> &'a mut [f32] + Send + Sync,
) {
    if on_all_threads && parts.len() > 1 {
        awake::others();
        parts.into_par_iter().for_each(|part| part.fill(&write));
    } else {
        parts.into_iter().for_each(|part| part.fill(&write));
    }
}

/// A vector made of parts of these lengths. `write` gets the index of each and where it goes, on whichever
/// thread is free: few parts that take long. `room` makes what a thread works in.
pub(super) fn write_parts<R>(
    lengths: impl IntoIterator<Item = usize>,
    room: impl Fn() -> R + Send + Sync,
    write: impl for<'a> Fn(&mut R, usize, Blank<'a>) -> &'a mut [f32] + Send + Sync,
) -> Vec<f32> {
    made_of(lengths.into_iter().collect(), |parts| {
        let fill = |room: &mut R, part: Part| part.fill(|index, blank| write(room, index, blank));
        match parts.len() {
            1 => parts.into_iter().for_each(|part| fill(&mut room(), part)),
            _ => {
                awake::others();
                parts.into_iter().par_bridge().for_each_init(&room, fill);
            }
        }
    })
}

/// Where numbers go, without any so far. To write zeros first would cost a pass over memory, in all some 2 % of
/// ViT's forward and backward pass.
pub(super) struct Blank<'a>(&'a mut [MaybeUninit<f32>]);

impl<'a> Blank<'a> {
    /// How many numbers go there.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Zeros, on the thread that goes on with them.
    pub(super) fn zeros(self) -> &'a mut [f32] {
        self.0.fill(MaybeUninit::new(0.0));
        // SAFETY: all numbers were just written.
        unsafe { self.written_by(|_| ()) }
    }

    /// The numbers of an iterator that has as many.
    #[inline(always)]
    pub(super) fn collected(self, numbers: impl Iterator<Item = f32>) -> &'a mut [f32] {
        let mut count = 0;
        for (place, number) in self.0.iter_mut().zip(numbers) {
            place.write(number);
            count += 1;
        }
        assert_eq!(count, self.len(), "a number for each");
        // SAFETY: as just asserted.
        unsafe { self.written_by(|_| ()) }
    }

    /// As many numbers of another slice.
    pub(super) fn copied(self, numbers: &[f32]) -> &'a mut [f32] {
        assert_eq!(self.len(), numbers.len(), "a number for each");
        // SAFETY: the numbers are as many, of another slice; then all are written.
        unsafe {
            self.written_by(|first| first.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()))
        }
    }

    /// The numbers that `write` writes from the address on.
    ///
    /// # Safety
    /// After it all have been written, none beyond them.
    pub(super) unsafe fn written_by(self, write: impl FnOnce(*mut f32)) -> &'a mut [f32] {
        let (first, count) = (self.0.as_mut_ptr().cast(), self.0.len());
        write(first);
        // SAFETY: it is the slice that was borrowed mutably; the caller vouches for its numbers.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }
}

/// A part of a vector, without numbers so far.
struct Part<'a> {
    index: usize,
    numbers: &'a mut [MaybeUninit<f32>],
    filled: &'a AtomicUsize,
}

impl Part<'_> {
    fn fill(self, write: impl for<'a> FnOnce(usize, Blank<'a>) -> &'a mut [f32]) {
        let Self { index, numbers, filled } = self;
        let place = numbers.as_ptr_range();
        let written = awake::at_work(|| write(index, Blank(numbers)).as_ptr_range());
        let same = written.start == place.start.cast() && written.end == place.end.cast();
        assert!(same, "what was written is the part itself");
        filled.fetch_add(numbers.len(), Ordering::Relaxed);
    }
}

/// A vector of parts of these lengths, each of which `fill_all` fills.
fn made_of(lengths: Vec<usize>, fill_all: impl FnOnce(Vec<Part>)) -> Vec<f32> {
    let values = Vec::with_capacity(lengths.iter().sum());
    filled_up(values, lengths, fill_all)
}

/// The vector with parts of these lengths after what it holds, for which it has room.
fn filled_up(
    mut values: Vec<f32>,
    lengths: Vec<usize>,
    fill_all: impl FnOnce(Vec<Part>),
) -> Vec<f32> {
    let total = lengths.iter().sum();
    let filled = AtomicUsize::new(0);
    let mut rest = &mut values.spare_capacity_mut()[..total];
    let mut parts = Vec::with_capacity(lengths.len());
    for (index, length) in lengths.into_iter().enumerate() {
        let (numbers, after) = rest.split_at_mut(length);
        rest = after;
        parts.push(Part { index, numbers, filled: &filled });
    }
    fill_all(parts);
    assert_eq!(filled.into_inner(), total, "every part was filled");
    // SAFETY: the parts make up `total` numbers of the capacity after those that were there, and each was
    // filled, as their lengths say.
    unsafe { values.set_len(values.len() + total) };
    values
}

/// Numbers the first of which begins a line of the cache: vectors of 512 bits that lie across two lines
/// take two reads each.
pub(super) struct Lines {
    values: Vec<f32>,
    first: usize,
}

impl Lines {
    /// The same as [`write_pieces`] makes, on this thread alone if so wished.
    pub(super) fn of_pieces(
        count: usize,
        size: usize,
        on_all_threads: bool,
        write: impl for<'a> Fn(usize, Blank<'a>) -> &'a mut [f32] + Send + Sync,
    ) -> Self {
        const LINE: usize = 64;
        const NUMBERS: usize = LINE / size_of::<f32>();
        let mut values: Vec<f32> = Vec::with_capacity(count + NUMBERS);
        let first = values.as_ptr().align_offset(LINE).min(NUMBERS);
        values.resize(first, 0.0);
        let lengths = pieces(count, size).collect();
        let values = filled_up(values, lengths, |parts| fill_pieces(parts, on_all_threads, write));
        Self { values, first }
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.first..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_their_pieces_and_begin_a_line_of_the_cache() {
        for (count, size) in [(0, 3), (1, 3), (15, 5), (100, 7)] {
            for on_all_threads in [false, true] {
                let lines = Lines::of_pieces(count, size, on_all_threads, |index, piece| {
                    let piece = piece.zeros();
                    piece.fill(index as f32);
                    piece
                });
                let expected: Vec<f32> = (0..count).map(|at| (at / size) as f32).collect();
                assert_eq!(*lines, *expected);
                assert_eq!(lines.as_ptr().addr() % 64, 0);
            }
        }
    }

    #[test]
    fn parts_lie_one_after_the_other() {
        for lengths in [vec![], vec![3], vec![2, 0, 5, 1]] {
            let values = write_parts(
                lengths.clone(),
                || (),
                |(), index, part| {
                    let part = part.zeros();
                    assert!(part.iter().all(|&value| value == 0.0));
                    part.fill(index as f32);
                    part
                },
            );
            let expected: Vec<f32> = lengths
                .iter()
                .enumerate()
                .flat_map(|(index, &length)| vec![index as f32; length])
                .collect();
            assert_eq!(values, expected);
        }
        assert_eq!(pieces(7, 3).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(pieces(0, 3).count(), 0);
    }
}

//! What the machine can do at most, on as many threads as the other rows: their limits.

use std::hint::black_box;

use burn::tensor::backend::Backend;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{Setting, Work};

/// Operations of a run, two a multiply-add, in 10^9.
pub const OPERATIONS: usize = 40;

/// Bytes of a run, in 2^20: more than any cache holds.
pub const BYTES: usize = 1024;

/// Sums that are kept apart: each multiply-add waits for the one before it on the same sum.
const SUMS: usize = 12;

/// Multiply-adds of vectors on all threads, without memory.
pub fn operations<B: Backend>(_: &Setting<'_, B>) -> Work {
    Box::new(|| {
        // Many parts, so that no thread waits for a slower one.
        let parts = 16 * rayon::current_num_threads();
        let each = OPERATIONS * 1_000_000_000 / 2 / parts;
        let sums: f32 = (0..parts).into_par_iter().map(|_| Arch::new().dispatch(Spin(each))).sum();
        black_box(sums);
    })
}

struct Spin(usize);

impl WithSimd for Spin {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let factor = simd.splat_f32s(black_box(0.999));
        let addend = simd.splat_f32s(black_box(0.001));
        let mut sums = [simd.splat_f32s(black_box(0.5)); SUMS];
        for _ in 0..self.0 / SUMS / S::F32_LANES {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, addend);
            }
        }
        sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

/// One reading of memory from one end to the other, a share a thread.
pub fn memory<B: Backend>(_: &Setting<'_, B>) -> Work {
    let numbers = vec![1_f32; (BYTES << 20) / size_of::<f32>()];
    Box::new(move || {
        let share = numbers.len().div_ceil(rayon::current_num_threads());
        let sums: f32 =
            numbers.par_chunks(share).map(|share| Arch::new().dispatch(Read(share))).sum();
        black_box(sums);
    })
}

struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat_f32s(0.0); 8];
        for vectors in S::as_simd_f32s(self.0).0.as_chunks::<8>().0 {
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = simd.add_f32s(*sum, *vector);
            }
        }
        sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

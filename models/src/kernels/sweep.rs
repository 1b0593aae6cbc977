//! The product of few rows with a matrix whose rows are contiguous, as a linear layer's weight is where burn
//! keeps it: multiples of its rows are added up, some rows at a time, as they come from memory.

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;
use super::vector::prefetch;

/// Writes `left * right`, `[left's rows, right's columns]`; the rows of both are contiguous.
pub(super) fn multiply(output: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    assert_eq!(left.columns(), right.rows(), "the factors fit");
    assert_eq!(output.len(), left.rows() * right.columns(), "a number for each row and column");
    Arch::new().dispatch(Sweep { output, left, right });
}

/// Rows that are added at a time: the output is read and written once for all of them.
const ROWS: usize = 8;

struct Sweep<'a> {
    output: &'a mut [f32],
    left: Matrix<'a>,
    right: Matrix<'a>,
}

impl WithSimd for Sweep<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { output, left, right } = self;
        let (depth, columns) = (right.rows(), right.columns());
        output.fill(0.0);
        let whole = depth / ROWS * ROWS;
        for k in (0..whole).step_by(ROWS) {
            let (mut rows, mut ahead) = ([&[][..]; ROWS], [&[][..]; ROWS]);
            for i in 0..ROWS {
                rows[i] = right.row(k + i);
                ahead[i] = right.row((k + ROWS + i).min(depth - 1));
            }
            for (row, output) in output.chunks_exact_mut(columns).enumerate() {
                let mut factors = [0.0; ROWS];
                factors.copy_from_slice(&left.row(row)[k..k + ROWS]);
                add(simd, output, factors, rows, ahead);
            }
        }
        for k in whole..depth {
            for (row, output) in output.chunks_exact_mut(columns).enumerate() {
                add(simd, output, [left.row(row)[k]], [right.row(k)], [right.row(k)]);
            }
        }
    }
}

/// Adds the sum of multiples of rows, while it asks for the numbers of those that follow.
#[inline(always)]
fn add<S: Simd, const N: usize>(
    simd: S,
    output: &mut [f32],
    factors: [f32; N],
    rows: [&[f32]; N],
    ahead: [&[f32]; N],
) {
    assert!(rows.iter().chain(&ahead).all(|row| row.len() == output.len()), "rows are as long");
    let whole = output.len() / S::F32_LANES;
    let (mut multiples, mut vectors) = ([simd.splat_f32s(0.0); N], [&[][..]; N]);
    for i in 0..N {
        multiples[i] = simd.splat_f32s(factors[i]);
        vectors[i] = &S::as_simd_f32s(rows[i]).0[..whole];
    }
    let (sums, rest) = S::as_mut_simd_f32s(output);
    for (at, sum) in sums.iter_mut().enumerate() {
        let mut value = *sum;
        for i in 0..N {
            prefetch::<1>(ahead[i].as_ptr().wrapping_add(at * S::F32_LANES));
            value = simd.mul_add_e_f32s(multiples[i], vectors[i][at], value);
        }
        *sum = value;
    }
    for (at, sum) in (whole * S::F32_LANES..).zip(rest) {
        for i in 0..N {
            *sum += factors[i] * rows[i][at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_a_sum_of_products_whatever_the_sizes() {
        for (rows, depth, columns) in [(1, 1, 1), (1, 8, 16), (2, 17, 40), (4, 31, 67), (3, 64, 9)]
        {
            let numbers = |count: usize, step: usize| -> Vec<f32> {
                (0..count).map(|i| (i * step % 23) as f32 - 11.0).collect()
            };
            let (left, right) = (numbers(rows * depth, 7), numbers(depth * columns, 5));
            let mut output = vec![f32::NAN; rows * columns];
            let right_factor = Matrix::new(&right, depth, columns);
            multiply(&mut output, Matrix::new(&left, rows, depth), right_factor);
            for (at, found) in output.into_iter().enumerate() {
                let left = &left[at / columns * depth..][..depth];
                let right = right[at % columns..].iter().step_by(columns);
                // Whole numbers: exact in any order.
                let sum: f32 = left.iter().zip(right).map(|(x, y)| x * y).sum();
                assert_eq!(found, sum, "{rows} x {depth} x {columns}");
            }
        }
    }
}

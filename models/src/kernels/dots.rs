//! The product of few rows with a matrix whose columns are contiguous, as a linear layer's weight is
//! where published files keep it: each number of the output is a dot product of two slices, read
//! where they lie.
//!
//! With so few rows the time is that of reading the matrix, which packing would do three times over.

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;

/// Writes `left * right^T`, `[left's rows, right's rows]`; the rows of both are contiguous.
pub(super) fn multiply(output: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    let [left, right] = [left, right]
        .map(|matrix| (0..matrix.rows()).map(|row| matrix.row(row)).collect::<Vec<_>>());
    assert_eq!(output.len(), left.len() * right.len(), "a number for each two rows");
    Arch::new().dispatch(Dots { output, left: &left, right: &right });
}

/// Rows and columns of a tile: its sums, a vector of each column and one of a row fill 16 registers.
const ROWS: usize = 4;
const COLUMNS: usize = 3;

struct Dots<'a> {
    output: &'a mut [f32],
    left: &'a [&'a [f32]],
    right: &'a [&'a [f32]],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { output, left, right } = self;
        let stride = right.len();
        // The columns of a tile stay in the first-level cache while all rows pass.
        for (j, right) in right.chunks(COLUMNS).enumerate() {
            for (i, left) in left.chunks(ROWS).enumerate() {
                let output = &mut output[i * ROWS * stride + j * COLUMNS..];
                match (left, right) {
                    (&[a, b, c, d], &[p, q, r]) => {
                        tile(simd, [a, b, c, d], [p, q, r], output, stride);
                    }
                    (&[a, b, c], &[p, q, r]) => tile(simd, [a, b, c], [p, q, r], output, stride),
                    (&[a, b], &[p, q, r]) => tile(simd, [a, b], [p, q, r], output, stride),
                    (&[a], &[p, q, r]) => tile(simd, [a], [p, q, r], output, stride),
                    _ => {
                        for (i, &left) in left.iter().enumerate() {
                            for (j, &right) in right.iter().enumerate() {
                                tile(simd, [left], [right], &mut output[i * stride + j..], stride);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The dot products of each two of these rows, to lines that begin `stride` numbers apart.
#[inline(always)]
fn tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    left: [&[f32]; M],
    right: [&[f32]; N],
    output: &mut [f32],
    stride: usize,
) {
    let depth = left[0].len();
    assert!(left.iter().chain(&right).all(|row| row.len() == depth), "the factors fit");
    let vectors = depth / S::F32_LANES;
    let left_vectors = left.map(|row| &S::as_simd_f32s(row).0[..vectors]);
    let right_vectors = right.map(|row| &S::as_simd_f32s(row).0[..vectors]);
    let mut sums = [[simd.splat_f32s(0.0); N]; M];
    for k in 0..vectors {
        let right: [S::f32s; N] = std::array::from_fn(|j| right_vectors[j][k]);
        for i in 0..M {
            for j in 0..N {
                sums[i][j] = simd.mul_add_e_f32s(left_vectors[i][k], right[j], sums[i][j]);
            }
        }
    }
    for i in 0..M {
        for j in 0..N {
            let mut sum = simd.reduce_sum_f32s(sums[i][j]);
            for k in vectors * S::F32_LANES..depth {
                sum += left[i][k] * right[j][k];
            }
            output[i * stride + j] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_a_dot_product_whatever_the_sizes() {
        for (rows, columns, depth) in [(1, 1, 1), (1, 9, 40), (2, 4, 16), (3, 5, 31), (7, 13, 67)] {
            let numbers = |count: usize, step: usize| -> Vec<f32> {
                (0..count).map(|i| (i * step % 23) as f32 - 11.0).collect()
            };
            let (left, right) = (numbers(rows * depth, 7), numbers(columns * depth, 5));
            let mut output = vec![f32::NAN; rows * columns];
            let factor = |values, rows| Matrix::new(values, rows, depth);
            multiply(&mut output, factor(&left, rows), factor(&right, columns));
            for (at, found) in output.into_iter().enumerate() {
                let [left, right] = [&left[at / columns * depth..], &right[at % columns * depth..]];
                // Whole numbers: exact in any order.
                let sum: f32 = left.iter().zip(&right[..depth]).map(|(x, y)| x * y).sum();
                assert_eq!(found, sum, "{rows} x {depth} x {columns}");
            }
        }
    }
}

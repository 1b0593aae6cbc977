//! The product of few rows with a matrix whose columns are contiguous, as a linear layer's weight is
//! where published files keep it: each number of the output is a dot product of two slices, read
//! where they lie.
//!
//! With so few rows the time is that of reading the matrix, which packing would do three times over.

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;
use super::vector::prefetch;

/// Writes `left * right^T`, `[left's rows, right's rows]`; the rows of both are contiguous.
pub(super) fn multiply(output: &mut [f32], left: Matrix<'_>, right: Matrix<'_>) {
    let [left, right] = [left, right]
        .map(|matrix| (0..matrix.rows()).map(|row| matrix.row(row)).collect::<Vec<_>>());
    assert_eq!(output.len(), left.len() * right.len(), "a number for each two rows");
    Arch::new().dispatch(Dots { output, left: &left, right: &right });
}

/// Rows of a tile.
const ROWS: usize = 4;

struct Dots<'a> {
    output: &'a mut [f32],
    left: &'a [&'a [f32]],
    right: &'a [&'a [f32]],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A tile's sums, a vector of each column and one of a row lie in registers.
        match S::REGISTER_COUNT {
            32.. => self.run::<S, 4>(simd),
            _ => self.run::<S, 3>(simd),
        }
    }
}

impl Dots<'_> {
    /// By tiles of `N` columns.
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let Self { output, left, right } = self;
        let stride = right.len();
        // All rows pass before the next columns; which are asked for meanwhile, some with each tile of rows:
        // a processor does not by itself bring slices of some KiB in time from memory.
        let some = N.div_ceil(left.len().div_ceil(ROWS));
        let mut rest = right;
        for j in (0..stride).step_by(N) {
            let (these, next) = rest.split_at(N.min(rest.len()));
            rest = next;
            let mut ahead = next.chunks(some);
            for (i, left) in left.chunks(ROWS).enumerate() {
                let output = &mut output[i * ROWS * stride + j..];
                let ahead = ahead.next().unwrap_or_default();
                match <[_; N]>::try_from(these) {
                    Ok(right) => match *left {
                        [a, b, c, d] => tile(simd, [a, b, c, d], right, ahead, output, stride),
                        [a, b, c] => tile(simd, [a, b, c], right, ahead, output, stride),
                        [a, b] => tile(simd, [a, b], right, ahead, output, stride),
                        [a] => tile(simd, [a], right, ahead, output, stride),
                        _ => unreachable!("a tile has one to four rows"),
                    },
                    Err(_) => {
                        for (i, &left) in left.iter().enumerate() {
                            for (j, &right) in these.iter().enumerate() {
                                let output = &mut output[i * stride + j..];
                                tile(simd, [left], [right], &[], output, stride);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// [`dots`], while it asks for the numbers of up to four other columns.
#[inline(always)]
fn tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    left: [&[f32]; M],
    right: [&[f32]; N],
    ahead: &[&[f32]],
    output: &mut [f32],
    stride: usize,
) {
    match *ahead {
        [a, b, c, d] => dots(simd, left, right, [a, b, c, d], output, stride),
        [a, b, c] => dots(simd, left, right, [a, b, c], output, stride),
        [a, b] => dots(simd, left, right, [a, b], output, stride),
        [a] => dots(simd, left, right, [a], output, stride),
        _ => dots(simd, left, right, [], output, stride),
    }
}

/// The dot products of each two of these rows, to lines that begin `stride` numbers apart.
#[inline(always)]
fn dots<S: Simd, const M: usize, const N: usize, const A: usize>(
    simd: S,
    left: [&[f32]; M],
    right: [&[f32]; N],
    ahead: [&[f32]; A],
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
        for ahead in ahead {
            prefetch::<1>(ahead.as_ptr().wrapping_add(k * S::F32_LANES));
        }
        let mut right = [simd.splat_f32s(0.0); N];
        for j in 0..N {
            right[j] = right_vectors[j][k];
        }
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
        for (rows, columns, depth) in
            [(1, 1, 1), (1, 9, 40), (2, 4, 16), (3, 5, 31), (7, 13, 67), (10, 8, 32), (16, 14, 50)]
        {
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

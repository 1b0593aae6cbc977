//! The product of nearly as many rows as a vector has numbers with a matrix whose columns are contiguous: the
//! rows are put across once, so that a vector holds a number of each, and each number of the matrix is read where
//! it lies and multiplies one of those.
//!
//! Beside [`super::dots`] it reads the rows once for more columns and has no sums of vectors.

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;
use super::vector::prefetch;

/// The left factor, put across.
pub(super) struct Across {
    /// A vector of each column.
    values: Vec<f32>,
    rows: usize,
}

/// Numbers of a vector, where there are registers enough for [`COLUMNS`] beside each other.
struct Lanes;

impl WithSimd for Lanes {
    type Output = Option<usize>;

    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        (S::REGISTER_COUNT >= 32).then_some(S::F32_LANES)
    }
}

/// Columns of a tile: as many sums as a processor works on at once.
const COLUMNS: usize = 8;

/// Numbers of a column that are read before more of it is asked for: a line of the cache.
const LINE: usize = 16;

/// How far ahead of them, in numbers.
const AHEAD: usize = 8 * LINE;

impl Across {
    /// Of contiguous rows which fill more than half of a vector; with fewer the time is that of reading the matrix.
    pub(super) fn new(left: Matrix<'_>) -> Option<Self> {
        let lanes = Arch::new().dispatch(Lanes)?;
        let rows = left.rows();
        if rows <= lanes / 2 || rows > lanes {
            return None;
        }
        let mut values = vec![0.0; left.columns() * lanes];
        left.transpose().copy_columns(0..rows, lanes, &mut values);
        Some(Self { values, rows })
    }

    /// Writes `left * right^T`, `[left's rows, right's rows]`; the rows of `right` are contiguous.
    pub(super) fn multiply(&self, output: &mut [f32], right: Matrix<'_>) {
        assert_eq!(output.len(), self.rows * right.rows(), "a number for each two rows");
        Arch::new().dispatch(Multiply { left: self, output, right });
    }
}

struct Multiply<'a> {
    left: &'a Across,
    output: &'a mut [f32],
    right: Matrix<'a>,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { left, output, right } = self;
        let columns = right.rows();
        let left_vectors = S::as_simd_f32s(&left.values).0;
        assert_eq!(left_vectors.len(), right.columns(), "the factors fit");
        for first in (0..columns).step_by(COLUMNS) {
            // The last one stands for those that are not there.
            let (mut these, mut next) = ([&[][..]; COLUMNS], [&[][..]; COLUMNS]);
            for i in 0..COLUMNS {
                these[i] = right.row((first + i).min(columns - 1));
                next[i] = right.row((first + COLUMNS + i).min(columns - 1));
            }
            let sums = tile(simd, left_vectors, these, next);
            for (sum, column) in sums.into_iter().zip(first..columns) {
                let mut numbers = [0.0; 16];
                S::as_mut_simd_f32s(&mut numbers).0[0] = sum;
                for (row, &number) in numbers[..left.rows].iter().enumerate() {
                    output[row * columns + column] = number;
                }
            }
        }
    }
}

/// The products with some columns, while it asks for the numbers that follow, there and in the columns after these.
#[inline(always)]
fn tile<S: Simd>(
    simd: S,
    left: &[S::f32s],
    columns: [&[f32]; COLUMNS],
    next: [&[f32]; COLUMNS],
) -> [S::f32s; COLUMNS] {
    let depth = left.len();
    let (left, left_rest) = left.as_chunks::<LINE>();
    let mut lines = [&[][..]; COLUMNS];
    for i in 0..COLUMNS {
        lines[i] = &columns[i].as_chunks::<LINE>().0[..left.len()];
    }
    let mut sums = [simd.splat_f32s(0.0); COLUMNS];
    for (at, left) in left.iter().enumerate() {
        let ahead = at * LINE + AHEAD;
        let mut line = [&[0.0; LINE]; COLUMNS];
        for i in 0..COLUMNS {
            prefetch::<1>(match ahead < depth {
                true => columns[i].as_ptr().wrapping_add(ahead),
                false => next[i].as_ptr().wrapping_add(ahead - depth),
            });
            line[i] = &lines[i][at];
        }
        for k in 0..LINE {
            for i in 0..COLUMNS {
                sums[i] = simd.mul_add_e_f32s(simd.splat_f32s(line[i][k]), left[k], sums[i]);
            }
        }
    }
    for (k, &left) in (depth - left_rest.len()..).zip(left_rest) {
        for i in 0..COLUMNS {
            sums[i] = simd.mul_add_e_f32s(simd.splat_f32s(columns[i][k]), left, sums[i]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_a_dot_product_whatever_the_sizes() {
        let Some(lanes) = Arch::new().dispatch(Lanes) else { return };
        for (rows, columns, depth) in
            [(lanes, 1, 1), (lanes, 9, 40), (lanes - 1, 16, 300), (lanes / 2 + 1, 5, 31)]
        {
            let numbers = |count: usize, step: usize| -> Vec<f32> {
                (0..count).map(|i| (i * step % 23) as f32 - 11.0).collect()
            };
            let (left, right) = (numbers(rows * depth, 7), numbers(columns * depth, 5));
            let mut output = vec![f32::NAN; rows * columns];
            let across = Across::new(Matrix::new(&left, rows, depth)).unwrap();
            across.multiply(&mut output, Matrix::new(&right, columns, depth));
            for (at, found) in output.into_iter().enumerate() {
                let [left, right] = [&left[at / columns * depth..], &right[at % columns * depth..]];
                // Whole numbers: exact in any order.
                let sum: f32 = left.iter().zip(&right[..depth]).map(|(x, y)| x * y).sum();
                assert_eq!(found, sum, "{rows} x {depth} x {columns}");
            }
        }
    }

    #[test]
    fn rows_that_fill_half_of_a_vector_or_more_than_one_are_not_put_across() {
        let lanes = Arch::new().dispatch(Lanes).unwrap_or(16);
        let values = vec![1.0; 2 * lanes];
        for rows in [1, lanes / 2, lanes + 1, 2 * lanes] {
            assert!(Across::new(Matrix::new(&values, rows, 1)).is_none());
        }
    }
}

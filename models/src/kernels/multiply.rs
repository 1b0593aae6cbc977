//! The product of two matrices on all threads: which of its forms for which sizes.

use std::iter;
use std::ops::Range;

use rayon::prelude::*;

use super::across::Across;
use super::dots;
use super::matrix::{self, Matrix};
use super::packed::{self, Packed};
use super::parts::{Blank, write_parts, write_pieces};
use super::product::{self, ROWS, Start};
use super::sweep;

/// Rows up to which a matrix with contiguous columns is read where it lies, each column once for all rows.
const DOT_ROWS: usize = 16;

/// Rows up to which any other right factor is read where it lies: packing it would cost more than the
/// product.
pub(super) const FEW_ROWS: usize = 4;

/// Rows up to which each thread packs some columns and multiplies them at once by all rows: the packed
/// matrix never exists as a whole.
const STRIPED_ROWS: usize = 192;

/// Numbers of a right factor that are packed at once there, about: they stay in the second-level cache.
const STRIPE: usize = 1 << 15;

/// Numbers of a right factor that a thread reads where they lie before it takes others, about.
const READ: usize = 1 << 17;

/// `then` of `left * right + bias`, which gets whole rows, or some columns of all rows.
pub(super) fn multiply(
    left: Matrix<'_>,
    right: Matrix<'_>,
    bias: Option<&[f32]>,
    then: impl Fn(&mut [f32]) + Sync,
) -> Vec<f32> {
    let (rows, columns) = (left.rows(), right.columns());
    if rows <= FEW_ROWS || rows <= DOT_ROWS && are_slices(left, right) {
        let mut output = few_rows(left, right, bias);
        then(&mut output);
        return output;
    }
    if rows <= STRIPED_ROWS {
        let mut room = Vec::new();
        let left = left.in_rows(&mut room);
        return by_columns(left, right, STRIPE / right.rows(), |right, columns, output| {
            let (width, start) = (columns.len(), start(bias.map(|bias| &bias[columns])));
            let right = Packed::on_this_thread(right);
            product::multiply_rows(output, width, start, left, &right, &mut Vec::new());
            then(output);
        });
    }
    let right = Packed::new(right);
    by_rows(left, columns, Vec::new, |room, left, output| {
        let output = product::write_rows(output, start(bias), left, &right, room);
        then(output);
        output
    })
}

/// What a product with this bias is added to.
pub(super) fn start(bias: Option<&[f32]>) -> Start<'_> {
    bias.map_or(Start::Zero, Start::Row)
}

/// `[rows, columns]` of which `write` gets some rows of the left factor and where those of the output go.
pub(super) fn by_rows<R>(
    left: Matrix<'_>,
    columns: usize,
    room: impl Fn() -> R + Send + Sync,
    write: impl for<'a> Fn(&mut R, Matrix<'_>, Blank<'a>) -> &'a mut [f32] + Send + Sync,
) -> Vec<f32> {
    let shares: Vec<Range<usize>> = shares(left.rows()).collect();
    let lengths = shares.iter().map(|share| share.len() * columns);
    write_parts(lengths, room, |room, share, output| {
        write(room, left.narrow(shares[share].clone()), output)
    })
}

/// `[rows, columns]` of which `write` gets some columns of the right factor, whole panels of about `width`,
/// which ones they are, and those of the output.
fn by_columns(
    left: Matrix<'_>,
    right: Matrix<'_>,
    width: usize,
    write: impl Fn(Matrix<'_>, Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let (rows, columns) = (left.rows(), right.columns());
    let panel = packed::panel_width();
    let width = (width / panel).max(1) * panel;
    let stripe = |first: usize| {
        let stripe = first..(first + width).min(columns);
        let mut output = vec![0.0; rows * stripe.len()];
        let part = right.transpose().narrow(stripe.clone()).transpose();
        write(part, stripe, &mut output);
        output
    };
    if columns <= width {
        return stripe(0);
    }
    let firsts: Vec<usize> = (0..columns).step_by(width).collect();
    let stripes: Vec<Vec<f32>> = firsts.into_par_iter().map(stripe).collect();
    // Rows that a thread puts together at a time.
    let together = (STRIPE / columns).max(1);
    write_pieces(rows * columns, together * columns, |piece, output| {
        let output = output.zeros();
        for (row, output) in output.chunks_exact_mut(columns).enumerate() {
            for (output, stripe) in output.chunks_mut(width).zip(&stripes) {
                let stripe = &stripe[(piece * together + row) * output.len()..];
                output.copy_from_slice(&stripe[..output.len()]);
            }
        }
        output
    })
}

/// Whether the rows of one factor and the columns of the other are slices.
fn are_slices(left: Matrix<'_>, right: Matrix<'_>) -> bool {
    left.has_contiguous_rows() && right.transpose().has_contiguous_rows()
}

/// `left * right + bias` of few rows.
pub(super) fn few_rows(left: Matrix<'_>, right: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let in_columns = are_slices(left, right);
    let in_rows = left.has_contiguous_rows() && right.has_contiguous_rows();
    let width = if in_rows { wide_stripe(right.columns()) } else { READ / right.rows() };
    let across = in_columns.then(|| Across::new(left)).flatten();
    by_columns(left, right, width, |right, columns, output| {
        if let Some(left) = &across {
            left.multiply(output, right.transpose());
        } else if in_columns {
            dots::multiply(output, left, right.transpose());
        } else if in_rows {
            sweep::multiply(output, left, right);
        } else {
            matrix::multiply(output, columns.len(), false, 1.0, left, right);
        }
        if let Some(bias) = bias {
            let bias = &bias[columns];
            for row in output.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
    })
}

/// Columns of a stripe whose rows are read from end to end: some for each thread, and long enough that memory is
/// read in order.
fn wide_stripe(columns: usize) -> usize {
    /// Rows of 768 bytes.
    const LEAST: usize = 192;
    columns.div_ceil(2 * rayon::current_num_threads()).max(LEAST)
}

/// Rows divided into shares of whole tiles, at most [`ROWS`] each and smaller towards the end: no thread
/// waits long for another one's last.
fn shares(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let threads = rayon::current_num_threads();
    let mut first = 0;
    iter::from_fn(move || {
        let tiles = (rows - first).div_ceil(product::TILE);
        let some = tiles.div_ceil(threads).min(ROWS / product::TILE);
        let share = first..(first + some * product::TILE).min(rows);
        first = share.end;
        (!share.is_empty()).then_some(share)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_product_with_bias_and_what_follows() {
        // Rows of each form; columns of several stripes, the last of them narrow; both orders of each.
        for rows in [1, FEW_ROWS, DOT_ROWS, DOT_ROWS + 1, STRIPED_ROWS, STRIPED_ROWS + 1] {
            for (depth, columns) in [(3, 5), (350, 203), (900, 98)] {
                let numbers = |count: usize, step: usize| -> Vec<f32> {
                    (0..count).map(|i| (i * step % 19) as f32 - 9.0).collect()
                };
                let (left, right) = (numbers(rows * depth, 7), numbers(depth * columns, 5));
                let bias = numbers(columns, 3);
                let lefts =
                    [Matrix::new(&left, rows, depth), Matrix::new(&left, depth, rows).transpose()];
                let rights = [
                    Matrix::new(&right, depth, columns),
                    Matrix::new(&right, columns, depth).transpose(),
                ];
                for (left, right) in
                    lefts.into_iter().flat_map(|left| rights.map(|right| (left, right)))
                {
                    // Whole numbers: exact in any order.
                    let mut expected = vec![0.0; rows * columns];
                    matrix::multiply(&mut expected, columns, false, 1.0, left, right);
                    for (at, value) in expected.iter_mut().enumerate() {
                        *value = (*value + bias[at % columns]).max(0.0);
                    }
                    let relu = |values: &mut [f32]| {
                        values.iter_mut().for_each(|value| *value = value.max(0.0));
                    };
                    let found = multiply(left, right, Some(&bias), relu);
                    assert!(found == expected, "{rows} x {depth} x {columns}");
                }
            }
        }
    }

    #[test]
    fn shares_are_whole_tiles_and_cover_all_rows() {
        for rows in [1, 5, 6, 7, 95, 97, 1000, 4096] {
            let shares: Vec<_> = shares(rows).collect();
            assert_eq!(shares[0].start, 0);
            assert_eq!(shares[shares.len() - 1].end, rows);
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(shares.iter().all(|share| !share.is_empty() && share.len() <= ROWS));
        }
    }
}

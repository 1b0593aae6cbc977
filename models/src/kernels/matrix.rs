//! Matrices within slices: views, copies in another order, and their product on one thread where
//! neither factor is packed.

use std::ops::Range;

use gemm::Parallelism;

use super::parts::{Blank, write_pieces};
use super::vector::{prefetch, widest};

/// A matrix within a slice: its first value, and how far it is from one row and from one column to
/// the next.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A whole slice in row-major order.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::within(values, rows, columns, columns)
    }

    /// Rows that begin `stride` values apart, the first with the slice.
    pub(super) fn within(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_spans(values.len(), rows, columns, stride);
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The number of rows.
    pub(super) fn rows(self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub(super) fn columns(self) -> usize {
        self.columns
    }

    /// Whether the numbers of each row follow each other in memory.
    pub(super) fn has_contiguous_rows(self) -> bool {
        self.column_stride == 1
    }

    /// A row whose numbers follow each other in memory.
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        assert!(row < self.rows && self.column_stride == 1, "the matrix has contiguous rows");
        &self.values[row * self.row_stride..][..self.columns]
    }

    /// A range of the rows.
    pub(super) fn narrow(self, rows: Range<usize>) -> Self {
        assert!(rows.start < rows.end && rows.end <= self.rows, "the rows lie within the matrix");
        let values = &self.values[rows.start * self.row_stride..];
        Self { values, rows: rows.len(), ..self }
    }

    /// Copies a range of columns, row by row, into rows that begin `width` numbers apart.
    pub(super) fn copy_columns(self, columns: Range<usize>, width: usize, into: &mut [f32]) {
        assert!(columns.end <= self.columns && !columns.is_empty(), "the matrix has the columns");
        assert_spans(into.len(), self.rows, columns.len(), width);
        // SAFETY: as just asserted.
        unsafe { self.copy(columns, width, into.as_mut_ptr()) };
    }

    /// A range of columns, row by row, to where there are no numbers yet.
    pub(super) fn write_columns<'b>(self, columns: Range<usize>, into: Blank<'b>) -> &'b mut [f32] {
        assert!(columns.end <= self.columns, "the matrix has the columns");
        assert_eq!(into.len(), self.rows * columns.len(), "a number for each");
        let width = columns.len();
        // SAFETY: as just asserted; each number of each row is written.
        unsafe { into.written_by(|first| self.copy(columns, width, first)) }
    }

    /// # Safety
    /// The matrix has the columns; from each multiple of `width` on, one for each row, as many numbers as there
    /// are columns may be written from `into` on.
    unsafe fn copy(self, columns: Range<usize>, width: usize, into: *mut f32) {
        let (first, count) = (columns.start, columns.len());
        // SAFETY: the caller's.
        widest!(unsafe {
            match (self.row_stride, self.column_stride, count) {
                // Whole panels of vectors of 256 and of 512 bits.
                (_, 1, 16) => self.copy_lines(first, 16, width, into),
                (_, 1, 48) => self.copy_lines(first, 48, width, into),
                // Tiles of rows, as high as theirs.
                (_, 1, 6) => self.copy_lines(first, 6, width, into),
                (_, 1, 8) => self.copy_lines(first, 8, width, into),
                (_, 1, _) => self.copy_lines(first, count, width, into),
                (1, ..) => self.copy_squares(columns, width, into),
                _ => self.copy_part(0..self.rows, columns, width, into),
            }
        });
    }

    /// [`Self::copy`] where the columns lie side by side; a count that is a constant where this
    /// is called makes it vector moves in place of calls.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn copy_lines(self, first: usize, count: usize, width: usize, into: *mut f32) {
        for k in 0..self.rows {
            let start = k * self.row_stride + first;
            let line = &self.values[start..start + count];
            // SAFETY: the caller's, of row `k`.
            unsafe { into.add(k * width).copy_from_nonoverlapping(line.as_ptr(), count) };
        }
    }

    /// [`Self::copy`] where the rows lie side by side: by squares, whose sides are lines of the cache, some
    /// columns from end to end. The lines of a later square are asked for, which a processor does not do by
    /// itself of slices of some KiB.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn copy_squares(self, columns: Range<usize>, width: usize, into: *mut f32) {
        const SIDE: usize = 16;
        const AHEAD: usize = 4 * SIDE;
        let (rows, count) = (self.rows / SIDE * SIDE, columns.len() / SIDE * SIDE);
        for j in (0..count).step_by(SIDE) {
            for k in (0..rows).step_by(SIDE) {
                let mut square = [[0.0; SIDE]; SIDE];
                for (i, column) in square.iter_mut().enumerate() {
                    let start = (columns.start + j + i) * self.column_stride + k;
                    prefetch::<1>(self.values.as_ptr().wrapping_add(start + AHEAD));
                    column.copy_from_slice(&self.values[start..start + SIDE]);
                }
                for (i, k) in (k..k + SIDE).enumerate() {
                    let row: [f32; SIDE] = std::array::from_fn(|j| square[j][i]);
                    let line = into.wrapping_add(k * width + j);
                    // SAFETY: the caller's, of row `k`.
                    unsafe { line.copy_from_nonoverlapping(row.as_ptr(), SIDE) };
                }
            }
        }
        let rest = columns.start + count..columns.end;
        // SAFETY: the caller's: the last rows, and the last columns of the others.
        unsafe {
            self.copy_part(rows..self.rows, columns, width, into.add(rows * width));
            self.copy_part(0..rows, rest, width, into.add(count));
        }
    }

    /// A range of rows and of columns, number by number.
    ///
    /// # Safety
    /// As for [`Self::copy`], of these rows, the first of which goes to `into`.
    #[inline(always)]
    unsafe fn copy_part(
        self,
        rows: Range<usize>,
        columns: Range<usize>,
        width: usize,
        into: *mut f32,
    ) {
        for (at, k) in rows.enumerate() {
            for (j, column) in columns.clone().enumerate() {
                let value = self.values[k * self.row_stride + column * self.column_stride];
                // SAFETY: the caller's.
                unsafe { into.add(at * width + j).write(value) };
            }
        }
    }

    /// The matrix as [`Self::rows_of_block`] needs no copy of it: where it lies, or copied into `room` on all threads.
    pub(super) fn in_rows<'b>(self, room: &'b mut Vec<f32>) -> Matrix<'b>
    where
        'a: 'b,
    {
        /// Rows that one thread copies at a time.
        const ROWS: usize = 16;
        if self.lies_in_rows() {
            return self;
        }
        let Self { rows, columns, .. } = self;
        let stride = columns + if columns.is_multiple_of(ALIASED) { 16 } else { 0 };
        *room = write_pieces(rows * stride, ROWS * stride, |index, piece| {
            let piece = piece.zeros();
            let first = index * ROWS;
            let matrix = self.narrow(first..first + piece.len() / stride);
            matrix.copy_columns(0..columns, stride, piece);
            piece
        });
        Matrix::within(room, rows, columns, stride)
    }

    /// Whether rows are slices that do not push each other out of the first-level cache.
    fn lies_in_rows(self) -> bool {
        self.column_stride == 1 && !self.row_stride.is_multiple_of(ALIASED)
    }

    /// A range of the columns as a slice a row: where the rows lie, or copied into `room`. Of columns that
    /// are slices the numbers of `tile` rows lie side by side there, so that what reads that many rows at a
    /// time finds them in few lines of the cache.
    pub(super) fn rows_of_block<'b>(
        self,
        columns: Range<usize>,
        tile: usize,
        room: &'b mut Vec<f32>,
    ) -> Rows<'b>
    where
        'a: 'b,
    {
        /// Numbers of each row that are copied at a time, so that lines of the cache are read once.
        const TOGETHER: usize = 16;
        let (rows, width) = (self.rows, columns.len());
        if self.lies_in_rows() {
            let starts = (0..rows).map(|row| row * self.row_stride + columns.start);
            let slices = starts.map(|start| &self.values[start..start + width]).collect();
            return Rows { slices, step: 1 };
        }
        if self.row_stride != 1 {
            room.resize(rows * width, 0.0);
            self.copy_columns(columns, width, room);
            return Rows { slices: room.chunks_exact(width).collect(), step: 1 };
        }
        room.resize(rows.next_multiple_of(tile) * width, 0.0);
        let across = self.transpose().narrow(columns);
        for first in (0..width).step_by(TOGETHER) {
            let across = across.narrow(first..(first + TOGETHER).min(width));
            for (index, room) in room.chunks_exact_mut(tile * width).enumerate() {
                let row = index * tile;
                let rows = row..(row + tile).min(rows);
                across.copy_columns(rows, tile, &mut room[first * tile..]);
            }
        }
        let row = |row: usize| &room[row / tile * tile * width + row % tile..];
        Rows { slices: (0..rows).map(row).collect(), step: tile }
    }

    pub(super) fn transpose(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Rows of a matrix, each from its first number on.
pub(super) struct Rows<'a> {
    pub(super) slices: Vec<&'a [f32]>,
    /// From one number of a row to the next.
    pub(super) step: usize,
}

impl Rows<'_> {
    /// Whether all rows have so many numbers.
    pub(super) fn have(&self, count: usize) -> bool {
        let last = count.checked_sub(1).map(|last| last * self.step);
        last.is_none_or(|last| self.slices.iter().all(|row| last < row.len()))
    }
}

/// Numbers after which the same place of the first-level cache is used again (4 KiB): rows that far
/// apart push each other out.
const ALIASED: usize = 1024;

/// The transpose of `[rows, columns]` numbers, on all threads.
pub(crate) fn transposed(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    /// Rows of the result that one thread writes at a time.
    const ROWS: usize = 64;
    if numbers.is_empty() {
        return Vec::new();
    }
    let matrix = Matrix::new(numbers, rows, columns).transpose();
    write_pieces(rows * columns, ROWS * rows, |index, piece| {
        let piece = piece.zeros();
        let first = index * ROWS;
        let matrix = matrix.narrow(first..first + piece.len() / rows);
        matrix.copy_columns(0..rows, rows, piece);
        piece
    })
}

/// That `rows` of `columns` values, `stride` apart, end within `length`.
fn assert_spans(length: usize, rows: usize, columns: usize, stride: usize) {
    assert!(rows > 0 && columns > 0 && columns <= stride, "a matrix has rows and columns");
    assert!((rows - 1) * stride + columns <= length, "a matrix lies within its slice");
}

/// Writes `scale * left * right` to `output`, or adds it. The rows of the output begin `stride`
/// values apart.
pub(super) fn multiply(
    output: &mut [f32],
    stride: usize,
    add: bool,
    scale: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
) {
    assert_eq!(left.columns, right.rows, "the factors fit");
    assert_spans(output.len(), left.rows, right.columns, stride);
    // SAFETY: `assert_spans` has checked, here and where the factors were made (transposing
    // exchanges rows and columns together with their strides), that every index below `rows` and
    // `columns` lies within each slice; `output` is borrowed mutably, so that none overlaps it.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            output.as_mut_ptr(),
            1,
            stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_of_any_size_puts_rows_into_columns() {
        for (rows, columns) in [(1, 1), (3, 5), (33, 70), (64, 32), (16, 1), (130, 257)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|n| n as f32).collect();
            let result = transposed(&numbers, rows, columns);
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(result[c * rows + r], numbers[r * columns + c]);
                }
            }
        }
        assert!(transposed(&[], 0, 3).is_empty());
    }

    #[test]
    fn rows_that_would_push_each_other_out_are_copied_and_the_same() {
        let numbers: Vec<f32> = (0..5 * 2 * ALIASED).map(|i| i as f32).collect();
        let matrix = Matrix::new(&numbers, 5, 2 * ALIASED);
        let mut room = Vec::new();
        let rows = matrix.rows_of_block(7..300, 4, &mut room);
        assert_eq!(rows.step, 1);
        for (row, found) in rows.slices.into_iter().enumerate() {
            assert_eq!(found, &numbers[row * 2 * ALIASED + 7..row * 2 * ALIASED + 300]);
        }
    }

    #[test]
    fn columns_that_are_slices_are_copied_by_tiles_of_rows() {
        let (columns, stride) = (70, 21);
        let numbers: Vec<f32> = (0..columns * stride).map(|i| i as f32).collect();
        for (rows, tile) in [(1, 8), (8, 8), (21, 8), (21, 6), (17, 4)] {
            let matrix = Matrix::within(&numbers, columns, rows, stride).transpose();
            // What was there before must not matter.
            let mut room = vec![-1.0; 4000];
            let found = matrix.rows_of_block(3..61, tile, &mut room);
            assert!(found.have(58) && found.slices.len() == rows);
            for (row, slice) in found.slices.iter().enumerate() {
                for column in 0..58 {
                    let expected = numbers[(3 + column) * stride + row];
                    assert_eq!(slice[column * found.step], expected);
                }
            }
        }
    }

    #[test]
    fn a_matrix_in_rows_is_the_same_and_needs_no_copy() {
        let numbers: Vec<f32> = (0..37 * 2 * ALIASED).map(|i| i as f32).collect();
        let kinds = [
            Matrix::new(&numbers, 37, 2 * ALIASED),
            Matrix::new(&numbers, 2 * ALIASED, 37),
            Matrix::new(&numbers[..37 * 50], 50, 37).transpose(),
        ];
        for matrix in kinds {
            let mut room = Vec::new();
            let copy = matrix.in_rows(&mut room);
            assert!(copy.lies_in_rows() && copy.rows == matrix.rows);
            for row in 0..matrix.rows {
                for (column, &value) in copy.row(row).iter().enumerate() {
                    let at = row * matrix.row_stride + column * matrix.column_stride;
                    assert_eq!(value, matrix.values[at]);
                }
            }
        }
    }

    #[test]
    fn any_range_of_columns_is_copied_from_either_order() {
        let (rows, columns) = (21, 70);
        let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let matrix = Matrix::new(&numbers, rows, columns);
        for range in [0..16, 3..19, 0..48, 8..27, 64..70] {
            let width = range.len() + 2;
            for matrix in [matrix, Matrix::new(&numbers, columns, rows).transpose()] {
                let mut copied = vec![-1.0; rows * width];
                matrix.copy_columns(range.clone(), width, &mut copied);
                for (k, row) in copied.chunks(width).enumerate() {
                    for (value, column) in row.iter().zip(range.clone()) {
                        let at = k * matrix.row_stride + column * matrix.column_stride;
                        assert_eq!(*value, numbers[at]);
                    }
                    assert_eq!(row[range.len()..], [-1.0; 2]);
                }
            }
        }
    }
}

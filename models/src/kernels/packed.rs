//! The right factor of a product, copied once into panels as wide as a tile, which the innermost loop reads
//! in order.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Matrix;
use super::parts::{Blank, Lines};

/// Numbers of the right factor from which on packing is worth a second thread.
const PARALLEL: usize = 1 << 15;

/// Columns of a block: with the longest block of the depth 144 KiB.
const BLOCK: usize = 96;

/// A matrix laid out as the right factor: panels of [`Packed::width`] columns (the last one as many
/// vectors wide as it needs), each row by row, zeros beyond the last column.
pub(super) struct Packed {
    values: Lines,
    depth: usize,
    columns: usize,
    lanes: usize,
    width: usize,
}

/// Rows and vectors of a tile: its sums, a row of a panel and a number of the left factor fill the registers.
pub(super) const fn tile(registers: usize) -> (usize, usize) {
    if registers >= 32 { (8, 3) } else { (6, 2) }
}

/// Numbers of a vector, rows and vectors of a tile on this machine.
struct Registers;

impl WithSimd for Registers {
    type Output = (usize, (usize, usize));

    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        (S::F32_LANES, tile(S::REGISTER_COUNT))
    }
}

/// Rows of a tile on this machine.
pub(super) fn tile_height() -> usize {
    let (_, (height, _)) = Arch::new().dispatch(Registers);
    height
}

/// Columns of a panel on this machine.
pub(super) fn panel_width() -> usize {
    let (lanes, (_, vectors)) = Arch::new().dispatch(Registers);
    lanes * vectors
}

impl Packed {
    /// Packs a matrix of `[depth, columns]`.
    pub(super) fn new(right: Matrix<'_>) -> Self {
        let is_large = right.rows() * right.columns() >= PARALLEL;
        Self::of_matrix(right, is_large)
    }

    /// [`Self::new`] without the help of other threads.
    pub(super) fn on_this_thread(right: Matrix<'_>) -> Self {
        Self::of_matrix(right, false)
    }

    fn of_matrix(right: Matrix<'_>, on_all_threads: bool) -> Self {
        let (depth, columns) = (right.rows(), right.columns());
        Self::with_threads(depth, columns, on_all_threads, |columns, width, panel| {
            if columns.len() == width {
                return right.write_columns(columns, panel);
            }
            let panel = panel.zeros();
            right.copy_columns(columns, width, panel);
            panel
        })
    }

    /// The matrix of `[depth, columns]` of which `fill` writes a range of columns into a panel of
    /// zeros, row by row, the rows `width` numbers apart.
    pub(super) fn of(
        depth: usize,
        columns: usize,
        fill: impl Fn(Range<usize>, usize, &mut [f32]) + Send + Sync,
    ) -> Self {
        Self::with_threads(depth, columns, depth * columns >= PARALLEL, |columns, width, panel| {
            let panel = panel.zeros();
            fill(columns, width, panel);
            panel
        })
    }

    fn with_threads(
        depth: usize,
        columns: usize,
        on_all_threads: bool,
        write: impl for<'a> Fn(Range<usize>, usize, Blank<'a>) -> &'a mut [f32] + Send + Sync,
    ) -> Self {
        let (lanes, (_, vectors)) = Arch::new().dispatch(Registers);
        let width = lanes * vectors;
        let count = depth * columns.next_multiple_of(lanes);
        let values = Lines::of_pieces(count, depth * width, on_all_threads, |panel, values| {
            let (first, width_here) = (panel * width, values.len() / depth);
            write(first..(first + width).min(columns), width_here, values)
        });
        Self { values, depth, columns, lanes, width }
    }

    /// The number of rows.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The number of columns.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of a whole panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Where a panel's numbers begin at a row, of the last one about there if it is narrower: to ask for, not to
    /// read. There may be none.
    pub(super) fn place(&self, column: usize, row: usize) -> *const f32 {
        self.values.as_ptr().wrapping_add(column * self.depth + row * self.width)
    }

    /// Blocks of some columns, whole panels of [`BLOCK`] or some more columns: all tiles of rows meet one, in the
    /// second-level cache, while the next one comes.
    pub(super) fn column_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (size, columns) = (BLOCK.next_multiple_of(self.width), self.columns);
        (0..columns).step_by(size).map(move |first| first..(first + size).min(columns))
    }

    /// Of each panel in a block of columns: its columns, and its numbers at a range of the depth.
    pub(super) fn panels(
        &self,
        columns: Range<usize>,
        depth: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        debug_assert!(columns.start.is_multiple_of(self.width), "blocks are whole panels");
        columns.clone().step_by(self.width).map(move |first| {
            let last = (first + self.width).min(columns.end);
            let width = (last - first).next_multiple_of(self.lanes);
            let start = first * self.depth;
            let values = start + depth.start * width..start + depth.end * width;
            (first..last, &self.values[values])
        })
    }
}

//! Matrix products on one thread, for kernels that divide their work themselves.

use gemm::Parallelism;

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

//! How a tensor's numbers lie in memory. cubecl may begin each row at a multiple of up to 512 bytes, so
//! that strides are to be looked at even where nothing was transposed.

use burn_cubecl::kernel::into_contiguous;

use super::CudaTensor;

/// How the matrix of a product is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MatrixLayout {
    /// By columns, one after the other, instead of by rows.
    pub(super) by_columns: bool,
    /// Numbers from one row (column) to the next.
    pub(super) stride: usize,
}

impl MatrixLayout {
    /// That of `[rows, columns]` numbers with these strides, if they lie in rows or in columns.
    fn of([rows, columns]: [usize; 2], strides: &[usize]) -> Option<Self> {
        let [from_row, from_column] = *strides else { return None };
        // The stride of a dimension of one number means nothing.
        if (columns == 1 || from_column == 1) && (rows == 1 || from_row >= columns) {
            let stride = if rows == 1 { columns } else { from_row };
            return Some(Self { by_columns: false, stride });
        }
        if (rows == 1 || from_row == 1) && (columns == 1 || from_column >= rows) {
            let stride = if columns == 1 { rows } else { from_column };
            return Some(Self { by_columns: true, stride });
        }
        None
    }
}

/// The matrix with its layout; copied where it lies in neither rows nor columns.
pub(super) fn matrix(tensor: CudaTensor) -> (CudaTensor, MatrixLayout) {
    let [rows, columns] = dims(&tensor);
    match MatrixLayout::of([rows, columns], &tensor.meta.strides) {
        Some(layout) => (tensor, layout),
        None => (into_contiguous(tensor), MatrixLayout { by_columns: false, stride: columns }),
    }
}

/// A tensor as the matrix whose rows are its last dimension, with the layout and the number of the rows; copied
/// where they do not lie in equal steps.
pub(super) fn rows(tensor: CudaTensor) -> (CudaTensor, MatrixLayout, usize) {
    let (&columns, of_rows) = tensor.meta.shape.split_last().expect("no input is a single number");
    let rows = of_rows.iter().product();
    if let [_, _] = tensor.meta.shape[..] {
        let (tensor, layout) = matrix(tensor);
        return (tensor, layout, rows);
    }
    match row_stride(&tensor.meta.shape, &tensor.meta.strides) {
        Some(stride) => (tensor, MatrixLayout { by_columns: false, stride }, rows),
        None => {
            let layout = MatrixLayout { by_columns: false, stride: columns };
            (into_contiguous(tensor), layout, rows)
        }
    }
}

/// Numbers from one last dimension to the next, where all are as far apart.
fn row_stride(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let (&columns, shape) = shape.split_last()?;
    let (&from_column, strides) = strides.split_last()?;
    if columns > 1 && from_column != 1 {
        return None;
    }
    let mut of_rows = shape.iter().zip(strides).rev().filter(|(size, _)| **size > 1);
    let Some((&first, &stride)) = of_rows.next() else { return Some(columns) };
    let mut expected = first * stride;
    let even = of_rows.all(|(&size, &found)| {
        let fits = found == expected;
        expected *= size;
        fits
    });
    (stride >= columns && even).then_some(stride)
}

/// Matrices one after the other, with the layout of each and the numbers from one to the next; copied where
/// they do not lie so.
pub(super) fn matrices(tensor: CudaTensor) -> (CudaTensor, MatrixLayout, usize) {
    let [count, rows, columns] = dims(&tensor);
    let strides = &tensor.meta.strides;
    match MatrixLayout::of([rows, columns], &strides[1..]) {
        // A step of no numbers would repeat a matrix.
        Some(layout) if count == 1 || strides[0] > 0 => {
            let step = if count == 1 { rows * columns } else { strides[0] };
            (tensor, layout, step)
        }
        _ => {
            let layout = MatrixLayout { by_columns: false, stride: columns };
            (into_contiguous(tensor), layout, rows * columns)
        }
    }
}

/// The tensor's sizes.
pub(super) fn dims<const D: usize>(tensor: &CudaTensor) -> [usize; D] {
    tensor.meta.shape.dims()
}

/// The tensor without gaps, the last dimension innermost; copied where it is not.
pub(super) fn contiguous(tensor: CudaTensor) -> CudaTensor {
    match is_contiguous(&tensor.meta.shape, &tensor.meta.strides) {
        true => tensor,
        false => into_contiguous(tensor),
    }
}

/// burn's own function asks for the strides of dimensions of one number, too, and so copies more.
pub(super) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected *= size;
        fits
    })
}

/// `[b, n, c]` with the numbers from one position to the next, batches being `n` times as far apart, both a
/// multiple of `unit`; copied where it does not lie so.
pub(super) fn positions(tensor: CudaTensor, unit: usize) -> (CudaTensor, usize) {
    let shape = dims(&tensor);
    match position_stride(shape, &tensor.meta.strides, unit) {
        Some(stride) => (tensor, stride),
        None => (into_contiguous(tensor), shape[2]),
    }
}

fn position_stride([b, n, c]: [usize; 3], strides: &[usize], unit: usize) -> Option<usize> {
    let [from_batch, from_position, from_channel] = *strides else { return None };
    let stride = match (b, n) {
        (1, 1) => c,
        (_, 1) => from_batch,
        _ => from_position,
    };
    let fits = (c == 1 || from_channel == 1)
        && (b == 1 || from_batch == n * stride)
        && stride >= c
        && stride.is_multiple_of(unit);
    fits.then_some(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_lies_in_rows_or_in_columns_or_is_copied() {
        let layout = |shape, strides: [usize; 2]| {
            MatrixLayout::of(shape, &strides).map(|layout| (layout.by_columns, layout.stride))
        };
        assert_eq!(layout([3, 5], [5, 1]), Some((false, 5)));
        // Padded rows, and the transpose of padded rows.
        assert_eq!(layout([3, 5], [8, 1]), Some((false, 8)));
        assert_eq!(layout([3, 5], [1, 8]), Some((true, 8)));
        assert_eq!(layout([3, 5], [1, 3]), Some((true, 3)));
        // One row, wherever the next would be; a column of every fourth number.
        assert_eq!(layout([1, 5], [77, 1]), Some((false, 5)));
        assert_eq!(layout([5, 1], [4, 1]), Some((false, 4)));
        // A row that is repeated, and every second number.
        assert_eq!(layout([3, 5], [0, 1]), None);
        assert_eq!(layout([3, 5], [10, 2]), None);
    }

    #[test]
    fn rows_lie_in_equal_steps_or_are_copied() {
        assert_eq!(row_stride(&[2, 3, 5], &[15, 5, 1]), Some(5));
        assert_eq!(row_stride(&[2, 3, 5], &[24, 8, 1]), Some(8));
        assert_eq!(row_stride(&[2, 1, 5], &[24, 77, 1]), Some(24));
        assert_eq!(row_stride(&[1, 1, 5], &[9, 9, 1]), Some(5));
        assert_eq!(row_stride(&[1, 1, 5], &[10, 1, 2]), None);
        assert_eq!(row_stride(&[2, 3, 5], &[16, 5, 1]), None);
        assert_eq!(row_stride(&[2, 3, 5], &[3, 1, 6]), None);
    }

    #[test]
    fn dimensions_of_one_number_have_no_say() {
        assert!(is_contiguous(&[1, 4, 5], &[7, 5, 1]));
        assert!(is_contiguous(&[4, 1, 5], &[5, 1, 1]));
        assert!(!is_contiguous(&[2, 4, 5], &[40, 8, 1]));
        assert!(!is_contiguous(&[4, 5], &[1, 4]));
    }

    #[test]
    fn positions_may_be_parts_of_wider_ones() {
        assert_eq!(position_stride([2, 3, 16], &[48, 16, 1], 8), Some(16));
        assert_eq!(position_stride([2, 3, 16], &[96, 32, 1], 8), Some(32));
        assert_eq!(position_stride([2, 1, 16], &[96, 5, 1], 8), Some(96));
        assert_eq!(position_stride([1, 3, 16], &[5, 32, 1], 8), Some(32));
        assert_eq!(position_stride([2, 3, 16], &[50, 16, 1], 8), None);
        assert_eq!(position_stride([2, 3, 16], &[60, 20, 1], 8), None);
        assert_eq!(position_stride([2, 3, 16], &[48, 1, 3], 8), None);
    }
}

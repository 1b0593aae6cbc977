//! What vision transformers do to pixels: patches, and positions for pictures of another size.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use crate::kernels::product;

/// One linear map of disjoint patches, in the type of its weight.
///
/// # Shapes
///
/// - `pixels`: `[batch, channels, height, width]`, both multiples of the patch size
/// - `weight`: `[hidden, channels, patch, patch]`
/// - `bias`: `[hidden]`
/// - output: `[batch, patches, hidden]`, row by row, and the grid `[rows, columns]`
pub fn embed_patches<B: Backend>(
    pixels: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Option<Tensor<B, 1>>,
) -> (Tensor<B, 3>, [usize; 2]) {
    let [batch, channels, height, width] = pixels.dims();
    let [hidden, _, patch, _] = weight.dims();
    let (rows, columns) = (height / patch, width / patch);
    // A matrix product: the convolution does not use that the patches are disjoint.
    let patches = pixels
        .cast(weight.dtype())
        .reshape([batch, channels, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch * rows * columns, channels * patch * patch]);
    let weight = weight.reshape([hidden, channels * patch * patch]);
    let dtype = weight.dtype();
    let states = product(patches, weight.transpose());
    let of_sums = states.dtype();
    let states = match bias {
        Some(bias) => states + bias.cast(of_sums).unsqueeze::<2>(),
        None => states,
    };
    let states = states.cast(dtype);
    (states.reshape([batch, rows * columns, hidden]), [rows, columns])
}

/// Position embeddings of the class token and of a grid of patches, interpolated where the grid is
/// not the one that they were made for: bicubic, as `interpolate_pos_encoding` of transformers.
///
/// # Shapes
///
/// - `table`: `[1 + side * side, hidden]`
/// - output: `[1 + rows * columns, hidden]`
pub fn positions_for<B: Backend>(table: Tensor<B, 2>, [rows, columns]: [usize; 2]) -> Tensor<B, 2> {
    let [count, hidden] = table.dims();
    let side = (count - 1).isqrt();
    if [rows, columns] == [side, side] {
        return table;
    }
    // In 32 bits: sums of products that nearly cancel.
    let (device, dtype) = (table.device(), table.dtype());
    let table = table.cast(DType::F32);
    let weights = |to: usize| {
        let data = TensorData::new(cubic_weights(side, to), [to, side]);
        Tensor::<B, 2>::from_data(data, (&device, DType::F32))
    };
    let class = table.clone().narrow(0, 0, 1);
    let grid = table.clone().narrow(0, 1, side * side).reshape([side, side * hidden]);
    let grid = weights(rows).matmul(grid).reshape([rows, side, hidden]).swap_dims(0, 1);
    let grid = weights(columns).matmul(grid.reshape([side, rows * hidden]));
    let grid = grid.reshape([columns, rows, hidden]).swap_dims(0, 1);
    Tensor::cat(vec![class, grid.reshape([rows * columns, hidden])], 0).cast(dtype)
}

/// The weights `[to, from]` of Keys' cubic with a = -0.75, borders repeated, corners not aligned and
/// nothing smoothed when it shrinks: PyTorch's `interpolate(mode="bicubic")`.
fn cubic_weights(from: usize, to: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let cubic = |x: f64| {
        let x = x.abs();
        if x <= 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            (((x - 5.0) * x + 8.0) * x - 4.0) * A
        } else {
            0.0
        }
    };
    let mut weights = vec![0.0; to * from];
    for (index, row) in weights.chunks_exact_mut(from).enumerate() {
        let at = (index as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        for tap in -1..=2 {
            let source = at.floor() + f64::from(tap);
            let clamped = source.clamp(0.0, (from - 1) as f64) as usize;
            row[clamped] += cubic(at - source) as f32;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_row_sum_to_one_and_the_same_size_is_the_identity() {
        for (from, to) in [(4, 4), (7, 12), (14, 24), (3, 2), (1, 5)] {
            let weights = cubic_weights(from, to);
            for (index, row) in weights.chunks_exact(from).enumerate() {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{from} to {to}: {index}");
                if from == to {
                    assert!((row[index] - 1.0).abs() < 1e-6);
                }
            }
        }
    }
}

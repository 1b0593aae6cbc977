use std::ops::Range;

use burn::nn::Linear;
use burn::prelude::*;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::activation;
use super::flex::{self, FlexOperation};
use super::matrix::{self, Matrix};
use super::parts::write_parts;
use super::product::{self, Packed, ROWS, Start};
use super::vector::widest;
use crate::layers::Activation;

/// A linear layer over the last dimension, `x w + b`, as one matrix product.
///
/// burn's own, given more than two dimensions, multiplies in batches, and its backward pass then
/// makes a gradient of the weight for each before it sums them.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
pub fn linear<B: Backend, const D: usize>(layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
    over_rows(layer, input, |rows| fast(layer, None, &rows).unwrap_or_else(|| layer.forward(rows)))
}

/// [`linear`] followed by an activation; where nothing is learnt, in one pass.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
pub fn linear_activated<B: Backend, const D: usize>(
    layer: &Linear<B>,
    activation: Activation,
    input: Tensor<B, D>,
) -> Tensor<B, D> {
    // The backward pass needs what the activation was given.
    if B::ad_enabled(&input.device()) {
        return activation.forward(linear(layer, input));
    }
    over_rows(layer, input, |rows| {
        fast(layer, Some(activation), &rows)
            .unwrap_or_else(|| activation.forward(layer.forward(rows)))
    })
}

/// `function` of the rows, `[rows, in]` to `[rows, out]`, in the input's shape.
fn over_rows<B: Backend, const D: usize>(
    layer: &Linear<B>,
    input: Tensor<B, D>,
    function: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, D> {
    let mut dims = input.dims();
    let [channels_in, channels_out] = layer.weight.dims();
    dims[D - 1] = channels_out;
    function(input.reshape([-1, channels_in as i32])).reshape(dims)
}

/// The fast path's output where there is one.
fn fast<B: Backend>(
    layer: &Linear<B>,
    activation: Option<Activation>,
    rows: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    let product = Product { activation };
    let (rows, weight) = (flex::primitive(rows), flex::primitive(&layer.weight.val()));
    match &layer.bias {
        Some(bias) => flex::apply(product, [rows, weight, flex::primitive(&bias.val())]),
        None => flex::apply(product, [rows, weight]),
    }
}

/// Rows up to which the right factor is read where it lies: packing it would cost more than the
/// product.
const FEW_ROWS: usize = 4;

/// `input * weight`, with a bias where there is a third tensor.
#[derive(Clone, Debug)]
struct Product {
    /// Of the output; only where there is no backward pass.
    activation: Option<Activation>,
}

impl Product {
    fn product(
        &self,
        input: &FlexTensor,
        weight: &FlexTensor,
        bias: Option<&FlexTensor>,
    ) -> FlexTensor {
        let start = bias.map_or(Start::Zero, |bias| Start::Row(flex::values(bias)));
        let [input, weight] = [input, weight].map(flex::matrix);
        let dims = [input.rows(), weight.columns()];
        flex::tensor(multiply(input, weight, start, self.activation), dims)
    }

    /// The gradients of the input and of the weight.
    fn gradients(
        input: &FlexTensor,
        weight: &FlexTensor,
        gradient: &FlexTensor,
        [wants_input, wants_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [input, weight, gradient] = [input, weight, gradient].map(flex::matrix);
        let product = |left: Matrix<'_>, right: Matrix<'_>| {
            flex::tensor(multiply(left, right, Start::Zero, None), [left.rows(), right.columns()])
        };
        [
            wants_input.then(|| product(gradient, weight.transpose())),
            wants_weight.then(|| product(input.transpose(), gradient)),
        ]
    }
}

impl FlexOperation<2> for Product {
    const MAY_BE_TRANSPOSED: Option<usize> = Some(1);

    fn forward(&self, [input, weight]: [&FlexTensor; 2]) -> FlexTensor {
        self.product(input, weight, None)
    }

    fn backward(
        &self,
        [input, weight]: [&FlexTensor; 2],
        gradient: &FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        Self::gradients(input, weight, gradient, wanted)
    }
}

impl FlexOperation<3> for Product {
    const MAY_BE_TRANSPOSED: Option<usize> = Some(1);

    fn forward(&self, [input, weight, bias]: [&FlexTensor; 3]) -> FlexTensor {
        self.product(input, weight, Some(bias))
    }

    fn backward(
        &self,
        [input, weight, bias]: [&FlexTensor; 3],
        gradient: &FlexTensor,
        [wants_input, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let wanted = [wants_input, wants_weight];
        let [input, weight] = Self::gradients(input, weight, gradient, wanted);
        let bias = wants_bias.then(|| {
            let dims = flex::dims::<1>(bias);
            flex::tensor(sum_of_rows(flex::values(gradient), dims[0]), dims)
        });
        [input, weight, bias]
    }
}

/// The activation of `left * right + start`, on all threads.
fn multiply(
    left: Matrix<'_>,
    right: Matrix<'_>,
    start: Start<'_>,
    activation: Option<Activation>,
) -> Vec<f32> {
    let activate = |output: &mut [f32]| {
        if let Some(activation) = activation {
            activation::in_place(activation, output);
        }
    };
    let (rows, columns) = (left.rows(), right.columns());
    if rows <= FEW_ROWS {
        let mut output = vec![0.0; rows * columns];
        if let Start::Row(row) = start {
            output.chunks_exact_mut(columns).for_each(|output| output.copy_from_slice(row));
        }
        matrix::multiply(&mut output, columns, true, 1.0, left, right);
        activate(&mut output);
        return output;
    }
    let right = Packed::new(right);
    let shares: Vec<Range<usize>> = shares(rows).collect();
    let lengths = shares.iter().map(|share| share.len() * columns);
    write_parts(lengths, Vec::new, |room, share, output| {
        let left = left.narrow(shares[share].clone());
        for block in right.column_blocks() {
            for depth in product::blocks(left.columns()) {
                let start = if depth.start == 0 { start } else { Start::Output };
                let left = left.rows_of_block(depth.clone(), room);
                product::multiply(output, columns, start, &left, &right, block.clone(), depth);
            }
        }
        activate(output);
    })
}

/// Rows divided into equal shares of at most some [`ROWS`], a multiple of the number of threads.
fn shares(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let threads = rayon::current_num_threads();
    let tiles = rows.div_ceil(product::TILE);
    let count = (threads * rows.div_ceil(threads * ROWS)).min(tiles);
    let bound = move |share: usize| (share * tiles / count * product::TILE).min(rows);
    (0..count).map(move |share| bound(share)..bound(share + 1))
}

/// Columns that one thread sums.
const STRIPE: usize = 128;

/// The sum of all rows, each of `columns` numbers.
fn sum_of_rows(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    sums.par_chunks_mut(STRIPE).enumerate().for_each(|(stripe, sums)| {
        widest(
            #[inline(always)]
            || {
                for row in values.chunks_exact(columns) {
                    for (sum, value) in sums.iter_mut().zip(&row[stripe * STRIPE..]) {
                        *sum += value;
                    }
                }
            },
        );
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        // Rows, columns and depths of one tile, of several, and that divide nothing.
        for (rows, depth, columns) in
            [(1, 5, 3), (4, 64, 40), (7, 3, 1), (101, 330, 59), (250, 16, 49)]
        {
            assert_same(
                [&[rows, depth], &[depth, columns], &[columns]],
                |[x, w, b]| {
                    let layer = layer(w.reshape([depth, columns]), Some(b));
                    linear(&layer, x.reshape([1, rows, depth]))
                },
                |[x, w, b]| {
                    let product = x.reshape([rows, depth]).matmul(w.reshape([depth, columns]));
                    (product + b.reshape([1, columns])).unsqueeze::<3>()
                },
            );
            assert_same(
                [&[rows, depth], &[columns, depth], &[columns]],
                |[x, w, b]| {
                    let layer = layer(w.reshape([columns, depth]).transpose(), Some(b));
                    linear(&layer, x.reshape([rows, depth]))
                },
                |[x, w, b]| {
                    let weight = w.reshape([columns, depth]).transpose();
                    x.reshape([rows, depth]).matmul(weight) + b.reshape([1, columns])
                },
            );
            assert_same(
                [&[rows, depth], &[depth, columns]],
                |[x, w]| {
                    linear(&layer(w.reshape([depth, columns]), None), x.reshape([rows, depth]))
                },
                |[x, w]| x.reshape([rows, depth]).matmul(w.reshape([depth, columns])),
            );
        }
    }

    #[test]
    fn an_activation_in_the_same_pass_is_as_one_after_it() {
        let device = Default::default();
        for rows in [2, 31] {
            let layer = burn::nn::LinearConfig::new(20, 33).init::<burn::backend::Flex>(&device);
            let range = burn::tensor::Distribution::Default;
            let input = Tensor::<_, 2>::random([rows, 20], range, &device);
            for activation in [Activation::Gelu, Activation::Relu, Activation::QuickGelu] {
                let fused = linear_activated(&layer, activation, input.clone());
                let apart = activation.forward(linear(&layer, input.clone()));
                fused.into_data().assert_eq(&apart.into_data(), true);
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
            assert!(shares.iter().all(|share| !share.is_empty() && share.len() < 2 * ROWS));
        }
    }

    fn layer<B: Backend>(weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Linear<B> {
        // Parameters of a gradient's own would cut the gradient.
        let param = |id| burn::module::ParamId::from(id);
        Linear {
            weight: burn::module::Param::initialized(param(0), weight),
            bias: bias.map(|bias| burn::module::Param::initialized(param(1), bias)),
        }
    }
}

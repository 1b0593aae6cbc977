use burn::nn::Linear;
use burn::prelude::*;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::activation;
use super::cuda;
use super::flex::{self, FlexOperation};
use super::geglu::{gate, gate_rows, geglu};
use super::matrix::Matrix;
use super::multiply::{self, FEW_ROWS, multiply};
use super::packed::Packed;
use super::product::{multiply_rows, write_rows};
use super::vector::widest;
use crate::layers::Activation;
use crate::precision::is_mixed;

/// A linear layer over the last dimension, `x w + b`, as one matrix product.
///
/// burn's own, given more than two dimensions, multiplies in batches, and its backward pass then
/// makes a gradient of the weight for each before it sums them.
///
/// # Shapes
/// - input: `[.., in]`
/// - output: `[.., out]`
pub fn linear<B: Backend, const D: usize>(layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
    let on_card = on_card(layer, &input, Then::Activate(None), None);
    on_card.or_else(|| mixed(layer, &input, None)).unwrap_or_else(|| {
        over_rows(input, |rows| {
            fast(layer, Then::Activate(None), &rows).unwrap_or_else(|| layer.forward(rows))
        })
    })
}

/// [`linear`] of few rows, which burn's own serves as well where no card does.
///
/// # Shapes
/// - input: `[rows, in]`
/// - output: `[rows, out]`
pub(crate) fn linear_of_few<B: Backend>(layer: &Linear<B>, input: Tensor<B, 2>) -> Tensor<B, 2> {
    let on_card = on_card(layer, &input, Then::Activate(None), None);
    on_card.or_else(|| mixed(layer, &input, None)).unwrap_or_else(|| layer.forward(input))
}

/// [`linear`] added to what is already there; on a card in one pass.
///
/// # Shapes
/// - input: `[.., in]`
/// - residual and output: `[.., out]`
pub fn linear_onto<B: Backend, const D: usize>(
    layer: &Linear<B>,
    input: Tensor<B, D>,
    residual: Tensor<B, D>,
) -> Tensor<B, D> {
    on_card(layer, &input, Then::Activate(None), Some(&residual))
        .unwrap_or_else(|| linear(layer, input) + residual)
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
    if let Some(output) = mixed(layer, &input, Some(activation)) {
        return output;
    }
    // The backward pass needs what the activation was given.
    if B::ad_enabled(&input.device()) {
        return activation.forward(linear(layer, input));
    }
    let then = Then::Activate(Some(activation));
    on_card(layer, &input, then, None).unwrap_or_else(|| {
        over_rows(input, |rows| {
            fast(layer, then, &rows).unwrap_or_else(|| activation.forward(layer.forward(rows)))
        })
    })
}

/// [`linear`] followed by [`geglu`]; where nothing is learnt, in one pass, so that what is twice as wide
/// as the output never exists at once.
///
/// # Shapes
/// - input: `[.., in]`
/// - weight: `[in, 2 * out]`
/// - output: `[.., out]`
pub fn linear_geglu<B: Backend, const D: usize>(
    layer: &Linear<B>,
    input: Tensor<B, D>,
) -> Tensor<B, D> {
    let apart = |rows| geglu(linear(layer, rows).unsqueeze::<3>()).squeeze_dim(0);
    // The backward pass needs what was gated.
    let learns = B::ad_enabled(&input.device());
    if let Some(output) = on_card(layer, &input, Then::Gate, None) {
        return output;
    }
    over_rows(input, |rows| match learns {
        true => apart(rows),
        false => fast(layer, Then::Gate, &rows).unwrap_or_else(|| apart(rows)),
    })
}

/// A product of matrices. Of 16 bits on a card it has 32: its sums are not rounded.
///
/// # Shapes
/// - left: `[m, k]`
/// - right: `[k, n]`
/// - output: `[m, n]`
pub(crate) fn product<B: Backend>(left: Tensor<B, 2>, right: Tensor<B, 2>) -> Tensor<B, 2> {
    if cuda::is_cuda::<B>()
        && let Some(product) = cuda::product(&left.clone().unsqueeze(), &right.clone().unsqueeze())
    {
        return product.squeeze_dim(0);
    }
    left.matmul(right)
}

/// `function` of the rows, `[rows, in]` to `[rows, out]`, in the input's shape.
fn over_rows<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    function: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, D> {
    let mut dims = input.dims();
    let output = function(input.reshape([-1, dims[D - 1] as i32]));
    dims[D - 1] = output.dims()[1];
    output.reshape(dims)
}

/// A card's output for 16-bit tensors.
fn on_card<B: Backend, const D: usize>(
    layer: &Linear<B>,
    input: &Tensor<B, D>,
    then: Then,
    residual: Option<&Tensor<B, D>>,
) -> Option<Tensor<B, D>> {
    if !cuda::is_cuda::<B>() {
        return None;
    }
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    cuda::linear(input, &layer.weight.val(), bias.as_ref(), then, residual)
}

/// A card's output for 32-bit tensors in mixed precision, where that is asked for.
fn mixed<B: Backend, const D: usize>(
    layer: &Linear<B>,
    input: &Tensor<B, D>,
    activation: Option<Activation>,
) -> Option<Tensor<B, D>> {
    if !is_mixed() {
        return None;
    }
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    cuda::learnt::linear(input, &layer.weight.val(), bias.as_ref(), activation)
}

/// The fast path's output where there is one.
fn fast<B: Backend>(layer: &Linear<B>, then: Then, rows: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()));
    let product = Product { then };
    let (rows, weight) = (flex::primitive(rows), flex::primitive(&weight));
    match bias {
        Some(bias) => flex::apply(product, [rows, weight, flex::primitive(&bias)]),
        None => flex::apply(product, [rows, weight]),
    }
}

/// `input * weight`, with a bias where there is a third tensor.
#[derive(Clone, Debug)]
struct Product {
    then: Then,
}

/// What follows in the same pass; nothing does where there is a backward pass.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Activate(Option<Activation>),
    /// The first half of the columns times gelu of the second.
    Gate,
}

impl Product {
    fn product(
        &self,
        input: &FlexTensor,
        weight: &FlexTensor,
        bias: Option<&FlexTensor>,
    ) -> FlexTensor {
        let bias = bias.map(flex::values);
        let [input, weight] = [input, weight].map(flex::matrix);
        let (rows, columns) = (input.rows(), weight.columns());
        match self.then {
            Then::Gate => flex::tensor(multiply_gated(input, weight, bias), [rows, columns / 2]),
            Then::Activate(activation) => {
                let activate = |output: &mut [f32]| {
                    if let Some(activation) = activation {
                        activation::in_place(activation, output);
                    }
                };
                flex::tensor(multiply(input, weight, bias, activate), [rows, columns])
            }
        }
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
            let dims = [left.rows(), right.columns()];
            flex::tensor(multiply(left, right, None, |_| ()), dims)
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

/// The first half of the columns of `left * right + bias` times gelu of the second, on all threads.
fn multiply_gated(left: Matrix<'_>, right: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let width = right.columns() / 2;
    if left.rows() <= FEW_ROWS {
        return gate_rows(&multiply::few_rows(left, right, bias), width);
    }
    let half = |columns| Packed::new(right.transpose().narrow(columns).transpose());
    let (values, gates) = (half(0..width), half(width..2 * width));
    let (bias, gate_bias) = bias.map(|bias| bias.split_at(width)).unzip();
    let rooms = || [const { Vec::new() }; 2];
    multiply::by_rows(left, width, rooms, |[room, gated], left, output| {
        gated.resize(output.len(), 0.0);
        let output = write_rows(output, multiply::start(bias), left, &values, room);
        multiply_rows(gated, width, multiply::start(gate_bias), left, &gates, room);
        gate(output, gated);
        output
    })
}

/// Columns that one thread sums.
const STRIPE: usize = 128;

/// The sum of all rows, each of `columns` numbers.
fn sum_of_rows(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    sums.par_chunks_mut(STRIPE).enumerate().for_each(|(stripe, sums)| {
        widest!({
            for row in values.chunks_exact(columns) {
                for (sum, value) in sums.iter_mut().zip(&row[stripe * STRIPE..]) {
                    *sum += value;
                }
            }
        });
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
    fn a_gate_in_the_same_pass_is_as_one_after_it() {
        let device = Default::default();
        for (rows, bias) in [(2, true), (31, true), (31, false)] {
            let config = burn::nn::LinearConfig::new(20, 66).with_bias(bias);
            let layer = config.init::<burn::backend::Flex>(&device);
            let range = burn::tensor::Distribution::Default;
            let input = Tensor::<_, 3>::random([1, rows, 20], range, &device);
            let fused = linear_geglu(&layer, input.clone());
            fused.into_data().assert_eq(&geglu(linear(&layer, input)).into_data(), true);
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

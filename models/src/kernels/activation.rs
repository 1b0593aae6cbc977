use burn::prelude::*;
use burn::tensor::activation::{gelu, relu, sigmoid, silu};
use burn_flex::FlexTensor;

use super::cuda;
use super::flex::{self, FlexOperation};
use super::parts::write_pieces;
use super::vector::{self, normal, widest};
use crate::layers::Activation;

/// An activation function of each number.
///
/// # Shapes
/// - input and output: any
pub fn activate<B: Backend, const D: usize>(
    activation: Activation,
    input: Tensor<B, D>,
) -> Tensor<B, D> {
    let dims = input.dims();
    let flat = input.reshape([-1]);
    flex::apply(Elementwise { activation }, [flex::primitive(&flat)])
        .or_else(|| cuda::learnt::activate(activation, &flat))
        .unwrap_or_else(|| plain(activation, flat))
        .reshape(dims)
}

fn plain<B: Backend>(activation: Activation, x: Tensor<B, 1>) -> Tensor<B, 1> {
    match activation {
        Activation::Gelu => gelu(x),
        Activation::GeluNew => {
            // 0.5 x (1 + tanh u) = x σ(2u), u = √(2/π) (x + 0.044715 x³); burn's own takes the cube
            // by a general power, which is several times slower.
            let double_u = (x.clone() * x.clone() * CUBIC + 1.0) * x.clone() * DOUBLE_ROOT;
            x * sigmoid(double_u)
        }
        Activation::QuickGelu => x.clone() * sigmoid(x * QUICK),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

/// The factor of the cube in GELU's approximation by tanh (Hendrycks and Gimpel 2016).
const CUBIC: f32 = 0.044_715;
/// 2 √(2/π), of the same.
const DOUBLE_ROOT: f32 = 1.595_769;
/// The factor in GELU's approximation by the logistic function (of the same).
const QUICK: f32 = 1.702;

#[derive(Clone, Debug)]
struct Elementwise {
    activation: Activation,
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Replaces each number by the function's value, on one thread.
pub(super) fn in_place(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => each(values, |x| x * normal(x).0),
        Activation::GeluNew => {
            each(values, |x| x * vector::sigmoid((x * x * CUBIC + 1.0) * x * DOUBLE_ROOT))
        }
        Activation::QuickGelu => each(values, |x| x * vector::sigmoid(x * QUICK)),
        Activation::Relu => each(values, |x| if x > 0.0 { x } else { 0.0 }),
        Activation::Silu => each(values, |x| x * vector::sigmoid(x)),
    }
}

#[inline(always)]
fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
    widest!({
        for value in values {
            *value = function(*value);
        }
    });
}

impl Elementwise {
    /// Writes what `value` makes of each number of the input and of the gradient.
    #[inline(always)]
    fn write(
        input: &[f32],
        gradient: &[f32],
        dims: [usize; 1],
        value: impl Fn(f32, f32) -> f32 + Sync,
    ) -> FlexTensor {
        let output = write_pieces(input.len(), CHUNK, |index, output| {
            let range = index * CHUNK..index * CHUNK + output.len();
            let numbers = input[range.clone()].iter().zip(&gradient[range]);
            widest!(output.collected(numbers.map(|(&x, &slope)| value(x, slope))))
        });
        flex::tensor(output, dims)
    }
}

impl FlexOperation<1> for Elementwise {
    fn forward(&self, [input]: [&FlexTensor; 1]) -> FlexTensor {
        let values = flex::values(input);
        let output = write_pieces(values.len(), CHUNK, |index, output| {
            let values = &values[index * CHUNK..][..output.len()];
            let output = output.copied(values);
            in_place(self.activation, output);
            output
        });
        flex::tensor(output, flex::dims::<1>(input))
    }

    fn backward(
        &self,
        [input]: [&FlexTensor; 1],
        gradient: &FlexTensor,
        _wanted: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let (x, dims) = (flex::values(input), flex::dims(input));
        let slope = flex::values(gradient);
        // The derivative of x σ(u), where u has the derivative v.
        let logistic = |x: f32, u: f32, v: f32| {
            let sigmoid = vector::sigmoid(u);
            sigmoid * (1.0 + x * v * (1.0 - sigmoid))
        };
        let output = match self.activation {
            Activation::Gelu => Self::write(x, slope, dims, |x, slope| {
                let (phi, density) = normal(x);
                slope * (phi + x * density)
            }),
            Activation::GeluNew => Self::write(x, slope, dims, |x, slope| {
                let square = x * x * CUBIC;
                let u = (square + 1.0) * x * DOUBLE_ROOT;
                slope * logistic(x, u, (3.0 * square + 1.0) * DOUBLE_ROOT)
            }),
            Activation::QuickGelu => {
                Self::write(x, slope, dims, |x, slope| slope * logistic(x, x * QUICK, QUICK))
            }
            Activation::Relu => {
                Self::write(x, slope, dims, |x, slope| if x > 0.0 { slope } else { 0.0 })
            }
            Activation::Silu => Self::write(x, slope, dims, |x, slope| slope * logistic(x, x, 1.0)),
        };
        [Some(output)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_plain_one_with_its_gradients() {
        for activation in [
            Activation::Gelu,
            Activation::GeluNew,
            Activation::QuickGelu,
            Activation::Relu,
            Activation::Silu,
        ] {
            assert_same(
                [&[CHUNK + 21]],
                |[x]| activate(activation, x * 2.0),
                |[x]| plain(activation, x * 2.0),
            );
        }
    }
}

mod backward;
mod sizes;
mod winograd;

use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn_flex::FlexTensor;

use self::sizes::{Sizes, geometry};
use super::cuda;
use super::flex::{self, FlexOperation};
use crate::blocks::Stride;
use crate::precision::is_mixed;

/// A 3x3 convolution over channels-last pictures.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[1, out]`, or `[b, out]` for one a sample
/// - output: `[b, h', w', out]`
pub fn conv3x3<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 2>,
    stride: Stride,
) -> Tensor<B, 4> {
    if let Some(output) = cuda::conv3x3(&input, &weight, &bias, None, geometry(stride)) {
        return output;
    }
    if is_mixed()
        && let Some(output) = cuda::learnt::conv3x3(&input, &weight, &bias, geometry(stride))
    {
        return output;
    }
    let inputs = [flex::primitive(&input), flex::primitive(&weight), flex::primitive(&bias)];
    flex::apply(Convolution { stride }, inputs)
        .unwrap_or_else(|| plain(input, weight, bias, stride))
}

/// [`conv3x3`] of stride 1 added to what is already there; on a card in one pass.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[1, out]`, or `[b, out]` for one a sample
/// - residual and output: `[b, h, w, out]`
pub fn conv3x3_onto<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 2>,
    residual: Tensor<B, 4>,
) -> Tensor<B, 4> {
    cuda::conv3x3(&input, &weight, &bias, Some(&residual), geometry(Stride::One))
        .unwrap_or_else(|| residual + conv3x3(input, weight, bias, Stride::One))
}

/// A convolution's weight as a card reads it where it lies, `[out, 3, 3, in]` in memory; on other backends, and
/// any other parameter, as it is.
pub(crate) fn laid_out<B: Backend, const D: usize>(weight: Tensor<B, D>) -> Tensor<B, D> {
    let [out, channels, 3, 3] = weight.dims()[..] else { return weight };
    if !cuda::is_cuda::<B>() || !matches!(weight.dtype(), DType::BF16 | DType::F16) {
        return weight;
    }
    let four = |sizes: [usize; 4]| std::array::from_fn::<_, D, _>(|i| sizes[i]);
    let axes = |axes| four(axes).map(|axis| axis as isize);
    // Through one dimension: a tensor of several may get gaps between its rows.
    let numbers: Tensor<B, 1> = weight.permute(axes([0, 2, 3, 1])).reshape([-1]);
    numbers.reshape(four([out, 3, 3, channels])).permute(axes([0, 3, 1, 2]))
}

fn plain<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 2>,
    stride: Stride,
) -> Tensor<B, 4> {
    let (step, before) = geometry(stride);
    let input = input.permute([0, 3, 1, 2]);
    let input = if before == 0 { padded_after(input) } else { input };
    let options = ConvOptions::new([step; 2], [before; 2], [1; 2], 1);
    let output = conv2d(input, weight, None, options);
    let [rows, channels] = bias.dims();
    output.permute([0, 2, 3, 1]) + bias.reshape([rows, 1, 1, channels])
}

/// A line of zeros below and one on the right, of the pictures' type: those that burn 0.21 pads with have
/// 32 bits.
///
/// # Shapes
/// - input: `[b, c, h, w]`
/// - output: `[b, c, h + 1, w + 1]`
fn padded_after<B: Backend>(input: Tensor<B, 4>) -> Tensor<B, 4> {
    let [b, c, h, w] = input.dims();
    let options = (&input.device(), input.dtype());
    let zeros = |shape: [usize; 4]| Tensor::zeros(shape, options);
    let (below, right) = (zeros([b, c, 1, w]), zeros([b, c, h + 1, 1]));
    Tensor::cat(vec![Tensor::cat(vec![input, below], 2), right], 3)
}

/// The convolution as matrix products: the nine input pixels of each output pixel are a row of
/// `9 * in` numbers, and those rows multiply a `[9 * in, out]` matrix.
#[derive(Clone, Debug)]
struct Convolution {
    stride: Stride,
}

impl FlexOperation<3> for Convolution {
    fn forward(&self, [input, weight, bias]: [&FlexTensor; 3]) -> FlexTensor {
        let sizes = Sizes::new(self.stride, input, weight);
        let [b, ..] = flex::dims::<4>(input);
        let out = sizes.channels_out;
        let shared = flex::dims::<2>(bias)[0] == 1;
        let bias = flex::values(bias);
        let bias = |sample| &bias[if shared { 0 } else { sample * out }..][..out];
        let (input, weight) = (flex::values(input), flex::values(weight));
        let output = if winograd::pays(&sizes, b) {
            winograd::convolve_all(&sizes, input, &winograd::factor(&sizes, weight), bias)
        } else {
            sizes.convolve_all(input, &sizes.packed(weight), bias)
        };
        flex::tensor(output, [b, sizes.out_h, sizes.out_w, out])
    }

    fn backward(
        &self,
        [input, weight, bias]: [&FlexTensor; 3],
        gradient: &FlexTensor,
        [wants_input, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let sizes = Sizes::new(self.stride, input, weight);
        let gradient = flex::values(gradient);
        [
            wants_input.then(|| {
                let weight = flex::values(weight);
                let values = match self.stride {
                    Stride::One => backward::to_input(&sizes, weight, gradient),
                    Stride::Two | Stride::TwoPaddedAfter => {
                        backward::to_strided_input(&sizes, weight, gradient)
                    }
                };
                flex::tensor(values, flex::dims::<4>(input))
            }),
            wants_weight.then(|| {
                let values = backward::to_weight(&sizes, flex::values(input), gradient);
                flex::tensor(values, flex::dims::<4>(weight))
            }),
            wants_bias.then(|| {
                let dims = flex::dims::<2>(bias);
                flex::tensor(backward::to_bias(&sizes, gradient, dims[0]), dims)
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::tests::assert_same;

    #[test]
    fn the_fast_path_equals_the_convolution_of_burn_with_its_gradients() {
        // 3x40x24 pixels take several parts of gathered lines; 33x31 of 33 channels Winograd's form.
        for (b, h, w, channels_in, channels_out) in
            [(11, 6, 4, 3, 5), (3, 40, 24, 12, 2), (2, 33, 31, 33, 35), (65, 4, 4, 40, 32)]
        {
            for stride in [Stride::One, Stride::Two, Stride::TwoPaddedAfter] {
                for bias_rows in [1, b] {
                    let function = |convolve: fn(_, _, _, _) -> _| {
                        move |[x, weight, bias]: [Tensor<_, 1>; 3]| {
                            let x = x.reshape([b, h, w, channels_in]);
                            let weight = weight.reshape([channels_out, channels_in, 3, 3]);
                            let bias = bias.reshape([bias_rows, channels_out]);
                            convolve(x, weight, bias, stride)
                        }
                    };
                    assert_same(
                        [
                            &[b, h, w, channels_in],
                            &[channels_out, channels_in, 3, 3],
                            &[bias_rows, channels_out],
                        ],
                        function(conv3x3),
                        function(plain),
                    );
                }
            }
        }
    }
}

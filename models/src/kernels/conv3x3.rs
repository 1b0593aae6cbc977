use burn::prelude::*;

use crate::blocks::Stride;

/// A 3x3 convolution over channels-last pictures.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[out]`
/// - output: `[b, h', w', out]`
pub fn conv3x3<B: Backend>(
    input: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    stride: Stride,
) -> Tensor<B, 4> {
    let [b, h, w, channels_in] = input.dims();
    let channels_out = weight.dims()[0];
    let (before, step) = match stride {
        Stride::One => (1, 1),
        Stride::Two => (1, 2),
        Stride::TwoPaddedAfter => (0, 2),
    };
    let padded = input.pad([(before, 1), (before, 1), (0, 0)], 0.0);
    let (out_h, out_w) = ((h + before + 1 - 3) / step + 1, (w + before + 1 - 3) / step + 1);

    let mut taps = Vec::with_capacity(9);
    for row in 0..3 {
        for column in 0..3 {
            let rows = s![row..row + step * (out_h - 1) + 1;step as isize];
            let columns = s![column..column + step * (out_w - 1) + 1;step as isize];
            taps.push(padded.clone().slice_dim(1, rows).slice_dim(2, columns));
        }
    }
    let gathered = Tensor::cat(taps, 3).reshape([b * out_h * out_w, 9 * channels_in]);
    let weight = weight.permute([2, 3, 1, 0]).reshape([9 * channels_in, channels_out]);
    burn::tensor::module::linear(gathered, weight, Some(bias)).reshape([
        b,
        out_h,
        out_w,
        channels_out,
    ])
}

use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{CONV3X3, Info, added, chunk, each, rounded, rounded_with_sums};
use super::{
    CudaTensor, Deferred, FACTOR, Launches, Learnt, apply, defer, dims, empty, exactly, placed,
};
use crate::kernels::cuda::gemm::{Batches, Left, Pictures, Product};
use crate::kernels::cuda::layout::{self, MatrixLayout, contiguous};
use crate::kernels::flex::primitive;
use crate::kernels::linear::Then;

/// A 3x3 convolution over channels-last pictures, in mixed precision.
///
/// # Shapes
/// - input: `[b, h, w, in]`
/// - weight: `[out, in, 3, 3]`
/// - bias: `[1 or b, out]`
/// - output: `[b, h', w', out]`
/// - step, before: the stride, and the zeros before each side; after each there is one
pub(in crate::kernels) fn conv3x3<B: Backend>(
    input: &Tensor<B, 4>,
    weight: &Tensor<B, 4>,
    bias: &Tensor<B, 2>,
    (step, before): (usize, usize),
) -> Option<Tensor<B, 4>> {
    let ([b, h, w, channels], [out, ..]) = (input.dims(), weight.dims());
    let [biases, width] = bias.dims();
    if weight.dims() != [out, channels, 3, 3] || width != out || ![1, b].contains(&biases) {
        return None;
    }
    // Sums of a picture's own are parts of a grid.
    if h + before < 2 || w + before < 2 || b > u16::MAX as usize {
        return None;
    }
    let inputs = [primitive(input), primitive(weight), primitive(bias)];
    apply(Convolution { step, before }, inputs)
}

#[derive(Clone, Debug)]
struct Convolution {
    step: usize,
    before: usize,
}

impl Convolution {
    /// Lines or columns of the output.
    fn side(&self, side: usize) -> usize {
        (side + self.before - 2) / self.step + 1
    }
}

impl Learnt for Convolution {
    fn forward(&self, mut inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let [b, h, w, channels] = dims(&inputs[0]);
        let [out, ..] = dims::<4>(&inputs[1]);
        let outputs = vec![
            (Shape::new([b, self.side(h), self.side(w), out]), DType::F32),
            (Shape::new([b, h, w, channels]), FACTOR),
            (Shape::new([out, 3, 3, channels]), FACTOR),
        ];
        let [output, input, weight] = exactly(defer(self.clone(), inputs.clone(), outputs));
        let bias = inputs.remove(2);
        // Of the bias only its shape is needed.
        (output, vec![input, weight, bias])
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let [out, _, _, channels] = dims(&kept[1]);
        let bias = kept.pop().expect("the bias is the last one").shape.clone();
        let [biases, _] = bias.dims();
        let shapes = [kept[0].shape.clone(), Shape::new([out, channels, 3, 3]), bias];
        kept.push(gradient);
        let asked = shapes.into_iter().zip(wanted).filter(|(_, wanted)| **wanted);
        let outputs = asked.map(|(shape, _)| (shape, DType::F32)).collect();
        let backward = Backward { of: self.clone(), biases, wanted: exactly(wanted.to_vec()) };
        placed(wanted, defer(backward, kept, outputs))
    }
}

impl Launches for Convolution {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, weight, bias] = exactly(inputs).map(contiguous);
        let [out, channels, ..] = layout::dims::<4>(&weight);
        let ([b, h, w, _], [biases, _]) = (layout::dims(&input), layout::dims(&bias));
        let (out_h, out_w) = (self.side(h), self.side(w));
        let input = rounded(&input);
        let taps = empty(&weight, Shape::new([out, 3, 3, channels]), FACTOR);
        let info = Info { c: channels, count: out * 9 * channels, ..Info::default() };
        each((&CONV3X3, "round_taps"), None, &weight.client, &[&weight.handle, &taps.handle], info);
        let Self { step, before } = *self;
        let pictures = Pictures { h, w, channels, out_h, out_w, step, before };
        let bias = (&bias, if biases == 1 { 0 } else { out_h * out_w });
        let output = convolved(&input, pictures, &taps, Some(bias), [b, out_h, out_w, out]);
        vec![output, input, taps]
    }
}

/// The convolution of rounded pictures with `[out, 3, 3, in]` taps.
fn convolved(
    input: &CudaTensor,
    pictures: Pictures,
    taps: &CudaTensor,
    bias: Option<(&CudaTensor, usize)>,
    output: [usize; 4],
) -> CudaTensor {
    let ([b, h, w, out], k) = (output, 9 * pictures.channels);
    let product = Product {
        sizes: [b * h * w, out, k],
        left: (input, Left::Pictures(pictures)),
        right: (taps, MatrixLayout { by_columns: true, stride: k }),
        bias,
        then: Then::Activate(None),
        residual: None,
        batches: Batches::ONE,
    };
    product.launch_wide(Shape::new(output))
}

#[derive(Debug)]
struct Backward {
    of: Convolution,
    /// Rows of the bias.
    biases: usize,
    /// Input, weight, bias.
    wanted: [bool; 3],
}

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let [input, taps, gradient] = exactly(inputs).map(contiguous);
        let [b, h, w, channels] = layout::dims(&input);
        let [_, out_h, out_w, out] = layout::dims(&gradient);
        let rows = b * out_h * out_w;
        // Biases of a picture's own are the sums over its pixels.
        let chunk = if self.biases == 1 { chunk(rows) } else { out_h * out_w };
        let (gradient, sums) = rounded_with_sums(&gradient, None, [rows, out], chunk);
        let [wants_input, wants_weight, wants_bias] = self.wanted;
        let mut outputs = Vec::new();
        if wants_input {
            outputs.push(self.to_input(&gradient, &taps, [b, h, w, channels]));
        }
        if wants_weight {
            outputs.push(self.to_weight(&gradient, &input, [b, out_h, out_w, out]));
        }
        if wants_bias {
            outputs.push(match self.biases {
                1 => added(&sums, Shape::new([1, out])),
                _ => sums,
            });
        }
        outputs
    }
}

impl Backward {
    /// A convolution of the gradient, with zeros between its pixels where the stride is more than 1, with the
    /// taps turned by half a turn.
    fn to_input(
        &self,
        gradient: &CudaTensor,
        taps: &CudaTensor,
        sizes @ [b, h, w, channels]: [usize; 4],
    ) -> CudaTensor {
        let [_, out_h, out_w, out] = layout::dims(gradient);
        let Convolution { step, before } = self.of;
        let client = &gradient.client;
        let turned = empty(taps, Shape::new([channels, 3, 3, out]), FACTOR);
        let count = channels * 9 * out;
        let info = Info { rows: out, c: channels, count, ..Info::default() };
        each((&CONV3X3, "turn_taps"), None, client, &[&taps.handle, &turned.handle], info);
        let [wide_h, wide_w] = [out_h, out_w].map(|side| (side - 1) * step + 1);
        let spread = (step > 1).then(|| {
            let spread = empty(gradient, Shape::new([b, wide_h, wide_w, out]), FACTOR);
            let count = b * wide_h * wide_w * out;
            let pictures = [out_h, out_w, wide_h, wide_w, step, 0];
            let info = Info { c: out, count, pictures, ..Info::default() };
            each((&CONV3X3, "spread"), None, client, &[&gradient.handle, &spread.handle], info);
            spread
        });
        let pictures = Pictures {
            h: wide_h,
            w: wide_w,
            channels: out,
            out_h: h,
            out_w: w,
            step: 1,
            before: 2 - before,
        };
        convolved(spread.as_ref().unwrap_or(gradient), pictures, &turned, None, sizes)
    }

    /// A product of the gradient with the nine pixels that each of its pixels was computed from.
    fn to_weight(
        &self,
        gradient: &CudaTensor,
        input: &CudaTensor,
        [b, out_h, out_w, out]: [usize; 4],
    ) -> CudaTensor {
        let [_, h, w, channels] = layout::dims(input);
        let Convolution { step, before } = self.of;
        let (client, rows) = (&gradient.client, b * out_h * out_w);
        let pixels = empty(input, Shape::new([rows, 9 * channels]), FACTOR);
        let pictures = [h, w, out_h, out_w, step, before];
        let count = rows * 9 * channels;
        let info = Info { c: channels, count, pictures, ..Info::default() };
        each((&CONV3X3, "taps"), None, client, &[&input.handle, &pixels.handle], info);
        let product = Product {
            sizes: [out, 9 * channels, rows],
            left: (gradient, Left::Matrix(MatrixLayout { by_columns: true, stride: out })),
            right: (&pixels, MatrixLayout { by_columns: false, stride: 9 * channels }),
            bias: None,
            then: Then::Activate(None),
            residual: None,
            batches: Batches::ONE,
        };
        let slope = product.launch_wide(Shape::new([out, 9 * channels]));
        let output = empty(&slope, Shape::new([out, channels, 3, 3]), DType::F32);
        let info = Info { c: channels, count: out * 9 * channels, ..Info::default() };
        each((&CONV3X3, "taps_last"), None, client, &[&slope.handle, &output.handle], info);
        output
    }
}

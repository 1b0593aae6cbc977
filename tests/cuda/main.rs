//! Fast paths that a card alone takes, against the processor's. By hand, where there is one:
//!
//!     cargo test --release --features cuda --test cuda -- --ignored
//!
//! or, built elsewhere, through `scripts/gpu-check.sh tests` (TESTS=PROGRAM).
#![cfg(feature = "cuda")]

mod learnt;

use burn::backend::cuda::CudaDevice;
use burn::backend::{Cuda, Flex};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Distribution, Tensor, TensorData, backend::Backend};
use mi2rage_models::blocks::Stride;
use mi2rage_models::dropout::Dropout;
use mi2rage_models::kernels::{
    attention, conv3x3, conv3x3_onto, geglu, group_norm, layer_norm, linear, linear_activated,
    linear_geglu, linear_onto,
};
use mi2rage_models::layers::Activation;

/// Attention of the U-Net's sizes: heads of 40 and 64 channels, positions that fill no block.
#[test]
#[ignore = "needs a card"]
fn attention_of_many_positions_is_that_of_the_processor() {
    fn attend<B: Backend>(inputs: &[TensorData; 3], dtype: DType, device: &B::Device) -> Vec<f32> {
        let [query, key, value] =
            inputs.clone().map(|data| Tensor::<B, 3>::from_data(data, device).cast(dtype));
        let attended = attention(query, key, value, 5, None, &Dropout::new(0.0));
        attended.cast(DType::F32).into_data().to_vec().unwrap()
    }
    for (positions, channels) in [(1024, 200), (1024, 320), (1090, 200)] {
        let inputs = [(); 3].map(|()| {
            let range = Distribution::Uniform(-1.0, 1.0);
            Tensor::<Flex, 3>::random([2, positions, channels], range, &Default::default())
                .into_data()
        });
        let expected = attend::<Flex>(&inputs, DType::F32, &Default::default());
        // Outputs are means of numbers up to 1: the deviation of one is some hundredths. Tensor cores
        // round f32 to the 11 bits of tf32, and bf16 has 8.
        for (dtype, bound) in [(DType::F32, 2e-3), (DType::BF16, 1e-2)] {
            let found = attend::<Cuda>(&inputs, dtype, &CudaDevice::new(0));
            let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{positions} positions of {channels} channels, {dtype:?}: off by {gap:.1e}");
            assert!(gap < bound, "{positions} positions of {channels} channels: {gap}");
        }
    }
}

/// Numbers of -1 to 1 that a type has.
fn numbers<const D: usize>(shape: [usize; D], dtype: DType) -> TensorData {
    let range = Distribution::Uniform(-1.0, 1.0);
    let numbers = Tensor::<Flex, D>::random(shape, range, &Default::default());
    numbers.into_data().convert_dtype(dtype).convert_dtype(DType::F32)
}

fn tensor<B: Backend, const D: usize>(data: &TensorData, dtype: DType) -> Tensor<B, D> {
    Tensor::<B, D>::from_data(data.clone(), (&device::<B>(), DType::F32)).cast(dtype)
}

/// The first one.
fn device<B: Backend>() -> B::Device {
    Default::default()
}

/// What rounding a sum to bf16 changes before a number of -1 to 1 is added that may all but undo it.
const ONTO: f32 = 1.0 / 256.0;

/// An operation of a few tensors that are given as data.
trait Operation {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32>;

    /// Compares the card's output in `dtype` with the processor's in 32 bits, from the same numbers: they are
    /// rounded to `dtype` where they differ, and sums of 32 bits in another order by `absolute`.
    fn assert_same(&self, dtype: DType, absolute: f32, what: &str) {
        let (found, expected) = (self.output::<Cuda>(dtype), self.output::<Flex>(DType::F32));
        assert_eq!(found.len(), expected.len(), "{what}");
        let relative = if dtype == DType::BF16 { 1.0 / 128.0 } else { 1.0 / 1024.0 };
        let excess = |(a, b): (&f32, &f32)| ((a - b).abs() - relative * b.abs()).max(0.0);
        let worst = found.iter().zip(&expected).map(excess).fold(0.0, f32::max);
        println!("{what}, {dtype:?}: {worst:.1e} beyond rounding");
        assert!(
            found.iter().all(|x| x.is_finite()) && worst < absolute,
            "{what}, {dtype:?}: {worst}"
        );
    }
}

fn values<B: Backend, const D: usize>(output: Tensor<B, D>) -> Vec<f32> {
    output.cast(DType::F32).into_data().to_vec().unwrap()
}

struct Product {
    rows: TensorData,
    weight: TensorData,
    bias: Option<TensorData>,
    /// Whether the weight is the transpose of what lies in memory.
    transposed: bool,
    then: Then,
    /// What is added where nothing follows.
    residual: Option<TensorData>,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Activate(Option<Activation>),
    Gate,
}

impl Operation for Product {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32> {
        let weight = tensor::<B, 2>(&self.weight, dtype);
        let weight = if self.transposed { weight.transpose() } else { weight };
        let bias = self.bias.as_ref().map(|bias| Param::from_tensor(tensor::<B, 1>(bias, dtype)));
        let layer = Linear { weight: Param::from_tensor(weight), bias };
        let rows = tensor::<B, 2>(&self.rows, dtype);
        values(match self.then {
            Then::Activate(None) => match &self.residual {
                Some(residual) => linear_onto(&layer, rows, tensor(residual, dtype)),
                None => linear(&layer, rows),
            },
            Then::Activate(Some(activation)) => linear_activated(&layer, activation, rows),
            Then::Gate => linear_geglu(&layer, rows),
        })
    }
}

#[test]
#[ignore = "needs a card"]
fn linear_layers_are_those_of_the_processor() {
    use Activation::{Gelu, GeluNew, QuickGelu, Relu, Silu};
    let mut then = [None, Some(Gelu), Some(GeluNew), Some(QuickGelu), Some(Relu), Some(Silu)]
        .map(Then::Activate)
        .into_iter()
        .chain([Then::Gate])
        .cycle();
    let mut count = 0;
    // Sizes of the models, and some that are multiples of nothing; the last one is summed in parts.
    for (k, n) in [(64, 64), (320, 640), (100, 36), (37, 6), (768, 2304), (5120, 128)] {
        for m in [1, 77, 1000] {
            for transposed in [false, true] {
                count += 1;
                let then = then.next().unwrap();
                let dtype = if count % 5 == 0 { DType::F16 } else { DType::BF16 };
                let shape = if transposed { [n, k] } else { [k, n] };
                let product = Product {
                    rows: numbers([m, k], dtype),
                    weight: numbers(shape, dtype),
                    bias: (count % 3 > 0).then(|| numbers([n], dtype)),
                    transposed,
                    then,
                    residual: (count % 2 > 0).then(|| numbers([m, n], dtype)),
                };
                let turned = if transposed { ", transposed" } else { "" };
                let what = format!("[{m}, {k}] by [{k}, {n}]{turned}, {then:?}");
                // A gate multiplies by the other half, whose deviation is sqrt(k) / 3.
                let scale = (k as f32).sqrt();
                let sums = 1e-3 + 1e-5 * scale * scale;
                product.assert_same(dtype, sums + ONTO, &what);
            }
        }
    }
}

struct Convolution {
    input: TensorData,
    weight: TensorData,
    bias: TensorData,
    stride: Stride,
    /// Whether the weight's channels are innermost in memory.
    channels_last: bool,
    /// Added where the stride is 1.
    residual: TensorData,
}

impl Operation for Convolution {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32> {
        let mut weight = tensor::<B, 4>(&self.weight, dtype);
        if self.channels_last {
            let [out, channels, ..] = weight.dims();
            let flat: Tensor<B, 1> = weight.permute([0, 2, 3, 1]).reshape([-1]);
            weight = flat.reshape([out, 3, 3, channels]).permute([0, 3, 1, 2]);
        }
        let (input, bias) = (tensor(&self.input, dtype), tensor(&self.bias, dtype));
        values(match self.stride {
            Stride::One if self.channels_last => {
                conv3x3_onto::<B>(input, weight, bias, tensor(&self.residual, dtype))
            }
            stride => conv3x3::<B>(input, weight, bias, stride),
        })
    }
}

#[test]
#[ignore = "needs a card"]
fn convolutions_are_those_of_the_processor() {
    use Stride::{One, Two, TwoPaddedAfter};
    let mut count = 0;
    for (b, h, w, channels, out) in [
        (1, 16, 16, 4, 64),
        (2, 8, 12, 64, 320),
        (2, 16, 16, 320, 4),
        (1, 8, 8, 320, 320),
        (2, 15, 9, 40, 72),
    ] {
        for stride in [One, Two, TwoPaddedAfter] {
            count += 1;
            let dtype = if count % 4 == 0 { DType::F16 } else { DType::BF16 };
            let biases = if count % 2 == 0 { b } else { 1 };
            let convolution = Convolution {
                input: numbers([b, h, w, channels], dtype),
                weight: numbers([out, channels, 3, 3], dtype),
                bias: numbers([biases, out], dtype),
                stride,
                channels_last: count % 3 > 0,
                residual: numbers([b, h, w, out], dtype),
            };
            let what =
                format!("{b} x {h} x {w} x {channels} to {out}, {stride:?}, {biases} biases");
            convolution.assert_same(dtype, 2e-3 + ONTO, &what);
        }
    }
}

struct Attention {
    inputs: [TensorData; 3],
    heads: usize,
    bias: Option<TensorData>,
}

impl Operation for Attention {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32> {
        let [query, key, value] = [0, 1, 2].map(|i| tensor(&self.inputs[i], dtype));
        let bias = self.bias.as_ref().map(|bias| tensor(bias, DType::F32));
        values(attention::<B>(query, key, value, self.heads, bias, &Dropout::new(0.0)))
    }
}

#[test]
#[ignore = "needs a card"]
fn attention_of_any_sizes_is_that_of_the_processor() {
    let mut count = 0;
    for width in [8, 40, 64, 80, 160, 256, 512] {
        // The last one's blocks are the largest where there are several heads.
        for (b, n, m) in [(1, 1, 1), (2, 77, 77), (2, 200, 77), (1, 1024, 1024), (6, 1536, 100)] {
            for bias in [None, Some([1, 1]), Some([b, 1]), Some([b, n])] {
                if (count + width) % 2 == 0 && bias.is_some() && n == 1024 {
                    continue;
                }
                count += 1;
                let heads = 1 + count % 3;
                let dtype = if count % 3 == 0 { DType::F16 } else { DType::BF16 };
                // As long as queries and keys of a model; some positions are all but masked.
                let input = |length| numbers([b, length, heads * width], dtype);
                let bias = bias.map(|[samples, rows]| {
                    let mut bias = numbers([samples, rows, m], DType::F32);
                    let masked = bias.as_mut_slice::<f32>().unwrap().iter_mut().skip(1).step_by(3);
                    masked.for_each(|bias| *bias = -1e4);
                    bias
                });
                let shape = bias.as_ref().map(|bias| bias.shape.clone());
                let what = format!("{heads} heads of {width}, {b} x {n} to {m}, bias {shape:?}");
                let attention = Attention { inputs: [input(n), input(m), input(m)], heads, bias };
                // Weights are rounded, too.
                let absolute = if dtype == DType::BF16 { 4e-3 } else { 1e-3 };
                attention.assert_same(dtype, absolute, &what);
            }
        }
    }
}

struct Norm {
    input: TensorData,
    gamma: TensorData,
    beta: TensorData,
    /// Of a group normalisation, and whether silu follows.
    groups: Option<(usize, bool)>,
}

impl Operation for Norm {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32> {
        let input = tensor::<B, 4>(&self.input, dtype);
        let [gamma, beta] = [&self.gamma, &self.beta].map(|data| tensor::<B, 1>(data, DType::F32));
        values(match self.groups {
            Some((groups, silu)) => group_norm(input, gamma, beta, groups, 1e-5, silu),
            None => layer_norm(input, gamma, beta, 1e-5),
        })
    }
}

#[test]
#[ignore = "needs a card"]
fn normalisations_are_those_of_the_processor() {
    for (b, h, w, c, groups) in [
        (1, 1, 1, 32, 32),
        (2, 8, 8, 320, 32),
        (3, 17, 5, 36, 4),
        (1, 64, 64, 2560, 32),
        (2, 5, 3, 37, 1),
    ] {
        for groups in [None, Some((groups, false)), Some((groups, true))] {
            let dtype = if h == 17 { DType::F16 } else { DType::BF16 };
            // A mean far from zero, and a deviation that is not one.
            let input =
                tensor::<Flex, 4>(&numbers([b, h, w, c], DType::F32), DType::F32) * 3.0 + 5.0;
            let norm = Norm {
                input: input.into_data().convert_dtype(dtype).convert_dtype(DType::F32),
                gamma: numbers([c], DType::F32),
                beta: numbers([c], DType::F32),
                groups,
            };
            norm.assert_same(dtype, 1e-3, &format!("{b} x {h} x {w} x {c}, groups {groups:?}"));
        }
    }
}

struct Gate {
    input: TensorData,
}

impl Operation for Gate {
    fn output<B: Backend>(&self, dtype: DType) -> Vec<f32> {
        values(geglu::<B>(tensor(&self.input, dtype)))
    }
}

#[test]
#[ignore = "needs a card"]
fn gates_are_those_of_the_processor() {
    for (n, c) in [(1, 1), (77, 320), (1000, 37)] {
        for dtype in [DType::BF16, DType::F16] {
            let gate = Gate { input: numbers([2, n, 2 * c], dtype) };
            gate.assert_same(dtype, 1e-4, &format!("{n} gates of {c}"));
        }
    }
}

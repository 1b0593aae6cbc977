//! The fast paths against the plain operations in 64 bits, over random shapes: sizes that divide no
//! block, single rows, odd pictures. Values and gradients.

use burn::backend::{Autodiff, Flex};
use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{DType, Tensor, TensorData};
use mi2rage_models::blocks::Stride;
use mi2rage_models::dropout::Dropout;
use mi2rage_models::kernels::{
    activate, attention, conv3x3, geglu, group_norm, layer_norm, linear, linear_geglu,
};
use mi2rage_models::layers::Activation;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Learning = Autodiff<Flex>;
type Flat = Tensor<Learning, 1>;

/// The results of a function of flat tensors, in 64 bits: its value, then its gradient by each.
fn results<const D: usize>(
    inputs: &[Vec<f64>],
    dtype: DType,
    function: &dyn Fn(Vec<Flat>) -> Tensor<Learning, D>,
) -> Vec<Vec<f64>> {
    let device = Default::default();
    let tensors: Vec<Flat> = inputs
        .iter()
        .map(|input| {
            let data = TensorData::new(input.clone(), [input.len()]);
            Tensor::from_data(data, (&device, dtype)).require_grad()
        })
        .collect();
    let output = function(tensors.clone());
    let shape = output.dims();
    let count = shape.iter().product::<usize>();
    // Numbers from -1 to 1 that 32 bits hold exactly, in no order.
    let slope =
        |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 23) - 1.0;
    let slopes: Vec<f64> = (0..count as u64).map(slope).collect();
    let slopes = Tensor::from_data(TensorData::new(slopes, shape), (&device, dtype));
    let gradients = (output.clone() * slopes).sum().backward();
    let numbers = |data: TensorData| data.convert::<f64>().to_vec::<f64>().unwrap();
    std::iter::once(numbers(output.into_data()))
        .chain(tensors.iter().map(|tensor| {
            numbers(tensor.grad(&gradients).expect("each input has a gradient").into_data())
        }))
        .collect()
}

/// Asserts that the fast path's error is at most `bound` of the largest number of each result, or of 1,
/// the size of the inputs, where sums cancel.
fn agree<const D: usize>(
    seed: u64,
    lengths: &[usize],
    bound: f64,
    function: impl Fn(Vec<Flat>) -> Tensor<Learning, D>,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Numbers that 32 bits hold exactly.
    let mut numbers =
        |count| (0..count).map(|_| f64::from(rng.random_range(-1.0f32..1.0))).collect::<Vec<f64>>();
    let inputs: Vec<Vec<f64>> = lengths.iter().map(|&count| numbers(count)).collect();
    let fast = results(&inputs, DType::F32, &function);
    let exact = results(&inputs, DType::F64, &function);
    for (index, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
        let scale = exact.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        for (fast, exact) in fast.iter().zip(exact) {
            let error = (fast - exact).abs() / scale;
            assert!(error <= bound, "result {index}: {fast}, expected {exact} ({error:.1e})");
        }
    }
}

fn layer(weight: Tensor<Learning, 2>, bias: Option<Flat>) -> Linear<Learning> {
    Linear {
        weight: Param::initialized(ParamId::from(0), weight),
        bias: bias.map(|bias| Param::initialized(ParamId::from(1), bias)),
    }
}

/// What rounding does to a sum of so many products of numbers below 1, when its results are of the
/// size of the sum's deviation: some units in the last place times the root of the count.
fn sum_bound(count: usize) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (count as f64).sqrt().max(4.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn linear_layers(seed: u64, rows in 1..150usize, depth in 1..700usize, columns in 1..120usize) {
        let bound = sum_bound(depth.max(rows));
        agree(seed, &[rows * depth, depth * columns, columns], bound, |inputs| {
            let [x, w, b] = inputs.try_into().unwrap();
            let layer = layer(w.reshape([depth, columns]), Some(b));
            linear(&layer, x.reshape([rows, depth]))
        });
    }

    #[test]
    fn convolutions(
        seed: u64,
        (b, h, w) in (1..5usize, 2..40usize, 2..40usize),
        (channels_in, channels_out) in (1..70usize, 1..70usize),
        stride in prop_oneof![Just(Stride::One), Just(Stride::Two), Just(Stride::TwoPaddedAfter)],
    ) {
        // Winograd's form loses some bits more.
        let bound = 4.0 * sum_bound((9 * channels_in).max(b * h * w));
        let weights = channels_out * channels_in * 9;
        agree(seed, &[b * h * w * channels_in, weights, channels_out], bound, |inputs| {
            let [x, weight, bias] = inputs.try_into().unwrap();
            conv3x3(
                x.reshape([b, h, w, channels_in]),
                weight.reshape([channels_out, channels_in, 3, 3]),
                bias.reshape([1, channels_out]),
                stride,
            )
        });
    }

    #[test]
    fn attention_of_heads(
        seed: u64,
        (b, n, m) in (1..4usize, 1..90usize, 1..90usize),
        (heads, width) in (1..4usize, 1..50usize),
    ) {
        let c = heads * width;
        agree(seed, &[b * n * c, b * m * c, b * m * c], 2e-5, |inputs| {
            let [q, k, v] = inputs.try_into().unwrap();
            let (k, v) = (k.reshape([b, m, c]), v.reshape([b, m, c]));
            attention(q.reshape([b, n, c]), k, v, heads, None, &Dropout::new(0.0))
        });
    }

    #[test]
    fn normalisations(seed: u64, rows in 1..60usize, groups in 1..5usize, width in 8..90usize) {
        let c = groups * width;
        agree(seed, &[rows * c, c, c], 1e-4, |inputs| {
            let [x, gamma, beta] = inputs.try_into().unwrap();
            layer_norm(x.reshape([rows, c]) + 0.5, gamma, beta, 1e-5)
        });
        for silu in [false, true] {
            agree(seed, &[2 * rows * 3 * c, c, c], 1e-4, |inputs| {
                let [x, gamma, beta] = inputs.try_into().unwrap();
                group_norm(x.reshape([2, rows, 3, c]) + 0.5, gamma, beta, groups, 1e-5, silu)
            });
        }
    }

    #[test]
    fn activations(seed: u64, count in 1..40_000usize, spread in 0.1..20.0f64) {
        for activation in
            [Activation::Gelu, Activation::GeluNew, Activation::QuickGelu, Activation::Silu]
        {
            agree(seed, &[count], 2e-6, |inputs| {
                let [x] = inputs.try_into().unwrap();
                activate(activation, x * spread)
            });
        }
        let (rows, width) = (count.div_ceil(100), 50);
        agree(seed, &[rows * 2 * width], 2e-6, |inputs| {
            let [x] = inputs.try_into().unwrap();
            geglu((x * spread).reshape([1, rows, 2 * width]))
        });
    }

    #[test]
    fn geglu_in_one_pass_with_its_linear_layer(
        (rows, depth, width) in (1..200usize, 1..400usize, 1..80usize), seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = |count: usize| -> Vec<f64> {
            (0..count).map(|_| f64::from(rng.random_range(-1.0f32..1.0))).collect()
        };
        let (x, weight, bias) =
            (numbers(rows * depth), numbers(depth * 2 * width), numbers(2 * width));
        // Without gradients: what learns takes the two apart.
        let gated = |dtype: DType| -> Vec<f64> {
            let options = (&Default::default(), dtype);
            let tensor = |data: TensorData| Tensor::<Flex, 2>::from_data(data, options);
            let bias = Tensor::<Flex, 1>::from_data(TensorData::new(bias.clone(), [2 * width]), options);
            let layer = Linear {
                weight: Param::initialized(
                    ParamId::from(0),
                    tensor(TensorData::new(weight.clone(), [depth, 2 * width])),
                ),
                bias: Some(Param::initialized(ParamId::from(1), bias)),
            };
            let output = linear_geglu(&layer, tensor(TensorData::new(x.clone(), [rows, depth])));
            output.into_data().convert::<f64>().to_vec().unwrap()
        };
        let (fast, exact) = (gated(DType::F32), gated(DType::F64));
        let scale = exact.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
        // A product of two sums, each off by its bound.
        let bound = 2.0 * sum_bound(depth);
        for (fast, exact) in fast.iter().zip(&exact) {
            let error = (fast - exact).abs() / scale;
            prop_assert!(error <= bound, "{fast}, expected {exact} ({error:.1e})");
        }
    }
}

//! Forward and backward passes of what is learnt on a card, in 32 bits and in mixed precision, against burn-flex.

use burn::backend::{Autodiff, Cuda, Flex};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::Linear;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Int, Tensor, TensorData};
use mi2rage_models::adamw::AdamW;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::blocks::Stride;
use mi2rage_models::dropout::{Dropout, with_dropout_rng};
use mi2rage_models::kernels::{
    activate, attention, conv3x3, geglu, group_norm, layer_norm, linear, linear_activated,
};
use mi2rage_models::layers::Activation;
use mi2rage_models::precision::in_mixed_precision;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::numbers;

/// A function of some tensors, which it gets flat.
trait Function {
    fn of<B: Backend>(&self, inputs: &[Tensor<B, 1>]) -> Tensor<B, 1>;
}

/// The output, and the gradient of each input, of the output along one direction.
fn passes<B: AutodiffBackend>(
    function: &impl Function,
    inputs: &[TensorData],
    direction: &TensorData,
    mixed: bool,
) -> Vec<Vec<f32>> {
    let device = Default::default();
    let tensor = |data: &TensorData| Tensor::<B, 1>::from_data(data.clone(), &device);
    let inputs: Vec<_> = inputs.iter().map(|data| tensor(data).require_grad()).collect();
    let output = match mixed {
        true => in_mixed_precision(|| function.of(&inputs)),
        false => function.of(&inputs),
    };
    let gradients = (output.clone() * tensor(direction)).sum().backward();
    let mut results = vec![output.into_data().to_vec().unwrap()];
    for input in inputs {
        // A bias of attention masks and gets none.
        results.extend(input.grad(&gradients).map(|slope| slope.into_data().to_vec().unwrap()));
    }
    results
}

/// Compares both passes: each number is off by less than `bound` of all numbers' root mean square, ten times that
/// in mixed precision.
fn assert_same(what: &str, function: &impl Function, shapes: &[&[usize]], mixed: bool, bound: f32) {
    let dtype = if mixed { DType::BF16 } else { DType::F32 };
    let inputs: Vec<_> =
        shapes.iter().map(|shape| numbers([shape.iter().product()], dtype)).collect();
    let count = {
        let inputs = inputs.iter().map(|data| Tensor::from_data(data.clone(), &Default::default()));
        function.of::<Flex>(&inputs.collect::<Vec<_>>()).dims()[0]
    };
    let direction = numbers([count], dtype);
    let found = passes::<Autodiff<Cuda>>(function, &inputs, &direction, mixed);
    let expected = passes::<Autodiff<Flex>>(function, &inputs, &direction, false);
    assert_eq!(found.len(), expected.len(), "{what}");
    let mut gaps = Vec::new();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let square = expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32;
        let gap = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let gap =
            if found.iter().all(|x| x.is_finite()) { gap.fold(0.0, f32::max) } else { f32::NAN };
        gaps.push(gap / square.sqrt().max(1e-6));
    }
    let shown: Vec<_> = gaps.iter().map(|gap| format!("{gap:.1e}")).collect();
    println!("{what}{}: off by {}", if mixed { ", mixed" } else { "" }, shown.join(", "));
    assert!(gaps.iter().all(|gap| *gap < bound), "{what}: {gaps:?}, allowed {bound}");
}

/// What rounding factors to bf16 may do, of the root mean square: single numbers, of some hundred thousand.
const MIXED: f32 = 1e-1;
/// Sums of 32 bits in another order.
const WIDE: f32 = 1e-3;

struct Dense {
    shape: [usize; 3],
    bias: bool,
    transposed: bool,
    activation: Option<Activation>,
}

impl Function for Dense {
    fn of<B: Backend>(&self, inputs: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let [m, n, k] = self.shape;
        let weight = match self.transposed {
            true => inputs[1].clone().reshape([n, k]).transpose(),
            false => inputs[1].clone().reshape([k, n]),
        };
        // Parameters of their own would cut the gradient.
        let layer = Linear {
            weight: Param::initialized(0.into(), weight),
            bias: self.bias.then(|| Param::initialized(1.into(), inputs[2].clone())),
        };
        let input = inputs[0].clone().reshape([1, m, k]);
        let output: Tensor<B, 3> = match self.activation {
            Some(activation) => linear_activated(&layer, activation, input),
            None => linear(&layer, input),
        };
        output.reshape([-1])
    }
}

#[test]
#[ignore = "needs a card"]
fn linear_layers_learn_as_on_the_processor() {
    let all = [
        Activation::Gelu,
        Activation::GeluNew,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
    ];
    let activations = [None].into_iter().chain(all.map(Some));
    for (at, activation) in activations.enumerate() {
        let (bias, transposed) = (at % 3 != 1, at % 2 == 1);
        for shape @ [m, n, k] in [[1, 3, 5], [70, 24, 40], [129, 51, 33], [640, 256, 192]] {
            let dense = Dense { shape, bias, transposed, activation };
            let what =
                format!("{m} x {k} x {n}, bias {bias}, transposed {transposed}, {activation:?}");
            let shapes: [&[usize]; 3] = [&[m, k], &[k, n], &[n]];
            let shapes = &shapes[..if bias { 3 } else { 2 }];
            assert_same(&what, &dense, shapes, true, MIXED);
        }
    }
}

struct Attend {
    sizes: [usize; 3],
    heads: usize,
    width: usize,
    bias: Option<[usize; 2]>,
}

impl Function for Attend {
    fn of<B: Backend>(&self, inputs: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let ([b, n, m], c) = (self.sizes, self.heads * self.width);
        let query = inputs[0].clone().reshape([b, n, c]);
        let [key, value] = [1, 2].map(|at| inputs[at].clone().reshape([b, m, c]));
        let bias = self.bias.map(|[x, y]| inputs[3].clone().reshape([x, y, m]) * 4.0);
        attention(query, key, value, self.heads, bias, &Dropout::new(0.0)).reshape([-1])
    }
}

#[test]
#[ignore = "needs a card"]
fn attentions_learn_as_on_the_processor() {
    for (sizes @ [b, n, m], heads, width, bias) in [
        ([1, 64, 64], 1, 64, None),
        ([2, 70, 33], 2, 64, Some([2, 1])),
        ([1, 5, 130], 3, 40, Some([1, 5])),
        ([2, 65, 65], 1, 24, None),
        ([3, 20, 70], 2, 8, Some([1, 1])),
        ([2, 64, 64], 4, 12, None),
        ([1, 66, 66], 1, 128, Some([1, 66])),
        ([2, 197, 197], 12, 64, None),
    ] {
        let attend = Attend { sizes, heads, width, bias };
        let what = format!("{b} x {n} to {m}, {heads} heads of {width}, bias {bias:?}");
        let c = heads * width;
        let of_bias = bias.map_or([0; 3], |[x, y]| [x, y, m]);
        let shapes: [&[usize]; 4] = [&[b, n, c], &[b, m, c], &[b, m, c], &of_bias];
        assert_same(&what, &attend, &shapes[..if bias.is_some() { 4 } else { 3 }], true, MIXED);
    }
}

struct Convolve {
    input: [usize; 4],
    out: usize,
    biases: usize,
    stride: Stride,
}

impl Function for Convolve {
    fn of<B: Backend>(&self, inputs: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let [_, _, _, channels] = self.input;
        let weight = inputs[1].clone().reshape([self.out, channels, 3, 3]);
        let bias = inputs[2].clone().reshape([self.biases, self.out]);
        conv3x3(inputs[0].clone().reshape(self.input), weight, bias, self.stride).reshape([-1])
    }
}

#[test]
#[ignore = "needs a card"]
fn convolutions_learn_as_on_the_processor() {
    for input @ [b, h, w, channels] in
        [[2, 5, 6, 3], [32, 8, 8, 48], [3, 6, 4, 40], [1, 33, 31, 16]]
    {
        for stride in [Stride::One, Stride::Two, Stride::TwoPaddedAfter] {
            for (out, biases) in [(5, 1), (24, b)] {
                let what = format!("{input:?} to {out} channels, {stride:?}, {biases} biases");
                let convolve = Convolve { input, out, biases, stride };
                let shapes: [&[usize]; 3] =
                    [&[b, h, w, channels], &[out, channels, 9], &[biases, out]];
                assert_same(&what, &convolve, &shapes, true, MIXED);
            }
        }
    }
}

/// A norm, a gate or an activation.
enum Single {
    LayerNorm(usize),
    GroupNorm { input: [usize; 4], groups: usize, silu: bool },
    Gate(usize),
    Activation(Activation),
}

impl Function for Single {
    fn of<B: Backend>(&self, inputs: &[Tensor<B, 1>]) -> Tensor<B, 1> {
        let input = inputs[0].clone() * 3.0 + 1.0;
        let parameters = || (inputs[1].clone(), inputs[2].clone());
        match *self {
            Self::LayerNorm(c) => {
                let (gamma, beta) = parameters();
                layer_norm(input.reshape([-1, c as i32]), gamma, beta, 1e-5).reshape([-1])
            }
            Self::GroupNorm { input: shape, groups, silu } => {
                let (gamma, beta) = parameters();
                group_norm(input.reshape(shape), gamma, beta, groups, 1e-5, silu).reshape([-1])
            }
            Self::Gate(c) => geglu(input.reshape([1, -1, 2 * c as i32])).reshape([-1]),
            Self::Activation(activation) => activate(activation, input),
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn norms_gates_and_activations_learn_as_on_the_processor() {
    for (rows, c) in [(1, 5), (37, 50), (300, 768), (8, 1030)] {
        let norm = Single::LayerNorm(c);
        let what = format!("layer norm of {rows} x {c}");
        assert_same(&what, &norm, &[&[rows, c], &[c], &[c]], false, WIDE);
        assert_same(
            &format!("gate of {rows} x {c}"),
            &Single::Gate(c),
            &[&[rows, 2 * c]],
            false,
            WIDE,
        );
    }
    for (input @ [b, h, w, c], groups) in
        [([1, 1, 3, 8], 2), ([3, 5, 7, 24], 4), ([32, 8, 8, 48], 8)]
    {
        for silu in [false, true] {
            let norm = Single::GroupNorm { input, groups, silu };
            let what = format!("group norm of {input:?}, {groups} groups, silu {silu}");
            assert_same(&what, &norm, &[&[b, h, w, c], &[c], &[c]], false, WIDE);
        }
    }
    for activation in [
        Activation::Gelu,
        Activation::GeluNew,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
    ] {
        let what = format!("{activation:?}");
        assert_same(&what, &Single::Activation(activation), &[&[5003]], false, WIDE);
    }
}

type OnCard = Autodiff<Cuda>;

fn keyed<T>(key: u64, f: impl FnOnce() -> T) -> T {
    with_dropout_rng(ChaCha8Rng::seed_from_u64(key), f)
}

#[test]
#[ignore = "needs a card"]
fn a_card_drops_what_the_key_says_forward_and_backward() {
    let ones = || Tensor::<OnCard, 2>::ones([301, 99], &Default::default()).require_grad();
    for prob in [0.1, 0.5] {
        let masked = |key| {
            let x = ones();
            let y = keyed(key, || Dropout::new(prob).forward(x.clone()));
            let slope = x.grad(&y.clone().sum().backward()).unwrap();
            let y: Vec<f32> = y.into_data().to_vec().unwrap();
            // Of ones, the gradient is the mask too.
            assert_eq!(slope.into_data().to_vec::<f32>().unwrap(), y);
            y
        };
        let mask = masked(1);
        assert_eq!(mask, masked(1));
        assert_ne!(mask, masked(2));
        let zeros = mask.iter().filter(|&&m| m == 0.0).count() as f64 / mask.len() as f64;
        let error = 5.0 * (prob * (1.0 - prob) / mask.len() as f64).sqrt();
        println!("dropout: off by {:.1e} of {prob}, allowed {error:.1e}", (zeros - prob).abs());
        assert!((zeros - prob).abs() < error);
        assert!(mask.iter().all(|&m| m == 0.0 || (f64::from(m) - 1.0 / (1.0 - prob)).abs() < 1e-3));
    }
}

/// The values are unit vectors, so that the output is the weights.
#[test]
#[ignore = "needs a card"]
fn a_card_drops_the_weights_of_an_attention_forward_and_backward() {
    let (n, m) = (70, 64);
    let device = Default::default();
    let tensor = |shape: [usize; 3]| {
        let data = numbers([shape.iter().product()], DType::BF16);
        Tensor::<OnCard, 1>::from_data(data, &device).reshape(shape)
    };
    let (query, key, direction) = (tensor([1, n, m]), tensor([1, m, m]), tensor([1, n, m]));
    let attend = |prob| {
        let value = Tensor::<OnCard, 2>::eye(m, &device).unsqueeze::<3>().require_grad();
        let (query, key) = (query.clone(), key.clone());
        let dropout = Dropout::new(prob);
        let attend = || attention(query, key, value.clone(), 1, None, &dropout);
        let weights = keyed(7, || in_mixed_precision(attend));
        let gradients = (weights.clone() * direction.clone()).sum().backward();
        let slope = value.grad(&gradients).unwrap().into_data().to_vec::<f32>().unwrap();
        (weights.into_data().to_vec::<f32>().unwrap(), slope)
    };
    let ((plain, _), (dropped, slope)) = (attend(0.0), attend(0.25));
    let keep = 1.0 / 0.75;
    let zeros = dropped.iter().filter(|&&weight| weight == 0.0).count() as f32 / (n * m) as f32;
    assert!((zeros - 0.25).abs() < 0.04, "{zeros}");
    for (plain, dropped) in plain.iter().zip(&dropped) {
        assert!(
            *dropped == 0.0 || (dropped - keep * plain).abs() < 2e-2 * plain,
            "{dropped}, {plain}"
        );
    }
    let direction: Vec<f32> = direction.into_data().to_vec().unwrap();
    let mut worst = 0.0_f32;
    for (at, slope) in slope.iter().enumerate() {
        let (key, channel) = (at / m, at % m);
        let sum: f32 =
            (0..n).map(|query| dropped[query * m + key] * direction[query * m + channel]).sum();
        worst = worst.max((slope - sum).abs());
    }
    println!("dropped weights: the values' gradients are off by {worst:.1e}");
    assert!(worst < 2e-2);
}

/// Numbers that are the same on any backend, within a tenth of 0.
fn fixed<const D: usize>(shape: [usize; D], seed: usize) -> TensorData {
    let count = shape.iter().product();
    let numbers =
        (0..count).map(|at: usize| ((at * 37 + seed * 101 + 11) % 127) as f32 / 635.0 - 0.1);
    TensorData::new(numbers.collect::<Vec<_>>(), shape)
}

/// Gives each parameter fixed numbers, gammas about 1.
struct Fixed(usize);

impl<B: Backend> ModuleMapper<B> for Fixed {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        self.0 += 1;
        let seed = self.0;
        param.map(|tensor| {
            let numbers = Tensor::from_data(fixed(tensor.dims(), seed), &tensor.device());
            let numbers = if D == 1 { numbers + 0.5 } else { numbers };
            numbers.require_grad()
        })
    }
}

/// What the output along a direction is after each of a few updates of a small BERT.
fn bert_updates<B: AutodiffBackend>(mixed: bool) -> Vec<f32> {
    let device = Default::default();
    let config = BertConfig {
        vocab_size: 50,
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 128,
        ..BertConfig::default()
    };
    let mut model = config.init::<B>(&device).map(&mut Fixed(0));
    let ids = (0..4 * 20).map(|at| at * 7 % 50).collect::<Vec<i64>>();
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [4, 20]), &device);
    let direction = fixed([4, 20, 64], 99);
    let direction = Tensor::<B, 3>::from_data(direction, &device);
    let mut optimizer = OptimizerAdaptor::<_, _, B>::from(AdamW { weight_decay: 0.05 });
    let mut values = Vec::new();
    for _ in 0..5 {
        let forward = || (model.forward(ids.clone(), None, None) * direction.clone()).mean();
        let loss = if mixed { in_mixed_precision(forward) } else { forward() };
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, gradients);
        values.extend(loss.into_data().to_vec::<f32>().unwrap());
    }
    values
}

/// Compares the updates: they are off by at most `bound` of how far the output moves.
fn assert_same_updates(mixed: bool, bound: f32) {
    let expected = bert_updates::<Autodiff<Flex>>(false);
    let spread = expected.iter().fold(0.0, |most: f32, x| most.max((x - expected[0]).abs()));
    let found = bert_updates::<Autodiff<Cuda>>(mixed);
    let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("updates of a small BERT, mixed {mixed}: off by {:.1e} of the way", gap / spread);
    assert!(gap < bound * spread, "{found:?}, expected {expected:?}");
}

#[test]
#[ignore = "needs a card"]
fn a_small_bert_learns_in_mixed_precision() {
    assert_same_updates(true, 5e-2);
}

/// Products are burn's.
#[test]
#[ignore = "needs a card"]
fn a_small_bert_learns_in_32_bits() {
    assert_same_updates(false, 1e-2);
}

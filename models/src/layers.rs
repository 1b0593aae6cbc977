//! What the transformers share: activations, masks, attention.

use burn::nn::Linear;
use burn::tensor::{
    Bool, DType, Int, Tensor, activation, backend::Backend, module::attention,
    ops::AttentionModuleOptions,
};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;

/// A configuration that describes no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// An activation that this crate does not know.
    #[error(
        "hidden_act: unknown activation `{0}`, expected gelu, gelu_new, quick_gelu, relu or silu"
    )]
    UnknownActivation(String),
    /// A size that has to be a multiple of another one.
    #[error("{name} = {value} is no multiple of {divisor_name} = {divisor}")]
    NotAMultiple {
        /// Key of the size.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Key of the size that must divide it.
        divisor_name: &'static str,
        /// Its value.
        divisor: usize,
    },
    /// A size that may not be zero.
    #[error("{0} = 0, expected at least 1")]
    Zero(&'static str),
    /// A probability outside of 0 to 1.
    #[error("{name} = {value}, expected a probability from 0 to 1")]
    NotAProbability {
        /// Key of the probability.
        name: &'static str,
        /// Its value.
        value: f64,
    },
}

impl ConfigError {
    /// Checks that no size of `sizes` is zero.
    pub fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<(), Self> {
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(Self::Zero(name)),
            None => Ok(()),
        }
    }

    /// Checks that `divisor`, which is not zero, divides `value`.
    pub fn check_multiple(
        (name, value): (&'static str, usize),
        (divisor_name, divisor): (&'static str, usize),
    ) -> Result<(), Self> {
        if value.is_multiple_of(divisor) {
            return Ok(());
        }
        Err(Self::NotAMultiple { name, value, divisor_name, divisor })
    }

    /// Checks that each value of `probabilities` is one.
    pub fn check_probabilities(probabilities: &[(&'static str, f64)]) -> Result<(), Self> {
        match probabilities.iter().find(|(_, p)| !(0.0..=1.0).contains(p)) {
            Some(&(name, value)) => Err(Self::NotAProbability { name, value }),
            None => Ok(()),
        }
    }
}

/// An activation function under its name in transformers' `ACT2FN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Activation {
    /// `gelu`: x Φ(x), exact, by the error function.
    #[default]
    Gelu,
    /// `gelu_new`: the approximation of GELU by tanh.
    GeluNew,
    /// `quick_gelu`: x σ(1.702 x), as in CLIP.
    QuickGelu,
    /// `relu`: max(x, 0). The cheapest one.
    Relu,
    /// `silu`: x σ(x).
    Silu,
}

impl Activation {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }

    /// Applies the function to each element.
    pub fn forward<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Gelu => activation::gelu(x),
            Self::GeluNew => {
                // 0.5 x (1 + tanh u) = x σ(2u), u = √(2/π) (x + 0.044715 x³); burn's own takes the
                // cube by a general power, which is several times slower.
                let double_u = (x.clone() * x.clone() * 0.044715 + 1.0) * x.clone();
                let double_u = double_u * (2.0 * (2.0 / std::f64::consts::PI).sqrt());
                x * activation::sigmoid(double_u)
            }
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}

impl TryFrom<String> for Activation {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        [Self::Gelu, Self::GeluNew, Self::QuickGelu, Self::Relu, Self::Silu]
            .into_iter()
            .find(|activation| activation.name() == name)
            .ok_or(ConfigError::UnknownActivation(name))
    }
}

impl From<Activation> for &'static str {
    fn from(activation: Activation) -> Self {
        activation.name()
    }
}

/// What is added to the score of a masked pair.
///
/// Small enough for exp to give 0, and still a number in half precision, so that a row without a
/// single visible key gives finite values instead of NaN.
const MASKED: f64 = -1e4;

/// The additive mask that hides padding and, if `causal`, from each query the keys after it; the
/// last query stands at the last key. `None` where nothing would be hidden.
///
/// It is spelled out over batch and heads: burn-flex 0.21 adds a tensor of full size twenty times
/// as fast as one that it has to broadcast, and every layer adds it.
///
/// # Shapes
///
/// - `visible`: `[batch, keys]`, true where a key may be attended to; `None`: everywhere
/// - output: `[batch, heads, queries, keys]`, for [`attend`]
pub fn attention_bias<B: Backend>(
    visible: Option<Tensor<B, 2, Bool>>,
    causal: bool,
    [batch, heads, queries, keys]: [usize; 4],
    device: &B::Device,
) -> Option<Tensor<B, 4>> {
    let padding = visible.map(|visible| {
        let hidden = visible.bool_not().reshape([batch, 1, 1, keys]);
        hidden.repeat_dim(2, queries)
    });
    let future = (causal && queries > 1).then(|| {
        let past = keys as i64 - queries as i64;
        let query = Tensor::<B, 1, Int>::arange(past..keys as i64, device);
        let key = Tensor::<B, 1, Int>::arange(0..keys as i64, device);
        let hidden = query
            .reshape([queries, 1])
            .repeat_dim(1, keys)
            .lower(key.reshape([1, keys]).repeat_dim(0, queries));
        hidden.reshape([1, 1, queries, keys]).repeat_dim(0, batch)
    });
    let hidden = match (padding, future) {
        (Some(padding), Some(future)) => padding.bool_or(future),
        (one, other) => one.or(other)?,
    };
    Some((hidden.float() * MASKED).repeat_dim(1, heads))
}

/// Splits the last axis into heads.
///
/// # Shapes
///
/// - input: `[batch, n, heads * d]`
/// - output: `[batch, heads, n, d]`
pub fn split_heads<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [batch, n, width] = x.dims();
    x.reshape([batch, n, heads, width / heads]).swap_dims(1, 2)
}

/// Undoes [`split_heads`].
pub fn merge_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, heads, n, d] = x.dims();
    x.swap_dims(1, 2).reshape([batch, n, heads * d])
}

/// Number of scores a head up to which separate operations are used instead of the backend's
/// attention kernel: in burn-flex 0.21 they are one and a half to two times as fast at 32 by 32,
/// and as fast at 128 by 128, from where on the kernel saves memory.
const SEPARATE_LIMIT: usize = 128 * 128;

/// Scaled dot-product attention, softmax(q kᵗ / √d + bias) v, with dropout on the softmax.
///
/// The softmax is taken in 32 bits whatever the tensors' type.
///
/// # Shapes
///
/// - `query`: `[batch, heads, queries, d]`; `key`, `value`: `[batch, heads, keys, d]`
/// - `bias`: `[batch, heads, queries, keys]`, added to the scores; see [`attention_bias`]
/// - output: `[batch, heads, queries, d]`
pub fn attend<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    bias: Option<Tensor<B, 4>>,
    dropout: &Dropout,
) -> Tensor<B, 4> {
    let dtype = query.dtype();
    let [_, _, queries, d] = query.dims();
    let [_, _, keys, _] = key.dims();
    if queries * keys > SEPARATE_LIMIT && dtype == DType::F32 && !B::ad_enabled(&query.device()) {
        // The backend's own kernel; it has no dropout and no backward pass.
        let options = AttentionModuleOptions::default();
        return attention(query, key, value, None, bias, options);
    }
    let scale = 1.0 / (d as f64).sqrt();
    // The scale comes after the product: the heads of `query` do not lie side by side in memory,
    // and burn-flex multiplies such a tensor several times slower.
    let scores = query.matmul(key.swap_dims(2, 3)) * scale; // [batch, heads, queries, keys]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let weights = if dtype == DType::F32 {
        activation::softmax(scores, 3)
    } else {
        activation::softmax(scores.cast(DType::F32), 3).cast(dtype)
    };
    dropout.forward(weights).matmul(value)
}

/// A linear layer over `[batch, n, d]` as one matrix product over `[batch * n, d]`, which makes its
/// weight gradient one product too instead of one per batch row.
pub fn dense<B: Backend>(layer: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, n, d] = x.dims();
    let y = layer.forward(x.reshape([batch * n, d]));
    let [_, d] = y.dims();
    y.reshape([batch, n, d])
}

/// Adds `table` to each batch row, as position embeddings are.
///
/// Both are flattened first: burn-flex 0.21 adds one row to all rows of a matrix fifty times as
/// fast as it broadcasts a matrix.
///
/// # Shapes
///
/// - `x` and output: `[batch, n, d]`
/// - `table`: `[n, d]`
pub fn add_to_each<B: Backend>(x: Tensor<B, 3>, table: Tensor<B, 2>) -> Tensor<B, 3> {
    let [batch, n, d] = x.dims();
    let sum = x.reshape([batch, n * d]) + table.reshape([1, n * d]);
    sum.reshape([batch, n, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    #[test]
    fn an_activation_is_read_by_its_name_and_an_unknown_name_is_refused() {
        for name in ["gelu", "gelu_new", "quick_gelu", "relu", "silu"] {
            let activation: Activation = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(activation.name(), name);
        }
        assert_eq!(
            Activation::try_from("mish".to_string()),
            Err(ConfigError::UnknownActivation("mish".to_string()))
        );
        let error = serde_json::from_str::<Activation>("\"mish\"").unwrap_err();
        assert!(error.to_string().contains("unknown activation `mish`"));
    }

    #[test]
    fn activations_match_their_formulas() {
        let x = Tensor::<Flex, 1>::from_floats([-1.5, 0.5], &Default::default());
        // From ACT2FN of transformers 5.23, in 64 bits.
        for (activation, expected) in [
            (Activation::Gelu, [-0.100_210_8, 0.345_731_24]),
            (Activation::GeluNew, [-0.100_428_42, 0.345_714]),
            (Activation::QuickGelu, [-0.108_337_8, 0.350_388_44]),
            (Activation::Relu, [0.0, 0.5]),
            (Activation::Silu, [-0.273_638_29, 0.311_229_67]),
        ] {
            let y: Vec<f32> = activation.forward(x.clone()).into_data().to_vec().unwrap();
            for (y, e) in y.iter().zip(expected) {
                assert!((y - e).abs() < 1e-6, "{activation:?}: {y}, expected {e}");
            }
        }
    }

    #[test]
    fn a_query_sees_neither_padding_nor_what_stands_after_it() {
        let device = Default::default();
        let visible = Tensor::<Flex, 2, Bool>::from_data([[false, true, true, true]], &device);
        for (causal, expected) in [
            (false, [true, false, false, false, true, false, false, false]),
            (true, [true, false, false, true, true, false, false, false]),
        ] {
            let bias = attention_bias(Some(visible.clone()), causal, [1, 1, 2, 4], &device);
            let bias: Vec<f32> = bias.unwrap().into_data().to_vec().unwrap();
            let hidden: Vec<bool> = bias.iter().map(|&b| b != 0.0).collect();
            assert_eq!(hidden, expected);
        }
        assert!(attention_bias::<Flex>(None, true, [3, 2, 1, 4], &device).is_none());
        assert!(attention_bias::<Flex>(None, false, [3, 2, 4, 4], &device).is_none());
    }

    #[test]
    fn the_kernel_of_inference_equals_the_operations_of_training() {
        const QUERIES: usize = 130;
        const KEYS: usize = 140;
        fn run<B: Backend>() -> Vec<f32> {
            let device = B::Device::default();
            let tensor = |phase: f64, shape: [usize; 4]| {
                let count: usize = shape.iter().product();
                Tensor::<B, 1, Int>::arange(0..count as i64, &device)
                    .float()
                    .add_scalar(phase)
                    .sin()
                    .reshape(shape)
            };
            let visible = Tensor::<B, 1, Int>::arange(0..KEYS as i64, &device)
                .lower_elem(100)
                .reshape([1, KEYS])
                .repeat_dim(0, 2);
            let shape = [2, 2, QUERIES, KEYS];
            let bias = attention_bias(Some(visible), true, shape, &device);
            attend(
                tensor(0.1, [2, 2, QUERIES, 4]),
                tensor(0.7, [2, 2, KEYS, 4]),
                tensor(1.9, [2, 2, KEYS, 4]),
                bias,
                &Dropout::new(0.0),
            )
            .into_data()
            .to_vec()
            .unwrap()
        }
        let (plain, train) = (run::<Flex>(), run::<Autodiff<Flex>>());
        assert!(QUERIES * KEYS > SEPARATE_LIMIT && plain.len() == train.len());
        for (p, t) in plain.iter().zip(&train) {
            assert!((p - t).abs() < 1e-5, "{p} and {t}");
        }
    }
}

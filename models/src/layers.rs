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
        Err(Self::NotAMultiple {
            name,
            value,
            divisor_name,
            divisor,
        })
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
            Self::GeluNew => activation::gelu_approximate(x),
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}

impl TryFrom<String> for Activation {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        [
            Self::Gelu,
            Self::GeluNew,
            Self::QuickGelu,
            Self::Relu,
            Self::Silu,
        ]
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

/// The additive mask of padded keys.
///
/// # Shapes
///
/// - `visible`: `[batch, keys]`, true where a key may be attended to
/// - output: `[batch, 1, queries, keys]`, for [`attend`]
pub fn padding_bias<B: Backend>(visible: Tensor<B, 2, Bool>, queries: usize) -> Tensor<B, 4> {
    let bias = visible.bool_not().float() * MASKED;
    // Spelled out over the queries once, or else burn-flex would do so in every layer.
    bias.unsqueeze_dims::<4>(&[1, 1]).repeat_dim(2, queries)
}

/// The additive mask that hides from each query the keys after it; the last query stands at the
/// last key. `None` where nothing would be hidden.
///
/// # Shapes
///
/// - output: `[1, 1, queries, keys]`, for [`attend`]
pub fn causal_bias<B: Backend>(
    queries: usize,
    keys: usize,
    device: &B::Device,
) -> Option<Tensor<B, 4>> {
    if queries == 1 {
        return None;
    }
    let past = keys as i64 - queries as i64;
    let query = Tensor::<B, 1, Int>::arange(past..keys as i64, device).reshape([queries, 1]);
    let key = Tensor::<B, 1, Int>::arange(0..keys as i64, device).reshape([1, keys]);
    let hidden = query.lower(key);
    Some((hidden.float() * MASKED).unsqueeze::<4>())
}

/// Both masks, or the one that there is.
pub fn join_biases<B: Backend>(
    one: Option<Tensor<B, 4>>,
    other: Option<Tensor<B, 4>>,
) -> Option<Tensor<B, 4>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
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

/// Scaled dot-product attention, softmax(q kᵗ / √d + bias) v, with dropout on the softmax.
///
/// The softmax is taken in 32 bits whatever the tensors' type.
///
/// # Shapes
///
/// - `query`: `[batch, heads, queries, d]`; `key`, `value`: `[batch, heads, keys, d]`
/// - `bias`: `[batch or 1, 1, queries, keys]`, added to the scores
/// - output: `[batch, heads, queries, d]`
pub fn attend<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    bias: Option<Tensor<B, 4>>,
    dropout: &Dropout,
) -> Tensor<B, 4> {
    let dtype = query.dtype();
    if dtype == DType::F32 && !B::ad_enabled(&query.device()) {
        // The backend's own kernel; it has no dropout and no backward pass.
        return attention(
            query,
            key,
            value,
            None,
            bias,
            AttentionModuleOptions::default(),
        );
    }
    let [_, _, _, d] = query.dims();
    let scale = 1.0 / (d as f64).sqrt();
    let scores = (query * scale).matmul(key.swap_dims(2, 3)); // [batch, heads, queries, keys]
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
            (Activation::GeluNew, [-0.100_428_42, 0.345_714_01]),
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
    fn the_causal_mask_lets_the_last_query_see_every_key() {
        let bias = causal_bias::<Flex>(2, 4, &Default::default()).unwrap();
        let bias: Vec<f32> = bias.into_data().to_vec().unwrap();
        let hidden: Vec<bool> = bias.iter().map(|&b| b != 0.0).collect();
        assert_eq!(
            hidden,
            [false, false, false, true, false, false, false, false]
        );
        assert!(causal_bias::<Flex>(1, 4, &Default::default()).is_none());
    }

    #[test]
    fn the_kernel_of_inference_equals_the_one_of_training() {
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
            let visible = Tensor::<B, 2, Bool>::from_data(
                [[true, true, true, true, false], [true; 5]],
                &device,
            );
            let bias = join_biases(Some(padding_bias(visible, 3)), causal_bias(3, 5, &device));
            attend(
                tensor(0.1, [2, 2, 3, 4]),
                tensor(0.7, [2, 2, 5, 4]),
                tensor(1.9, [2, 2, 5, 4]),
                bias,
                &Dropout::new(0.0),
            )
            .into_data()
            .to_vec()
            .unwrap()
        }
        let (plain, train) = (run::<Flex>(), run::<Autodiff<Flex>>());
        for (p, t) in plain.iter().zip(&train) {
            assert!((p - t).abs() < 1e-6, "{p} and {t}");
        }
    }
}

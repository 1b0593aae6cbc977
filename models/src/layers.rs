//! What the transformers share: activations, masks, positions.

use burn::nn::Linear;
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::kernels::{activate, linear, linear_onto};

/// `dropout(dense(x)) + residual`, the end of a transformer's sublayer.
///
/// # Shapes
/// - x: `[.., in]`
/// - residual and output: `[.., out]`
pub(crate) fn add_sublayer<B: Backend, const D: usize>(
    dense: &Linear<B>,
    dropout: &Dropout,
    x: Tensor<B, D>,
    residual: Tensor<B, D>,
) -> Tensor<B, D> {
    if B::ad_enabled(&x.device()) {
        return dropout.forward(linear(dense, x)) + residual;
    }
    linear_onto(dense, x, residual)
}

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
    #[error("{0} must be at least 1, not 0")]
    Zero(&'static str),
    /// A size beyond any model that weights could be had for: its tables alone would fill the memory.
    #[error("{name} = {value}, expected at most {limit}")]
    TooLarge {
        /// Key of the size.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// A probability outside of 0 to 1.
    #[error("{name} = {value}, expected a probability from 0 to 1")]
    NotAProbability {
        /// Key of the probability.
        name: &'static str,
        /// Its value.
        value: f64,
    },
}

/// The largest width or vocabulary.
const WIDEST: usize = 1 << 20;

/// The most layers of a kind.
const DEEPEST: usize = 1000;

/// The most levels of resolution of a U-Net or an autoencoder: 4096 pixels halved to two.
pub(crate) const LEVELS: usize = 12;

/// The most layers of such a level; published models have up to ten.
pub(crate) const LAYERS_OF_LEVEL: usize = 24;

impl ConfigError {
    /// Checks that each size of `sizes` is at least 1 and not beyond reason.
    pub fn check_sizes(sizes: &[(&'static str, usize)]) -> Result<(), Self> {
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Self::Zero(name));
        }
        Self::check_limit(sizes, WIDEST)
    }

    /// Checks that a number of layers, which may be 0, is not beyond reason.
    pub fn check_depth(name: &'static str, layers: usize) -> Result<(), Self> {
        Self::check_limit(&[(name, layers)], DEEPEST)
    }

    /// Checks that no size of `sizes` is above `limit`.
    pub(crate) fn check_limit(sizes: &[(&'static str, usize)], limit: usize) -> Result<(), Self> {
        match sizes.iter().find(|(_, size)| *size > limit) {
            Some(&(name, value)) => Err(Self::TooLarge { name, value, limit }),
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
        activate(self, x)
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
/// # Shapes
///
/// - `visible`: `[batch, keys]`, true where a key may be attended to; `None`: everywhere
/// - output: `[1 or batch, 1 or queries, keys]`, for [`crate::kernels::attention`]
pub fn attention_bias<B: Backend>(
    visible: Option<Tensor<B, 2, Bool>>,
    causal: bool,
    [queries, keys]: [usize; 2],
    device: &B::Device,
) -> Option<Tensor<B, 3>> {
    let padding = visible.map(|visible| visible.bool_not().unsqueeze_dim::<3>(1));
    let future = (causal && queries > 1).then(|| {
        let past = keys as i64 - queries as i64;
        let query = Tensor::<B, 1, Int>::arange(past..keys as i64, device);
        let key = Tensor::<B, 1, Int>::arange(0..keys as i64, device);
        let hidden = query
            .reshape([queries, 1])
            .repeat_dim(1, keys)
            .lower(key.reshape([1, keys]).repeat_dim(0, queries));
        hidden.unsqueeze::<3>()
    });
    let hidden = match (padding, future) {
        (Some(padding), Some(future)) => {
            let [batch, ..] = padding.dims();
            padding.repeat_dim(1, queries).bool_or(future.repeat_dim(0, batch))
        }
        (one, other) => one.or(other)?,
    };
    Some(hidden.float() * MASKED)
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
    use burn::backend::Flex;

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
            (false, vec![true, false, false, false]),
            (true, vec![true, false, false, true, true, false, false, false]),
        ] {
            let bias = attention_bias(Some(visible.clone()), causal, [2, 4], &device);
            let bias: Vec<f32> = bias.unwrap().into_data().to_vec().unwrap();
            let hidden: Vec<bool> = bias.iter().map(|&b| b != 0.0).collect();
            assert_eq!(hidden, expected);
        }
        assert!(attention_bias::<Flex>(None, true, [1, 4], &device).is_none());
        assert!(attention_bias::<Flex>(None, false, [4, 4], &device).is_none());
    }
}

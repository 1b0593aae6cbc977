//! The layers that both encoders of CLIP are made of.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

use crate::dropout::Dropout;
use crate::kernels::{attention, linear, linear_activated, linear_onto};
use crate::layer_norm::LayerNorm;
use crate::layers::Activation;

/// The sizes of a layer.
pub(super) struct LayerSizes {
    pub(super) width: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) epsilon: f64,
    pub(super) dropout: f64,
}

impl LayerSizes {
    pub(super) fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNorm::new(self.width, self.epsilon, device)
    }

    fn init<B: Backend>(&self, device: &B::Device) -> ClipEncoderLayer<B> {
        let width = self.width;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        ClipEncoderLayer {
            self_attn: ClipAttention {
                q_proj: linear(width, width),
                k_proj: linear(width, width),
                v_proj: linear(width, width),
                out_proj: linear(width, width),
                dropout: Dropout::new(self.dropout),
                heads: self.heads,
            },
            layer_norm1: self.norm(device),
            mlp: ClipMlp {
                fc1: linear(width, self.intermediate),
                fc2: linear(self.intermediate, width),
                activation: self.activation,
            },
            layer_norm2: self.norm(device),
        }
    }
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct ClipAttention<B: Backend> {
    /// `[hidden, hidden]`.
    pub q_proj: Linear<B>,
    /// `[hidden, hidden]`.
    pub k_proj: Linear<B>,
    /// `[hidden, hidden]`.
    pub v_proj: Linear<B>,
    /// `[hidden, hidden]`.
    pub out_proj: Linear<B>,
    /// On the attention weights.
    pub dropout: Dropout,
    /// Number of heads.
    pub heads: usize,
}

impl<B: Backend> ClipAttention<B> {
    fn forward(
        &self,
        hidden: Tensor<B, 3>,
        bias: Option<Tensor<B, 3>>,
        residual: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        let attended = attention(
            linear(&self.q_proj, hidden.clone()),
            linear(&self.k_proj, hidden.clone()),
            linear(&self.v_proj, hidden),
            self.heads,
            bias,
            &self.dropout,
        );
        linear_onto(&self.out_proj, attended, residual)
    }
}

/// The feed-forward part.
#[derive(Module, Debug)]
pub struct ClipMlp<B: Backend> {
    /// `[hidden, intermediate]`.
    pub fc1: Linear<B>,
    /// `[intermediate, hidden]`.
    pub fc2: Linear<B>,
    /// Between them.
    pub activation: Activation,
}

impl<B: Backend> ClipMlp<B> {
    fn forward(&self, x: Tensor<B, 3>, residual: Tensor<B, 3>) -> Tensor<B, 3> {
        linear_onto(&self.fc2, linear_activated(&self.fc1, self.activation, x), residual)
    }
}

/// One layer: norm and attention, norm and feed-forward, each with a residual.
#[derive(Module, Debug)]
pub struct ClipEncoderLayer<B: Backend> {
    /// Among the tokens.
    pub self_attn: ClipAttention<B>,
    /// Before the attention.
    pub layer_norm1: LayerNorm<B>,
    /// Feed-forward.
    pub mlp: ClipMlp<B>,
    /// Before the feed-forward part.
    pub layer_norm2: LayerNorm<B>,
}

impl<B: Backend> ClipEncoderLayer<B> {
    /// # Shapes
    ///
    /// - `hidden` and output: `[batch, n, hidden]`
    /// - `bias`: `[1 or batch, 1 or n, n]`, see [`crate::layers::attention_bias`]
    pub fn forward(&self, hidden: Tensor<B, 3>, bias: Option<Tensor<B, 3>>) -> Tensor<B, 3> {
        let normed = self.layer_norm1.forward(hidden.clone());
        let hidden = self.self_attn.forward(normed, bias, hidden);
        let normed = self.layer_norm2.forward(hidden.clone());
        self.mlp.forward(normed, hidden)
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct ClipEncoder<B: Backend> {
    /// From the input to the output.
    pub layers: Vec<ClipEncoderLayer<B>>,
}

impl<B: Backend> ClipEncoder<B> {
    pub(super) fn new(layers: usize, sizes: &LayerSizes, device: &B::Device) -> Self {
        Self { layers: (0..layers).map(|_| sizes.init(device)).collect() }
    }

    /// # Shapes
    ///
    /// - `hidden` and output: `[batch, n, hidden]`
    /// - `bias`: `[1 or batch, 1 or n, n]`, see [`crate::layers::attention_bias`]
    pub fn forward(&self, mut hidden: Tensor<B, 3>, bias: Option<Tensor<B, 3>>) -> Tensor<B, 3> {
        for layer in &self.layers {
            hidden = layer.forward(hidden, bias.clone());
        }
        hidden
    }
}

//! ViT: a transformer over the patches of a picture.
//!
//! Source: [Dosovitskiy et al.](https://arxiv.org/abs/2010.11929); structure and names as in the
//! published checkpoints of transformers' `ViTModel`.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::kernels::{attention, linear, linear_activated, linear_of_few};
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, ConfigError, add_sublayer, add_to_each};
use crate::patches::{embed_patches, positions_for};

/// The keys of transformers' `config.json` that describe the model. What is not given is as in
/// vit-base-patch16-224; keys that are not named here are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ViTConfig {
    /// Width of the states.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Dropout after the embeddings and after every block.
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Whether the projections to queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the model has a pooler. Not a key of transformers: weights without a head have one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub add_pooling_layer: bool,
}

impl Default for ViTConfig {
    fn default() -> Self {
        // https://huggingface.co/google/vit-base-patch16-224/blob/main/config.json
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            layer_norm_eps: 1e-12,
            image_size: 224,
            patch_size: 16,
            num_channels: 3,
            qkv_bias: true,
            add_pooling_layer: false,
        }
    }
}

impl ViTConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// A size is zero or beyond reason, the heads do not divide `hidden_size` or the patches `image_size`, or a
    /// dropout is no probability.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("num_channels", self.num_channels),
        ])?;
        ConfigError::check_depth("num_hidden_layers", self.num_hidden_layers)?;
        ConfigError::check_multiple(
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
        )?;
        ConfigError::check_multiple(
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        )?;
        ConfigError::check_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ])
    }

    /// Number of patches of a picture.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// The model, with weights as burn draws them; see [`crate::initialise`] for keyed ones.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Vit<B> {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let (width, patch) = (self.hidden_size, self.patch_size);
        Vit {
            embeddings: ViTEmbeddings {
                cls_token: normal.init([1, 1, width], device),
                position_embeddings: normal.init([1, 1 + self.num_patches(), width], device),
                patch_embeddings: ViTPatchEmbeddings {
                    projection: PatchProjection {
                        weight: normal.init([width, self.num_channels, patch, patch], device),
                        bias: Initializer::Zeros.init([width], device),
                    },
                },
                dropout: Dropout::new(self.hidden_dropout_prob),
            },
            encoder: ViTEncoder {
                layer: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect(),
            },
            layernorm: self.norm(device),
            pooler: self
                .add_pooling_layer
                .then(|| ViTPooler { dense: LinearConfig::new(width, width).init(device) }),
        }
    }

    /// The model with a linear classifier over `num_labels` labels.
    pub fn init_classifier<B: Backend>(
        &self,
        num_labels: usize,
        device: &B::Device,
    ) -> ViTForImageClassification<B> {
        ViTForImageClassification {
            vit: self.init(device),
            classifier: LinearConfig::new(self.hidden_size, num_labels).init(device),
        }
    }

    fn init_layer<B: Backend>(&self, device: &B::Device) -> ViTLayer<B> {
        let width = self.hidden_size;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let projection = || LinearConfig::new(width, width).with_bias(self.qkv_bias).init(device);
        ViTLayer {
            attention: ViTAttention {
                attention: ViTSelfAttention {
                    query: projection(),
                    key: projection(),
                    value: projection(),
                    dropout: Dropout::new(self.attention_probs_dropout_prob),
                    heads: self.num_attention_heads,
                },
                output: ViTOutput {
                    dense: linear(width, width),
                    dropout: Dropout::new(self.hidden_dropout_prob),
                },
            },
            intermediate: ViTIntermediate {
                dense: linear(width, self.intermediate_size),
                activation: self.hidden_act,
            },
            output: ViTOutput {
                dense: linear(self.intermediate_size, width),
                dropout: Dropout::new(self.hidden_dropout_prob),
            },
            layernorm_before: self.norm(device),
            layernorm_after: self.norm(device),
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }
}

/// The parameters of a convolution whose stride is its kernel's size.
#[derive(Module, Debug)]
pub struct PatchProjection<B: Backend> {
    /// `[hidden, channels, patch, patch]`.
    pub weight: Param<Tensor<B, 4>>,
    /// `[hidden]`.
    pub bias: Param<Tensor<B, 1>>,
}

/// From pixels to patches.
#[derive(Module, Debug)]
pub struct ViTPatchEmbeddings<B: Backend> {
    /// One linear map for all patches.
    pub projection: PatchProjection<B>,
}

impl<B: Backend> ViTPatchEmbeddings<B> {
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, height, width]`, both multiples of the patch size
    /// - output: `[batch, patches, hidden]`, row by row
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        self.embed(pixels).0
    }

    fn embed(&self, pixels: Tensor<B, 4>) -> (Tensor<B, 3>, [usize; 2]) {
        let (weight, bias) = (self.projection.weight.val(), self.projection.bias.val());
        embed_patches(pixels, weight, Some(bias))
    }
}

/// Patches with their positions, and the class token before them.
#[derive(Module, Debug)]
pub struct ViTEmbeddings<B: Backend> {
    /// `[1, 1, hidden]`.
    pub cls_token: Param<Tensor<B, 3>>,
    /// `[1, 1 + patches, hidden]`.
    pub position_embeddings: Param<Tensor<B, 3>>,
    /// From pixels to patches.
    pub patch_embeddings: ViTPatchEmbeddings<B>,
    /// After the sum.
    pub dropout: Dropout,
}

impl<B: Backend> ViTEmbeddings<B> {
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, height, width]`, both multiples of the patch size; positions
    ///   are interpolated for another size than the configuration's
    /// - output: `[batch, 1 + patches, hidden]`
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let (patches, grid) = self.patch_embeddings.embed(pixels);
        let [batch, _, width] = patches.dims();
        let class = self.cls_token.val().repeat_dim(0, batch);
        let states = Tensor::cat(vec![class, patches], 1);
        let positions = self.position_embeddings.val().reshape([-1, width as i32]);
        self.dropout.forward(add_to_each(states, positions_for(positions, grid)))
    }
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct ViTSelfAttention<B: Backend> {
    /// `[hidden, hidden]`.
    pub query: Linear<B>,
    /// `[hidden, hidden]`.
    pub key: Linear<B>,
    /// `[hidden, hidden]`.
    pub value: Linear<B>,
    /// On the attention weights.
    pub dropout: Dropout,
    /// Number of heads.
    pub heads: usize,
}

/// A projection with dropout, before a residual.
#[derive(Module, Debug)]
pub struct ViTOutput<B: Backend> {
    /// `[hidden or intermediate, hidden]`.
    pub dense: Linear<B>,
    /// After `dense`.
    pub dropout: Dropout,
}

impl<B: Backend> ViTOutput<B> {
    fn forward(&self, x: Tensor<B, 3>, residual: Tensor<B, 3>) -> Tensor<B, 3> {
        add_sublayer(&self.dense, &self.dropout, x, residual)
    }
}

/// Self-attention with its output projection.
#[derive(Module, Debug)]
pub struct ViTAttention<B: Backend> {
    /// The attention itself.
    pub attention: ViTSelfAttention<B>,
    /// Its output projection.
    pub output: ViTOutput<B>,
}

impl<B: Backend> ViTAttention<B> {
    fn forward(&self, hidden: Tensor<B, 3>, residual: Tensor<B, 3>) -> Tensor<B, 3> {
        let own = &self.attention;
        let attended = attention(
            linear(&own.query, hidden.clone()),
            linear(&own.key, hidden.clone()),
            linear(&own.value, hidden),
            own.heads,
            None,
            &own.dropout,
        );
        self.output.forward(attended, residual)
    }
}

/// The wide half of the feed-forward part.
#[derive(Module, Debug)]
pub struct ViTIntermediate<B: Backend> {
    /// `[hidden, intermediate]`.
    pub dense: Linear<B>,
    /// After `dense`.
    pub activation: Activation,
}

/// One layer: norm and attention, norm and feed-forward, each with a residual.
#[derive(Module, Debug)]
pub struct ViTLayer<B: Backend> {
    /// Among the tokens.
    pub attention: ViTAttention<B>,
    /// Feed-forward, first half.
    pub intermediate: ViTIntermediate<B>,
    /// Feed-forward, second half.
    pub output: ViTOutput<B>,
    /// Before the attention.
    pub layernorm_before: LayerNorm<B>,
    /// Before the feed-forward part.
    pub layernorm_after: LayerNorm<B>,
}

impl<B: Backend> ViTLayer<B> {
    /// `[batch, n, hidden]` to the same.
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let normed = self.layernorm_before.forward(hidden.clone());
        let hidden = self.attention.forward(normed, hidden);
        let normed = self.layernorm_after.forward(hidden.clone());
        let ViTIntermediate { dense, activation } = &self.intermediate;
        let wide = linear_activated(dense, *activation, normed);
        self.output.forward(wide, hidden)
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct ViTEncoder<B: Backend> {
    /// From the input to the output.
    pub layer: Vec<ViTLayer<B>>,
}

/// tanh of a linear layer over the class token's state.
#[derive(Module, Debug)]
pub struct ViTPooler<B: Backend> {
    /// `[hidden, hidden]`.
    pub dense: Linear<B>,
}

/// ViT without a head. Made by [`ViTConfig::init`].
#[derive(Module, Debug)]
pub struct Vit<B: Backend> {
    /// Patches, positions, class token.
    pub embeddings: ViTEmbeddings<B>,
    /// The layers.
    pub encoder: ViTEncoder<B>,
    /// After the last layer.
    pub layernorm: LayerNorm<B>,
    /// Where the configuration asks for one.
    pub pooler: Option<ViTPooler<B>>,
}

impl<B: Backend> Vit<B> {
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, image_size, image_size]`
    /// - output: `[batch, 1 + patches, hidden]`, the class token's state first
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let mut hidden = self.embeddings.forward(pixels);
        for layer in &self.encoder.layer {
            hidden = layer.forward(hidden);
        }
        self.layernorm.forward(hidden)
    }

    /// The pooled output `[batch, hidden]` of `hidden` `[batch, n, hidden]`: the pooler's, or the class
    /// token's state where there is none.
    pub fn pool(&self, hidden: Tensor<B, 3>) -> Tensor<B, 2> {
        let [batch, _, width] = hidden.dims();
        let class = hidden.narrow(1, 0, 1).reshape([batch, width]);
        match &self.pooler {
            Some(pooler) => linear_of_few(&pooler.dense, class).tanh(),
            None => class,
        }
    }

    /// The mean of all states, as BEiT pools (Bao et al. 2021): `pixels` as in [`Self::forward`],
    /// output `[batch, hidden]`.
    pub fn pool_mean(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.forward(pixels).mean_dim(1).squeeze_dim(1)
    }
}

/// ViT with a linear classifier on the class token. Made by [`ViTConfig::init_classifier`].
#[derive(Module, Debug)]
pub struct ViTForImageClassification<B: Backend> {
    /// The encoder.
    pub vit: Vit<B>,
    /// `[hidden, labels]`.
    pub classifier: Linear<B>,
}

impl<B: Backend> ViTForImageClassification<B> {
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, image_size, image_size]`
    /// - output: logits `[batch, labels]`
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let hidden = self.vit.forward(pixels);
        let [batch, _, width] = hidden.dims();
        let class = hidden.narrow(1, 0, 1).reshape([batch, width]);
        linear_of_few(&self.classifier, class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_that_do_not_tile_the_picture_are_refused() {
        let config = ViTConfig { image_size: 100, ..Default::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "image_size = 100 is no multiple of patch_size = 16"
        );
        assert_eq!(ViTConfig::default().check(), Ok(()));
        assert_eq!(ViTConfig::default().num_patches(), 196);
    }
}

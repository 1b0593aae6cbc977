//! The vision encoder of CLIP.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::layers::{ClipEncoder, LayerSizes};
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, ConfigError, add_to_each};
use crate::patches::{embed_patches, positions_for};

/// The keys of transformers' `config.json` (of its `vision_config`) that describe the model. What
/// is not given is as in clip-vit-base-patch32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Height and width of a picture, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout on the attention weights.
    pub attention_dropout: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        // https://huggingface.co/openai/clip-vit-base-patch32/blob/main/config.json
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
        }
    }
}

impl ClipVisionConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// A size is zero, the heads do not divide `hidden_size` or the patches `image_size`, or the
    /// dropout is no probability.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_channels", self.num_channels),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
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
        ConfigError::check_probabilities(&[("attention_dropout", self.attention_dropout)])
    }

    /// The model, with weights as burn draws them.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipVisionModel<B> {
        let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
        let (width, patch) = (self.hidden_size, self.patch_size);
        let positions = 1 + (self.image_size / patch).pow(2);
        let sizes = LayerSizes {
            width,
            intermediate: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
            dropout: self.attention_dropout,
        };
        ClipVisionModel {
            embeddings: ClipVisionEmbeddings {
                class_embedding: normal.init([width], device),
                patch_embedding: PatchProjection {
                    weight: normal.init([width, self.num_channels, patch, patch], device),
                },
                position_embedding: EmbeddingConfig::new(positions, width).init(device),
            },
            pre_layrnorm: sizes.norm(device),
            encoder: ClipEncoder::new(self.num_hidden_layers, &sizes, device),
            post_layernorm: sizes.norm(device),
        }
    }
}

/// The parameters of a convolution without bias whose stride is its kernel's size.
#[derive(Module, Debug)]
pub struct PatchProjection<B: Backend> {
    /// `[hidden, channels, patch, patch]`.
    pub weight: Param<Tensor<B, 4>>,
}

/// Patches with their positions, and the class token before them.
#[derive(Module, Debug)]
pub struct ClipVisionEmbeddings<B: Backend> {
    /// `[hidden]`.
    pub class_embedding: Param<Tensor<B, 1>>,
    /// From pixels to patches.
    pub patch_embedding: PatchProjection<B>,
    /// `[1 + patches, hidden]`.
    pub position_embedding: Embedding<B>,
}

impl<B: Backend> ClipVisionEmbeddings<B> {
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, height, width]`, both multiples of the patch size; positions
    ///   are interpolated for another size than the configuration's
    /// - output: `[batch, 1 + patches, hidden]`
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let (patches, grid) = embed_patches(pixels, self.patch_embedding.weight.val(), None);
        let [batch, _, width] = patches.dims();
        let class = self.class_embedding.val().reshape([1, 1, width]).repeat_dim(0, batch);
        let positions = positions_for(self.position_embedding.weight.val(), grid);
        add_to_each(Tensor::cat(vec![class, patches], 1), positions)
    }
}

/// The vision encoder. Made by [`ClipVisionConfig::init`].
#[derive(Module, Debug)]
pub struct ClipVisionModel<B: Backend> {
    /// Patches, positions, class token.
    pub embeddings: ClipVisionEmbeddings<B>,
    /// Before the first layer; the published name, slip included.
    pub pre_layrnorm: LayerNorm<B>,
    /// The layers.
    pub encoder: ClipEncoder<B>,
    /// Over the pooled state.
    pub post_layernorm: LayerNorm<B>,
}

impl<B: Backend> ClipVisionModel<B> {
    /// The last hidden state.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, height, width]`
    /// - output: `[batch, 1 + patches, hidden]`, the class token's state first
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let hidden = self.pre_layrnorm.forward(self.embeddings.forward(pixels));
        self.encoder.forward(hidden, None)
    }

    /// The class token's state, normalised.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch, 1 + patches, hidden]`, the output of [`Self::forward`]
    /// - output: `[batch, hidden]`
    pub fn pool(&self, hidden: Tensor<B, 3>) -> Tensor<B, 2> {
        let [batch, _, width] = hidden.dims();
        self.post_layernorm.forward(hidden.narrow(1, 0, 1).reshape([batch, width]))
    }
}

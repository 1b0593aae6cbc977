//! Both encoders with their projections into one space.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::{ClipTextConfig, ClipTextModel, ClipVisionConfig, ClipVisionModel};
use crate::kernels::linear_of_few;
use crate::layers::ConfigError;

/// The sizes of a CLIP. What is not given is as in clip-vit-base-patch32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// The text encoder.
    pub text_config: ClipTextConfig,
    /// The vision encoder.
    pub vision_config: ClipVisionConfig,
    /// Width of the space that both are projected to.
    pub projection_dim: usize,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
        }
    }
}

impl ClipConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// Those of [`ClipTextConfig::check`] and [`ClipVisionConfig::check`], or no projection.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text_config.check()?;
        self.vision_config.check()?;
        ConfigError::check_sizes(&[("projection_dim", self.projection_dim)])
    }

    /// The model, with weights as burn draws them. The logit scale starts at ln(1 / 0.07), as in
    /// the paper.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipModel<B> {
        ClipModel {
            text_model: self.text_config.init(device),
            vision_model: self.vision_config.init(device),
            text_projection: projection(self.text_config.hidden_size, self.projection_dim, device),
            visual_projection: projection(
                self.vision_config.hidden_size,
                self.projection_dim,
                device,
            ),
            logit_scale: initial_scale(device),
        }
    }
}

/// A text encoder and its projection alone (`CLIPTextModelWithProjection` of transformers).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClipTextProjectionConfig {
    /// The encoder.
    pub text: ClipTextConfig,
    /// Width of the space that its pooled state is projected to.
    pub projection_dim: usize,
}

impl ClipTextProjectionConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// Those of [`ClipTextConfig::check`], or no projection.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        ConfigError::check_sizes(&[("projection_dim", self.projection_dim)])
    }

    /// The model, with weights as burn draws them.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipTextModelWithProjection<B> {
        ClipTextModelWithProjection {
            text_model: self.text.init(device),
            text_projection: projection(self.text.hidden_size, self.projection_dim, device),
        }
    }
}

pub(super) fn projection<B: Backend>(from: usize, to: usize, device: &B::Device) -> Linear<B> {
    LinearConfig::new(from, to).with_bias(false).init(device)
}

pub(super) fn initial_scale<B: Backend>(device: &B::Device) -> Param<Tensor<B, 1>> {
    Param::from_tensor(Tensor::from_floats([f32::ln(1.0 / 0.07)], device))
}

/// Text and pictures in one space. Made by [`ClipConfig::init`].
#[derive(Module, Debug)]
pub struct ClipModel<B: Backend> {
    /// The text encoder.
    pub text_model: ClipTextModel<B>,
    /// The vision encoder.
    pub vision_model: ClipVisionModel<B>,
    /// `[hidden, projection]`, no bias.
    pub text_projection: Linear<B>,
    /// `[vision hidden, projection]`, no bias.
    pub visual_projection: Linear<B>,
    /// `[1]`; the logarithm of what cosines are multiplied by.
    pub logit_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> ClipModel<B> {
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`
    /// - output: `[batch, projection]`, each row of length 1
    pub fn text_features(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let hidden = self.text_model.forward(input_ids.clone(), None);
        let pooled = self.text_model.pool(hidden, input_ids);
        unit_rows(linear_of_few(&self.text_projection, pooled))
    }

    /// # Shapes
    ///
    /// - `pixels`: `[batch, channels, height, width]`
    /// - output: `[batch, projection]`, each row of length 1
    pub fn image_features(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let pooled = self.vision_model.pool(self.vision_model.forward(pixels));
        unit_rows(linear_of_few(&self.visual_projection, pooled))
    }

    /// Scaled cosines `[texts, pictures]` of the features of both.
    pub fn logits(&self, text: Tensor<B, 2>, image: Tensor<B, 2>) -> Tensor<B, 2> {
        scaled_cosines(text, image, self.logit_scale.val())
    }
}

/// Made by [`ClipTextProjectionConfig::init`].
#[derive(Module, Debug)]
pub struct ClipTextModelWithProjection<B: Backend> {
    /// The text encoder.
    pub text_model: ClipTextModel<B>,
    /// `[hidden, projection]`, no bias.
    pub text_projection: Linear<B>,
}

impl<B: Backend> ClipTextModelWithProjection<B> {
    /// The projected state of the last token, as it is.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`
    /// - output: `[batch, projection]`
    pub fn forward(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let hidden = self.text_model.forward(input_ids.clone(), None);
        linear_of_few(&self.text_projection, self.text_model.pool(hidden, input_ids))
    }
}

pub(super) fn scaled_cosines<B: Backend>(
    text: Tensor<B, 2>,
    image: Tensor<B, 2>,
    logit_scale: Tensor<B, 1>,
) -> Tensor<B, 2> {
    text.matmul(image.transpose()) * logit_scale.cast(DType::F32).exp().unsqueeze::<2>()
}

/// Rows scaled to length 1, in 32 bits.
pub fn unit_rows<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let x = x.cast(DType::F32);
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

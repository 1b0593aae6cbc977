//! CLIP's text encoder trained against a vision encoder that stays as it is.
//!
//! Source: [Zhai et al.](https://arxiv.org/abs/2111.07991), locked-image tuning.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::model::{initial_scale, projection, scaled_cosines, unit_rows};
use super::{ClipTextConfig, ClipTextModel};
use crate::kernels::linear_of_few;

/// Text encoder and projections; a vision encoder of its owner's choice gives the states that
/// `visual_projection` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedClipConfig {
    /// The text encoder.
    pub text_config: ClipTextConfig,
    /// Width of the vision encoder's pooled state.
    pub vision_hidden_size: usize,
    /// Width of the space that both are projected to.
    pub projection_dim: usize,
}

impl LockedClipConfig {
    /// The model, with weights as burn draws them. The logit scale starts at ln(1 / 0.07), as in
    /// the paper.
    pub fn init<B: Backend>(&self, device: &B::Device) -> LockedClip<B> {
        LockedClip {
            text_model: self.text_config.init(device),
            text_projection: projection(self.text_config.hidden_size, self.projection_dim, device),
            visual_projection: projection(self.vision_hidden_size, self.projection_dim, device),
            logit_scale: initial_scale(device),
        }
    }
}

/// Text and pictures in one space. Made by [`LockedClipConfig::init`].
#[derive(Module, Debug)]
pub struct LockedClip<B: Backend> {
    /// The text encoder.
    pub text_model: ClipTextModel<B>,
    /// `[hidden, projection]`, no bias.
    pub text_projection: Linear<B>,
    /// `[vision hidden, projection]`, no bias.
    pub visual_projection: Linear<B>,
    /// `[1]`; the logarithm of what cosines are multiplied by.
    pub logit_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> LockedClip<B> {
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
    /// - `pooled`: `[batch, vision hidden]`, the vision encoder's state of each picture
    /// - output: `[batch, projection]`, each row of length 1
    pub fn image_features(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        unit_rows(linear_of_few(&self.visual_projection, pooled))
    }

    /// Scaled cosines `[texts, pictures]` of the features of both.
    pub fn logits(&self, text: Tensor<B, 2>, image: Tensor<B, 2>) -> Tensor<B, 2> {
        scaled_cosines(text, image, self.logit_scale.val())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    #[test]
    fn logits_are_scaled_cosines() {
        let device = Default::default();
        let text_config = ClipTextConfig {
            vocab_size: 10,
            hidden_size: 4,
            intermediate_size: 8,
            num_attention_heads: 2,
            num_hidden_layers: 1,
            max_position_embeddings: 6,
            eos_token_id: 9,
            ..Default::default()
        };
        let config = LockedClipConfig { text_config, vision_hidden_size: 3, projection_dim: 5 };
        let model = config.init::<Flex>(&device);
        let ids = Tensor::from_data([[1, 2, 9, 0], [3, 9, 0, 0]], &device);
        let pooled = Tensor::from_floats([[0.3, -1.0, 2.0], [0.5, 0.1, -0.7]], &device);
        let (text, image) = (model.text_features(ids), model.image_features(pooled));
        let values = |x: Tensor<Flex, 2>| x.into_data().to_vec::<f32>().unwrap();
        let logits = values(model.logits(text.clone(), image.clone()));
        let (text, image) = (values(text), values(image));
        for (row, text) in text.chunks(5).enumerate() {
            let length: f32 = text.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5);
            for (column, image) in image.chunks(5).enumerate() {
                let cosine: f32 = text.iter().zip(image).map(|(a, b)| a * b).sum();
                assert!((logits[2 * row + column] - cosine / 0.07).abs() < 1e-4);
            }
        }
    }
}

//! The text encoder of CLIP, which conditions the diffusion, and the contrastive head.
//!
//! Source: [Radford et al.](https://arxiv.org/abs/2103.00020); structure and names after
//! transformers' `CLIPTextModel`, without the prefix `text_model`, and `CLIPModel`.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::layers::{
    Activation, ConfigError, add_to_each, attend, attention_bias, dense, merge_heads, split_heads,
};

/// The keys of transformers' `config.json` (of its `text_config`) that describe the model. What is
/// not given is as in clip-vit-base-patch32; keys that are not named here are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout on the attention weights.
    pub attention_dropout: f64,
    /// Id of the token whose state is the pooled output. The value 2, which older published
    /// configurations hold by mistake, means: the largest id of the sequence.
    pub eos_token_id: i64,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        // https://huggingface.co/openai/clip-vit-base-patch32/blob/main/config.json
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// A size is zero, the heads do not divide `hidden_size`, or the dropout is no probability.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        ConfigError::check_multiple(
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
        )?;
        ConfigError::check_probabilities(&[("attention_dropout", self.attention_dropout)])
    }

    /// The model, with weights as burn draws them; see [`crate::initialise`] for keyed ones.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipTextModel<B> {
        let embedding = |count| EmbeddingConfig::new(count, self.hidden_size).init(device);
        ClipTextModel {
            embeddings: ClipTextEmbeddings {
                token_embedding: embedding(self.vocab_size),
                position_embedding: embedding(self.max_position_embeddings),
            },
            encoder: ClipEncoder {
                layers: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect(),
            },
            final_layer_norm: self.norm().init(device),
            heads: self.num_attention_heads,
            eos_token_id: self.eos_token_id,
        }
    }

    fn init_layer<B: Backend>(&self, device: &B::Device) -> ClipEncoderLayer<B> {
        let width = self.hidden_size;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        ClipEncoderLayer {
            self_attn: ClipAttention {
                q_proj: linear(width, width),
                k_proj: linear(width, width),
                v_proj: linear(width, width),
                out_proj: linear(width, width),
                dropout: Dropout::new(self.attention_dropout),
                heads: self.num_attention_heads,
            },
            layer_norm1: self.norm().init(device),
            mlp: ClipMlp {
                fc1: linear(width, self.intermediate_size),
                fc2: linear(self.intermediate_size, width),
                activation: self.hidden_act,
            },
            layer_norm2: self.norm().init(device),
        }
    }

    fn norm(&self) -> LayerNormConfig {
        LayerNormConfig::new(self.hidden_size).with_epsilon(self.layer_norm_eps)
    }
}

/// Tokens and positions.
#[derive(Module, Debug)]
pub struct ClipTextEmbeddings<B: Backend> {
    /// `[vocab_size, hidden]`.
    pub token_embedding: Embedding<B>,
    /// `[max_position_embeddings, hidden]`.
    pub position_embedding: Embedding<B>,
}

impl<B: Backend> ClipTextEmbeddings<B> {
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`, n at most `max_position_embeddings`
    /// - output: `[batch, n, hidden]`
    pub fn forward(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [_, n] = input_ids.dims();
        let positions = self.position_embedding.weight.val().narrow(0, 0, n);
        add_to_each(self.token_embedding.forward(input_ids), positions)
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
    fn forward(&self, hidden: Tensor<B, 3>, bias: Option<Tensor<B, 4>>) -> Tensor<B, 3> {
        let project = |layer| split_heads(dense(layer, hidden.clone()), self.heads);
        let attended = attend(
            project(&self.q_proj),
            project(&self.k_proj),
            project(&self.v_proj),
            bias,
            &self.dropout,
        );
        dense(&self.out_proj, merge_heads(attended))
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
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        dense(&self.fc2, self.activation.forward(dense(&self.fc1, x)))
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
    /// - `bias`: `[batch, heads, n, n]`, see [`crate::layers::attention_bias`]
    pub fn forward(&self, hidden: Tensor<B, 3>, bias: Option<Tensor<B, 4>>) -> Tensor<B, 3> {
        let normed = self.layer_norm1.forward(hidden.clone());
        let hidden = self.self_attn.forward(normed, bias) + hidden;
        let normed = self.layer_norm2.forward(hidden.clone());
        self.mlp.forward(normed) + hidden
    }
}

/// The stack of layers.
#[derive(Module, Debug)]
pub struct ClipEncoder<B: Backend> {
    /// From the input to the output.
    pub layers: Vec<ClipEncoderLayer<B>>,
}

/// The text encoder. Made by [`ClipTextConfig::init`].
#[derive(Module, Debug)]
pub struct ClipTextModel<B: Backend> {
    /// Tokens and positions.
    pub embeddings: ClipTextEmbeddings<B>,
    /// The layers.
    pub encoder: ClipEncoder<B>,
    /// After the last layer.
    pub final_layer_norm: LayerNorm<B>,
    /// Number of attention heads.
    pub heads: usize,
    /// See [`ClipTextConfig::eos_token_id`].
    pub eos_token_id: i64,
}

impl<B: Backend> ClipTextModel<B> {
    /// The last hidden state; each token sees only those before it.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, n]`
    /// - `attention_mask`: `[batch, n]`, true at tokens and false at padding; `None`, which is
    ///   cheaper and what Stable Diffusion does: attend to everything
    /// - output: `[batch, n, hidden]`
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 3> {
        let [batch, n] = input_ids.dims();
        let shape = [batch, self.heads, n, n];
        let bias = attention_bias(attention_mask, true, shape, &input_ids.device());
        let mut hidden = self.embeddings.forward(input_ids);
        for layer in &self.encoder.layers {
            hidden = layer.forward(hidden, bias.clone());
        }
        self.final_layer_norm.forward(hidden)
    }

    /// The state at each sequence's end-of-text token, the first one; at the first token where
    /// there is none.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[batch, n, hidden]`, the output of [`Self::forward`]
    /// - `input_ids`: `[batch, n]`
    /// - output: `[batch, hidden]`
    pub fn pool(&self, hidden: Tensor<B, 3>, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let [batch, n, width] = hidden.dims();
        let device = hidden.device();
        let marks = if self.eos_token_id == 2 {
            let largest = input_ids.clone().max_dim(1); // [batch, 1]
            input_ids.equal(largest.expand([batch, n]))
        } else {
            input_ids.equal_elem(self.eos_token_id)
        };
        // Not by argmax: the backends differ in which of equal values they take, and in the width
        // of the integers they return.
        let rank = Tensor::<B, 1, Int>::arange(0..n as i64, &device)
            .mul_scalar(-1)
            .add_scalar(n as i64)
            .unsqueeze::<2>(); // n, n - 1, ..., 1
        let highest = (marks.int() * rank).max_dim(1).reshape([batch]); // 0 without a mark
        let end = highest.mul_scalar(-1).add_scalar(n as i64).remainder_scalar(n as i64);
        let start = Tensor::<B, 1, Int>::arange(0..batch as i64, &device) * n as i64;
        hidden.reshape([batch * n, width]).select(0, start + end)
    }
}

/// Text encoder and projections; a vision encoder of its owner's choice gives the states that
/// `visual_projection` takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// The text encoder.
    pub text_config: ClipTextConfig,
    /// Width of the vision encoder's pooled state.
    pub vision_hidden_size: usize,
    /// Width of the space that both are projected to.
    pub projection_dim: usize,
}

impl ClipConfig {
    /// The model, with weights as burn draws them. The logit scale starts at ln(1 / 0.07), as in
    /// the paper.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipModel<B> {
        let projection =
            |from| LinearConfig::new(from, self.projection_dim).with_bias(false).init(device);
        ClipModel {
            text_model: self.text_config.init(device),
            text_projection: projection(self.text_config.hidden_size),
            visual_projection: projection(self.vision_hidden_size),
            logit_scale: Param::from_tensor(Tensor::from_floats([f32::ln(1.0 / 0.07)], device)),
        }
    }
}

/// Text and pictures in one space. Made by [`ClipConfig::init`].
#[derive(Module, Debug)]
pub struct ClipModel<B: Backend> {
    /// The text encoder.
    pub text_model: ClipTextModel<B>,
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
        unit_rows(self.text_projection.forward(pooled))
    }

    /// # Shapes
    ///
    /// - `pooled`: `[batch, vision hidden]`, the vision encoder's state of each picture
    /// - output: `[batch, projection]`, each row of length 1
    pub fn image_features(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        unit_rows(self.visual_projection.forward(pooled))
    }

    /// Scaled cosines `[texts, pictures]` of the features of both.
    pub fn logits(&self, text: Tensor<B, 2>, image: Tensor<B, 2>) -> Tensor<B, 2> {
        text.matmul(image.transpose()) * self.logit_scale.val().exp().unsqueeze::<2>()
    }
}

fn unit_rows<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
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
        let config = ClipConfig { text_config, vision_hidden_size: 3, projection_dim: 5 };
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

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let config = ClipTextConfig { num_attention_heads: 5, ..Default::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "hidden_size = 512 is no multiple of num_attention_heads = 5"
        );
        assert_eq!(ClipTextConfig::default().check(), Ok(()));
    }

    #[test]
    fn the_pooled_state_stands_at_the_first_end_token_or_at_the_largest_id() {
        let device = Default::default();
        let hidden = Tensor::<Flex, 1, Int>::arange(0..8, &device).float().reshape([2, 4, 1]);
        for (eos_token_id, ids, expected) in [
            (7, [[9, 7, 7, 0], [1, 2, 3, 7]], [1.0, 7.0]),
            (7, [[1, 2, 3, 4], [7, 7, 7, 7]], [0.0, 4.0]),
            (2, [[5, 9, 9, 0], [1, 2, 8, 2]], [1.0, 6.0]),
        ] {
            let model = ClipTextConfig {
                vocab_size: 10,
                hidden_size: 1,
                num_attention_heads: 1,
                num_hidden_layers: 0,
                eos_token_id,
                ..Default::default()
            }
            .init::<Flex>(&device);
            let ids = Tensor::<Flex, 2, Int>::from_data(ids, &device);
            let pooled = model.pool(hidden.clone(), ids).into_data();
            assert_eq!(pooled.to_vec::<f32>().unwrap(), expected);
        }
    }
}

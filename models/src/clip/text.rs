//! The text encoder of CLIP, which conditions the diffusion.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::layers::{ClipEncoder, LayerSizes};
use crate::kernels::embedding;
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, ConfigError, add_to_each, attention_bias};

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
        ConfigError::check_depth("num_hidden_layers", self.num_hidden_layers)?;
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
            encoder: ClipEncoder::new(self.num_hidden_layers, &self.layers(), device),
            final_layer_norm: self.layers().norm(device),
            eos_token_id: self.eos_token_id,
        }
    }

    fn layers(&self) -> LayerSizes {
        LayerSizes {
            width: self.hidden_size,
            intermediate: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
            dropout: self.attention_dropout,
        }
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
        add_to_each(embedding(&self.token_embedding, input_ids), positions)
    }
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
        let [_, n] = input_ids.dims();
        let bias = attention_bias(attention_mask, true, [n, n], &input_ids.device());
        let hidden = self.encoder.forward(self.embeddings.forward(input_ids), bias);
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

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

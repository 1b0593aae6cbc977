//! Sizes and options of a BERT.

use burn::nn::{EmbeddingConfig, LinearConfig};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{
    Bert, BertAttention, BertEmbeddings, BertEncoder, BertForCausalLm, BertForMaskedLm,
    BertForSequenceClassification, BertIntermediate, BertLayer, BertLmHeads, BertOutput,
    BertPooler, BertSelfAttention, BertSelfOutput,
};
use crate::dropout::Dropout;
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, ConfigError};

/// The keys of transformers' `config.json` that describe the model. What is not given is as in
/// bert-base-uncased; keys that are not named here are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Activation of the feed-forward part and of the language-model head.
    pub hidden_act: Activation,
    /// Dropout after the embeddings and after every block.
    pub hidden_dropout_prob: f64,
    /// Dropout on the attention weights.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before a classifier; `None`: `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// The longest sequence.
    pub max_position_embeddings: usize,
    /// Number of segments; 0 for none, as in BLIP's decoder.
    pub type_vocab_size: usize,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Id of the padding token. The model does not read it (the mask says what is padding).
    pub pad_token_id: usize,
    /// Whether a token sees only those before it.
    pub is_decoder: bool,
    /// Whether every layer attends to encoder states.
    pub add_cross_attention: bool,
    /// Width of the encoder states; `None`: `hidden_size`.
    pub encoder_hidden_size: Option<usize>,
    /// Whether there is a pooler. Not in `config.json`: models with a language-model head have none.
    pub add_pooling_layer: bool,
}

impl Default for BertConfig {
    fn default() -> Self {
        // https://huggingface.co/google-bert/bert-base-uncased/blob/main/config.json
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            is_decoder: false,
            add_cross_attention: false,
            encoder_hidden_size: None,
            add_pooling_layer: false,
        }
    }
}

impl BertConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// A size is zero or beyond reason, the heads do not divide `hidden_size`, or a dropout is no
    /// probability.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("encoder_hidden_size", self.encoder_width()),
        ])?;
        if self.type_vocab_size > 0 {
            ConfigError::check_sizes(&[("type_vocab_size", self.type_vocab_size)])?;
        }
        ConfigError::check_depth("num_hidden_layers", self.num_hidden_layers)?;
        ConfigError::check_multiple(
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
        )?;
        ConfigError::check_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ])
    }

    /// The model, with weights as burn draws them; see [`crate::initialise`] for keyed ones.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Bert<B> {
        let embedding = |count| EmbeddingConfig::new(count, self.hidden_size).init(device);
        Bert {
            embeddings: BertEmbeddings {
                word_embeddings: embedding(self.vocab_size),
                position_embeddings: embedding(self.max_position_embeddings),
                token_type_embeddings: (self.type_vocab_size > 0)
                    .then(|| embedding(self.type_vocab_size)),
                layer_norm: self.norm(device),
                dropout: Dropout::new(self.hidden_dropout_prob),
            },
            encoder: BertEncoder {
                layer: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect(),
            },
            pooler: self.add_pooling_layer.then(|| BertPooler {
                dense: LinearConfig::new(self.hidden_size, self.hidden_size).init(device),
            }),
            heads: self.num_attention_heads,
            is_decoder: self.is_decoder,
        }
    }

    /// The model with a masked-language head.
    pub fn init_masked_lm<B: Backend>(&self, device: &B::Device) -> BertForMaskedLm<B> {
        BertForMaskedLm { bert: self.init(device), cls: BertLmHeads::init(self, device) }
    }

    /// The model with a head that predicts the next token; `is_decoder` should be set.
    pub fn init_causal_lm<B: Backend>(&self, device: &B::Device) -> BertForCausalLm<B> {
        BertForCausalLm { bert: self.init(device), cls: BertLmHeads::init(self, device) }
    }

    /// The model with a pooler and a linear classifier over `num_labels` labels.
    pub fn init_classifier<B: Backend>(
        &self,
        num_labels: usize,
        device: &B::Device,
    ) -> BertForSequenceClassification<B> {
        let config = Self { add_pooling_layer: true, ..self.clone() };
        BertForSequenceClassification {
            bert: config.init(device),
            dropout: Dropout::new(self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)),
            classifier: LinearConfig::new(self.hidden_size, num_labels).init(device),
        }
    }

    fn init_layer<B: Backend>(&self, device: &B::Device) -> BertLayer<B> {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        BertLayer {
            attention: self.init_attention(self.hidden_size, device),
            crossattention: self
                .add_cross_attention
                .then(|| self.init_attention(self.encoder_width(), device)),
            intermediate: BertIntermediate {
                dense: linear(self.hidden_size, self.intermediate_size),
                activation: self.hidden_act,
            },
            output: BertOutput {
                dense: linear(self.intermediate_size, self.hidden_size),
                layer_norm: self.norm(device),
                dropout: Dropout::new(self.hidden_dropout_prob),
            },
        }
    }

    fn init_attention<B: Backend>(
        &self,
        source_width: usize,
        device: &B::Device,
    ) -> BertAttention<B> {
        let linear = |from| LinearConfig::new(from, self.hidden_size).init(device);
        BertAttention {
            self_attn: BertSelfAttention {
                query: linear(self.hidden_size),
                key: linear(source_width),
                value: linear(source_width),
                dropout: Dropout::new(self.attention_probs_dropout_prob),
                heads: self.num_attention_heads,
            },
            output: BertSelfOutput {
                dense: linear(self.hidden_size),
                layer_norm: self.norm(device),
                dropout: Dropout::new(self.hidden_dropout_prob),
            },
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNorm::new(self.hidden_size, self.layer_norm_eps, device)
    }

    fn encoder_width(&self) -> usize {
        self.encoder_hidden_size.unwrap_or(self.hidden_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_configuration_is_read_and_its_other_keys_are_ignored() {
        let config: BertConfig = serde_json::from_str(
            r#"{"architectures": ["BertForMaskedLM"], "hidden_size": 128, "hidden_act": "gelu_new",
                "num_attention_heads": 2, "initializer_range": 0.02}"#,
        )
        .unwrap();
        assert_eq!(config.hidden_size, 128);
        assert_eq!(config.hidden_act, Activation::GeluNew);
        assert_eq!(config.vocab_size, 30522);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_configuration_that_describes_no_model_is_refused() {
        let config = BertConfig { num_attention_heads: 7, ..Default::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "hidden_size = 768 is no multiple of num_attention_heads = 7"
        );
        let config = BertConfig { vocab_size: 0, ..Default::default() };
        assert_eq!(config.check(), Err(ConfigError::Zero("vocab_size")));
        let config = BertConfig { hidden_dropout_prob: 1.5, ..Default::default() };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "hidden_dropout_prob = 1.5, expected a probability from 0 to 1"
        );
    }
}

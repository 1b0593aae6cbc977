//! Language-model heads.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, DType, Int, Tensor, backend::Backend};

use super::{Bert, BertCache, BertConfig, EncoderStates};
use crate::dropout::Dropout;
use crate::kernels::{linear, linear_of_few, product};
use crate::layer_norm::LayerNorm;
use crate::layers::Activation;

/// Dense layer, activation and norm before the decoder.
#[derive(Module, Debug)]
pub struct BertTransform<B: Backend> {
    /// `[hidden, hidden]`.
    pub dense: Linear<B>,
    /// After `dense`.
    pub activation: Activation,
    /// After the activation.
    pub layer_norm: LayerNorm<B>,
}

/// Logits over the vocabulary; the decoder's weight is the table of word embeddings.
#[derive(Module, Debug)]
pub struct BertLmHead<B: Backend> {
    /// Before the decoder.
    pub transform: BertTransform<B>,
    /// `[vocab_size]`.
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> BertLmHead<B> {
    /// # Shapes
    ///
    /// - `states`: `[rows, hidden]`
    /// - `word_embeddings`: `[vocab_size, hidden]`
    /// - output: `[rows, vocab_size]`, in 32 bits
    pub fn forward(&self, states: Tensor<B, 2>, word_embeddings: Tensor<B, 2>) -> Tensor<B, 2> {
        let transform = &self.transform;
        let states = transform.activation.forward(linear(&transform.dense, states));
        let states = transform.layer_norm.forward(states);
        let logits = product(states, word_embeddings.transpose());
        let bias = self.bias.val().cast(logits.dtype()).unsqueeze::<2>();
        (logits + bias).cast(DType::F32)
    }
}

/// `cls` of transformers' models.
#[derive(Module, Debug)]
pub struct BertLmHeads<B: Backend> {
    /// The head.
    pub predictions: BertLmHead<B>,
}

impl<B: Backend> BertLmHeads<B> {
    pub(super) fn init(config: &BertConfig, device: &B::Device) -> Self {
        let width = config.hidden_size;
        Self {
            predictions: BertLmHead {
                transform: BertTransform {
                    dense: LinearConfig::new(width, width).init(device),
                    activation: config.hidden_act,
                    layer_norm: LayerNorm::new(width, config.layer_norm_eps, device),
                },
                bias: Initializer::Zeros.init([config.vocab_size], device),
            },
        }
    }

    fn logits(&self, bert: &Bert<B>, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let table = bert.embeddings.word_embeddings.weight.val();
        self.predictions.forward(states, table)
    }

    fn all_logits(&self, bert: &Bert<B>, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, n, width] = hidden.dims();
        let logits = self.logits(bert, hidden.reshape([batch * n, width]));
        let [_, vocab] = logits.dims();
        logits.reshape([batch, n, vocab])
    }
}

/// BERT that predicts masked tokens. Made by [`BertConfig::init_masked_lm`].
#[derive(Module, Debug)]
pub struct BertForMaskedLm<B: Backend> {
    /// The encoder.
    pub bert: Bert<B>,
    /// The head.
    pub cls: BertLmHeads<B>,
}

impl<B: Backend> BertForMaskedLm<B> {
    /// Logits `[batch, n, vocab_size]` at every position; the arguments are [`Bert::forward`]'s.
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        token_type_ids: Option<Tensor<B, 2, Int>>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 3> {
        let hidden = self.bert.forward(input_ids, token_type_ids, attention_mask);
        self.cls.all_logits(&self.bert, hidden)
    }

    /// Logits `[rows, vocab_size]` of chosen states `[rows, hidden]`: in training, those of the
    /// masked positions are a small part of all.
    pub fn logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.cls.logits(&self.bert, states)
    }
}

/// BERT that predicts the next token (`BertLMHeadModel` of transformers), given encoder states or
/// not. Made by [`BertConfig::init_causal_lm`].
#[derive(Module, Debug)]
pub struct BertForCausalLm<B: Backend> {
    /// The decoder.
    pub bert: Bert<B>,
    /// The head.
    pub cls: BertLmHeads<B>,
}

impl<B: Backend> BertForCausalLm<B> {
    /// Logits `[batch, n, vocab_size]` of the token after each of `input_ids`; the arguments are
    /// [`Bert::decode`]'s.
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
        encoder: Option<&EncoderStates<B>>,
        cache: Option<&mut BertCache<B>>,
    ) -> Tensor<B, 3> {
        let hidden = self.bert.decode(input_ids, attention_mask, encoder, cache);
        self.cls.all_logits(&self.bert, hidden)
    }

    /// Logits `[rows, vocab_size]` of chosen states `[rows, hidden]` of [`Bert::decode`], such as
    /// those of the last tokens.
    pub fn logits(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        self.cls.logits(&self.bert, states)
    }
}

/// BERT with a linear classifier on the pooled output. Made by [`BertConfig::init_classifier`].
#[derive(Module, Debug)]
pub struct BertForSequenceClassification<B: Backend> {
    /// The encoder, with its pooler.
    pub bert: Bert<B>,
    /// On the pooled output.
    pub dropout: Dropout,
    /// `[hidden, labels]`.
    pub classifier: Linear<B>,
}

impl<B: Backend> BertForSequenceClassification<B> {
    /// Logits `[batch, labels]`; the arguments are [`Bert::forward`]'s.
    pub fn forward(
        &self,
        input_ids: Tensor<B, 2, Int>,
        token_type_ids: Option<Tensor<B, 2, Int>>,
        attention_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 2> {
        let hidden = self.bert.forward(input_ids, token_type_ids, attention_mask);
        let pooled = self.bert.pool(hidden);
        linear_of_few(&self.classifier, self.dropout.forward(pooled))
    }
}

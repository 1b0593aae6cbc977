//! A captioner: a ViT encoder and a BERT decoder that attends to its patches.
//!
//! The layout and the names are those of BLIP's captioner ([Li et al.](https://arxiv.org/abs/2201.12086);
//! `BlipForConditionalGeneration` of transformers). Decoding stands in [`crate::decoding`].

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation::log_softmax, backend::Backend};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::bert::{BertCache, BertConfig, BertForCausalLm, EncoderStates};
use crate::decoding::{self, Decoded, Decoding, DecodingError, NextToken, Request};
use crate::layers::ConfigError;
use crate::loss::cross_entropy;
use crate::vit::{ViTConfig, Vit};

/// Sizes of a captioner.
///
/// The text part is a decoder with cross-attention to states of the vision part's width, whatever
/// its own configuration says of that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptionerConfig {
    /// The encoder of pictures.
    pub vision: ViTConfig,
    /// The decoder of text.
    pub text: BertConfig,
}

impl CaptionerConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// Those of [`ViTConfig::check`] and [`BertConfig::check`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.vision.check()?;
        self.decoder().check()
    }

    /// The model, with weights as burn draws them; see [`crate::initialise`] for keyed ones.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Captioner<B> {
        Captioner {
            vision_model: self.vision.init(device),
            text_decoder: self.decoder().init_causal_lm(device),
        }
    }

    fn decoder(&self) -> BertConfig {
        BertConfig {
            is_decoder: true,
            add_cross_attention: true,
            encoder_hidden_size: Some(self.vision.hidden_size),
            ..self.text.clone()
        }
    }
}

/// ViT and BERT decoder. Made by [`CaptionerConfig::init`].
#[derive(Module, Debug)]
pub struct Captioner<B: Backend> {
    /// The encoder of pictures.
    pub vision_model: Vit<B>,
    /// The decoder of text, with its language-model head.
    pub text_decoder: BertForCausalLm<B>,
}

impl<B: Backend> Captioner<B> {
    /// The states of the patches, which the decoder reads.
    ///
    /// # Shapes
    ///
    /// - `pictures`: `[batch, 3, height, width]`
    /// - output: `[batch, patches + 1, vision hidden]`
    pub fn encode(&self, pictures: Tensor<B, 4>) -> Tensor<B, 3> {
        self.vision_model.forward(pictures)
    }

    /// Logits of the token after each of `ids` (teacher forcing).
    ///
    /// # Shapes
    ///
    /// - `pictures`: `[batch, 3, height, width]`
    /// - `ids`: `[batch, n]`
    /// - `mask`: `[batch, n]`, true at tokens, false at padding. Padding after the text needs none:
    ///   no token sees what stands after it.
    /// - output: `[batch, n, vocabulary]`
    pub fn forward(
        &self,
        pictures: Tensor<B, 4>,
        ids: Tensor<B, 2, Int>,
        mask: Option<Tensor<B, 2, Bool>>,
    ) -> Tensor<B, 3> {
        let encoder = EncoderStates {
            hidden: self.encode(pictures),
            mask: None,
        };
        self.text_decoder.forward(ids, mask, Some(&encoder), None)
    }

    /// The mean cross-entropy of the captions in nats a token, see [`cross_entropy`].
    ///
    /// # Shapes
    ///
    /// - `logits`: `[batch, n, vocabulary]`, of [`Self::forward`] on all tokens but the last
    /// - `targets`: `[batch, n]`, all tokens but the first
    /// - `counted`: `[batch, n]`, false where the target belongs to the prompt or is padding
    /// - output: `[1]`
    pub fn loss(
        logits: Tensor<B, 3>,
        targets: Tensor<B, 2, Int>,
        counted: Tensor<B, 2, Bool>,
        label_smoothing: f64,
    ) -> Tensor<B, 1> {
        let [batch, n, vocabulary] = logits.dims();
        let rows = batch * n;
        cross_entropy(
            logits.reshape([rows, vocabulary]),
            targets.reshape([rows]),
            Some(counted.reshape([rows])),
            label_smoothing,
        )
    }

    /// A caption for each picture; the arguments are [`decoding::decode`]'s.
    ///
    /// # Shapes
    ///
    /// - `pictures`: `[requests, 3, height, width]`
    pub fn generate(
        &self,
        pictures: Tensor<B, 4>,
        requests: &[Request],
        options: &Decoding,
        rngs: &mut [ChaCha8Rng],
    ) -> Result<Vec<Decoded>, DecodingError> {
        self.generate_from(self.encode(pictures), requests, options, rngs)
    }

    /// [`Self::generate`] from the output of [`Self::encode`], which serves several captions.
    pub fn generate_from(
        &self,
        states: Tensor<B, 3>,
        requests: &[Request],
        options: &Decoding,
        rngs: &mut [ChaCha8Rng],
    ) -> Result<Vec<Decoded>, DecodingError> {
        let mut model = CachedDecoder {
            decoder: &self.text_decoder,
            encoder: EncoderStates {
                hidden: states,
                mask: None,
            },
            cache: BertCache::new(),
        };
        decoding::decode(&mut model, requests, options, rngs)
    }
}

/// The decoder over a batch of pictures, with the keys and values of what it has read.
struct CachedDecoder<'a, B: Backend> {
    decoder: &'a BertForCausalLm<B>,
    /// Read in the first step; from then on its keys and values are in the cache.
    encoder: EncoderStates<B>,
    cache: BertCache<B>,
}

impl<B: Backend> NextToken for CachedDecoder<'_, B> {
    fn rows(&self) -> usize {
        self.encoder.hidden.dims()[0]
    }

    fn vocabulary(&self) -> usize {
        let embeddings = &self.decoder.bert.embeddings;
        embeddings.word_embeddings.weight.dims()[0]
    }

    fn capacity(&self) -> usize {
        let embeddings = &self.decoder.bert.embeddings;
        embeddings.position_embeddings.weight.dims()[0]
    }

    fn reorder(&mut self, rows: &[usize]) {
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::<B, 1, Int>::from_data(
            TensorData::new(index, [rows.len()]),
            &self.encoder.hidden.device(),
        );
        if self.cache.is_empty() {
            self.encoder.hidden = self.encoder.hidden.clone().select(0, index);
        } else {
            self.cache.select(index);
        }
    }

    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        let rows = tokens.len();
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let ids = Tensor::<B, 2, Int>::from_data(
            TensorData::new(ids, [rows, 1]),
            &self.encoder.hidden.device(),
        );
        let decoder = self.decoder;
        let encoder = Some(&self.encoder);
        let states = decoder
            .bert
            .decode(ids, None, encoder, Some(&mut self.cache)); // [rows, 1, hidden]
        let logits = decoder.logits(states.squeeze_dim(1));
        log_softmax(logits, 1)
            .into_data()
            .convert::<f32>()
            .into_vec()
            .expect("the data were just converted to f32")
    }
}

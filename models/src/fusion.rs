//! The classifier of relations over a sentence and a picture; teacher and student alike.
//!
//! BERT reads the sentence, in which special tokens mark the head and the tail; ViT reads the
//! picture; the states of the two markers attend to the patches; a classifier reads both the states
//! and what they attended to. A modality that an example lacks is replaced by learned vectors before
//! anything else sees it, so that one network gives q(y|text), q(y|picture) and q(y|text, picture),
//! and none of them depends on what is masked.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::bert::{Bert, BertConfig};
use crate::dropout::Dropout;
use crate::kernels::{attention, linear};
use crate::layer_norm::LayerNorm;
use crate::layers::{Activation, ConfigError};
use crate::vit::{ViTConfig, Vit};

/// Head and tail.
const MARKERS: usize = 2;

/// Sizes and options of the classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FusionConfig {
    /// The encoder of sentences.
    pub text: BertConfig,
    /// The encoder of pictures.
    pub vision: ViTConfig,
    /// Number of relations, `None` included.
    pub num_labels: usize,
    /// Width of the cross-attention and of the classifier's hidden layer.
    pub fusion_size: usize,
    /// Heads of the cross-attention; divides `fusion_size`.
    pub fusion_heads: usize,
    /// Activation of the classifier's hidden layer.
    pub fusion_act: Activation,
    /// Dropout on the attention weights and before both layers of the classifier.
    pub fusion_dropout: f64,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            text: BertConfig::default(),
            vision: ViTConfig::default(),
            num_labels: 23,
            fusion_size: 768,
            fusion_heads: 12,
            fusion_act: Activation::Gelu,
            fusion_dropout: 0.1,
        }
    }
}

impl FusionConfig {
    /// Says what is wrong with values that come from outside; [`Self::init`] relies on it.
    ///
    /// # Errors
    ///
    /// Those of [`BertConfig::check`] and [`ViTConfig::check`]; a size is zero, the heads do not
    /// divide `fusion_size`, or the dropout is no probability.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.text.check()?;
        self.vision.check()?;
        ConfigError::check_sizes(&[
            ("num_labels", self.num_labels),
            ("fusion_size", self.fusion_size),
            ("fusion_heads", self.fusion_heads),
        ])?;
        ConfigError::check_multiple(
            ("fusion_size", self.fusion_size),
            ("fusion_heads", self.fusion_heads),
        )?;
        ConfigError::check_probabilities(&[("fusion_dropout", self.fusion_dropout)])
    }

    /// The model, with weights as burn draws them; see [`crate::initialise`] for keyed ones.
    pub fn init<B: Backend>(&self, device: &B::Device) -> FusionClassifier<B> {
        FusionClassifier {
            text: self.text.init(device),
            vision: self.vision.init(device),
            head: self.init_head(device),
        }
    }

    fn init_head<B: Backend>(&self, device: &B::Device) -> FusionHead<B> {
        let size = self.fusion_size;
        let text = self.text.hidden_size;
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let absent =
            |width| Initializer::Normal { mean: 0.0, std: 0.02 }.init([MARKERS, width], device);
        FusionHead {
            absent_text: absent(text),
            absent_picture: absent(size),
            query: linear(text, size),
            key: linear(self.vision.hidden_size, size),
            value: linear(self.vision.hidden_size, size),
            output: linear(size, size),
            layer_norm: LayerNorm::new(size, self.text.layer_norm_eps, device),
            dense: linear(MARKERS * (text + size), size),
            activation: self.fusion_act,
            classifier: linear(size, self.num_labels),
            dropout: Dropout::new(self.fusion_dropout),
            heads: self.fusion_heads,
        }
    }
}

/// Sentences with marked entities.
#[derive(Clone, Debug)]
pub struct Sentences<B: Backend> {
    /// `[batch, n]`, head and tail marked by special tokens.
    pub ids: Tensor<B, 2, Int>,
    /// `[batch, n]`, true at tokens, false at padding; `None`: no padding.
    pub mask: Option<Tensor<B, 2, Bool>>,
    /// `[batch]`, the position of the head's marker, below n.
    pub head: Tensor<B, 1, Int>,
    /// `[batch]`, the position of the tail's marker, below n.
    pub tail: Tensor<B, 1, Int>,
}

/// Which modalities each example has.
#[derive(Clone, Debug)]
pub struct Presence<B: Backend> {
    /// `[batch]`.
    pub text: Tensor<B, 1, Bool>,
    /// `[batch]`.
    pub picture: Tensor<B, 1, Bool>,
}

/// Encoders and head. Made by [`FusionConfig::init`].
#[derive(Module, Debug)]
pub struct FusionClassifier<B: Backend> {
    /// The encoder of sentences.
    pub text: Bert<B>,
    /// The encoder of pictures.
    pub vision: Vit<B>,
    /// What joins them.
    pub head: FusionHead<B>,
}

impl<B: Backend> FusionClassifier<B> {
    /// Logits of the relations.
    ///
    /// A modality that no example of the batch has can be left out, which saves its encoder; the
    /// logits are the same.
    ///
    /// # Shapes
    ///
    /// - `pictures`: `[batch, 3, height, width]`
    /// - output: `[batch, labels]`
    pub fn forward(
        &self,
        sentences: Option<&Sentences<B>>,
        pictures: Option<Tensor<B, 4>>,
        presence: Presence<B>,
    ) -> Tensor<B, 2> {
        let markers = sentences.map(|sentences| self.encode_text(sentences));
        let patches = pictures.map(|pictures| self.encode_pictures(pictures));
        self.head.forward(markers, patches, presence)
    }

    /// The states of the head's and the tail's marker, `[batch, 2, text hidden]`.
    pub fn encode_text(&self, sentences: &Sentences<B>) -> Tensor<B, 3> {
        let states = self.text.forward(sentences.ids.clone(), None, sentences.mask.clone());
        let [batch, n, width] = states.dims();
        let first = Tensor::arange_step(0..(batch * n) as i64, n, &states.device());
        let rows = Tensor::stack::<2>(
            vec![sentences.head.clone() + first.clone(), sentences.tail.clone() + first],
            1,
        ); // [batch, 2], into all states of the batch
        states
            .reshape([batch * n, width])
            .select(0, rows.reshape([batch * MARKERS]))
            .reshape([batch, MARKERS, width])
    }

    /// The states of the patches, `[batch, patches + 1, vision hidden]`.
    pub fn encode_pictures(&self, pictures: Tensor<B, 4>) -> Tensor<B, 3> {
        self.vision.forward(pictures)
    }
}

/// Cross-attention from the markers to the patches, and the classifier.
#[derive(Module, Debug)]
pub struct FusionHead<B: Backend> {
    /// `[2, text hidden]`, in place of the markers' states where the text is absent.
    pub absent_text: Param<Tensor<B, 2>>,
    /// `[2, fusion]`, in place of what the markers attended to where the picture is absent.
    pub absent_picture: Param<Tensor<B, 2>>,
    /// `[text hidden, fusion]`.
    pub query: Linear<B>,
    /// `[vision hidden, fusion]`.
    pub key: Linear<B>,
    /// `[vision hidden, fusion]`.
    pub value: Linear<B>,
    /// `[fusion, fusion]`, after the attention.
    pub output: Linear<B>,
    /// After `output`: it brings the patches to the scale of the markers' states.
    pub layer_norm: LayerNorm<B>,
    /// `[2 text hidden + 2 fusion, fusion]`, the classifier's hidden layer.
    pub dense: Linear<B>,
    /// After `dense`.
    pub activation: Activation,
    /// `[fusion, labels]`.
    pub classifier: Linear<B>,
    /// On the attention weights and before `dense` and `classifier`.
    pub dropout: Dropout,
    /// Heads of the attention.
    pub heads: usize,
}

impl<B: Backend> FusionHead<B> {
    /// Logits of the relations from the encoders' output.
    ///
    /// # Shapes
    ///
    /// - `markers`: `[batch, 2, text hidden]`, of [`FusionClassifier::encode_text`]; `None`: no
    ///   example has a text
    /// - `patches`: `[batch, patches, vision hidden]`, of [`FusionClassifier::encode_pictures`];
    ///   `None`: no example has a picture
    /// - output: `[batch, labels]`
    pub fn forward(
        &self,
        markers: Option<Tensor<B, 3>>,
        patches: Option<Tensor<B, 3>>,
        presence: Presence<B>,
    ) -> Tensor<B, 2> {
        let [batch] = presence.text.dims();
        let markers = present_or(markers, &self.absent_text, presence.text);
        // The queries come after the replacement: an absent text does not even choose patches.
        let attended = patches.map(|patches| self.attend(markers.clone(), patches));
        let attended = present_or(attended, &self.absent_picture, presence.picture);
        let features = Tensor::cat(vec![markers, attended], 2); // [batch, 2, text + fusion]
        let [_, _, width] = features.dims();
        let features = features.reshape([batch, MARKERS * width]);
        let hidden = linear(&self.dense, self.dropout.forward(features));
        let hidden = self.activation.forward(hidden);
        linear(&self.classifier, self.dropout.forward(hidden))
    }

    fn attend(&self, markers: Tensor<B, 3>, patches: Tensor<B, 3>) -> Tensor<B, 3> {
        let attended = attention(
            linear(&self.query, markers),
            linear(&self.key, patches.clone()),
            linear(&self.value, patches),
            self.heads,
            None,
            &self.dropout,
        );
        self.layer_norm.forward(linear(&self.output, attended))
    }
}

/// `states` where `present`, `absent` elsewhere.
///
/// # Shapes
///
/// - `states` and output: `[batch, 2, width]`; `absent`: `[2, width]`; `present`: `[batch]`
fn present_or<B: Backend>(
    states: Option<Tensor<B, 3>>,
    absent: &Param<Tensor<B, 2>>,
    present: Tensor<B, 1, Bool>,
) -> Tensor<B, 3> {
    let [batch] = present.dims();
    let absent = absent.val().unsqueeze::<3>().repeat_dim(0, batch);
    match states {
        // A choice rather than a sum weighted by 0 and 1: nothing gets through, not even NaN.
        Some(states) => {
            let present = present.reshape([batch, 1, 1]).expand(states.shape());
            absent.mask_where(present, states)
        }
        None => absent,
    }
}

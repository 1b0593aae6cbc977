//! BLIP's captioner: blip-image-captioning-base and -large.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bert::{OLDER, POSITION_IDS, RENAMES};
use super::transformers::TRANSFORMERS;
use super::{
    Accepted, Archive, Fused, KeyError, Names, Precision, PublishedError, configuration, load,
};
use crate::bert::BertConfig;
use crate::captioner::{Captioner, CaptionerConfig};
use crate::layers::Activation;
use crate::vit::ViTConfig;

const ACCEPTED: Accepted = Accepted {
    fixed: &[("tie_word_embeddings", &["true"])],
    // Sizes of the heads that match pictures and texts, and of their training.
    ignored: &["projection_dim", "image_text_hidden_size", "logit_scale_init_value", "dropout"],
};

const fn qkv(ours: &'static str, part: usize) -> Fused {
    Fused { ours, theirs: ".self_attn.qkv.", part, of: 3 }
}

/// The vision encoder is ViT's under CLIP's names.
const VISION: &[(&str, &str)] = &[
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
    ("vision_model.layernorm.", "vision_model.post_layernorm."),
    ("encoder.layer.", "encoder.layers."),
    ("layernorm_before", "layer_norm1"),
    ("layernorm_after", "layer_norm2"),
    ("attention.output.dense", "self_attn.projection"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
];

/// Queries, keys and values of the vision encoder are one matrix in the file.
pub(super) const NAMES: Names = Names {
    prefix: "",
    renames: &[("vision_model.", VISION), ("text_decoder.", RENAMES)],
    older: OLDER,
    fused: &[
        qkv(".attention.attention.query.", 0),
        qkv(".attention.attention.key.", 1),
        qkv(".attention.attention.value.", 2),
    ],
    tied: &[
        (
            "text_decoder.cls.predictions.decoder.weight",
            "text_decoder.bert.embeddings.word_embeddings.weight",
        ),
        ("text_decoder.cls.predictions.decoder.bias", "text_decoder.cls.predictions.bias"),
    ],
    unread: &[POSITION_IDS],
};

/// Sizes and special tokens of a captioner.
#[derive(Clone, Debug, PartialEq)]
pub struct BlipConfig {
    /// The model.
    pub model: CaptionerConfig,
    /// Begins every caption.
    pub bos_token_id: u32,
    /// Ends every caption.
    pub sep_token_id: u32,
    /// Fills up.
    pub pad_token_id: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Text {
    vocab_size: usize,
    hidden_size: usize,
    encoder_hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    hidden_dropout_prob: f64,
    attention_probs_dropout_prob: f64,
    is_decoder: bool,
    bos_token_id: u32,
    pad_token_id: u32,
    sep_token_id: u32,
}

impl Default for Text {
    fn default() -> Self {
        // transformers' BlipTextConfig.
        Self {
            vocab_size: 30524,
            hidden_size: 768,
            encoder_hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 512,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            is_decoder: true,
            bos_token_id: 30522,
            pad_token_id: 0,
            sep_token_id: 102,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Vision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    num_channels: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    attention_dropout: f64,
}

impl Default for Vision {
    fn default() -> Self {
        // transformers' BlipVisionConfig.
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            num_channels: 3,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Sections {
    text_config: Value,
    vision_config: Value,
}

/// The configuration in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn config(json: &Value) -> Result<BlipConfig, KeyError> {
    let sections: Sections = super::keys::read(json, &[ACCEPTED, TRANSFORMERS])?;
    let section =
        |value: Value| if value.is_null() { Value::Object(Default::default()) } else { value };
    let text: Text = super::keys::read(&section(sections.text_config), &[ACCEPTED, TRANSFORMERS])?;
    let vision: Vision =
        super::keys::read(&section(sections.vision_config), &[ACCEPTED, TRANSFORMERS])?;
    let unsupported = |key: &str, value: String, expected: String| KeyError::Unsupported {
        key: key.to_owned(),
        value,
        expected,
    };
    if !text.is_decoder {
        return Err(unsupported("is_decoder", "false".to_owned(), "true".to_owned()));
    }
    if text.encoder_hidden_size != vision.hidden_size {
        let expected = format!("hidden_size of vision_config, {}", vision.hidden_size);
        return Err(unsupported(
            "encoder_hidden_size",
            text.encoder_hidden_size.to_string(),
            expected,
        ));
    }
    let model = CaptionerConfig {
        vision: ViTConfig {
            hidden_size: vision.hidden_size,
            num_hidden_layers: vision.num_hidden_layers,
            num_attention_heads: vision.num_attention_heads,
            intermediate_size: vision.intermediate_size,
            hidden_act: vision.hidden_act,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: vision.attention_dropout,
            layer_norm_eps: vision.layer_norm_eps,
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            num_channels: vision.num_channels,
            qkv_bias: true,
            add_pooling_layer: false,
        },
        text: BertConfig {
            vocab_size: text.vocab_size,
            hidden_size: text.hidden_size,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            intermediate_size: text.intermediate_size,
            hidden_act: text.hidden_act,
            hidden_dropout_prob: text.hidden_dropout_prob,
            attention_probs_dropout_prob: text.attention_probs_dropout_prob,
            max_position_embeddings: text.max_position_embeddings,
            type_vocab_size: 0,
            layer_norm_eps: text.layer_norm_eps,
            ..BertConfig::default()
        },
    };
    model.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    let Text { bos_token_id, sep_token_id, pad_token_id, .. } = text;
    Ok(BlipConfig { model, bos_token_id, sep_token_id, pad_token_id })
}

/// The captioner in `folder`.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_captioner<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(BlipConfig, Captioner<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, config)?;
    let model = load(config.model.init(device), &archive, &NAMES, precision, device)?;
    Ok((config, model))
}

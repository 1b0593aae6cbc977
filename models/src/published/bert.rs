//! BERT and its relatives: bert-base and -large, cased or not, bert-tiny, MiniLM.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::transformers::TRANSFORMERS;
use super::{
    Accepted, Archive, KeyError, Names, Precision, PublishedError, configuration, load, load_labels,
};
use crate::bert::{Bert, BertConfig, BertForMaskedLm, BertForSequenceClassification};

pub(super) const ACCEPTED: Accepted = Accepted {
    fixed: &[("position_embedding_type", &["\"absolute\""]), ("tie_word_embeddings", &["true"])],
    // Of distilled models, for their tokenizers and training.
    ignored: &[
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "emb_size",
    ],
};

/// Differences between paths here and names in the files.
pub(super) const RENAMES: &[(&str, &str)] = &[("self_attn", "self"), ("layer_norm", "LayerNorm")];

/// The first published files name norms as TensorFlow did.
pub(super) const OLDER: &[(&str, &str)] =
    &[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

pub(super) const POSITION_IDS: (&str, &str) =
    ("position_ids", "no weights: the numbers 0, 1, 2 and so on");
pub(super) const NEXT_SENTENCE: (&str, &str) =
    ("cls.seq_relationship.", "head for the next sentence, which is not part of this model");

/// The head's matrix and bias are stored twice in some files.
pub(super) const TIED: &[(&str, &str)] = &[
    ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
];

const ENCODER: Names = Names {
    prefix: "",
    renames: &[("", RENAMES)],
    older: OLDER,
    fused: &[],
    tied: &[],
    unread: &[
        POSITION_IDS,
        ("cls.", "language-model head, which the encoder does without"),
        ("classifier.", "classification head, which the encoder does without"),
        ("pooler.", "pooler, which was not asked for"),
    ],
};

const MASKED_LM: Names = Names {
    tied: TIED,
    unread: &[
        POSITION_IDS,
        NEXT_SENTENCE,
        ("bert.pooler.", "pooler, which this model does without"),
    ],
    ..ENCODER
};

/// The configuration in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn config(json: &Value) -> Result<BertConfig, KeyError> {
    let config: BertConfig = super::keys::read(json, &[ACCEPTED, TRANSFORMERS])?;
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// How the weights in `archive` are called, and whether they have a pooler.
pub(super) fn encoder_names(archive: &Archive) -> (Names, bool) {
    let prefix = if archive.has_prefix("bert.") { "bert." } else { "" };
    (Names { prefix, ..ENCODER }, archive.contains(&format!("{prefix}pooler.dense.weight")))
}

pub(super) const MASKED_LM_NAMES: Names = MASKED_LM;
/// Of the weights with a sequence classifier.
pub const CLASSIFIER_NAMES: Names = Names { unread: &[POSITION_IDS], ..ENCODER };

/// The encoder in `folder`, with its pooler where it has one.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_encoder<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(BertConfig, Bert<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let (names, pooler) = encoder_names(&archive);
    let config = BertConfig { add_pooling_layer: pooler, ..configuration(folder, config)? };
    let model = load(config.init(device), &archive, &names, precision, device)?;
    Ok((config, model))
}

/// The encoder in `folder` with its masked-language head.
///
/// # Errors
///
/// As [`load_encoder`].
pub fn load_masked_lm<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(BertConfig, BertForMaskedLm<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = BertConfig { add_pooling_layer: false, ..configuration(folder, config)? };
    let model = load(config.init_masked_lm(device), &archive, &MASKED_LM, precision, device)?;
    Ok((config, model))
}

/// The encoder in `folder` with its sequence classifier.
///
/// # Errors
///
/// As [`load_encoder`].
pub fn load_classifier<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(BertConfig, BertForSequenceClassification<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, config)?;
    let model = config.init_classifier(load_labels(folder)?.len(), device);
    let model = load(model, &archive, &CLASSIFIER_NAMES, precision, device)?;
    Ok((config, model))
}

//! ViT: vit-base-patch16-224 with its classifier, vit-base-patch16-224-in21k without.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::transformers::TRANSFORMERS;
use super::{
    Accepted, Archive, KeyError, Names, Precision, PublishedError, configuration, load, load_labels,
};
use crate::vit::{ViTConfig, ViTForImageClassification, Vit};

pub(super) const ACCEPTED: Accepted = Accepted {
    fixed: &[("pooler_act", &["\"tanh\""])],
    // For masked image modelling, which this model does without, and for text.
    ignored: &["encoder_stride", "tie_word_embeddings"],
};

const ENCODER: Names = Names {
    prefix: "",
    renames: &[],
    older: &[],
    fused: &[],
    tied: &[],
    unread: &[
        ("classifier.", "classification head, which the encoder does without"),
        ("pooler.", "pooler, which was not asked for"),
    ],
};

pub(super) const CLASSIFIER_NAMES: Names = Names { unread: &[], ..ENCODER };

/// The configuration in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn config(json: &Value) -> Result<ViTConfig, KeyError> {
    let mut json = json.clone();
    if let Value::Object(keys) = &mut json {
        // The pooler's width; only that of the states is supported.
        let width = keys.remove("pooler_output_size");
        if let Some(width) = width.filter(|width| !width.is_null())
            && Some(&width) != keys.get("hidden_size")
        {
            return Err(KeyError::Unsupported {
                key: "pooler_output_size".to_owned(),
                value: width.to_string(),
                expected: "hidden_size".to_owned(),
            });
        }
    }
    let config: ViTConfig = super::keys::read(&json, &[ACCEPTED, TRANSFORMERS])?;
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// How the weights in `archive` are called, and whether they have a pooler.
pub(super) fn encoder_names(archive: &Archive) -> (Names, bool) {
    let prefix = if archive.has_prefix("vit.") { "vit." } else { "" };
    (Names { prefix, ..ENCODER }, archive.contains(&format!("{prefix}pooler.dense.weight")))
}

/// The encoder in `folder`, with its pooler where it has one.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_encoder<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(ViTConfig, Vit<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let (names, pooler) = encoder_names(&archive);
    let config = ViTConfig { add_pooling_layer: pooler, ..configuration(folder, config)? };
    let model = load(config.init(device), &archive, &names, precision, device)?;
    Ok((config, model))
}

/// The encoder in `folder` with its classifier.
///
/// # Errors
///
/// As [`load_encoder`].
pub fn load_classifier<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(ViTConfig, ViTForImageClassification<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, config)?;
    let model = config.init_classifier(load_labels(folder)?.len(), device);
    let model = load(model, &archive, &CLASSIFIER_NAMES, precision, device)?;
    Ok((config, model))
}

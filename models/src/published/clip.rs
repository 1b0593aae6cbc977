//! CLIP: both encoders (clip-vit-base-patch32), or the text encoder alone (Stable Diffusion's).

use std::path::Path;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::transformers::TRANSFORMERS;
use super::{Accepted, Archive, KeyError, Names, Precision, PublishedError, configuration, load};
use crate::clip::{
    ClipConfig, ClipModel, ClipTextConfig, ClipTextModel, ClipTextModelWithProjection,
    ClipTextProjectionConfig, ClipVisionConfig,
};

const ACCEPTED: Accepted = Accepted {
    // A dropout that no version of the model applies.
    fixed: &[("dropout", &["0.0"])],
    ignored: &["projection_dim", "logit_scale_init_value", "tie_word_embeddings"],
};

const POSITION_IDS: (&str, &str) = super::bert::POSITION_IDS;

pub(super) const NAMES: Names =
    Names { prefix: "", renames: &[], older: &[], fused: &[], tied: &[], unread: &[POSITION_IDS] };

/// The text encoder alone, out of any file that holds it.
const TEXT_NAMES: Names = Names {
    prefix: "text_model.",
    unread: &[
        POSITION_IDS,
        ("vision_model.", "vision encoder, which was not asked for"),
        ("visual_projection.", "projection, which was not asked for"),
        ("text_projection.", "projection, which was not asked for"),
        ("logit_scale", "temperature, which was not asked for"),
    ],
    ..NAMES
};

/// How the text encoder's weights in `archive` are called: transformers 5 saves them without prefix.
pub(super) fn text_names(archive: &Archive) -> Names {
    let prefix = if archive.has_prefix(TEXT_NAMES.prefix) { TEXT_NAMES.prefix } else { "" };
    Names { prefix, ..TEXT_NAMES }
}

/// The configuration of both encoders in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn config(json: &Value) -> Result<ClipConfig, KeyError> {
    let part = |name: &str| -> Value {
        let keys = |name: &str| json.get(name).and_then(Value::as_object).cloned();
        let mut merged = keys(name).unwrap_or_default();
        // What transformers does with the older form of the same section.
        merged.extend(keys(&format!("{name}_dict")).unwrap_or_default());
        Value::Object(merged)
    };
    let mut rest = json.clone();
    if let Value::Object(keys) = &mut rest {
        for section in ["text_config", "vision_config"] {
            keys.remove(section);
            keys.remove(&format!("{section}_dict"));
        }
    }
    let whole: ClipConfig = super::keys::read(&rest, &[ACCEPTED, TRANSFORMERS])?;
    let config = ClipConfig {
        text_config: text_config(&part("text_config"))?,
        vision_config: vision_config(&part("vision_config"))?,
        ..whole
    };
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// The configuration of a text encoder in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn text_config(json: &Value) -> Result<ClipTextConfig, KeyError> {
    let config: ClipTextConfig = super::keys::read(json, &[ACCEPTED, TRANSFORMERS])?;
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

/// The configuration of a text encoder with its projection in a `config.json`.
///
/// # Errors
///
/// Names the key that is not supported.
pub fn text_projection_config(json: &Value) -> Result<ClipTextProjectionConfig, KeyError> {
    #[derive(Serialize, Deserialize)]
    #[serde(default)]
    struct Projection {
        projection_dim: usize,
    }
    impl Default for Projection {
        fn default() -> Self {
            Self { projection_dim: ClipConfig::default().projection_dim }
        }
    }
    let text = text_config(json)?;
    let keys = json.get("projection_dim").map(|width| json!({ "projection_dim": width }));
    let Projection { projection_dim } = super::keys::read(&keys.unwrap_or(json!({})), &[])?;
    let config = ClipTextProjectionConfig { text, projection_dim };
    config.check().map_err(|error| KeyError::Invalid(error.to_string()))?;
    Ok(config)
}

fn vision_config(json: &Value) -> Result<ClipVisionConfig, KeyError> {
    super::keys::read(json, &[ACCEPTED, TRANSFORMERS])
}

/// Both encoders in `folder` with their projections.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_model<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(ClipConfig, ClipModel<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, config)?;
    let model = load(config.init(device), &archive, &NAMES, precision, device)?;
    Ok((config, model))
}

/// The text encoder in `folder`, whatever else lies there.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_text<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(ClipTextConfig, ClipTextModel<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, |json| match json.get("text_config") {
        Some(_) => config(json).map(|config| config.text_config),
        None => text_config(json),
    })?;
    let names = text_names(&archive);
    let model = load(config.init(device), &archive, &names, precision, device)?;
    Ok((config, model))
}

/// The text encoder in `folder` with its projection.
///
/// # Errors
///
/// The folder lacks a file, or holds another model.
pub fn load_text_with_projection<B: Backend>(
    folder: &Path,
    precision: Precision,
    device: &B::Device,
) -> Result<(ClipTextProjectionConfig, ClipTextModelWithProjection<B>), PublishedError> {
    let archive = Archive::open(folder)?;
    let config = configuration(folder, text_projection_config)?;
    let model = load(config.init(device), &archive, &NAMES, precision, device)?;
    Ok((config, model))
}

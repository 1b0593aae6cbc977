//! What a folder holds, and what would become of its tensors: found from headers alone.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::Backend;
use serde_json::Value;

use super::{
    Archive, KeyError, Names, Plan, PublishedError, Report, configuration, load_labels, read_json,
};
use super::{bert, blip, clip, stable_diffusion, vit};
use crate::vit::ViTConfig;

/// A kind of published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// BERT without a head, or with one that is not read.
    Bert,
    /// BERT with its masked-language head.
    BertForMaskedLm,
    /// BERT with a sequence classifier.
    BertForSequenceClassification,
    /// ViT without a head.
    Vit,
    /// ViT with a classifier.
    VitForImageClassification,
    /// CLIP with both encoders.
    Clip,
    /// CLIP's text encoder.
    ClipText,
    /// CLIP's text encoder with its projection.
    ClipTextWithProjection,
    /// BLIP's captioner.
    Blip,
    /// The U-Net of Stable Diffusion.
    UNet,
    /// The autoencoder of Stable Diffusion.
    Autoencoder,
    /// A whole Stable Diffusion.
    StableDiffusion,
}

impl Architecture {
    pub(super) const LIST: &str = "a BERT, ViT, CLIP, BLIP (captioning) or Stable Diffusion folder";

    /// The name in transformers or diffusers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertModel",
            Self::BertForMaskedLm => "BertForMaskedLM",
            Self::BertForSequenceClassification => "BertForSequenceClassification",
            Self::Vit => "ViTModel",
            Self::VitForImageClassification => "ViTForImageClassification",
            Self::Clip => "CLIPModel",
            Self::ClipText => "CLIPTextModel",
            Self::ClipTextWithProjection => "CLIPTextModelWithProjection",
            Self::Blip => "BlipForConditionalGeneration",
            Self::UNet => "UNet2DConditionModel",
            Self::Autoencoder => "AutoencoderKL",
            Self::StableDiffusion => "StableDiffusionPipeline",
        }
    }
}

/// The kind of model in `folder`, by its `model_index.json` or `config.json`.
///
/// # Errors
///
/// There is neither, or it names another kind.
pub fn architecture(folder: &Path) -> Result<Architecture, PublishedError> {
    let index = folder.join("model_index.json");
    let text = |json: &Value, key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
    if index.is_file() {
        let class = text(&read_json(&index)?, "_class_name").unwrap_or_default();
        return match class.as_str() {
            "StableDiffusionPipeline" | "StableDiffusionImg2ImgPipeline" => {
                Ok(Architecture::StableDiffusion)
            }
            _ => Err(PublishedError::UnknownArchitecture {
                path: index,
                found: format!("`_class_name` = `{class}`"),
            }),
        };
    }
    let path = folder.join("config.json");
    let json: Value = read_json(&path)?;
    match text(&json, "_class_name").as_deref() {
        Some("UNet2DConditionModel") => return Ok(Architecture::UNet),
        Some("AutoencoderKL") => return Ok(Architecture::Autoencoder),
        _ => {}
    }
    let class = json.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let class = class.unwrap_or_default();
    // The first BERTs say less of themselves; of what is read here they alone have token types.
    let bare = json.get("model_type").is_none() && json.get("type_vocab_size").is_some();
    let kind = if bare { Some("bert".to_owned()) } else { text(&json, "model_type") };
    let kind = kind.unwrap_or_default();
    Ok(match (kind.as_str(), class) {
        ("bert", "BertForMaskedLM" | "BertForPreTraining") => Architecture::BertForMaskedLm,
        ("bert", "BertForSequenceClassification") => Architecture::BertForSequenceClassification,
        ("bert", _) => Architecture::Bert,
        ("vit", "ViTForImageClassification") => Architecture::VitForImageClassification,
        ("vit", _) => Architecture::Vit,
        ("clip", _) => Architecture::Clip,
        ("clip_text_model", "CLIPTextModelWithProjection") => Architecture::ClipTextWithProjection,
        ("clip_text_model", _) => Architecture::ClipText,
        ("blip", "BlipForConditionalGeneration") => Architecture::Blip,
        _ => {
            let found = format!("`model_type` = `{kind}`, `architectures` = `{class}`");
            return Err(PublishedError::UnknownArchitecture { path, found });
        }
    })
}

/// One model of a folder.
pub struct Part {
    /// What it is.
    pub architecture: Architecture,
    /// Where it lies.
    pub folder: PathBuf,
    /// What would become of its tensors.
    pub report: Report,
}

/// The models in `folder` and what would become of their tensors.
///
/// # Errors
///
/// The folder holds no known model, or its configuration asks for what is not computed here.
pub fn inspect<B: Backend>(folder: &Path, device: &B::Device) -> Result<Vec<Part>, PublishedError> {
    let kind = architecture(folder)?;
    if kind == Architecture::StableDiffusion {
        let mut parts = Vec::new();
        for name in ["text_encoder", "unet", "vae"] {
            let folder = folder.join(name);
            let kind = architecture(&folder)?;
            parts.push(part::<B>(kind, &folder, device)?);
        }
        let text = configuration(&folder.join("text_encoder"), clip::text_config)?;
        let unet = configuration(&folder.join("unet"), stable_diffusion::unet_config)?;
        let vae = configuration(&folder.join("vae"), stable_diffusion::vae_config)?;
        stable_diffusion::check_parts(folder, &text, &unet, &vae)?;
        return Ok(parts);
    }
    Ok(vec![part::<B>(kind, folder, device)?])
}

fn part<B: Backend>(
    architecture: Architecture,
    folder: &Path,
    device: &B::Device,
) -> Result<Part, PublishedError> {
    let archive = &Archive::open(folder)?;
    let report = match architecture {
        Architecture::Bert => {
            let (names, pooler) = bert::encoder_names(archive);
            let mut config = configuration(folder, bert::config)?;
            config.add_pooling_layer = pooler;
            plan::<B, _>(&config.init(device), archive, &names)?
        }
        Architecture::BertForMaskedLm => {
            let mut config = configuration(folder, bert::config)?;
            config.add_pooling_layer = false;
            plan::<B, _>(&config.init_masked_lm(device), archive, &bert::MASKED_LM_NAMES)?
        }
        Architecture::BertForSequenceClassification => {
            let labels = load_labels(folder)?.len();
            let config = configuration(folder, bert::config)?;
            let model = config.init_classifier(labels, device);
            plan::<B, _>(&model, archive, &bert::CLASSIFIER_NAMES)?
        }
        Architecture::Vit => {
            let (names, pooler) = vit::encoder_names(archive);
            let config = configuration(folder, vit::config)?;
            let config = ViTConfig { add_pooling_layer: pooler, ..config };
            plan::<B, _>(&config.init(device), archive, &names)?
        }
        Architecture::VitForImageClassification => {
            let labels = load_labels(folder)?.len();
            let config = configuration(folder, vit::config)?;
            let model = config.init_classifier(labels, device);
            plan::<B, _>(&model, archive, &vit::CLASSIFIER_NAMES)?
        }
        Architecture::Clip => {
            let config = configuration(folder, clip::config)?;
            plan::<B, _>(&config.init(device), archive, &clip::NAMES)?
        }
        Architecture::ClipText => {
            let config = configuration(folder, clip::text_config)?;
            let names = clip::text_names(archive);
            plan::<B, _>(&config.init(device), archive, &names)?
        }
        Architecture::ClipTextWithProjection => {
            let config = configuration(folder, clip::text_projection_config)?;
            plan::<B, _>(&config.init(device), archive, &clip::NAMES)?
        }
        Architecture::Blip => {
            let config = configuration(folder, blip::config)?;
            plan::<B, _>(&config.model.init(device), archive, &blip::NAMES)?
        }
        Architecture::UNet => {
            let config = configuration(folder, stable_diffusion::unet_config)?;
            let model = config.init(device).map_err(|error| invalid(folder, &error))?;
            plan::<B, _>(&model, archive, &stable_diffusion::UNET_NAMES)?
        }
        Architecture::Autoencoder => {
            let config = configuration(folder, stable_diffusion::vae_config)?;
            let model = config.init(device).map_err(|error| invalid(folder, &error))?;
            plan::<B, _>(&model, archive, &stable_diffusion::VAE_NAMES)?
        }
        Architecture::StableDiffusion => {
            let path = folder.join("model_index.json");
            let what = "a pipeline inside a pipeline".to_owned();
            return Err(PublishedError::Broken { path, what });
        }
    };
    Ok(Part { architecture, folder: folder.to_owned(), report })
}

fn plan<B: Backend, M: Module<B>>(
    module: &M,
    archive: &Archive,
    names: &Names,
) -> Result<Report, PublishedError> {
    Ok(Plan::new(module, archive, names)?.report)
}

fn invalid(folder: &Path, error: &impl ToString) -> PublishedError {
    let source = KeyError::Invalid(error.to_string());
    PublishedError::Config { path: folder.join("config.json"), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kind_is_what_the_configuration_says() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |json: Value| {
            std::fs::write(folder.path().join("config.json"), json.to_string()).unwrap();
            architecture(folder.path())
        };
        // bert-tiny's, which knows no better.
        let first = json!({"hidden_size": 128, "type_vocab_size": 2, "vocab_size": 30522});
        assert_eq!(kind(first).unwrap(), Architecture::Bert);
        let masked = json!({"model_type": "bert", "architectures": ["BertForPreTraining"]});
        assert_eq!(kind(masked).unwrap(), Architecture::BertForMaskedLm);
        let message = kind(json!({"model_type": "gpt2"})).unwrap_err().to_string();
        assert!(message.contains("`model_type` = `gpt2`") && message.contains("expected a BERT"));
    }
}

//! The configuration of the bundled weights: sizes, data and recipes of each part.

use mi2rage_models::bert::BertConfig;
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::diffusion::ScheduleConfig;
use mi2rage_models::unet::UNetConfig;
use mi2rage_models::vae::VaeConfig;
use mi2rage_models::vit::ViTConfig;
use serde::{Deserialize, Serialize};

use crate::generators::PROMPT_TOKENS;
use crate::train::Recipe;
use crate::world::WorldConfig;

/// All parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Names everything that is drawn.
    pub seed: u64,
    /// The world whose web corpus is trained on.
    #[serde(default)]
    pub world: WorldConfig,
    /// Captioned pictures to train on.
    pub train: usize,
    /// Captioned pictures to select and score by.
    pub held_out: usize,
    /// Entries of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// The autoencoder of pictures.
    pub autoencoder: Autoencoder,
    /// The latent diffusion model and its text encoder.
    pub diffusion: Diffusion,
    /// Text and pictures in one space.
    pub clip: Clip,
    /// The captioner.
    pub captioner: Captioner,
    /// BERT by masked language modelling.
    pub text: Text,
    /// ViT by classification of scenes.
    pub vision: Vision,
}

/// The autoencoder of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoencoder {
    /// Its sizes; `scaling_factor` is set after training.
    pub model: VaeConfig,
    /// How it is trained.
    pub recipe: Recipe,
}

/// CLIP's text encoder, trained on the vision part's pooled states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// The text encoder's sizes; `vocab_size` is set by the tokenizer.
    pub text: ClipTextConfig,
    /// Width of the space that texts and pictures share.
    pub projection_dim: usize,
    /// How it is trained.
    pub recipe: Recipe,
}

/// The latent diffusion model. Its text encoder is CLIP's, as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diffusion {
    /// The U-Net's sizes.
    pub unet: UNetConfig,
    /// Noise and what is predicted.
    pub schedule: ScheduleConfig,
    /// The chance of training on the empty prompt, for classifier-free guidance.
    pub prompt_dropout: f64,
    /// How much more often time steps in the middle are trained on than others, 0 (not at all) to
    /// 1.75; the scale of "mode sampling" in Esser et al. 2024.
    #[serde(default)]
    pub mode_scale: f64,
    /// How both are trained together.
    pub recipe: Recipe,
}

/// The captioner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captioner {
    /// The decoder's sizes; `vocab_size` is set by the tokenizer. The encoder is the vision part's,
    /// with its weights to start from.
    pub text: BertConfig,
    /// Whether the encoder keeps those weights.
    #[serde(default)]
    pub freeze_vision: bool,
    /// How it is trained.
    pub recipe: Recipe,
}

/// BERT by masked language modelling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Its sizes; `vocab_size` is set by the tokenizer.
    pub model: BertConfig,
    /// How it is trained.
    pub recipe: Recipe,
}

/// ViT by classification of scenes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vision {
    /// Its sizes.
    pub model: ViTConfig,
    /// How it is trained.
    pub recipe: Recipe,
}

impl PretrainConfig {
    /// What is wrong with the values, as `key: what was expected`.
    pub fn problem(&self) -> Option<String> {
        if let Err(error) = self.world.check() {
            return Some(error.to_string());
        }
        let recipes = [
            ("autoencoder", &self.autoencoder.recipe),
            ("diffusion", &self.diffusion.recipe),
            ("clip", &self.clip.recipe),
            ("captioner", &self.captioner.recipe),
            ("text", &self.text.recipe),
            ("vision", &self.vision.recipe),
        ];
        for (part, recipe) in recipes {
            if let Some(problem) = recipe.problem() {
                return Some(format!("{part}.recipe.{problem}"));
            }
        }
        let problem = |part: &str, error: &dyn std::fmt::Display| format!("{part}: {error}");
        let checks = [
            self.autoencoder.model.check().err().map(|e| problem("autoencoder.model", &e)),
            self.diffusion.unet.check().err().map(|e| problem("diffusion.unet", &e)),
            self.clip.text.check().err().map(|e| problem("clip.text", &e)),
            self.captioner.text.check().err().map(|e| problem("captioner.text", &e)),
            self.text.model.check().err().map(|e| problem("text.model", &e)),
            self.vision.model.check().err().map(|e| problem("vision.model", &e)),
        ];
        if let Some(problem) = checks.into_iter().flatten().next() {
            return Some(problem);
        }
        if self.train < 100 || self.held_out < 100 {
            return Some("train, held_out: expected at least 100 pictures each".to_owned());
        }
        if !(0.0..1.0).contains(&self.diffusion.prompt_dropout) {
            return Some("diffusion.prompt_dropout: expected a fraction below 1".to_owned());
        }
        if !(0.0..=1.75).contains(&self.diffusion.mode_scale) {
            return Some("diffusion.mode_scale: expected a number from 0 to 1.75".to_owned());
        }
        if self.clip.projection_dim == 0 {
            return Some("clip.projection_dim: expected at least 1".to_owned());
        }
        if self.diffusion.unet.cross_attention_dim != self.clip.text.hidden_size {
            return Some(
                "diffusion.unet.cross_attention_dim: expected clip.text.hidden_size".to_owned(),
            );
        }
        if self.clip.text.max_position_embeddings < PROMPT_TOKENS {
            return Some(format!(
                "clip.text.max_position_embeddings: expected at least {PROMPT_TOKENS}, the length of a prompt"
            ));
        }
        None
    }
}

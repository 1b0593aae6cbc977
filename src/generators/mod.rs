//! The generators that are models: a latent diffusion model draws, a captioner describes.

mod captioner;
mod latent_diffusion;
mod oracle;
mod prompt;
mod similarity;

pub use captioner::{CaptionOptions, CaptionWriter};
pub use latent_diffusion::{DiffusionConfig, DrawOptions, LatentDiffusion};
pub use oracle::Oracle;
pub use prompt::{PROMPT_TOKENS, encode_prompt, known_words, without_entities};
pub use similarity::Similarity;

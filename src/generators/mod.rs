//! The generators that are models: a latent diffusion model draws, a captioner describes; and published
//! models that embed or classify.

mod captioner;
mod classifier;
mod embedder;
mod latent_diffusion;
mod oracle;
mod origin;
mod prompt;
pub mod published;
mod similarity;

pub use captioner::{CaptionOptions, CaptionWriter};
pub use classifier::Classifier;
pub use embedder::{Embedder, EncoderError};
pub use latent_diffusion::{DiffusionConfig, DrawOptions, LatentDiffusion, Start};
pub use oracle::Oracle;
pub use prompt::{PROMPT_TOKENS, Prompts, encode_prompt, known_words, without_entities};
pub use similarity::Similarity;

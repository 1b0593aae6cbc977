//! The architectures of mi2rage as burn modules, generic over the backend.
//!
//! Nothing in this crate knows about data or tasks. Module and parameter names follow Hugging
//! Face's transformers and diffusers, so that published weights can be mapped onto them.

pub mod adamw;
pub mod bert;
pub mod blocks;
pub mod captioner;
pub mod clip;
pub mod decoding;
pub mod diffusion;
pub mod dropout;
pub mod fusion;
pub mod initialise;
pub mod kernels;
pub mod layer_norm;
pub mod layers;
pub mod loss;
pub mod patches;
pub mod precision;
pub mod published;
pub mod unet;
pub mod vae;
pub mod vit;
pub mod weights;

//! Multimodal relation extraction from unimodal data, after MI2RAGE (arXiv 2312.03025).

pub mod bundle;
pub mod chain;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod eval;
pub mod exit;
pub mod experiment;
pub mod generators;
pub mod hub;
pub mod memory;
pub mod pretrain;
pub mod progress;
pub mod report;
pub mod select;
pub mod tensors;
pub mod train;
pub mod world;

pub use mi2rage_pictures::keyed;

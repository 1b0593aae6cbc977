//! Multimodal relation extraction from unimodal data, after MI2RAGE (arXiv 2312.03025).

pub mod chain;
pub mod config;
pub mod data;
pub mod device;
pub mod eval;
pub mod exit;
pub mod keyed;
pub mod memory;
pub mod progress;
pub mod report;
pub mod select;
pub mod tensors;
pub mod train;
pub mod world;

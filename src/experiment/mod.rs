//! Experiments.
pub mod folder;

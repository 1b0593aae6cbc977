//! The embedded world: generated posts whose relation is known, and what can be known of it.
//!
//! [`World`] makes posts and the generators' training data; [`Probabilities`](probabilities::Probabilities) says
//! how well any observer can do; [`Detector`](detector::Detector) and [`text_cue`](lexicon::text_cue) read the cue
//! off pictures and sentences that a generator made.

pub mod config;
pub mod export;
pub mod grammar;
pub mod names;
pub mod posts;
pub mod probabilities;
pub mod sheet;
pub mod statistics;
pub mod web;

pub use mi2rage_pictures::{detector, forms, lexicon, renderer};

pub use config::{WorldConfig, WorldConfigError};
pub use posts::{Fidelity, World};

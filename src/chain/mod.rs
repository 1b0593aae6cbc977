//! Chained cross-modal generation: the missing modality, made from the real one in rounds.
//!
//! ```text
//! missing image:  T0 -G-> I1 -C-> T1 -G-> I2 -C-> T2 ... -G-> Ik
//! missing text:   I0 -C-> T1 -G-> I1 -C-> T2 -G-> I2 ... -C-> Tk
//! ```
//!
//! [`plan`] says which samples and pairs there are, [`generator`] what makes them, [`run`] makes
//! them, [`store`] keeps them.

pub mod folder;
pub mod generator;
pub mod plan;
pub mod run;
mod segment;
pub mod store;

pub use folder::PictureFolder;
pub use generator::{Caption, GeneratorError, ImageToText, PicturePrompt, TextPrompt, TextToImage};
pub use plan::{
    ChainConfig, Half, Modality, PairId, PairKind, Pairing, SampleKey, Setting, TrainingPair,
};
pub use run::{Progress, Run, RunError};
pub use store::{Fingerprint, Payload, Sample, Store, StoreError};

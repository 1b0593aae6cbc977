//! What comes out of a model is seen to be finite, since its weights are not looked at when they are read; and
//! why it is not.

use std::path::{Path, PathBuf};

use mi2rage_models::precision::Precision;
use mi2rage_models::published::{Archive, PublishedError};

use crate::bundle::Bundle;

/// Where a model's weights are from and what it computes in.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    weights: Weights,
    precision: Precision,
}

#[derive(Clone, Debug)]
enum Weights {
    /// Their folder.
    Published(PathBuf),
    /// What they are called. They were seen to be finite when they were written.
    Bundled(String),
}

impl Origin {
    pub fn published(folder: &Path, precision: Precision) -> Self {
        Self { weights: Weights::Published(folder.to_owned()), precision }
    }

    pub fn bundle(bundle: &Bundle, precision: Precision) -> Self {
        Self { weights: Weights::Bundled(bundle.origin().to_owned()), precision }
    }

    /// What the weights are called in messages.
    pub fn name(&self) -> String {
        match &self.weights {
            Weights::Published(folder) => folder.display().to_string(),
            Weights::Bundled(name) => name.clone(),
        }
    }

    /// What came out of the model, where all of it is finite.
    ///
    /// # Errors
    ///
    /// [`Self::broken`].
    pub fn finite(&self, what: &'static str, values: Vec<f32>) -> Result<Vec<f32>, PublishedError> {
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(self.broken(what)),
        }
    }

    /// Why what came out is not finite: a weight that is not, or else the precision.
    pub fn broken(&self, what: &'static str) -> PublishedError {
        let weight = match &self.weights {
            Weights::Published(folder) => broken_weight(folder),
            Weights::Bundled(_) => None,
        };
        weight.unwrap_or_else(|| PublishedError::Overflow {
            origin: self.name(),
            what,
            precision: self.precision,
        })
    }
}

/// The first weight in a folder, or in a Stable Diffusion's parts, that is not finite or cannot be read.
fn broken_weight(folder: &Path) -> Option<PublishedError> {
    ["", "text_encoder", "unet", "vae"]
        .iter()
        .filter_map(|part| Archive::open(&folder.join(part)).ok())
        .find_map(|archive| archive.check_numbers().err())
}

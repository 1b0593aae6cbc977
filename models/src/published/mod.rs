//! Published checkpoints: Hugging Face folders read as they were downloaded.
//!
//! Weights are mapped and come into memory as they are used: whether they are finite shows in what a model
//! says, or in [`Archive::check_numbers`].
//!
//! burn-store is not used: it keeps a file's type, knows no index of shards, and has no place for a
//! tensor that holds several parameters. What would be left of it is a look-up by name.

mod archive;
pub mod bert;
pub mod blip;
pub mod clip;
mod fill;
mod inspect;
mod keys;
mod pickled;
mod scheduler;
mod shard;
pub mod stable_diffusion;
mod transformers;
pub mod vit;

pub use archive::{Archive, Entry};
pub use fill::{Fused, Names, Pairs, Plan, Report};
pub use inspect::{Architecture, Part, architecture, inspect};
pub use keys::{Accepted, KeyError, read};
pub use pickled::{is_pickled, refuse_pickled};
pub use scheduler::PublishedScheduler;
pub use transformers::labels;

pub use crate::precision::Precision;

use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::Backend;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a published checkpoint was not read.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A configuration asks for what is not computed here.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Which key it is.
        source: KeyError,
    },
    /// A folder that holds no model of a kind that is known.
    #[error("{}: {found}, expected {}", path.display(), Architecture::LIST)]
    UnknownArchitecture {
        /// The file that names the kind.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A folder without weights.
    #[error(
        "{}: no weights, expected model.safetensors, diffusion_pytorch_model.safetensors or their \
         .safetensors.index.json", folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// Weights as Python objects.
    #[error(
        "{}: pickled weights, which can run any program, are not read; convert them with {}",
        path.display(), pickled::conversion(path)
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// A model has said what is no number, of weights that are all finite.
    #[error("{origin}: in {precision} it gave {what} that are not finite, though its weights are{}", wider(*precision))]
    Overflow {
        /// The folder, or what the weights are called.
        origin: String,
        /// What came out.
        what: &'static str,
        /// What was computed in.
        precision: Precision,
    },
    /// The file and the module do not hold the same tensors.
    #[error(
        "{}: the weights do not fit the model{}", origin.display(), list(missing, unused, misfit)
    )]
    Mismatch {
        /// The file or the index.
        origin: PathBuf,
        /// Parameters that the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that nothing asks for.
        unused: Vec<String>,
        /// Tensors of another shape, each with what was found and expected.
        misfit: Vec<String>,
    },
}

fn wider(precision: Precision) -> &'static str {
    match precision {
        Precision::F16 => ": f16 ends at 65504, expected bf16 or f32",
        _ => "",
    }
}

fn list(missing: &[String], unused: &[String], misfit: &[String]) -> String {
    [("missing", missing), ("unused", unused), ("misfit", misfit)]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("; {kind} ({}): {}", names.len(), names.join(", ")))
        .collect()
}

/// The JSON file at `path`.
///
/// # Errors
///
/// [`PublishedError::Io`], or [`PublishedError::Pickled`] where it is missing beside such weights;
/// [`PublishedError::Broken`] with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, PublishedError> {
    let text = std::fs::read(path).or_else(|source| {
        refuse_pickled(path.parent().unwrap_or(path))?;
        Err(PublishedError::Io { path: path.to_owned(), source })
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| PublishedError::Broken { path: path.to_owned(), what: error.to_string() })
}

/// The configuration in a folder's `config.json`.
///
/// # Errors
///
/// The file is missing or no JSON, or `read` refuses a key.
fn configuration<C>(
    folder: &Path,
    read: impl FnOnce(&Value) -> Result<C, KeyError>,
) -> Result<C, PublishedError> {
    let path = folder.join("config.json");
    read(&read_json(&path)?).map_err(|source| PublishedError::Config { path, source })
}

/// The names of the labels of the classifier in `folder`, in order.
///
/// # Errors
///
/// `config.json` is missing or no JSON, or [`labels`] refuses it.
pub fn load_labels(folder: &Path) -> Result<Vec<String>, PublishedError> {
    configuration(folder, labels)
}

/// Fills `module` with the weights of `archive`.
///
/// # Errors
///
/// See [`Plan::new`] and [`Plan::fill`].
fn load<B: Backend, M: Module<B>>(
    module: M,
    archive: &Archive,
    names: &Names,
    precision: Precision,
    device: &B::Device,
) -> Result<M, PublishedError> {
    Plan::new(&module, archive, names)?.fill(module, archive, precision, device)
}

//! The trained generators and encoders: those embedded in the program, or a folder of the same
//! files as `mi2rage pretrain` writes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::backend::Backend;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::decoding::DecodingError;
use mi2rage_models::diffusion::DiffusionError;
use mi2rage_models::published::PublishedError;
use mi2rage_models::weights::{self, WeightsError};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::data::DataError;
use crate::data::tokens::Tokenizer;

/// The tokenizer's file.
pub const TOKENIZER: &str = "tokenizer.json";
/// The autoencoder's file.
pub const AUTOENCODER: &str = "autoencoder.safetensors";
/// The file of the U-Net and its text encoder.
pub const DIFFUSION: &str = "diffusion.safetensors";
/// The file of CLIP's text encoder and projections.
pub const CLIP: &str = "clip.safetensors";
/// The captioner's file.
pub const CAPTIONER: &str = "captioner.safetensors";
/// The file of BERT with its masked-language head.
pub const TEXT: &str = "text-encoder.safetensors";
/// The file of ViT with its scene classifier.
pub const VISION: &str = "vision-encoder.safetensors";

/// Every file of a bundle.
pub const FILES: [&str; 7] = [TOKENIZER, AUTOENCODER, CLIP, DIFFUSION, CAPTIONER, TEXT, VISION];

/// Why a bundle could not be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}; expected a folder with {}, or a published model", FILES.join(", "))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not say which model it holds.
    #[error("{origin}: its metadata has no usable `config`: {what}")]
    Config {
        /// The file.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// The model cannot do what is asked of it.
    #[error("{origin}: {what}")]
    Unfit {
        /// The model, or what was given to it.
        origin: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The sampler cannot do what is asked of it.
    #[error(transparent)]
    Sampler(#[from] DiffusionError),
    /// The weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer is unusable.
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    /// The decoder refuses what is asked of it.
    #[error(transparent)]
    Decoding(#[from] DecodingError),
    /// A published folder is unusable.
    #[error(transparent)]
    Published(#[from] PublishedError),
}

/// A set of files, in memory.
#[derive(Clone)]
pub struct Bundle {
    origin: String,
    files: BTreeMap<&'static str, Cow<'static, [u8]>>,
}

macro_rules! embedded {
    ($($file:literal),*) => {
        [$(($file, include_bytes!(concat!("../models/assets/", $file)).as_slice())),*]
    };
}

impl Bundle {
    /// The embedded weights for `bundled`, else those of a folder.
    ///
    /// # Errors
    ///
    /// A file of the folder is missing.
    pub fn open(name: &str) -> Result<Self, BundleError> {
        if name == "bundled" { Ok(Self::embedded()) } else { Self::folder(Path::new(name)) }
    }

    /// The weights that are part of the program.
    pub fn embedded() -> Self {
        let files = embedded![
            "tokenizer.json",
            "autoencoder.safetensors",
            "clip.safetensors",
            "diffusion.safetensors",
            "captioner.safetensors",
            "text-encoder.safetensors",
            "vision-encoder.safetensors"
        ];
        let files = files.into_iter().map(|(name, bytes)| (name, Cow::Borrowed(bytes))).collect();
        Self { origin: "bundled".to_owned(), files }
    }

    /// The weights of a folder.
    ///
    /// # Errors
    ///
    /// A file is missing.
    pub fn folder(folder: &Path) -> Result<Self, BundleError> {
        let mut files = BTreeMap::new();
        for name in FILES {
            let path = folder.join(name);
            let bytes =
                std::fs::read(&path).map_err(|source| BundleError::Read { path, source })?;
            files.insert(name, Cow::Owned(bytes));
        }
        Ok(Self { origin: folder.display().to_string(), files })
    }

    /// Where the files are from, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The same with another file in the place of `name`.
    pub fn with(mut self, name: &'static str, bytes: Vec<u8>) -> Self {
        self.files.insert(name, Cow::Owned(bytes));
        self
    }

    /// The hash of one file, 32 hexadecimal digits.
    pub fn hash(&self, file: &str) -> String {
        let bytes = self.files.get(file).map_or(&[][..], |bytes| bytes);
        blake3::hash(bytes).to_hex()[..32].to_owned()
    }

    /// The hashes of all files by name.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.files.keys().map(|name| ((*name).to_owned(), self.hash(name))).collect()
    }

    /// The tokenizer that all models share.
    ///
    /// # Errors
    ///
    /// The file is no such tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, BundleError> {
        let origin = self.origin_of(TOKENIZER);
        Ok(Tokenizer::from_bytes(Path::new(&origin), &self.files[TOKENIZER])?)
    }

    /// A model and its configuration: `init` makes the module that the weights go into.
    ///
    /// # Errors
    ///
    /// The file names no configuration, an unusable one, or weights that do not fit it.
    pub fn model<B: Backend, C: DeserializeOwned, M: Module<B>>(
        &self,
        file: &str,
        device: &B::Device,
        init: impl FnOnce(&C) -> Result<M, String>,
    ) -> Result<(C, M), BundleError> {
        let config: C = self.config(file)?;
        let origin = self.origin_of(file);
        let bytes = &self.files[file];
        let module =
            init(&config).map_err(|what| BundleError::Config { origin: origin.clone(), what })?;
        let module = weights::from_bytes(module, bytes, &origin, device)?;
        Ok((config, module))
    }

    /// Height and width of the pictures that the captioner reads, and so of all pictures.
    ///
    /// # Errors
    ///
    /// The captioner's file names no configuration.
    pub fn picture_size(&self) -> Result<usize, BundleError> {
        Ok(self.config::<CaptionerConfig>(CAPTIONER)?.vision.image_size)
    }

    fn config<C: DeserializeOwned>(&self, file: &str) -> Result<C, BundleError> {
        let origin = self.origin_of(file);
        let metadata = weights::metadata_of(&self.files[file], &origin)?;
        let error = |what: String| BundleError::Config { origin: origin.clone(), what };
        let text = metadata.get("config").ok_or_else(|| error("the key is missing".to_owned()))?;
        serde_json::from_str(text).map_err(|cause| error(cause.to_string()))
    }

    fn origin_of(&self, file: &str) -> String {
        format!("{}/{file}", self.origin)
    }
}

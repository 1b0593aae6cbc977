//! The published folders that an experiment names in the place of bundled weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use mi2rage_models::bert::{Bert, BertConfig};
use mi2rage_models::published::{Archive, Precision, PublishedError, bert, vit};
use mi2rage_models::vit::{ViTConfig, Vit};

use crate::bundle::BundleError;
use crate::config::experiment::ExperimentConfig;
use crate::data::published::Preprocessor;
use crate::data::tokens::Tokenizer;
use crate::generators::published::{default_size, hash};
use crate::hub;
use crate::keyed::{Key, normal};

/// A folder and the hash of its files.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// See [`hash`].
    pub hash: String,
}

/// What is named in the configuration, fetched and hashed.
pub struct Published {
    /// Stable Diffusion.
    pub pictures: Option<Folder>,
    /// BLIP.
    pub captions: Option<Folder>,
    /// BERT.
    pub text: Option<Folder>,
    /// ViT.
    pub vision: Option<Folder>,
}

impl Published {
    /// Finds or fetches the folders. What will be trained is seen to be finite: later a weight that is not
    /// would show as a loss that is not.
    ///
    /// # Errors
    ///
    /// A folder cannot be fetched or read, or a weight of an encoder is not finite.
    pub fn open(config: &ExperimentConfig) -> anyhow::Result<Self> {
        let open = |name: &Option<String>| -> anyhow::Result<Option<Folder>> {
            let Some(name) = name else { return Ok(None) };
            let path = hub::resolve(name)?;
            let hash = hash(&path).map_err(BundleError::from)?;
            Ok(Some(Folder { path, hash }))
        };
        let trained = |name| {
            let folder = open(name)?;
            if let Some(folder) = &folder {
                let archive = Archive::open(&folder.path).map_err(BundleError::from)?;
                archive.check_numbers().map_err(BundleError::from)?;
            }
            Ok::<_, anyhow::Error>(folder)
        };
        Ok(Self {
            pictures: open(&config.generators.pictures)?,
            captions: open(&config.generators.captions)?,
            text: trained(&config.student.text_encoder)?,
            vision: trained(&config.student.vision_encoder)?,
        })
    }

    /// Hashes of the generators.
    pub fn generators(&self) -> BTreeMap<String, String> {
        named([("generators.pictures", &self.pictures), ("generators.captions", &self.captions)])
    }

    /// Hashes of the encoders.
    pub fn encoders(&self) -> BTreeMap<String, String> {
        named([("student.text_encoder", &self.text), ("student.vision_encoder", &self.vision)])
    }

    /// Width and height of the pictures that Stable Diffusion draws where nothing else is asked for.
    ///
    /// # Errors
    ///
    /// Its configuration is unusable.
    pub fn picture_size(&self) -> Result<Option<usize>, BundleError> {
        self.pictures.as_ref().map(|folder| default_size(&folder.path)).transpose()
    }
}

fn named(folders: [(&str, &Option<Folder>); 2]) -> BTreeMap<String, String> {
    let of = |(name, folder): (&str, &Option<Folder>)| {
        folder.as_ref().map(|folder| (name.to_owned(), folder.hash.clone()))
    };
    folders.into_iter().filter_map(of).collect()
}

/// The BERT in `folder` with embeddings for all of the tokenizer's entries: those that it lacks, of the
/// entities' markers, are drawn as BERT's were (normal, deviation 0.02), by the key.
///
/// # Errors
///
/// The folder is unusable.
pub fn text_encoder<B: Backend>(
    folder: &Folder,
    tokenizer: &Tokenizer,
    key: &Key,
    device: &B::Device,
) -> Result<(BertConfig, Bert<B>), BundleError> {
    let (config, mut model) = bert::load_encoder::<B>(&folder.path, Precision::F32, device)?;
    let added = tokenizer.vocabulary_size().saturating_sub(config.vocab_size);
    // The classifier reads the markers' states.
    model.pooler = None;
    let config =
        BertConfig { vocab_size: config.vocab_size + added, add_pooling_layer: false, ..config };
    if added > 0 {
        let numbers = normal(&mut key.with("markers", 0).rng(), added * config.hidden_size);
        let numbers = numbers.into_iter().map(|number| 0.02 * number).collect();
        let rows = TensorData::new::<f32, _>(numbers, [added, config.hidden_size]);
        let table = &mut model.embeddings.word_embeddings.weight;
        let rows = Tensor::cat(vec![table.val(), Tensor::from_data(rows, device)], 0);
        // A leaf of its own: what was concatenated is not what is trained.
        *table = Param::from_tensor(rows.detach());
    }
    Ok((config, model))
}

/// The ViT in `folder`.
///
/// # Errors
///
/// The folder is unusable.
pub fn vision_encoder<B: Backend>(
    folder: &Folder,
    device: &B::Device,
) -> Result<(ViTConfig, Vit<B>), BundleError> {
    let (config, mut model) = vit::load_encoder::<B>(&folder.path, Precision::F32, device)?;
    model.pooler = None;
    Ok((ViTConfig { add_pooling_layer: false, ..config }, model))
}

/// How the ViT in `folder` sees pictures.
///
/// # Errors
///
/// A configuration of it is missing or unusable, or its patches do not divide the pictures.
pub fn preprocessor(folder: &Folder) -> Result<Preprocessor, BundleError> {
    let path = folder.path.join("config.json");
    let config = vit::config(&mi2rage_models::published::read_json(&path)?)
        .map_err(|source| PublishedError::Config { path, source })?;
    Ok(Preprocessor::load_for(&folder.path, config.patch_size)?)
}

//! The examples of one seed.

use std::sync::Arc;

use anyhow::bail;

use crate::chain::Setting;
use crate::config::experiment::{DataConfig, ExperimentConfig};
use crate::data::audit::{Audit, audit};
use crate::data::picture_folder::{MissingPicture, PictureFolder, Rows};
use crate::data::pictures::{Fit, load};
use crate::data::resize::Filter;
use crate::data::{Example, Picture, Relations, Split, jsonl, mnre};
use crate::exit::UserError;
use crate::keyed::Key;
use crate::world::World;

/// The key of the test posts: every seed is tested on the same ones.
const TEST_SEED: u64 = 0;

/// The three splits and what is known of them.
pub struct Dataset {
    /// The labels.
    pub relations: Relations,
    /// To train on.
    pub train: Vec<Example>,
    /// To choose epochs and settings on.
    pub validation: Vec<Example>,
    /// Scored once.
    pub test: Vec<Example>,
    /// The embedded world, where that is the source.
    pub world: Option<Arc<World>>,
    /// Whether the test split comes with real pictures. Without, they are generated.
    pub tested_on_real_pictures: bool,
    /// Whether the other splits do, so that there are real pairs to train on.
    pub has_real_pairs: bool,
    /// Rows that were left out because their picture is missing.
    pub without_picture: usize,
}

impl Dataset {
    /// Reads or draws the examples of one seed.
    ///
    /// # Errors
    ///
    /// Files that are missing or wrong; a setting that needs pictures without any.
    pub fn load(config: &ExperimentConfig, seed: u64) -> anyhow::Result<Self> {
        match &config.data {
            DataConfig::World { train, validation, test } => {
                let world = World::new(config.world.clone())?;
                let draw = |split, seed, count| world.posts(split, seed, count);
                Ok(Self {
                    relations: world.relations(),
                    train: draw(Split::Train, seed, *train),
                    validation: draw(Split::Validation, seed, *validation),
                    test: draw(Split::Test, TEST_SEED, *test),
                    world: Some(Arc::new(world)),
                    tested_on_real_pictures: true,
                    has_real_pairs: true,
                    without_picture: 0,
                })
            }
            DataConfig::Mnre { folder, pictures, limit } => {
                let source = pictures.as_ref().map(|path| PictureFolder {
                    path: path.clone(),
                    missing: MissingPicture::DropRow,
                });
                if source.is_none() && config.setting == Setting::MissingText {
                    bail!(UserError(
                        "setting missing_text starts from real pictures: expected data.pictures \
                         (or --pictures)"
                            .to_owned()
                    ));
                }
                let relations = mnre::relations(folder)?;
                let read = |split| mnre::read_split(folder, split, &relations, source.as_ref());
                Self::of_rows(relations.clone(), read, *limit)
            }
            DataConfig::Jsonl { folder, limit } => {
                let relations = jsonl::relations(folder)?;
                let pictures =
                    PictureFolder { path: folder.clone(), missing: MissingPicture::KeepRow };
                let read = |split| jsonl::read_split(folder, split, &relations, Some(&pictures));
                let dataset = Self::of_rows(relations.clone(), read, *limit)?;
                if config.setting == Setting::MissingText && !dataset.has_real_pairs {
                    bail!(UserError(format!(
                        "{}: setting missing_text starts from real pictures: expected a file_name \
                         in every row of train and validation",
                        folder.display()
                    )));
                }
                Ok(dataset)
            }
        }
    }

    fn of_rows<E>(
        relations: Relations,
        read: impl Fn(Split) -> Result<Rows, E>,
        limit: Option<usize>,
    ) -> anyhow::Result<Self>
    where
        anyhow::Error: From<E>,
    {
        let mut without_picture = 0;
        let mut split = |split| -> anyhow::Result<Vec<Example>> {
            let rows = read(split)?;
            without_picture += rows.missing_pictures;
            let mut examples = rows.examples;
            examples.truncate(limit.unwrap_or(usize::MAX));
            Ok(examples)
        };
        let (train, validation, test) =
            (split(Split::Train)?, split(Split::Validation)?, split(Split::Test)?);
        let pictured =
            |examples: &[Example]| examples.iter().all(|example| example.picture.is_some());
        Ok(Self {
            tested_on_real_pictures: pictured(&test),
            has_real_pairs: pictured(&train) && pictured(&validation),
            relations,
            train,
            validation,
            test,
            world: None,
            without_picture,
        })
    }

    /// What a report must know of the data.
    pub fn audit(&self) -> Audit {
        let splits = [
            (Split::Train, self.train.as_slice()),
            (Split::Validation, self.validation.as_slice()),
            (Split::Test, self.test.as_slice()),
        ];
        audit(&self.relations, &splits)
    }

    /// A hash of everything the stages read of the examples.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}", self.relations.names()).as_bytes());
        for examples in [&self.train, &self.validation, &self.test] {
            for example in examples {
                hasher.update(format!("{:?}", (&example.id, &example.tokens)).as_bytes());
                hasher.update(
                    format!("{:?}", (&example.head, &example.tail, example.label)).as_bytes(),
                );
                match &example.picture {
                    Some(crate::data::PictureSource::Pixels(picture)) => {
                        hasher.update(&picture.rgb);
                    }
                    Some(crate::data::PictureSource::File(path)) => {
                        hasher.update(path.as_os_str().as_encoded_bytes());
                    }
                    None => {}
                }
            }
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// An example's real picture at the models' size.
///
/// # Errors
///
/// It has none, or the file cannot be decoded.
pub fn real_picture(example: &Example, size: usize) -> anyhow::Result<Arc<Picture>> {
    let Some(source) = &example.picture else {
        bail!("example {} has no picture", example.id);
    };
    if let crate::data::PictureSource::Pixels(picture) = source
        && (picture.width, picture.height) == (size, size)
    {
        return Ok(picture.clone());
    }
    Ok(Arc::new(load(source, size, Fit::Squash, Filter::Bicubic)?))
}

/// The root of everything that one seed draws.
pub fn seed_key(seed: u64) -> Key {
    Key::new(seed).with("experiment", 0)
}

//! Pictures made elsewhere: a folder with one image file a sample.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::generator::{GeneratorError, TextPrompt, TextToImage};
use super::plan::SampleKey;
use crate::data::Picture;

/// The endings that are looked for, in this order.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// A folder that cannot stand in for a generator.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The folder or a file in it cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a picture.
    #[error("{path}: not a readable picture: {source}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A sample's file is not there.
    #[error("{path}.{{png,jpg,jpeg}}: no such file, expected for the {sample}")]
    Missing {
        /// The path that was looked for, without its ending.
        path: PathBuf,
        /// The sample that it should hold.
        sample: SampleKey,
    },
}

/// Serves the pictures of a folder, named by [`file_stem`], in the place of a model.
pub struct PictureFolder {
    path: PathBuf,
    fingerprint: String,
}

impl PictureFolder {
    /// Opens a folder and hashes the names and contents of its pictures.
    ///
    /// # Errors
    /// If the folder or one of its pictures cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let path = path.into();
        let fingerprint = hash_of_pictures(&path)?;
        Ok(Self { path, fingerprint })
    }

    fn read(&self, sample: &SampleKey) -> Result<Picture, FolderError> {
        let stem = file_stem(sample);
        let path = ENDINGS
            .iter()
            .map(|ending| self.path.join(format!("{stem}.{ending}")))
            .find(|path| path.is_file())
            .ok_or_else(|| FolderError::Missing {
                path: self.path.join(&stem),
                sample: sample.clone(),
            })?;
        let bytes =
            fs::read(&path).map_err(|source| FolderError::Io { path: path.clone(), source })?;
        let pixels = image::load_from_memory(&bytes)
            .map_err(|source| FolderError::Broken { path, source })?
            .into_rgb8();
        Ok(Picture {
            width: pixels.width() as usize,
            height: pixels.height() as usize,
            rgb: pixels.into_raw(),
        })
    }
}

impl TextToImage for PictureFolder {
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        prompts.iter().map(|prompt| Ok(self.read(&prompt.sample)?)).collect()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The file name, without its ending, of a picture: `<item>-c<chain>-r<round>`.
///
/// Bytes of the item's id other than ASCII letters, digits, `.`, `_` and `-` are written `%XX`.
pub fn file_stem(sample: &SampleKey) -> String {
    let mut stem = String::new();
    for byte in sample.item.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            stem.push(char::from(byte));
        } else {
            stem.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{stem}-c{}-r{}", sample.chain, sample.round)
}

fn hash_of_pictures(folder: &Path) -> Result<String, FolderError> {
    let io = |path: &Path, source| FolderError::Io { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| io(folder, error))? {
        let path = entry.map_err(|error| io(folder, error))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut all = blake3::Hasher::new();
    for path in files {
        let bytes = fs::read(&path).map_err(|error| io(&path, error))?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        all.update(blake3::hash(name).as_bytes());
        all.update(blake3::hash(&bytes).as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::plan::Modality;
    use crate::data::Entity;
    use crate::keyed::Key;

    fn prompt(item: &str) -> TextPrompt {
        let entity = |name: &str, at: usize| Entity { name: name.into(), span: at..at + 1 };
        TextPrompt {
            sample: SampleKey {
                item: item.into(),
                chain: 0,
                round: 1,
                modality: Modality::Picture,
            },
            key: Key::new(0),
            tokens: vec!["a".into(), "b".into()],
            head: entity("a", 0),
            tail: entity("b", 1),
        }
    }

    #[test]
    fn a_picture_is_found_by_its_sample_and_a_missing_or_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6])
            .unwrap()
            .save(folder.path().join("a%2F1-c0-r1.png"))
            .unwrap();
        let generator = PictureFolder::open(folder.path()).unwrap();
        let pictures = generator.draw(&[prompt("a/1")]).unwrap();
        assert_eq!(pictures[0].rgb, [1, 2, 3, 4, 5, 6]);
        assert_eq!((pictures[0].width, pictures[0].height), (2, 1));

        let missing = generator.draw(&[prompt("b")]).unwrap_err().to_string();
        assert!(missing.contains("b-c0-r1"), "{missing}");
        assert!(missing.contains("item b"), "{missing}");

        fs::write(folder.path().join("c-c0-r1.jpg"), b"nonsense").unwrap();
        let broken = generator.draw(&[prompt("c")]).unwrap_err().to_string();
        assert!(broken.contains("c-c0-r1.jpg"), "{broken}");

        let nowhere = PictureFolder::open(folder.path().join("none")).err().unwrap();
        assert!(nowhere.to_string().contains("none"));
    }

    #[test]
    fn the_fingerprint_changes_with_a_picture_and_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let now = || PictureFolder::open(folder.path()).unwrap().fingerprint();
        let empty = now();
        fs::write(folder.path().join("a-c0-r1.png"), b"1").unwrap();
        let one = now();
        fs::write(folder.path().join("a-c0-r1.png"), b"2").unwrap();
        let two = now();
        fs::rename(folder.path().join("a-c0-r1.png"), folder.path().join("b-c0-r1.png")).unwrap();
        let renamed = now();
        let all = std::collections::BTreeSet::from([empty, one, two, renamed]);
        assert_eq!(all.len(), 4);
    }
}

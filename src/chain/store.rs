//! The sample store: every generated sample once, on disk, safe against a kill at any moment.
//!
//! A store is a folder named by its [`Fingerprint`], so that another configuration never meets
//! these samples. In it lies one segment file a writer (see `segment.rs` for the format); a reader
//! merges all segments. Since samples are functions of their keys, two writers that make the same
//! one must make the same bytes, and it is an error if they did not. Memory holds an index; a
//! sample is read from disk when it is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::generator::Caption;
use super::plan::{Modality, SampleKey, Setting};
use super::segment::{self, Place, Writer};
use crate::data::Picture;

/// What the samples of a store depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The hash of the setting, the seed, and named hashes of all else that samples depend on (the
    /// generators' fingerprints, the data), whatever their order.
    ///
    /// The number of rounds and chains does not belong here: arms that differ in them share samples.
    pub fn new(setting: Setting, seed: u64, parts: &BTreeMap<String, String>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(&[setting.missing() as u8]);
        for part in parts.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    fn folder_name(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex()[..16].to_owned()
    }
}

/// A store that cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is no segment.
    #[error("{path}: not a sample segment (wrong magic at offset 0)")]
    Magic {
        /// The file.
        path: PathBuf,
    },
    /// A segment of another program version.
    #[error("{path}: sample segment of version {found} at offset 8, expected {expected}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        expected: u32,
    },
    /// A segment of another configuration.
    #[error("{path}: samples of another configuration (fingerprint at offset 12)")]
    Fingerprint {
        /// The file.
        path: PathBuf,
    },
    /// Damage that no write that was cut short explains.
    #[error("{path}: corrupt at offset {offset}: {what} is wrong")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// Two different samples of one key.
    #[error("{path}: the {sample} differs from the one in {other}")]
    Conflict {
        /// The file that was read later, or the store's folder when writing.
        path: PathBuf,
        /// The file that was read first.
        other: PathBuf,
        /// The key that they share.
        sample: SampleKey,
    },
    /// A sample that was asked for and never made.
    #[error("{path}: the {sample} is not in this store")]
    Missing {
        /// The store's folder.
        path: PathBuf,
        /// The sample.
        sample: SampleKey,
    },
    /// A payload whose size or kind is not what its key or its fields say.
    #[error("the {sample}: {what}")]
    Payload {
        /// The sample.
        sample: SampleKey,
        /// What does not fit.
        what: String,
    },
}

impl StoreError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A picture; kept as PNG.
    Picture(Picture),
    /// A sentence; kept as JSON.
    Caption(Caption),
}

/// A generated sample and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its identity.
    pub key: SampleKey,
    /// The fingerprint of the generator that made it.
    pub generator: String,
    /// The sample that it was made from; `None` for the real half.
    pub parent: Option<SampleKey>,
    /// What was generated.
    pub payload: Payload,
}

/// The part of a record before its payload.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: SampleKey,
    generator: String,
    parent: Option<SampleKey>,
}

struct Entry {
    segment: usize,
    place: Place,
}

/// Samples on disk, indexed by key.
pub struct Store {
    folder: PathBuf,
    fingerprint: Fingerprint,
    segments: Vec<PathBuf>,
    index: BTreeMap<SampleKey, Entry>,
    writer: Option<Writer>,
}

impl Store {
    /// Opens the store of this fingerprint under `root`, or begins an empty one.
    ///
    /// Samples that other writers add later are not seen by this value.
    ///
    /// # Errors
    /// If a file cannot be read, is no segment of this fingerprint, or is damaged; a last record
    /// that was cut short is no error but a sample that was not made.
    pub fn open(root: &Path, fingerprint: Fingerprint) -> Result<Self, StoreError> {
        let folder = root.join(fingerprint.folder_name());
        fs::create_dir_all(&folder).map_err(|error| StoreError::io(&folder, error))?;
        let mut store = Self {
            segments: segments_of(&folder)?,
            folder,
            fingerprint,
            index: BTreeMap::new(),
            writer: None,
        };
        for segment in 0..store.segments.len() {
            store.index_segment(segment)?;
        }
        Ok(store)
    }

    /// The folder of this store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether this sample has been made.
    pub fn contains(&self, key: &SampleKey) -> bool {
        self.index.contains_key(key)
    }

    /// The keys of an item's samples in the order of its chains: chain by chain, each in the order
    /// in which it was made. For a gallery.
    pub fn samples_of(&self, item: &str, setting: Setting) -> Vec<&SampleKey> {
        let first =
            SampleKey { item: item.to_owned(), chain: 0, round: 0, modality: Modality::Text };
        let mut keys: Vec<_> = self
            .index
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.item == item)
            .collect();
        keys.sort_by_key(|key| (key.chain, key.round, key.modality != setting.missing()));
        keys
    }

    /// Reads a sample from disk.
    ///
    /// # Errors
    /// If it was never made, or its file cannot be read any more.
    pub fn read(&self, key: &SampleKey) -> Result<Sample, StoreError> {
        let entry = self.index.get(key).ok_or_else(|| StoreError::Missing {
            path: self.folder.clone(),
            sample: key.clone(),
        })?;
        let path = &self.segments[entry.segment];
        let body = segment::read(path, entry.place)?;
        decode(&body).map_err(|what| StoreError::corrupt(path, entry.place.offset, what))
    }

    /// Adds samples and waits until they are on disk. What the store holds already is not written
    /// again.
    ///
    /// # Errors
    /// If writing fails, or the store holds other samples of the same keys.
    pub fn append(&mut self, samples: &[Sample]) -> Result<(), StoreError> {
        // The generators wait meanwhile, so that every thread takes part.
        let encoded: Result<Vec<_>, StoreError> = samples
            .par_iter()
            .map(|sample| {
                let body = encode(sample)?;
                Ok((*blake3::hash(&body).as_bytes(), body))
            })
            .collect();
        let mut fresh = BTreeMap::new();
        for (sample, (hash, body)) in samples.iter().zip(encoded?) {
            let before =
                fresh.get(&sample.key).map(|(hash, _)| (hash, &self.folder)).or_else(|| {
                    let entry = self.index.get(&sample.key)?;
                    Some((&entry.place.hash, &self.segments[entry.segment]))
                });
            match before {
                Some((before, _)) if *before == hash => {}
                Some((_, other)) => {
                    return Err(StoreError::Conflict {
                        path: self.folder.clone(),
                        other: other.clone(),
                        sample: sample.key.clone(),
                    });
                }
                None => {
                    fresh.insert(sample.key.clone(), (hash, body));
                }
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let (keys, bodies): (Vec<_>, Vec<_>) =
            fresh.into_iter().map(|(key, (_, body))| (key, body)).unzip();

        // The writer comes back only when all went well: a segment that a failed write may have
        // left with part of a record is never written to again.
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let (writer, path) = Writer::create(&self.folder, &self.fingerprint.0)?;
                self.segments.push(path);
                writer
            }
        };
        let segment = self.segments.len() - 1;
        let places = writer
            .append(&bodies)
            .map_err(|error| StoreError::io(&self.segments[segment], error))?;
        self.writer = Some(writer);
        let entries = places.into_iter().map(|place| Entry { segment, place });
        self.index.extend(keys.into_iter().zip(entries));
        Ok(())
    }

    fn index_segment(&mut self, segment: usize) -> Result<(), StoreError> {
        let Self { segments, index, .. } = self;
        let path = &segments[segment];
        segment::scan(path, &self.fingerprint.0, |place, body| {
            let (header, _) =
                split(body).map_err(|what| StoreError::corrupt(path, place.offset, what))?;
            if let Some(before) = index.get(&header.key) {
                if before.place.hash != place.hash {
                    return Err(StoreError::Conflict {
                        path: path.clone(),
                        other: segments[before.segment].clone(),
                        sample: header.key,
                    });
                }
                return Ok(());
            }
            index.insert(header.key, Entry { segment, place });
            Ok(())
        })
    }
}

/// The segments of a folder in the order of their names; other files are left alone.
fn segments_of(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io = |error| StoreError::io(folder, error);
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|ending| ending == "samples") {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}

/// A record's body: length of the header (u32, little-endian), the header as JSON, the payload.
fn encode(sample: &Sample) -> Result<Vec<u8>, StoreError> {
    let wrong = |what: String| StoreError::Payload { sample: sample.key.clone(), what };
    let payload = match (&sample.payload, sample.key.modality) {
        (Payload::Picture(picture), Modality::Picture) => png(picture).map_err(wrong)?,
        (Payload::Caption(caption), Modality::Text) => {
            serde_json::to_vec(caption).map_err(|error| wrong(error.to_string()))?
        }
        (_, modality) => return Err(wrong(format!("its payload is no {modality}"))),
    };
    let header = serde_json::to_vec(&Header {
        key: sample.key.clone(),
        generator: sample.generator.clone(),
        parent: sample.parent.clone(),
    })
    .map_err(|error| wrong(error.to_string()))?;
    let length = u32::try_from(header.len()).map_err(|error| wrong(error.to_string()))?;
    Ok([&length.to_le_bytes()[..], &header, &payload].concat())
}

fn split(body: &[u8]) -> Result<(Header, &[u8]), String> {
    let short = || "the record's size".to_owned();
    let (length, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let (header, payload) =
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let header =
        serde_json::from_slice(header).map_err(|error| format!("the record's JSON ({error})"))?;
    Ok((header, payload))
}

fn decode(body: &[u8]) -> Result<Sample, String> {
    let (header, payload) = split(body)?;
    let payload = match header.key.modality {
        Modality::Picture => {
            let pixels = image::load_from_memory_with_format(payload, ImageFormat::Png)
                .map_err(|error| format!("the picture ({error})"))?
                .into_rgb8();
            Payload::Picture(Picture {
                width: pixels.width() as usize,
                height: pixels.height() as usize,
                rgb: pixels.into_raw(),
            })
        }
        Modality::Text => Payload::Caption(
            serde_json::from_slice(payload).map_err(|error| format!("the caption ({error})"))?,
        ),
    };
    Ok(Sample { key: header.key, generator: header.generator, parent: header.parent, payload })
}

/// PNG with every choice of the encoder named, so that equal pictures are equal bytes.
fn png(picture: &Picture) -> Result<Vec<u8>, String> {
    let side = |side: usize| u32::try_from(side).map_err(|error| error.to_string());
    let (width, height) = (side(picture.width)?, side(picture.height)?);
    let expected = u64::from(width) * u64::from(height) * 3;
    if expected == 0 || picture.rgb.len() as u64 != expected {
        return Err(format!(
            "{} bytes for a picture of {width} x {height} pixels",
            picture.rgb.len()
        ));
    }
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Sub)
        .write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;

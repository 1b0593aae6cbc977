//! The tensors of a checkpoint: one safetensors file, or the shards that an index names.
//!
//! Only headers are read when it is opened. A tensor that is used in the type that it is stored in is
//! not copied, see [`Shard`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::shard::Shard;
use super::{PublishedError, refuse_pickled};

/// Bytes of the length that a file begins with.
const LENGTH: usize = 8;
/// The longest header that is read: a hundred times that of Stable Diffusion's U-Net. What is made of a
/// header takes more than ten times its length.
const MAX_HEADER: u64 = 10_000_000;
/// Names under which checkpoints keep their weights: transformers' and diffusers'.
const STEMS: [&str; 2] = ["model", "diffusion_pytorch_model"];

/// A checkpoint's tensors by name.
#[derive(Debug)]
pub struct Archive {
    origin: PathBuf,
    files: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    file: usize,
    start: usize,
}

impl Entry {
    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Archive {
    /// The weights in `folder`: `model.safetensors` or `diffusion_pytorch_model.safetensors`, whole
    /// or sharded; else their half-precision variants (`.fp16`); or the one file that `folder` is.
    ///
    /// # Errors
    ///
    /// There are none, they are pickled, broken or incomplete, or two shards hold the same tensor.
    pub fn open(folder: &Path) -> Result<Self, PublishedError> {
        if folder.is_file() {
            refuse_pickled(folder)?;
            return Self::of_files(folder, vec![folder.to_owned()]);
        }
        for variant in ["", ".fp16"] {
            for stem in STEMS {
                let whole = folder.join(format!("{stem}{variant}.safetensors"));
                if whole.is_file() {
                    return Self::of_files(&whole, vec![whole.clone()]);
                }
                let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
                if index.is_file() {
                    return Self::of_index(&index);
                }
            }
        }
        refuse_pickled(folder)?;
        Err(PublishedError::NoWeights { folder: folder.to_owned() })
    }

    fn of_index(path: &Path) -> Result<Self, PublishedError> {
        let index: Index = super::read_json(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        // A file's name, not a way out of the folder.
        if let Some(name) =
            names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref()))
        {
            return Err(PublishedError::Broken {
                path: path.to_owned(),
                what: format!("weight_map names `{name}`, expected the name of a file beside it"),
            });
        }
        let archive = Self::of_files(path, names.iter().map(|name| folder.join(name)).collect())?;
        let broken = |what| PublishedError::Broken { path: path.to_owned(), what };
        for (tensor, file) in &index.weight_map {
            let found = archive.entries.get(tensor).map(|entry| &archive.files[entry.file].path);
            if found != Some(&folder.join(file)) {
                return Err(broken(format!(
                    "weight_map has `{tensor}` in `{file}`, which lacks it"
                )));
            }
        }
        match archive.entries.keys().find(|tensor| !index.weight_map.contains_key(*tensor)) {
            Some(tensor) => {
                Err(broken(format!("weight_map lacks `{tensor}`, which a shard holds")))
            }
            None => Ok(archive),
        }
    }

    fn of_files(origin: &Path, paths: Vec<PathBuf>) -> Result<Self, PublishedError> {
        let mut archive =
            Self { origin: origin.to_owned(), files: Vec::new(), entries: BTreeMap::new() };
        for path in paths {
            archive.add(path)?;
        }
        Ok(archive)
    }

    /// Maps a file, reads its header and checks that the file is as long as it says.
    fn add(&mut self, path: PathBuf) -> Result<(), PublishedError> {
        let broken = |what| PublishedError::Broken { path: path.clone(), what };
        let shard = Shard::open(&path)
            .map_err(|source| PublishedError::Io { path: path.clone(), source })?;
        let size = shard.map.len();
        let Some((length, _)) = shard.map.split_first_chunk() else {
            return Err(broken(format!("{size} bytes are no safetensors file")));
        };
        let header = u64::from_le_bytes(*length);
        let end = usize::try_from(header).ok().filter(|_| header <= MAX_HEADER);
        let Some(text) = end.and_then(|end| shard.map.get(LENGTH..)?.get(..end)) else {
            return Err(broken(format!(
                "a header of {header} bytes in a file of {size}: not a safetensors file, or cut short"
            )));
        };
        let metadata: Metadata =
            serde_json::from_slice(text).map_err(|error| broken(format!("its header: {error}")))?;
        let first = LENGTH + text.len();
        let expected = first.saturating_add(metadata.data_len());
        if expected != size {
            return Err(broken(format!(
                "{size} bytes, its header promises {expected}: cut short?"
            )));
        }
        let number = self.files.len();
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                file: number,
                start: first + info.data_offsets.0,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(broken(format!("`{name}` is in an earlier shard too")));
            }
        }
        self.files.push(shard);
        Ok(())
    }

    /// The file or the index, for messages.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|shard| shard.path.as_path())
    }

    /// Every tensor, in the order of names.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether a name begins with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.entries.keys().any(|name| name.starts_with(prefix))
    }

    /// A whole tensor, in 32 bits.
    ///
    /// # Errors
    ///
    /// It is not there, or holds something other than floats.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>, PublishedError> {
        let Some(entry) = self.entries.get(name).cloned() else {
            let what = format!("it has no tensor `{name}`");
            return Err(PublishedError::Broken { path: self.origin.clone(), what });
        };
        let data = self.read(name, &entry, 0, entry.len(), DType::F32)?;
        Ok(data.iter::<f32>().collect())
    }

    /// Sees that every number of every float tensor is finite, also of those that no module reads. It
    /// reads all of the files, which loading does not: what is wrong with a weight shows in what the model
    /// says.
    ///
    /// # Errors
    ///
    /// A number is not, or a file cannot be read.
    pub fn check_numbers(&self) -> Result<(), PublishedError> {
        for (name, entry) in &self.entries {
            let Some(width) = width(entry.dtype) else { continue };
            let shard = &self.files[entry.file];
            let range = entry.start..entry.start + entry.len() * width;
            let path = || shard.path.clone();
            let is_finite = shard.is_finite(range, entry.dtype);
            if !is_finite.map_err(|source| PublishedError::Io { path: path(), source })? {
                let what = format!("`{name}` holds a number that is not finite");
                return Err(PublishedError::Broken { path: path(), what });
            }
        }
        Ok(())
    }

    /// The numbers `from..from + count` of a tensor in one dimension, as `dtype`: those of the file
    /// itself where they are stored so, else converted.
    ///
    /// # Errors
    ///
    /// The file holds something other than floats.
    pub(super) fn read(
        &self,
        name: &str,
        entry: &Entry,
        from: usize,
        count: usize,
        dtype: DType,
    ) -> Result<TensorData, PublishedError> {
        let shard = &self.files[entry.file];
        let Some(width) = width(entry.dtype) else {
            let what = format!("`{name}` is {:?}, expected F32, F16, BF16 or F64", entry.dtype);
            return Err(PublishedError::Broken { path: shard.path.clone(), what });
        };
        let start = entry.start + from * width;
        Ok(shard.numbers(start..start + count * width, entry.dtype, dtype))
    }
}

/// Bytes of a number of a float type that is read.
fn width(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F64 => Some(8),
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use safetensors::tensor::TensorView;
    use std::fs;

    fn bytes(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn le<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values.into_iter().flatten().collect()
    }

    #[test]
    fn every_float_type_is_read_as_each_whole_or_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let values = [1.5_f32, -2.0, 0.25, 96.0];
        let path = folder.path().join("model.safetensors");
        let file = bytes(&[
            ("a", Dtype::F32, vec![4], le(values.map(f32::to_le_bytes))),
            ("b", Dtype::F16, vec![2, 2], le(values.map(|v| f16::from_f32(v).to_le_bytes()))),
            ("c", Dtype::BF16, vec![4], le(values.map(|v| bf16::from_f32(v).to_le_bytes()))),
            ("d", Dtype::F64, vec![4, 1], le(values.map(|v| f64::from(v).to_le_bytes()))),
        ]);
        fs::write(&path, file).unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        for (name, entry) in archive.entries().clone() {
            for (dtype, range) in
                [DType::F32, DType::F16, DType::BF16].into_iter().zip([0..4, 1..3, 2..4])
            {
                let (from, count) = (range.start, range.len());
                let data = archive.read(&name, &entry, from, count, dtype).unwrap();
                assert_eq!((data.dtype, data.shape.to_vec()), (dtype, vec![count]));
                assert_eq!(data.iter::<f32>().collect::<Vec<_>>(), values[range], "{name}");
            }
        }
    }

    #[test]
    fn shards_are_merged_and_must_be_what_the_index_says() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, data: &[u8]| fs::write(folder.path().join(name), data).unwrap();
        let tensor = |name| bytes(&[(name, Dtype::F32, vec![1], le([1_f32.to_le_bytes()]))]);
        let index = |map: &str| {
            write("model.safetensors.index.json", format!(r#"{{"weight_map": {map}}}"#).as_bytes());
        };
        let message = || Archive::open(folder.path()).unwrap_err().to_string();
        write("1.safetensors", &tensor("a"));
        write("2.safetensors", &tensor("b"));
        index(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
        assert_eq!(Archive::open(folder.path()).unwrap().entries().len(), 2);
        index(r#"{"a": "1.safetensors", "c": "2.safetensors"}"#);
        assert!(message().contains("`c` in `2.safetensors`, which lacks it"), "{}", message());
        index(r#"{"a": "1.safetensors", "b": "../2.safetensors"}"#);
        assert!(message().contains("../2.safetensors"), "{}", message());
        write("2.safetensors", &tensor("a"));
        index(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
        assert!(message().contains("earlier shard"), "{}", message());
        index(r#"{"a": "1.safetensors", "b": "3.safetensors"}"#);
        assert!(message().contains("3.safetensors: No such file"), "{}", message());
    }

    #[test]
    fn a_number_that_is_not_finite_is_found_with_its_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        // The last of several chunks.
        let count = Shard::CHUNK / 4 + 3;
        let checked = |bad: &str, last: f32| {
            // The greatest exponents that are none of infinity's, and one tensor that is none of floats.
            let last = |name: &str, good: f32| if name == bad { last } else { good };
            let values = (1..count).map(|_| 1e38).chain([last("a", -1e38)]);
            let half = [6e4, last("b", -6e4)].map(|value| f16::from_f32(value).to_le_bytes());
            let brain = [1e38, last("c", -3.0)].map(|value| bf16::from_f32(value).to_le_bytes());
            let wide = [1e300, f64::from(last("d", 0.0))].map(f64::to_le_bytes);
            let file = bytes(&[
                ("a", Dtype::F32, vec![count], le(values.map(f32::to_le_bytes))),
                ("b", Dtype::F16, vec![2], le(half)),
                ("c", Dtype::BF16, vec![2], le(brain)),
                ("d", Dtype::F64, vec![2], le(wide)),
                ("ids", Dtype::I64, vec![1], le([(-1_i64).to_le_bytes()])),
            ]);
            fs::write(&path, file).unwrap();
            Archive::open(folder.path()).unwrap().check_numbers().map_err(|error| error.to_string())
        };
        assert_eq!(checked("", 0.0), Ok(()));
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for name in ["a", "b", "c", "d"] {
                let message = checked(name, number).unwrap_err();
                assert!(message.ends_with(&format!("`{name}` holds a number that is not finite")));
                assert!(message.starts_with(path.to_str().unwrap()), "{message}");
            }
        }
    }

    #[test]
    fn offsets_that_overlap_or_lie_outside_and_headers_too_long_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let with_header = |length: u64, header: &str| {
            fs::write(&path, [&length.to_le_bytes(), header.as_bytes(), &[0; 16]].concat())
                .unwrap();
            Archive::open(folder.path()).unwrap_err().to_string()
        };
        let header = |a: &str, b: &str| {
            let tensor = |offsets: &str| {
                format!(r#"{{"dtype": "F32", "shape": [2], "data_offsets": {offsets}}}"#)
            };
            format!(r#"{{"a": {}, "b": {}}}"#, tensor(a), tensor(b))
        };
        for (a, b, expected) in [
            ("[0, 8]", "[4, 12]", "header"),
            ("[0, 8]", "[16, 24]", "header"),
            ("[8, 0]", "[8, 16]", "header"),
            ("[0, 8]", "[8, 20]", "header"),
            ("[0, 8]", "[8, 18446744073709551615]", "header"),
            ("[0, 8]", "[8, 16", "header"),
        ] {
            let header = header(a, b);
            let message = with_header(header.len() as u64, &header);
            assert!(message.contains(expected), "{a} and {b}: {message}");
        }
        let sound = header("[0, 8]", "[8, 16]");
        for length in [10_000_001, 100_000_000, u64::MAX, u64::MAX - 7] {
            let message = with_header(length, &sound);
            assert!(message.contains("not a safetensors file, or cut short"), "{message}");
        }
        let huge = r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 16]}}"#;
        let message = with_header(huge.len() as u64, huge);
        assert!(message.contains("header"), "{message}");
    }

    #[test]
    fn broken_files_are_refused_before_a_tensor_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let message = || Archive::open(folder.path()).unwrap_err().to_string();
        assert!(message().contains("model.safetensors"), "{}", message());
        let whole = bytes(&[("a", Dtype::F32, vec![2], vec![0; 8])]);
        for cut in [0, 4, 20, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(message().contains("model.safetensors"), "{}", message());
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(message().contains("promises"), "{}", message());
        fs::write(&path, b"PK\x03\x04 a zip file, as pytorch_model.bin is").unwrap();
        assert!(message().contains("not a safetensors file"), "{}", message());
    }
}

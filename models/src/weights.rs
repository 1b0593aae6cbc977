//! Weights of any module in one safetensors file, named by the module's own paths.
//!
//! This is the format of checkpoints and of the bundled weights; published checkpoints have names
//! and layouts of their own.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, backend::Backend};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

/// Precision of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits: half the size, values up to 65504, three digits.
    F16,
}

/// Why weights were not saved or not loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no safetensors file, or a broken one.
    #[error("{origin}: not a valid safetensors file: {source}")]
    Format {
        /// The file, or the name of the bytes.
        origin: String,
        /// What the parser says.
        source: SafeTensorError,
    },
    /// The file and the module do not hold the same tensors.
    #[error("{origin}: the weights do not fit the model{}", list(missing, unused, misfit))]
    Mismatch {
        /// The file, or the name of the bytes.
        origin: String,
        /// Parameters of the module that the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the module lacks.
        unused: Vec<String>,
        /// Tensors of another shape or type, each with what was found and expected.
        misfit: Vec<String>,
    },
    /// A value cannot be stored: not a number, infinite, or too large for the precision.
    #[error("{name}: holds a value that is not finite in {precision:?}")]
    NotFinite {
        /// The parameter.
        name: String,
        /// The precision that was asked for.
        precision: Precision,
    },
    /// The module holds a parameter that is no float tensor.
    #[error("{0}: only float parameters can be saved and loaded")]
    NotFloat(String),
}

fn list(missing: &[String], unused: &[String], misfit: &[String]) -> String {
    [("missing", missing), ("unused", unused), ("misfit", misfit)]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("; {kind}: {}", names.join(", ")))
        .collect()
}

/// Writes the float parameters of `module` and `metadata` to `path`, beside it first and then
/// renamed, so that `path` never holds half a file. The same arguments give the same bytes.
///
/// # Errors
///
/// [`WeightsError::Io`], [`WeightsError::NotFinite`], [`WeightsError::NotFloat`].
pub fn save<B: Backend, M: Module<B>>(
    module: &M,
    path: &Path,
    precision: Precision,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let bytes = to_bytes(module, precision, metadata)?;
    let io = |source| WeightsError::Io { path: path.into(), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // What is left of the attempt; the error that counts is the first one.
        let _ = fs::remove_file(&beside);
        io(error)
    })
}

/// The bytes that [`save`] writes.
///
/// # Errors
///
/// [`WeightsError::NotFinite`], [`WeightsError::NotFloat`].
pub fn to_bytes<B: Backend, M: Module<B>>(
    module: &M,
    precision: Precision,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightsError> {
    let mut collect =
        Collect { precision, path: Vec::new(), tensors: BTreeMap::new(), error: None };
    module.visit(&mut collect);
    if let Some(error) = collect.error {
        return Err(error);
    }

    // The header is written here because the safetensors crate keeps the metadata in a hash map,
    // which gives another order of the bytes in every process.
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut offset = 0;
    for (name, data) in &collect.tensors {
        let end = offset + data.bytes.len();
        let entry = serde_json::json!({
            "dtype": match precision { Precision::F32 => "F32", Precision::F16 => "F16" },
            "shape": data.shape.as_slice(),
            "data_offsets": [offset, end],
        });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut bytes = Vec::with_capacity(8 + header.len() + offset);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for data in collect.tensors.values() {
        bytes.extend_from_slice(&data.bytes);
    }
    Ok(bytes)
}

/// Fills `module` with the weights of the file at `path`, as 32-bit floats on `device`.
///
/// Do this on the autodiff backend if the module is to be trained: burn forgets that a parameter
/// wants a gradient when its value is replaced on a backend without gradients.
///
/// # Errors
///
/// [`WeightsError::Io`], [`WeightsError::Format`], [`WeightsError::NotFloat`], and
/// [`WeightsError::Mismatch`] unless every tensor of the file is used and every parameter filled.
pub fn load<B: Backend, M: Module<B>>(
    module: M,
    path: &Path,
    device: &B::Device,
) -> Result<M, WeightsError> {
    // Read, not mapped: a file that is truncated under a map kills the process.
    let bytes = read(path)?;
    from_bytes(module, &bytes, &path.display().to_string(), device)
}

/// [`load`] from bytes, which errors call `origin`.
///
/// # Errors
///
/// As for [`load`].
pub fn from_bytes<B: Backend, M: Module<B>>(
    module: M,
    bytes: &[u8],
    origin: &str,
    device: &B::Device,
) -> Result<M, WeightsError> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|source| WeightsError::Format { origin: origin.into(), source })?;
    let mut fill = Fill::<B> {
        device,
        path: Vec::new(),
        tensors: tensors.iter().collect(),
        missing: Vec::new(),
        misfit: Vec::new(),
        not_float: None,
    };
    let module = module.map(&mut fill);
    if let Some(name) = fill.not_float {
        return Err(WeightsError::NotFloat(name));
    }
    let mut unused: Vec<String> = fill.tensors.into_keys().map(String::from).collect();
    unused.sort();
    if fill.missing.is_empty() && fill.misfit.is_empty() && unused.is_empty() {
        return Ok(module);
    }
    Err(WeightsError::Mismatch {
        origin: origin.into(),
        missing: fill.missing,
        unused,
        misfit: fill.misfit,
    })
}

/// The metadata that [`save`] put into the file.
///
/// # Errors
///
/// [`WeightsError::Io`] and [`WeightsError::Format`].
pub fn metadata(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    metadata_of(&read(path)?, &path.display().to_string())
}

/// The metadata of a file in memory; `origin` names it in errors.
///
/// # Errors
///
/// [`WeightsError::Format`].
pub fn metadata_of(bytes: &[u8], origin: &str) -> Result<BTreeMap<String, String>, WeightsError> {
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|source| WeightsError::Format { origin: origin.to_owned(), source })?;
    Ok(header.metadata().clone().into_iter().flatten().collect())
}

fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })
}

/// Copies every parameter to the host.
struct Collect {
    precision: Precision,
    path: Vec<String>,
    tensors: BTreeMap<String, TensorData>,
    error: Option<WeightsError>,
}

impl<B: Backend> ModuleVisitor<B> for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let name = self.path.join(".");
        let precision = self.precision;
        let data = param.val().into_data().convert_dtype(match precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
        });
        if !data.iter::<f32>().all(f32::is_finite) {
            self.error.get_or_insert(WeightsError::NotFinite { name, precision });
            return;
        }
        self.tensors.insert(name, data);
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<B, D, Int>>) {
        self.error.get_or_insert(WeightsError::NotFloat(self.path.join(".")));
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<B, D, Bool>>) {
        self.error.get_or_insert(WeightsError::NotFloat(self.path.join(".")));
    }
}

/// Replaces every parameter by the tensor of its name.
struct Fill<'a, B: Backend> {
    device: &'a B::Device,
    path: Vec<String>,
    tensors: HashMap<&'a str, TensorView<'a>>,
    missing: Vec<String>,
    misfit: Vec<String>,
    not_float: Option<String>,
}

impl<B: Backend> ModuleMapper<B> for Fill<'_, B> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let name = self.path.join(".");
        let Some(view) = self.tensors.remove(name.as_str()) else {
            self.missing.push(name);
            return param;
        };
        let shape = param.lazy_shape();
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            other => {
                self.misfit.push(format!("{name} is {other:?}, expected F32 or F16"));
                return param;
            }
        };
        if view.shape() != shape.as_slice() {
            self.misfit.push(format!(
                "{name} is {:?}, expected {:?}",
                view.shape(),
                shape.as_slice()
            ));
            return param;
        }
        let data = TensorData::from_bytes_vec(view.data().to_vec(), shape, dtype)
            .convert_dtype(DType::F32);
        let id = param.id;
        let param = param.transform_for_load(Tensor::from_data(data, self.device), id);
        if param.device() == *self.device { param } else { param.fork(self.device) }
    }

    fn map_int<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Int>>,
    ) -> Param<Tensor<B, D, Int>> {
        self.not_float.get_or_insert(self.path.join("."));
        param
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<B, D, Bool>>,
    ) -> Param<Tensor<B, D, Bool>> {
        self.not_float.get_or_insert(self.path.join("."));
        param
    }
}

//! Fixtures of `tests/reference/*.py`: a published model's weights, inputs and expected outputs in
//! one safetensors file, and a module filled with those weights; or its folder as published, with
//! inputs and outputs in a file of their own.

#![allow(dead_code)] // every test of this folder uses some of it

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The file `models/tests/fixtures/<name>.safetensors`.
pub fn fixture_path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(name).with_extension("safetensors")
}

/// The folder of a published model, of `tests/reference/checkpoints.py`.
pub fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// One fixture file.
pub struct Fixture {
    /// What the file's metadata say under `config`.
    pub config: serde_json::Value,
    /// The largest difference between the reference's own results in 32 and in 64 bits, by the part that
    /// outputs' names begin with; where the file does not tell parts apart, of the nameless whole.
    gaps: BTreeMap<String, f64>,
    tensors: BTreeMap<String, TensorData>,
}

impl Fixture {
    /// The file `models/tests/fixtures/<name>.safetensors`.
    pub fn open(name: &str) -> Self {
        Self::at(&fixture_path(name))
    }

    /// The inputs and outputs of the published folder [`checkpoint`].
    pub fn of_checkpoint(name: &str) -> Self {
        Self::at(&checkpoint(name).join("reference.safetensors"))
    }

    fn at(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.iter().map(|(name, view)| {
            let (data, shape) = (view.data(), view.shape());
            let data = match view.dtype() {
                Dtype::F32 => {
                    let value = |c: &[u8]| f32::from_le_bytes(c.try_into().unwrap());
                    let values: Vec<f32> = data.chunks_exact(4).map(value).collect();
                    TensorData::new(values, shape)
                }
                Dtype::I64 => {
                    let value = |c: &[u8]| i64::from_le_bytes(c.try_into().unwrap());
                    let values: Vec<i64> = data.chunks_exact(8).map(value).collect();
                    TensorData::new(values, shape)
                }
                other => panic!("{name} is {other:?}"),
            };
            (name.to_string(), data)
        });
        Self {
            config: metadata
                .get("config")
                .map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap()),
            gaps: metadata
                .iter()
                .filter_map(|(key, gap)| {
                    let part = key.strip_prefix("gap")?.trim_start_matches('.');
                    Some((part.to_owned(), gap.parse().unwrap()))
                })
                .collect(),
            tensors: tensors.collect(),
        }
    }

    /// `module` with the file's weights in place of its own.
    ///
    /// The name of a parameter in the file is its path in the module after every pair of `renames`
    /// (ours, theirs) is replaced in it; `gamma` and `beta` of norms are `weight` and `bias` there,
    /// and weights of linear layers are transposed. Panics with the list unless every parameter is
    /// filled and every tensor but `in.*` and `out.*` is used.
    pub fn fill<B: Backend, M: Module<B>>(&self, module: M, renames: &[(&str, &str)]) -> M {
        let mut fill = Fill {
            path: Vec::new(),
            renames,
            weights: self
                .tensors
                .iter()
                .filter(|(name, _)| !name.starts_with("in.") && !name.starts_with("out."))
                .collect(),
            wrong: Vec::new(),
        };
        let module = module.map(&mut fill);
        let unused = fill.weights.keys().map(|name| format!("unused: {name}"));
        fill.wrong.extend(unused);
        assert!(fill.wrong.is_empty(), "{}", fill.wrong.join("\n"));
        module
    }

    /// What an output may be off by: ten times the reference's own difference between 32 and 64 bits, in
    /// the output's part where the file tells them apart.
    pub fn tolerance(&self, name: &str) -> f64 {
        let part = name.split('.').next().and_then(|part| self.gaps.get(part));
        10.0 * part.unwrap_or_else(|| &self.gaps[""])
    }

    /// The input `in.<name>` of numbers.
    pub fn floats<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D> {
        Tensor::from_data(self.input(name), &Default::default())
    }

    /// The input `in.<name>` of ids.
    pub fn ids<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D, Int> {
        Tensor::from_data(self.input(name), &Default::default())
    }

    /// The input `in.<name>` of ones and zeros.
    pub fn mask<B: Backend, const D: usize>(&self, name: &str) -> Tensor<B, D, Bool> {
        self.ids::<B, D>(name).equal_elem(1)
    }

    fn input(&self, name: &str) -> TensorData {
        self.tensors[&format!("in.{name}")].clone()
    }

    /// The numbers of the output `out.<name>`.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        self.tensors[&format!("out.{name}")].iter().collect()
    }

    /// The input `in.<name>` of integers.
    pub fn integers(&self, name: &str) -> Vec<usize> {
        let values = self.tensors[&format!("in.{name}")].iter::<i64>();
        values.map(|value| usize::try_from(value).unwrap()).collect()
    }

    /// The rows of the output `out.<name>` of ids.
    pub fn rows(&self, name: &str) -> Vec<Vec<i64>> {
        self.rows_of(&format!("out.{name}"))
    }

    /// The rows of the input `in.<name>` of ids.
    pub fn input_rows(&self, name: &str) -> Vec<Vec<i64>> {
        self.rows_of(&format!("in.{name}"))
    }

    fn rows_of(&self, name: &str) -> Vec<Vec<i64>> {
        let data = &self.tensors[name];
        let values: Vec<i64> = data.iter().collect();
        values.chunks(data.shape[1]).map(<[i64]>::to_vec).collect()
    }

    /// Panics unless `actual` has the shape and, within the tolerance, the values of `out.<name>`.
    pub fn assert_output<B: Backend, const D: usize>(&self, name: &str, actual: Tensor<B, D>) {
        let expected = &self.tensors[&format!("out.{name}")];
        let actual = actual.into_data();
        assert_eq!(actual.shape, expected.shape, "shape of {name}");
        let worst = actual
            .iter::<f64>()
            .zip(expected.iter::<f64>())
            .map(|(a, e)| (a - e).abs())
            .fold(0.0, |worst: f64, gap| if gap <= worst { worst } else { gap });
        let tolerance = self.tolerance(name);
        assert!(worst <= tolerance, "{name} is off by {worst:e}, tolerance {tolerance:e}");
    }
}

struct Fill<'a> {
    /// Field name and container of each level.
    path: Vec<(String, String)>,
    renames: &'a [(&'a str, &'a str)],
    weights: BTreeMap<&'a String, &'a TensorData>,
    wrong: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for Fill<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        let name = match (container_type, name) {
            ("Struct:LayerNorm" | "Struct:GroupNorm", "gamma") => "weight",
            ("Struct:LayerNorm" | "Struct:GroupNorm", "beta") => "bias",
            (_, name) => name,
        };
        self.path.push((name.into(), container_type.into()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let name = self
            .renames
            .iter()
            .fold(names.join("."), |name, (ours, theirs)| name.replace(ours, theirs));
        let Some(data) = self.weights.remove(&name) else {
            self.wrong.push(format!("missing: {name}"));
            return param;
        };
        let container = self.path[self.path.len() - 1].1.clone();
        let mut data = data.clone();
        if container == "Struct:Linear"
            && D == 2
            && data.shape.len() == 4
            && data.shape[2..] == [1, 1]
        {
            // A 1x1 convolution.
            data.shape = [data.shape[0], data.shape[1]].into();
        }
        if data.shape.len() != D {
            self.wrong.push(format!("{name} is {:?}", data.shape));
            return param;
        }
        let mut tensor = Tensor::<B, D>::from_data(data.clone(), &param.lazy_device());
        if container == "Struct:Linear" && D == 2 {
            tensor = tensor.swap_dims(0, 1);
        }
        let expected = param.lazy_shape();
        if tensor.shape() != expected {
            self.wrong.push(format!("{name} is {:?}, expected {expected:?}", data.shape));
            return param;
        }
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// The values of every parameter of `module`, or of its gradient, by name. Panics where one has none.
pub fn parameters<B: AutodiffBackend>(
    module: &impl Module<B>,
    gradients: Option<&B::Gradients>,
) -> Vec<(String, Vec<f32>)> {
    let mut values = Values { gradients, path: Vec::new(), found: Vec::new() };
    module.visit(&mut values);
    values.found
}

struct Values<'a, B: AutodiffBackend> {
    gradients: Option<&'a B::Gradients>,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Values<'_, B> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let name = self.path.join(".");
        let data = match self.gradients {
            Some(gradients) => param
                .val()
                .grad(gradients)
                .unwrap_or_else(|| panic!("{name} has no gradient"))
                .into_data(),
            None => param.val().into_data(),
        };
        self.found.push((name, data.iter::<f32>().collect()));
    }
}

/// Panics unless all values agree; `tolerance` is relative to the largest value of each parameter.
pub fn assert_close(
    actual: &[(String, Vec<f32>)],
    expected: &[(String, Vec<f32>)],
    tolerance: f32,
) {
    assert_eq!(actual.len(), expected.len());
    for ((name, actual), (_, expected)) in actual.iter().zip(expected) {
        assert_eq!(actual.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (a, e) in actual.iter().zip(expected) {
            let gap = (a - e).abs();
            assert!(gap <= 1e-6 + tolerance * largest, "{name}: {a}, expected {e}");
        }
    }
}

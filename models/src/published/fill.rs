//! From the tensors of a published checkpoint to the parameters of a module.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use super::archive::{Archive, Entry};
use super::{Precision, PublishedError};

/// Names, and what belongs to each.
pub type Pairs = &'static [(&'static str, &'static str)];

/// How the parameters of a module are called in a published file.
///
/// Common to all: `gamma` and `beta` of norms are `weight` and `bias` there, and the weight of a
/// linear layer is transposed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// Stands before every name.
    pub prefix: &'static str,
    /// For parameters whose path begins so: parts of the path and what the file has in their place,
    /// applied in this order.
    pub renames: &'static [(&'static str, Pairs)],
    /// Parts of a name in the file and what older files have in their place, all at once, where
    /// the name is not there.
    pub older: Pairs,
    /// Parameters that are rows of a larger tensor in the file.
    pub fused: &'static [Fused],
    /// Tensors that repeat another one, and that one, both without prefix.
    pub tied: Pairs,
    /// Tensors that are not read, and why. A pattern that ends with a dot is the beginning of a
    /// name, any other the end of one.
    pub unread: Pairs,
}

/// One of several parameters that the file keeps in one tensor, one below the other.
#[derive(Clone, Copy, Debug)]
pub struct Fused {
    /// Part of the parameter's path.
    pub ours: &'static str,
    /// What the file has in its place.
    pub theirs: &'static str,
    /// Which one it is, from 0.
    pub part: usize,
    /// How many there are.
    pub of: usize,
}

/// What became, or would become, of a file's tensors.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Tensors that are read, with where they lie.
    pub applied: BTreeMap<String, Entry>,
    /// Tensors that are not read, and why.
    pub unread: Vec<(String, &'static str)>,
    /// Parameters that the file lacks, under their name there.
    pub missing: Vec<String>,
    /// Tensors that no parameter asks for.
    pub unused: Vec<String>,
    /// Tensors of another shape, with what was found and expected.
    pub misfit: Vec<String>,
}

impl Report {
    /// Whether every tensor is read or explained and every parameter is filled.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misfit.is_empty()
    }

    /// How many numbers are read.
    pub fn parameters(&self) -> usize {
        self.applied.values().map(Entry::len).sum()
    }
}

/// Where a parameter's numbers lie.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    entry: Entry,
    /// First number and how many.
    from: usize,
    count: usize,
    transpose: bool,
}

/// Where each parameter's numbers lie, found from headers alone.
pub struct Plan {
    sources: BTreeMap<String, Source>,
    /// What would become of the file's tensors.
    pub report: Report,
}

impl Plan {
    /// Finds the tensor of every parameter of `module`. Nothing is read but tied tensors, which
    /// must be equal.
    ///
    /// # Errors
    ///
    /// Two tied tensors differ, or cannot be read.
    pub fn new<B: Backend, M: Module<B>>(
        module: &M,
        archive: &mut Archive,
        names: &Names,
    ) -> Result<Self, PublishedError> {
        let mut find = Find {
            path: Vec::new(),
            archive,
            names,
            sources: BTreeMap::new(),
            spoken_for: BTreeSet::new(),
            report: Report::default(),
        };
        module.visit(&mut find);
        let (sources, mut report, mut spoken_for) = (find.sources, find.report, find.spoken_for);
        for (tied, to) in names.tied {
            let [tied, to] = [tied, to].map(|name| format!("{}{name}", names.prefix));
            let entries = archive.entries();
            let (Some(one), Some(other)) = (entries.get(&tied), entries.get(&to)) else { continue };
            let (one, other) = (one.clone(), other.clone());
            if one.shape != other.shape
                || archive.read(&tied, &one, 0, one.len())?
                    != archive.read(&to, &other, 0, other.len())?
            {
                return Err(PublishedError::Broken {
                    path: archive.origin().to_owned(),
                    what: format!("`{tied}` differs from `{to}`: untied weights are not supported"),
                });
            }
            report.unread.push((tied.clone(), "equal to the tensor that it is tied to"));
            spoken_for.insert(tied);
        }
        for name in archive.entries().keys().filter(|name| !spoken_for.contains(*name)) {
            // The text after the prefix, and the whole: heads stand outside of it.
            let inner = name.strip_prefix(names.prefix).unwrap_or(name);
            let hit = |(pattern, _): &&(&str, &str)| match pattern.ends_with('.') {
                true => inner.starts_with(pattern) || name.starts_with(pattern),
                false => name.ends_with(pattern),
            };
            match names.unread.iter().find(hit) {
                Some((_, why)) => report.unread.push((name.clone(), why)),
                None => report.unused.push(name.clone()),
            }
        }
        Ok(Self { sources, report })
    }

    /// Fills the module that the plan was made for, tensor by tensor.
    ///
    /// # Errors
    ///
    /// The file does not fit the module (see [`Report::fits`]), or cannot be read.
    pub fn fill<B: Backend, M: Module<B>>(
        self,
        module: M,
        archive: &mut Archive,
        precision: Precision,
        device: &B::Device,
    ) -> Result<M, PublishedError> {
        if !self.report.fits() {
            let Report { missing, unused, misfit, .. } = self.report;
            let origin = archive.origin().to_owned();
            return Err(PublishedError::Mismatch { origin, missing, unused, misfit });
        }
        let sources = self.sources;
        let mut fill = Fill { path: Vec::new(), archive, sources, device, precision, error: None };
        let module = module.map(&mut fill);
        match fill.error {
            Some(error) => Err(error),
            None => Ok(module),
        }
    }
}

/// Field names and containers on the way to a parameter.
type Path = Vec<(String, String)>;

fn enter(path: &mut Path, name: &str, container: &str) {
    let name = match (container, name) {
        ("Struct:LayerNorm" | "Struct:GroupNorm", "gamma") => "weight",
        ("Struct:LayerNorm" | "Struct:GroupNorm", "beta") => "bias",
        (_, name) => name,
    };
    path.push((name.to_owned(), container.to_owned()));
}

fn joined(path: &Path) -> String {
    let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
    names.join(".")
}

fn replaced(name: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

struct Find<'a> {
    path: Path,
    archive: &'a Archive,
    names: &'a Names,
    sources: BTreeMap<String, Source>,
    /// Tensors that a parameter asks for, whether they fit it or not.
    spoken_for: BTreeSet<String>,
    report: Report,
}

impl Find<'_> {
    fn find(&mut self, shape: &[usize]) {
        let ours = joined(&self.path);
        let is_linear = self.path.last().is_some_and(|(_, container)| container == "Struct:Linear");
        let mut name = ours.clone();
        let (mut part, mut of) = (0, 1);
        for fused in self.names.fused {
            if name.contains(fused.ours) {
                name = name.replace(fused.ours, fused.theirs);
                (part, of) = (fused.part, fused.of);
            }
        }
        for (_, pairs) in self.names.renames.iter().filter(|(scope, _)| ours.starts_with(scope)) {
            name = replaced(&name, pairs);
        }
        let mut name = format!("{}{name}", self.names.prefix);
        if !self.archive.contains(&name) {
            let older = replaced(&name, self.names.older);
            if self.archive.contains(&older) {
                name = older;
            }
        }
        let Some(entry) = self.archive.entries().get(&name) else {
            self.report.missing.push(name);
            return;
        };
        self.spoken_for.insert(name.clone());
        let transpose = is_linear && shape.len() == 2;
        let mut expected = shape.to_vec();
        if transpose {
            expected.reverse();
        }
        if let Some(rows) = expected.first_mut() {
            *rows *= of;
        }
        // Ones do not count: a linear layer is a 1x1 convolution in some files, a class token has
        // a batch of one.
        let squeezed = |shape: &[usize]| -> Vec<usize> {
            shape.iter().copied().filter(|&size| size != 1).collect()
        };
        if squeezed(&entry.shape) != squeezed(&expected) {
            self.report.misfit.push(format!("{name} is {:?}, expected {expected:?}", entry.shape));
            return;
        }
        let count = entry.len() / of;
        let entry = entry.clone();
        self.report.applied.insert(name.clone(), entry.clone());
        self.sources.insert(ours, Source { name, entry, from: part * count, count, transpose });
    }
}

impl<B: Backend> ModuleVisitor<B> for Find<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        enter(&mut self.path, name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.find(&param.lazy_shape().to_vec());
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<B, D, Int>>) {
        self.report.misfit.push(format!("{} is no float parameter", joined(&self.path)));
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<B, D, Bool>>) {
        self.report.misfit.push(format!("{} is no float parameter", joined(&self.path)));
    }
}

struct Fill<'a, B: Backend> {
    path: Path,
    archive: &'a mut Archive,
    sources: BTreeMap<String, Source>,
    device: &'a B::Device,
    precision: Precision,
    error: Option<PublishedError>,
}

impl<B: Backend> ModuleMapper<B> for Fill<'_, B> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        enter(&mut self.path, name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(source) = self.sources.remove(&joined(&self.path)) else { return param };
        if self.error.is_some() {
            return param;
        }
        let Source { name, entry, from, count, transpose } = source;
        let mut numbers = match self.archive.read(&name, &entry, from, count) {
            Ok(numbers) => numbers,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        let shape = param.lazy_shape();
        if transpose {
            numbers = transposed(&numbers, shape[1], shape[0]);
        }
        let container = self.path.last().map_or("", |(_, container)| container);
        let dtype = self.precision.dtype_in(container);
        let data = TensorData::new(numbers, shape).convert_dtype(dtype);
        let id = param.id;
        let tensor = Tensor::from_data(data, (self.device, dtype));
        let param = param.transform_for_load(tensor, id);
        if param.device() == *self.device { param } else { param.fork(self.device) }
    }
}

/// The transpose of `[rows, columns]` numbers, in blocks that fit the cache.
fn transposed(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut result = vec![0.0; numbers.len()];
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for r in row..(row + BLOCK).min(rows) {
                for c in column..(column + BLOCK).min(columns) {
                    result[c * rows + r] = numbers[r * columns + c];
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_of_any_size_puts_rows_into_columns() {
        for (rows, columns) in [(1, 1), (3, 5), (33, 70), (64, 32)] {
            let numbers: Vec<f32> = (0..rows * columns).map(|n| n as f32).collect();
            let result = transposed(&numbers, rows, columns);
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(result[c * rows + r], numbers[r * columns + c]);
                }
            }
        }
    }
}

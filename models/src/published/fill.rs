//! From the tensors of a published checkpoint to the parameters of a module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, backend::Backend};
use rayon::prelude::*;

use super::archive::{Archive, Entry};
use super::{Precision, PublishedError};
use crate::kernels::{laid_out, reads_transposed, transposed};

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
    /// The parameter's, after transposing.
    shape: Vec<usize>,
    /// burn's name of the module that the parameter is of.
    container: String,
}

impl Source {
    /// The parameter's numbers.
    fn load(
        &self,
        archive: &Archive,
        precision: Precision,
        turn: bool,
    ) -> Result<Loaded, PublishedError> {
        let Self { name, entry, from, count, transpose, shape, container } = self;
        let dtype = precision.dtype_in(container);
        let read = |dtype| archive.read(name, entry, *from, *count, dtype);
        let shaped = |data: TensorData, shape: &[usize]| TensorData { shape: shape.into(), ..data };
        if !transpose {
            return Ok(Loaded { data: shaped(read(dtype)?, shape), transposed: false });
        }
        let (rows, columns) = (shape[1], shape[0]);
        if !turn {
            return Ok(Loaded { data: shaped(read(dtype)?, &[rows, columns]), transposed: true });
        }
        let data = read(DType::F32)?;
        let numbers = data.as_slice().expect("they were read as 32 bits");
        let data = TensorData::new(transposed(numbers, rows, columns), shape.clone());
        Ok(Loaded { data: data.convert_dtype(dtype), transposed: false })
    }
}

/// A parameter's numbers.
struct Loaded {
    data: TensorData,
    /// Whether they are a matrix whose transpose the parameter is.
    transposed: bool,
}

/// Where each parameter's numbers lie, found from headers alone.
pub struct Plan {
    /// By the parameter's path, in the module's order.
    sources: VecDeque<(String, Source)>,
    /// What would become of the file's tensors.
    pub report: Report,
}

impl Plan {
    /// Finds the tensor of every parameter of `module`. Nothing is read but tied tensors, which
    /// must be equal.
    ///
    /// # Errors
    ///
    /// Two tied tensors differ, or hold something other than floats.
    pub fn new<B: Backend, M: Module<B>>(
        module: &M,
        archive: &Archive,
        names: &Names,
    ) -> Result<Self, PublishedError> {
        let mut find = Find {
            path: Vec::new(),
            archive,
            names,
            sources: VecDeque::new(),
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
                || archive.read(&tied, &one, 0, one.len(), DType::F32)?
                    != archive.read(&to, &other, 0, other.len(), DType::F32)?
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

    /// Fills the module that the plan was made for, some tensors at a time ([`AHEAD`]).
    ///
    /// # Errors
    ///
    /// The file does not fit the module (see [`Report::fits`]), or holds something other than floats.
    pub fn fill<B: Backend, M: Module<B>>(
        self,
        module: M,
        archive: &Archive,
        precision: Precision,
        device: &B::Device,
    ) -> Result<M, PublishedError> {
        if !self.report.fits() {
            let Report { missing, unused, misfit, .. } = self.report;
            let origin = archive.origin().to_owned();
            return Err(PublishedError::Mismatch { origin, missing, unused, misfit });
        }
        let sources = self.sources;
        let (path, loaded) = (Vec::new(), BTreeMap::new());
        let mut fill = Fill { path, archive, sources, loaded, device, precision, error: None };
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
    sources: VecDeque<(String, Source)>,
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
        let container = self.path.last().map(|(_, container)| container.clone());
        let source = Source {
            name,
            entry,
            from: part * count,
            count,
            transpose,
            shape: shape.to_vec(),
            container: container.unwrap_or_default(),
        };
        self.sources.push_back((ours, source));
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

/// Numbers that are converted or turned at once, about, by all threads: beside the model this much
/// stands in memory (128 MB in 32 bits), or its largest tensor.
const AHEAD: usize = 1 << 25;

struct Fill<'a, B: Backend> {
    path: Path,
    archive: &'a Archive,
    sources: VecDeque<(String, Source)>,
    loaded: BTreeMap<String, Loaded>,
    device: &'a B::Device,
    precision: Precision,
    error: Option<PublishedError>,
}

impl<B: Backend> Fill<'_, B> {
    /// The numbers of the parameter of this path, those of the ones that follow read along with them.
    fn load(&mut self, path: &str) -> Result<Option<Loaded>, PublishedError> {
        while !self.loaded.contains_key(path) && !self.sources.is_empty() {
            let mut next = Vec::new();
            let mut count = 0;
            while count < AHEAD {
                let Some(source) = self.sources.pop_front() else { break };
                count += source.1.count;
                next.push(source);
            }
            let (archive, precision) = (self.archive, self.precision);
            let turn = !reads_transposed::<B>();
            let loaded: Result<Vec<_>, PublishedError> = next
                .into_par_iter()
                .with_max_len(1)
                .map(|(path, source)| Ok((path, source.load(archive, precision, turn)?)))
                .collect();
            self.loaded.extend(loaded?);
        }
        Ok(self.loaded.remove(path))
    }
}

impl<B: Backend> ModuleMapper<B> for Fill<'_, B> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        enter(&mut self.path, name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.error.is_some() {
            return param;
        }
        let Loaded { data, transposed } = match self.load(&joined(&self.path)) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return param,
            Err(error) => {
                self.error = Some(error);
                return param;
            }
        };
        let dtype = data.dtype;
        let id = param.id;
        let tensor = Tensor::from_data(data, (self.device, dtype));
        let tensor = if transposed { tensor.transpose() } else { laid_out(tensor) };
        let param = param.transform_for_load(tensor, id);
        if param.device() == *self.device { param } else { param.fork(self.device) }
    }
}

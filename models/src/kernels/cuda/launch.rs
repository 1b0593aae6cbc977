//! A kernel given as text, compiled, kept and launched by cubecl as its own ones are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::cubecl::cuda::{CudaCompiler, CudaComputeKernel, CudaRuntime};
use burn::cubecl::ir::{AddressType, StorageType};
use burn::cubecl::prelude::{
    CompiledKernel, ComputeClient, CubeCount, CubeDim, ExecutionMode, KernelId, KernelMetadata,
};
use burn::cubecl::server::{Handle, KernelArguments, MetadataBindingInfo, TensorMapBinding};
use burn::cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::shared::{Body, Elem, Item, SharedMemory};

/// A part of a kernel's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    text: &'static str,
    /// Stands for the text where kernels are told apart: a text is hashed once and not at every launch.
    fingerprint: u64,
}

impl Piece {
    pub(super) fn new(text: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { text, fingerprint: hasher.finish() }
    }
}

/// Names that a kernel's text is specialised by, and their values.
pub(super) type Defines = BTreeMap<&'static str, usize>;

/// A kernel's text and how it is launched, but for its arguments.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// The function's name in the text.
    pub(super) entry: &'static str,
    /// Follow the defines, in this order.
    pub(super) pieces: Vec<Piece>,
    pub(super) defines: Defines,
    /// Threads of a block.
    pub(super) threads: usize,
    /// Bytes of shared memory of a block.
    pub(super) shared: usize,
}

/// All that the text depends on: cubecl keeps the compiled kernel, also on disk, under this. What it is compiled for
/// is no part of it, there as for cubecl's own kernels: cards of two kinds want a cache each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    entry: &'static str,
    fingerprints: Vec<u64>,
    defines: Defines,
    shared: usize,
}

impl Kernel {
    /// The text that is compiled.
    fn source(&self) -> String {
        let mut source = String::new();
        for (name, value) in &self.defines {
            writeln!(source, "#define {name} {value}").expect("a string takes all that is written");
        }
        source.extend(self.pieces.iter().map(|piece| piece.text));
        source
    }

    /// Launches the kernel: its parameters are the buffers' addresses, then `info` as one struct.
    pub(super) fn launch(
        self,
        client: &ComputeClient<CudaRuntime>,
        grid: [usize; 3],
        buffers: &[&Handle],
        info: Vec<u64>,
    ) {
        self.launch_mapped(client, grid, Vec::new(), buffers, info);
    }

    /// The same with the maps, and then the addresses of what they are of, before the buffers.
    pub(super) fn launch_mapped(
        self,
        client: &ComputeClient<CudaRuntime>,
        grid: [usize; 3],
        maps: Vec<TensorMapBinding>,
        buffers: &[&Handle],
        info: Vec<u64>,
    ) {
        let [x, y, z] =
            grid.map(|count| u32::try_from(count).expect("a grid of blocks fits 32 bits"));
        let buffers = buffers.iter().map(|&buffer| buffer.clone().binding()).collect();
        // All of it by value: cubecl would put what lies beyond this offset into another buffer.
        let length = info.len();
        let arguments = KernelArguments::new()
            .with_tensor_maps(maps)
            .with_buffers(buffers)
            .with_info(MetadataBindingInfo::new(info, length));
        client.launch(Box::new(self), CubeCount::Static(x, y, z), arguments);
    }

    fn block(&self) -> CubeDim {
        CubeDim::new_1d(self.threads as u32)
    }
}

impl KernelMetadata for Kernel {
    fn name(&self) -> &'static str {
        self.entry
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().cube_dim(self.block()).info(Identity {
            entry: self.entry,
            fingerprints: self.pieces.iter().map(|piece| piece.fingerprint).collect(),
            defines: self.defines.clone(),
            shared: self.shared,
        })
    }

    fn address_type(&self) -> StorageType {
        AddressType::U64.unsigned_type()
    }
}

impl CubeTask<CudaCompiler> for Kernel {
    fn compile(
        &self,
        _compiler: &mut CudaCompiler,
        _options: &<CudaCompiler as Compiler>::CompilationOptions,
        _mode: ExecutionMode,
        _address_type: StorageType,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        Ok(CompiledKernel {
            entrypoint_name: self.entry.to_owned(),
            debug_name: Some(self.entry),
            source: self.source(),
            repr: Some(representation(self.entry, self.block(), self.shared)),
            cube_dim: self.block(),
            debug_info: None,
        })
    }
}

/// A kernel of cubecl's without instructions: it takes the size of the shared memory from there alone.
fn representation(entry: &str, block: CubeDim, shared: usize) -> CudaComputeKernel {
    let item = Item::scalar(Elem::U8, true);
    let memory = SharedMemory::Array { index: 0, item, length: shared, align: 1024, offset: 0 };
    CudaComputeKernel {
        tensor_maps: Vec::new(),
        buffers: Vec::new(),
        scalars: Vec::new(),
        info: Default::default(),
        meta_static_len: 0,
        body: Body {
            instructions: Vec::new(),
            shared_memories: vec![memory],
            pipelines: Vec::new(),
            barriers: Vec::new(),
            const_arrays: Vec::new(),
            local_arrays: Vec::new(),
            info_by_ptr: false,
            has_dynamic_meta: false,
            address_type: Item::scalar(Elem::U64, true),
        },
        cube_dim: block,
        cluster_dim: None,
        extensions: Vec::new(),
        flags: Default::default(),
        items: Default::default(),
        kernel_name: entry.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(text: &'static str) -> Kernel {
        Kernel {
            entry: "nothing",
            pieces: vec![Piece::new("// One.\n"), Piece::new(text)],
            defines: Defines::from([("SECOND", 2), ("FIRST", 10)]),
            threads: 64,
            shared: 4096,
        }
    }

    #[test]
    fn a_text_begins_with_its_defines_by_name() {
        let expected = "#define FIRST 10\n#define SECOND 2\n// One.\n// Two.\n";
        assert_eq!(kernel("// Two.\n").source(), expected);
    }

    #[test]
    fn kernels_that_differ_have_other_ids() {
        let id = kernel("// Two.\n").id();
        assert!(id == kernel("// Two.\n").id());
        let other = |change: fn(&mut Kernel)| {
            let mut kernel = kernel("// Two.\n");
            change(&mut kernel);
            kernel.id()
        };
        assert!(id != kernel("// Three.\n").id());
        assert!(id != other(|kernel| *kernel.defines.get_mut("FIRST").unwrap() = 11));
        assert!(id != other(|kernel| kernel.entry = "something"));
        assert!(id != other(|kernel| kernel.threads = 128));
        assert!(id != other(|kernel| kernel.shared = 0));
        assert!(id.stable_hash() != kernel("// Three.\n").id().stable_hash());
    }

    #[test]
    fn a_compiled_kernel_asks_for_its_shared_memory() {
        let kernel = kernel("");
        let address = kernel.address_type();
        let compiled = kernel
            .compile(&mut Default::default(), &Default::default(), ExecutionMode::Checked, address)
            .unwrap();
        assert_eq!(compiled.repr.unwrap().shared_memory_size(), 4096);
        assert_eq!((compiled.cube_dim.x, compiled.cube_dim.num_elems()), (64, 64));
    }
}

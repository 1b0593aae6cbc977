//! The same operations by kernels of our own on burn's CUDA backend, for tensors of 16 bits where nothing is
//! learnt: of what such a card computes a second, burn's own products and convolutions reach a fraction. What is learnt,
//! in 32 bits, is in [`learnt`].
//!
//! Kernels are CUDA C++ text (the `.cu` files beside this one), specialised by defines and compiled on the
//! machine with the card; memory, streams and the cache of what was compiled are cubecl's. They need the
//! instructions of compute capability 8.0.

mod attention;
mod boxes;
mod conv3x3;
mod geglu;
mod gemm;
mod group_norm;
mod launch;
mod layer_norm;
mod layout;
pub(super) mod learnt;
mod linear;
mod norm;
mod product;
mod tile;
mod wgmma;

use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::sync::LazyLock;

use burn::backend::ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use burn::cubecl::cuda::CudaRuntime;
use burn::cubecl::ir::features::Tma;
use burn::cubecl::prelude::{ComputeClient, Runtime};
use burn::prelude::*;
use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorMetadata, TensorPrimitive};
use burn_cubecl::CubeBackend;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{FusionHandle, FusionTensor};

use self::launch::{Defines, Piece};

pub(super) use self::attention::attention;
pub(super) use self::conv3x3::conv3x3;
pub(super) use self::geglu::geglu;
pub(super) use self::group_norm::group_norm;
pub(super) use self::layer_norm::layer_norm;
pub(super) use self::linear::linear;
pub(super) use self::product::product;

/// The float tensors of burn's CUDA backend, which puts operations off to fuse them.
type Deferred = FusionTensor<FusionCubeRuntime<CudaRuntime>>;

/// What burn's CUDA backend defers to.
type Immediate = CubeBackend<CudaRuntime, f32, i32, u8>;

/// A tensor in the card's memory.
type CudaTensor = CubeTensor<CudaRuntime>;

type Client = ComputeClient<CudaRuntime>;

/// An operation of `N` tensors to one.
trait CudaOperation<const N: usize>: Debug + Send + Sync + 'static {
    /// Whether an input has 32 bits; the others have the 16 of the first one.
    const WIDE: [bool; N];

    /// The output, of this shape.
    fn launch(&self, inputs: [CudaTensor; N], output: Shape) -> CudaTensor;
}

/// The operation's output, of the first input's type, where the tensors are the CUDA backend's, of 16 bits,
/// without gradients; `None` elsewhere.
fn apply<B: Backend, O: CudaOperation<N>, const N: usize, const D: usize>(
    operation: O,
    inputs: [FloatTensor<B>; N],
    output: [usize; D],
) -> Option<Tensor<B, D>> {
    let dtype = inputs[0].dtype();
    apply_to(operation, inputs, output, dtype)
}

/// [`apply`] with an output of this type.
fn apply_to<B: Backend, O: CudaOperation<N>, const N: usize, const D: usize>(
    operation: O,
    inputs: [FloatTensor<B>; N],
    output: [usize; D],
    output_dtype: DType,
) -> Option<Tensor<B, D>> {
    let inputs: Box<dyn Any> = Box::new(inputs);
    let inputs = *inputs.downcast::<[Deferred; N]>().ok()?;
    let dtype = inputs[0].dtype;
    let fits =
        |(input, wide): (&Deferred, bool)| input.dtype == if wide { DType::F32 } else { dtype };
    if !matches!(dtype, DType::BF16 | DType::F16)
        || !inputs.iter().zip(O::WIDE).all(fits)
        || inputs.iter().any(|input| input.shape.num_elements() == 0)
        || !serves(&CudaRuntime::client(inputs[0].client.device()))
    {
        return None;
    }
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(&inputs);
    let inputs = inputs.map(Deferred::into_ir);
    let output = TensorIr::uninit(client.create_empty_handle(), Shape::new(output), output_dtype);
    let operation = Registered { operation, inputs, output };
    let ir = CustomOpIr::new(
        std::any::type_name::<O>(),
        &operation.inputs,
        std::slice::from_ref(&operation.output),
    );
    let output = client.register(streams, OperationIr::Custom(ir), operation).pop()?;
    let output: Box<dyn Any> = Box::new(output);
    let output = output.downcast::<<B as BackendTypes>::FloatTensorPrimitive>().ok()?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(*output)))
}

/// An operation that burn will come to.
#[derive(Debug)]
struct Registered<O, const N: usize> {
    operation: O,
    inputs: [TensorIr; N],
    output: TensorIr,
}

impl<O: CudaOperation<N>, const N: usize> Operation<FusionCubeRuntime<CudaRuntime>>
    for Registered<O, N>
{
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<FusionCubeRuntime<CudaRuntime>>>) {
        let inputs =
            self.inputs.each_ref().map(|input| handles.get_float_tensor::<Immediate>(input));
        let output = self.operation.launch(inputs, self.output.shape.clone());
        handles.register_float_tensor::<Immediate>(&self.output.id, output);
    }
}

/// Whether tensors are those of burn's CUDA backend.
pub(super) fn is_cuda<B: Backend>() -> bool {
    TypeId::of::<FloatTensor<B>>() == TypeId::of::<Deferred>()
}

/// Whether the card has the instructions of compute capability 8.0, of which asynchronous copies are some.
fn serves(client: &Client) -> bool {
    client.properties().features.copy_async
}

/// Whether the card is of compute capability 9.x, which alone has `wgmma`: cubecl tells what that and its
/// successors have.
fn is_hopper(client: &Client) -> bool {
    let tma = client.properties().features.tma;
    tma.contains(Tma::Base) && !tma.contains(Tma::Im2colWide)
}

/// Blocks that run at a time, if one fills a multiprocessor.
fn multiprocessors(client: &Client) -> usize {
    client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1) as usize
}

/// The most bytes of shared memory that a block may have.
fn shared_limit(client: &Client) -> usize {
    client.properties().hardware.max_shared_memory_size
}

/// Room for an output, without gaps, where another tensor is and of its type.
fn empty_like(tensor: &CudaTensor, shape: Shape) -> CudaTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape, tensor.dtype)
}

/// What every kernel here begins with.
static PRELUDE: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("prelude.cu")));

/// The define that says of what type a tensor's 16-bit numbers are, and others.
fn defines<const N: usize>(tensor: &CudaTensor, others: [(&'static str, usize); N]) -> Defines {
    let half = ("HALF", usize::from(tensor.dtype == DType::F16));
    others.into_iter().chain([half]).collect()
}

/// A number of 32 bits among those of 64.
fn bits(number: f32) -> u64 {
    number.to_bits().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::flex::primitive;
    use burn::backend::{Autodiff, Cuda, Flex};

    #[derive(Debug)]
    struct Nothing;

    impl CudaOperation<1> for Nothing {
        const WIDE: [bool; 1] = [false];

        fn launch(&self, [input]: [CudaTensor; 1], _output: Shape) -> CudaTensor {
            input
        }
    }

    #[test]
    fn other_backends_are_left_alone() {
        let input = Tensor::<Flex, 1>::ones([3], &Default::default()).cast(DType::BF16);
        assert!(apply::<Flex, _, 1, 1>(Nothing, [primitive(&input)], [3]).is_none());
        assert!(is_cuda::<Cuda>() && !is_cuda::<Flex>() && !is_cuda::<Autodiff<Cuda>>());
    }
}

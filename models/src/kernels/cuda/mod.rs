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
mod deferred;
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

use burn::cubecl::cuda::CudaRuntime;
use burn::cubecl::ir::features::Tma;
use burn::cubecl::prelude::{ComputeClient, Runtime};
use burn::prelude::*;
use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorMetadata, TensorPrimitive};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use self::deferred::{Deferred, Launches, defer_one};
use self::launch::{Defines, Piece};

pub(super) use self::attention::attention;
pub(super) use self::conv3x3::conv3x3;
pub(super) use self::geglu::geglu;
pub(super) use self::group_norm::group_norm;
pub(super) use self::layer_norm::layer_norm;
pub(super) use self::linear::linear;
pub(super) use self::product::product;

/// A tensor in the card's memory.
type CudaTensor = CubeTensor<CudaRuntime>;

type Client = ComputeClient<CudaRuntime>;

/// An operation of some tensors to one.
trait CudaOperation: Debug + Send + Sync + 'static {
    /// The inputs that have 32 bits; the others have the 16 of the first one.
    const WIDE: &'static [usize] = &[];

    /// The output, of this shape.
    fn launch(&self, inputs: Vec<CudaTensor>, output: Shape) -> CudaTensor;
}

/// The operation's output, of the first input's type, where the tensors are the CUDA backend's, of 16 bits,
/// without gradients; `None` elsewhere.
fn apply<B: Backend, O: CudaOperation, const D: usize>(
    operation: O,
    inputs: Vec<FloatTensor<B>>,
    output: [usize; D],
) -> Option<Tensor<B, D>> {
    let dtype = inputs[0].dtype();
    apply_to(operation, inputs, output, dtype)
}

/// [`apply`] with an output of this type.
fn apply_to<B: Backend, O: CudaOperation, const D: usize>(
    operation: O,
    inputs: Vec<FloatTensor<B>>,
    output: [usize; D],
    output_dtype: DType,
) -> Option<Tensor<B, D>> {
    let inputs: Box<dyn Any> = Box::new(inputs);
    let inputs = *inputs.downcast::<Vec<Deferred>>().ok()?;
    let dtype = inputs[0].dtype;
    let fits = |(index, input): (usize, &Deferred)| {
        let expected = if O::WIDE.contains(&index) { DType::F32 } else { dtype };
        input.dtype == expected && input.shape.num_elements() > 0
    };
    if !matches!(dtype, DType::BF16 | DType::F16)
        || !inputs.iter().enumerate().all(fits)
        || !serves(&CudaRuntime::client(inputs[0].client.device()))
    {
        return None;
    }
    let output = Shape::new(output);
    let launch = One { operation, output: output.clone() };
    let output: Box<dyn Any> = Box::new(defer_one(launch, inputs, (output, output_dtype)));
    let output = output.downcast::<<B as BackendTypes>::FloatTensorPrimitive>().ok()?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(*output)))
}

/// An operation with its output's shape.
#[derive(Debug)]
struct One<O> {
    operation: O,
    output: Shape,
}

impl<O: CudaOperation> Launches for One<O> {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        vec![self.operation.launch(inputs, self.output.clone())]
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

/// The activation function that ACT names.
static ACTIVATION: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("activation.cu")));

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

    impl CudaOperation for Nothing {
        fn launch(&self, mut inputs: Vec<CudaTensor>, _output: Shape) -> CudaTensor {
            inputs.remove(0)
        }
    }

    #[test]
    fn other_backends_are_left_alone() {
        let input = Tensor::<Flex, 1>::ones([3], &Default::default()).cast(DType::BF16);
        assert!(apply::<Flex, _, 1>(Nothing, vec![primitive(&input)], [3]).is_none());
        assert!(is_cuda::<Cuda>() && !is_cuda::<Flex>() && !is_cuda::<Autodiff<Cuda>>());
    }
}

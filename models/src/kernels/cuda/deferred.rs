//! Kernels as operations that burn's CUDA backend puts off among its own.

use std::fmt::Debug;

use burn::backend::ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use burn::cubecl::cuda::CudaRuntime;
use burn::prelude::*;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{FusionHandle, FusionTensor};

use super::CudaTensor;

/// The float tensors of burn's CUDA backend, which puts operations off to fuse them.
pub(super) type Deferred = FusionTensor<FusionCubeRuntime<CudaRuntime>>;

/// What burn's CUDA backend defers to.
type Immediate = CubeBackend<CudaRuntime, f32, i32, u8>;

/// Some launches, which are one operation to burn.
pub(super) trait Launches: Debug + Send + Sync + 'static {
    /// The outputs.
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor>;
}

/// Outputs of these shapes and types, once burn comes to the launches.
pub(super) fn defer<L: Launches>(
    launches: L,
    inputs: Vec<Deferred>,
    outputs: Vec<(Shape, DType)>,
) -> Vec<Deferred> {
    let client = inputs[0].client.clone();
    let streams = OperationStreams::with_inputs(&inputs);
    let inputs: Vec<_> = inputs.into_iter().map(Deferred::into_ir).collect();
    let output = |(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype);
    let outputs: Vec<_> = outputs.into_iter().map(output).collect();
    let ir = CustomOpIr::new(std::any::type_name::<L>(), &inputs, &outputs);
    let operation = PutOff { launches, inputs, outputs };
    client.register(streams, OperationIr::Custom(ir), operation)
}

/// What [`defer`] gives of one output.
pub(super) fn defer_one<L: Launches>(
    launches: L,
    inputs: Vec<Deferred>,
    output: (Shape, DType),
) -> Deferred {
    let [output] = exactly(defer(launches, inputs, vec![output]));
    output
}

#[derive(Debug)]
struct PutOff<L> {
    launches: L,
    inputs: Vec<TensorIr>,
    outputs: Vec<TensorIr>,
}

impl<L: Launches> Operation<FusionCubeRuntime<CudaRuntime>> for PutOff<L> {
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<FusionCubeRuntime<CudaRuntime>>>) {
        let inputs = self.inputs.iter().map(|input| handles.get_float_tensor::<Immediate>(input));
        let outputs = self.launches.launch(inputs.collect());
        for (ir, output) in self.outputs.iter().zip(outputs) {
            handles.register_float_tensor::<Immediate>(&ir.id, output);
        }
    }
}

/// As many tensors as are known to be there.
pub(super) fn exactly<T, const N: usize>(tensors: Vec<T>) -> [T; N] {
    let tensors: Result<[T; N], _> = tensors.try_into();
    tensors.unwrap_or_else(|tensors| panic!("{} tensors, expected {N}", tensors.len()))
}

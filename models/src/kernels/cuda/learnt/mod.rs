//! What is learnt, on tensors of 32 bits: forward and backward passes, each one operation to burn, so that an update of
//! many small layers is not spent on registering, fusing and launching each step of each of them.
//!
//! Norms, activations and the optimiser compute in 32 bits throughout. Products do in mixed precision (Micikevicius
//! et al. 2018), where it is asked for: factors are rounded to bf16, which has the range of 32 bits, so that the loss
//! needs no scale; sums, outputs, gradients and weights have 32.

mod activation;
mod adamw;
mod attention;
mod conv3x3;
mod dropout;
mod geglu;
mod linear;
mod norm;
mod numbers;

use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::LazyLock;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Cuda};
use burn::cubecl::cuda::CudaRuntime;
use burn::cubecl::prelude::Runtime;
use burn::prelude::*;
use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorPrimitive};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;

use super::deferred::{Deferred, Launches, defer, defer_one, exactly};
use super::launch::Piece;
use super::{CudaTensor, serves};

pub(in super::super) use self::activation::activate;
pub(in super::super) use self::adamw::adamw;
pub(in super::super) use self::attention::attention;
pub(in super::super) use self::conv3x3::conv3x3;
pub(in super::super) use self::dropout::dropout;
pub(in super::super) use self::geglu::geglu;
pub(in super::super) use self::linear::linear;
pub(in super::super) use self::norm::{group_norm, layer_norm};

static DROPOUT: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("dropout.cu")));

/// The type of factors.
const FACTOR: DType = DType::BF16;

/// An operation of some tensors to one, with a backward pass.
trait Learnt: Clone + Debug + Send + 'static {
    /// The output, and what the backward pass needs.
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>);

    /// The gradients of the inputs, in their order; those that are not wanted may be left out.
    fn backward(
        &self,
        kept: Vec<Deferred>,
        gradient: Deferred,
        wanted: &[bool],
    ) -> Vec<Option<Deferred>>;
}

/// The operation's output where the tensors are the CUDA backend's, of 32 bits, with gradients or without;
/// `None` elsewhere.
fn apply<B: Backend, O: Learnt, const N: usize, const D: usize>(
    operation: O,
    inputs: [FloatTensor<B>; N],
) -> Option<Tensor<B, D>> {
    let inputs: Box<dyn Any> = Box::new(inputs);
    let output: Box<dyn Any> = match inputs.downcast::<[Deferred; N]>() {
        Ok(inputs) if fit(inputs.each_ref()) => Box::new(operation.forward(Vec::from(*inputs)).0),
        Ok(_) => return None,
        Err(inputs) => {
            let inputs = *inputs.downcast::<[FloatTensor<Autodiff<Cuda>>; N]>().ok()?;
            if !fit(inputs.each_ref().map(|input| &input.primitive)) {
                return None;
            }
            Box::new(tracked(operation, inputs))
        }
    };
    let output = output.downcast::<<B as BackendTypes>::FloatTensorPrimitive>().ok()?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(*output)))
}

/// Whether tensors are the CUDA backend's, with gradients.
pub(in super::super) fn is_learnt<B: Backend>() -> bool {
    TypeId::of::<FloatTensor<B>>() == TypeId::of::<FloatTensor<Autodiff<Cuda>>>()
}

/// Whether tensors are what the kernels take, on a card that has the instructions.
fn fit<const N: usize>(tensors: [&Deferred; N]) -> bool {
    let fits = |tensor: &&Deferred| tensor.dtype == DType::F32 && tensor.shape.num_elements() > 0;
    tensors.iter().all(fits) && serves(&CudaRuntime::client(tensors[0].client.device()))
}

/// [`apply`] with the backward pass registered.
fn tracked<O: Learnt, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<Cuda>>; N],
) -> FloatTensor<Autodiff<Cuda>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let (output, kept) =
        operation.forward(inputs.into_iter().map(|input| input.primitive).collect());
    let backward = Registered::<O>(PhantomData);
    match backward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((operation, kept), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct Registered<O>(PhantomData<O>);

impl<O: Learnt, const N: usize> Backward<Cuda, N> for Registered<O> {
    type State = (O, Vec<Deferred>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Cuda>(&ops.node);
        let (operation, kept) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = operation.backward(kept, gradient, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Cuda>(parent.id, gradient);
            }
        }
    }
}

/// Room for numbers, without gaps, where another tensor is.
fn empty(beside: &CudaTensor, shape: Shape, dtype: DType) -> CudaTensor {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    empty_device_contiguous_dtype(client, device, shape, dtype)
}

/// A tensor's sizes.
fn dims<const D: usize>(tensor: &Deferred) -> [usize; D] {
    tensor.shape.dims()
}

/// The outputs that were asked for, in their places.
fn placed(wanted: &[bool], outputs: Vec<Deferred>) -> Vec<Option<Deferred>> {
    let mut outputs = outputs.into_iter();
    wanted.iter().map(|&wanted| if wanted { outputs.next() } else { None }).collect()
}

/// The two rows of `[2, c]` numbers without gaps, each where it lies.
fn halves(rows: CudaTensor) -> [CudaTensor; 2] {
    let [_, c] = super::layout::dims(&rows);
    let bytes = (c * size_of::<f32>()) as u64;
    [0, bytes].map(|begin| {
        let handle = rows.handle.clone().offset_start(begin);
        let handle = handle.offset_end(bytes - begin);
        let (client, device) = (rows.client.clone(), rows.device.clone());
        CudaTensor::new_contiguous(client, device, Shape::new([c]), handle, rows.dtype)
    })
}

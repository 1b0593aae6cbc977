//! The operations whose formulation decides the speed, each behind one function.
//!
//! Each is written once in plain burn operations, for every backend, and once more by hand for
//! burn-flex, forward and backward, chosen by the type of the tensors (see [`flex`]). Composed of
//! burn's operations, a group normalisation alone costs as much on a CPU as the convolution that
//! follows it. Those that a card spends its time on are written a third time for CUDA (see [`cuda`]): forward
//! for 16-bit numbers, forward and backward for what learns.
//!
//! Sums over samples are taken in parts that do not depend on the number of threads, so that a
//! training gives the same weights on any machine of one kind.
//!
//! On burn-flex small models are computed fastest on a thread of a pool whose other threads do not fall
//! asleep between operations: `pool.install(|| leading(|| model.forward(input)))`, see [`leading`].

mod across;
mod activation;
mod adamw;
mod attention;
mod awake;
mod conv3x3;
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
mod cuda;
mod dots;
mod embedding;
mod flex;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod matrix;
mod multiply;
mod packed;
mod parts;
mod product;
mod sweep;
mod vector;

pub use activation::activate;
pub use adamw::{AdamWUpdate, WithMoments};
pub use attention::attention;
pub use awake::leading;
pub(crate) use conv3x3::laid_out;
pub use conv3x3::{conv3x3, conv3x3_onto};
pub use embedding::embedding;
pub use geglu::geglu;
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_activated, linear_geglu, linear_onto};
pub(crate) use linear::{linear_of_few, product};
pub(crate) use matrix::transposed;
pub(crate) use vector::{Once, widest};

use burn::prelude::{Backend, Tensor};

use crate::dropout::KeyedMask;

/// Whether tensors are those of a card, with gradients.
pub(crate) fn learns_on_card<B: Backend>() -> bool {
    cuda::learnt::is_learnt::<B>()
}

/// What dropout makes of the numbers, of 32 bits, where [`learns_on_card`].
///
/// # Shapes
/// - input and output: any
pub(crate) fn dropped_on_card<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    mask: KeyedMask,
) -> Option<Tensor<B, D>> {
    cuda::learnt::dropout(input, mask)
}

/// Whether linear layers read a weight that is the transpose of a contiguous matrix where it lies.
pub(crate) fn reads_transposed<B: Backend>() -> bool {
    flex::is_flex::<B>() || cuda::is_cuda::<B>()
}

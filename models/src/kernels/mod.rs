//! The operations whose formulation decides the speed, each behind one function.
//!
//! Each is written once in plain burn operations, for every backend, and once more by hand for
//! burn-flex, forward and backward, chosen by the type of the tensors (see [`flex`]). Composed of
//! burn's operations, a group normalisation alone costs as much on a CPU as the convolution that
//! follows it.
//!
//! Sums over samples are taken in parts that do not depend on the number of threads, so that a
//! training gives the same weights on any machine of one kind.

mod activation;
mod adamw;
mod attention;
mod conv3x3;
mod dots;
mod flex;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod matrix;
mod multiply;
mod parts;
mod product;
mod vector;

pub use activation::activate;
pub use adamw::{AdamWUpdate, WithMoments};
pub use attention::attention;
pub use conv3x3::conv3x3;
pub(crate) use flex::reads_transposed;
pub use geglu::geglu;
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_activated, linear_geglu};
pub(crate) use matrix::transposed;
pub(crate) use vector::{Once, widest};

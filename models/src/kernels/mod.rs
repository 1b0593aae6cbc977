//! The operations whose formulation decides the speed, each behind one function.
//!
//! Each is written once in plain burn operations, for every backend, and once more by hand for
//! burn-flex, forward and backward, chosen by the type of the tensors (see [`flex`]). Composed of
//! burn's operations, a group normalisation alone costs as much on a CPU as the convolution that
//! follows it.
//!
//! Sums over samples are taken in parts that do not depend on the number of threads, so that a
//! training gives the same weights on any machine of one kind.

mod attention;
mod conv3x3;
mod flex;
mod geglu;
mod group_norm;
mod linear;
mod matrix;
mod vector;

pub use attention::attention;
pub use conv3x3::conv3x3;
pub use geglu::geglu;
pub use group_norm::group_norm;
pub use linear::linear;

use std::ops::Range;

/// Into how many parts a sum over samples is split: as many threads can take part in it.
const PARTS: usize = 8;

/// The samples of each part, in order.
fn parts(samples: usize) -> Vec<Range<usize>> {
    let size = samples.div_ceil(PARTS).max(1);
    (0..samples).step_by(size).map(|start| start..(start + size).min(samples)).collect()
}

/// The sum of equally long vectors, in order.
fn sum_in_order(vectors: Vec<Vec<f32>>) -> Vec<f32> {
    vectors
        .into_iter()
        .reduce(|mut sum, vector| {
            for (sum, value) in sum.iter_mut().zip(vector) {
                *sum += value;
            }
            sum
        })
        .unwrap_or_default()
}

//! What the kernels of `norm.cu` share.

use std::sync::LazyLock;

use super::launch::{Defines, Kernel, Piece};
use super::{CudaTensor, PRELUDE, defines};

static NORM: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("norm.cu")));

/// A kernel without shared memory, for the type of `inputs[0]`, whose rows have `c` numbers.
pub(super) fn kernel(
    entry: &'static str,
    threads: usize,
    inputs: &[&CudaTensor],
    c: usize,
    others: Defines,
) -> Kernel {
    let begin = |tensor: &&CudaTensor| tensor.handle.offset_start.unwrap_or(0);
    let vector = c.is_multiple_of(8) && inputs.iter().map(begin).all(|at| at.is_multiple_of(16));
    let mut defines = defines(inputs[0], [("VECTOR", vector.into())]);
    defines.extend(others);
    Kernel { entry, pieces: vec![*PRELUDE, *NORM], defines, threads, shared: 0 }
}

/// Numbers that a thread of this kernel loads at once.
pub(super) fn width(kernel: &Kernel) -> usize {
    if kernel.defines["VECTOR"] == 1 { 8 } else { 1 }
}

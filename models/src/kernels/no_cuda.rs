//! What stands for `cuda` where it is not built in: no tensor is a card's.

use burn::prelude::*;

use super::linear::Then;

#[expect(clippy::extra_unused_type_parameters, reason = "as the function that it stands for")]
pub(super) fn is_cuda<B: Backend>() -> bool {
    false
}

pub(super) fn linear<B: Backend, const D: usize>(
    _input: &Tensor<B, D>,
    _weight: &Tensor<B, 2>,
    _bias: Option<&Tensor<B, 1>>,
    _then: Then,
    _residual: Option<&Tensor<B, D>>,
) -> Option<Tensor<B, D>> {
    None
}

pub(super) fn product<B: Backend>(
    _left: &Tensor<B, 3>,
    _right: &Tensor<B, 3>,
) -> Option<Tensor<B, 3>> {
    None
}

pub(super) fn conv3x3<B: Backend>(
    _input: &Tensor<B, 4>,
    _weight: &Tensor<B, 4>,
    _bias: &Tensor<B, 2>,
    _residual: Option<&Tensor<B, 4>>,
    _geometry: (usize, usize),
) -> Option<Tensor<B, 4>> {
    None
}

pub(super) fn attention<B: Backend>(
    _inputs: [&Tensor<B, 3>; 3],
    _heads: usize,
    _bias: Option<&Tensor<B, 3>>,
) -> Option<Tensor<B, 3>> {
    None
}

pub(super) fn group_norm<B: Backend>(
    _input: &Tensor<B, 4>,
    _gamma: &Tensor<B, 1>,
    _beta: &Tensor<B, 1>,
    _groups: usize,
    _epsilon: f64,
    _silu: bool,
) -> Option<Tensor<B, 4>> {
    None
}

pub(super) fn layer_norm<B: Backend, const D: usize>(
    _input: &Tensor<B, D>,
    _gamma: &Tensor<B, 1>,
    _beta: &Tensor<B, 1>,
    _epsilon: f64,
) -> Option<Tensor<B, D>> {
    None
}

pub(super) fn geglu<B: Backend>(_input: &Tensor<B, 3>) -> Option<Tensor<B, 3>> {
    None
}

pub(super) mod learnt {
    use burn::prelude::*;
    use burn::tensor::ops::FloatTensor;

    use crate::dropout::KeyedMask;
    use crate::kernels::adamw::AdamWUpdate;
    use crate::layers::Activation;

    pub(in crate::kernels) fn linear<B: Backend, const D: usize>(
        _input: &Tensor<B, D>,
        _weight: &Tensor<B, 2>,
        _bias: Option<&Tensor<B, 1>>,
        _activation: Option<Activation>,
    ) -> Option<Tensor<B, D>> {
        None
    }

    pub(in crate::kernels) fn conv3x3<B: Backend>(
        _input: &Tensor<B, 4>,
        _weight: &Tensor<B, 4>,
        _bias: &Tensor<B, 2>,
        _geometry: (usize, usize),
    ) -> Option<Tensor<B, 4>> {
        None
    }

    pub(in crate::kernels) fn attention<B: Backend>(
        _inputs: [&Tensor<B, 3>; 3],
        _heads: usize,
        _bias: Option<&Tensor<B, 3>>,
        _mask: Option<KeyedMask>,
    ) -> Option<Tensor<B, 3>> {
        None
    }

    #[expect(clippy::extra_unused_type_parameters, reason = "as the function that it stands for")]
    pub(in crate::kernels) fn is_learnt<B: Backend>() -> bool {
        false
    }

    pub(in crate::kernels) fn dropout<B: Backend, const D: usize>(
        _input: &Tensor<B, D>,
        _mask: KeyedMask,
    ) -> Option<Tensor<B, D>> {
        None
    }

    pub(in crate::kernels) fn group_norm<B: Backend>(
        _input: &Tensor<B, 4>,
        _gamma: &Tensor<B, 1>,
        _beta: &Tensor<B, 1>,
        _groups: usize,
        _epsilon: f64,
        _silu: bool,
    ) -> Option<Tensor<B, 4>> {
        None
    }

    pub(in crate::kernels) fn layer_norm<B: Backend, const D: usize>(
        _input: &Tensor<B, D>,
        _gamma: &Tensor<B, 1>,
        _beta: &Tensor<B, 1>,
        _epsilon: f64,
    ) -> Option<Tensor<B, D>> {
        None
    }

    pub(in crate::kernels) fn geglu<B: Backend>(_input: &Tensor<B, 3>) -> Option<Tensor<B, 3>> {
        None
    }

    pub(in crate::kernels) fn activate<B: Backend>(
        _activation: Activation,
        _input: &Tensor<B, 1>,
    ) -> Option<Tensor<B, 1>> {
        None
    }

    pub(in crate::kernels) fn adamw<B: Backend>(
        _update: AdamWUpdate,
        tensors: [FloatTensor<B>; 4],
    ) -> Result<[FloatTensor<B>; 3], [FloatTensor<B>; 4]> {
        Err(tensors)
    }
}

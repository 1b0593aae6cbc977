//! Attention in plain burn operations, and through burn's own kernel.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, TensorData};

use crate::kernels::cuda;

/// Weights of a head from which on burn's own kernel is taken: fewer fit the caches of a card, and its
/// alternative, which is tried beside it, has logits of the tensors' own type.
const FUSED: usize = 1 << 20;

/// Whether burn's own kernel (flash attention, Dao et al. 2022, sums in 32 bits) serves: on a card, in 32 bits, for
/// many queries and keys, where nothing is learnt (and so nothing dropped). In 16 bits CUDA has kernels of our
/// own, and elsewhere burn tries it beside a form whose logits are of that type, which some published
/// models overflow.
pub(super) fn fused_pays<B: Backend>(query: &Tensor<B, 3>, m: usize) -> bool {
    let [_, n, _] = query.dims();
    n * m >= FUSED
        && query.dtype() == DType::F32
        && !B::ad_enabled(&query.device())
        && B::name(&query.device()).contains("cubecl")
}

/// burn's own attention; it divides by the root of the width itself.
pub(super) fn fused<B: Backend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    heads: usize,
) -> Tensor<B, 3> {
    let [query, key, value] = [query, key, value].map(|x| split(x, heads));
    let options = AttentionModuleOptions::default();
    merge(burn::tensor::module::attention(query, key, value, None, None, options))
}

pub(super) fn plain<B: Backend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    heads: usize,
    bias: Tensor<B, 3>,
    kept: Option<Arc<Vec<f32>>>,
) -> Tensor<B, 3> {
    let [_, _, c] = query.dims();
    let (width, dtype) = (c / heads, query.dtype());
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let scale = (width as f64).powf(-0.5);
    let on_card = cuda::is_cuda::<B>() && matches!(dtype, DType::BF16 | DType::F16);
    let of_sixteen = on_card
        .then(|| products(split(query.clone(), heads), split(key.clone(), heads).transpose()));
    let logits = match of_sixteen.flatten() {
        Some(logits) => logits * scale,
        None => {
            let query = split(query.cast(wide) * scale, heads);
            query.matmul(split(key.cast(wide), heads).transpose())
        }
    }; // [b, heads, n, m]
    let weights = softmax(logits + bias.cast(wide).unsqueeze_dim(1), 3);
    let weights = match kept {
        Some(kept) => {
            let kept = TensorData::new(kept.to_vec(), weights.shape());
            let kept = Tensor::from_data(kept, (&weights.device(), wide));
            weights * kept
        }
        None => weights,
    };
    let (weights, value) = (weights.cast(dtype), split(value, heads));
    let product = on_card.then(|| products(weights.clone(), value.clone())).flatten();
    merge(product.map_or_else(|| weights.matmul(value), |output| output.cast(dtype)))
}

/// Products of matrices of 16 bits on a card, in 32.
fn products<B: Backend>(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Option<Tensor<B, 4>> {
    let ([b, heads, n, k], [_, _, _, m]) = (left.dims(), right.dims());
    let (left, right) = (left.reshape([b * heads, n, k]), right.reshape([b * heads, k, m]));
    Some(cuda::product(&left, &right)?.reshape([b, heads, n, m]))
}

/// `[b, length, c]` to `[b, heads, length, c / heads]`.
fn split<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [b, length, c] = x.dims();
    x.reshape([b, length, heads, c / heads]).swap_dims(1, 2)
}

/// Undoes [`split`].
fn merge<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 3> {
    let [b, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([b, length, heads * width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    /// What a card computes of it is compared by `tests/cuda`.
    #[test]
    fn burns_own_attention_takes_the_heads_in_the_same_places() {
        let range = burn::tensor::Distribution::Uniform(-2.0, 2.0);
        let random =
            |length| Tensor::<Flex, 3>::random([2, length, 24], range, &Default::default());
        let (query, key, value) = (random(5), random(7), random(7));
        assert!(!fused_pays(&query, FUSED));
        let bias = Tensor::zeros([1, 1, 7], &Default::default());
        let expected = plain(query.clone(), key.clone(), value.clone(), 3, bias, None).into_data();
        let found = fused(query, key, value, 3).into_data();
        found.assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::rel_abs(1e-5, 1e-6));
    }
}

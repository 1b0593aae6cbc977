use burn::prelude::*;
use burn::tensor::activation;

/// Group normalisation over channels-last pictures, followed by silu where asked for.
///
/// # Shapes
/// - input and output: `[b, h, w, c]`
/// - gamma, beta: `[c]`
pub fn group_norm<B: Backend>(
    input: Tensor<B, 4>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Tensor<B, 4> {
    let [b, h, w, c] = input.dims();
    let width = c / groups;
    let count = (h * w * width) as f64;
    let sum = |x: Tensor<B, 4>| x.sum_dim(1).sum_dim(3); // [b, hw, g, c/g] -> [b, 1, g, 1]

    let grouped = input.reshape([b, h * w, groups, width]);
    let centred = grouped.clone() - sum(grouped) / count;
    let variance = sum(centred.clone().square()) / count;
    let normal = centred * (variance + epsilon).sqrt().recip();
    let scaled =
        normal * gamma.reshape([1, 1, groups, width]) + beta.reshape([1, 1, groups, width]);
    let output = scaled.reshape([b, h, w, c]);
    if silu { activation::silu(output) } else { output }
}

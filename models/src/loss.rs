//! Cross-entropy.

use burn::tensor::{Bool, Int, Tensor, activation::log_softmax, backend::Backend};

/// The mean over the counted rows of the cross-entropy in nats, with label smoothing: the target
/// distribution is `1 - smoothing` on the target plus `smoothing` spread over all classes.
///
/// Equals PyTorch's `cross_entropy(logits, targets, label_smoothing=smoothing)` with its
/// `ignore_index` at the rows that do not count. It is 0 where no row counts.
///
/// # Shapes
///
/// - `logits`: `[rows, classes]`
/// - `targets`: `[rows]`, classes; any class where a row does not count
/// - `counted`: `[rows]`; `None`: every row
/// - output: `[1]`
pub fn cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    counted: Option<Tensor<B, 1, Bool>>,
    smoothing: f64,
) -> Tensor<B, 1> {
    let log_probabilities = log_softmax(logits, 1);
    let target = log_probabilities.clone().gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1); // [rows]
    let score = if smoothing > 0.0 {
        let spread = log_probabilities.mean_dim(1).squeeze_dim::<1>(1);
        target * (1.0 - smoothing) + spread * smoothing
    } else {
        target
    };
    match counted {
        Some(counted) => {
            let counted = counted.float();
            let count = counted.clone().sum().clamp_min(1.0);
            (score * counted).sum().neg() / count
        }
        None => score.mean().neg(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn loss(counted: Option<[bool; 3]>, smoothing: f64) -> f32 {
        let device = Default::default();
        let logits = Tensor::<Flex, 2>::from_floats(
            [[0.5, -1.0, 2.0, 0.1], [1.5, 0.3, -0.2, 0.0], [9.0, -9.0, 0.0, 3.0]],
            &device,
        );
        let targets = Tensor::<Flex, 1, Int>::from_ints([2, 1, 0], &device);
        let counted = counted.map(|counted| Tensor::from_data(counted, &device));
        cross_entropy(logits, targets, counted, smoothing).into_scalar()
    }

    #[test]
    fn the_loss_is_that_of_pytorch() {
        // torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, label_smoothing=..)
        for (counted, smoothing, expected) in [
            (None, 0.0, 0.6965823),
            (Some([true, true, false]), 0.0, 1.0435741),
            (Some([true, true, false]), 0.1, 1.1185741),
        ] {
            let loss = loss(counted, smoothing);
            assert!((loss - expected).abs() < 1e-6, "{loss}, expected {expected}");
        }
    }

    #[test]
    fn without_a_counted_row_the_loss_is_zero() {
        assert_eq!(loss(Some([false; 3]), 0.1), 0.0);
    }
}

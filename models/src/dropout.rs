//! Dropout whose masks are keyed.
//!
//! burn's own dropout draws from one global generator, so that two trainings in one process take
//! numbers from each other. Here a training step names its own generator with
//! [`with_dropout_rng`], and the masks of that step depend on it alone.

use std::cell::RefCell;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use crate::kernels::{dropped_on_card, learns_on_card};

thread_local! {
    static SOURCE: RefCell<Option<ChaCha8Rng>> = const { RefCell::new(None) };
}

/// Runs `f` with `rng` as the source of every dropout mask drawn on this thread.
///
/// The source that was set before comes back afterwards, also when `f` panics.
pub fn with_dropout_rng<T>(rng: ChaCha8Rng, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<ChaCha8Rng>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SOURCE.set(self.0.take());
        }
    }
    let _restore = Restore(SOURCE.replace(Some(rng)));
    f()
}

/// Inverted dropout ([Hinton et al.](https://arxiv.org/abs/1207.0580)).
///
/// In training each element is zero with probability `prob` and divided by `1 - prob` otherwise.
/// "In training" means: the backend is an autodiff backend *and* the call is made inside
/// [`with_dropout_rng`]. Anywhere else the layer is the identity.
#[derive(Module, Clone, Debug)]
pub struct Dropout {
    /// Probability of an element to be zeroed, from 0 to 1. The masks are drawn in steps of 2^-16.
    pub prob: f64,
}

impl Dropout {
    /// A layer that zeroes with probability `prob`; what lies outside of 0 to 1 counts as the
    /// nearer end.
    pub fn new(prob: f64) -> Self {
        Self { prob }
    }

    /// On CUDA a key is drawn in place of the mask, which the card makes where it needs it.
    ///
    /// # Shapes
    ///
    /// - input and output: `[..., any]`
    pub fn forward<B: Backend, const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        if learns_on_card::<B>()
            && let Some(mask) = self.keyed_mask()
            && let Some(output) = dropped_on_card(&input, mask)
        {
            return output;
        }
        let (shape, device) = (input.shape(), input.device());
        let Some(mask) = self.mask::<B>(shape.num_elements(), &device) else { return input };
        input * Tensor::from_data(TensorData::new(mask, shape), &device)
    }

    /// The factors of `count` elements; `None` where nothing is dropped.
    pub(crate) fn mask<B: Backend>(&self, count: usize, device: &B::Device) -> Option<Vec<f32>> {
        let dropped = self.dropped();
        if dropped == 0 || !B::ad_enabled(device) {
            return None;
        }
        SOURCE.with_borrow_mut(|source| source.as_mut().map(|rng| draw_mask(rng, count, dropped)))
    }

    /// A mask for a card that learns, which the caller has seen to; `None` where nothing is dropped.
    pub(crate) fn keyed_mask(&self) -> Option<KeyedMask> {
        let dropped = self.dropped();
        if dropped == 0 {
            return None;
        }
        let key = SOURCE.with_borrow_mut(|source| source.as_mut().map(RngCore::next_u64))?;
        Some(KeyedMask { key, dropped })
    }

    /// Of 2^16 elements. The cast saturates, so that NaN and negative values mean "no dropout".
    fn dropped(&self) -> u32 {
        (self.prob * 65536.0).round().min(65536.0) as u32
    }
}

/// A mask by its key: whoever needs it makes it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a card's kernels alone read it"))]
pub(crate) struct KeyedMask {
    pub(crate) key: u64,
    /// Of 2^16 elements.
    pub(crate) dropped: u32,
}

impl KeyedMask {
    /// What an element that stays is multiplied by, so that the expectation does.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "as the fields"))]
    pub(crate) fn keep(&self) -> f32 {
        keep(self.dropped)
    }
}

fn keep(dropped: u32) -> f32 {
    if dropped < 65536 { 65536.0 / (65536 - dropped) as f32 } else { 0.0 }
}

/// `count` factors, each 0 with probability `dropped / 2^16` and otherwise what keeps the
/// expectation at 1.
fn draw_mask(rng: &mut ChaCha8Rng, count: usize, dropped: u32) -> Vec<f32> {
    let keep = keep(dropped);
    let mut mask = Vec::with_capacity(count + 1);
    while mask.len() < count {
        let word = rng.next_u64();
        for part in [word, word >> 16, word >> 32, word >> 48] {
            mask.push(if (part & 0xffff) as u32 >= dropped { keep } else { 0.0 });
        }
    }
    mask.truncate(count);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use rand::SeedableRng;

    type Train = Autodiff<Flex>;

    fn masked(seed: u64, prob: f64) -> Vec<f32> {
        let ones = Tensor::<Train, 2>::ones([101, 99], &Default::default());
        with_dropout_rng(ChaCha8Rng::seed_from_u64(seed), || Dropout::new(prob).forward(ones))
            .into_data()
            .to_vec()
            .unwrap()
    }

    #[test]
    fn the_same_key_gives_the_same_mask_and_another_key_another() {
        assert_eq!(masked(1, 0.1), masked(1, 0.1));
        assert_ne!(masked(1, 0.1), masked(2, 0.1));
    }

    #[test]
    fn the_expectation_is_kept() {
        for prob in [0.1, 0.5, 0.9] {
            let mask = masked(3, prob);
            let zeros = mask.iter().filter(|&&m| m == 0.0).count() as f64 / mask.len() as f64;
            let mean = mask.iter().sum::<f32>() as f64 / mask.len() as f64;
            // Five standard errors of a mean of 9,999 draws.
            let error = 5.0 * (prob * (1.0 - prob) / mask.len() as f64).sqrt();
            assert!((zeros - prob).abs() < error, "{zeros} for {prob}");
            assert!((mean - 1.0).abs() < error / (1.0 - prob), "{mean}");
        }
        assert!(masked(3, 1.0).iter().all(|&m| m == 0.0));
        assert!(masked(3, 0.0).iter().all(|&m| m == 1.0));
    }

    #[test]
    fn nothing_is_dropped_in_inference_or_without_a_source() {
        let plain = Tensor::<Flex, 1>::ones([64], &Default::default());
        let out = with_dropout_rng(ChaCha8Rng::seed_from_u64(1), || {
            Dropout::new(0.5).forward(plain.clone())
        });
        assert_eq!(out.into_data(), plain.into_data());
        let train = Tensor::<Train, 1>::ones([64], &Default::default());
        assert_eq!(Dropout::new(0.5).forward(train.clone()).into_data(), train.into_data());
    }

    #[test]
    fn a_nested_source_gives_the_outer_one_back() {
        let draw = || {
            let ones = Tensor::<Train, 1>::ones([64], &Default::default());
            Dropout::new(0.5).forward(ones).into_data()
        };
        let key = ChaCha8Rng::seed_from_u64;
        let alone = with_dropout_rng(key(1), || (draw(), draw()));
        let nested = with_dropout_rng(key(1), || {
            let first = draw();
            with_dropout_rng(key(2), draw);
            (first, draw())
        });
        assert_eq!(alone, nested);
    }

    #[test]
    fn the_gradient_passes_where_the_mask_does() {
        let x = Tensor::<Train, 1>::ones([64], &Default::default()).require_grad();
        let y =
            with_dropout_rng(ChaCha8Rng::seed_from_u64(1), || Dropout::new(0.5).forward(x.clone()));
        let grads = y.clone().sum().backward();
        assert_eq!(x.grad(&grads).unwrap().into_data(), y.into_data());
    }
}

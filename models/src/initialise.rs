//! Weights drawn from a given generator.
//!
//! burn draws initial weights from a global generator, when a parameter is first used. Then they
//! depend on what else ran in the process; here they depend on one generator and the module alone.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Shape, Tensor, TensorData, backend::Backend};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How weights of rank 2 and more are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// From N(0, `std`²), as transformers does for BERT, ViT and CLIP (`initializer_range`).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Weights of linear layers and convolutions from U(-k, k), k = 1 / √(inputs of one output),
    /// which is PyTorch's default and diffusers'; embeddings and other tables from N(0, 0.02²).
    FanIn,
}

impl Scheme {
    /// What the published BERT, ViT and CLIP started from.
    pub const TRANSFORMER: Self = Self::Normal { std: 0.02 };
}

/// Redraws every float parameter of `module`, in the order of its fields, from `rng` alone.
///
/// Weights of rank 2 and more are drawn by `scheme`. Of those of rank 1, fields named `bias` and
/// those whose values are not all equal become 0; the others, such as the ones of a norm's
/// `gamma`, stay as they are.
///
/// Do this on the autodiff backend if the module is to be trained: burn forgets that a parameter
/// wants a gradient when its value is replaced on a backend without gradients.
pub fn reinitialise<B: Backend, M: Module<B>>(
    module: M,
    scheme: Scheme,
    rng: &mut ChaCha8Rng,
) -> M {
    module.map(&mut Redraw { scheme, rng, path: Vec::new() })
}

struct Redraw<'a> {
    scheme: Scheme,
    rng: &'a mut ChaCha8Rng,
    /// Field name and container of each level.
    path: Vec<(String, String)>,
}

impl<B: Backend> ModuleMapper<B> for Redraw<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.into(), container_type.into()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.lazy_shape();
        let values = if D == 1 {
            let is_bias = self.path.last().is_some_and(|(name, _)| name == "bias");
            if !is_bias && is_constant(&param.val()) {
                return param;
            }
            vec![0.0; shape.num_elements()]
        } else {
            self.draw(&shape)
        };
        let (device, id) = (param.lazy_device(), param.id);
        param.transform_for_load(Tensor::from_data(TensorData::new(values, shape), &device), id)
    }
}

impl Redraw<'_> {
    fn draw(&mut self, shape: &Shape) -> Vec<f32> {
        let count = shape.num_elements();
        let is_linear = self.path.last().is_some_and(|(_, container)| container == "Struct:Linear");
        let fan_in = match shape.num_dims() {
            2 if is_linear => Some(shape[0]), // [inputs, outputs]
            2 | 3 => None,
            _ => Some(count / shape[0]), // [outputs, inputs, height, width]
        };
        match (self.scheme, fan_in) {
            (Scheme::Normal { std }, _) => normal(self.rng, count, std),
            (Scheme::FanIn, None) => normal(self.rng, count, 0.02),
            (Scheme::FanIn, Some(fan_in)) => {
                let bound = 1.0 / (fan_in as f64).sqrt();
                (0..count).map(|_| self.rng.random_range(-bound..bound) as f32).collect()
            }
        }
    }
}

fn is_constant<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    let data = tensor.to_data();
    let mut values = data.iter::<f32>();
    let first = values.next();
    values.all(|value| Some(value) == first)
}

/// `count` draws from N(0, `std`²), by Box and Muller.
fn normal(rng: &mut ChaCha8Rng, count: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = std * (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use rand::SeedableRng;

    #[derive(Module, Debug)]
    struct Sample<B: Backend> {
        table: Embedding<B>,
        linear: Linear<B>,
        single: Linear<B>,
        conv: Conv2d<B>,
        norm: LayerNorm<B>,
        scale: Param<Tensor<B, 1>>,
    }

    fn sample<B: Backend>(scheme: Scheme, seed: u64) -> Sample<B> {
        let device = B::Device::default();
        let module = Sample {
            table: EmbeddingConfig::new(40, 50).init(&device),
            linear: LinearConfig::new(64, 32).init(&device),
            single: LinearConfig::new(64, 1).init(&device),
            conv: Conv2dConfig::new([8, 16], [3, 3]).init(&device),
            norm: LayerNormConfig::new(8).init(&device),
            scale: Param::from_data([1.5, 1.5], &device),
        };
        reinitialise(module, scheme, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    fn values<B: Backend, const D: usize>(param: &Param<Tensor<B, D>>) -> Vec<f32> {
        param.val().into_data().to_vec().unwrap()
    }

    fn std(values: &[f32]) -> f32 {
        (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
    }

    #[test]
    fn the_same_key_draws_the_same_weights_on_every_backend() {
        let one = sample::<Flex>(Scheme::TRANSFORMER, 1);
        let other = sample::<Autodiff<Flex>>(Scheme::TRANSFORMER, 1);
        assert_eq!(values(&one.table.weight), values(&other.table.weight));
        assert_eq!(values(&one.conv.weight), values(&other.conv.weight));
        let changed = sample::<Flex>(Scheme::TRANSFORMER, 2);
        assert_ne!(values(&one.linear.weight), values(&changed.linear.weight));
    }

    #[test]
    fn weights_follow_the_scheme() {
        let module = sample::<Flex>(Scheme::Normal { std: 0.1 }, 1);
        for weight in [values(&module.table.weight), values(&module.linear.weight)] {
            assert!((std(&weight) - 0.1).abs() < 0.005, "{}", std(&weight));
            assert!(weight.iter().any(|w| w.abs() > 0.25));
        }
        let module = sample::<Flex>(Scheme::FanIn, 1);
        assert!((std(&values(&module.table.weight)) - 0.02).abs() < 0.001);
        for (weight, fan_in) in
            [(values(&module.linear.weight), 64.0), (values(&module.conv.weight), 72.0f32)]
        {
            let bound = 1.0 / fan_in.sqrt();
            let largest = weight.iter().fold(0.0f32, |a, w| a.max(w.abs()));
            assert!(largest < bound && largest > 0.95 * bound, "{largest}");
        }
    }

    #[test]
    fn biases_are_zero_and_other_constants_stay() {
        let module = sample::<Flex>(Scheme::FanIn, 1);
        assert_eq!(values(module.linear.bias.as_ref().unwrap()), [0.0; 32]);
        assert_eq!(values(module.single.bias.as_ref().unwrap()), [0.0]);
        assert_eq!(values(module.conv.bias.as_ref().unwrap()), [0.0; 16]);
        assert_eq!(values(&module.norm.gamma), [1.0; 8]);
        assert_eq!(values(module.norm.beta.as_ref().unwrap()), [0.0; 8]);
        assert_eq!(values(&module.scale), [1.5; 2]);
    }

    #[test]
    fn what_wanted_a_gradient_still_does() {
        let module = sample::<Autodiff<Flex>>(Scheme::TRANSFORMER, 1);
        assert!(module.linear.weight.val().is_require_grad());
        assert!(module.linear.bias.unwrap().val().is_require_grad());
    }
}

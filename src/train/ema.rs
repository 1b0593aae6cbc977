//! An exponential moving average of a model's weights (as in DDPM training, Ho et al. 2020).

use std::collections::HashMap;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorPrimitive};

/// The running average of every float parameter.
pub struct MovingAverage<B: AutodiffBackend> {
    decay: f64,
    updates: usize,
    weights: HashMap<ParamId, TensorPrimitive<B::InnerBackend>>,
}

impl<B: AutodiffBackend> MovingAverage<B> {
    /// Starts from the model's present weights.
    pub fn new<M: AutodiffModule<B>>(model: &M, decay: f64) -> Self {
        let mut average = Self { decay, updates: 0, weights: HashMap::new() };
        average.update(model);
        average
    }

    /// Takes in the model's present weights. The decay warms up as (1 + n) / (10 + n), so that the
    /// first updates are forgotten soon.
    pub fn update<M: AutodiffModule<B>>(&mut self, model: &M) {
        let warm = (1.0 + self.updates as f64) / (10.0 + self.updates as f64);
        let mut take = Take { decay: self.decay.min(warm), weights: &mut self.weights };
        model.valid().visit(&mut take);
        self.updates += 1;
    }

    /// The model with the averaged weights.
    pub fn model<M: AutodiffModule<B>>(&self, model: &M) -> M {
        M::from_inner(model.valid().map(&mut Give { weights: &self.weights }))
    }
}

struct Take<'a, B: Backend> {
    decay: f64,
    weights: &'a mut HashMap<ParamId, TensorPrimitive<B>>,
}

impl<B: Backend> ModuleVisitor<B> for Take<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let new = param.val();
        let averaged = match self.weights.remove(&param.id) {
            Some(old) => {
                Tensor::<B, D>::from_primitive(old) * self.decay + new * (1.0 - self.decay)
            }
            None => new,
        };
        self.weights.insert(param.id, averaged.into_primitive());
    }
}

struct Give<'a, B: Backend> {
    weights: &'a HashMap<ParamId, TensorPrimitive<B>>,
}

impl<B: Backend> ModuleMapper<B> for Give<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.weights.get(&param.id) {
            Some(weights) => {
                let weights = Tensor::from_primitive(weights.clone());
                param.map(|_| weights)
            }
            None => param,
        }
    }
}

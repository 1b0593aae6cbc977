//! Training of every model through burn-train's learner, by one strategy.

mod batches;
mod ema;
mod renderer;
mod schedule;
mod strategy;
pub mod tasks;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::module::AutodiffModule;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::{InferenceStep, Learner, SupervisedTraining, TrainStep, TrainingStrategy};
use mi2rage_models::adamw::AdamW;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use batches::Collate;
pub use schedule::Decay;
pub use strategy::{Criterion, CurvePoint, StepLoss, Tally};

use crate::keyed::Key;
use crate::progress::Progress;
use batches::{Order, TrainBatches, ValidationBatches};
use renderer::Silent;
use schedule::WarmupDecay;
use strategy::{KeyedStrategy, Outcome};

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Optimiser steps.
    pub updates: usize,
    /// Items a step.
    pub batch: usize,
    /// The highest learning rate of AdamW.
    pub learning_rate: f64,
    /// Fraction of the updates over which the rate rises from 0.
    #[serde(default)]
    pub warmup: f64,
    /// The decay after the warm-up.
    #[serde(default)]
    pub decay: Decay,
    /// AdamW's decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f32,
    /// How often the held-out items are scored (the last time after the last update).
    pub evaluations: usize,
    /// What chooses the weights to keep.
    #[serde(default)]
    pub criterion: Criterion,
    /// Decay of a moving average of the weights, which is then what is evaluated and kept.
    #[serde(default)]
    pub moving_average: Option<f64>,
    /// Rounds the factors of products to bf16 on CUDA, see
    /// [`in_mixed_precision`](mi2rage_models::precision::in_mixed_precision); elsewhere it does nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mixed_precision: bool,
}

impl Recipe {
    /// What is wrong with the values, if anything, as `key: what was expected`.
    pub fn problem(&self) -> Option<&'static str> {
        if self.updates == 0 {
            return Some("updates: expected at least 1");
        }
        if self.batch == 0 {
            return Some("batch: expected at least 1");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return Some("learning_rate: expected a number above 0, at most 1");
        }
        if !(0.0..1.0).contains(&self.warmup) {
            return Some("warmup: expected a fraction from 0 up to but without 1");
        }
        if self.evaluations == 0 || self.evaluations > self.updates {
            return Some("evaluations: expected at least 1 and at most `updates`");
        }
        if self.moving_average.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return Some("moving_average: expected a fraction from 0 up to but without 1");
        }
        None
    }
}

/// Why a training gave no weights.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Asked to stop.
    #[error("{name}: interrupted; the same command starts this training again")]
    Interrupted {
        /// The training's name.
        name: String,
    },
    /// The loss was no number.
    #[error("{name}: the loss was not finite by update {update}; a lower learning_rate may help")]
    Diverged {
        /// The training's name.
        name: String,
        /// Updates done by then.
        update: usize,
    },
    /// Nothing to train on.
    #[error("{name}: there are no {what} items")]
    Empty {
        /// The training's name.
        name: String,
        /// Which items are missing.
        what: &'static str,
    },
}

/// Where trainings report to and who may stop them.
#[derive(Clone)]
pub struct Context {
    /// Shows progress.
    pub progress: Progress,
    /// Set by an interrupt.
    pub stop: Arc<AtomicBool>,
}

/// The items of one split and how a batch is made of them.
pub struct Items<I> {
    /// How many there are.
    pub len: usize,
    /// Their lengths, where those of about the same length are to be trained on together.
    pub lengths: Option<Arc<[usize]>>,
    /// Makes a batch from indices below `len`.
    pub collate: Collate<I>,
}

/// Trained weights and how they came about.
pub struct Trained<M> {
    /// The best epoch's model.
    pub model: M,
    /// One point an epoch.
    pub curve: Vec<CurvePoint>,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
}

impl<M> Trained<M> {
    /// The model, and what is left to tell of its training.
    pub fn split(self) -> (M, Trained<()>) {
        let Self { model, curve, best_epoch } = self;
        (model, Trained { model: (), curve, best_epoch })
    }

    /// The point of the curve whose weights were kept.
    ///
    /// # Panics
    ///
    /// Never: a training that ends well has at least one epoch, and its best is one of them.
    pub fn kept(&self) -> &CurvePoint {
        let kept = self.curve.iter().find(|point| point.epoch == self.best_epoch);
        kept.expect("the best epoch is on the curve")
    }
}

/// Trains `model` by `recipe`; what is drawn (order, dropout, noise) is named by `key` alone.
///
/// # Errors
///
/// An interrupt, a loss that is no number, or no items.
pub fn train<B, M, I, J>(
    name: &str,
    model: M,
    recipe: &Recipe,
    items: Items<I>,
    held_out: Items<J>,
    key: &Key,
    context: &Context,
) -> Result<Trained<M::InnerModule>, TrainError>
where
    B: AutodiffBackend,
    I: Send + 'static,
    J: Send + 'static,
    M: TrainStep<Input = I, Output = StepLoss<B::InnerBackend>>
        + AutodiffModule<B>
        + std::fmt::Display
        + 'static,
    M::InnerModule: InferenceStep<Input = J, Output = Tally>,
{
    for (what, len) in [("training", items.len), ("held-out", held_out.len)] {
        if len == 0 {
            return Err(TrainError::Empty { name: name.to_owned(), what });
        }
    }
    let epoch = Arc::new(AtomicUsize::new(1));
    let per_epoch = recipe.updates.div_ceil(recipe.evaluations);
    let batches = TrainBatches::new(
        Order::new(key.with("order", 0), items.len, recipe.batch, items.lengths),
        recipe.updates,
        per_epoch,
        epoch.clone(),
        items.collate,
    );
    let validation = ValidationBatches {
        len: held_out.len,
        batch: recipe.batch,
        key: key.with("validation", 0),
        collate: held_out.collate,
    };
    let optimizer = OptimizerAdaptor::<_, M, B>::from(AdamW { weight_decay: recipe.weight_decay });
    let rate = WarmupDecay::new(recipe.learning_rate, recipe.warmup, recipe.updates, recipe.decay);
    let task = context.progress.task(name, recipe.updates as u64, "updates");
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let strategy = KeyedStrategy {
        name: name.to_owned(),
        key: key.clone(),
        epoch,
        criterion: recipe.criterion,
        moving_average: recipe.moving_average,
        mixed_precision: recipe.mixed_precision,
        stop: context.stop.clone(),
        on_update: {
            let task = task.clone();
            Arc::new(move || task.advance(1))
        },
        outcome: outcome.clone(),
    };
    // burn-train wants a folder; with a logger in memory and no checkpointer nothing is written.
    let result = SupervisedTraining::new(Path::new(""), Arc::new(batches), Arc::new(validation))
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .renderer(Silent)
        .num_epochs(recipe.updates.div_ceil(per_epoch))
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .launch(Learner::new(model, optimizer, rate));
    task.finish();
    let outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(|e| e.into_inner()));
    let name = name.to_owned();
    if outcome.interrupted || context.stop.load(Ordering::Relaxed) {
        return Err(TrainError::Interrupted { name });
    }
    if let Some(update) = outcome.diverged_at {
        return Err(TrainError::Diverged { name, update });
    }
    Ok(Trained { model: result.model, curve: outcome.curve, best_epoch: outcome.best_epoch })
}

//! The one learning strategy of every training, beside burn-train's own.
//!
//! burn-train 0.21 averages batch metrics, returns the last epoch's weights and keys nothing. Here
//! validation adds up counts, the best epoch's weights are returned, and data order and dropout
//! depend on (key, update) alone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::data::dataloader::Progress as LoaderProgress;
use burn::module::AutodiffModule;
use burn::optim::Optimizer;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor, backend::Backend};
use burn::train::{
    EventProcessorTraining, InferenceStep, ItemLazy, Learner, LearnerEvent,
    LearningComponentsMarker, SupervisedLearningStrategy, SupervisedTrainingEventProcessor,
    TrainLoader, TrainStep, TrainingComponents, TrainingItem, ValidLoader,
};
use mi2rage_models::dropout::with_dropout_rng;
use mi2rage_models::precision::in_mixed_precision;
use serde::{Deserialize, Serialize};

use super::ema::MovingAverage;
use super::schedule::WarmupDecay;
use crate::keyed::Key;

/// The loss of one update, left on its device until somebody reads it.
#[derive(Clone)]
pub struct StepLoss<B: Backend>(pub Tensor<B, 1>);

impl<B: Backend> ItemLazy for StepLoss<B> {
    type ItemSync = ();

    // Losses are read once an epoch by the strategy; reading each would stall an accelerator.
    fn sync(self) {}
}

/// What a held-out batch adds to a validation: sums and counts, so that the total is exact
/// whatever the batch size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Items (or tokens) counted.
    pub count: f64,
    /// Sum of their losses.
    pub loss: f64,
    /// Right predictions of a positive (classifiers) or right predictions (everything else).
    pub hits: f64,
    /// Predicted positives (classifiers), or items that a hit was possible for.
    pub predicted: f64,
    /// Positives there are (classifiers), or items that a hit was possible for.
    pub actual: f64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.count += other.count;
        self.loss += other.loss;
        self.hits += other.hits;
        self.predicted += other.predicted;
        self.actual += other.actual;
    }

    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1.0)
    }

    /// F1 of the positives; the accuracy where `predicted` and `actual` both count all items.
    pub fn f1(&self) -> f64 {
        if self.predicted + self.actual == 0.0 {
            return 0.0;
        }
        2.0 * self.hits / (self.predicted + self.actual)
    }
}

impl ItemLazy for Tally {
    type ItemSync = Tally;

    fn sync(self) -> Tally {
        self
    }
}

/// What chooses the best epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The lowest held-out loss.
    #[default]
    Loss,
    /// The highest held-out F1.
    F1,
    /// The last epoch, for a training whose held-out loss says little about its worth.
    Last,
}

/// One point of a learning curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// From 1.
    pub epoch: usize,
    /// Updates done.
    pub update: usize,
    /// Mean training loss over the epoch.
    pub train_loss: f64,
    /// Mean held-out loss.
    pub validation_loss: f64,
    /// Held-out F1, see [`Tally::f1`].
    pub validation_f1: f64,
    /// The learning rate of the epoch's last update.
    pub learning_rate: f64,
    /// Seconds since the training began.
    pub seconds: f64,
}

/// How a training ended, beside its weights.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// One point an epoch.
    pub curve: Vec<CurvePoint>,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Asked to stop before the end.
    pub interrupted: bool,
    /// The update whose loss was no number.
    pub diverged_at: Option<usize>,
}

/// Trains on one device, keyed; see the module's text.
pub struct KeyedStrategy {
    /// What is trained, for messages.
    pub name: String,
    /// Names the dropout of every update.
    pub key: Key,
    /// Tells the loader which epoch to deal out.
    pub epoch: Arc<AtomicUsize>,
    /// Chooses the best epoch.
    pub criterion: Criterion,
    /// Decay of the weights' moving average, if one is kept.
    pub moving_average: Option<f64>,
    /// Whether to compute in mixed precision where the backend can.
    pub mixed_precision: bool,
    /// Set from outside to stop.
    pub stop: Arc<AtomicBool>,
    /// Called after each update.
    pub on_update: Arc<dyn Fn() + Send + Sync>,
    /// Filled while training.
    pub outcome: Arc<Mutex<Outcome>>,
}

impl KeyedStrategy {
    /// Runs the models in the precision that was asked for.
    fn compute<T>(&self, f: impl FnOnce() -> T) -> T {
        if self.mixed_precision { in_mixed_precision(f) } else { f() }
    }
}

type Components<B, M, O> = LearningComponentsMarker<B, WarmupDecay, M, O>;

impl<B, M, O> SupervisedLearningStrategy<Components<B, M, O>> for KeyedStrategy
where
    B: AutodiffBackend,
    M: TrainStep<Output = StepLoss<B::InnerBackend>>
        + AutodiffModule<B>
        + std::fmt::Display
        + 'static,
    M::InnerModule: InferenceStep<Output = Tally>,
    O: Optimizer<M, B> + 'static,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B, M, O>>,
        mut learner: Learner<Components<B, M, O>>,
        train: TrainLoader<Components<B, M, O>>,
        valid: ValidLoader<Components<B, M, O>>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<Components<B, M, O>>) {
        let mut processor = components.event_processor;
        let mut average =
            self.moving_average.map(|decay| MovingAverage::new(&learner.model(), decay));
        let mut best: Option<(f64, M)> = None;
        let mut outcome = Outcome::default();
        let (started, mut update) = (Instant::now(), 0);
        'training: for epoch in starting_epoch..=components.num_epochs {
            self.epoch.store(epoch, Ordering::Relaxed);
            let global = LoaderProgress::new(epoch, components.num_epochs);
            let mut total: Option<Tensor<B::InnerBackend, 1>> = None;
            let first = update;
            let mut batches = train.iter();
            while let Some(batch) = batches.next() {
                if self.stop.load(Ordering::Relaxed) || components.interrupter.should_stop() {
                    outcome.interrupted = true;
                    break 'training;
                }
                learner.lr_step();
                let rng = self.key.with("dropout", update).rng();
                let step = with_dropout_rng(rng, || self.compute(|| learner.train_step(batch)));
                learner.optimizer_step(step.grads);
                if let Some(average) = &mut average {
                    average.update(&learner.model());
                }
                let loss = step.item.0.clone();
                total = Some(match total {
                    Some(total) => total + loss,
                    None => loss,
                });
                update += 1;
                let item = TrainingItem::new(
                    step.item,
                    batches.progress(),
                    global.clone(),
                    Some(update),
                    Some(learner.lr_current()),
                );
                processor.process_train(LearnerEvent::ProcessedItem(item));
                (self.on_update)();
            }
            processor.process_train(LearnerEvent::EndEpoch(epoch));
            let train_loss = total.map_or(f64::NAN, |total| total.into_scalar().elem::<f64>())
                / (update - first).max(1) as f64;
            if !train_loss.is_finite() {
                outcome.diverged_at = Some(update);
                break;
            }
            let model = match &average {
                Some(average) => average.model(&learner.model()),
                None => learner.model(),
            };
            let held_out = model.valid();
            let mut tally = Tally::default();
            let mut batches = valid.iter();
            while let Some(batch) = batches.next() {
                let item = self.compute(|| held_out.step(batch));
                tally.add(&item);
                let item = TrainingItem::new(item, batches.progress(), global.clone(), None, None);
                processor.process_valid(LearnerEvent::ProcessedItem(item));
            }
            processor.process_valid(LearnerEvent::EndEpoch(epoch));
            let point = CurvePoint {
                epoch,
                update,
                train_loss,
                validation_loss: tally.mean_loss(),
                validation_f1: tally.f1(),
                learning_rate: learner.lr_current(),
                seconds: started.elapsed().as_secs_f64(),
            };
            tracing::info!(
                "{}: update {update}, loss {train_loss:.4}, held out {:.4}, F1 {:.4}",
                self.name,
                point.validation_loss,
                point.validation_f1
            );
            outcome.curve.push(point);
            let value = match self.criterion {
                Criterion::Loss => -tally.mean_loss(),
                Criterion::F1 => tally.f1(),
                Criterion::Last => epoch as f64,
            };
            if best.as_ref().is_none_or(|(highest, _)| value > *highest) {
                outcome.best_epoch = epoch;
                best = Some((value, model));
            }
        }
        *self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = outcome;
        let model = best.map_or_else(|| learner.model(), |(_, model)| model);
        (model, processor)
    }
}

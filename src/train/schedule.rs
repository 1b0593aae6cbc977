//! The learning rate over a training: linear warm-up, then decay to zero.

use burn::lr_scheduler::LrScheduler;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// The shape of the decay after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// No decay.
    Constant,
    /// A straight line to zero at the last update.
    #[default]
    Linear,
    /// Half a cosine to zero at the last update.
    Cosine,
}

/// The learning rate as a function of the update, one step an update.
#[derive(Clone, Debug)]
pub struct WarmupDecay {
    peak: f64,
    warmup: usize,
    updates: usize,
    decay: Decay,
    done: usize,
}

impl WarmupDecay {
    /// `warmup` is the fraction of the updates over which the rate rises from 0 to `peak`.
    pub fn new(peak: f64, warmup: f64, updates: usize, decay: Decay) -> Self {
        let warmup = (warmup * updates as f64).round() as usize;
        Self { peak, warmup, updates, decay, done: 0 }
    }

    fn at(&self, update: usize) -> f64 {
        if update < self.warmup {
            return self.peak * (update + 1) as f64 / self.warmup as f64;
        }
        let span = self.updates.saturating_sub(self.warmup).max(1);
        let gone = ((update - self.warmup) as f64 / span as f64).min(1.0);
        self.peak
            * match self.decay {
                Decay::Constant => 1.0,
                Decay::Linear => 1.0 - gone,
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * gone).cos()),
            }
    }
}

impl LrScheduler for WarmupDecay {
    type Record<B: Backend> = usize;

    fn step(&mut self) -> f64 {
        self.done += 1;
        self.at(self.done - 1)
    }

    fn to_record<B: Backend>(&self) -> usize {
        self.done
    }

    fn load_record<B: Backend>(mut self, record: usize) -> Self {
        self.done = record;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_zero() {
        for decay in [Decay::Linear, Decay::Cosine] {
            let mut rates = WarmupDecay::new(2.0, 0.1, 100, decay);
            let rates: Vec<f64> = (0..101).map(|_| rates.step()).collect();
            assert!((rates[0] - 0.2).abs() < 1e-12);
            assert!((rates[9] - 2.0).abs() < 1e-12);
            assert!((rates[10] - 2.0).abs() < 1e-12);
            assert!((rates[55] - 1.0).abs() < 1e-12);
            assert!(rates[100].abs() < 1e-12);
            assert!(rates[10..].windows(2).all(|pair| pair[1] <= pair[0]));
        }
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(WarmupDecay::new(1.0, 0.0, 10, Decay::Constant).step(), 1.0);
    }
}

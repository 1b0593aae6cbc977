//! Batches whose content is a function of the key and the update alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use rand::seq::SliceRandom;

use crate::keyed::Key;

/// Makes a batch from item indices; the key serves all that is drawn for this batch.
pub type Collate<I> = Arc<dyn Fn(&[usize], &Key) -> I + Send + Sync>;

/// An endless stream of item indices: one keyed permutation after the other.
#[derive(Clone)]
pub struct Order {
    key: Key,
    len: usize,
    lengths: Option<Arc<[usize]>>,
    /// The permutation that was dealt from last, with its number.
    current: Arc<Mutex<(usize, Arc<[usize]>)>>,
}

/// Batches whose items are put in the order of their lengths together, as in transformers'
/// `LengthGroupedSampler`.
const GROUPED: usize = 50;

impl Order {
    /// The order of `len` items under a key. With lengths, items of about the same length come into a
    /// batch together; which batch comes when stays random.
    pub fn new(key: Key, len: usize, lengths: Option<Arc<[usize]>>) -> Self {
        Self { key, len, lengths, current: Arc::new(Mutex::new((usize::MAX, Arc::new([])))) }
    }

    fn pass(&self, pass: usize, batch: usize) -> Arc<[usize]> {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if current.0 != pass {
            let mut rng = self.key.with("pass", pass).rng();
            let mut indices: Vec<usize> = (0..self.len).collect();
            indices.shuffle(&mut rng);
            if let Some(lengths) = &self.lengths {
                for group in indices.chunks_mut(GROUPED * batch) {
                    group.sort_by_key(|&index| lengths[index]);
                }
                // The first items complete the batch that the pass before began; the last ones begin
                // one that the next completes.
                let first = (batch - pass * self.len % batch) % batch;
                let (first, others) = indices.split_at(first.min(self.len));
                let mut batches: Vec<&[usize]> = others.chunks_exact(batch).collect();
                let last = others.chunks_exact(batch).remainder();
                batches.shuffle(&mut rng);
                indices = [first, &batches.concat(), last].concat();
            }
            *current = (pass, indices.into());
        }
        current.1.clone()
    }

    /// The indices of batch `update` when every batch holds `batch` items.
    pub fn batch(&self, update: usize, batch: usize) -> Vec<usize> {
        let mut indices = Vec::with_capacity(batch);
        let mut position = update * batch;
        while indices.len() < batch {
            let pass = self.pass(position / self.len, batch);
            let start = position % self.len;
            let take = (self.len - start).min(batch - indices.len());
            indices.extend_from_slice(&pass[start..start + take]);
            position += take;
        }
        indices
    }
}

/// The training batches of one burn-train epoch, which is a stretch of updates, not a pass.
pub struct TrainBatches<I> {
    order: Order,
    batch: usize,
    updates: usize,
    per_epoch: usize,
    /// The epoch to deal out, from 1; set by the learning strategy.
    epoch: Arc<AtomicUsize>,
    collate: Collate<I>,
}

impl<I> TrainBatches<I> {
    /// `updates` batches of `batch` items in all, `per_epoch` of them in an epoch.
    pub fn new(
        order: Order,
        batch: usize,
        updates: usize,
        per_epoch: usize,
        epoch: Arc<AtomicUsize>,
        collate: Collate<I>,
    ) -> Self {
        Self { order, batch, updates, per_epoch, epoch, collate }
    }
}

/// The held-out items, in their own order, under one fixed key.
pub struct ValidationBatches<I> {
    /// How many items there are.
    pub len: usize,
    /// Items a batch.
    pub batch: usize,
    /// The key of whatever a batch draws; the same at every evaluation.
    pub key: Key,
    /// Makes the batch.
    pub collate: Collate<I>,
}

struct Iter<'a, I> {
    next: usize,
    end: usize,
    make: Box<dyn Fn(usize) -> I + 'a>,
}

impl<I> Iterator for Iter<'_, I> {
    type Item = I;

    fn next(&mut self) -> Option<I> {
        (self.next < self.end).then(|| {
            self.next += 1;
            (self.make)(self.next - 1)
        })
    }
}

impl<I> DataLoaderIterator<I> for Iter<'_, I> {
    fn progress(&self) -> Progress {
        Progress::new(self.next, self.end)
    }
}

impl<B: Backend, I: Send + 'static> DataLoader<B, I> for TrainBatches<I> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        let start = (self.epoch.load(Ordering::Relaxed).max(1) - 1) * self.per_epoch;
        Box::new(Iter {
            next: start,
            end: (start + self.per_epoch).min(self.updates),
            make: Box::new(|update| {
                let indices = self.order.batch(update, self.batch);
                (self.collate)(&indices, &self.order.key.with("update", update))
            }),
        })
    }

    fn num_items(&self) -> usize {
        self.per_epoch
    }

    // Batches are made on the host and moved by the model, so a device changes nothing.
    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, I>> {
        Arc::new(Self {
            order: self.order.clone(),
            epoch: self.epoch.clone(),
            collate: self.collate.clone(),
            ..*self
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, I>> {
        Arc::new(Self {
            order: self.order.clone(),
            epoch: self.epoch.clone(),
            collate: self.collate.clone(),
            per_epoch: end.saturating_sub(start).min(self.per_epoch),
            ..*self
        })
    }
}

impl<B: Backend, I: Send + 'static> DataLoader<B, I> for ValidationBatches<I> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        Box::new(Iter {
            next: 0,
            end: self.len.div_ceil(self.batch),
            make: Box::new(|index| {
                let start = index * self.batch;
                let indices: Vec<usize> = (start..(start + self.batch).min(self.len)).collect();
                (self.collate)(&indices, &self.key.with("batch", index))
            }),
        })
    }

    fn num_items(&self) -> usize {
        self.len
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, I>> {
        let (key, collate) = (self.key.clone(), self.collate.clone());
        Arc::new(Self { key, collate, ..*self })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, I>> {
        let (key, collate) = (self.key.clone(), self.collate.clone());
        Arc::new(Self { key, collate, len: end.min(self.len).saturating_sub(start), ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_deals_each_item_once_and_passes_differ() {
        let order = Order::new(Key::new(1), 10, None);
        let dealt: Vec<usize> = (0..5).flat_map(|update| order.batch(update, 4)).collect();
        for pass in dealt.chunks(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(dealt[..10], dealt[10..]);
    }

    #[test]
    fn a_batch_larger_than_the_data_wraps() {
        let order = Order::new(Key::new(1), 3, None);
        assert_eq!(order.batch(0, 8).len(), 8);
    }

    #[test]
    fn with_lengths_a_pass_still_deals_each_item_once_and_batches_are_even() {
        let lengths: Vec<usize> = (0..1010).map(|item| item * 7919 % 60).collect();
        let order = Order::new(Key::new(1), 1010, Some(lengths.clone().into()));
        let batches: Vec<Vec<usize>> = (0..101).map(|update| order.batch(update, 20)).collect();
        let spread = |batch: &&Vec<usize>| {
            let lengths = batch.iter().map(|&item| lengths[item]);
            lengths.clone().max().unwrap() - lengths.min().unwrap()
        };
        // All but those that take items of two groups or of both passes.
        assert!(batches.iter().filter(|batch| spread(batch) > 4).count() <= 3);
        for pass in batches.concat().chunks(1010) {
            let mut dealt = pass.to_vec();
            assert!(!dealt.is_sorted_by_key(|&item| lengths[item]), "batches come in random order");
            dealt.sort_unstable();
            assert_eq!(dealt, (0..1010).collect::<Vec<_>>());
        }
    }
}

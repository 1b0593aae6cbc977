//! Batches whose content is a function of the key and the update alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use rand::seq::SliceRandom;

use crate::keyed::Key;

/// Makes a batch from item indices; the key serves all that is drawn for this batch.
pub type Collate<I> = Arc<dyn Fn(&[usize], &Key) -> I + Send + Sync>;

/// An endless stream of item indices, dealt in batches: one keyed permutation after the other.
#[derive(Clone)]
pub struct Order {
    key: Key,
    len: usize,
    batch: usize,
    lengths: Option<Arc<[usize]>>,
    /// The pass that was dealt from last: to draw it anew for every batch is work that grows with the
    /// data.
    last: Arc<Mutex<Option<Pass>>>,
}

#[derive(Clone)]
struct Pass {
    number: usize,
    indices: Arc<[usize]>,
}

/// Batches whose items are put in the order of their lengths together, as in transformers'
/// `LengthGroupedSampler`.
const GROUPED: usize = 50;

impl Order {
    /// The order of `len` items in batches of `batch` under a key. With lengths, items of about the same
    /// length come into a batch together; which batch comes when stays random.
    pub fn new(key: Key, len: usize, batch: usize, lengths: Option<Arc<[usize]>>) -> Self {
        Self { key, len, batch, lengths, last: Arc::default() }
    }

    /// The indices of batch `update`.
    pub fn batch(&self, update: usize) -> Vec<usize> {
        let mut indices = Vec::with_capacity(self.batch);
        let mut position = update * self.batch;
        while indices.len() < self.batch {
            let pass = self.pass(position / self.len);
            let start = position % self.len;
            let take = (self.len - start).min(self.batch - indices.len());
            indices.extend_from_slice(&pass.indices[start..start + take]);
            position += take;
        }
        indices
    }

    fn pass(&self, number: usize) -> Pass {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*last {
            Some(pass) if pass.number == number => pass.clone(),
            _ => last.insert(Pass { number, indices: self.draw(number).into() }).clone(),
        }
    }

    fn draw(&self, pass: usize) -> Vec<usize> {
        let mut rng = self.key.with("pass", pass).rng();
        let mut indices: Vec<usize> = (0..self.len).collect();
        indices.shuffle(&mut rng);
        let Some(lengths) = &self.lengths else { return indices };
        // The first items complete the batch that the pass before began; the last ones begin one that
        // the next completes.
        let first = (self.batch - pass * self.len % self.batch) % self.batch;
        let (first, others) = indices.split_at_mut(first.min(self.len));
        for group in others.chunks_mut(GROUPED * self.batch) {
            group.sort_by_key(|&index| lengths[index]);
        }
        let batches = others.chunks_exact(self.batch);
        let last = batches.remainder();
        let mut batches: Vec<&[usize]> = batches.collect();
        batches.shuffle(&mut rng);
        [&*first, &batches.concat(), last].concat()
    }
}

/// The training batches of one burn-train epoch, which is a stretch of updates, not a pass.
pub struct TrainBatches<I> {
    order: Order,
    updates: usize,
    per_epoch: usize,
    /// The epoch to deal out, from 1; set by the learning strategy.
    epoch: Arc<AtomicUsize>,
    collate: Collate<I>,
}

impl<I> TrainBatches<I> {
    /// `updates` batches in all, `per_epoch` of them in an epoch.
    pub fn new(
        order: Order,
        updates: usize,
        per_epoch: usize,
        epoch: Arc<AtomicUsize>,
        collate: Collate<I>,
    ) -> Self {
        Self { order, updates, per_epoch, epoch, collate }
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
                let indices = self.order.batch(update);
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
        let order = Order::new(Key::new(1), 10, 4, None);
        let dealt: Vec<usize> = (0..5).flat_map(|update| order.batch(update)).collect();
        for pass in dealt.chunks(10) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(dealt[..10], dealt[10..]);
        assert_eq!(order.batch(1), dealt[4..8], "an earlier batch is dealt again as it was");
    }

    #[test]
    fn a_batch_larger_than_the_data_wraps() {
        let order = Order::new(Key::new(1), 3, 8, None);
        assert_eq!(order.batch(0).len(), 8);
    }

    /// Two passes in batches of 20, items of lengths below 60.
    fn two_passes_by_length(len: usize) -> (Vec<usize>, Vec<Vec<usize>>) {
        let lengths: Vec<usize> = (0..len).map(|item| item * 7919 % 60).collect();
        let order = Order::new(Key::new(1), len, 20, Some(lengths.clone().into()));
        let batches = (0..2 * len / 20).map(|update| order.batch(update)).collect();
        (lengths, batches)
    }

    #[test]
    fn with_lengths_every_pass_still_deals_each_item_once() {
        // The second pass begins in the middle of a batch.
        let (_, batches) = two_passes_by_length(1010);
        for pass in batches.concat().chunks(1010) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..1010).collect::<Vec<_>>());
        }
    }

    #[test]
    fn with_lengths_a_batch_is_of_about_one_length_and_batches_come_in_any_order() {
        let (lengths, batches) = two_passes_by_length(1000);
        for batch in &batches {
            let lengths = batch.iter().map(|&item| lengths[item]);
            assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 4);
        }
        assert!(!batches[..50].is_sorted_by_key(|batch| lengths[batch[0]]));
    }
}

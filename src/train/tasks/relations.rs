//! Relation classification by the fusion classifier: students and teachers alike.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use mi2rage_models::fusion::{FusionClassifier, Presence, Sentences};
use rand::Rng;

use super::learner_steps;
use crate::data::published::Seen;
use crate::data::tokens::EncodedText;
use crate::keyed::Key;
use crate::tensors;
use crate::train::Tally;

/// The model in training.
#[derive(Module, Debug)]
pub struct RelationTask<B: Backend> {
    /// The classifier.
    pub model: FusionClassifier<B>,
}

/// A sentence, a picture or both, with the relation.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The sentence with its markers, unless it is missing or masked.
    pub text: Option<Arc<EncodedText>>,
    /// The picture, unless it is missing or masked.
    pub picture: Option<Arc<Seen>>,
    /// Index of the relation; 0 is `None`.
    pub label: usize,
    /// What frozen encoders say of the halves, where that has been computed.
    pub states: States,
}

/// The output of frozen encoders, for one pair.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// The states of the markers, `[2, text hidden]`, of the sentence as it is.
    pub markers: Option<Arc<[f32]>>,
    /// The states of the patches, `[patches + 1, vision hidden]`.
    pub patches: Option<Arc<[f32]>>,
}

impl Pair {
    /// A pair whose halves no encoder has seen.
    pub fn new(text: Option<Arc<EncodedText>>, picture: Option<Arc<Seen>>, label: usize) -> Self {
        Self { text, picture, label, states: States::default() }
    }

    /// The pair without its sentence.
    pub fn without_text(&self) -> Self {
        Self { text: None, ..self.clone() }
    }

    /// The pair without its picture.
    pub fn without_picture(&self) -> Self {
        Self { picture: None, ..self.clone() }
    }
}

/// Pairs side by side. Where a half is missing, its place holds padding that no one attends to.
#[derive(Clone, Debug)]
pub struct PairBatch {
    pairs: Vec<Pair>,
}

impl PairBatch {
    /// The pairs as they are.
    pub fn new(pairs: Vec<Pair>) -> Self {
        Self { pairs }
    }

    /// For training: of a pair that has both halves one is masked with the chance `masking`, either
    /// one alike.
    pub fn masked(pairs: impl IntoIterator<Item = Pair>, masking: f64, key: &Key) -> Self {
        let mut rng = key.with("modality masking", 0).rng();
        let mask = |pair: Pair| {
            let (hit, text) = (rng.random_bool(masking), rng.random_bool(0.5));
            match (hit && pair.text.is_some() && pair.picture.is_some(), text) {
                (false, _) => pair,
                (true, true) => pair.without_text(),
                (true, false) => pair.without_picture(),
            }
        };
        Self { pairs: pairs.into_iter().map(mask).collect() }
    }

    /// For training: each ordinary token is hidden behind `mask` with the chance `rate`. Ids below
    /// `first_ordinary` are special and stay.
    pub fn hide_tokens(mut self, rate: f64, (mask, first_ordinary): (u32, u32), key: &Key) -> Self {
        if rate == 0.0 {
            return self;
        }
        let mut rng = key.with("token dropout", 0).rng();
        for pair in &mut self.pairs {
            let Some(text) = &mut pair.text else { continue };
            pair.states.markers = None;
            let ids = text.ids.iter().map(|&id| {
                let hide = rng.random_bool(rate) && id >= first_ordinary;
                if hide { mask } else { id }
            });
            *text = Arc::new(EncodedText { ids: ids.collect(), ..EncodedText::clone(text) });
        }
        self
    }

    /// The sentences' tokens; `None` where no pair has one.
    pub fn sentences<B: Backend>(&self, device: &B::Device) -> Option<Sentences<B>> {
        let texts = || self.pairs.iter().map(|pair| pair.text.as_deref());
        let longest = texts().flatten().map(|text| text.ids.len()).max()?;
        // Few distinct lengths, so that an accelerator tunes its kernels for few shapes.
        let n = longest.next_multiple_of(4);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in texts() {
            // One visible token stands in where the sentence is missing: attention over nothing
            // would divide by zero. Its states are replaced before anything reads them.
            let shown = text.map_or(1, |text| text.ids.len());
            let end = ids.len() + n;
            ids.extend(text.iter().flat_map(|text| text.ids.iter().map(|&id| id as i32)));
            ids.resize(end, 0);
            mask.extend((0..n).map(|at| at < shown));
        }
        let marker = |of: fn(&EncodedText) -> usize| {
            tensors::indices(texts().map(|text| text.map_or(0, of)), device)
        };
        let rows = self.pairs.len();
        Some(Sentences {
            ids: tensors::ids(&ids, rows, device),
            mask: tensors::mask(&mask, rows, device),
            head: marker(|text| text.head_marker),
            tail: marker(|text| text.tail_marker),
        })
    }

    /// The pictures, `[pairs, 3, height, width]`, all of the first one's size; `None` where no pair has
    /// one.
    pub fn pictures<B: Backend>(&self, device: &B::Device) -> Option<Tensor<B, 4>> {
        let pictures = || self.pairs.iter().map(|pair| pair.picture.as_deref());
        let first = pictures().flatten().next()?;
        let blank = first.blank();
        let shape = [self.pairs.len(), 3, first.picture.height, first.picture.width];
        let values = pictures().flat_map(|seen| seen.unwrap_or(&blank).to_planar()).collect();
        Some(Tensor::from_data(TensorData::new::<f32, _>(values, shape), device))
    }

    /// States that are known of every pair that has this half, side by side, `[pairs, states,
    /// width]`; zeros where it is missing.
    fn states<'a, B: Backend>(
        &'a self,
        half: impl Fn(&'a Pair) -> Half<'a>,
        width: usize,
        device: &B::Device,
    ) -> Option<Tensor<B, 3>> {
        let known = |pair| match half(pair) {
            Half::Missing => Some(None),
            Half::Unseen => None,
            Half::Seen(states) => Some(Some(states)),
        };
        let rows: Vec<Option<&[f32]>> = self.pairs.iter().map(known).collect::<Option<_>>()?;
        let each = rows.iter().flatten().next()?.len();
        let mut values = Vec::with_capacity(rows.len() * each);
        for (end, row) in (1..).map(|count| count * each).zip(&rows) {
            values.extend_from_slice(row.unwrap_or_default());
            values.resize(end, 0.0);
        }
        let data = TensorData::new(values, [rows.len(), each / width, width]);
        Some(Tensor::from_data(data, device))
    }
}

/// One half of a pair to an encoder.
enum Half<'a> {
    Missing,
    /// It has no states yet.
    Unseen,
    Seen(&'a [f32]),
}

impl<'a> Half<'a> {
    fn sentence(pair: &'a Pair) -> Self {
        Self::new(pair.text.is_some(), &pair.states.markers)
    }

    fn picture(pair: &'a Pair) -> Self {
        Self::new(pair.picture.is_some(), &pair.states.patches)
    }

    fn new(is_there: bool, states: &'a Option<Arc<[f32]>>) -> Self {
        match (is_there, states) {
            (false, _) => Self::Missing,
            (true, None) => Self::Unseen,
            (true, Some(states)) => Self::Seen(states),
        }
    }
}

impl<B: Backend> RelationTask<B> {
    /// Logits `[pairs, labels]`.
    pub fn logits(&self, batch: &PairBatch) -> Tensor<B, 2> {
        let device = &self.devices()[0];
        let present = |values: Vec<bool>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        let presence = Presence {
            text: present(batch.pairs.iter().map(|pair| pair.text.is_some()).collect()),
            picture: present(batch.pairs.iter().map(|pair| pair.picture.is_some()).collect()),
        };
        let FusionClassifier { head, .. } = &self.model;
        let [_, text] = head.absent_text.dims();
        let [vision, _] = head.key.weight.dims();
        let markers = batch
            .states(Half::sentence, text, device)
            .or_else(|| Some(self.model.encode_text(&batch.sentences(device)?)));
        let patches = batch
            .states(Half::picture, vision, device)
            .or_else(|| Some(self.model.encode_pictures(batch.pictures(device)?)));
        head.forward(markers, patches, presence)
    }

    fn predict(&self, batch: &PairBatch) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let logits = self.logits(batch);
        let device = &logits.device();
        let labels = tensors::indices(batch.pairs.iter().map(|pair| pair.label), device);
        let losses = tensors::negative_log_likelihood(logits.clone(), labels);
        (logits, losses)
    }

    fn loss(&self, batch: &PairBatch) -> Tensor<B, 1> {
        self.predict(batch).1.mean()
    }

    fn tally(&self, batch: &PairBatch) -> Tally {
        let (logits, losses) = self.predict(batch);
        let mut tally = Tally {
            count: batch.pairs.len() as f64,
            loss: losses.sum().into_scalar().elem(),
            ..Tally::default()
        };
        for (pair, best) in batch.pairs.iter().zip(logits.argmax(1).into_data().iter::<i64>()) {
            tally.predicted += f64::from(best != 0);
            tally.actual += f64::from(pair.label != 0);
            tally.hits += f64::from(best != 0 && best == pair.label as i64);
        }
        tally
    }
}

learner_steps!(RelationTask, PairBatch);

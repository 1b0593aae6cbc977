//! What frozen encoders say of sentences and pictures, computed once for all trainings.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use blake3::{Hash, Hasher};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use mi2rage_models::fusion::FusionClassifier;

use crate::config::experiment::Encoder;
use crate::data::Picture;
use crate::data::tokens::EncodedText;
use crate::tensors;
use crate::train::tasks::relations::{Pair, PairBatch};

/// Pairs that are encoded at once.
const BATCH: usize = 64;
/// Batches are filled up to a multiple of this: a product of few rows may be computed in another way, and
/// an accelerator tunes its kernels for each shape.
const MULTIPLE: usize = 8;

/// The most bytes of states that are kept.
const ROOM: usize = 1 << 30;

/// States by the encoder's weights and what it was shown.
pub struct Features {
    kept: Mutex<Kept>,
    room: usize,
}

#[derive(Default)]
struct Kept {
    states: HashMap<Hash, State>,
    bytes: usize,
    /// How many seeds are over.
    seed: usize,
}

struct State {
    row: Arc<[f32]>,
    /// The last seed that asked for it.
    seed: usize,
}

impl Kept {
    fn get(&mut self, name: &Hash) -> Option<Arc<[f32]>> {
        let state = self.states.get_mut(name)?;
        state.seed = self.seed;
        Some(state.row.clone())
    }
}

impl Default for Features {
    fn default() -> Self {
        Self { kept: Mutex::default(), room: ROOM }
    }
}

/// The encoders of a classifier that stay as they are, by the hashes of their weights.
#[derive(Clone, Copy)]
pub struct Frozen {
    text: Option<Hash>,
    vision: Option<Hash>,
}

impl Frozen {
    /// These encoders of a classifier.
    pub fn new<B: Backend>(model: &FusionClassifier<B>, encoders: &[Encoder]) -> Self {
        Self {
            text: encoders.contains(&Encoder::Text).then(|| weights(&model.text)),
            vision: encoders.contains(&Encoder::Vision).then(|| weights(&model.vision)),
        }
    }
}

impl Features {
    /// Gives the pairs the states of the encoders that are `frozen`. Where those of all these pairs
    /// would take too much room they get none, and are encoded in every batch.
    ///
    /// What is computed does not depend on what else is: pictures stand side by side, and sentences
    /// with others of their padded length, so that every row is computed alike.
    pub fn attach<B: Backend>(
        &self,
        model: &FusionClassifier<B>,
        frozen: Frozen,
        pairs: &mut [Pair],
    ) {
        if let Some(encoder) = frozen.text {
            let encode = |shown: &[Pair]| {
                let sentences = PairBatch::new(shown.to_vec()).sentences(&device(model))?;
                Some(model.encode_text(&sentences))
            };
            let half = |pair: &Pair| {
                let text = pair.text.as_ref()?;
                let only = Pair::new(Some(text.clone()), None, 0);
                Some((hash_of_text(text), text.ids.len().next_multiple_of(4), only))
            };
            let states = self.states(encoder, pairs, half, encode);
            for (pair, states) in pairs.iter_mut().zip(states) {
                pair.states.markers = states;
            }
        }
        if let Some(encoder) = frozen.vision {
            let encode = |shown: &[Pair]| {
                let pictures = PairBatch::new(shown.to_vec()).pictures(&device(model))?;
                Some(model.encode_pictures(pictures))
            };
            let half = |pair: &Pair| {
                // The picture alone: all of an experiment's become numbers in one way.
                let picture = pair.picture.as_ref()?;
                Some((
                    hash_of_picture(&picture.picture),
                    0,
                    Pair::new(None, Some(picture.clone()), 0),
                ))
            };
            let states = self.states(encoder, pairs, half, encode);
            for (pair, states) in pairs.iter_mut().zip(states) {
                pair.states.patches = states;
            }
        }
    }

    /// The states of each pair's half, which `half` gives with its hash and a group: halves of a group
    /// are encoded together.
    fn states<B: Backend>(
        &self,
        encoder: Hash,
        pairs: &[Pair],
        half: impl Fn(&Pair) -> Option<(Hash, usize, Pair)>,
        encode: impl Fn(&[Pair]) -> Option<Tensor<B, 3>>,
    ) -> Vec<Option<Arc<[f32]>>> {
        let mut names = Vec::with_capacity(pairs.len());
        let mut unseen: BTreeMap<usize, Vec<(Hash, Pair)>> = BTreeMap::new();
        let mut found: HashMap<Hash, Option<Arc<[f32]>>> = HashMap::new();
        for pair in pairs {
            let Some((content, group, only)) = half(pair) else {
                names.push(None);
                continue;
            };
            let name = named(encoder, content);
            names.push(Some(name));
            found.entry(name).or_insert_with(|| {
                let states = self.kept().get(&name);
                if states.is_none() {
                    unseen.entry(group).or_default().push((name, only));
                }
                states
            });
        }
        let distinct = found.len();
        for batch in unseen.values().flat_map(|group| group.chunks(BATCH)) {
            let count = batch.len().next_multiple_of(MULTIPLE);
            let shown: Vec<Pair> =
                batch.iter().map(|(_, pair)| pair.clone()).cycle().take(count).collect();
            let Some(states) = encode(&shown) else { continue };
            let [_, count, width] = states.dims();
            if distinct * count * width * size_of::<f32>() > self.room {
                return vec![None; pairs.len()];
            }
            let rows = tensors::to_vec(states);
            for ((name, _), row) in batch.iter().zip(rows.chunks_exact(count * width)) {
                let row: Arc<[f32]> = row.into();
                self.keep(*name, &row);
                found.insert(*name, Some(row));
            }
        }
        names.into_iter().map(|name| found.get(&name?).cloned().flatten()).collect()
    }

    /// Keeps a row; where the room is full, in the place of all others: what comes now will be asked
    /// for again before what came then.
    fn keep(&self, name: Hash, row: &Arc<[f32]>) {
        let mut kept = self.kept();
        let bytes = size_of_val(&**row);
        if kept.bytes + bytes > self.room {
            *kept = Kept { seed: kept.seed, ..Kept::default() };
        }
        let state = State { row: row.clone(), seed: kept.seed };
        if kept.states.insert(name, state).is_none() {
            kept.bytes += bytes;
        }
    }

    /// After a seed: forgets what it did not ask for, which earlier ones generated. What is real it asked for,
    /// and the next one will.
    pub fn end_seed(&self) {
        let mut kept = self.kept();
        let seed = kept.seed;
        kept.states.retain(|_, state| state.seed == seed);
        kept.bytes = kept.states.values().map(|state| size_of_val(&*state.row)).sum();
        kept.seed += 1;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn device<B: Backend>(model: &FusionClassifier<B>) -> B::Device {
    model.head.absent_text.device()
}

fn named(encoder: Hash, content: Hash) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(encoder.as_bytes()).update(content.as_bytes());
    hasher.finalize()
}

fn hash_of_text(text: &EncodedText) -> Hash {
    let mut hasher = Hasher::new();
    for number in [text.head_marker, text.tail_marker] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    for id in &text.ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.finalize()
}

fn hash_of_picture(picture: &Picture) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(&(picture.width as u64).to_le_bytes()).update(&picture.rgb);
    hasher.finalize()
}

/// The hash of a module's weights.
fn weights<B: Backend, M: Module<B>>(module: &M) -> Hash {
    struct Weights(Hasher);
    impl<B: Backend> ModuleVisitor<B> for Weights {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let TensorData { bytes, .. } = param.val().into_data();
            self.0.update(&bytes);
        }
    }
    let mut weights = Weights(Hasher::new());
    module.visit(&mut weights);
    weights.0.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use mi2rage_models::bert::BertConfig;
    use mi2rage_models::fusion::FusionConfig;
    use mi2rage_models::vit::ViTConfig;

    use crate::data::published::Preprocessor;
    use crate::train::tasks::relations::RelationTask;

    fn model() -> FusionClassifier<Flex> {
        let text = BertConfig {
            vocab_size: 50,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 24,
            ..BertConfig::default()
        };
        let vision = ViTConfig {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 24,
            image_size: 16,
            patch_size: 8,
            ..ViTConfig::default()
        };
        let config = FusionConfig {
            text,
            vision,
            num_labels: 5,
            fusion_size: 16,
            fusion_heads: 2,
            ..FusionConfig::default()
        };
        // Through a record, for weights that are drawn and not still to be drawn.
        let device = Default::default();
        let record = config.init::<Flex>(&device).into_record();
        config.init(&device).load_record(record)
    }

    /// Halves in all ways, sentences of several lengths, the first picture and sentence twice.
    fn pairs() -> Vec<Pair> {
        let text = |at: usize| {
            let ids = (0..7 + at % 6).map(|i| ((i * 7 + at) % 50) as u32).collect();
            Arc::new(EncodedText { ids, head_marker: 1, tail_marker: 4, truncated: false })
        };
        let picture = |at: usize| {
            let rgb = (0..16 * 16 * 3).map(|i| (i * 31 + at * 57) as u8).collect();
            Arc::new(Preprocessor::square(16).see(&Picture { width: 16, height: 16, rgb }))
        };
        let pair = |at: usize| {
            let (with_text, with_picture) = (at % 4 != 1, at % 5 != 2);
            Pair::new(with_text.then(|| text(at)), with_picture.then(|| picture(at)), 0)
        };
        (0..70).map(pair).chain([pair(0)]).collect()
    }

    fn logits(model: &FusionClassifier<Flex>, pairs: &[Pair]) -> Vec<f32> {
        let task = RelationTask { model: model.clone() };
        tensors::to_vec(task.logits(&PairBatch::new(pairs.to_vec())))
    }

    #[test]
    fn pairs_with_states_are_answered_as_those_without() {
        let (model, plain) = (model(), pairs());
        for frozen in [&[Encoder::Text][..], &[Encoder::Vision], &[Encoder::Text, Encoder::Vision]]
        {
            let mut pairs = plain.clone();
            Features::default().attach(&model, Frozen::new(&model, frozen), &mut pairs);
            for pair in &pairs {
                let text = pair.text.is_some() && frozen.contains(&Encoder::Text);
                let picture = pair.picture.is_some() && frozen.contains(&Encoder::Vision);
                assert_eq!(pair.states.markers.is_some(), text);
                assert_eq!(pair.states.patches.is_some(), picture);
            }
            for (found, expected) in logits(&model, &pairs).iter().zip(logits(&model, &plain)) {
                assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            }
        }
    }

    #[test]
    fn states_are_the_same_whatever_else_is_encoded() {
        let model = model();
        let frozen = Frozen::new(&model, &[Encoder::Text, Encoder::Vision]);
        let mut together = pairs();
        Features::default().attach(&model, frozen, &mut together);
        for (at, expected) in together.iter().enumerate() {
            let mut alone = [pairs().swap_remove(at)];
            Features::default().attach(&model, frozen, &mut alone);
            assert_eq!(alone[0].states.markers, expected.states.markers, "sentence {at}");
            assert_eq!(alone[0].states.patches, expected.states.patches, "picture {at}");
        }
    }

    #[test]
    fn what_is_known_is_not_computed_again_unless_the_weights_are_others() {
        let model = model();
        let features = Features::default();
        let attached = |model: &FusionClassifier<Flex>| {
            let mut pairs = pairs();
            features.attach(model, Frozen::new(model, &[Encoder::Vision]), &mut pairs);
            pairs.remove(0).states.patches.unwrap()
        };
        let first = attached(&model);
        assert!(Arc::ptr_eq(&first, &attached(&model)));
        let other = attached(&super::tests::model());
        assert_ne!(first, other);
        assert!(Arc::ptr_eq(&first, &attached(&model)));
    }

    #[test]
    fn a_seed_leaves_what_it_has_asked_for() {
        let model = model();
        let features = Features::default();
        let asked = |range: std::ops::Range<usize>| {
            let mut pairs = pairs()[range].to_vec();
            features.attach(&model, Frozen::new(&model, &[Encoder::Text]), &mut pairs);
            pairs.into_iter().find_map(|pair| pair.states.markers).unwrap()
        };
        let real = asked(0..1);
        let generated = asked(2..4);
        features.end_seed();
        assert!(Arc::ptr_eq(&real, &asked(0..1)) && Arc::ptr_eq(&generated, &asked(2..4)));
        features.end_seed();
        assert!(Arc::ptr_eq(&real, &asked(0..1)));
        features.end_seed();
        assert!(Arc::ptr_eq(&real, &asked(0..1)));
        assert_eq!(features.kept().bytes, size_of_val(&*real));
        assert!(!Arc::ptr_eq(&generated, &asked(2..4)));
    }

    #[test]
    fn too_many_states_are_not_kept_and_new_ones_take_the_place_of_old_ones() {
        let model = model();
        let frozen = Frozen::new(&model, &[Encoder::Vision]);
        // Five states of 16 numbers each.
        let features = Features { kept: Mutex::default(), room: 2 * 5 * 16 * 4 };
        let attached = |range: std::ops::Range<usize>| {
            let mut pairs = pairs()[range].to_vec();
            features.attach(&model, frozen, &mut pairs);
            pairs
        };
        assert!(attached(0..7).iter().all(|pair| pair.states.patches.is_none()));
        for range in [0..2, 3..5, 5..7] {
            let pairs = attached(range);
            let expected = pairs.iter().filter(|pair| pair.picture.is_some()).count();
            let found = pairs.iter().filter(|pair| pair.states.patches.is_some()).count();
            assert_eq!(found, expected);
            assert!(features.kept().bytes <= features.room);
        }
    }
}

//! The fusion classifier as students and teachers use it: made, trained, asked.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::Backend;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::fusion::{FusionClassifier, FusionConfig};
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::vit::ViTConfig;

use super::features::Frozen;
use super::{Lab, published};
use crate::bundle::{BundleError, TEXT, VISION};
use crate::config::experiment::Encoder;
use crate::keyed::Key;
use crate::tensors;
use crate::train::tasks::relations::{Pair, PairBatch, RelationTask};
use crate::train::{self, Items, Recipe, TrainError, Trained};
use crate::world::forms::FORMS;

/// Heads of the cross-attention from the markers to the patches.
const FUSION_HEADS: usize = 4;

/// Pairs a batch where nothing is learnt.
const ASK_BATCH: usize = 64;

/// A classifier before its training.
pub struct Fresh<B: Backend> {
    /// Its sizes.
    pub config: FusionConfig,
    /// Its weights.
    pub model: FusionClassifier<Autodiff<B>>,
    /// The encoders that stay as they are.
    pub frozen: Frozen,
}

/// A fresh classifier over the pretrained encoders. Only its head is drawn, by the key. What is frozen
/// says the same of the same input each time: it has no dropout.
pub fn fresh<B: Backend>(
    lab: &Lab<'_>,
    labels: usize,
    key: &Key,
    device: &B::Device,
) -> Result<Fresh<B>, BundleError> {
    let checked = |result: Result<(), mi2rage_models::layers::ConfigError>| {
        result.map_err(|error| error.to_string())
    };
    let (mut text, bert) = match &lab.published.text {
        Some(folder) => {
            published::text_encoder::<Autodiff<B>>(folder, &lab.tokenizer, key, device)?
        }
        None => {
            let init = |config: &BertConfig| {
                checked(config.check())?;
                Ok(config.init_masked_lm(device))
            };
            let (config, model) = lab.encoders.model::<Autodiff<B>, _, _>(TEXT, device, init)?;
            (config, model.bert)
        }
    };
    let (longest, positions) = (lab.config.student.max_tokens, text.max_position_embeddings);
    // Batches are padded to a multiple of four.
    if longest.next_multiple_of(4) > positions {
        let what = format!(
            "{positions} positions, expected at least student.max_tokens = {longest}, rounded up to a \
             multiple of four"
        );
        return Err(BundleError::Unfit { origin: "the text encoder".to_owned(), what });
    }
    let (mut vision, vit) = match &lab.published.vision {
        Some(folder) => published::vision_encoder::<Autodiff<B>>(folder, device)?,
        None => {
            let init = |config: &ViTConfig| {
                checked(config.check())?;
                Ok(config.init_classifier(FORMS, device))
            };
            let (config, model) = lab.encoders.model::<Autodiff<B>, _, _>(VISION, device, init)?;
            (config, model.vit)
        }
    };
    let frozen = |encoder| lab.config.student.freeze.contains(&encoder);
    if frozen(Encoder::Text) {
        (text.hidden_dropout_prob, text.attention_probs_dropout_prob) = (0.0, 0.0);
    }
    if frozen(Encoder::Vision) {
        (vision.hidden_dropout_prob, vision.attention_probs_dropout_prob) = (0.0, 0.0);
    }
    let config = FusionConfig {
        fusion_size: text.hidden_size,
        fusion_heads: FUSION_HEADS,
        fusion_act: text.hidden_act,
        fusion_dropout: lab.config.student.dropout,
        num_labels: labels,
        text,
        vision,
    };
    let mut model = config.init::<Autodiff<B>>(device);
    model.head = reinitialise(model.head, Scheme::FanIn, &mut key.with("head", 0).rng());
    model.text = model.text.load_record(bert.into_record());
    model.vision = model.vision.load_record(vit.into_record());
    if frozen(Encoder::Text) {
        model.text = model.text.no_grad();
    }
    if frozen(Encoder::Vision) {
        model.vision = model.vision.no_grad();
    }
    let frozen = Frozen::new(&model.valid(), &lab.config.student.freeze);
    Ok(Fresh { config, model, frozen })
}

/// Trains a classifier; `masking` is the chance that a pair shows only one of its halves.
pub fn fit<B: Backend>(
    lab: &Lab<'_>,
    name: &str,
    Fresh { model, frozen, .. }: Fresh<B>,
    recipe: &Recipe,
    (mut pairs, mut held_out): (Vec<Pair>, Vec<Pair>),
    masking: f64,
    key: &Key,
) -> Result<Trained<FusionClassifier<B>>, TrainError> {
    let now = model.valid();
    for pairs in [&mut pairs, &mut held_out] {
        lab.features.attach(&now, frozen, pairs);
    }
    let (token_dropout, special) = (lab.config.student.token_dropout, lab.tokenizer.special().mask);
    let first_ordinary = lab.tokenizer.first_ordinary();
    let special = (special, first_ordinary);
    let length = |pair: &Pair| pair.text.as_ref().map_or(0, |text| text.ids.len());
    let grouped = lab.config.student.group_by_length;
    let items = Items {
        len: pairs.len(),
        lengths: grouped.then(|| pairs.iter().map(length).collect()),
        collate: Arc::new(move |at: &[usize], key: &Key| {
            let pairs = at.iter().map(|&at| pairs[at].clone());
            PairBatch::masked(pairs, masking, key).hide_tokens(token_dropout, special, key)
        }),
    };
    let held_out = Items {
        len: held_out.len(),
        lengths: None,
        collate: Arc::new(move |at: &[usize], _: &Key| {
            PairBatch::new(at.iter().map(|&at| held_out[at].clone()).collect())
        }),
    };
    let trained = train::train::<Autodiff<B>, _, _, _>(
        name,
        RelationTask { model },
        recipe,
        items,
        held_out,
        key,
        lab.context,
    )?;
    let Trained { model, curve, best_epoch } = trained;
    Ok(Trained { model: model.model, curve, best_epoch })
}

/// The logits of every pair, `[pairs][labels]`.
pub fn ask<B: Backend>(
    lab: &Lab<'_>,
    model: &FusionClassifier<B>,
    frozen: Frozen,
    mut pairs: Vec<Pair>,
) -> Vec<Vec<f32>> {
    lab.features.attach(model, frozen, &mut pairs);
    let task = RelationTask { model: model.clone() };
    let mut logits = Vec::with_capacity(pairs.len());
    for batch in pairs.chunks(ASK_BATCH) {
        let tensor = task.logits(&PairBatch::new(batch.to_vec()));
        let [_, labels] = tensor.dims();
        logits.extend(tensors::to_vec(tensor).chunks_exact(labels).map(<[f32]>::to_vec));
    }
    logits
}

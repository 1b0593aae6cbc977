//! The text encoder and the captioner.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::nn::LinearConfig;
use burn::tensor::backend::Backend;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::vit::{ViTConfig, ViTForImageClassification};

use super::{Part, TRANSFORMER, Trainer, Training};
use crate::data::tokens::{EncodedText, Tokenizer};
use crate::data::{Entity, Example};
use crate::keyed::Key;
use crate::pretrain::corpus::Captioned;
use crate::train::tasks::captions::{CaptionBatch, Captions};
use crate::train::tasks::masked_language::{self, MaskedLanguage, SceneOf, Sentence};
use crate::train::{self, Items};
use crate::world::forms::FORMS;

impl<B: Backend> Trainer<'_, B> {
    pub(super) fn text(&self) -> anyhow::Result<Training> {
        let part = &self.config.text;
        let tokenizer = self.read_tokenizer()?;
        let config = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.model.clone() };
        let model = config.init_masked_lm::<Autodiff<B>>(self.device);
        let scenes = LinearConfig::new(config.hidden_size, FORMS).init(self.device);
        let task = self.fresh(MaskedLanguage { model, scenes }, TRANSFORMER);
        let longest = config.max_position_embeddings;
        let sentences = |items: &[Captioned]| -> anyhow::Result<_> {
            let sentences = items
                .iter()
                .enumerate()
                .map(|(index, item)| scened(&tokenizer, item, index, longest))
                .collect::<anyhow::Result<_>>()?;
            Ok(masked_language::items(sentences, &tokenizer))
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "text encoder",
            task,
            &part.recipe,
            sentences(&self.corpus.train)?,
            sentences(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out masked accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a masked token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    pub(super) fn captioner(&self) -> anyhow::Result<Training> {
        let part = &self.config.captioner;
        let tokenizer = self.read_tokenizer()?;
        let text = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.text.clone() };
        let config = CaptionerConfig { vision: self.config.vision.model.clone(), text };
        let mut model = self.fresh(config.init::<Autodiff<B>>(self.device), TRANSFORMER);
        let (_, scenes) = self.earlier(Part::Vision, |config: &ViTConfig| {
            Ok(config.init_classifier::<B>(FORMS, self.device))
        })?;
        model.vision_model = ViTForImageClassification::from_inner(scenes).vit;
        let task = Captions { model, freeze_vision: part.freeze_vision };
        let longest = config.text.max_position_embeddings;
        let captions = |items: &[Captioned]| -> anyhow::Result<_> {
            let mut encoded = Vec::with_capacity(items.len());
            for item in items {
                let ids = tokenizer.encode_plain(&item.caption, longest)?;
                // The names stand in the prompt and are not learnt.
                let prompt = &item.caption[..item.names];
                let prompt = tokenizer.encode_plain(prompt, longest)?.len() - 1;
                encoded.push((item.picture.clone(), ids, prompt));
            }
            let pad = tokenizer.special().pad;
            Ok(Items {
                len: encoded.len(),
                collate: Arc::new(move |at: &[usize], _: &Key| {
                    CaptionBatch::new(at.iter().map(|&at| encoded[at].clone()).collect(), pad)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "captioner",
            task,
            &part.recipe,
            captions(&self.corpus.train)?,
            captions(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out token accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }
}

/// A caption for the text encoder. Where it names two entities they are marked as in posts. Every
/// second caption shows a bare letter for each of their tokens, as students may be shown them, and
/// two of four have the names last, for posts have them anywhere.
fn scened(
    tokenizer: &Tokenizer,
    item: &Captioned,
    index: usize,
    longest: usize,
) -> anyhow::Result<Sentence> {
    let (names, rest) = item.caption.split_at(item.names);
    let Some(and) = names.iter().position(|token| token == "and") else {
        let ids = tokenizer.encode_plain(&item.caption, longest)?;
        return Ok(Sentence { ids, scene: Some(SceneOf { readout: [0, 0], scene: item.form }) });
    };
    let names_first = index % 4 < 2;
    let start = if names_first { 0 } else { rest.len() };
    let tokens = if names_first { [names, rest] } else { [rest, names] }.concat();
    let entity =
        |span: std::ops::Range<usize>| Entity { name: tokens[span.clone()].join(" "), span };
    let (head, tail) =
        (entity(start..start + and), entity(start + and + 1..start + item.names - 1));
    let id = String::new();
    let mut example = Example { id, tokens, head, tail, label: 0, picture: None, truth: None };
    if index.is_multiple_of(2) {
        example = example.with_masked_entities();
    }
    let EncodedText { ids, head_marker, tail_marker, .. } =
        tokenizer.encode_example(&example, longest)?;
    let scene = SceneOf { readout: [head_marker, tail_marker], scene: item.form };
    Ok(Sentence { ids, scene: Some(scene) })
}

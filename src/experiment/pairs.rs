//! From samples to what a classifier trains on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;

use super::Lab;
use super::dataset::Dataset;
use crate::chain::plan::{self, pairs};
use crate::chain::{ChainConfig, Half, PairId, Payload, SampleKey, Store};
use crate::data::published::Seen;
use crate::data::tokens::{EncodedText, Tokenizer};
use crate::data::{Entity, Example};
use crate::generators::without_entities;
use crate::select::Part;
use crate::train::tasks::relations::Pair;

/// A pair with its identity; `generated` names the half that a generator made.
#[derive(Clone)]
pub struct NamedPair {
    /// The identity.
    pub id: PairId,
    /// What is trained on.
    pub pair: Pair,
    /// The sample of the missing modality.
    pub generated: SampleKey,
    /// The sentence's words without its entities.
    pub words: Arc<[String]>,
}

/// A sentence as the classifier reads it, and its words without the entities.
type Text = (Arc<EncodedText>, Arc<[String]>);

/// Encodes sentences and loads pictures, each once.
pub struct Assembler<'a> {
    lab: &'a Lab<'a>,
    store: &'a Store,
}

impl<'a> Assembler<'a> {
    /// Reads from a seed's store.
    pub fn new(lab: &'a Lab<'a>, store: &'a Store) -> Self {
        Self { lab, store }
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.lab.tokenizer
    }

    fn real_text(&self, example: &Example) -> anyhow::Result<Arc<EncodedText>> {
        let config = &self.lab.config.student;
        let tokenizer = self.tokenizer();
        Ok(Arc::new(if config.mask_entities {
            tokenizer.encode_example(&example.with_masked_entities(), config.max_tokens)?
        } else {
            tokenizer.encode_example(example, config.max_tokens)?
        }))
    }

    fn picture(&self, key: &SampleKey) -> anyhow::Result<Arc<Seen>> {
        match self.store.read(key)?.payload {
            Payload::Picture(picture) => Ok(Arc::new(self.lab.preprocessor.see(&picture))),
            Payload::Caption(_) => bail!("{key}: expected a picture"),
        }
    }

    fn real_picture(&self, example: &Example) -> anyhow::Result<Arc<Seen>> {
        let Some(source) = &example.picture else {
            bail!("example {} has no picture", example.id);
        };
        Ok(Arc::new(self.lab.preprocessor.see_source(source)?))
    }

    /// The item with a generated sentence in the place of its own.
    fn captioned(&self, item: &Example, key: &SampleKey) -> anyhow::Result<Example> {
        match self.store.read(key)?.payload {
            Payload::Caption(caption) => {
                let entity = |entity: &Entity, span| Entity { name: entity.name.clone(), span };
                Ok(Example {
                    head: entity(&item.head, caption.head),
                    tail: entity(&item.tail, caption.tail),
                    tokens: caption.tokens,
                    ..item.clone()
                })
            }
            Payload::Picture(_) => bail!("{key}: expected a sentence"),
        }
    }

    /// Every training pair of a chain's configuration.
    pub fn chains(&self, items: &[Example], chain: &ChainConfig) -> anyhow::Result<Vec<NamedPair>> {
        let setting = self.lab.config.setting;
        let mut named = Vec::new();
        for item in items {
            let mut texts: BTreeMap<Option<SampleKey>, Text> = BTreeMap::new();
            let mut pictures: BTreeMap<Option<SampleKey>, Arc<Seen>> = BTreeMap::new();
            for plan::TrainingPair { id, text, picture } in pairs(&item.id, setting, chain) {
                let generated = match (&text, &picture) {
                    (Half::Generated(key), _) if key.modality == setting.missing() => key.clone(),
                    (_, Half::Generated(key)) => key.clone(),
                    _ => bail!("{id}: neither half is generated"),
                };
                let key = |half: Half| match half {
                    Half::Real => None,
                    Half::Generated(key) => Some(key),
                };
                let (text, picture) = (key(text), key(picture));
                if !texts.contains_key(&text) {
                    let captioned =
                        text.as_ref().map(|key| self.captioned(item, key)).transpose()?;
                    let shown = captioned.as_ref().unwrap_or(item);
                    let spans = [&shown.head.span, &shown.tail.span];
                    let words = without_entities(&shown.tokens, spans).into();
                    texts.insert(text.clone(), (self.real_text(shown)?, words));
                }
                let (encoded, words) = texts[&text].clone();
                if !pictures.contains_key(&picture) {
                    let pixels = match &picture {
                        None => self.real_picture(item)?,
                        Some(key) => self.picture(key)?,
                    };
                    pictures.insert(picture.clone(), pixels);
                }
                let pair = Pair::new(Some(encoded), pictures.get(&picture).cloned(), item.label);
                named.push(NamedPair { id, pair, generated, words });
            }
        }
        Ok(named)
    }

    /// Real sentences with real pictures.
    pub fn real(&self, items: &[Example]) -> anyhow::Result<Vec<Pair>> {
        items
            .iter()
            .map(|item| {
                let picture = self.real_picture(item)?;
                Ok(Pair::new(Some(self.real_text(item)?), Some(picture), item.label))
            })
            .collect()
    }

    /// Real sentences alone.
    pub fn texts(&self, items: &[Example]) -> anyhow::Result<Vec<Pair>> {
        items
            .iter()
            .map(|item| Ok(Pair::new(Some(self.real_text(item)?), None, item.label)))
            .collect()
    }

    /// Real pictures alone.
    pub fn pictures(&self, items: &[Example]) -> anyhow::Result<Vec<Pair>> {
        items
            .iter()
            .map(|item| {
                let picture = Some(self.real_picture(item)?);
                Ok(Pair::new(None, picture, item.label))
            })
            .collect()
    }

    /// What the models are tested on: real pairs, or sentences with generated pictures where there
    /// are no real ones.
    pub fn test(&self, dataset: &Dataset) -> anyhow::Result<Vec<Pair>> {
        if dataset.tested_on_real_pictures {
            return self.real(&dataset.test);
        }
        let one = self.lab.config.chain.direct();
        let one = ChainConfig { chains: std::num::NonZeroUsize::MIN, ..one };
        Ok(self.chains(&dataset.test, &one)?.into_iter().map(|named| named.pair).collect())
    }
}

/// The pair as the selection leaves it.
pub fn keep(pair: &Pair, part: Part, missing: crate::chain::Modality) -> Option<Pair> {
    match (part, missing) {
        (Part::Pair, _) => Some(pair.clone()),
        (Part::RealHalf, crate::chain::Modality::Picture) => Some(pair.without_picture()),
        (Part::RealHalf, crate::chain::Modality::Text) => Some(pair.without_text()),
        (Part::Nothing, _) => None,
    }
}

//! Runs the chains: round by round over all items, each sample stored before the next is made
//! from it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use super::generator::{
    Caption, GeneratorError, ImageToText, PicturePrompt, TextPrompt, TextToImage,
};
use super::plan::{ChainConfig, Modality, SampleKey, Setting};
use super::store::{Payload, Sample, Store, StoreError};
use crate::data::{Entity, Example, Picture};

/// A chain that stopped before its end.
#[derive(Debug, Error)]
pub enum RunError {
    /// The interrupt flag was set; what was generated is in the store.
    #[error(
        "interrupted after {done} of the {total} samples of this part; the same command goes on from there"
    )]
    Interrupted {
        /// Samples in the store.
        done: usize,
        /// Samples that there will be.
        total: usize,
    },
    /// Two items share an id, and so would share their samples.
    #[error("two items have the id {id:?}")]
    DuplicateItem {
        /// The id.
        id: String,
    },
    /// The real picture of an item could not be loaded.
    #[error("the picture of item {item}: {source}")]
    RealPicture {
        /// The item's id.
        item: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A generator failed.
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    /// A generator broke its contract.
    #[error("the generator of the {sample} {what}")]
    Contract {
        /// The first sample concerned.
        sample: SampleKey,
        /// What it did.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Samples in the store.
    pub done: usize,
    /// Of those, how many were there before the run; a rate leaves them out.
    pub held: usize,
    /// Samples that there will be.
    pub total: usize,
    /// The round that is being generated.
    pub round: usize,
    /// The modality that is being generated.
    pub modality: Modality,
}

/// Loads the real picture of an example.
pub type LoadPicture<'a> =
    dyn Fn(&Example) -> Result<Arc<Picture>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Everything that a run of the chains needs besides its items.
pub struct Run<'a> {
    /// Which modality is missing.
    pub setting: Setting,
    /// Rounds, chains and pairing.
    pub config: &'a ChainConfig,
    /// The experiment's seed, from which all noise is keyed.
    pub seed: u64,
    /// G.
    pub text_to_image: &'a dyn TextToImage,
    /// C.
    pub image_to_text: &'a dyn ImageToText,
    /// Called when text is missing, and then alone.
    pub load_picture: &'a LoadPicture<'a>,
    /// The size of every batch; the last one of a step is filled up with its own first prompt.
    pub batch: NonZeroUsize,
    /// Looked at before each batch.
    pub interrupt: &'a AtomicBool,
}

impl Run<'_> {
    /// Generates every sample of the items that the store does not hold, and calls `progress`
    /// after each batch.
    ///
    /// Where text is missing, an item's sentence is never looked at, only its entities' names.
    /// The samples are functions of seed and item: batch size, the items' order, which other items
    /// there are, what the store held and interruptions change none of them.
    ///
    /// # Errors
    /// If interrupted, or if a generator or the store fails; finished batches stay in the store.
    pub fn generate(
        &self,
        items: &[Example],
        store: &mut Store,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), RunError> {
        let mut ids = BTreeSet::new();
        if let Some(twice) = items.iter().find(|item| !ids.insert(&item.id)) {
            return Err(RunError::DuplicateItem { id: twice.id.clone() });
        }
        let steps = self.config.steps(self.setting);
        let missing: Vec<Vec<_>> = steps
            .iter()
            .map(|&(round, modality)| self.missing(items, store, round, modality))
            .collect();
        let total = items.len() * self.config.chains.get() * steps.len();
        let held = total - missing.iter().map(Vec::len).sum::<usize>();
        let mut done = held;
        for ((round, modality), missing) in steps.into_iter().zip(missing) {
            for batch in missing.chunks(self.batch.get()) {
                if self.interrupt.load(Ordering::Relaxed) {
                    return Err(RunError::Interrupted { done, total });
                }
                let samples = match modality {
                    Modality::Picture => self.draw(batch, store)?,
                    Modality::Text => self.caption(batch, store)?,
                };
                store.append(&samples)?;
                done += samples.len();
                progress(Progress { done, held, total, round, modality });
            }
        }
        Ok(())
    }

    /// The samples of a step that are still to be made, grouped by item.
    fn missing<'e>(
        &self,
        items: &'e [Example],
        store: &Store,
        round: usize,
        modality: Modality,
    ) -> Vec<(&'e Example, SampleKey)> {
        items
            .iter()
            .flat_map(|item| (0..self.config.chains.get()).map(move |chain| (item, chain)))
            .map(|(item, chain)| {
                let key = SampleKey { item: item.id.clone(), chain, round, modality };
                (item, key)
            })
            .filter(|(_, key)| !store.contains(key))
            .collect()
    }

    fn draw(
        &self,
        batch: &[(&Example, SampleKey)],
        store: &Store,
    ) -> Result<Vec<Sample>, RunError> {
        let prompts = batch
            .iter()
            .map(|(item, key)| self.text_prompt(item, key, store))
            .collect::<Result<Vec<_>, _>>()?;
        let pictures = self.text_to_image.draw(&self.filled_up(prompts))?;
        self.samples(batch, pictures, &self.text_to_image.fingerprint(), |_, picture| {
            Ok(Payload::Picture(picture))
        })
    }

    fn caption(
        &self,
        batch: &[(&Example, SampleKey)],
        store: &Store,
    ) -> Result<Vec<Sample>, RunError> {
        let prompts = batch
            .iter()
            .map(|(item, key)| self.picture_prompt(item, key, store))
            .collect::<Result<Vec<_>, _>>()?;
        let captions = self.image_to_text.caption(&self.filled_up(prompts))?;
        self.samples(batch, captions, &self.image_to_text.fingerprint(), |sample, caption| {
            check_spans(sample, &caption)?;
            Ok(Payload::Caption(caption))
        })
    }

    fn text_prompt(
        &self,
        item: &Example,
        sample: &SampleKey,
        store: &Store,
    ) -> Result<TextPrompt, RunError> {
        let (tokens, head, tail) = match sample.parent(self.setting) {
            None => (item.tokens.clone(), item.head.clone(), item.tail.clone()),
            Some(parent) => match store.read(&parent)?.payload {
                Payload::Caption(caption) => (
                    caption.tokens,
                    Entity { name: item.head.name.clone(), span: caption.head },
                    Entity { name: item.tail.name.clone(), span: caption.tail },
                ),
                Payload::Picture(_) => return Err(wrong_parent(parent)),
            },
        };
        Ok(TextPrompt { sample: sample.clone(), key: sample.noise(self.seed), tokens, head, tail })
    }

    fn picture_prompt(
        &self,
        item: &Example,
        sample: &SampleKey,
        store: &Store,
    ) -> Result<PicturePrompt, RunError> {
        let picture = match sample.parent(self.setting) {
            None => (self.load_picture)(item)
                .map_err(|source| RunError::RealPicture { item: item.id.clone(), source })?,
            Some(parent) => match store.read(&parent)?.payload {
                Payload::Picture(picture) => Arc::new(picture),
                Payload::Caption(_) => return Err(wrong_parent(parent)),
            },
        };
        Ok(PicturePrompt {
            sample: sample.clone(),
            key: sample.noise(self.seed),
            picture,
            head: item.head.name.clone(),
            tail: item.tail.name.clone(),
        })
    }

    fn filled_up<T: Clone>(&self, mut prompts: Vec<T>) -> Vec<T> {
        if let Some(first) = prompts.first().cloned() {
            prompts.resize(self.batch.get(), first);
        }
        prompts
    }

    fn samples<T>(
        &self,
        batch: &[(&Example, SampleKey)],
        results: Vec<T>,
        generator: &str,
        payload: impl Fn(&SampleKey, T) -> Result<Payload, RunError>,
    ) -> Result<Vec<Sample>, RunError> {
        if results.len() != self.batch.get() {
            return Err(RunError::Contract {
                sample: batch[0].1.clone(),
                what: format!("returned {} results for {} prompts", results.len(), self.batch),
            });
        }
        // The results of the filling stand behind those of the batch; zip leaves them out.
        batch
            .iter()
            .zip(results)
            .map(|((_, key), result)| {
                Ok(Sample {
                    key: key.clone(),
                    generator: generator.to_owned(),
                    parent: key.parent(self.setting),
                    payload: payload(key, result)?,
                })
            })
            .collect()
    }
}

fn check_spans(sample: &SampleKey, caption: &Caption) -> Result<(), RunError> {
    for span in [&caption.head, &caption.tail] {
        if span.is_empty() || span.end > caption.tokens.len() {
            return Err(RunError::Contract {
                sample: sample.clone(),
                what: format!("put an entity at {span:?} of {} tokens", caption.tokens.len()),
            });
        }
    }
    Ok(())
}

fn wrong_parent(sample: SampleKey) -> RunError {
    let what = "does not hold what its key says".to_owned();
    RunError::Store(StoreError::Payload { sample, what })
}

#[cfg(test)]
mod tests;

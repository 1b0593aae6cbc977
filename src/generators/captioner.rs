//! The captioner as a generator of sentences.

use burn::tensor::backend::Backend;
use mi2rage_models::captioner::{Captioner, CaptionerConfig};
use mi2rage_models::decoding::{Decoding, DecodingError, Request, Strategy};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::{Bundle, BundleError, CAPTIONER, TOKENIZER};
use crate::chain::{Caption, GeneratorError, ImageToText, PicturePrompt};
use crate::data::tokens::Tokenizer;
use crate::data::{DataError, Picture};
use crate::experiment::folder::fingerprint;
use crate::keyed::Key;
use crate::tensors;

/// How captions are decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionOptions {
    /// Nucleus sampling keeps this probability mass; 0 is greedy decoding.
    pub top_p: f64,
    /// The temperature of nucleus sampling.
    pub temperature: f64,
    /// The most tokens, the prompt's included.
    pub max_tokens: usize,
}

/// A caption that could not be written.
#[derive(Debug, Error)]
pub enum CaptionError {
    /// The decoder refused.
    #[error(transparent)]
    Decoding(#[from] DecodingError),
    /// The tokenizer is unusable.
    #[error(transparent)]
    Tokenizer(#[from] DataError),
}

/// Captioner and tokenizer.
pub struct CaptionWriter<B: Backend> {
    model: Captioner<B>,
    tokenizer: Tokenizer,
    options: CaptionOptions,
    decoding: Decoding,
    capacity: usize,
    fingerprint: String,
    device: B::Device,
}

impl<B: Backend> CaptionWriter<B> {
    /// Loads the model.
    ///
    /// # Errors
    ///
    /// A file of the bundle is unusable.
    pub fn load(
        bundle: &Bundle,
        options: CaptionOptions,
        device: &B::Device,
    ) -> Result<Self, BundleError> {
        let (config, model) =
            bundle.model::<B, CaptionerConfig, _>(CAPTIONER, device, |config| {
                config.check().map_err(|error| error.to_string())?;
                Ok(config.init(device))
            })?;
        let tokenizer = bundle.tokenizer()?;
        let special = *tokenizer.special();
        let never = [special.pad, special.unknown, special.start, special.mask];
        let never = never.into_iter().chain(special.head).chain(special.tail).collect();
        let strategy = if options.top_p == 0.0 {
            Strategy::Greedy
        } else {
            Strategy::Nucleus { top_p: options.top_p, temperature: options.temperature }
        };
        Ok(Self {
            model,
            decoding: Decoding {
                strategy,
                min_new_tokens: 2,
                max_new_tokens: 0, // set for each batch by the room its prompts leave
                end: special.end,
                never,
                continuations: Vec::new(),
            },
            capacity: options.max_tokens.min(config.text.max_position_embeddings),
            fingerprint: fingerprint(&(
                &options,
                [CAPTIONER, TOKENIZER].map(|file| bundle.hash(file)),
            )),
            tokenizer,
            options,
            device: device.clone(),
        })
    }

    /// A caption for each picture, after the given first words (which may be empty). Pictures have
    /// one size.
    ///
    /// # Errors
    ///
    /// The tokenizer is unusable.
    pub fn write(
        &self,
        pictures: &[(&Picture, Vec<String>, Key)],
    ) -> Result<Vec<Vec<String>>, CaptionError> {
        let Some((first, ..)) = pictures.first() else { return Ok(Vec::new()) };
        let size = first.width;
        // At least half of the room is the caption's own.
        let room = self.capacity / 2;
        let mut requests = Vec::with_capacity(pictures.len());
        for (_, words, _) in pictures {
            let mut prompt = self.tokenizer.encode_plain(words, usize::MAX)?;
            prompt.pop(); // the end token
            prompt.truncate(room);
            requests.push(Request { prompt, phrases: Vec::new() });
        }
        // The same for every batch, so that a caption does not depend on its neighbours' prompts.
        let decoding = Decoding { max_new_tokens: self.capacity - room, ..self.decoding.clone() };
        let mut rngs: Vec<_> =
            pictures.iter().map(|(.., key)| key.with("decoding", 0).rng()).collect();
        let tensor =
            tensors::pictures(pictures.iter().map(|(picture, ..)| *picture), size, &self.device);
        let decoded = self.model.generate(tensor, &requests, &decoding, &mut rngs)?;
        Ok(decoded.into_iter().map(|caption| self.tokenizer.decode(&caption.tokens)).collect())
    }

    /// The options in force.
    pub fn options(&self) -> &CaptionOptions {
        &self.options
    }
}

impl<B: Backend> ImageToText for CaptionWriter<B> {
    fn caption(&self, prompts: &[PicturePrompt]) -> Result<Vec<Caption>, GeneratorError> {
        let names =
            |name: &str| -> Vec<String> { name.split_whitespace().map(str::to_owned).collect() };
        let starts: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let (head, tail) = (names(&prompt.head), names(&prompt.tail));
                let mut tokens = head.clone();
                tokens.push("and".to_owned());
                let tail_start = tokens.len();
                tokens.extend(tail);
                let tail = tail_start..tokens.len();
                tokens.push(":".to_owned());
                (tokens, 0..head.len(), tail)
            })
            .collect();
        let pictures: Vec<_> = prompts
            .iter()
            .zip(&starts)
            .map(|(prompt, (tokens, ..))| {
                (prompt.picture.as_ref(), tokens.clone(), prompt.key.clone())
            })
            .collect();
        let captions = self.write(&pictures).map_err(|source| GeneratorError::Model {
            generator: "captioner".to_owned(),
            source: Box::new(source),
        })?;
        Ok(starts
            .into_iter()
            .zip(captions)
            .map(|((mut tokens, head, tail), caption)| {
                tokens.extend(caption);
                Caption { tokens, head, tail }
            })
            .collect())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

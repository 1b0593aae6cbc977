//! The captioner as a generator of sentences: the bundled one, or a published BLIP.

use std::path::Path;

use burn::tensor::backend::Backend;
use mi2rage_models::captioner::{Captioner, CaptionerConfig};
use mi2rage_models::decoding::{Decoding, DecodingError, Request, Strategy};
use mi2rage_models::precision::Precision;
use mi2rage_models::published::blip;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::bundle::{Bundle, BundleError, CAPTIONER, TOKENIZER};
use crate::chain::{Caption, GeneratorError, ImageToText, PicturePrompt};
use crate::data::published::{Preprocessor, PublishedTokenizer};
use crate::data::tokens::Tokenizer;
use crate::data::words::words;
use crate::data::{DataError, Picture};
use crate::experiment::folder::fingerprint;
use crate::keyed::Key;
use crate::tensors;

/// How captions are decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionOptions {
    /// Nucleus sampling keeps this probability mass; 0 is greedy decoding, or beam search.
    pub top_p: f64,
    /// Prefixes that beam search keeps; 1 is none. Not with nucleus sampling.
    pub beams: usize,
    /// The temperature of nucleus sampling.
    pub temperature: f64,
    /// The most tokens, the prompt's included.
    pub max_tokens: usize,
}

/// What turns words into the captioner's ids and back, and pictures into its pixels.
enum Reader {
    Bundled(Box<Tokenizer>),
    Blip { tokenizer: Box<PublishedTokenizer>, preprocessor: Preprocessor, start: u32 },
}

impl Reader {
    /// The ids that a caption begins with.
    fn prompt(&self, words: &[String]) -> Result<Vec<u32>, DataError> {
        match self {
            Self::Bundled(tokenizer) => {
                let mut prompt = tokenizer.encode_plain(words, usize::MAX)?;
                prompt.pop(); // the end token
                Ok(prompt)
            }
            Self::Blip { tokenizer, start, .. } => {
                let pieces = tokenizer.pieces(&words.join(" "))?;
                Ok([*start].into_iter().chain(pieces).collect())
            }
        }
    }

    fn words(&self, ids: &[u32]) -> Result<Vec<String>, DataError> {
        match self {
            Self::Bundled(tokenizer) => Ok(tokenizer.decode(ids)),
            Self::Blip { tokenizer, .. } => Ok(words(&tokenizer.decode(ids)?)),
        }
    }

    fn text(&self, ids: &[u32]) -> Result<String, DataError> {
        match self {
            Self::Bundled(tokenizer) => Ok(tokenizer.decode(ids).join(" ")),
            Self::Blip { tokenizer, .. } => tokenizer.decode(ids),
        }
    }
}

/// Captioner and tokenizer.
pub struct CaptionWriter<B: Backend> {
    model: Captioner<B>,
    reader: Reader,
    options: CaptionOptions,
    decoding: Decoding,
    capacity: usize,
    origin: Origin,
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
        precision: Precision,
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
        Ok(Self {
            model: precision.convert(model),
            decoding: Decoding {
                strategy: strategy(&options),
                min_new_tokens: 2,
                max_new_tokens: 0, // set for each batch by the room its prompts leave
                end: special.end,
                never,
                continuations: Vec::new(),
            },
            capacity: options.max_tokens.min(config.text.max_position_embeddings),
            fingerprint: fingerprint(&(
                &options,
                precision,
                [CAPTIONER, TOKENIZER].map(|file| bundle.hash(file)),
            )),
            origin: Origin::bundle(bundle, precision),
            reader: Reader::Bundled(Box::new(tokenizer)),
            options,
            device: device.clone(),
        })
    }

    /// Loads a published BLIP; `hash` is that of its folder
    /// ([`published::hash`](super::published::hash)).
    ///
    /// # Errors
    ///
    /// A file of the folder is unusable.
    pub fn load_published(
        folder: &Path,
        hash: &str,
        options: CaptionOptions,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self, BundleError> {
        let tokenizer = Box::new(PublishedTokenizer::load(folder)?);
        let (config, model) = blip::load_captioner(folder, precision, device)?;
        tokenizer.check_fits(config.model.text.vocab_size)?;
        let preprocessor = Preprocessor::load_for(folder, config.model.vision.patch_size)?;
        Ok(Self {
            model,
            decoding: Decoding {
                strategy: strategy(&options),
                min_new_tokens: 0,
                max_new_tokens: 0, // set for each batch by the room its prompts leave
                end: config.sep_token_id,
                never: Vec::new(),
                continuations: Vec::new(),
            },
            capacity: options.max_tokens.min(config.model.text.max_position_embeddings),
            fingerprint: fingerprint(&(&options, precision, hash)),
            origin: Origin::published(folder, precision),
            reader: Reader::Blip { tokenizer, preprocessor, start: config.bos_token_id },
            options,
            device: device.clone(),
        })
    }

    /// The words of a caption for each picture, after the given first words (which may be empty). The
    /// bundled model takes pictures of one size.
    ///
    /// # Errors
    ///
    /// The tokenizer is unusable; something that is no number comes out.
    pub fn write(
        &self,
        pictures: &[(&Picture, Vec<String>, Key)],
    ) -> Result<Vec<Vec<String>>, BundleError> {
        let captions = self.decode(pictures)?;
        captions.iter().map(|ids| Ok(self.reader.words(ids)?)).collect()
    }

    /// A caption for each picture, as the tokenizer writes it.
    ///
    /// # Errors
    ///
    /// The tokenizer is unusable; something that is no number comes out.
    pub fn describe(&self, pictures: &[(&Picture, Key)]) -> Result<Vec<String>, BundleError> {
        let pictures: Vec<_> =
            pictures.iter().map(|(picture, key)| (*picture, Vec::new(), key.clone())).collect();
        let captions = self.decode(&pictures)?;
        captions.iter().map(|ids| Ok(self.reader.text(ids)?)).collect()
    }

    /// The identifiers of [`Self::write`].
    fn decode(
        &self,
        pictures: &[(&Picture, Vec<String>, Key)],
    ) -> Result<Vec<Vec<u32>>, BundleError> {
        let Some((first, ..)) = pictures.first() else { return Ok(Vec::new()) };
        // At least half of the room is the caption's own; all of it where nothing is given.
        let given = pictures.iter().any(|(_, words, _)| !words.is_empty());
        let room = if given { self.capacity / 2 } else { 1 };
        let mut requests = Vec::with_capacity(pictures.len());
        for (_, words, _) in pictures {
            let mut prompt = self.reader.prompt(words)?;
            prompt.truncate(room);
            requests.push(Request { prompt, phrases: Vec::new() });
        }
        // The same for every batch, so that a caption does not depend on its neighbours' prompts.
        let decoding = Decoding { max_new_tokens: self.capacity - room, ..self.decoding.clone() };
        let mut rngs: Vec<_> =
            pictures.iter().map(|(.., key)| key.with("decoding", 0).rng()).collect();
        let pixels = pictures.iter().map(|(picture, ..)| *picture);
        let tensor = match &self.reader {
            Reader::Bundled(_) => tensors::pictures(pixels, first.width, &self.device),
            Reader::Blip { preprocessor, .. } => {
                tensors::preprocessed(pixels, preprocessor, &self.device)
            }
        };
        let decoded = match self.model.generate(tensor, &requests, &decoding, &mut rngs) {
            Err(DecodingError::NotANumber { .. }) => {
                return Err(self.origin.broken("probabilities of words").into());
            }
            decoded => decoded?,
        };
        Ok(decoded.into_iter().map(|caption| caption.tokens).collect())
    }

    /// The options in force.
    pub fn options(&self) -> &CaptionOptions {
        &self.options
    }
}

fn strategy(options: &CaptionOptions) -> Strategy {
    match options {
        CaptionOptions { top_p: 0.0, beams: 0 | 1, .. } => Strategy::Greedy,
        // transformers' default.
        CaptionOptions { top_p: 0.0, beams, .. } => {
            Strategy::Beam { beams: *beams, length_penalty: 1.0 }
        }
        CaptionOptions { top_p, temperature, .. } => {
            Strategy::Nucleus { top_p: *top_p, temperature: *temperature }
        }
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

//! Published tokenizers: texts to identifiers as transformers gives them, and back.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer as Inner;
use tokenizers::models::ModelWrapper;

use super::description::{Description, Kind, unusable};
use crate::data::DataError;
use crate::data::tokens::Tokenizer;

/// A published tokenizer of sentences, captions or prompts: BERT's, BLIP's or CLIP's.
///
/// A special token in a text is that token, as in transformers, unlike in
/// [`Tokenizer`](crate::data::tokens::Tokenizer): Stable Diffusion 2 pads with `!` and reads every
/// `!` of a prompt as padding.
#[derive(Clone)]
pub struct PublishedTokenizer {
    path: PathBuf,
    inner: Inner,
    special: PublishedSpecial,
    pairs: bool,
    max_length: Option<usize>,
    clean_up: bool,
}

/// Identifiers of a published tokenizer's special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSpecial {
    /// What fills a sequence up.
    pub pad: u32,
    /// The first of every sequence.
    pub start: u32,
    /// The last of every sequence.
    pub end: u32,
    /// What stands for a word without pieces.
    pub unknown: Option<u32>,
    /// What stands for a hidden word.
    pub mask: Option<u32>,
    /// What a decoder begins with (`bos_token`): BLIP's `[DEC]`, where its folder names it.
    pub begin: Option<u32>,
}

/// A text, or two, as an encoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedSentence {
    /// The first token, the pieces, the last token.
    pub ids: Vec<u32>,
    /// 1 for the second text of a pair and its last token, 0 for all others.
    pub types: Vec<u32>,
    /// Whether pieces had to be left out.
    pub truncated: bool,
}

impl PublishedTokenizer {
    /// Reads a folder with `tokenizer.json`, or `vocab.txt` (BERT), or `vocab.json` and `merges.txt`
    /// (CLIP), and what it says of them in `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`.
    ///
    /// # Errors
    /// [`DataError::Read`], [`DataError::Syntax`]; [`DataError::Key`] for a value that is not
    /// computed here; [`DataError::Tokenizer`] if the files do not fit together.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let description = Description::read(folder)?;
        let inner = description.build()?;
        let role = |role: &str| {
            description.special.role(role).and_then(|content| inner.token_to_id(content))
        };
        let missing = |what: &str| unusable(&description.path, format!("it has no {what}"));
        let end = |place: usize, what: &str| {
            let (content, _) = &description.ends[place];
            inner.token_to_id(content).ok_or_else(|| missing(what))
        };
        let special = PublishedSpecial {
            pad: role("pad_token").ok_or_else(|| missing("token for padding (`pad_token`)"))?,
            start: end(0, "first token (`cls_token` or `bos_token`)")?,
            end: end(1, "last token (`sep_token` or `eos_token`)")?,
            unknown: role("unk_token"),
            mask: role("mask_token"),
            begin: role("bos_token"),
        };
        Ok(Self {
            inner,
            special,
            pairs: description.pairs,
            max_length: description.max_length,
            clean_up: description.clean_up && description.kind == Kind::WordPiece,
            path: description.path,
        })
    }

    /// Identifiers of the special tokens.
    pub fn special(&self) -> &PublishedSpecial {
        &self.special
    }

    /// The identifier of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The length that the authors give (`model_max_length`), if any.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// How many embeddings an encoder needs: one above the highest identifier.
    pub fn vocabulary_size(&self) -> usize {
        size(&self.inner)
    }

    /// Checks that a model with this many embeddings has one for each identifier.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`].
    pub fn check_fits(&self, embeddings: usize) -> Result<(), DataError> {
        let needed = self.vocabulary_size();
        if needed <= embeddings {
            return Ok(());
        }
        let what = format!("it has {needed} entries, the model beside it {embeddings} embeddings");
        Err(unusable(&self.path, what))
    }

    /// The pieces of a text without the first and the last token.
    ///
    /// # Errors
    /// The tokenizers crate's message.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| unusable(&self.path, error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A text between the first and the last token, its last pieces left out where it would be longer
    /// than `max_length`.
    ///
    /// # Errors
    /// As [`Self::pieces`]; [`DataError::Tokenizer`] for a length below 2.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<EncodedSentence, DataError> {
        let room = self.room(max_length, 2)?;
        let mut pieces = self.pieces(text)?;
        let truncated = pieces.len() > room;
        pieces.truncate(room);
        let PublishedSpecial { start, end, .. } = self.special;
        let ids: Vec<u32> = std::iter::once(start).chain(pieces).chain([end]).collect();
        Ok(EncodedSentence { types: vec![0; ids.len()], ids, truncated })
    }

    /// As [`Self::encode`], filled up to exactly `max_length`, as CLIP's prompts are to 77.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_padded(
        &self,
        text: &str,
        max_length: usize,
    ) -> Result<EncodedSentence, DataError> {
        let mut encoded = self.encode(text, max_length)?;
        encoded.ids.resize(max_length, self.special.pad);
        encoded.types.resize(max_length, 0);
        Ok(encoded)
    }

    /// Two texts, each before a last token. Where they would be longer than `max_length`, pieces of
    /// the longer one are left out until both are as long (transformers' `longest_first`). An empty
    /// second text is none, as in transformers.
    ///
    /// # Errors
    /// As [`Self::pieces`]; [`DataError::Tokenizer`] for a length below 3 and for a tokenizer that
    /// was not published for pairs.
    pub fn encode_pair(
        &self,
        first: &str,
        second: &str,
        max_length: usize,
    ) -> Result<EncodedSentence, DataError> {
        if !self.pairs {
            return Err(unusable(&self.path, "it does not encode pairs of texts"));
        }
        let room = self.room(max_length, 3)?;
        if second.is_empty() {
            return self.encode(first, max_length);
        }
        let (mut first, mut second) = (self.pieces(first)?, self.pieces(second)?);
        let truncated = first.len() + second.len() > room;
        if truncated {
            let half = room / 2;
            let [one, two] = match (first.len() <= half, second.len() <= half) {
                (true, _) => [first.len(), room - first.len()],
                (_, true) => [room - second.len(), second.len()],
                // The odd piece is the longer text's; the second one's where they are as long.
                _ if first.len() > second.len() => [room - half, half],
                _ => [half, room - half],
            };
            first.truncate(one);
            second.truncate(two);
        }
        let PublishedSpecial { start, end, .. } = self.special;
        let mut ids: Vec<u32> = std::iter::once(start).chain(first).chain([end]).collect();
        let mut types = vec![0; ids.len()];
        ids.extend(second);
        ids.push(end);
        types.resize(ids.len(), 1);
        Ok(EncodedSentence { ids, types, truncated })
    }

    fn room(&self, max_length: usize, ends: usize) -> Result<usize, DataError> {
        max_length.checked_sub(ends).ok_or_else(|| {
            let message = format!("a length of {max_length} leaves no room for {ends} tokens");
            unusable(&self.path, message)
        })
    }

    /// The text of identifiers, special tokens and unknown identifiers left out, with the spaces of
    /// written English (transformers' `decode` with `skip_special_tokens`).
    ///
    /// # Errors
    /// As [`Self::pieces`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        let mut text = self.inner.decode(ids, true).map_err(|error| unusable(&self.path, error))?;
        if let ModelWrapper::BPE(model) = self.inner.get_model()
            && let Some(suffix) = &model.end_of_word_suffix
            && !suffix.is_empty()
        {
            text = text.replace(suffix, " ").trim().to_owned();
        }
        if self.clean_up {
            text = cleaned_up(text);
        }
        Ok(text)
    }
}

impl Tokenizer {
    /// The tokenizer of a published BERT, with entity markers as [`Self::load`] gives them; and how
    /// many rows its embedding table lacks for them: none where the vocabulary has unused entries.
    ///
    /// # Errors
    /// As [`PublishedTokenizer::load`]; [`DataError::Tokenizer`] if it lacks `[PAD]`, `[UNK]`,
    /// `[CLS]`, `[SEP]` or `[MASK]`.
    pub fn from_published(folder: &Path) -> Result<(Self, usize), DataError> {
        let description = Description::read(folder)?;
        let inner = description.build()?;
        let before = size(&inner);
        let tokenizer = Self::with_markers(&description.path, inner)?;
        let added = tokenizer.vocabulary_size() - before;
        Ok((tokenizer, added))
    }
}

fn size(inner: &Inner) -> usize {
    inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
}

/// transformers' `clean_up_tokenization`, in its order.
fn cleaned_up(text: String) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

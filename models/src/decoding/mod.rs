//! Decoding: turning a model of the next token into sequences.
//!
//! The algorithms know a model through [`NextToken`] alone. Prompts are fed one token a step, so that
//! rows with prompts of different lengths share every step without padding, and the batch keeps its
//! shape to the end: a sequence never depends on which others are decoded beside it.

mod beam;
mod phrases;
mod sampling;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// A model that predicts the next token of a batch of growing sequences.
///
/// The model owns what it remembers of them (its cache); all rows are equally long at all times.
pub trait NextToken {
    /// The number of rows.
    fn rows(&self) -> usize;

    /// The number of tokens; they are numbered from 0.
    fn vocabulary(&self) -> usize;

    /// The greatest number of tokens that a row may hold.
    fn capacity(&self) -> usize;

    /// Makes the batch anew: row `i` continues as row `rows[i]` was. The number of rows may change.
    fn reorder(&mut self, rows: &[usize]);

    /// Appends one token to every row and gives the natural logarithms of the probabilities of the
    /// token after it, row after row: `tokens.len() * vocabulary` values.
    fn step(&mut self, tokens: &[u32]) -> Vec<f32>;
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The likeliest token.
    Greedy,
    /// The `beams` best prefixes are kept; the best sequence is the one with the greatest sum of log
    /// probabilities divided by its length (end token included) to the power `length_penalty`.
    ///
    /// With phrases, `beams` should exceed the number of their tokens: the beam is shared among
    /// prefixes by how many of those they hold (Post and Vilar 2018, arXiv 1804.06609).
    Beam {
        /// How many prefixes are kept for each sequence.
        beams: usize,
        /// 0 compares sums, 1 means; positive values favour long sequences.
        length_penalty: f64,
    },
    /// A draw from the likeliest tokens that together hold `top_p` of the probability (Holtzman et
    /// al. 2020, arXiv 1904.09751).
    Nucleus {
        /// In (0, 1].
        top_p: f64,
        /// Divides the log probabilities before `top_p` is applied; above 0.
        temperature: f64,
    },
}

/// What all sequences of a batch have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    /// How the next token is chosen.
    pub strategy: Strategy,
    /// The end token comes no earlier than after this many tokens beyond the prompt.
    pub min_new_tokens: usize,
    /// The most tokens beyond the prompt, the end token included.
    pub max_new_tokens: usize,
    /// The token that ends a sequence.
    pub end: u32,
    /// Tokens that are never chosen (padding, mask, unknown); a phrase may hold them.
    pub never: Vec<u32>,
    /// Tokens that continue a word (`##ing`): never chosen right after a phrase, whose last word they
    /// would change.
    pub continuations: Vec<u32>,
}

/// One sequence to decode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The tokens that the sequence starts with, the start token included; not empty.
    pub prompt: Vec<u32>,
    /// Token sequences that must each stand in the new tokens, without overlapping. They always will.
    pub phrases: Vec<Vec<u32>>,
}

/// A decoded sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The tokens beyond the prompt, without the end token.
    pub tokens: Vec<u32>,
    /// Where each phrase stands in `tokens`, in the order of the request.
    pub spans: Vec<Range<usize>>,
    /// Whether the end token was chosen (or else the length ran out).
    pub ended: bool,
    /// Sum of the model's log probabilities of the new tokens, the end token included.
    pub log_probability: f64,
}

/// Why a batch cannot be decoded. `row` is the request's place in the batch.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum DecodingError {
    /// The model has one row for each request.
    #[error("{requests} requests for {rows} rows of the model")]
    Rows {
        /// Rows that the model holds.
        rows: usize,
        /// Requests given.
        requests: usize,
    },
    /// A prompt holds at least the start token.
    #[error("row {row}: the prompt is empty; it needs a start token at least")]
    EmptyPrompt {
        /// The request.
        row: usize,
    },
    /// A phrase holds at least one token.
    #[error("row {row}: phrase {phrase} is empty")]
    EmptyPhrase {
        /// The request.
        row: usize,
        /// The phrase.
        phrase: usize,
    },
    /// The end token would cut the sequence inside the phrase.
    #[error("row {row}: phrase {phrase} holds the end token")]
    EndInPhrase {
        /// The request.
        row: usize,
        /// The phrase.
        phrase: usize,
    },
    /// A token is not in the model's vocabulary.
    #[error("{what}: token {token} is not in a vocabulary of {vocabulary}")]
    UnknownToken {
        /// Where it was given.
        what: String,
        /// The token.
        token: u32,
        /// The number of tokens.
        vocabulary: usize,
    },
    /// Prompt and new tokens exceed what the model can hold.
    #[error(
        "row {row}: a prompt of {prompt} and max_new_tokens = {new} exceed the model's {capacity} positions"
    )]
    TooLong {
        /// The request.
        row: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// New tokens asked for.
        new: usize,
        /// Tokens that a row may hold.
        capacity: usize,
    },
    /// The phrases do not fit.
    #[error("row {row}: phrases of {phrases} tokens do not fit into max_new_tokens = {new}")]
    PhrasesTooLong {
        /// The request.
        row: usize,
        /// Tokens of all phrases.
        phrases: usize,
        /// New tokens asked for.
        new: usize,
    },
    /// An option is out of its range.
    #[error("{option} = {value}: expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: String,
        /// Its range.
        expected: &'static str,
    },
    /// Nucleus sampling needs a generator for every row.
    #[error("{rngs} random generators for {rows} rows")]
    Generators {
        /// Generators given.
        rngs: usize,
        /// Requests given.
        rows: usize,
    },
    /// The model's output is broken.
    #[error("the model gave a log probability that is not a number after {step} tokens")]
    NotANumber {
        /// Tokens fed before.
        step: usize,
    },
}

/// Decodes every request; `model` holds one fresh row for each.
///
/// `rngs` holds one generator for each request where the strategy draws, and is unused (may be empty)
/// where it does not.
pub fn decode<M: NextToken>(
    model: &mut M,
    requests: &[Request],
    options: &Decoding,
    rngs: &mut [ChaCha8Rng],
) -> Result<Vec<Decoded>, DecodingError> {
    let choices = Choices::new(options, model.vocabulary())?;
    check(requests, options, model, rngs)?;
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    match options.strategy {
        Strategy::Greedy => {
            sampling::decode(model, requests, &choices, |_, scores| scores.likeliest())
        }
        Strategy::Nucleus { top_p, temperature } => {
            sampling::decode(model, requests, &choices, |row, scores| {
                scores.nucleus(top_p, temperature, &mut rngs[row])
            })
        }
        Strategy::Beam { beams, length_penalty } => {
            beam::decode(model, requests, &choices, beams, length_penalty)
        }
    }
}

/// Which tokens may be chosen.
struct Choices<'a> {
    options: &'a Decoding,
    /// By token: never to be chosen.
    never: Vec<bool>,
    /// By token: not to be chosen after a phrase.
    continuation: Vec<bool>,
}

impl<'a> Choices<'a> {
    fn new(options: &'a Decoding, vocabulary: usize) -> Result<Self, DecodingError> {
        let marks = |what: &str, tokens: &[u32]| {
            let mut marks = vec![false; vocabulary];
            for &token in tokens {
                *marks.get_mut(token as usize).ok_or_else(|| unknown(what, token, vocabulary))? =
                    true;
            }
            Ok(marks)
        };
        marks("end", &[options.end])?;
        Ok(Self {
            options,
            never: marks("never", &options.never)?,
            continuation: marks("continuations", &options.continuations)?,
        })
    }

    /// Whether `token` may follow `new` chosen tokens, the last of which ends a phrase or not.
    fn allows(&self, token: u32, new: usize, after_phrase: bool) -> bool {
        if token == self.options.end {
            return new >= self.options.min_new_tokens;
        }
        let token = token as usize;
        !(self.never[token] || after_phrase && self.continuation[token])
    }
}

fn unknown(what: impl Into<String>, token: u32, vocabulary: usize) -> DecodingError {
    DecodingError::UnknownToken { what: what.into(), token, vocabulary }
}

fn check<M: NextToken>(
    requests: &[Request],
    options: &Decoding,
    model: &M,
    rngs: &[ChaCha8Rng],
) -> Result<(), DecodingError> {
    let wrong =
        |option, value: String, expected| Err(DecodingError::Option { option, value, expected });
    let new = options.max_new_tokens;
    if new == 0 {
        return wrong("max_new_tokens", new.to_string(), "at least 1");
    }
    match options.strategy {
        Strategy::Greedy => {}
        Strategy::Beam { beams, length_penalty } => {
            if beams == 0 {
                return wrong("beams", beams.to_string(), "at least 1");
            }
            if !length_penalty.is_finite() {
                return wrong("length_penalty", length_penalty.to_string(), "a finite number");
            }
        }
        Strategy::Nucleus { top_p, temperature } => {
            if !(top_p > 0.0 && top_p <= 1.0) {
                return wrong("top_p", top_p.to_string(), "above 0, at most 1");
            }
            if !(temperature > 0.0 && temperature.is_finite()) {
                return wrong("temperature", temperature.to_string(), "above 0");
            }
            if rngs.len() != requests.len() {
                return Err(DecodingError::Generators { rngs: rngs.len(), rows: requests.len() });
            }
        }
    }
    if model.rows() != requests.len() {
        return Err(DecodingError::Rows { rows: model.rows(), requests: requests.len() });
    }
    let vocabulary = model.vocabulary();
    for (row, request) in requests.iter().enumerate() {
        if request.prompt.is_empty() {
            return Err(DecodingError::EmptyPrompt { row });
        }
        let prompt = request.prompt.len();
        if prompt + new > model.capacity() {
            return Err(DecodingError::TooLong { row, prompt, new, capacity: model.capacity() });
        }
        for (phrase, tokens) in request.phrases.iter().enumerate() {
            if tokens.is_empty() {
                return Err(DecodingError::EmptyPhrase { row, phrase });
            }
            if tokens.contains(&options.end) {
                return Err(DecodingError::EndInPhrase { row, phrase });
            }
        }
        let given = request.prompt.iter().chain(request.phrases.iter().flatten());
        for &token in given {
            if token as usize >= vocabulary {
                return Err(unknown(format!("row {row}"), token, vocabulary));
            }
        }
        let phrases = request.phrases.iter().map(Vec::len).sum();
        if phrases > new {
            return Err(DecodingError::PhrasesTooLong { row, phrases, new });
        }
    }
    Ok(())
}

/// One step of the model, checked; `step` counts the tokens that were fed before.
fn step<M: NextToken>(
    model: &mut M,
    tokens: &[u32],
    step: usize,
) -> Result<Vec<f32>, DecodingError> {
    let scores = model.step(tokens);
    if scores.iter().any(|score| score.is_nan()) {
        return Err(DecodingError::NotANumber { step });
    }
    Ok(scores)
}

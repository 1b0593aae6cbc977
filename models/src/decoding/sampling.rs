//! Greedy decoding and nucleus sampling: one sequence a row, one choice a step.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::phrases::Phrases;
use super::{Choices, Decoded, DecodingError, NextToken, Request, step};

/// The model's log probabilities for one row, and which tokens may be chosen.
pub(super) struct Scores<'a> {
    values: &'a [f32],
    choices: &'a Choices<'a>,
    new: usize,
    after_phrase: bool,
}

impl Scores<'_> {
    fn allowed(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        (0..)
            .zip(self.values)
            .filter(|&(token, _)| self.choices.allows(token, self.new, self.after_phrase))
            .map(|(token, &value)| (token, f64::from(value)))
    }

    /// The likeliest token, the lowest of equals; the end token where none may be chosen.
    pub(super) fn likeliest(&self) -> u32 {
        self.allowed()
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .map_or(self.choices.options.end, |(token, _)| token)
    }

    /// A token drawn from the fewest that together hold `top_p` of the probability.
    pub(super) fn nucleus(&self, top_p: f64, temperature: f64, rng: &mut ChaCha8Rng) -> u32 {
        let draw: f64 = rng.random();
        let greatest = self.allowed().fold(f64::NEG_INFINITY, |most, next| most.max(next.1));
        if greatest == f64::NEG_INFINITY {
            return self.likeliest();
        }
        let mut weights: Vec<(u32, f64)> = self
            .allowed()
            .map(|(token, value)| (token, ((value - greatest) / temperature).exp()))
            .collect();
        let total: f64 = weights.iter().map(|weight| weight.1).sum();
        // Tokens below this hold less than 1 - top_p all together: none is needed, none is sorted.
        let least = (1.0 - top_p) * total / weights.len() as f64;
        weights.retain(|weight| weight.1 >= least);
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut held = 0.0;
        let size = weights
            .iter()
            .position(|weight| {
                held += weight.1;
                held >= top_p * total
            })
            .map_or(weights.len(), |last| last + 1);
        let mut left = draw * held;
        for &(token, weight) in &weights[..size] {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        // Rounding may leave a remainder after the last token.
        weights[size - 1].0
    }
}

struct Row<'a> {
    request: &'a Request,
    tokens: Vec<u32>,
    phrases: Phrases<'a>,
    log_probability: f64,
    ended: bool,
}

impl Row<'_> {
    /// The token that goes in at a step; a row that is done is fed anything.
    fn input(&self, step: usize) -> u32 {
        let prompt = &self.request.prompt;
        match prompt.get(step) {
            Some(&token) => token,
            None => *self.tokens.get(step - prompt.len()).unwrap_or(&prompt[0]),
        }
    }

    fn is_done(&self, choices: &Choices) -> bool {
        self.ended || self.tokens.len() == choices.options.max_new_tokens
    }

    fn choose(
        &mut self,
        values: &[f32],
        choices: &Choices,
        free_choice: impl FnOnce(&Scores) -> u32,
    ) {
        let owed = self.phrases.owed();
        let remaining = choices.options.max_new_tokens - self.tokens.len();
        if self.phrases.forced().is_none() {
            let mut chosen = None;
            if owed < remaining {
                chosen = Some(free_choice(&Scores {
                    values,
                    choices,
                    new: self.tokens.len(),
                    after_phrase: self.phrases.just_ended(&self.tokens),
                }));
            }
            match chosen {
                Some(token) if token != choices.options.end || owed == 0 => {
                    return self.push(token, values, choices);
                }
                _ => self.force_likeliest(values),
            }
        }
        let (_, token) =
            self.phrases.forced().expect("a sequence that owes tokens has an open phrase");
        self.push(token, values, choices);
    }

    fn force_likeliest(&mut self, values: &[f32]) {
        let score = |token: u32| values[token as usize];
        let likeliest = self
            .phrases
            .next(&self.tokens)
            .into_iter()
            .reduce(|best, next| if score(next.1) > score(best.1) { next } else { best });
        if let Some((phrase, _)) = likeliest {
            self.phrases.force(phrase, &self.tokens);
        }
    }

    fn push(&mut self, token: u32, values: &[f32], choices: &Choices) {
        self.log_probability += f64::from(values[token as usize]);
        if token == choices.options.end {
            self.ended = true;
        } else {
            self.tokens.push(token);
            self.phrases.push(&self.tokens);
        }
    }
}

/// Decodes with `free_choice` wherever no phrase is due; it gets the row and its scores.
pub(super) fn decode<M: NextToken>(
    model: &mut M,
    requests: &[Request],
    choices: &Choices,
    mut free_choice: impl FnMut(usize, &Scores) -> u32,
) -> Result<Vec<Decoded>, DecodingError> {
    let vocabulary = model.vocabulary();
    let mut rows: Vec<Row> = requests
        .iter()
        .map(|request| Row {
            request,
            tokens: Vec::new(),
            phrases: Phrases::new(&request.phrases),
            log_probability: 0.0,
            ended: false,
        })
        .collect();
    let mut fed = 0;
    while !rows.iter().all(|row| row.is_done(choices)) {
        let tokens: Vec<u32> = rows.iter().map(|row| row.input(fed)).collect();
        let scores = step(model, &tokens, fed)?;
        fed += 1;
        for (index, (row, values)) in rows.iter_mut().zip(scores.chunks(vocabulary)).enumerate() {
            if fed >= row.request.prompt.len() && !row.is_done(choices) {
                row.choose(values, choices, |scores| free_choice(index, scores));
            }
        }
    }
    Ok(rows
        .into_iter()
        .map(|row| Decoded {
            tokens: row.tokens,
            spans: row.phrases.into_spans(),
            ended: row.ended,
            log_probability: row.log_probability,
        })
        .collect())
}

//! Beam search, with dynamic beam allocation where phrases are due (Post and Vilar 2018, arXiv
//! 1804.06609).
//!
//! The rules are those of transformers' `generate` with `early_stopping="never"`: twice as many
//! candidates as beams are looked at, an end token counts if it is among the best `beams` of them, and
//! the search ends once no running beam can beat the best finished sequence.

use super::phrases::Phrases;
use super::{Choices, Decoded, DecodingError, NextToken, Request, step};

/// A prefix with its score.
#[derive(Clone)]
struct Hypothesis<'a> {
    /// The model's row that holds the prefix; 0 is the first of this search.
    row: usize,
    tokens: Vec<u32>,
    phrases: Phrases<'a>,
    log_probability: f64,
}

/// One more token for one of the beams.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    token: u32,
    /// The phrase that this token begins by force.
    force: Option<usize>,
    log_probability: f64,
    /// Phrase tokens that the prefix would hold.
    met: usize,
}

/// The search for one request.
struct Search<'a> {
    request: &'a Request,
    choices: &'a Choices<'a>,
    width: usize,
    length_penalty: f64,
    beams: Vec<Hypothesis<'a>>,
    best: Option<(f64, Decoded)>,
}

impl<'a> Search<'a> {
    /// The score of a sum of log probabilities over so many tokens.
    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.length_penalty)
    }

    fn input(&self, beam: usize, step: usize) -> u32 {
        let prompt = &self.request.prompt;
        let tokens = self.beams.get(beam).map_or(&[][..], |beam| &beam.tokens);
        match prompt.get(step) {
            Some(&token) => token,
            // Rows without a beam are fed anything.
            None => *tokens.get(step - prompt.len()).unwrap_or(&prompt[0]),
        }
    }

    /// What may follow `beam`: the `2 * width` best tokens and those that phrases need.
    fn continuations(&self, index: usize, values: &[f32], candidates: &mut Vec<Candidate>) {
        let beam = &self.beams[index];
        let length = beam.tokens.len();
        let options = self.choices.options;
        let candidate = |token: u32, force| Candidate {
            beam: index,
            token,
            force,
            log_probability: beam.log_probability + f64::from(values[token as usize]),
            met: 0,
        };
        if let Some((_, token)) = beam.phrases.forced() {
            return candidates.push(candidate(token, None));
        }
        let owed = beam.phrases.owed();
        let next = beam.phrases.next(&beam.tokens);
        if owed == options.max_new_tokens - length {
            let forced = next.iter();
            return candidates
                .extend(forced.map(|&(phrase, token)| candidate(token, Some(phrase))));
        }
        let after_phrase = beam.phrases.just_ended(&beam.tokens);
        let allowed = |token: u32| {
            self.choices.allows(token, length, after_phrase) && (owed == 0 || token != options.end)
        };
        let mut tokens: Vec<u32> =
            (0..values.len() as u32).filter(|&token| allowed(token)).collect();
        let better =
            |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
        let kept = 2 * self.width;
        if tokens.len() > kept {
            tokens.select_nth_unstable_by(kept, better);
            tokens.truncate(kept);
        }
        for (_, token) in next {
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        // Nothing may be chosen: the sequence ends here (it owes nothing, or `next` gave a token).
        if tokens.is_empty() {
            tokens.push(options.end);
        }
        candidates.extend(tokens.into_iter().map(|token| candidate(token, None)));
    }

    /// The prefix that a candidate stands for.
    fn extend(&self, candidate: &Candidate) -> Hypothesis<'a> {
        let mut next = self.beams[candidate.beam].clone();
        next.row = candidate.beam;
        if let Some(phrase) = candidate.force {
            next.phrases.force(phrase, &next.tokens);
        }
        next.tokens.push(candidate.token);
        next.phrases.push(&next.tokens);
        next.log_probability = candidate.log_probability;
        next
    }

    fn finish(&mut self, beam: Hypothesis<'a>, ended: bool) {
        let length = beam.tokens.len() + usize::from(ended);
        let score = self.score(beam.log_probability, length);
        if self.best.as_ref().is_none_or(|(best, _)| score > *best) {
            let decoded = Decoded {
                tokens: beam.tokens,
                spans: beam.phrases.into_spans(),
                ended,
                log_probability: beam.log_probability,
            };
            self.best = Some((score, decoded));
        }
    }

    /// One step of the search; `values` holds the scores of every row of this search.
    fn advance(&mut self, values: &[f32], vocabulary: usize) {
        let end = self.choices.options.end;
        let mut candidates = Vec::new();
        for (index, values) in (0..self.beams.len()).zip(values.chunks(vocabulary)) {
            self.continuations(index, values, &mut candidates);
        }
        candidates.sort_by(|a, b| {
            b.log_probability
                .total_cmp(&a.log_probability)
                .then((a.beam, a.token).cmp(&(b.beam, b.token)))
        });
        if self.request.phrases.is_empty() {
            candidates.truncate(2 * self.width);
        } else {
            for candidate in &mut candidates {
                candidate.met = if candidate.token == end {
                    self.beams[candidate.beam].phrases.met(&self.beams[candidate.beam].tokens)
                } else {
                    let next = self.extend(candidate);
                    next.phrases.met(&next.tokens)
                };
            }
        }
        let banks = banks(candidates);
        let width = self.width;
        for candidate in banks.iter().flat_map(|bank| bank.iter().take(width)) {
            if candidate.token == end {
                let mut ended = self.beams[candidate.beam].clone();
                ended.log_probability = candidate.log_probability;
                self.finish(ended, true);
            }
        }
        let running: Vec<Vec<Candidate>> = banks
            .into_iter()
            .map(|bank| bank.into_iter().filter(|candidate| candidate.token != end).collect())
            .collect();
        let kept = allocate(&running, self.width);
        self.beams = kept.iter().map(|candidate| self.extend(candidate)).collect();
        if self.beams.first().map(|beam| beam.tokens.len())
            == Some(self.choices.options.max_new_tokens)
        {
            for beam in std::mem::take(&mut self.beams) {
                self.finish(beam, false);
            }
        }
        self.stop_if_decided();
    }

    /// Log probabilities only fall; the penalty is kindest at one end of the lengths still possible.
    fn stop_if_decided(&mut self) {
        let Some((best, _)) = &self.best else { return };
        let attainable = |beam: &Hypothesis| {
            let kindest = if self.length_penalty > 0.0 {
                self.choices.options.max_new_tokens
            } else {
                beam.tokens.len() + 1
            };
            self.score(beam.log_probability, kindest)
        };
        if self.beams.iter().all(|beam| attainable(beam) <= *best) {
            self.beams.clear();
        }
    }
}

/// Groups sorted candidates by the phrase tokens that they hold, the most first.
fn banks(candidates: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    let most = candidates.iter().map(|candidate| candidate.met).max();
    let mut banks = vec![Vec::new(); most.map_or(0, |most| most + 1)];
    for candidate in candidates {
        banks[candidate.met].push(candidate);
    }
    banks.reverse();
    banks
}

/// Shares the beam equally among the banks; what one cannot fill goes to the others.
fn allocate(banks: &[Vec<Candidate>], width: usize) -> Vec<Candidate> {
    let longest = banks.iter().map(Vec::len).max().unwrap_or(0);
    let mut kept: Vec<Candidate> = (0..longest)
        .flat_map(|place| banks.iter().filter_map(move |bank| bank.get(place)))
        .take(width)
        .copied()
        .collect();
    kept.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability));
    kept
}

pub(super) fn decode<M: NextToken>(
    model: &mut M,
    requests: &[Request],
    choices: &Choices,
    width: usize,
    length_penalty: f64,
) -> Result<Vec<Decoded>, DecodingError> {
    let vocabulary = model.vocabulary();
    let mut searches: Vec<Search> = requests
        .iter()
        .map(|request| Search {
            request,
            choices,
            width,
            length_penalty,
            beams: vec![Hypothesis {
                row: 0,
                tokens: Vec::new(),
                phrases: Phrases::new(&request.phrases),
                log_probability: 0.0,
            }],
            best: None,
        })
        .collect();
    // While the shortest prompt lasts, all beams of a search are the same: one row stands for them.
    let mut rows_each = 1;
    let mut fed = 0;
    while searches.iter().any(|search| !search.beams.is_empty()) {
        let tokens: Vec<u32> = searches
            .iter()
            .flat_map(|search| (0..rows_each).map(move |beam| search.input(beam, fed)))
            .collect();
        let scores = step(model, &tokens, fed)?;
        fed += 1;
        let choosing = |search: &Search| fed >= search.request.prompt.len();
        for (search, values) in searches.iter_mut().zip(scores.chunks(vocabulary * rows_each)) {
            if choosing(search) {
                search.advance(values, vocabulary);
            }
        }
        if !searches.iter().any(choosing) {
            continue;
        }
        // A place without a beam of its own keeps a row of the same search.
        let order: Vec<usize> = searches
            .iter()
            .enumerate()
            .flat_map(|(index, search)| {
                let beams = choosing(search).then_some(&search.beams);
                (0..width).map(move |place| {
                    let beam = beams.and_then(|beams| beams.get(place));
                    index * rows_each + beam.map_or(0, |beam| beam.row)
                })
            })
            .collect();
        if rows_each != width || order.iter().enumerate().any(|(row, &from)| row != from) {
            model.reorder(&order);
        }
        rows_each = width;
    }
    Ok(searches
        .into_iter()
        .map(|search| {
            search
                .best
                .map(|(_, decoded)| decoded)
                .expect("a search ends with a finished sequence: by an end token or at full length")
        })
        .collect())
}

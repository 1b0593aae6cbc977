//! The algorithms on models that are tables: every prefix has its own distribution.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const END: u32 = 0;

/// Random logits for every prefix, a function of the prefix and the seed alone.
struct Table {
    seed: u64,
    vocabulary: usize,
    prefixes: Vec<Vec<u32>>,
}

impl Table {
    fn new(seed: u64, vocabulary: usize, rows: usize) -> Self {
        Self { seed, vocabulary, prefixes: vec![Vec::new(); rows] }
    }

    fn log_probabilities(&self, prefix: &[u32]) -> Vec<f32> {
        let mut hash = self.seed;
        for &token in prefix {
            hash = (hash ^ u64::from(token + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(hash);
        let logits: Vec<f64> = (0..self.vocabulary).map(|_| 4.0 * rng.random::<f64>()).collect();
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.iter().map(|logit| (logit - total) as f32).collect()
    }
}

impl NextToken for Table {
    fn rows(&self) -> usize {
        self.prefixes.len()
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn capacity(&self) -> usize {
        64
    }

    fn reorder(&mut self, rows: &[usize]) {
        self.prefixes = rows.iter().map(|&row| self.prefixes[row].clone()).collect();
    }

    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        assert_eq!(tokens.len(), self.prefixes.len());
        for (prefix, &token) in self.prefixes.iter_mut().zip(tokens) {
            prefix.push(token);
        }
        self.prefixes.iter().flat_map(|prefix| self.log_probabilities(prefix)).collect()
    }
}

fn options(strategy: Strategy, max_new_tokens: usize) -> Decoding {
    Decoding {
        strategy,
        min_new_tokens: 0,
        max_new_tokens,
        end: END,
        never: Vec::new(),
        continuations: Vec::new(),
    }
}

fn beam(beams: usize, length_penalty: f64) -> Strategy {
    Strategy::Beam { beams, length_penalty }
}

const NUCLEUS: Strategy = Strategy::Nucleus { top_p: 0.9, temperature: 0.8 };

fn rngs(count: usize) -> Vec<ChaCha8Rng> {
    (0..count as u64).map(ChaCha8Rng::seed_from_u64).collect()
}

fn prompt(tokens: &[u32]) -> Request {
    Request { prompt: tokens.to_vec(), phrases: Vec::new() }
}

/// Requests with prompts of different lengths and up to three phrases.
fn random_requests(rng: &mut ChaCha8Rng, count: usize, vocabulary: u32) -> Vec<Request> {
    let mut tokens = |least: usize, most: usize| -> Vec<u32> {
        let length = rng.random_range(least..=most);
        (0..length).map(|_| rng.random_range(1..vocabulary)).collect()
    };
    (0..count)
        .map(|index| Request {
            prompt: tokens(1, 4),
            phrases: (0..index % 4).map(|_| tokens(1, 3)).collect(),
        })
        .collect()
}

/// The best score of all sequences, by trying every one.
fn exhaustive(table: &Table, options: &Decoding, prompt: &[u32], penalty: f64) -> (f64, Vec<u32>) {
    let mut best = (f64::NEG_INFINITY, Vec::new());
    let mut open = vec![(0.0, Vec::new())];
    while let Some((sum, tokens)) = open.pop() {
        let prefix = [prompt, tokens.as_slice()].concat();
        for (token, value) in (0u32..).zip(table.log_probabilities(&prefix)) {
            let sum = sum + f64::from(value);
            let score = sum / ((tokens.len() + 1) as f64).powf(penalty);
            let mut next: Vec<u32> = tokens.clone();
            if token == END && tokens.len() < options.min_new_tokens {
                continue;
            }
            if token != END {
                next.push(token);
            }
            if (token == END || next.len() == options.max_new_tokens) && score > best.0 {
                best = (score, next);
            } else if token != END && next.len() < options.max_new_tokens {
                open.push((sum, next));
            }
        }
    }
    best
}

#[test]
fn a_wide_beam_finds_what_exhaustive_search_finds() {
    for seed in 0..60 {
        let penalty = [0.0, 1.0, 2.0, -1.0][seed as usize % 4];
        let mut options = options(beam(256, penalty), 4);
        options.min_new_tokens = seed as usize % 3;
        let requests = [prompt(&[1]), prompt(&[2, 3, 1])];
        let mut table = Table::new(seed, 4, 2);
        let found = decode(&mut table, &requests, &options, &mut []).unwrap();
        for (found, request) in found.iter().zip(&requests) {
            let (_, best) = exhaustive(&table, &options, &request.prompt, penalty);
            assert_eq!(found.tokens, best, "seed {seed}");
        }
    }
}

#[test]
fn a_beam_of_one_without_penalty_is_greedy_up_to_the_first_end() {
    let requests = [prompt(&[1]), prompt(&[2, 3]), prompt(&[3])];
    for seed in 0..20 {
        let decoded = |strategy| {
            let mut table = Table::new(seed, 6, 3);
            // The end token cannot come before the last place, so both run the whole length.
            let options = Decoding { min_new_tokens: 8, ..options(strategy, 8) };
            decode(&mut table, &requests, &options, &mut []).unwrap()
        };
        assert_eq!(decoded(Strategy::Greedy), decoded(beam(1, 0.0)));
    }
}

#[test]
fn greedy_takes_the_likeliest_token_every_time() {
    let mut table = Table::new(3, 9, 1);
    let found = decode(&mut table, &[prompt(&[4, 2])], &options(Strategy::Greedy, 12), &mut []);
    let found = found.unwrap().remove(0);
    let mut prefix = vec![4, 2];
    let mut sum = 0.0;
    for &token in found.tokens.iter().chain(found.ended.then_some(&END)) {
        let scores = table.log_probabilities(&prefix);
        assert!(scores.iter().all(|&score| score <= scores[token as usize]));
        sum += f64::from(scores[token as usize]);
        prefix.push(token);
    }
    assert_eq!(found.log_probability, sum);
}

#[test]
fn nucleus_draws_have_the_renormalised_frequencies_of_the_nucleus() {
    let (top_p, temperature) = (0.8, 1.5);
    let count = 20_000;
    let vocabulary = 12;
    let strategy = Strategy::Nucleus { top_p, temperature };
    let mut table = Table::new(5, vocabulary, count);
    let options = Decoding { never: vec![7], ..options(strategy, 1) };
    let requests = vec![prompt(&[1]); count];
    let drawn = decode(&mut table, &requests, &options, &mut rngs(count)).unwrap();
    let mut counts = vec![0.0; vocabulary];
    for one in &drawn {
        counts[*one.tokens.first().unwrap_or(&END) as usize] += 1.0;
    }

    let mut weights: Vec<(usize, f64)> = table
        .log_probabilities(&[1])
        .iter()
        .map(|&value| (f64::from(value) / temperature).exp())
        .enumerate()
        .filter(|&(token, _)| token != 7)
        .collect();
    let total: f64 = weights.iter().map(|weight| weight.1).sum();
    weights.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut held = 0.0;
    let mut nucleus = Vec::new();
    for (token, weight) in weights {
        nucleus.push((token, weight));
        held += weight / total;
        if held >= top_p {
            break;
        }
    }
    let mass: f64 = nucleus.iter().map(|member| member.1).sum();
    let chi_square: f64 = nucleus
        .iter()
        .map(|&(token, weight)| {
            let expected = count as f64 * weight / mass;
            (counts[token] - expected).powi(2) / expected
        })
        .sum();
    let inside: f64 = nucleus.iter().map(|&(token, _)| counts[token]).sum();
    assert_eq!(inside, count as f64, "a token outside the nucleus was drawn");
    // 6 to 9 tokens; the 99.9 % quantile at 8 degrees of freedom.
    assert!((6..=9).contains(&nucleus.len()));
    assert!(chi_square < 26.12, "chi-square {chi_square}");
}

#[test]
fn a_batch_gives_what_its_items_give_one_by_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for strategy in [Strategy::Greedy, beam(5, 1.0), NUCLEUS] {
        for seed in 0..10 {
            let requests = random_requests(&mut rng, 7, 8);
            let options = options(strategy, 12);
            let mut table = Table::new(seed, 8, requests.len());
            let together = decode(&mut table, &requests, &options, &mut rngs(7)).unwrap();
            for (row, request) in requests.iter().enumerate() {
                let mut table = Table::new(seed, 8, 1);
                let rngs = &mut rngs(7)[row..=row];
                let alone = decode(&mut table, std::slice::from_ref(request), &options, rngs);
                assert_eq!(alone.unwrap()[0], together[row], "{strategy:?}");
            }
        }
    }
}

#[test]
fn phrases_always_appear_without_overlap_and_within_the_length() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for strategy in [Strategy::Greedy, beam(1, 0.0), beam(4, 1.0), beam(12, -0.5), NUCLEUS] {
        for seed in 0..120 {
            // Few tokens: phrases overlap themselves and each other, and appear by chance.
            let vocabulary = rng.random_range(3..7);
            let requests = random_requests(&mut rng, 8, vocabulary);
            let longest = requests
                .iter()
                .map(|request| request.phrases.iter().map(Vec::len).sum::<usize>())
                .max()
                .unwrap();
            // From no room at all to plenty.
            let options = Decoding {
                min_new_tokens: rng.random_range(0..6),
                continuations: vec![1],
                ..options(strategy, longest.max(1) + rng.random_range(0..8))
            };
            let mut table = Table::new(seed, vocabulary as usize, requests.len());
            let found = decode(&mut table, &requests, &options, &mut rngs(8)).unwrap();
            for (found, request) in found.iter().zip(&requests) {
                assert!(found.tokens.len() + usize::from(found.ended) <= options.max_new_tokens);
                assert_eq!(found.spans.len(), request.phrases.len());
                for (span, phrase) in found.spans.iter().zip(&request.phrases) {
                    assert_eq!(&found.tokens[span.clone()], phrase.as_slice());
                }
                let mut spans = found.spans.clone();
                spans.sort_by_key(|span| span.start);
                assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }
    }
}

#[test]
fn a_wide_beam_places_phrases_at_least_as_well_as_greedy_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (mut better, mut worse) = (0, 0);
    for seed in 0..40 {
        let requests = random_requests(&mut rng, 4, 8)[1..].to_vec();
        let score = |strategy| -> Vec<f64> {
            let mut table = Table::new(seed, 8, requests.len());
            let options = options(strategy, 14);
            let found = decode(&mut table, &requests, &options, &mut []).unwrap();
            found.iter().map(|found| found.log_probability).collect()
        };
        for (wide, greedy) in score(beam(24, 0.0)).into_iter().zip(score(Strategy::Greedy)) {
            better += usize::from(wide > greedy);
            worse += usize::from(wide < greedy);
        }
    }
    assert_eq!(worse, 0);
    assert!(better > 60, "{better} of 120");
}

#[test]
fn a_phrase_is_not_followed_by_a_token_that_continues_its_last_word() {
    let continuations: Vec<u32> = vec![3, 4, 5];
    for strategy in [Strategy::Greedy, beam(6, 1.0), NUCLEUS] {
        for seed in 0..50 {
            let request = Request { prompt: vec![1], phrases: vec![vec![1, 2]] };
            let options = Decoding { continuations: continuations.clone(), ..options(strategy, 8) };
            let mut table = Table::new(seed, 6, 1);
            let found = decode(&mut table, &[request], &options, &mut rngs(1)).unwrap();
            let next = found[0].tokens.get(found[0].spans[0].end);
            assert!(next.is_none_or(|token| !continuations.contains(token)));
        }
    }
}

#[test]
fn length_limits_and_forbidden_tokens_are_respected() {
    for strategy in [Strategy::Greedy, beam(4, 0.0), NUCLEUS] {
        for seed in 0..50 {
            let options = Decoding { min_new_tokens: 3, never: vec![2, 4], ..options(strategy, 6) };
            let mut table = Table::new(seed, 7, 1);
            let found = decode(&mut table, &[prompt(&[2])], &options, &mut rngs(1)).unwrap();
            let tokens = &found[0].tokens;
            assert!((3..=6).contains(&tokens.len()));
            assert!(!tokens.iter().any(|token| [END, 2, 4].contains(token)));
        }
    }
}

#[test]
fn a_request_that_cannot_be_decoded_is_named() {
    let request = |prompt: &[u32], phrases: &[&[u32]]| Request {
        prompt: prompt.to_vec(),
        phrases: phrases.iter().map(|phrase| phrase.to_vec()).collect(),
    };
    let error = |request: Request, strategy, new| {
        let mut table = Table::new(0, 8, 2);
        let requests = [prompt(&[1]), request];
        decode(&mut table, &requests, &options(strategy, new), &mut rngs(2)).unwrap_err()
    };
    use DecodingError::*;
    let greedy = Strategy::Greedy;
    assert_eq!(error(request(&[], &[]), greedy, 4), EmptyPrompt { row: 1 });
    assert_eq!(error(request(&[1], &[&[2], &[]]), greedy, 4), EmptyPhrase { row: 1, phrase: 1 });
    assert_eq!(error(request(&[1], &[&[2, END]]), greedy, 4), EndInPhrase { row: 1, phrase: 0 });
    assert_eq!(
        error(request(&[1], &[&[2, 3], &[4]]), greedy, 2),
        PhrasesTooLong { row: 1, phrases: 3, new: 2 }
    );
    assert!(matches!(
        error(request(&[1, 1], &[]), greedy, 63),
        TooLong { row: 1, capacity: 64, .. }
    ));
    assert!(matches!(error(request(&[8], &[]), greedy, 4), UnknownToken { token: 8, .. }));
    for (strategy, name) in [
        (beam(0, 1.0), "beams"),
        (beam(2, f64::NAN), "length_penalty"),
        (Strategy::Nucleus { top_p: 0.0, temperature: 1.0 }, "top_p"),
        (Strategy::Nucleus { top_p: 1.0, temperature: 0.0 }, "temperature"),
    ] {
        let found = error(request(&[1], &[]), strategy, 4);
        assert!(matches!(found, Option { option, .. } if option == name), "{found}");
    }
    let mut table = Table::new(0, 8, 3);
    let rows = decode(&mut table, &[prompt(&[1])], &options(greedy, 4), &mut []);
    assert_eq!(rows, Err(Rows { rows: 3, requests: 1 }));
    let mut table = Table::new(0, 8, 1);
    let missing = decode(&mut table, &[prompt(&[1])], &options(NUCLEUS, 4), &mut []);
    assert_eq!(missing, Err(Generators { rngs: 0, rows: 1 }));
}

//! The captioner against transformers, and against itself.

mod support;

use burn::backend::{Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::{Captioner, CaptionerConfig};
use mi2rage_models::decoding::{Decoded, Decoding, Request, Strategy};
use mi2rage_models::vit::ViTConfig;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use support::Fixture;

const NAMES: [(&str, &str); 2] = [("self_attn", "self"), ("layer_norm", "LayerNorm")];
const PAD: u32 = 0;
const START: u32 = 1;
const END: u32 = 2;

/// Makes one test a backend of each function over backends.
macro_rules! on_flex_and_ndarray {
    ($($test:ident),* $(,)?) => {
        mod flex { $(#[test] fn $test() { super::$test::<super::Flex>(); })* }
        mod ndarray { $(#[test] fn $test() { super::$test::<super::NdArray>(); })* }
    };
}

on_flex_and_ndarray!(
    logits_and_loss_agree_with_transformers,
    greedy_and_beam_search_agree_with_transformers,
    the_cache_gives_the_probabilities_of_teacher_forcing,
    a_batch_of_captions_is_what_its_items_are_one_by_one,
);

fn model<B: Backend>(fixture: &Fixture) -> Captioner<B> {
    let config: CaptionerConfig = serde_json::from_value(fixture.config.clone()).unwrap();
    config.check().unwrap();
    fixture.fill(config.init::<B>(&Default::default()), &NAMES)
}

fn options(strategy: Strategy) -> Decoding {
    Decoding {
        strategy,
        min_new_tokens: 0,
        max_new_tokens: 10,
        end: END,
        never: vec![PAD, START],
        continuations: Vec::new(),
    }
}

fn beam(beams: usize, length_penalty: f64) -> Strategy {
    Strategy::Beam { beams, length_penalty }
}

fn logits_and_loss_agree_with_transformers<B: Backend>() {
    let fixture = Fixture::open("captioner");
    let model = model::<B>(&fixture);
    let ids: Tensor<B, 2, Int> = fixture.ids("ids");
    let [batch, n] = ids.dims();
    let logits = model.forward(fixture.floats("pixels"), ids.clone(), Some(fixture.mask("mask")));
    fixture.assert_output("logits", logits.clone());

    let [_, _, vocabulary] = logits.dims();
    let loss = Captioner::loss(
        logits.slice([0..batch, 0..n - 1, 0..vocabulary]),
        ids.slice([0..batch, 1..n]),
        fixture.mask("counted"),
        0.1,
    );
    fixture.assert_output("loss", loss);
}

fn greedy_and_beam_search_agree_with_transformers<B: Backend>() {
    let fixture = Fixture::open("captioner");
    let model = model::<B>(&fixture);
    for (name, strategy, min_new_tokens) in [
        ("greedy", Strategy::Greedy, 0),
        ("beam", beam(3, 1.0), 0),
        ("beam_long", beam(3, 2.0), 4),
        ("beam_short", beam(4, -0.5), 0),
    ] {
        let prompts = fixture.ids::<B, 2>(&format!("{name}.prompt")).into_data();
        let prompts: Vec<u32> = prompts.iter().collect();
        let requests: Vec<Request> = prompts
            .chunks(prompts.len() / 6)
            .map(|prompt| Request { prompt: prompt.to_vec(), phrases: Vec::new() })
            .collect();
        let options = Decoding { min_new_tokens, ..options(strategy) };
        let found = model.generate(fixture.floats("pixels"), &requests, &options, &mut []).unwrap();
        let mut padded = Vec::new();
        let mut scores = Vec::new();
        for found in &found {
            let mut tokens = found.tokens.clone();
            tokens.extend(found.ended.then_some(END));
            if let Strategy::Beam { length_penalty, .. } = strategy {
                let length = (tokens.len() as f64).powf(length_penalty);
                scores.push((found.log_probability / length) as f32);
            }
            tokens.resize(options.max_new_tokens, PAD);
            padded.extend(tokens.into_iter().map(|token| token as f32));
        }
        let padded = TensorData::new(padded, [6, options.max_new_tokens]);
        let device = Default::default();
        fixture.assert_output(name, Tensor::<B, 2>::from_data(padded, &device));
        if !scores.is_empty() {
            let scores = Tensor::<B, 1>::from_floats(scores.as_slice(), &device);
            fixture.assert_output(&format!("{name}.scores"), scores);
        }
    }
}

/// Prompts of different lengths, with and without phrases.
fn mixed_requests() -> Vec<Request> {
    (0..6u32)
        .map(|row| Request {
            prompt: [START, 5 + row, 9, 4][..1 + row as usize % 4].to_vec(),
            phrases: match row % 3 {
                0 => Vec::new(),
                1 => vec![vec![11, 12 + row]],
                _ => vec![vec![13, 13, row + 3], vec![20]],
            },
        })
        .collect()
}

fn the_cache_gives_the_probabilities_of_teacher_forcing<B: Backend>() {
    let fixture = Fixture::open("captioner");
    let model = model::<B>(&fixture);
    let pixels: Tensor<B, 4> = fixture.floats("pixels");
    let requests = mixed_requests();
    for strategy in [Strategy::Greedy, beam(4, 1.0)] {
        let found = model.generate(pixels.clone(), &requests, &options(strategy), &mut []).unwrap();
        for (row, (found, request)) in found.iter().zip(&requests).enumerate() {
            let mut text = [request.prompt.as_slice(), &found.tokens].concat();
            text.extend(found.ended.then_some(END));
            let read = &text[..text.len() - 1];
            let ids = TensorData::new(read.to_vec(), [1, read.len()]).convert::<i64>();
            let ids = Tensor::<B, 2, Int>::from_data(ids, &Default::default());
            let logits = model.forward(pixels.clone().narrow(0, row, 1), ids, None);
            let scores: Vec<f32> =
                burn::tensor::activation::log_softmax(logits, 2).into_data().to_vec().unwrap();
            let sum: f64 = (request.prompt.len()..text.len())
                .map(|place| f64::from(scores[(place - 1) * 29 + text[place] as usize]))
                .sum();
            let gap = (sum - found.log_probability).abs();
            assert!(gap < 1e-4, "row {row}: off by {gap:e}");
        }
    }
}

fn a_batch_of_captions_is_what_its_items_are_one_by_one<B: Backend>() {
    let fixture = Fixture::open("captioner");
    let model = model::<B>(&fixture);
    let pixels: Tensor<B, 4> = fixture.floats("pixels");
    let requests = mixed_requests();
    let rngs = || -> Vec<ChaCha8Rng> { (0..6).map(ChaCha8Rng::seed_from_u64).collect() };
    let nucleus = Strategy::Nucleus { top_p: 0.95, temperature: 1.2 };
    for strategy in [Strategy::Greedy, beam(3, 1.0), nucleus] {
        let options = options(strategy);
        let together = model.generate(pixels.clone(), &requests, &options, &mut rngs()).unwrap();
        for (row, request) in requests.iter().enumerate() {
            let alone = model.generate(
                pixels.clone().narrow(0, row, 1),
                std::slice::from_ref(request),
                &options,
                &mut rngs()[row..=row],
            );
            let Decoded { tokens, spans, .. } = alone.unwrap().remove(0);
            assert_eq!(tokens, together[row].tokens, "{strategy:?}, row {row}");
            for (span, phrase) in spans.into_iter().zip(&request.phrases) {
                assert_eq!(&tokens[span], phrase.as_slice());
            }
        }
    }
}

#[test]
fn the_decoder_reads_states_of_the_encoders_width() {
    let config = CaptionerConfig {
        vision: ViTConfig {
            hidden_size: 12,
            num_hidden_layers: 1,
            num_attention_heads: 3,
            intermediate_size: 8,
            image_size: 8,
            patch_size: 4,
            ..Default::default()
        },
        text: BertConfig {
            vocab_size: 9,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 8,
            max_position_embeddings: 6,
            ..Default::default()
        },
    };
    config.check().unwrap();
    let device = Default::default();
    let model = config.init::<Flex>(&device);
    let logits =
        model.forward(Tensor::zeros([2, 3, 8, 8], &device), Tensor::zeros([2, 4], &device), None);
    assert_eq!(logits.dims(), [2, 4, 9]);
}

//! BERT, ViT and CLIP against transformers, and against themselves.

mod support;

use burn::backend::{Flex, NdArray};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use mi2rage_models::bert::{BertCache, BertConfig, BertForCausalLm, EncoderStates};
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::vit::ViTConfig;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use support::Fixture;

const BERT_NAMES: [(&str, &str); 2] = [("self_attn", "self"), ("layer_norm", "LayerNorm")];

/// Makes one test a backend of each function over backends.
macro_rules! on_flex_and_ndarray {
    ($($test:ident),* $(,)?) => {
        mod flex { $(#[test] fn $test() { super::$test::<super::Flex>(); })* }
        mod ndarray { $(#[test] fn $test() { super::$test::<super::NdArray>(); })* }
    };
}

on_flex_and_ndarray!(
    bert_agrees_with_transformers,
    bert_decoder_agrees_with_transformers,
    vit_agrees_with_transformers,
    clip_agrees_with_transformers,
    decoding_step_by_step_equals_the_full_forward,
    a_selected_cache_goes_on_as_its_rows_would,
    padding_does_not_change_the_states_of_the_tokens,
);

fn config<T: serde::de::DeserializeOwned>(fixture: &Fixture) -> T {
    serde_json::from_value(fixture.config.clone()).unwrap()
}

fn bert_agrees_with_transformers<B: Backend>() {
    let fixture = Fixture::open("bert");
    let model = config::<BertConfig>(&fixture).init_masked_lm::<B>(&Default::default());
    let model = fixture.fill(model, &BERT_NAMES);
    let bert = &model.bert;
    let (ids, types) = (fixture.ids("input_ids"), fixture.ids("token_type_ids"));
    let mask = fixture.mask("attention_mask");

    let embedded = bert.embeddings.forward(ids.clone(), Some(types.clone()), 0);
    fixture.assert_output("hidden.0", embedded);
    let mut shallow = bert.clone();
    shallow.encoder.layer.truncate(1);
    for (name, model) in [("hidden.1", &shallow), ("hidden.2", bert)] {
        let hidden = model.forward(ids.clone(), Some(types.clone()), Some(mask.clone()));
        fixture.assert_output(name, hidden);
    }
    let logits = model.forward(ids.clone(), Some(types), Some(mask));
    fixture.assert_output("logits", logits);
    fixture.assert_output("logits_plain", model.forward(ids, None, None));
}

fn bert_decoder_agrees_with_transformers<B: Backend>() {
    let fixture = Fixture::open("bert_decoder");
    let model = config::<BertConfig>(&fixture).init_causal_lm::<B>(&Default::default());
    let model = fixture.fill(model, &BERT_NAMES);
    let ids = fixture.ids("input_ids");
    let mask = fixture.mask("attention_mask");
    let encoder = EncoderStates {
        hidden: fixture.floats("encoder_hidden_states"),
        mask: Some(fixture.mask("encoder_attention_mask")),
    };

    let mut shallow = model.bert.clone();
    shallow.encoder.layer.truncate(1);
    for (name, model) in [("hidden.1", &shallow), ("hidden.2", &model.bert)] {
        let hidden = model.decode(ids.clone(), Some(mask.clone()), Some(&encoder), None);
        fixture.assert_output(name, hidden);
    }
    let logits = model.forward(ids.clone(), Some(mask), Some(&encoder), None);
    fixture.assert_output("logits", logits);
    fixture.assert_output("logits_alone", model.forward(ids, None, None, None));
}

fn vit_agrees_with_transformers<B: Backend>() {
    let fixture = Fixture::open("vit");
    let labels = fixture.config["num_labels"].as_u64().unwrap() as usize;
    let model = config::<ViTConfig>(&fixture).init_classifier::<B>(labels, &Default::default());
    let model = fixture.fill(model, &[]);
    let pixels = fixture.floats("pixels");

    let mut hidden = model.vit.embeddings.forward(pixels.clone());
    fixture.assert_output("hidden.0", hidden.clone());
    for (index, layer) in model.vit.encoder.layer.iter().enumerate() {
        hidden = layer.forward(hidden);
        fixture.assert_output(&format!("hidden.{}", index + 1), hidden.clone());
    }
    fixture.assert_output("last", model.vit.forward(pixels.clone()));
    fixture.assert_output("logits", model.forward(pixels));
}

fn clip_agrees_with_transformers<B: Backend>() {
    let fixture = Fixture::open("clip");
    let model = config::<ClipTextConfig>(&fixture).init::<B>(&Default::default());
    let model = fixture.fill(model, &[]);
    let ids = fixture.ids("input_ids");

    fixture.assert_output("hidden.0", model.embeddings.forward(ids.clone()));
    let last = model.forward(ids.clone(), Some(fixture.mask("attention_mask")));
    fixture.assert_output("last", last.clone());
    fixture.assert_output("pooled", model.pool(last, ids.clone()));
    fixture.assert_output("last_plain", model.forward(ids, None));
}

/// A decoder with keyed weights, whose encoder states are narrower than its own.
fn decoder<B: Backend>() -> (BertForCausalLm<B>, EncoderStates<B>) {
    let device = B::Device::default();
    let config = BertConfig {
        vocab_size: 23,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 24,
        max_position_embeddings: 10,
        is_decoder: true,
        add_cross_attention: true,
        encoder_hidden_size: Some(6),
        ..Default::default()
    };
    let model = reinitialise(
        config.init_causal_lm(&device),
        Scheme::Normal { std: 0.3 },
        &mut ChaCha8Rng::seed_from_u64(1),
    );
    let hidden = Tensor::<B, 1, Int>::arange(0..3 * 5 * 6, &device)
        .float()
        .sin()
        .reshape([3, 5, 6]);
    let mask = Tensor::<B, 2, Bool>::from_data(
        [
            [true; 5],
            [true, true, true, false, false],
            [true, false, false, false, false],
        ],
        &device,
    );
    let mask = Some(mask);
    (model, EncoderStates { hidden, mask })
}

fn decoder_ids<B: Backend>() -> Tensor<B, 2, Int> {
    Tensor::from_data(
        [
            [1, 5, 9, 2, 22, 14],
            [3, 3, 3, 3, 3, 3],
            [21, 0, 17, 8, 4, 6],
        ],
        &Default::default(),
    )
}

fn largest_difference<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let gap = (a - b).abs().max().into_data();
    gap.iter::<f64>().next().unwrap()
}

fn decoding_step_by_step_equals_the_full_forward<B: Backend>() {
    let (model, encoder) = decoder::<B>();
    let ids = decoder_ids();
    let full = model.forward(ids.clone(), None, Some(&encoder), None);

    let mut cache = BertCache::new();
    let mut steps = Vec::new();
    for (start, length) in [(0, 3), (3, 1), (4, 2)] {
        assert_eq!(cache.len(), start);
        let new = ids.clone().narrow(1, start, length);
        steps.push(model.forward(new, None, Some(&encoder), Some(&mut cache)));
    }
    assert_eq!(cache.len(), 6);
    let gap = largest_difference(full, Tensor::cat(steps, 1));
    assert!(gap < 1e-5, "{gap}");
}

fn a_selected_cache_goes_on_as_its_rows_would<B: Backend>() {
    let (model, encoder) = decoder::<B>();
    let rows = Tensor::<B, 1, Int>::from_data([2, 0, 2, 1], &Default::default());
    let ids = decoder_ids();
    let mut cache = BertCache::new();
    let past = ids.clone().narrow(1, 0, 4);
    model.forward(past, None, Some(&encoder), Some(&mut cache));

    cache.select(rows.clone());
    let picked = EncoderStates {
        hidden: encoder.hidden.select(0, rows.clone()),
        mask: encoder
            .mask
            .map(|mask| mask.int().select(0, rows.clone()).bool()),
    };
    let ids = ids.select(0, rows);
    let new = ids.clone().narrow(1, 4, 2);
    let steps = model.forward(new, None, Some(&picked), Some(&mut cache));
    let full = model.forward(ids, None, Some(&picked), None);
    let gap = largest_difference(full.narrow(1, 4, 2), steps);
    assert!(gap < 1e-5, "{gap}");
}

fn padding_does_not_change_the_states_of_the_tokens<B: Backend>() {
    let device = B::Device::default();
    let fixture = Fixture::open("bert");
    let model = config::<BertConfig>(&fixture).init::<B>(&device);
    let model = reinitialise(
        model,
        Scheme::Normal { std: 0.3 },
        &mut ChaCha8Rng::seed_from_u64(2),
    );
    let tokens = Tensor::<B, 2, Int>::from_data([[4, 8, 15, 16, 23]], &device);
    let padding = |id: i64| Tensor::<B, 2, Int>::full([1, 3], id, &device);
    let mask = Tensor::<B, 2, Int>::from_data([[1, 1, 1, 1, 1, 0, 0, 0]], &device).bool();
    let alone = model.forward(tokens.clone(), None, None);
    for id in [0, 30] {
        let padded = Tensor::cat(vec![tokens.clone(), padding(id)], 1);
        let states = model.forward(padded, None, Some(mask.clone()));
        let gap = largest_difference(alone.clone(), states.narrow(1, 0, 5));
        assert!(gap < 1e-5, "{gap}");
    }
}

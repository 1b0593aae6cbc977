//! Published folders, loaded with the ordinary import, against transformers: layer by layer, so that
//! a failure names the first one that differs.

mod support;

use burn::backend::{Flex, NdArray};
use burn::tensor::{Bool, Tensor, backend::Backend};
use mi2rage_models::bert::EncoderStates;
use mi2rage_models::clip::{ClipEncoder, ClipTextModel};
use mi2rage_models::decoding::{Decoding, Request, Strategy};
use mi2rage_models::layers::attention_bias;
use mi2rage_models::published::{Precision, bert, blip, clip, vit};
use support::{Fixture, checkpoint};

/// Makes one test a backend of each function over backends.
macro_rules! on_flex_and_ndarray {
    ($($test:ident),* $(,)?) => {
        mod flex { $(#[test] fn $test() { super::$test::<super::Flex>(); })* }
        mod ndarray { $(#[test] fn $test() { super::$test::<super::NdArray>(); })* }
    };
}

on_flex_and_ndarray!(
    a_sharded_bert_with_its_language_head,
    a_bare_bert_of_old_names_in_half_precision,
    a_bert_with_a_classifier,
    a_vit_with_a_classifier_and_pictures_of_another_size,
    a_bare_vit_in_bfloat16,
    clip_with_both_encoders,
    a_text_encoder_of_clip_with_its_projection,
    the_text_encoder_out_of_a_whole_clip,
    blips_of_both_sizes_encode_and_predict,
    blip_captions_greedily_and_by_beams,
);

const F32: Precision = Precision::F32;

fn a_sharded_bert_with_its_language_head<B: Backend>() {
    let (_, model) =
        bert::load_masked_lm::<B>(&checkpoint("bert-mlm"), F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("bert-mlm");
    bert_layers(&reference, &model.bert);
    let (ids, types) = (reference.ids("input_ids"), reference.ids("token_type_ids"));
    let logits = model.forward(ids, Some(types), Some(reference.mask("attention_mask")));
    reference.assert_output("logits", logits);
}

fn a_bare_bert_of_old_names_in_half_precision<B: Backend>() {
    let (config, model) =
        bert::load_encoder::<B>(&checkpoint("bert-bare"), F32, &Default::default()).unwrap();
    assert!(config.add_pooling_layer);
    let reference = Fixture::of_checkpoint("bert-bare");
    let last = bert_layers(&reference, &model);
    reference.assert_output("last", last.clone());
    reference.assert_output("pooled", model.pool(last));
}

fn a_bert_with_a_classifier<B: Backend>() {
    let (_, model) =
        bert::load_classifier::<B>(&checkpoint("bert-classifier"), F32, &Default::default())
            .unwrap();
    let reference = Fixture::of_checkpoint("bert-classifier");
    bert_layers(&reference, &model.bert);
    let (ids, types) = (reference.ids("input_ids"), reference.ids("token_type_ids"));
    let logits = model.forward(ids, Some(types), Some(reference.mask("attention_mask")));
    reference.assert_output("logits", logits);
}

/// Compares the embeddings and every layer; returns the last hidden state.
fn bert_layers<B: Backend>(
    reference: &Fixture,
    bert: &mi2rage_models::bert::Bert<B>,
) -> Tensor<B, 3> {
    let (ids, types) = (reference.ids("input_ids"), reference.ids("token_type_ids"));
    let mask = reference.mask("attention_mask");
    let mut last = bert.embeddings.forward(Tensor::clone(&ids), Some(Tensor::clone(&types)), 0);
    reference.assert_output("hidden.0", last.clone());
    for layers in 1..=bert.encoder.layer.len() {
        let mut shallow = bert.clone();
        shallow.encoder.layer.truncate(layers);
        let mask = Some(Tensor::clone(&mask));
        last = shallow.forward(Tensor::clone(&ids), Some(Tensor::clone(&types)), mask);
        reference.assert_output(&format!("hidden.{layers}"), last.clone());
    }
    last
}

fn vit_layers<B: Backend>(reference: &Fixture, vit: &mi2rage_models::vit::Vit<B>) {
    let mut hidden = vit.embeddings.forward(reference.floats("pixels"));
    reference.assert_output("hidden.0", hidden.clone());
    for (index, layer) in vit.encoder.layer.iter().enumerate() {
        hidden = layer.forward(hidden);
        reference.assert_output(&format!("hidden.{}", index + 1), hidden.clone());
    }
}

fn a_vit_with_a_classifier_and_pictures_of_another_size<B: Backend>() {
    let (_, model) =
        vit::load_classifier::<B>(&checkpoint("vit-classifier"), F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("vit-classifier");
    vit_layers(&reference, &model.vit);
    reference.assert_output("last", model.vit.forward(reference.floats("pixels")));
    reference.assert_output("logits", model.forward(reference.floats("pixels")));
    reference.assert_output("last_large", model.vit.forward(reference.floats("pixels_large")));
}

fn a_bare_vit_in_bfloat16<B: Backend>() {
    let (config, model) =
        vit::load_encoder::<B>(&checkpoint("vit-bare"), F32, &Default::default()).unwrap();
    assert!(config.add_pooling_layer && !config.qkv_bias);
    let reference = Fixture::of_checkpoint("vit-bare");
    vit_layers(&reference, &model);
    let last = model.forward(reference.floats("pixels"));
    reference.assert_output("last", last.clone());
    reference.assert_output("pooled", model.pool(last));
}

/// Compares the embeddings and every layer but the last, whose state transformers give with and
/// without the norm that follows.
fn clip_layers<B: Backend>(
    reference: &Fixture,
    name: &str,
    encoder: &ClipEncoder<B>,
    mut hidden: Tensor<B, 3>,
    bias: Option<Tensor<B, 3>>,
) {
    reference.assert_output(&format!("{name}.hidden.0"), hidden.clone());
    for (index, layer) in encoder.layers.iter().enumerate() {
        hidden = layer.forward(hidden, bias.clone());
        reference.assert_output(&format!("{name}.hidden.{}", index + 1), hidden.clone());
    }
}

fn clip_text_layers<B: Backend>(
    reference: &Fixture,
    model: &ClipTextModel<B>,
    mask: Option<Tensor<B, 2, Bool>>,
) {
    let ids = reference.ids("input_ids");
    let [_, n] = Tensor::dims(&ids);
    let bias = attention_bias(mask, true, [n, n], &Default::default());
    let embedded = model.embeddings.forward(Tensor::clone(&ids));
    clip_layers(reference, "text", &model.encoder, embedded, bias);
}

fn clip_with_both_encoders<B: Backend>() {
    let (_, model) = clip::load_model::<B>(&checkpoint("clip"), F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("clip");
    let (text, vision) = (&model.text_model, &model.vision_model);
    let (ids, mask) = (reference.ids("input_ids"), reference.mask("attention_mask"));
    clip_text_layers(&reference, text, Some(Tensor::clone(&mask)));
    let last = text.forward(Tensor::clone(&ids), Some(mask));
    reference.assert_output("text.last", last.clone());
    reference.assert_output("text.pooled", text.pool(last, Tensor::clone(&ids)));

    let pixels = reference.floats("pixels");
    let embedded = vision.pre_layrnorm.forward(vision.embeddings.forward(Tensor::clone(&pixels)));
    clip_layers(&reference, "vision", &vision.encoder, embedded, None);
    let last = vision.forward(Tensor::clone(&pixels));
    reference.assert_output("vision.last", last.clone());
    reference.assert_output("vision.pooled", vision.pool(last));

    let (texts, pictures) = (model.text_features(ids), model.image_features(pixels));
    reference.assert_output("text_embeds", texts.clone());
    reference.assert_output("image_embeds", pictures.clone());
    reference.assert_output("logits_per_image", model.logits(texts, pictures).transpose());
    let large = vision.pool(vision.forward(reference.floats("pixels_large")));
    reference.assert_output("image_embeds_large", model.visual_projection.forward(large));
}

fn a_text_encoder_of_clip_with_its_projection<B: Backend>() {
    let folder = checkpoint("clip-text-projection");
    let (_, model) =
        clip::load_text_with_projection::<B>(&folder, F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("clip-text-projection");
    clip_text_layers(&reference, &model.text_model, None);
    let ids = reference.ids("input_ids");
    reference.assert_output("text.last", model.text_model.forward(Tensor::clone(&ids), None));
    reference.assert_output("text_embeds", model.forward(ids));
}

fn the_text_encoder_out_of_a_whole_clip<B: Backend>() {
    let folder = checkpoint("clip");
    let (_, whole) = clip::load_model::<B>(&folder, F32, &Default::default()).unwrap();
    let (_, alone) = clip::load_text::<B>(&folder, F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("clip");
    let states = |model: &ClipTextModel<B>| {
        model.forward(reference.ids("input_ids"), None).into_data().to_vec::<f32>().unwrap()
    };
    assert_eq!(states(&whole.text_model), states(&alone));
}

fn blips_of_both_sizes_encode_and_predict<B: Backend>() {
    for name in ["blip", "blip-large"] {
        let folder = checkpoint(name);
        let (_, model) = blip::load_captioner::<B>(&folder, F32, &Default::default()).unwrap();
        blip_layers(&Fixture::of_checkpoint(name), &model);
    }
}

fn blip_layers<B: Backend>(reference: &Fixture, model: &mi2rage_models::captioner::Captioner<B>) {
    let vision = &model.vision_model;
    let mut hidden = vision.embeddings.forward(reference.floats("pixels"));
    reference.assert_output("vision.hidden.0", hidden.clone());
    for (index, layer) in vision.encoder.layer.iter().enumerate() {
        hidden = layer.forward(hidden);
        reference.assert_output(&format!("vision.hidden.{}", index + 1), hidden.clone());
    }
    reference.assert_output("vision.last", model.encode(reference.floats("pixels")));
    reference.assert_output("vision.last_large", model.encode(reference.floats("pixels_large")));

    let (ids, mask) = (reference.ids("input_ids"), Some(reference.mask("attention_mask")));
    let encoder = EncoderStates { hidden: model.encode(reference.floats("pixels")), mask: None };
    let bert = &model.text_decoder.bert;
    let embedded = bert.embeddings.forward(Tensor::clone(&ids), None, 0);
    reference.assert_output("text.hidden.0", embedded);
    for layers in 1..=bert.encoder.layer.len() {
        let mut shallow = bert.clone();
        shallow.encoder.layer.truncate(layers);
        let hidden = shallow.decode(Tensor::clone(&ids), mask.clone(), Some(&encoder), None);
        reference.assert_output(&format!("text.hidden.{layers}"), hidden);
    }
    let logits = model.forward(reference.floats("pixels"), ids, mask);
    reference.assert_output("text.logits", logits);
}

fn blip_captions_greedily_and_by_beams<B: Backend>() {
    let (config, model) =
        blip::load_captioner::<B>(&checkpoint("blip"), F32, &Default::default()).unwrap();
    let reference = Fixture::of_checkpoint("blip");
    let captions = |strategy, prompts: [Vec<u32>; 2]| -> Vec<Vec<i64>> {
        let room = 10 - prompts[0].len();
        let requests = prompts.map(|prompt| Request { prompt, phrases: Vec::new() });
        let options = Decoding {
            strategy,
            min_new_tokens: 0,
            max_new_tokens: room,
            end: config.sep_token_id,
            never: Vec::new(),
            continuations: Vec::new(),
        };
        let pixels = reference.floats("pixels");
        let decoded = model.generate(pixels, &requests, &options, &mut []).unwrap();
        decoded.iter().map(|one| one.tokens.iter().map(|&id| i64::from(id)).collect()).collect()
    };
    let start = vec![config.bos_token_id];
    // The prompt begins with the start token and loses its end.
    let begun = |row: &Vec<i64>| -> Vec<u32> {
        let rest = row[1..row.len() - 1].iter().map(|&id| id as u32);
        start.iter().copied().chain(rest).collect()
    };
    let given = reference.input_rows("prompt_ids");
    let given: [Vec<u32>; 2] = [begun(&given[0]), begun(&given[1])];
    let beams = Strategy::Beam { beams: 3, length_penalty: 1.0 };
    for (name, strategy, prompts) in [
        ("greedy", Strategy::Greedy, [start.clone(), start.clone()]),
        ("beams", beams, [start.clone(), start.clone()]),
        ("greedy_prompted", Strategy::Greedy, given.clone()),
        ("beams_prompted", beams, given.clone()),
    ] {
        let length = prompts[0].len();
        let found = captions(strategy, prompts);
        for (found, expected) in found.iter().zip(reference.rows(name)) {
            let special = [config.pad_token_id, config.sep_token_id, config.bos_token_id];
            let text = |ids: &[i64]| -> Vec<i64> {
                let plain = |id: &&i64| **id >= 0 && !special.contains(&(**id as u32));
                ids.iter().filter(plain).copied().collect()
            };
            assert_eq!(text(found), text(&expected[length..]), "{name}");
        }
    }
}

#[test]
fn what_a_folder_lacks_or_asks_for_beyond_this_program_is_named() {
    let copy = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(checkpoint(name)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        folder
    };
    let load = |folder: &std::path::Path| {
        let loaded = bert::load_encoder::<Flex>(folder, F32, &Default::default());
        loaded.map(|_| ()).unwrap_err().to_string()
    };
    let edit = |folder: &std::path::Path, from: &str, to: &str| {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    };

    let folder = copy("bert-bare");
    edit(folder.path(), "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    let message = load(folder.path());
    assert!(message.contains("missing (16): encoder.layer.2.attention.self.query"), "{message}");
    edit(folder.path(), "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
    let message = load(folder.path());
    assert!(message.contains("unused (16): encoder.layer.1"), "{message}");
    edit(folder.path(), "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    edit(folder.path(), "\"intermediate_size\": 24", "\"intermediate_size\": 32");
    let message = load(folder.path());
    let expected =
        "misfit (6): encoder.layer.0.intermediate.dense.weight is [24, 16], expected [32, 16]";
    assert!(message.contains(expected) && !message.contains("unused"), "{message}");
    edit(folder.path(), "\"intermediate_size\": 32", "\"intermediate_size\": 24");
    edit(folder.path(), "\"absolute\"", "\"relative_key\"");
    let message = load(folder.path());
    assert!(
        message.contains("config.json: `position_embedding_type` = \"relative_key\""),
        "{message}"
    );
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(load(folder.path()).contains("no weights"), "{}", load(folder.path()));
}

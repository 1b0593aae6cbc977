//! Published folders in half precision, against what transformers and diffusers made of them in 32
//! bits.
//!
//! A number that is rounded to 16 bits is off by at most a unit of u = 2^-11 (f16) or 2^-8 (bf16) of
//! itself. The weights are rounded once and the states after every operation; errors that know
//! nothing of each other add up by their squares, so that n roundings on the way leave about
//! sqrt(n) u. From the first state of these models to the last there are some twenty (two layers of
//! a transformer) to a hundred (a U-Net), and so the outputs are allowed [`LAYERS`] u and [`BLOCKS`] u
//! of their own deviation. A constant, a mask or a norm in the wrong type would be off
//! by orders of magnitude, or would not run at all: the backend refuses to mix types.

mod support;

use burn::backend::Flex;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};
use mi2rage_models::bert::EncoderStates;
use mi2rage_models::decoding::{Decoding, Request, Strategy};
use mi2rage_models::precision::Precision;
use mi2rage_models::published::{bert, blip, clip, stable_diffusion, vit};
use support::{Fixture, checkpoint};

/// What two layers of a transformer may add up to, in units of u.
const LAYERS: f64 = 4.0;
/// What a U-Net or an autoencoder may.
const BLOCKS: f64 = 10.0;

/// Makes one test a precision of each function of a precision.
macro_rules! in_both {
    ($($test:ident),* $(,)?) => {
        mod f16 { $(#[test] fn $test() { super::$test(super::Precision::F16); })* }
        mod bf16 { $(#[test] fn $test() { super::$test(super::Precision::Bf16); })* }
    };
}

in_both!(
    bert_with_and_without_heads,
    vit_with_and_without_a_head_and_for_pictures_of_another_size,
    clip_with_both_encoders,
    blip_encodes_and_predicts,
    blip_writes_captions_as_likely_as_it_says,
    the_text_encoders_of_stable_diffusion,
    the_unets_of_stable_diffusion,
    the_autoencoder_of_stable_diffusion,
);

/// The largest error of rounding a number to nearest, relative to it.
fn unit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2f64.powi(-24),
        Precision::F16 => 2f64.powi(-11),
        Precision::Bf16 => 2f64.powi(-8),
    }
}

/// Panics unless `actual` is `out.<name>` up to `units` of u, as root mean squares, in units of the
/// expected values' deviation; and unless it is off by more than 32 bits would be.
#[track_caller]
fn assert_near<const D: usize>(
    reference: &Fixture,
    name: &str,
    precision: Precision,
    units: f64,
    actual: Tensor<Flex, D>,
) {
    let expected = reference.numbers(name);
    let actual: Vec<f64> = actual.into_data().iter().collect();
    assert_eq!(actual.len(), expected.len(), "{name}");
    let root_mean_square = |values: &mut dyn Iterator<Item = f64>| {
        (values.map(|value| value * value).sum::<f64>() / expected.len() as f64).sqrt()
    };
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    let deviation = root_mean_square(&mut expected.iter().map(|value| value - mean));
    let gap = root_mean_square(&mut actual.iter().zip(&expected).map(|(a, e)| a - e)) / deviation;
    let gap = gap / unit(precision);
    println!("{name} in {precision}: off by {gap:.2} u");
    assert!(gap <= units, "{name} is off by {gap:.2} u, expected at most {units}");
    assert!(gap > 0.05, "{name} is off by {gap:.1e} u: was it computed in {precision}?");
}

fn bert_with_and_without_heads(precision: Precision) {
    let device = Default::default();
    for name in ["bert-mlm", "bert-bare", "bert-classifier"] {
        let (folder, reference) = (checkpoint(name), Fixture::of_checkpoint(name));
        let (ids, types) = (reference.ids("input_ids"), Some(reference.ids("token_type_ids")));
        let mask = Some(reference.mask("attention_mask"));
        match name {
            "bert-mlm" => {
                let (_, model) = bert::load_masked_lm::<Flex>(&folder, precision, &device).unwrap();
                let logits = model.forward(ids, types, mask);
                assert_eq!(logits.dtype(), DType::F32);
                assert_near(&reference, "logits", precision, LAYERS, logits);
            }
            "bert-bare" => {
                let (_, model) = bert::load_encoder::<Flex>(&folder, precision, &device).unwrap();
                let last = model.forward(ids, types, mask);
                assert_eq!(last.dtype(), precision.dtype());
                assert_near(&reference, "last", precision, LAYERS, last.clone());
                assert_near(&reference, "pooled", precision, LAYERS, model.pool(last));
            }
            _ => {
                let (_, model) =
                    bert::load_classifier::<Flex>(&folder, precision, &device).unwrap();
                let logits = model.forward(ids, types, mask);
                assert_near(&reference, "logits", precision, LAYERS, logits);
            }
        }
    }
}

fn vit_with_and_without_a_head_and_for_pictures_of_another_size(precision: Precision) {
    let device = Default::default();
    let reference = Fixture::of_checkpoint("vit-classifier");
    let folder = checkpoint("vit-classifier");
    let (_, model) = vit::load_classifier::<Flex>(&folder, precision, &device).unwrap();
    let (small, large) = (reference.floats("pixels"), reference.floats("pixels_large"));
    assert_near(&reference, "logits", precision, LAYERS, model.forward(small));
    assert_near(&reference, "last_large", precision, LAYERS, model.vit.forward(large));

    let reference = Fixture::of_checkpoint("vit-bare");
    let folder = checkpoint("vit-bare");
    let (_, model) = vit::load_encoder::<Flex>(&folder, precision, &device).unwrap();
    let last = model.forward(reference.floats("pixels"));
    assert_near(&reference, "last", precision, LAYERS, last.clone());
    assert_near(&reference, "pooled", precision, LAYERS, model.pool(last));
}

fn clip_with_both_encoders(precision: Precision) {
    let device = Default::default();
    let reference = Fixture::of_checkpoint("clip");
    let (_, model) = clip::load_model::<Flex>(&checkpoint("clip"), precision, &device).unwrap();
    let (text, vision) = (&model.text_model, &model.vision_model);
    let ids = || reference.ids("input_ids");
    let last = text.forward(ids(), Some(reference.mask("attention_mask")));
    assert_near(&reference, "text.last", precision, LAYERS, last);
    let last = vision.forward(reference.floats("pixels"));
    assert_near(&reference, "vision.last", precision, LAYERS, last);
    let large = vision.pool(vision.forward(reference.floats("pixels_large")));
    let large = model.visual_projection.forward(large);
    assert_near(&reference, "image_embeds_large", precision, LAYERS, large);

    let (texts, pictures) =
        (model.text_features(ids()), model.image_features(reference.floats("pixels")));
    assert_eq!([texts.dtype(), pictures.dtype()], [DType::F32; 2]);
    let logits = model.logits(texts.clone(), pictures.clone()).transpose();
    // Cosines of embeddings that are off by a unit or two of their length 1, times 14.3, measured by a
    // deviation of 1.9.
    assert_near(&reference, "logits_per_image", precision, 10.0, logits);
    assert_near(&reference, "text_embeds", precision, LAYERS, texts);
    assert_near(&reference, "image_embeds", precision, LAYERS, pictures);

    let reference = Fixture::of_checkpoint("clip-text-projection");
    let folder = checkpoint("clip-text-projection");
    let (_, model) = clip::load_text_with_projection::<Flex>(&folder, precision, &device).unwrap();
    let embeds = model.forward(reference.ids("input_ids"));
    assert_near(&reference, "text_embeds", precision, LAYERS, embeds);
}

fn blip_encodes_and_predicts(precision: Precision) {
    let reference = Fixture::of_checkpoint("blip");
    let (_, model) =
        blip::load_captioner::<Flex>(&checkpoint("blip"), precision, &Default::default()).unwrap();
    let states = model.encode(reference.floats("pixels"));
    assert_near(&reference, "vision.last", precision, LAYERS, states.clone());
    let large = model.encode(reference.floats("pixels_large"));
    assert_near(&reference, "vision.last_large", precision, LAYERS, large);
    // Two layers of the vision part and two of the text part stand one behind the other.
    let encoder = EncoderStates { hidden: states, mask: None };
    let (ids, mask) = (reference.ids("input_ids"), Some(reference.mask("attention_mask")));
    let logits = model.text_decoder.forward(ids, mask, Some(&encoder), None);
    assert_eq!(logits.dtype(), DType::F32);
    assert_near(&reference, "text.logits", precision, 2.0 * LAYERS, logits);
}

/// Through the cache, greedily and by beams: the likelihood that 32 bits give the same tokens without a
/// cache; and in f16, whose errors are smaller than the least gap between two tokens here, the same
/// captions.
fn blip_writes_captions_as_likely_as_it_says(precision: Precision) {
    let reference = Fixture::of_checkpoint("blip");
    let load = |precision| {
        let folder = checkpoint("blip");
        blip::load_captioner::<Flex>(&folder, precision, &Default::default()).unwrap()
    };
    let ((config, half), (_, plain)) = (load(precision), load(Precision::F32));
    let start = config.bos_token_id;
    let pixels = || reference.floats("pixels");
    for strategy in [Strategy::Greedy, Strategy::Beam { beams: 3, length_penalty: 1.0 }] {
        let options = Decoding {
            strategy,
            min_new_tokens: 0,
            max_new_tokens: 9,
            end: config.sep_token_id,
            never: Vec::new(),
            continuations: Vec::new(),
        };
        let requests = vec![Request { prompt: vec![start], phrases: Vec::new() }; 2];
        let captions = half.generate(pixels(), &requests, &options, &mut []).unwrap();
        let expected = plain.generate(pixels(), &requests, &options, &mut []).unwrap();
        for (row, (caption, expected)) in captions.iter().zip(&expected).enumerate() {
            if precision == Precision::F16 {
                assert_eq!(caption.tokens, expected.tokens, "{strategy:?}");
            }
            let text = [&[start], &caption.tokens[..]].concat();
            let end = caption.ended.then_some(config.sep_token_id);
            let targets: Vec<u32> = caption.tokens.iter().copied().chain(end).collect();
            let read = &text[..targets.len()];
            let ids = TensorData::new(read.to_vec(), [1, read.len()]).convert::<i64>();
            let ids = Tensor::<Flex, 2, Int>::from_data(ids, &Default::default());
            let logits = plain.forward(pixels().narrow(0, row, 1), ids, None);
            let [_, n, vocabulary] = logits.dims();
            let scores: Vec<f32> = log_softmax(logits, 2).into_data().to_vec().unwrap();
            let score = |(at, &token): (usize, &u32)| scores[at * vocabulary + token as usize];
            let sum: f64 = targets.iter().enumerate().map(score).map(f64::from).sum();
            // A log probability is a difference of logits, each off by a few u.
            let gap = (sum - caption.log_probability).abs() / n as f64 / unit(precision);
            println!("{strategy:?} in {precision}: off by {gap:.2} u a token");
            assert!(gap > 0.0 && gap < 2.0 * LAYERS, "{strategy:?}: off by {gap:.2} u a token");
        }
    }
}

fn the_text_encoders_of_stable_diffusion(precision: Precision) {
    for name in ["sd1", "sd2"] {
        let (folder, reference) = (checkpoint(name), Fixture::of_checkpoint(name));
        let (_, model) =
            clip::load_text::<Flex>(&folder.join("text_encoder"), precision, &Default::default())
                .unwrap();
        let last = model.forward(reference.ids("prompt_ids"), None);
        assert_near(&reference, "text.last", precision, LAYERS, last);
    }
}

fn the_unets_of_stable_diffusion(precision: Precision) {
    for name in ["sd1", "sd2"] {
        let (folder, reference) = (checkpoint(name).join("unet"), Fixture::of_checkpoint(name));
        let (_, unet) =
            stable_diffusion::load_unet::<Flex>(&folder, precision, &Default::default()).unwrap();
        let (sample, timesteps) = (reference.floats("sample"), reference.floats("timesteps"));
        let predicted = unet.forward(sample, timesteps, reference.floats("states"), None);
        assert_eq!(predicted.dtype(), DType::F32);
        assert_near(&reference, "unet.sample", precision, BLOCKS, predicted);
    }
}

fn the_autoencoder_of_stable_diffusion(precision: Precision) {
    let (folder, reference) = (checkpoint("sd1").join("vae"), Fixture::of_checkpoint("sd1"));
    let (_, model) =
        stable_diffusion::load_autoencoder::<Flex>(&folder, precision, &Default::default())
            .unwrap();
    let latents = model.encode(reference.floats("vae_pictures"));
    let pictures = model.decode(reference.floats("vae_latents"));
    let types = [latents.mean.dtype(), latents.logvar.dtype(), pictures.dtype()];
    assert_eq!(types, [DType::F32; 3]);
    assert_near(&reference, "vae.encoder.sample", precision, BLOCKS, latents.mean);
    assert_near(&reference, "vae.decoder.sample", precision, BLOCKS, pictures);
}

/// Masks, and products of the size at which 16 bits overflow.
#[test]
fn attention_of_large_states_stays_finite_and_hides_what_is_masked() {
    use mi2rage_models::dropout::Dropout;
    use mi2rage_models::kernels::attention;
    use mi2rage_models::layers::attention_bias;
    let device = Default::default();
    let (n, c) = (3, 4);
    // Each product is 4 * 200^2 = 160,000, more than the 65,504 of f16.
    let large = Tensor::<Flex, 3>::full([1, n, c], 200.0, &device).cast(DType::F16);
    let value = Tensor::<Flex, 1, Int>::arange(0..(n * c) as i64, &device)
        .float()
        .reshape([1, n, c])
        .cast(DType::F16);
    let visible = Tensor::from_data([[true, true, false]], &device);
    let bias = attention_bias::<Flex>(Some(visible), false, [n, n], &device);
    let output = attention(large.clone(), large, value, 1, bias, &Dropout::new(0.0));
    assert_eq!(output.dtype(), DType::F16);
    let output: Vec<f32> = output.into_data().iter().collect();
    // The mean of the two rows that are seen.
    assert_eq!(output, [2.0, 3.0, 4.0, 5.0].repeat(n));
}

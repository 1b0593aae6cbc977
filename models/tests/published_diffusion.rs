//! The parts of published Stable Diffusion folders, loaded with the ordinary import, against
//! transformers and diffusers.

mod support;

use burn::backend::{Flex, NdArray};
use burn::tensor::{Tensor, backend::Backend};
use mi2rage_models::blocks::Stride;
use mi2rage_models::diffusion::{Guidance, sample, sample_from};
use mi2rage_models::kernels::linear;
use mi2rage_models::layers::attention_bias;
use mi2rage_models::published::{
    Architecture, Precision, PublishedScheduler, clip, inspect, stable_diffusion,
};
use support::{Fixture, checkpoint};

/// Makes one test a backend of each function over backends.
macro_rules! on_flex_and_ndarray {
    ($($test:ident),* $(,)?) => {
        mod flex { $(#[test] fn $test() { super::$test::<super::Flex>(); })* }
        mod ndarray { $(#[test] fn $test() { super::$test::<super::NdArray>(); })* }
    };
}

on_flex_and_ndarray!(
    the_text_encoders_of_both_generations,
    the_unets_of_both_generations,
    the_autoencoders_of_both_generations,
    a_picture_from_a_prompt_and_from_another_picture,
);

const F32: Precision = Precision::F32;

fn last<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 2, 3, 1])
}

fn first<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 3, 1, 2])
}

fn the_text_encoders_of_both_generations<B: Backend>() {
    for name in ["sd1", "sd2"] {
        let folder = checkpoint(name).join("text_encoder");
        let (_, model) = clip::load_text::<B>(&folder, F32, &Default::default()).unwrap();
        let reference = Fixture::of_checkpoint(name);
        for (ids, part) in [("prompt_ids", "text"), ("negative_ids", "text.negative")] {
            let ids = reference.ids(ids);
            let [_, n] = Tensor::dims(&ids);
            let bias = attention_bias::<B>(None, true, [n, n], &Default::default());
            let mut hidden = model.embeddings.forward(Tensor::clone(&ids));
            reference.assert_output(&format!("{part}.hidden.0"), hidden.clone());
            for (i, layer) in model.encoder.layers.iter().enumerate() {
                hidden = layer.forward(hidden, bias.clone());
                reference.assert_output(&format!("{part}.hidden.{}", i + 1), hidden.clone());
            }
            reference.assert_output(&format!("{part}.last"), model.forward(ids, None));
        }
    }
}

fn the_unets_of_both_generations<B: Backend>() {
    for name in ["sd1", "sd2"] {
        let folder = checkpoint(name).join("unet");
        let (_, unet) =
            stable_diffusion::load_unet::<B>(&folder, F32, &Default::default()).unwrap();
        let reference = Fixture::of_checkpoint(name);
        let (sample, timesteps) = (reference.floats("sample"), reference.floats("timesteps"));
        let states = reference.floats("states");
        let time = unet.embed_time(Tensor::clone(&timesteps));
        let condition = unet.condition(Tensor::clone(&states), None);
        let conditions = &mut condition.at(&time);
        let mut hidden = unet.conv_in.forward(last(Tensor::clone(&sample)), Stride::One);
        reference.assert_output("unet.conv_in", first(hidden.clone()));
        let mut skips = vec![hidden.clone()];
        for (i, block) in unet.down_blocks.iter().enumerate() {
            hidden = block.forward(hidden, conditions, &mut skips);
            reference.assert_output(&format!("unet.down.{i}"), first(hidden.clone()));
        }
        hidden = unet.mid_block.forward(hidden, conditions);
        reference.assert_output("unet.mid", first(hidden.clone()));
        for (i, block) in unet.up_blocks.iter().enumerate() {
            hidden = block.forward(hidden, conditions, &mut skips);
            reference.assert_output(&format!("unet.up.{i}"), first(hidden.clone()));
        }
        let predicted = unet.forward(sample, timesteps, states, None);
        reference.assert_output("unet.sample", predicted);
    }
}

fn the_autoencoders_of_both_generations<B: Backend>() {
    for name in ["sd1", "sd2"] {
        let folder = checkpoint(name).join("vae");
        let (_, model) =
            stable_diffusion::load_autoencoder::<B>(&folder, F32, &Default::default()).unwrap();
        let reference = Fixture::of_checkpoint(name);
        let (pictures, latents) =
            (reference.floats("vae_pictures"), reference.floats("vae_latents"));
        let (encoder, decoder) = (&model.encoder, &model.decoder);
        let mut hidden = encoder.conv_in.forward(last(Tensor::clone(&pictures)), Stride::One);
        for (i, block) in encoder.down_blocks.iter().enumerate() {
            hidden = block.forward(hidden);
            reference.assert_output(&format!("vae.encoder.down.{i}"), first(hidden.clone()));
        }
        reference.assert_output("vae.encoder.mid", first(encoder.mid_block.forward(hidden)));
        reference.assert_output("vae.encoder.sample", model.encode(pictures).mean);

        let quantised =
            linear(model.post_quant_conv.as_ref().unwrap(), last(Tensor::clone(&latents)));
        hidden = decoder.mid_block.forward(decoder.conv_in.forward(quantised, Stride::One));
        reference.assert_output("vae.decoder.mid", first(hidden.clone()));
        for (i, block) in decoder.up_blocks.iter().enumerate() {
            hidden = block.forward(hidden);
            reference.assert_output(&format!("vae.decoder.up.{i}"), first(hidden.clone()));
        }
        reference.assert_output("vae.decoder.sample", model.decode(latents));
    }
}

/// All parts at work: diffusers' text to image and image to image, from given noise.
fn a_picture_from_a_prompt_and_from_another_picture<B: Backend>() {
    let (folder, device) = (checkpoint("sd1"), Default::default());
    let reference = Fixture::of_checkpoint("sd1");
    let prompts = std::fs::read_to_string(folder.join("prompts.json")).unwrap();
    let prompts: serde_json::Value = serde_json::from_str(&prompts).unwrap();
    let number = |key: &str| prompts[key].as_f64().unwrap();
    let part = |name: &str| folder.join(name);
    let (_, text) = clip::load_text::<B>(&part("text_encoder"), F32, &device).unwrap();
    let (_, unet) = stable_diffusion::load_unet::<B>(&part("unet"), F32, &device).unwrap();
    let (vae, autoencoder) =
        stable_diffusion::load_autoencoder::<B>(&part("vae"), F32, &device).unwrap();
    let scheduler = std::fs::read_to_string(part("scheduler/scheduler_config.json")).unwrap();
    let scheduler = PublishedScheduler::parse(&scheduler).unwrap();
    let schedule = scheduler.schedule.init().unwrap();
    let states = |ids: &str| text.forward(reference.ids(ids), None);
    let context = Guidance::condition(states("negative_ids"), states("prompt_ids"));
    let condition = unet.condition(context, None);
    let model = |latents, times| unet.predict(latents, times, &condition);
    let guidance = Some(Guidance { scale: number("guidance") });
    let sampler = || {
        let steps = number("steps") as usize;
        scheduler.sampler.init::<B>(&schedule, &scheduler.options, steps).unwrap()
    };
    let none = &mut |_| unreachable!("PNDM adds no noise on the way");

    let latents = sample(model, sampler().as_mut(), guidance, reference.floats("latents"), none);
    reference.assert_output("pipeline.latents", latents.clone());
    reference.assert_output("pipeline.picture", autoencoder.decode(latents / vae.scaling_factor));

    let clean = autoencoder.encode(reference.floats("img2img_picture")).mean * vae.scaling_factor;
    let (strength, noise) = (number("strength"), reference.floats("img2img_noise"));
    let latents =
        sample_from(model, sampler().as_mut(), guidance, clean, strength, noise, none).unwrap();
    reference.assert_output("img2img.latents", latents);
}

#[test]
fn every_part_of_a_pipeline_is_explained_from_headers() {
    let parts = inspect::<Flex>(&checkpoint("sd1"), &Default::default()).unwrap();
    let kinds: Vec<Architecture> = parts.iter().map(|part| part.architecture).collect();
    assert_eq!(kinds, [Architecture::ClipText, Architecture::UNet, Architecture::Autoencoder]);
    assert!(parts.iter().all(|part| part.report.fits() && part.report.parameters() > 0));
}

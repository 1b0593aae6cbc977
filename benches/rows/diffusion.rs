//! Stable Diffusion 1.5 at full size, and what a device's products reach beside it.

use std::hint::black_box;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use mi2rage_models::diffusion::{Guidance, SamplerConfig, SamplerKind, ScheduleConfig, sample};
use mi2rage_models::kernels::linear;
use mi2rage_models::unet::{UNet, UNetConfig};
use mi2rage_models::vae::{AutoencoderKl, VaeConfig};

use super::published::{clip_l14, forward, ids, normal};
use super::{Setting, Work};

/// Products in one run of [`product`].
pub const PRODUCTS: usize = 20;
const STEPS: usize = 20;
const LATENT: [usize; 3] = [4, 64, 64];

pub fn unet_1<B: Backend>(setting: &Setting<'_, B>) -> Work {
    unet_step(setting, 1)
}

pub fn unet_2<B: Backend>(setting: &Setting<'_, B>) -> Work {
    unet_step(setting, 2)
}

pub fn unet_16<B: Backend>(setting: &Setting<'_, B>) -> Work {
    unet_step(setting, 16)
}

fn unet_step<B: Backend>(setting: &Setting<'_, B>, rows: usize) -> Work {
    let (width, model) = unet(setting);
    let latents = latents(rows, &setting.device);
    let times = Tensor::full([rows], 500.0, &setting.device);
    let context = normal([rows, 77, width], &setting.device).cast(setting.precision.dtype());
    forward(move || model.forward(latents.clone(), times.clone(), context.clone(), None))
}

pub fn vae_decode<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let (_, model) = autoencoder(setting);
    let latents = latents(1, &setting.device);
    forward(move || model.decode(latents.clone()))
}

pub fn pictures_1<B: Backend>(setting: &Setting<'_, B>) -> Work {
    pictures(setting, 1)
}

pub fn pictures_8<B: Backend>(setting: &Setting<'_, B>) -> Work {
    pictures(setting, 8)
}

pub fn pictures_16<B: Backend>(setting: &Setting<'_, B>) -> Work {
    pictures(setting, 16)
}

/// From the prompts' tokens to the pixels.
fn pictures<B: Backend>(setting: &Setting<'_, B>, rows: usize) -> Work {
    let device = setting.device.clone();
    let (text_config, text) = clip_l14(setting);
    let (_, unet) = unet(setting);
    let (scaling, vae) = autoencoder(setting);
    let schedule = ScheduleConfig::default().init().expect("the default schedule is sound");
    let options = SamplerConfig { steps_offset: 1, ..SamplerConfig::default() };
    let prompts = |rows| {
        let shape = [rows, text_config.max_position_embeddings];
        ids::<B>(shape, text_config.vocab_size, &device)
    };
    let (negative, positive) = (prompts(1), prompts(rows));
    Box::new(move || {
        let negative = text.forward(negative.clone(), None).repeat_dim(0, rows);
        let context = Guidance::condition(negative, text.forward(positive.clone(), None));
        let condition = unet.condition(context, None);
        let model = |latents, times| unet.predict(latents, times, &condition);
        let mut sampler = SamplerKind::DpmSolverPlusPlus2M
            .init::<B>(&schedule, &options, STEPS)
            .expect("the sampler fits the schedule");
        let guidance = Some(Guidance { scale: 7.5 });
        let none = &mut |_| unreachable!("the sampler adds no noise");
        let latents = latents(rows, &device);
        let latents = sample(model, sampler.as_mut(), guidance, latents, none);
        black_box(vae.decode(latents / scaling).into_data());
    })
}

/// The width of the condition, and the model.
fn unet<B: Backend>(setting: &Setting<'_, B>) -> (usize, UNet<B>) {
    let config = UNetConfig::stable_diffusion_1_5();
    let model = config.init(&setting.device).expect("the published configuration is sound");
    (config.cross_attention_dim, setting.drawn(model))
}

/// The scale of its latents, and the model.
fn autoencoder<B: Backend>(setting: &Setting<'_, B>) -> (f64, AutoencoderKl<B>) {
    let config = VaeConfig::default();
    let model = config.init(&setting.device).expect("the published configuration is sound");
    (config.scaling_factor, setting.drawn(model))
}

fn latents<B: Backend>(rows: usize, device: &B::Device) -> Tensor<B, 4> {
    let [channels, height, width] = LATENT;
    normal([rows, channels, height, width], device)
}

/// Each product is a factor of the next, so that none is left out; 4096 terms of this deviation keep its.
pub fn product<B: Backend>(setting: &Setting<'_, B>) -> Work {
    const SIZE: usize = 4096;
    let deviation = 1.0 / (SIZE as f64).sqrt();
    let drawn = |distribution| {
        let matrix = Tensor::<B, 2>::random([SIZE, SIZE], distribution, &setting.device);
        matrix.cast(setting.precision.dtype())
    };
    let left = drawn(Distribution::Normal(0.0, 1.0));
    let right = drawn(Distribution::Normal(0.0, deviation));
    let right = Linear { weight: Param::from_tensor(right), bias: None };
    Box::new(move || {
        let product = (0..PRODUCTS).fold(left.clone(), |left, _| linear(&right, left));
        black_box(product.slice([0..1, 0..1]).into_data());
    })
}

//! The U-Net and the autoencoder against diffusers.

mod support;

use burn::backend::{Flex, NdArray};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, backend::Backend};
use mi2rage_models::blocks::Stride;
use mi2rage_models::unet::{PerBlock, UNetConfig, sinusoidal_embedding};
use mi2rage_models::vae::VaeConfig;
use support::Fixture;

/// Ours and diffusers', see `mi2rage_models::unet`.
const NAMES: [(&str, &str); 2] = [("net_0", "net.0"), ("net_2", "net.2")];

/// Makes one test a backend of each function over backends.
macro_rules! on_flex_and_ndarray {
    ($($test:ident),* $(,)?) => {
        mod flex { $(#[test] fn $test() { super::$test::<super::Flex>(); })* }
        mod ndarray { $(#[test] fn $test() { super::$test::<super::NdArray>(); })* }
    };
}

on_flex_and_ndarray!(
    the_unet_of_stable_diffusion_1_agrees_with_diffusers,
    the_unet_of_stable_diffusion_2_agrees_with_diffusers,
    the_autoencoder_agrees_with_diffusers,
    an_autoencoder_without_attention_and_quantisation_agrees_with_diffusers,
);

fn the_unet_of_stable_diffusion_1_agrees_with_diffusers<B: Backend>() {
    unet_agrees::<B>("unet_sd1");
}

fn the_unet_of_stable_diffusion_2_agrees_with_diffusers<B: Backend>() {
    unet_agrees::<B>("unet_sd2");
}

fn the_autoencoder_agrees_with_diffusers<B: Backend>() {
    autoencoder_agrees::<B>("vae");
}

fn an_autoencoder_without_attention_and_quantisation_agrees_with_diffusers<B: Backend>() {
    autoencoder_agrees::<B>("vae_plain");
}

fn last<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 2, 3, 1])
}

fn first<B: Backend>(pictures: Tensor<B, 4>) -> Tensor<B, 4> {
    pictures.permute([0, 3, 1, 2])
}

fn unet_agrees<B: Backend>(name: &str) {
    let fixture = Fixture::open(name);
    let config: UNetConfig = serde_json::from_value(fixture.config.clone()).unwrap();
    let unet = fixture.fill(config.init::<B>(&Default::default()).unwrap(), &NAMES);
    let (sample, timesteps) = (fixture.floats("sample"), fixture.floats("timesteps"));
    let (states, mask) = (fixture.floats("states"), fixture.mask("mask"));

    // Stage by stage, so that a failure names the first that is off.
    let time = unet.embed_time(timesteps.clone());
    let sinusoids = sinusoidal_embedding(
        timesteps.clone(),
        config.block_out_channels[0],
        config.flip_sin_to_cos,
        config.freq_shift,
    );
    fixture.assert_output("time", unet.time_embedding.forward(sinusoids));
    let condition = unet.condition(states.clone(), Some(mask.clone()));
    let conditions = &mut condition.at(&time);
    let mut hidden = unet.conv_in.forward(last(sample.clone()), Stride::One);
    fixture.assert_output("conv_in", first(hidden.clone()));
    let mut skips = vec![hidden.clone()];
    for (i, block) in unet.down_blocks.iter().enumerate() {
        hidden = block.forward(hidden, conditions, &mut skips);
        fixture.assert_output(&format!("down.{i}"), first(hidden.clone()));
    }
    hidden = unet.mid_block.forward(hidden, conditions);
    fixture.assert_output("mid", first(hidden.clone()));
    for (i, block) in unet.up_blocks.iter().enumerate() {
        hidden = block.forward(hidden, conditions, &mut skips);
        fixture.assert_output(&format!("up.{i}"), first(hidden.clone()));
    }

    let masked = || unet.predict(sample.clone(), timesteps.clone(), &condition);
    fixture.assert_output("sample", masked());
    // A condition serves again.
    fixture.assert_output("sample", masked());
    fixture.assert_output("plain", unet.forward(sample, timesteps, states, None));
}

fn autoencoder_agrees<B: Backend>(name: &str) {
    let fixture = Fixture::open(name);
    let config: VaeConfig = serde_json::from_value(fixture.config.clone()).unwrap();
    let model = fixture.fill(config.init::<B>(&Default::default()).unwrap(), &NAMES);
    let (encoder, decoder) = (&model.encoder, &model.decoder);
    let (pictures, latents) = (fixture.floats("pictures"), fixture.floats("latents"));

    let mut hidden = encoder.conv_in.forward(last(Tensor::clone(&pictures)), Stride::One);
    for (i, block) in encoder.down_blocks.iter().enumerate() {
        hidden = block.forward(hidden);
        fixture.assert_output(&format!("encoder.down.{i}"), first(hidden.clone()));
    }
    fixture.assert_output("encoder.mid", first(encoder.mid_block.forward(hidden)));
    let latent = model.encode(pictures);
    fixture.assert_output("mean", latent.mean.clone());
    fixture.assert_output("logvar", latent.logvar.clone());
    fixture.assert_output("latent", latent.sample(fixture.floats("noise")));
    fixture.assert_output("kl", latent.kl());

    let mut hidden = last(Tensor::clone(&latents));
    if let Some(layer) = &model.post_quant_conv {
        hidden = layer.forward(hidden);
    }
    hidden = decoder.mid_block.forward(decoder.conv_in.forward(hidden, Stride::One));
    fixture.assert_output("decoder.mid", first(hidden.clone()));
    for (i, block) in decoder.up_blocks.iter().enumerate() {
        hidden = block.forward(hidden);
        fixture.assert_output(&format!("decoder.up.{i}"), first(hidden.clone()));
    }
    fixture.assert_output("sample", model.decode(latents));
}

/// Counts parameters by their shapes, so that none is drawn.
struct Count(usize);

impl<B: Backend> ModuleVisitor<B> for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0 += param.lazy_shape().num_elements();
    }
}

fn parameters(module: &impl Module<Flex>) -> usize {
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

#[test]
fn the_published_models_have_as_many_parameters_as_published() {
    let unet = |config: UNetConfig| config.init::<Flex>(&Default::default()).unwrap();
    let first = unet(UNetConfig::stable_diffusion_1_5());
    assert_eq!(parameters(&first), 859_520_964);
    let second = unet(UNetConfig::stable_diffusion_2_1_base());
    assert_eq!(parameters(&second), 865_910_724);
    let autoencoder = VaeConfig::default().init::<Flex>(&Default::default()).unwrap();
    assert_eq!(parameters(&autoencoder), 83_653_863);
}

#[test]
fn a_config_that_describes_no_model_is_refused_with_the_key() {
    let refused =
        |config: UNetConfig| config.init::<Flex>(&Default::default()).unwrap_err().to_string();
    let good = UNetConfig::default();
    let short = UNetConfig { block_out_channels: vec![320, 640], ..good.clone() };
    assert!(refused(short).contains("down_block_types lists 4 blocks"));
    let groups = UNetConfig { block_out_channels: vec![320, 640, 1280, 1000], ..good.clone() };
    assert!(refused(groups).contains("block_out_channels[3] is 1000, which norm_num_groups (32)"));
    let heads = UNetConfig { attention_head_dim: PerBlock::All(0), ..good };
    assert!(refused(heads).contains("attention_head_dim must be at least 1"));
    let groups = VaeConfig { norm_num_groups: 33, ..VaeConfig::default() };
    let error = groups.init::<Flex>(&Default::default()).unwrap_err().to_string();
    assert!(error.contains("block_out_channels[0] is 128"), "{error}");
}

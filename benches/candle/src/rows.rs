//! Models of candle-transformers with the sizes and inputs of `benches/rows`.

use std::hint::black_box;
use std::path::Path;

use candle_core::{DType, Device, Module, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Activation, Init, VarBuilder};
use candle_transformers::models::stable_diffusion::clip::{self, ClipTextTransformer};
use candle_transformers::models::stable_diffusion::unet_2d::{
    UNet2DConditionModel, UNet2DConditionModelConfig,
};
use candle_transformers::models::stable_diffusion::vae::{AutoEncoderKL, AutoEncoderKLConfig};
use candle_transformers::models::{bert, blip, blip_text, vit};

/// What a row does each time; its model and inputs are inside.
type Work = Box<dyn FnMut() -> Result<()>>;

/// Name, and what makes the work; the folder is where files lie that it needs.
type Row = (&'static str, fn(&Path) -> Result<Work>);

pub const ROWS: &[Row] = &[
    ("bert", bert),
    ("bert-load", bert_load),
    ("vit", vit),
    ("clip-text", clip_text),
    ("caption", caption),
    ("unet-1", |_| unet(1)),
    ("unet-2", |_| unet(2)),
    ("vae-decode", vae_decode),
];

fn bert(_: &Path) -> Result<Work> {
    let model = bert::BertModel::load(random(), &bert::Config::default())?;
    let ids = ids(8, 128, 30522)?;
    let segments = ids.zeros_like()?;
    forward(move || model.forward(&ids, &segments, None))
}

/// The folder is the one that `benches/rows` has written.
fn bert_load(folder: &Path) -> Result<Work> {
    let weights = folder.join("bert-base").join("model.safetensors");
    let ids = ids(1, 16, 30522)?;
    let segments = ids.zeros_like()?;
    forward(move || {
        // Sound as long as nobody changes the file.
        let weights =
            unsafe { VarBuilder::from_mmaped_safetensors(&[&weights], DType::F32, &Device::Cpu)? };
        bert::BertModel::load(weights, &bert::Config::default())?.forward(&ids, &segments, None)
    })
}

fn vit(_: &Path) -> Result<Work> {
    let model = vit::Model::new(&vit::Config::vit_base_patch16_224(), 1000, random())?;
    let pixels = normal((8, 3, 224, 224))?;
    forward(move || model.forward(&pixels))
}

fn clip_text(_: &Path) -> Result<Work> {
    let model = ClipTextTransformer::new(random(), &clip::Config::v1_5())?;
    let prompts = [ids(1, 77, 49408)?, ids(1, 77, 49408)?];
    // One after the other as in candle's example: the causal mask is made for a single prompt.
    forward(move || Tensor::cat(&[model.forward(&prompts[0])?, model.forward(&prompts[1])?], 0))
}

fn caption(_: &Path) -> Result<Work> {
    // https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json
    let text_config = blip_text::Config {
        vocab_size: 30524,
        hidden_size: 768,
        encoder_hidden_size: 768,
        intermediate_size: 3072,
        projection_dim: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        max_position_embeddings: 512,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-12,
        is_decoder: true,
    };
    let vision_config = blip::VisionConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        projection_dim: 512,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        image_size: 384,
        patch_size: 16,
        hidden_act: Activation::Gelu,
        layer_norm_eps: 1e-5,
    };
    let config = blip::Config {
        text_config,
        vision_config,
        projection_dim: 512,
        image_text_hidden_size: 256,
    };
    let mut model = blip::BlipForConditionalGeneration::new(&config, random())?;
    let pixels = normal((1, 3, 384, 384))?;
    Ok(Box::new(move || {
        model.reset_kv_cache();
        let states = model.vision_model().forward(&pixels)?;
        let mut token = 30522u32;
        for _ in 0..20 {
            let ids = Tensor::new(&[[token]], &Device::Cpu)?;
            let logits = model.text_decoder().forward(&ids, &states)?;
            token = logits.flatten_all()?.argmax(0)?.to_scalar()?;
        }
        black_box(token);
        Ok(())
    }))
}

fn unet(rows: usize) -> Result<Work> {
    // Stable Diffusion 1.5 but for its width of the condition is the default.
    let config = UNet2DConditionModelConfig { cross_attention_dim: 768, ..Default::default() };
    let model = UNet2DConditionModel::new(random(), 4, 4, false, config)?;
    let latents = normal((rows, 4, 64, 64))?;
    let context = normal((rows, 77, 768))?;
    forward(move || model.forward(&latents, 500.0, &context))
}

fn vae_decode(_: &Path) -> Result<Work> {
    let config = AutoEncoderKLConfig {
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        ..Default::default()
    };
    let model = AutoEncoderKL::new(random(), 3, 3, config)?;
    let latents = normal((1, 4, 64, 64))?;
    forward(move || model.decode(&latents))
}

fn forward(model: impl Fn() -> Result<Tensor> + 'static) -> Result<Work> {
    Ok(Box::new(move || {
        black_box(model()?);
        Ok(())
    }))
}

fn normal(shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu)
}

fn ids(rows: usize, tokens: usize, vocabulary: u32) -> Result<Tensor> {
    Tensor::rand(0f32, vocabulary as f32, (rows, tokens), &Device::Cpu)?.to_dtype(DType::U32)
}

fn random() -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Random), DType::F32, Device::Cpu)
}

/// Random weights. Not a `VarMap`'s: those are variables, for whose gradients candle would keep
/// what every operation has read.
struct Random;

impl SimpleBackend for Random {
    fn get(
        &self,
        shape: Shape,
        _: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let init = match init {
            Init::Const(_) if shape.rank() == 1 => init,
            _ => Init::Randn { mean: 0.0, stdev: 0.02 },
        };
        Ok(init.var(shape, dtype, device)?.as_detached_tensor())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: asked for without its shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

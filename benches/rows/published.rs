//! The published architectures at full size.

use std::hint::black_box;
use std::path::Path;

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Int, Tensor};
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::decoding::{Decoding, Request, Strategy};
use mi2rage_models::published::blip;
use mi2rage_models::unet::UNetConfig;
use mi2rage_models::vae::VaeConfig;
use mi2rage_models::vit::ViTConfig;
use serde_json::json;

use super::Work;

type Learning = Autodiff<Flex>;

const CLASSES: usize = 1000;
const SENTENCES: [usize; 2] = [8, 128];
const PICTURES: [usize; 4] = [8, 3, 224, 224];

pub fn bert(_: &Path) -> Work {
    let config = BertConfig::default();
    let model = drawn::<Flex, _>(config.init(&Default::default()));
    let ids = ids(SENTENCES, config.vocab_size);
    forward(move || model.forward(ids.clone(), None, None))
}

pub fn bert_gradients(_: &Path) -> Work {
    let config = BertConfig::default();
    let model = drawn::<Learning, _>(config.init(&Default::default()));
    let ids = ids(SENTENCES, config.vocab_size);
    let [rows, tokens] = SENTENCES;
    let forward = move || model.forward(ids.clone(), None, None);
    gradients([rows, tokens, config.hidden_size], forward)
}

pub fn vit(_: &Path) -> Work {
    let model = ViTConfig::default().init_classifier(CLASSES, &Default::default());
    let model = drawn::<Flex, _>(model);
    let pixels = normal(PICTURES);
    forward(move || model.forward(pixels.clone()))
}

pub fn vit_gradients(_: &Path) -> Work {
    let model = ViTConfig::default().init_classifier(CLASSES, &Default::default());
    let model = drawn::<Learning, _>(model);
    let pixels = normal(PICTURES);
    gradients([PICTURES[0], CLASSES], move || model.forward(pixels.clone()))
}

pub fn clip_text(_: &Path) -> Work {
    // https://huggingface.co/openai/clip-vit-large-patch14/blob/main/config.json
    let config = ClipTextConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_attention_heads: 12,
        ..ClipTextConfig::default()
    };
    let model = drawn::<Flex, _>(config.init(&Default::default()));
    let ids = ids([2, config.max_position_embeddings], config.vocab_size);
    forward(move || model.forward(ids.clone(), None))
}

/// From the pixels; every caption has all of its tokens.
pub fn caption(_: &Path) -> Work {
    // https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json
    let json = json!({ "text_config": { "num_attention_heads": 12 } });
    let config = blip::config(&json).expect("the published configuration is sound");
    let CaptionerConfig { vision, .. } = &config.model;
    let pixels = normal([1, vision.num_channels, vision.image_size, vision.image_size]);
    let model = drawn::<Flex, _>(config.model.init(&Default::default()));
    let request = Request { prompt: vec![config.bos_token_id], phrases: Vec::new() };
    let decoding = Decoding {
        strategy: Strategy::Greedy,
        min_new_tokens: 20,
        max_new_tokens: 20,
        end: config.sep_token_id,
        never: Vec::new(),
        continuations: Vec::new(),
    };
    Box::new(move || {
        let requests = std::slice::from_ref(&request);
        let captions = model.generate(pixels.clone(), requests, &decoding, &mut []);
        assert_eq!(captions.expect("the request is sound")[0].tokens.len(), 20);
    })
}

pub fn unet_1(_: &Path) -> Work {
    unet(1)
}

pub fn unet_2(_: &Path) -> Work {
    unet(2)
}

fn unet(rows: usize) -> Work {
    let config = UNetConfig::stable_diffusion_1_5();
    let model = config.init(&Default::default()).expect("the published configuration is sound");
    let model = drawn::<Flex, _>(model);
    let side = config.sample_size;
    let latents = normal([rows, config.in_channels, side, side]);
    let times = Tensor::full([rows], 500.0, &Default::default());
    let context = normal([rows, 77, config.cross_attention_dim]);
    forward(move || model.forward(latents.clone(), times.clone(), context.clone(), None))
}

pub fn vae_decode(_: &Path) -> Work {
    let config = VaeConfig::default();
    let model = config.init(&Default::default()).expect("the published configuration is sound");
    let model = drawn::<Flex, _>(model);
    let latents = normal([1, config.latent_channels, 64, 64]);
    forward(move || model.decode(latents.clone()))
}

fn forward<const D: usize>(model: impl Fn() -> Tensor<Flex, D> + 'static) -> Work {
    Box::new(move || {
        black_box(model().into_data());
    })
}

/// The gradients of all parameters. The loss is the output along one random direction: the plain
/// sum of what a layer norm gives would have none.
fn gradients<const D: usize>(
    shape: [usize; D],
    model: impl Fn() -> Tensor<Learning, D> + 'static,
) -> Work {
    let direction = normal(shape);
    Box::new(move || {
        black_box((model() * direction.clone()).sum().backward());
    })
}

pub fn ids<B: Backend>(shape: [usize; 2], vocabulary: usize) -> Tensor<B, 2, Int> {
    let distribution = Distribution::Uniform(0.0, vocabulary as f64);
    Tensor::random(shape, distribution, &Default::default())
}

fn normal<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

/// The module with its weights, which burn would draw where they are first used.
fn drawn<B: Backend, M: Module<B>>(module: M) -> M {
    module.visit(&mut Draw);
    module
}

struct Draw;

impl<B: Backend> ModuleVisitor<B> for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        param.val();
    }
}

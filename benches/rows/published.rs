//! The published architectures at full size, but for Stable Diffusion.

use std::hint::black_box;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Int, Tensor};
use mi2rage_models::adamw::AdamW;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::clip::{ClipTextConfig, ClipTextModel};
use mi2rage_models::decoding::{Decoding, Request, Strategy};
use mi2rage_models::published::blip;
use mi2rage_models::vit::ViTConfig;
use serde_json::json;

use super::{Setting, Work, learn};

const CLASSES: usize = 1000;
const TOKENS: usize = 128;

pub fn bert<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = BertConfig::default();
    let model = setting.drawn(config.init(&setting.device));
    let ids = ids([8, TOKENS], config.vocab_size, &setting.device);
    forward(move || model.forward(ids.clone(), None, None))
}

pub fn bert_gradients<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = BertConfig::default();
    let model = drawn::<Autodiff<B>, _>(config.init(&setting.device));
    let ids = ids::<Autodiff<B>>([8, TOKENS], config.vocab_size, &setting.device);
    let direction = normal([8, TOKENS, config.hidden_size], &setting.device);
    gradients(setting, move || (model.forward(ids.clone(), None, None) * direction.clone()).sum())
}

pub fn bert_training<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = BertConfig::default();
    let model = drawn::<Autodiff<B>, _>(config.init(&setting.device));
    let ids = ids::<Autodiff<B>>([32, TOKENS], config.vocab_size, &setting.device);
    let direction = normal([32, TOKENS, config.hidden_size], &setting.device);
    training(setting, model, move |model| {
        (model.forward(ids.clone(), None, None) * direction.clone()).sum()
    })
}

pub fn vit<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = ViTConfig::default();
    let model = setting.drawn(config.init_classifier(CLASSES, &setting.device));
    let pixels = normal(pictures(8), &setting.device);
    forward(move || model.forward(pixels.clone()))
}

pub fn vit_gradients<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = ViTConfig::default();
    let model = drawn::<Autodiff<B>, _>(config.init_classifier(CLASSES, &setting.device));
    let pixels = normal(pictures(8), &setting.device);
    let direction = normal([8, CLASSES], &setting.device);
    gradients(setting, move || (model.forward(pixels.clone()) * direction.clone()).sum())
}

pub fn vit_training<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let config = ViTConfig::default();
    let model = drawn::<Autodiff<B>, _>(config.init_classifier(CLASSES, &setting.device));
    let pixels = normal(pictures(32), &setting.device);
    let direction = normal([32, CLASSES], &setting.device);
    training(setting, model, move |model| (model.forward(pixels.clone()) * direction.clone()).sum())
}

pub fn clip_text<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let (config, model) = clip_l14(setting);
    let ids = ids([2, config.max_position_embeddings], config.vocab_size, &setting.device);
    forward(move || model.forward(ids.clone(), None))
}

/// The text encoder of CLIP ViT-L/14, which is also that of Stable Diffusion 1.5.
pub fn clip_l14<B: Backend>(setting: &Setting<'_, B>) -> (ClipTextConfig, ClipTextModel<B>) {
    // https://huggingface.co/openai/clip-vit-large-patch14/blob/main/config.json
    let config = ClipTextConfig {
        hidden_size: 768,
        intermediate_size: 3072,
        num_attention_heads: 12,
        ..ClipTextConfig::default()
    };
    let model = setting.drawn(config.init(&setting.device));
    (config, model)
}

/// From the pixels; every caption has all of its tokens.
pub fn caption<B: Backend>(setting: &Setting<'_, B>) -> Work {
    // https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json
    let json = json!({ "text_config": { "num_attention_heads": 12 } });
    let config = blip::config(&json).expect("the published configuration is sound");
    let CaptionerConfig { vision, .. } = &config.model;
    let shape = [1, vision.num_channels, vision.image_size, vision.image_size];
    let pixels = normal(shape, &setting.device);
    let model = setting.drawn(config.model.init(&setting.device));
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

pub fn forward<B: Backend, const D: usize>(model: impl Fn() -> Tensor<B, D> + 'static) -> Work {
    Box::new(move || {
        black_box(model().into_data());
    })
}

fn gradients<B: Backend>(
    setting: &Setting<'_, B>,
    loss: impl Fn() -> Tensor<Autodiff<B>, 1> + 'static,
) -> Work {
    let precision = setting.precision;
    Box::new(move || {
        black_box(learn(precision, &loss).backward());
    })
}

/// One update after another. The loss of these rows is the output along one random direction: the plain
/// sum of what a layer norm gives would have no gradient.
fn training<B: Backend, M: AutodiffModule<Autodiff<B>> + 'static>(
    setting: &Setting<'_, B>,
    model: M,
    loss: impl Fn(&M) -> Tensor<Autodiff<B>, 1> + 'static,
) -> Work {
    let optimizer = AdamW { weight_decay: 0.05 };
    let mut optimizer = OptimizerAdaptor::<_, M, Autodiff<B>>::from(optimizer);
    let (mut model, precision) = (Some(model), setting.precision);
    Box::new(move || {
        let before = model.take().expect("every update puts a model back");
        let gradients = learn(precision, || loss(&before)).backward();
        let gradients = GradientsParams::from_grads(gradients, &before);
        model = Some(optimizer.step(1e-5, before, gradients));
    })
}

fn pictures(count: usize) -> [usize; 4] {
    [count, 3, 224, 224]
}

pub fn ids<B: Backend>(
    shape: [usize; 2],
    vocabulary: usize,
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    Tensor::random(shape, Distribution::Uniform(0.0, vocabulary as f64), device)
}

pub fn normal<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

impl<B: Backend> Setting<'_, B> {
    /// [`drawn`], in the precision that is asked for.
    pub fn drawn<M: Module<B>>(&self, module: M) -> M {
        self.precision.convert(drawn(module))
    }
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

//! The bundled models as the embedded world's experiments use them.

use std::fmt::Display;
use std::hint::black_box;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::tensor::backend::Backend;
use burn::train::{InferenceStep, Learner, TrainStep};
use mi2rage::bundle::{Bundle, DIFFUSION, TEXT, VISION};
use mi2rage::data::published::Preprocessor;
use mi2rage::data::tokens::EncodedText;
use mi2rage::data::{Picture, Split};
use mi2rage::generators::{
    CaptionOptions, CaptionWriter, DiffusionConfig, DrawOptions, LatentDiffusion, PROMPT_TOKENS,
};
use mi2rage::keyed::{self, Key};
use mi2rage::train::StepLoss;
use mi2rage::train::tasks::diffusion::{DiffusionBatch, TextToLatent};
use mi2rage::train::tasks::relations::{Pair, PairBatch, RelationTask};
use mi2rage::world::World;
use mi2rage::world::forms::FORMS;
use mi2rage::world::web::WebItem;
use mi2rage_models::adamw::AdamW;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::diffusion::SamplerKind;
use mi2rage_models::fusion::{FusionClassifier, FusionConfig};
use mi2rage_models::vit::ViTConfig;

use super::{Setting, Work, learn};

pub const BATCH: usize = 32;

/// The text encoder is frozen, as in pretraining.
pub fn unet_step<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let (bundle, device) = (Bundle::embedded(), &setting.device);
    // On the autodiff backend from the start, or the weights would get no gradients.
    let init = |config: &DiffusionConfig| {
        let unet = config.unet.init(device).map_err(|error| error.to_string())?;
        Ok(TextToLatent { text_model: config.text.init(device), unet })
    };
    let (config, mut model) = bundle
        .model::<Autodiff<B>, DiffusionConfig, TextToLatent<_>>(DIFFUSION, device, init)
        .expect("the bundled weights fit");
    model.text_model = model.text_model.no_grad();
    let schedule = Arc::new(config.schedule.init().expect("the bundled schedule is sound"));
    let key = Key::new(1);
    let latents: Vec<Vec<f32>> =
        (0..BATCH).map(|row| keyed::normal(&mut key.with("latent", row).rng(), 4 * 64)).collect();
    let latents: Vec<&[f32]> = latents.iter().map(Vec::as_slice).collect();
    let ids = vec![20; BATCH * PROMPT_TOKENS];
    training(setting, model, DiffusionBatch::new(&latents, [4, 8, 8], ids, schedule, 0.0, &key))
}

pub fn student_step<B: Backend>(setting: &Setting<'_, B>) -> Work {
    student(setting, false)
}

pub fn student_frozen_step<B: Backend>(setting: &Setting<'_, B>) -> Work {
    student(setting, true)
}

fn student<B: Backend>(setting: &Setting<'_, B>, frozen: bool) -> Work {
    let (bundle, device) = (Bundle::embedded(), &setting.device);
    let (text, bert) = bundle
        .model::<Autodiff<B>, BertConfig, _>(TEXT, device, |config| {
            Ok(config.init_masked_lm(device))
        })
        .expect("the bundled weights fit");
    let (vision, vit) = bundle
        .model::<Autodiff<B>, ViTConfig, _>(VISION, device, |config| {
            Ok(config.init_classifier(FORMS, device))
        })
        .expect("the bundled weights fit");
    let config = FusionConfig {
        fusion_size: text.hidden_size,
        fusion_heads: 4,
        text,
        vision,
        ..FusionConfig::default()
    };
    let head = config.init::<Autodiff<B>>(device).head;
    let (text, vision) = (bert.bert, vit.vit);
    let (text, vision) = if frozen { (text.no_grad(), vision.no_grad()) } else { (text, vision) };
    let size = config.vision.image_size;
    let preprocessor = Preprocessor::square(size);
    let pair = |row: usize| {
        let text = EncodedText {
            ids: vec![20; 17 + row % 8],
            head_marker: 1,
            tail_marker: 9,
            truncated: false,
        };
        let picture = Picture {
            width: size,
            height: size,
            rgb: (0..3 * size * size).map(|at| (at * row) as u8).collect(),
        };
        Pair::new(
            Some(Arc::new(text)),
            Some(Arc::new(preprocessor.see(&picture))),
            row % config.num_labels,
        )
    };
    let batch = PairBatch::new((0..BATCH).map(pair).collect());
    training(setting, RelationTask { model: FusionClassifier { text, vision, head } }, batch)
}

/// One update after another on the same batch, as `mi2rage train` makes them but without dropout.
fn training<B: Backend, M>(setting: &Setting<'_, B>, model: M, batch: M::Input) -> Work
where
    M: TrainStep<Output = StepLoss<B>> + AutodiffModule<Autodiff<B>> + Display + 'static,
    M::InnerModule: InferenceStep,
    M::Input: Clone,
{
    let optimizer = OptimizerAdaptor::<_, M, Autodiff<B>>::from(AdamW { weight_decay: 0.05 });
    let mut learner = Learner::new(model, optimizer, 1e-3);
    learner.lr_step();
    let precision = setting.precision;
    Box::new(move || {
        let step = learn(precision, || learner.train_step(batch.clone()));
        learner.optimizer_step(step.grads);
        black_box(step.item.0.into_data());
    })
}

pub fn pictures<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let bundle = Bundle::embedded();
    let size = bundle.picture_size().expect("the bundle knows its pictures");
    let options = DrawOptions {
        sampler: SamplerKind::DpmSolverPlusPlus2M,
        steps: 8,
        guidance: 3.0,
        negative: Vec::new(),
    };
    let Setting { precision, device, .. } = setting;
    let painter = LatentDiffusion::<B>::load(&bundle, options, size, *precision, device)
        .expect("the bundled weights fit");
    let web = web();
    Box::new(move || {
        let prompts: Vec<(&[String], Key)> =
            web.iter().map(|item| (&item.caption[item.names..], Key::new(1))).collect();
        black_box(painter.sample(&prompts).expect("the prompts are plain words"));
    })
}

pub fn captions<B: Backend>(setting: &Setting<'_, B>) -> Work {
    let options = CaptionOptions { top_p: 0.9, beams: 1, temperature: 1.0, max_tokens: 32 };
    let Setting { precision, device, .. } = setting;
    let writer = CaptionWriter::<B>::load(&Bundle::embedded(), options, *precision, device)
        .expect("the bundled weights fit");
    let web = web();
    Box::new(move || {
        let pictures: Vec<(&Picture, Vec<String>, Key)> =
            web.iter().map(|item| (&item.picture, Vec::new(), Key::new(1))).collect();
        black_box(writer.write(&pictures).expect("the pictures have one size"));
    })
}

fn web() -> Vec<WebItem> {
    let world = World::new(Default::default()).expect("the default world is sound");
    (0..BATCH as u64).map(|index| world.web_item(index, Split::Test)).collect()
}

//! The bundled models at work: a training step of the diffusion model and of a student, pictures and
//! captions a second.
//!
//!     cargo bench --bench world
//!
//! `RAYON_NUM_THREADS=1` measures one core, which is what an experiment gives each of its jobs.

use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::module::Module;
use burn::train::TrainStep;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mi2rage::bundle::{Bundle, DIFFUSION, TEXT, VISION};
use mi2rage::data::{Picture, Split};
use mi2rage::generators::{
    CaptionOptions, CaptionWriter, DiffusionConfig, DrawOptions, LatentDiffusion, PROMPT_TOKENS,
};
use mi2rage::keyed::{self, Key};
use mi2rage::train::tasks::diffusion::{DiffusionBatch, TextToLatent};
use mi2rage::train::tasks::relations::{Pair, PairBatch, RelationTask};
use mi2rage::world::World;
use mi2rage::world::web::WebItem;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::diffusion::SamplerKind;
use mi2rage_models::fusion::{FusionClassifier, FusionConfig};
use mi2rage_models::precision::Precision;
use mi2rage_models::vit::ViTConfig;

const BATCH: usize = 32;

fn world() -> World {
    World::new(Default::default()).expect("the default world is sound")
}

fn web() -> Vec<WebItem> {
    let world = world();
    (0..BATCH as u64).map(|index| world.web_item(index, Split::Test)).collect()
}

fn diffusion(criterion: &mut Criterion) {
    let (bundle, device) = (Bundle::embedded(), Default::default());
    // On the autodiff backend from the start, or the weights would get no gradients.
    let init = |config: &DiffusionConfig| {
        let unet = config.unet.init(&device).map_err(|error| error.to_string())?;
        Ok(TextToLatent { text_model: config.text.init(&device), unet })
    };
    let (config, mut model) = bundle
        .model::<Autodiff<Flex>, DiffusionConfig, TextToLatent<_>>(DIFFUSION, &device, init)
        .expect("the bundled weights fit");
    model.text_model = model.text_model.no_grad();
    let schedule = Arc::new(config.schedule.init().expect("the bundled schedule is sound"));
    let key = Key::new(1);
    let latents: Vec<Vec<f32>> =
        (0..BATCH).map(|row| keyed::normal(&mut key.with("latent", row).rng(), 4 * 64)).collect();
    let latents: Vec<&[f32]> = latents.iter().map(Vec::as_slice).collect();
    let ids = vec![20; BATCH * PROMPT_TOKENS];
    let batch = DiffusionBatch::new(&latents, [4, 8, 8], ids, schedule, 0.0, &key);
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("diffusion model", |bencher| {
        bencher.iter(|| TrainStep::step(&model, batch.clone()).item);
    });
    group.finish();
}

fn student(criterion: &mut Criterion) {
    type B = Autodiff<Flex>;
    let (bundle, device) = (Bundle::embedded(), Default::default());
    let (text, bert) = bundle
        .model::<B, BertConfig, _>(TEXT, &device, |config| Ok(config.init_masked_lm(&device)))
        .expect("the bundled weights fit");
    let (vision, vit) = bundle
        .model::<B, ViTConfig, _>(VISION, &device, |config| {
            Ok(config.init_classifier(mi2rage::world::forms::FORMS, &device))
        })
        .expect("the bundled weights fit");
    let world = world();
    let config = FusionConfig {
        fusion_size: text.hidden_size,
        num_labels: world.relations().len(),
        text,
        vision,
        ..FusionConfig::default()
    };
    let head = config.init::<B>(&device).head;
    let tokenizer = bundle.tokenizer().expect("the bundled tokenizer is one");
    let pairs: Vec<Pair> = world
        .posts(Split::Train, 1, BATCH)
        .iter()
        .zip(web())
        .map(|(post, item)| Pair {
            text: tokenizer.encode_example(post, 48).ok().map(Arc::new),
            picture: Some(Arc::new(item.picture)),
            label: post.label,
        })
        .collect();
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(20).throughput(Throughput::Elements(BATCH as u64));
    for (name, frozen) in [("student", false), ("student, encoders frozen", true)] {
        let (text, vision) = (bert.bert.clone(), vit.vit.clone());
        let (text, vision) =
            if frozen { (text.no_grad(), vision.no_grad()) } else { (text, vision) };
        let task = RelationTask { model: FusionClassifier { text, vision, head: head.clone() } };
        group.bench_function(name, |bencher| {
            bencher.iter(|| TrainStep::step(&task, PairBatch::new(pairs.clone())).item);
        });
    }
    group.finish();
}

fn generators(criterion: &mut Criterion) {
    let (bundle, device) = (Bundle::embedded(), Default::default());
    let size = bundle.picture_size().expect("the bundle knows its pictures");
    let web = web();
    let mut group = criterion.benchmark_group("generation");
    group.sample_size(10).throughput(Throughput::Elements(BATCH as u64));
    let options = DrawOptions {
        sampler: SamplerKind::DpmSolverPlusPlus2M,
        steps: 8,
        guidance: 3.0,
        negative: Vec::new(),
    };
    let painter = LatentDiffusion::<Flex>::load(&bundle, options, size, Precision::F32, &device)
        .expect("the bundled weights fit");
    let prompts: Vec<(&[String], Key)> =
        web.iter().map(|item| (&item.caption[item.names..], Key::new(1))).collect();
    group.bench_function("pictures, 8 steps with guidance", |bencher| {
        bencher.iter(|| painter.sample(&prompts).expect("the prompts are plain words"));
    });
    let options = CaptionOptions { top_p: 0.9, beams: 1, temperature: 1.0, max_tokens: 32 };
    let writer = CaptionWriter::<Flex>::load(&bundle, options, Precision::F32, &device)
        .expect("the bundled weights fit");
    let pictures: Vec<(&Picture, Vec<String>, Key)> =
        web.iter().map(|item| (&item.picture, Vec::new(), Key::new(1))).collect();
    group.bench_function("captions, sampled", |bencher| {
        bencher.iter(|| writer.write(&pictures).expect("the pictures have one size"));
    });
    group.finish();
}

criterion_group!(benches, diffusion, student, generators);
criterion_main!(benches);

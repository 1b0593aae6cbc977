//! Training against PyTorch: the loss, every parameter's gradient and the losses of ten steps of AdamW,
//! without dropout, for BERT with a classifier, the U-Net and the fusion classifier.

mod support;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::Tensor;
use mi2rage_models::adamw::AdamW;
use mi2rage_models::diffusion::ScheduleConfig;
use mi2rage_models::fusion::{FusionClassifier, FusionConfig, Presence, Sentences};
use mi2rage_models::loss::cross_entropy;
use mi2rage_models::published::{Archive, Names, Plan, Precision, bert, stable_diffusion};
use support::{Fixture, checkpoint, fixture_path, parameters};

type B = Autodiff<Flex>;

/// In units of what the outputs of one forward pass may be off by, ten times PyTorch's own difference
/// between 32 and 64 bits: a gradient is a sum over the rows of a batch of products of two such passes.
const GRADIENTS: f64 = 10.0;
/// The same of the losses of ten steps, each of which adds its own.
const STEPS: f64 = 10.0;

const F32: Precision = Precision::F32;

#[test]
fn bert_with_a_classifier_trains_as_in_pytorch() {
    let reference = Fixture::open("training/bert");
    let (_, model) =
        bert::load_classifier::<B>(&checkpoint("bert-classifier"), F32, &Default::default())
            .unwrap();
    let loss = |model: &_| {
        let model: &mi2rage_models::bert::BertForSequenceClassification<B> = model;
        let mask = Some(reference.mask("attention_mask"));
        let logits = model.forward(reference.ids("input_ids"), None, mask);
        cross_entropy(logits, reference.ids("labels"), None, 0.0)
    };
    assert_gradients("bert", &reference, &model, loss, &bert::CLASSIFIER_NAMES);
    assert_steps(&reference, model, loss);
}

#[test]
fn the_unet_trains_as_in_diffusers() {
    let reference = Fixture::open("training/unet");
    let folder = checkpoint("sd1").join("unet");
    let (_, model) = stable_diffusion::load_unet::<B>(&folder, F32, &Default::default()).unwrap();
    let schedule = ScheduleConfig::default().init().unwrap();
    let (latents, noise) = (reference.floats("latents"), reference.floats("noise"));
    let timesteps: Vec<usize> = reference.integers("timesteps");
    let loss = |model: &_| {
        let model: &mi2rage_models::unet::UNet<B> = model;
        let noise: Tensor<B, 4> = Tensor::clone(&noise);
        let noisy = schedule.add_noise(Tensor::clone(&latents), noise.clone(), &timesteps);
        let times: Vec<f32> = timesteps.iter().map(|&time| time as f32).collect();
        let times = Tensor::from_floats(times.as_slice(), &Default::default());
        let predicted = model.forward(noisy, times, reference.floats("states"), None);
        (predicted - noise).square().mean()
    };
    assert_gradients("unet", &reference, &model, loss, &stable_diffusion::UNET_NAMES);
    assert_steps(&reference, model, loss);
}

/// Its gradients are compared in `fusion.rs`.
#[test]
fn the_fusion_classifier_takes_the_steps_of_pytorch() {
    let weights = Fixture::open("fusion");
    let config: FusionConfig = serde_json::from_value(weights.config.clone()).unwrap();
    let names = [("self_attn", "self"), ("layer_norm", "LayerNorm")];
    let model = weights.fill(config.init::<B>(&Default::default()), &names);
    let reference = Fixture::open("training/fusion");
    assert_steps(&reference, model, |model: &FusionClassifier<B>| {
        let sentences = Sentences {
            ids: reference.ids("ids"),
            mask: Some(reference.mask("mask")),
            head: reference.ids("head"),
            tail: reference.ids("tail"),
        };
        let presence = Presence {
            text: reference.mask("text_present"),
            picture: reference.mask("picture_present"),
        };
        let logits = model.forward(Some(&sentences), Some(reference.floats("pixels")), presence);
        cross_entropy(logits, reference.ids("targets"), None, 0.0)
    });
}

/// Ten steps of AdamW on one batch; each loss is the one before its step. Adam divides by the root of
/// the squared gradient, so that a rounding error in a small gradient becomes one in the weights.
fn assert_steps<M: AutodiffModule<B>>(
    reference: &Fixture,
    mut model: M,
    loss: impl Fn(&M) -> Tensor<B, 1>,
) {
    let mut optimiser = OptimizerAdaptor::<_, M, B>::from(AdamW { weight_decay: 0.05 });
    let expected = reference.numbers("losses");
    assert_eq!(expected.len(), 10);
    for (step, expected) in expected.into_iter().enumerate() {
        let loss = loss(&model);
        let value: f64 = f64::from(loss.clone().into_scalar());
        let gap = (value - expected).abs();
        let tolerance = STEPS * reference.tolerance("") * expected.max(1.0);
        assert!(gap <= tolerance, "step {step}: {value}, expected {expected} within {tolerance:e}");
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimiser.step(1e-2, model, gradients);
    }
}

/// Compares the gradients of `loss` with those of `training/<name>.safetensors`, which have the
/// published names behind `grad.`.
fn assert_gradients<M: AutodiffModule<B>>(
    name: &str,
    reference: &Fixture,
    model: &M,
    loss: impl Fn(&M) -> Tensor<B, 1>,
    names: &Names,
) {
    let gradients = loss(model).backward();
    let actual = parameters(model, Some(&gradients));
    // A model whose weights are the gradients.
    let names =
        Names { prefix: "grad.", unread: &[("in.", "input"), ("out.", "output")], ..*names };
    let archive = Archive::open(&fixture_path(&format!("training/{name}"))).unwrap();
    let plan = Plan::new(model, &archive, &names).unwrap();
    let expected = plan.fill(model.clone(), &archive, F32, &Default::default()).unwrap();
    let tolerance = GRADIENTS * reference.tolerance("");
    support::assert_close(&actual, &parameters(&expected, None), tolerance as f32);
}

//! Saving and loading weights.

use std::collections::BTreeMap;
use std::fs;

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::tensor::{Tensor, backend::Backend};
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::vit::{ViTConfig, Vit};
use mi2rage_models::weights::{self, Precision, WeightsError};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

fn config() -> ViTConfig {
    ViTConfig {
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 12,
        image_size: 8,
        patch_size: 4,
        ..Default::default()
    }
}

fn keyed<B: Backend>(config: &ViTConfig, seed: u64) -> Vit<B> {
    reinitialise(
        config.init(&Default::default()),
        Scheme::TRANSFORMER,
        &mut ChaCha8Rng::seed_from_u64(seed),
    )
}

fn metadata() -> BTreeMap<String, String> {
    ["seed", "command", "epoch", "time", "score"]
        .map(|key| (key.to_string(), format!("{key} \"of\" this")))
        .into()
}

fn bytes<B: Backend, M: Module<B>>(module: &M) -> Vec<u8> {
    weights::to_bytes(module, Precision::F32, &metadata()).unwrap()
}

#[test]
fn what_is_saved_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vit.safetensors");
    let saved = keyed::<Flex>(&config(), 1);
    weights::save(&saved, &path, Precision::F32, &metadata()).unwrap();
    let other = keyed::<Flex>(&config(), 2);
    assert_ne!(bytes(&saved), bytes(&other));
    let loaded = weights::load(other, &path, &Default::default()).unwrap();
    assert_eq!(bytes(&saved), bytes(&loaded));
    assert_eq!(weights::metadata(&path).unwrap(), metadata());
}

#[test]
fn half_precision_is_loaded_as_the_nearest_half() {
    let saved = keyed::<Flex>(&config(), 1);
    let half = weights::to_bytes(&saved, Precision::F16, &metadata()).unwrap();
    assert!(half.len() < bytes(&saved).len());
    let loaded = weights::from_bytes(
        keyed::<Flex>(&config(), 2),
        &half,
        "half",
        &Default::default(),
    )
    .unwrap();
    let values = |vit: &Vit<Flex>| -> Vec<f32> {
        let weight = vit.encoder.layer[0].output.dense.weight.val();
        weight.into_data().to_vec().unwrap()
    };
    for (before, after) in values(&saved).into_iter().zip(values(&loaded)) {
        assert_eq!(half::f16::from_f32(before).to_f32(), after);
    }
}

#[test]
fn the_bytes_are_the_same_each_time_and_a_valid_file() {
    let module = keyed::<Flex>(&config(), 1);
    let first = bytes(&module);
    for _ in 0..8 {
        assert_eq!(first, bytes(&module));
    }
    assert_eq!(first, bytes(&keyed::<Autodiff<Flex>>(&config(), 1)));
    let tensors = SafeTensors::deserialize(&first).unwrap();
    let class = tensors.tensor("embeddings.cls_token").unwrap();
    assert_eq!(class.shape(), [1, 1, 8]);
    assert_eq!(
        class.data().as_ptr().align_offset(4),
        first.as_ptr().align_offset(4)
    );
}

#[test]
fn what_does_not_fit_is_listed() {
    let wide = ViTConfig {
        intermediate_size: 16,
        ..config()
    };
    let bytes = bytes(&wide.init_classifier::<Flex>(3, &Default::default()).vit);
    let deep = ViTConfig {
        num_hidden_layers: 2,
        qkv_bias: false,
        ..config()
    };
    let target = deep.init::<Flex>(&Default::default());
    let error = weights::from_bytes(target, &bytes, "wide", &Default::default()).unwrap_err();
    let WeightsError::Mismatch {
        missing,
        unused,
        misfit,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(missing.len(), 13);
    assert!(missing.contains(&"encoder.layer.1.output.dense.weight".to_string()));
    assert_eq!(
        unused,
        &[
            "encoder.layer.0.attention.attention.key.bias",
            "encoder.layer.0.attention.attention.query.bias",
            "encoder.layer.0.attention.attention.value.bias",
        ]
    );
    assert_eq!(misfit.len(), 3);
    assert!(
        error
            .to_string()
            .contains("encoder.layer.0.output.dense.weight is [16, 8], expected [12, 8]")
    );
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vit.safetensors");
    let load = || weights::load(keyed::<Flex>(&config(), 1), &path, &Default::default());
    let error = load().unwrap_err();
    assert!(matches!(error, WeightsError::Io { .. }));
    assert!(error.to_string().contains("vit.safetensors"));

    let whole = bytes(&keyed::<Flex>(&config(), 1));
    for length in [0, 7, 8, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load().unwrap_err();
        assert!(matches!(error, WeightsError::Format { .. }), "{error}");
        assert!(error.to_string().contains("vit.safetensors"));
    }
}

#[test]
fn a_failed_save_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let module = keyed::<Flex>(&config(), 1);
    // A folder stands where the file should go: the last step fails.
    let path = folder.path().join("taken");
    fs::create_dir(&path).unwrap();
    let error = weights::save(&module, &path, Precision::F32, &metadata()).unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn values_that_a_file_cannot_hold_are_refused() {
    let device = Default::default();
    for (value, precision) in [
        (1e6, Precision::F16),
        (f32::NAN, Precision::F32),
        (f32::INFINITY, Precision::F16),
    ] {
        let mut module = keyed::<Flex>(&config(), 1);
        module.embeddings.cls_token = module
            .embeddings
            .cls_token
            .map(|token| Tensor::full(token.shape(), value, &device));
        let error = weights::to_bytes(&module, precision, &metadata()).unwrap_err();
        assert!(
            matches!(&error, WeightsError::NotFinite { name, .. } if name == "embeddings.cls_token"),
            "{error}"
        );
    }
}

#[test]
fn a_module_loaded_for_training_wants_its_gradients() {
    type Train = Autodiff<Flex>;
    let bytes = bytes(&keyed::<Flex>(&config(), 1));
    let target = keyed::<Train>(&config(), 2);
    let model = weights::from_bytes(target, &bytes, "bytes", &Default::default()).unwrap();
    let pixels = Tensor::<Train, 4>::ones([1, 3, 8, 8], &Default::default());
    let grads = model.forward(pixels).powi_scalar(2).sum().backward();
    let weight = model.embeddings.patch_embeddings.projection.weight.val();
    assert!(weight.grad(&grads).is_some());
    assert_eq!(self::bytes(&model.valid()), bytes);
}

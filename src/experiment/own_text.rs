//! The stage that makes a text encoder of the data's own.
//!
//! Vocabulary and encoder are learnt from the training sentences of the first seed, without their
//! labels; validation sentences only measure.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::nn::LinearConfig;
use burn::tensor::backend::Backend;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::weights::{self, Precision};
use serde::{Deserialize, Serialize};

use super::dataset::{self, Dataset};
use super::folder::{Cost, RunFolder, fingerprint};
use crate::bundle::{Bundle, TEXT, TOKENIZER};
use crate::config::experiment::{ExperimentConfig, OwnTextConfig};
use crate::data::Example;
use crate::data::tokens::Tokenizer;
use crate::train::tasks::masked_language::{self, MaskedLanguage, Sentence};
use crate::train::{self, Context, CurvePoint};

/// The folder inside the run folder, and what students' files call these encoders.
pub const OWN: &str = "own-text";

/// How the encoder came about.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Trained {
    /// Held-out share of hidden tokens that are found.
    masked_accuracy: f64,
    curve: Vec<CurvePoint>,
    /// Hashes of tokenizer and weights.
    hashes: [String; 2],
}

/// Makes the encoder, or finds it finished, and puts it in the place of the bundle's.
///
/// # Errors
///
/// Those of the data, of the training and of the folder.
pub fn replace<B: Backend>(
    bundle: Bundle,
    own: &OwnTextConfig,
    config: &ExperimentConfig,
    folder: &RunFolder,
    context: &Context,
    device: &B::Device,
) -> anyhow::Result<(Bundle, Cost)> {
    let seed = config.seeds[0];
    let dataset = Dataset::load(config, seed)?;
    let student = &config.student;
    let inputs =
        fingerprint(&(own, dataset.fingerprint(), seed, student.mask_entities, student.max_tokens));
    let read = |bundle: Bundle| -> anyhow::Result<Bundle> {
        let file = |name: &str| std::fs::read(folder.path().join(OWN).join(name));
        Ok(bundle.with(TOKENIZER, file(TOKENIZER)?).with(TEXT, file(TEXT)?))
    };
    let (trained, cost) = folder.stage("own-text", &inputs, || {
        train::<B>(own, config, &dataset, folder, context, device)
    })?;
    let whole = |bundle: &Bundle| [TOKENIZER, TEXT].map(|file| bundle.hash(file)) == trained.hashes;
    if let Some(bundle) = read(bundle.clone()).ok().filter(whole) {
        return Ok((bundle, cost));
    }
    // Its files are gone or changed since: they are made again.
    folder.forget("own-text")?;
    let (_, cost) = folder.stage("own-text", &inputs, || {
        train::<B>(own, config, &dataset, folder, context, device)
    })?;
    Ok((read(bundle)?, cost))
}

fn train<B: Backend>(
    own: &OwnTextConfig,
    config: &ExperimentConfig,
    dataset: &Dataset,
    folder: &RunFolder,
    context: &Context,
    device: &B::Device,
) -> anyhow::Result<Trained> {
    let words = |example: &Example| example.tokens.clone();
    let sentences: Vec<Vec<String>> = dataset.train.iter().map(words).collect();
    let tokenizer = Tokenizer::train(
        sentences.iter().map(|tokens| tokens.iter().map(String::as_str)),
        own.vocabulary,
    )?;
    let encode = |examples: &[Example]| -> anyhow::Result<Vec<Sentence>> {
        let mut sentences = Vec::with_capacity(examples.len());
        for example in examples {
            let masked = config.student.mask_entities.then(|| example.with_masked_entities());
            let example = masked.as_ref().unwrap_or(example);
            let ids = tokenizer.encode_example(example, config.student.max_tokens)?.ids;
            sentences.push(Sentence { ids, scene: None });
        }
        Ok(sentences)
    };
    let bert = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..own.model.clone() };
    let key = dataset::seed_key(config.seeds[0]).with("own text", 0);
    let task = MaskedLanguage {
        model: bert.init_masked_lm::<Autodiff<B>>(device),
        // Never asked: these sentences have no scenes.
        scenes: LinearConfig::new(bert.hidden_size, 1).init(device),
    };
    let task = reinitialise(task, Scheme::TRANSFORMER, &mut key.with("weights", 0).rng());
    let trained = train::train::<Autodiff<B>, _, _, _>(
        "own text encoder",
        task,
        &own.recipe,
        masked_language::items(encode(&dataset.train)?, &tokenizer),
        masked_language::items(encode(&dataset.validation)?, &tokenizer),
        &key,
        context,
    )?;
    let (task, trained) = trained.split();
    let metadata = BTreeMap::from([("config".to_owned(), serde_json::to_string(&bert)?)]);
    let bytes = weights::to_bytes(&task.model, Precision::F32, &metadata)?;
    let json = tokenizer.to_json()?.into_bytes();
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..32].to_owned();
    let hashes = [hash(&json), hash(&bytes)];
    folder.write(&format!("{OWN}/{TOKENIZER}"), &json)?;
    folder.write(&format!("{OWN}/{TEXT}"), &bytes)?;
    let masked_accuracy = trained.kept().validation_f1;
    Ok(Trained { masked_accuracy, curve: trained.curve, hashes })
}

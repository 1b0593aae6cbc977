//! How each part is trained, scored and written.

mod diffusion;
mod language;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use burn::backend::Autodiff;
use burn::module::Module;
use burn::tensor::backend::Backend;
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::weights::{self, Precision};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::corpus::{Captioned, Corpus};
use super::{Part, Training};
use crate::bundle::TOKENIZER;
use crate::config::pretrain::PretrainConfig;
use crate::data::tokens::Tokenizer;
use crate::experiment::folder::RunFolder;
use crate::keyed::Key;
use crate::train::tasks::scenes::{SceneBatch, Scenes};
use crate::train::{self, Context, Items, Trained};
use crate::world::forms::FORMS;

/// Standard deviation of fresh weights, as in BERT, ViT and CLIP.
const TRANSFORMER: Scheme = Scheme::Normal { std: 0.02 };

/// Trains one part and writes its file.
///
/// # Errors
///
/// Those of the training and of the folder; a part that is needed is not there yet.
pub fn train<B: Backend>(
    part: Part,
    config: &PretrainConfig,
    corpus: &Corpus,
    folder: &RunFolder,
    context: &Context,
    device: &B::Device,
) -> anyhow::Result<Training> {
    let trainer = Trainer::<B> { part, config, corpus, folder, context, device };
    match part {
        Part::Tokenizer => trainer.tokenizer(),
        Part::Autoencoder => trainer.autoencoder(),
        Part::Vision => trainer.vision(),
        Part::Text => trainer.text(),
        Part::Clip => trainer.clip(),
        Part::Captioner => trainer.captioner(),
        Part::Diffusion => trainer.diffusion(),
    }
}

struct Trainer<'a, B: Backend> {
    part: Part,
    config: &'a PretrainConfig,
    corpus: &'a Corpus,
    folder: &'a RunFolder,
    context: &'a Context,
    device: &'a B::Device,
}

impl<B: Backend> Trainer<'_, B> {
    fn key(&self) -> Key {
        Key::new(self.config.seed).with("pretrain", self.part)
    }

    fn fresh<M: Module<Autodiff<B>>>(&self, module: M, scheme: Scheme) -> M {
        reinitialise(module, scheme, &mut self.key().with("weights", 0).rng())
    }

    fn read_tokenizer(&self) -> anyhow::Result<Tokenizer> {
        let path = self.folder.path().join(TOKENIZER);
        Tokenizer::load(&path).context("the part `tokenizer` comes first")
    }

    /// Writes the weights with the configuration that they need.
    fn finish<M: Module<B>>(
        &self,
        model: &M,
        config: &impl Serialize,
        trained: Trained<()>,
        scores: BTreeMap<String, f64>,
    ) -> anyhow::Result<Training> {
        let metadata = BTreeMap::from([
            ("config".to_owned(), serde_json::to_string(config)?),
            ("seed".to_owned(), self.config.seed.to_string()),
            ("recipe".to_owned(), "mi2rage pretrain configs/pretrain.toml".to_owned()),
        ]);
        let bytes = weights::to_bytes(model, Precision::F16, &metadata)?;
        self.folder.write(self.part.file(), &bytes)?;
        let hash = blake3::hash(&bytes).to_hex()[..32].to_owned();
        Ok(Training { scores, curve: trained.curve, hash })
    }

    fn tokenizer(&self) -> anyhow::Result<Training> {
        let captions = self.corpus.train.iter().map(|item| item.caption.iter().map(String::as_str));
        let tokenizer = Tokenizer::train(captions, self.config.vocabulary)?;
        let json = tokenizer.to_json()?;
        self.folder.write(TOKENIZER, json.as_bytes())?;
        let mut pieces = 0;
        for item in &self.corpus.held_out {
            pieces += tokenizer.encode_plain(&item.caption, usize::MAX)?.len() - 2;
        }
        let tokens: usize = self.corpus.held_out.iter().map(|item| item.caption.len()).sum();
        let scores = BTreeMap::from([
            ("entries".to_owned(), tokenizer.vocabulary_size() as f64),
            ("pieces a token".to_owned(), pieces as f64 / tokens as f64),
        ]);
        let hash = blake3::hash(json.as_bytes()).to_hex()[..32].to_owned();
        Ok(Training { scores, curve: Vec::new(), hash })
    }

    /// A file that an earlier part has written, with the configuration in its metadata. What is to
    /// be trained further is read on the autodiff backend: weights that come from a backend without
    /// gradients stay as they are.
    fn earlier<A: Backend<Device = B::Device>, C: DeserializeOwned, M: Module<A>>(
        &self,
        part: Part,
        init: impl FnOnce(&C) -> anyhow::Result<M>,
    ) -> anyhow::Result<(C, M)> {
        let read = || {
            let path = self.folder.path().join(part.file());
            let metadata = weights::metadata(&path)?;
            let text = metadata.get("config").context("its metadata has no `config`")?;
            let config: C = serde_json::from_str(text)?;
            let model = weights::load(init(&config)?, &path, self.device)?;
            anyhow::Ok((config, model))
        };
        read().with_context(|| format!("the part `{part}` comes first"))
    }

    fn vision(&self) -> anyhow::Result<Training> {
        let part = &self.config.vision;
        let model = part.model.init_classifier::<Autodiff<B>>(FORMS, self.device);
        let task = Scenes { model: self.fresh(model, TRANSFORMER) };
        let scenes = |items: &[Captioned]| {
            let items: Arc<[_]> =
                items.iter().map(|item| (item.picture.clone(), item.form)).collect();
            Items {
                len: items.len(),
                lengths: None,
                collate: Arc::new(move |at: &[usize], _: &Key| {
                    let (pictures, classes) = at.iter().map(|&at| items[at].clone()).unzip();
                    SceneBatch { pictures, classes }
                }) as train::Collate<_>,
            }
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "vision encoder",
            task,
            &part.recipe,
            scenes(&self.corpus.train),
            scenes(&self.corpus.held_out),
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let accuracy = trained.kept().validation_f1;
        let scores = BTreeMap::from([("held-out scene accuracy".to_owned(), accuracy)]);
        self.finish(&task.model, &part.model, trained, scores)
    }
}

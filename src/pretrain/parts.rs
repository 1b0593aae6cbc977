//! How each part is trained, scored and written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use burn::backend::Autodiff;
use burn::module::Module;
use burn::nn::LinearConfig;
use burn::tensor::backend::Backend;
use mi2rage_models::bert::BertConfig;
use mi2rage_models::captioner::CaptionerConfig;
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::initialise::{Scheme, reinitialise};
use mi2rage_models::vae::{AutoencoderKl, VaeConfig};
use mi2rage_models::weights::{self, Precision};
use rand::Rng;
use serde::Serialize;

use super::corpus::{Captioned, Corpus};
use super::{Part, Training};
use crate::bundle::{AUTOENCODER, TOKENIZER, VISION};
use crate::config::pretrain::PretrainConfig;
use crate::data::tokens::{EncodedText, Tokenizer};
use crate::data::{Entity, Example};
use crate::experiment::folder::RunFolder;
use crate::generators::{DiffusionConfig, PROMPT_TOKENS, encode_prompt};
use crate::keyed::Key;
use crate::tensors;
use crate::train::tasks::autoencoder::{Autoencoder, AutoencoderBatch};
use crate::train::tasks::captions::{CaptionBatch, Captions};
use crate::train::tasks::diffusion::{DiffusionBatch, TextToLatent};
use crate::train::tasks::masked_language::{MaskedBatch, MaskedLanguage, ScenedText, Vocabulary};
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

    fn autoencoder(&self) -> anyhow::Result<Training> {
        let part = &self.config.autoencoder;
        let model = part.model.init::<Autodiff<B>>(self.device)?;
        let task = Autoencoder { model: self.fresh(model, Scheme::FanIn) };
        let pick = |items: &[Captioned]| -> Arc<[_]> {
            items.iter().map(|item| item.picture.clone()).collect()
        };
        let (train, held_out) = (pick(&self.corpus.train), pick(&self.corpus.held_out));
        let items = Items {
            len: train.len(),
            collate: Arc::new(move |at: &[usize], key: &Key| {
                AutoencoderBatch::sampled(at.iter().map(|&at| train[at].clone()).collect(), key)
            }),
        };
        let held_out = Items {
            len: held_out.len(),
            collate: Arc::new(move |at: &[usize], _: &Key| {
                AutoencoderBatch::mean(at.iter().map(|&at| held_out[at].clone()).collect())
            }),
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "autoencoder",
            task,
            &part.recipe,
            items,
            held_out,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let mut config = part.model.clone();
        config.scaling_factor = self.scaling_factor(&task.model);
        let squared = trained.kept().validation_loss;
        let scores = BTreeMap::from([
            // Channel values span 2, from -1 to 1.
            ("held-out PSNR (dB)".to_owned(), 10.0 * (4.0 / squared).log10()),
            ("latent scaling".to_owned(), config.scaling_factor),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    /// One over the standard deviation of held-out latents.
    fn scaling_factor(&self, model: &AutoencoderKl<B>) -> f64 {
        let latents =
            self.latents(model, &self.corpus.held_out[..256.min(self.corpus.held_out.len())]);
        let values = latents.iter().flatten().map(|&value| f64::from(value));
        let (count, sum, squares) = values.fold((0.0, 0.0, 0.0), |(count, sum, squares), value| {
            (count + 1.0, sum + value, squares + value * value)
        });
        let mean = sum / count;
        1.0 / f64::sqrt(squares / count - mean * mean)
    }

    /// The mean latent of each picture.
    fn latents(&self, model: &AutoencoderKl<B>, items: &[Captioned]) -> Vec<Vec<f32>> {
        let mut latents = Vec::with_capacity(items.len());
        for batch in items.chunks(64) {
            let size = batch[0].picture.width;
            let pictures = batch.iter().map(|item| item.picture.as_ref());
            let mean = model.encode(tensors::pictures(pictures, size, self.device)).mean;
            let each = mean.shape().num_elements() / batch.len();
            latents.extend(tensors::to_vec(mean).chunks_exact(each).map(<[f32]>::to_vec));
        }
        latents
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

    fn text(&self) -> anyhow::Result<Training> {
        let part = &self.config.text;
        let tokenizer = self.read_tokenizer()?;
        let config = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.model.clone() };
        let model = config.init_masked_lm::<Autodiff<B>>(self.device);
        let scenes = LinearConfig::new(config.hidden_size, FORMS).init(self.device);
        let task = self.fresh(MaskedLanguage { model, scenes }, TRANSFORMER);
        let vocabulary = Vocabulary {
            size: tokenizer.vocabulary_size() as u32,
            first_ordinary: tokenizer.first_ordinary(),
            mask: tokenizer.special().mask,
        };
        let longest = config.max_position_embeddings;
        let sentences = |items: &[Captioned]| -> anyhow::Result<_> {
            let texts: Vec<ScenedText> = items
                .iter()
                .enumerate()
                .map(|(index, item)| scened(&tokenizer, item, index, longest))
                .collect::<anyhow::Result<_>>()?;
            let tokenizer = tokenizer.clone();
            Ok(Items {
                len: texts.len(),
                collate: Arc::new(move |at: &[usize], key: &Key| {
                    let texts: Vec<&ScenedText> = at.iter().map(|&at| &texts[at]).collect();
                    MaskedBatch::new(&texts, &tokenizer, vocabulary, key)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "text encoder",
            task,
            &part.recipe,
            sentences(&self.corpus.train)?,
            sentences(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out masked accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a masked token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    fn captioner(&self) -> anyhow::Result<Training> {
        let part = &self.config.captioner;
        let tokenizer = self.read_tokenizer()?;
        let text = BertConfig { vocab_size: tokenizer.vocabulary_size(), ..part.text.clone() };
        let config = CaptionerConfig { vision: self.config.vision.model.clone(), text };
        let mut model = self.fresh(config.init::<Autodiff<B>>(self.device), TRANSFORMER);
        let path = self.folder.path().join(VISION);
        let scenes = config.vision.init_classifier::<Autodiff<B>>(FORMS, self.device);
        let scenes =
            weights::load(scenes, &path, self.device).context("the part `vision` comes first")?;
        model.vision_model = scenes.vit;
        let task = Captions { model };
        let longest = config.text.max_position_embeddings;
        let captions = |items: &[Captioned]| -> anyhow::Result<_> {
            let mut encoded = Vec::with_capacity(items.len());
            for item in items {
                let ids = tokenizer.encode_plain(&item.caption, longest)?;
                // The names stand in the prompt and are not learnt.
                let prompt = &item.caption[..item.names];
                let prompt = tokenizer.encode_plain(prompt, longest)?.len() - 1;
                encoded.push((item.picture.clone(), ids, prompt));
            }
            let pad = tokenizer.special().pad;
            Ok(Items {
                len: encoded.len(),
                collate: Arc::new(move |at: &[usize], _: &Key| {
                    CaptionBatch::new(at.iter().map(|&at| encoded[at].clone()).collect(), pad)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "captioner",
            task,
            &part.recipe,
            captions(&self.corpus.train)?,
            captions(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out token accuracy".to_owned(), trained.kept().validation_f1),
            ("held-out nats a token".to_owned(), trained.kept().validation_loss),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    fn diffusion(&self) -> anyhow::Result<Training> {
        let part = &self.config.diffusion;
        let tokenizer = self.read_tokenizer()?;
        let path = self.folder.path().join(AUTOENCODER);
        let (autoencoder, autoencoder_config) = read_autoencoder::<B>(&path, self.device)
            .context("the part `autoencoder` comes first")?;
        let text = ClipTextConfig {
            vocab_size: tokenizer.vocabulary_size(),
            eos_token_id: i64::from(tokenizer.special().end),
            ..part.text.clone()
        };
        let model = TextToLatent {
            text_model: self.fresh(text.init::<Autodiff<B>>(self.device), TRANSFORMER),
            unet: self.fresh(part.unet.init(self.device)?, Scheme::FanIn),
        };
        let schedule = Arc::new(part.schedule.init()?);
        let side = self.config.world.picture_size / autoencoder_config.downsampling();
        let shape = [part.unet.in_channels, side, side];
        let pairs = |items: &[Captioned]| -> anyhow::Result<_> {
            let scale = autoencoder_config.scaling_factor as f32;
            let mut latents = self.latents(&autoencoder, items);
            latents.iter_mut().flatten().for_each(|value| *value *= scale);
            let prompts: Vec<Vec<i32>> = items
                .iter()
                .map(|item| encode_prompt(&tokenizer, &item.caption))
                .collect::<Result<_, _>>()?;
            let empty = encode_prompt(&tokenizer, &[])?;
            let (schedule, dropout) = (schedule.clone(), part.prompt_dropout);
            Ok(Items {
                len: latents.len(),
                collate: Arc::new(move |at: &[usize], key: &Key| {
                    let mut rng = key.with("prompt dropout", 0).rng();
                    let mut ids = Vec::with_capacity(at.len() * PROMPT_TOKENS);
                    for &at in at {
                        let dropped = rng.random_bool(dropout);
                        ids.extend(if dropped { &empty } else { &prompts[at] });
                    }
                    let latents: Vec<&[f32]> = at.iter().map(|&at| &latents[at][..]).collect();
                    DiffusionBatch::new(&latents, shape, ids, schedule.clone(), key)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "diffusion model",
            model,
            &part.recipe,
            pairs(&self.corpus.train)?,
            pairs(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (model, trained) = trained.split();
        let config =
            DiffusionConfig { text, unet: part.unet.clone(), schedule: part.schedule.clone() };
        let scores =
            BTreeMap::from([("held-out squared error".to_owned(), trained.kept().validation_loss)]);
        self.finish(&model, &config, trained, scores)
    }
}

/// A caption for the text encoder. Where it names two entities they are marked as in posts. Every
/// second caption shows a bare letter for each of their tokens, as students may be shown them, and
/// two of four have the names last, for posts have them anywhere.
fn scened(
    tokenizer: &Tokenizer,
    item: &Captioned,
    index: usize,
    longest: usize,
) -> anyhow::Result<ScenedText> {
    let (names, rest) = item.caption.split_at(item.names);
    let Some(and) = names.iter().position(|token| token == "and") else {
        let ids = tokenizer.encode_plain(&item.caption, longest)?;
        return Ok(ScenedText { ids, readout: [0, 0], scene: item.form });
    };
    let names_first = index % 4 < 2;
    let start = if names_first { 0 } else { rest.len() };
    let tokens = if names_first { [names, rest] } else { [rest, names] }.concat();
    let entity =
        |span: std::ops::Range<usize>| Entity { name: tokens[span.clone()].join(" "), span };
    let (head, tail) =
        (entity(start..start + and), entity(start + and + 1..start + item.names - 1));
    let id = String::new();
    let mut example = Example { id, tokens, head, tail, label: 0, picture: None, truth: None };
    if index.is_multiple_of(2) {
        example = example.with_masked_entities();
    }
    let EncodedText { ids, head_marker, tail_marker, .. } =
        tokenizer.encode_example(&example, longest)?;
    Ok(ScenedText { ids, readout: [head_marker, tail_marker], scene: item.form })
}

fn read_autoencoder<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> anyhow::Result<(AutoencoderKl<B>, VaeConfig)> {
    let metadata = weights::metadata(path)?;
    let text = metadata.get("config").context("its metadata has no `config`")?;
    let config: VaeConfig = serde_json::from_str(text)?;
    Ok((weights::load(config.init::<B>(device)?, path, device)?, config))
}

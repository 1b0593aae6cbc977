//! The latent diffusion model: autoencoder, CLIP and U-Net.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::Module;
use burn::tensor::backend::Backend;
use mi2rage_models::clip::{ClipTextConfig, LockedClipConfig};
use mi2rage_models::initialise::Scheme;
use mi2rage_models::vae::{AutoencoderKl, VaeConfig};
use mi2rage_models::vit::ViTConfig;
use rand::Rng;

use super::{Part, TRANSFORMER, Trainer, Training};
use crate::generators::{DiffusionConfig, PROMPT_TOKENS, encode_prompt};
use crate::keyed::Key;
use crate::pretrain::corpus::Captioned;
use crate::tensors;
use crate::train::tasks::autoencoder::{Autoencoder, AutoencoderBatch};
use crate::train::tasks::contrastive::{Contrastive, ContrastiveBatch};
use crate::train::tasks::diffusion::{DiffusionBatch, TextToLatent};
use crate::train::{self, Items};
use crate::world::forms::FORMS;

impl<B: Backend> Trainer<'_, B> {
    pub(super) fn autoencoder(&self) -> anyhow::Result<Training> {
        let part = &self.config.autoencoder;
        let model = part.model.init::<Autodiff<B>>(self.device)?;
        let task = Autoencoder { model: self.fresh(model, Scheme::FanIn) };
        let pick = |items: &[Captioned]| -> Arc<[_]> {
            items.iter().map(|item| item.picture.clone()).collect()
        };
        let (train, held_out) = (pick(&self.corpus.train), pick(&self.corpus.held_out));
        let items = Items {
            len: train.len(),
            lengths: None,
            collate: Arc::new(move |at: &[usize], key: &Key| {
                AutoencoderBatch::sampled(at.iter().map(|&at| train[at].clone()).collect(), key)
            }),
        };
        let held_out = Items {
            len: held_out.len(),
            lengths: None,
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

    /// CLIP's text encoder, on the states of the vision encoder as it is.
    pub(super) fn clip(&self) -> anyhow::Result<Training> {
        let part = &self.config.clip;
        let tokenizer = self.read_tokenizer()?;
        let (vision_config, vision) = self.earlier(Part::Vision, |config: &ViTConfig| {
            Ok(config.init_classifier::<B>(FORMS, self.device))
        })?;
        let text_config = ClipTextConfig {
            vocab_size: tokenizer.vocabulary_size(),
            eos_token_id: i64::from(tokenizer.special().end),
            ..part.text.clone()
        };
        let config = LockedClipConfig {
            text_config,
            vision_hidden_size: vision_config.hidden_size,
            projection_dim: part.projection_dim,
        };
        let model = self.fresh(config.init::<Autodiff<B>>(self.device), TRANSFORMER);
        let pairs = |items: &[Captioned]| -> anyhow::Result<_> {
            let mut pairs = Vec::with_capacity(items.len());
            for batch in items.chunks(64) {
                let pictures = batch.iter().map(|item| item.picture.as_ref());
                let size = batch[0].picture.width;
                let pixels = tensors::pictures(pictures, size, self.device);
                let states = tensors::to_vec(vision.vit.pool_mean(pixels));
                for (item, states) in batch.iter().zip(states.chunks(vision_config.hidden_size)) {
                    pairs.push((encode_prompt(&tokenizer, item.description())?, states.to_vec()));
                }
            }
            Ok(Items {
                len: pairs.len(),
                lengths: None,
                collate: Arc::new(move |at: &[usize], _: &Key| {
                    ContrastiveBatch::new(at.iter().map(|&at| (&pairs[at].0[..], &pairs[at].1[..])))
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "CLIP",
            Contrastive { model },
            &part.recipe,
            pairs(&self.corpus.train)?,
            pairs(&self.corpus.held_out)?,
            &self.key(),
            self.context,
        )?;
        let (task, trained) = trained.split();
        let scores = BTreeMap::from([
            ("held-out nats".to_owned(), trained.kept().validation_loss),
            (
                format!("held-out accuracy among {}", part.recipe.batch),
                trained.kept().validation_f1,
            ),
        ]);
        self.finish(&task.model, &config, trained, scores)
    }

    pub(super) fn diffusion(&self) -> anyhow::Result<Training> {
        let part = &self.config.diffusion;
        let tokenizer = self.read_tokenizer()?;
        let (autoencoder_config, autoencoder) = self
            .earlier(Part::Autoencoder, |config: &VaeConfig| Ok(config.init::<B>(self.device)?))?;
        let (LockedClipConfig { text_config: text, .. }, clip) = self
            .earlier(Part::Clip, |config: &LockedClipConfig| {
                Ok(config.init::<Autodiff<B>>(self.device))
            })?;
        let model = TextToLatent {
            // As CLIP has made it, as in Stable Diffusion.
            text_model: clip.text_model.no_grad(),
            unet: self.fresh(part.unet.init(self.device)?, Scheme::FanIn),
        };
        let schedule = Arc::new(part.schedule.init()?);
        let side = self.config.world.picture_size / autoencoder_config.downsampling();
        let shape = [part.unet.in_channels, side, side];
        let pairs = |items: &[Captioned], mode_scale: f64| -> anyhow::Result<_> {
            let scale = autoencoder_config.scaling_factor as f32;
            let mut latents = self.latents(&autoencoder, items);
            latents.iter_mut().flatten().for_each(|value| *value *= scale);
            let prompts: Vec<Vec<i32>> = items
                .iter()
                .map(|item| encode_prompt(&tokenizer, item.description()))
                .collect::<Result<_, _>>()?;
            let empty = encode_prompt(&tokenizer, &[])?;
            let (schedule, dropout) = (schedule.clone(), part.prompt_dropout);
            Ok(Items {
                len: latents.len(),
                lengths: None,
                collate: Arc::new(move |at: &[usize], key: &Key| {
                    let mut rng = key.with("prompt dropout", 0).rng();
                    let mut ids = Vec::with_capacity(at.len() * PROMPT_TOKENS);
                    for &at in at {
                        let dropped = rng.random_bool(dropout);
                        ids.extend(if dropped { &empty } else { &prompts[at] });
                    }
                    let latents: Vec<&[f32]> = at.iter().map(|&at| &latents[at][..]).collect();
                    DiffusionBatch::new(&latents, shape, ids, schedule.clone(), mode_scale, key)
                }) as train::Collate<_>,
            })
        };
        let trained = train::train::<Autodiff<B>, _, _, _>(
            "diffusion model",
            model,
            &part.recipe,
            pairs(&self.corpus.train, part.mode_scale)?,
            pairs(&self.corpus.held_out, 0.0)?,
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

//! The latent diffusion model as a generator of pictures: the bundled one, or a published Stable
//! Diffusion.

use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::diffusion::{
    Guidance, NoiseSchedule, SamplerConfig, SamplerKind, ScheduleConfig, TimestepSpacing, sample,
    sample_from,
};
use mi2rage_models::precision::Precision;
use mi2rage_models::published::{PublishedError, clip, stable_diffusion};
use mi2rage_models::unet::UNetConfig;
use mi2rage_models::vae::{AutoencoderKl, VaeConfig};
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use super::prompt::{Prompts, without_entities};
use super::published;
use crate::bundle::{AUTOENCODER, Bundle, BundleError, DIFFUSION, TOKENIZER};
use crate::chain::{GeneratorError, TextPrompt, TextToImage};
use crate::data::Picture;
use crate::data::published::PublishedTokenizer;
use crate::experiment::folder::fingerprint;
use crate::keyed::{self, Key};
use crate::tensors;
use crate::train::tasks::diffusion::TextToLatent;

/// What the weights file of the diffusion model says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffusionConfig {
    /// The text encoder.
    pub text: ClipTextConfig,
    /// The U-Net.
    pub unet: UNetConfig,
    /// Noise and what is predicted.
    pub schedule: ScheduleConfig,
}

/// The largest width and height of pictures, in pixels.
const LARGEST: usize = 4096;

/// How pictures are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrawOptions {
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its steps.
    pub steps: usize,
    /// The scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// What the picture should not be; empty for plain guidance.
    pub negative: Vec<String>,
}

/// What sampling begins with; by default noise that each prompt's key names.
#[derive(Clone, Copy, Default)]
pub struct Start<'a> {
    /// Standard normal numbers `[prompts, channels, height, width]` in the place of that noise.
    pub latents: Option<&'a [f32]>,
    /// A picture of the output's size that the noise is added to; the strength says how much of the way
    /// is gone (Meng et al. 2021).
    pub picture: Option<(&'a Picture, f64)>,
}

/// Text encoder, U-Net, autoencoder and sampler.
pub struct LatentDiffusion<B: Backend> {
    autoencoder: AutoencoderKl<B>,
    scaling: f64,
    model: TextToLatent<B>,
    schedule: NoiseSchedule,
    sampler: SamplerConfig,
    prompts: Prompts,
    options: DrawOptions,
    negative: Vec<i32>,
    /// Channels, height, width of a latent.
    latent: [usize; 3],
    origin: Origin,
    fingerprint: String,
    device: B::Device,
}

impl<B: Backend> LatentDiffusion<B> {
    /// Loads the models; pictures come out `size` pixels square. The sampler computes in 32 bits
    /// whatever the models' precision.
    ///
    /// # Errors
    ///
    /// A file of the bundle is unusable, or the options do not fit the schedule.
    pub fn load(
        bundle: &Bundle,
        options: DrawOptions,
        size: usize,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self, BundleError> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (vae, autoencoder) =
            bundle.model::<B, VaeConfig, _>(AUTOENCODER, device, |config| {
                config.init(device).map_err(|error| text(&error))
            })?;
        let (config, model) =
            bundle.model::<B, DiffusionConfig, _>(DIFFUSION, device, |config| {
                Ok(TextToLatent {
                    text_model: config.text.init(device),
                    unet: config.unet.init(device).map_err(|error| text(&error))?,
                })
            })?;
        let unusable = |what: String| BundleError::Config { origin: DIFFUSION.to_owned(), what };
        let schedule = config.schedule.init().map_err(|error| unusable(error.to_string()))?;
        options.sampler.init::<B>(&schedule, &trailing(), options.steps)?;
        let prompts = Prompts::Bundled(Box::new(bundle.tokenizer()?));
        let negative = prompts.encode(&options.negative)?;
        let side = size / vae.downsampling();
        Ok(Self {
            scaling: vae.scaling_factor,
            latent: [config.unet.in_channels, side, side],
            origin: Origin::bundle(bundle, precision),
            fingerprint: fingerprint(&(
                &options,
                size,
                precision,
                [AUTOENCODER, DIFFUSION, TOKENIZER].map(|file| bundle.hash(file)),
            )),
            autoencoder: precision.convert(autoencoder),
            model: precision.convert(model),
            schedule,
            sampler: trailing(),
            prompts,
            options,
            negative,
            device: device.clone(),
        })
    }

    /// Loads a published Stable Diffusion; pictures come out `size` pixels wide and high, by default
    /// as large as those that it was trained on. Timesteps are spread as its scheduler says. `hash` is
    /// that of the folder ([`published::hash`]), which takes seconds to compute.
    ///
    /// # Errors
    ///
    /// A file of the folder is unusable, or the options do not fit its schedule.
    pub fn load_published(
        folder: &Path,
        hash: &str,
        options: DrawOptions,
        size: Option<usize>,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self, BundleError> {
        let part = |name: &str| folder.join(name);
        let scheduler = published::scheduler(folder)?;
        let scheduler = scheduler.with_sampler(options.sampler).map_err(|source| {
            PublishedError::Config { path: published::schedule_of(folder), source }
        })?;
        let schedule = scheduler.schedule.init()?;
        options.sampler.init::<B>(&schedule, &scheduler.options, options.steps)?;
        let (text, text_model) = clip::load_text(&part("text_encoder"), precision, device)?;
        let tokenizer = Box::new(PublishedTokenizer::load(&part("tokenizer"))?);
        tokenizer.check_fits(text.vocab_size)?;
        let prompts = Prompts::Published { tokenizer, length: text.max_position_embeddings };
        let negative = prompts.encode(&options.negative)?;
        let (unet_config, unet) = stable_diffusion::load_unet(&part("unet"), precision, device)?;
        let (vae, autoencoder) =
            stable_diffusion::load_autoencoder(&part("vae"), precision, device)?;
        stable_diffusion::check_parts(folder, &text, &unet_config, &vae)?;
        // Every downsampling of the U-Net halves the latent.
        let unit = vae.downsampling() << (unet_config.block_out_channels.len() - 1);
        let size = size.unwrap_or(unet_config.sample_size * vae.downsampling());
        if size == 0 || size > LARGEST || !size.is_multiple_of(unit) {
            let what = format!(
                "pictures of {size} pixels, expected a multiple of {unit}, at most {LARGEST}"
            );
            return Err(BundleError::Unfit { origin: folder.display().to_string(), what });
        }
        let side = size / vae.downsampling();
        Ok(Self {
            scaling: vae.scaling_factor,
            latent: [unet_config.in_channels, side, side],
            origin: Origin::published(folder, precision),
            fingerprint: fingerprint(&(&options, size, precision, hash)),
            autoencoder,
            model: TextToLatent { text_model, unet },
            schedule,
            sampler: scheduler.options,
            prompts,
            options,
            negative,
            device: device.clone(),
        })
    }

    /// One picture a prompt; the key names its noise.
    ///
    /// # Errors
    ///
    /// The tokenizer is unusable; something that is no number comes out.
    pub fn sample(&self, prompts: &[(&[String], Key)]) -> Result<Vec<Picture>, BundleError> {
        self.sample_from(prompts, Start::default())
    }

    /// [`Self::sample`] from another beginning.
    ///
    /// # Errors
    ///
    /// As there; latents of another count, a picture of another size, a strength that leaves no
    /// step.
    pub fn sample_from(
        &self,
        prompts: &[(&[String], Key)],
        start: Start<'_>,
    ) -> Result<Vec<Picture>, BundleError> {
        self.pictures(self.decode(self.latents(prompts, start)?))
    }

    /// Pictures `[prompts, 3, height, width]`, -1 to 1 and a little beyond, of [`Self::latents`].
    pub fn decode(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        self.autoencoder.decode(latents / self.scaling)
    }

    /// What [`Self::sample_from`] decodes, times the autoencoder's scaling factor:
    /// `[prompts, channels, height, width]`.
    ///
    /// # Errors
    ///
    /// As [`Self::sample_from`].
    pub fn latents(
        &self,
        prompts: &[(&[String], Key)],
        start: Start<'_>,
    ) -> Result<Tensor<B, 4>, BundleError> {
        let rows = prompts.len();
        let mut ids = Vec::new();
        for (tokens, _) in prompts {
            ids.extend(self.prompts.encode(tokens)?);
        }
        let positive = self.model.text_model.forward(tensors::ids(&ids, rows, &self.device), None);
        let guidance =
            (self.options.guidance != 1.0).then_some(Guidance { scale: self.options.guidance });
        let context = match guidance {
            Some(_) => {
                let negative = tensors::ids(&self.negative, 1, &self.device);
                let negative = self.model.text_model.forward(negative, None);
                Guidance::condition(negative.repeat_dim(0, rows), positive)
            }
            None => positive,
        };
        let mut sampler =
            self.options.sampler.init::<B>(&self.schedule, &self.sampler, self.options.steps)?;
        let condition = self.model.unet.condition(context, None);
        let model = |latents, times| self.model.unet.predict(latents, times, &condition);
        let noise = &mut |step| self.noise(prompts, &format!("step {step}"));
        let first = match start.latents {
            Some(values) => self.tensor(rows, values.to_vec())?,
            None => self.noise(prompts, "latent"),
        };
        let Some((picture, strength)) = start.picture else {
            return Ok(sample(model, sampler.as_mut(), guidance, first, noise));
        };
        let clean = self.encode(picture)?.repeat_dim(0, rows);
        Ok(sample_from(model, sampler.as_mut(), guidance, clean, strength, first, noise)?)
    }

    /// A picture's latent `[1, channels, height, width]`, scaled: the mean of its distribution.
    fn encode(&self, picture: &Picture) -> Result<Tensor<B, 4>, BundleError> {
        let size = self.size();
        if (picture.width, picture.height) != (size, size) {
            let what = format!(
                "a picture of {} by {} pixels, expected {size} by {size}",
                picture.width, picture.height
            );
            return Err(BundleError::Unfit { origin: "image to image".to_owned(), what });
        }
        let pixels = tensors::pictures([picture].into_iter(), size, &self.device);
        Ok(self.autoencoder.encode(pixels).mean * self.scaling)
    }

    /// Width and height of the pictures, in pixels.
    pub fn size(&self) -> usize {
        self.latent[1] << (self.autoencoder.decoder.up_blocks.len() - 1)
    }

    /// Channels, height and width of a latent.
    pub fn latent_shape(&self) -> [usize; 3] {
        self.latent
    }

    /// Pictures after the autoencoder: the best that can be drawn.
    ///
    /// # Errors
    ///
    /// Something that is no number comes out.
    pub fn reconstruct(&self, pictures: &[&Picture]) -> Result<Vec<Picture>, BundleError> {
        let mut out = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(32) {
            let tensor = tensors::pictures(batch.iter().copied(), batch[0].width, &self.device);
            let latents = self.autoencoder.encode(tensor).mean;
            out.extend(self.pictures(self.autoencoder.decode(latents))?);
        }
        Ok(out)
    }

    fn pictures(&self, decoded: Tensor<B, 4>) -> Result<Vec<Picture>, BundleError> {
        let [_, _, height, width] = decoded.dims();
        let values = self.origin.finite("pictures", tensors::to_vec(decoded))?;
        Ok(tensors::to_pictures(&values, [height, width]))
    }

    fn noise(&self, prompts: &[(&[String], Key)], purpose: &str) -> Tensor<B, 4> {
        let each = self.latent.iter().product();
        let values: Vec<f32> = prompts
            .iter()
            .flat_map(|(_, key)| keyed::normal(&mut key.with("noise", purpose).rng(), each))
            .collect();
        let [channels, height, width] = self.latent;
        let shape = [prompts.len(), channels, height, width];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn tensor(&self, rows: usize, values: Vec<f32>) -> Result<Tensor<B, 4>, BundleError> {
        let [channels, height, width] = self.latent;
        let expected = rows * channels * height * width;
        if values.len() != expected {
            let what = format!(
                "{} numbers, expected {expected}: {rows} of {channels} x {height} x {width}",
                values.len()
            );
            return Err(BundleError::Unfit { origin: "latents".to_owned(), what });
        }
        let data = TensorData::new(values, [rows, channels, height, width]);
        Ok(Tensor::from_data(data, &self.device))
    }
}

/// Trailing steps start at pure noise, which matters where there are few (Lin et al. 2024).
fn trailing() -> SamplerConfig {
    SamplerConfig { timestep_spacing: TimestepSpacing::Trailing, ..SamplerConfig::default() }
}

impl<B: Backend> TextToImage for LatentDiffusion<B> {
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        let sentences: Vec<Vec<String>> = prompts
            .iter()
            .map(|prompt| match self.prompts {
                Prompts::Bundled(_) => {
                    without_entities(&prompt.tokens, [&prompt.head.span, &prompt.tail.span])
                }
                // It has seen the names of the world.
                Prompts::Published { .. } => prompt.tokens.clone(),
            })
            .collect();
        let prompts: Vec<(&[String], Key)> = sentences
            .iter()
            .zip(prompts)
            .map(|(tokens, prompt)| (tokens.as_slice(), prompt.key.clone()))
            .collect();
        self.sample(&prompts).map_err(|source| GeneratorError::Model {
            generator: "latent diffusion".to_owned(),
            source: Box::new(source),
        })
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

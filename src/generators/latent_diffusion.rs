//! The latent diffusion model as a generator of pictures.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use mi2rage_models::clip::ClipTextConfig;
use mi2rage_models::diffusion::{
    Guidance, NoiseSchedule, SamplerConfig, SamplerKind, ScheduleConfig, TimestepSpacing, sample,
};
use mi2rage_models::unet::UNetConfig;
use mi2rage_models::vae::{AutoencoderKl, VaeConfig};
use serde::{Deserialize, Serialize};

use super::prompt::{encode_prompt, without_entities};
use crate::bundle::{AUTOENCODER, Bundle, BundleError, DIFFUSION, TOKENIZER};
use crate::chain::{GeneratorError, TextPrompt, TextToImage};
use crate::data::Picture;
use crate::data::tokens::Tokenizer;
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

/// Text encoder, U-Net, autoencoder and sampler.
pub struct LatentDiffusion<B: Backend> {
    autoencoder: AutoencoderKl<B>,
    scaling: f64,
    model: TextToLatent<B>,
    schedule: NoiseSchedule,
    tokenizer: Tokenizer,
    options: DrawOptions,
    negative: Vec<i32>,
    /// Channels, height, width of a latent.
    latent: [usize; 3],
    fingerprint: String,
    device: B::Device,
}

impl<B: Backend> LatentDiffusion<B> {
    /// Loads the models; pictures come out `size` pixels square.
    ///
    /// # Errors
    ///
    /// A file of the bundle is unusable, or the options do not fit the schedule.
    pub fn load(
        bundle: &Bundle,
        options: DrawOptions,
        size: usize,
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
        options.sampler.init::<B>(&schedule, &sampler_config(), options.steps)?;
        let tokenizer = bundle.tokenizer()?;
        let negative = encode_prompt(&tokenizer, &options.negative)?;
        let side = size / vae.downsampling();
        Ok(Self {
            scaling: vae.scaling_factor,
            latent: [config.unet.in_channels, side, side],
            fingerprint: fingerprint(&(
                &options,
                size,
                [AUTOENCODER, DIFFUSION, TOKENIZER].map(|file| bundle.hash(file)),
            )),
            autoencoder,
            model,
            schedule,
            tokenizer,
            options,
            negative,
            device: device.clone(),
        })
    }

    /// One picture a prompt; the key names its noise.
    ///
    /// # Errors
    ///
    /// The tokenizer is unusable.
    pub fn sample(&self, prompts: &[(&[String], Key)]) -> Result<Vec<Picture>, BundleError> {
        let rows = prompts.len();
        let mut ids = Vec::new();
        for (tokens, _) in prompts {
            ids.extend(encode_prompt(&self.tokenizer, tokens)?);
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
        let mut sampler = self.options.sampler.init::<B>(
            &self.schedule,
            &sampler_config(),
            self.options.steps,
        )?;
        let first = self.noise(prompts, "latent");
        let latents = sample(
            |latents, times| self.model.unet.forward(latents, times, context.clone(), None),
            sampler.as_mut(),
            guidance,
            first,
            &mut |step| self.noise(prompts, &format!("step {step}")),
        );
        Ok(tensors::to_pictures(self.autoencoder.decode(latents / self.scaling)))
    }

    /// Pictures after the autoencoder: the best that can be drawn.
    pub fn reconstruct(&self, pictures: &[&Picture]) -> Vec<Picture> {
        let mut out = Vec::with_capacity(pictures.len());
        for batch in pictures.chunks(32) {
            let tensor = tensors::pictures(batch.iter().copied(), batch[0].width, &self.device);
            let latents = self.autoencoder.encode(tensor).mean;
            out.extend(tensors::to_pictures(self.autoencoder.decode(latents)));
        }
        out
    }

    fn noise(&self, prompts: &[(&[String], Key)], purpose: &str) -> Tensor<B, 4> {
        let [channels, height, width] = self.latent;
        let each = channels * height * width;
        let values: Vec<f32> = prompts
            .iter()
            .flat_map(|(_, key)| keyed::normal(&mut key.with("noise", purpose).rng(), each))
            .collect();
        let shape = [prompts.len(), channels, height, width];
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

/// Trailing steps start at pure noise, which matters where there are few (Lin et al. 2024).
fn sampler_config() -> SamplerConfig {
    SamplerConfig { timestep_spacing: TimestepSpacing::Trailing, ..SamplerConfig::default() }
}

impl<B: Backend> TextToImage for LatentDiffusion<B> {
    fn draw(&self, prompts: &[TextPrompt]) -> Result<Vec<Picture>, GeneratorError> {
        let sentences: Vec<Vec<String>> = prompts
            .iter()
            .map(|prompt| without_entities(&prompt.tokens, [&prompt.head.span, &prompt.tail.span]))
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

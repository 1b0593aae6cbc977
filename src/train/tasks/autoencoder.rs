//! The KL autoencoder: reconstruction by L1 and L2 with a slight pull to the standard Gaussian
//! (Rombach et al. 2022, section 3.1, without the adversarial part).

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use mi2rage_models::vae::AutoencoderKl;

use super::learner_steps;
use crate::data::Picture;
use crate::keyed::{self, Key};
use crate::tensors;
use crate::train::Tally;

/// Weight of the divergence (nats a picture) beside the mean error of a pixel's channel.
const DIVERGENCE: f64 = 1e-6;

/// The model in training.
#[derive(Module, Debug)]
pub struct Autoencoder<B: Backend> {
    /// Encoder and decoder.
    pub model: AutoencoderKl<B>,
}

/// Pictures and the noise of their latents.
#[derive(Clone, Debug)]
pub struct AutoencoderBatch {
    pictures: Vec<Arc<Picture>>,
    noise: Option<Key>,
}

impl AutoencoderBatch {
    /// For training: latents are sampled with the key's noise.
    pub fn sampled(pictures: Vec<Arc<Picture>>, key: &Key) -> Self {
        Self { pictures, noise: Some(key.with("latent noise", 0)) }
    }

    /// For evaluation: latents are their means.
    pub fn mean(pictures: Vec<Arc<Picture>>) -> Self {
        Self { pictures, noise: None }
    }
}

impl<B: Backend> Autoencoder<B> {
    /// Loss and the squared error of a pixel's channel, each a mean over the batch.
    fn errors(&self, batch: &AutoencoderBatch) -> (Tensor<B, 1>, Tensor<B, 1>) {
        let device = &self.devices()[0];
        let size = batch.pictures[0].width;
        let pictures = tensors::pictures::<B>(batch.pictures.iter().map(Arc::as_ref), size, device);
        let latent = self.model.encode(pictures.clone());
        let divergence = latent.kl().mean();
        let latent = match &batch.noise {
            Some(key) => {
                let shape = latent.mean.shape();
                let values = keyed::normal(&mut key.rng(), shape.num_elements());
                latent.sample(Tensor::from_data(TensorData::new(values, shape), device))
            }
            None => latent.mean,
        };
        let error = self.model.decode(latent) - pictures;
        let squared = error.clone().square().mean();
        (error.abs().mean() + squared.clone() + divergence * DIVERGENCE, squared)
    }

    fn loss(&self, batch: &AutoencoderBatch) -> Tensor<B, 1> {
        self.errors(batch).0
    }

    fn tally(&self, batch: &AutoencoderBatch) -> Tally {
        let count = batch.pictures.len() as f64;
        let squared: f64 = self.errors(batch).1.into_scalar().elem();
        Tally { count, loss: squared * count, ..Tally::default() }
    }
}

learner_steps!(Autoencoder, AutoencoderBatch);

use burn::prelude::*;

use super::{Conditions, Transformer, TransformerSizes};
use crate::blocks::{Downsample, ResnetBlock, ResnetSizes, Stride, Upsample};

/// Residual blocks, with a transformer after each or none, then a downsampling but in the last
/// block (diffusers' `DownBlock2D` and `CrossAttnDownBlock2D`).
#[derive(Module, Debug)]
pub struct DownBlock<B: Backend> {
    /// Residual blocks.
    pub resnets: Vec<ResnetBlock<B>>,
    /// As many, or none.
    pub attentions: Vec<Transformer<B>>,
    /// One or none.
    pub downsamplers: Vec<Downsample<B>>,
}

impl<B: Backend> DownBlock<B> {
    /// The first residual block takes `resnet.channels_in`, the others `resnet.channels_out`.
    pub fn new(
        layers: usize,
        resnet: ResnetSizes,
        transformer: Option<TransformerSizes>,
        downsample: bool,
        device: &B::Device,
    ) -> Self {
        let channels = resnet.channels_out;
        Self {
            resnets: (0..layers)
                .map(|layer| {
                    let channels_in = if layer == 0 { resnet.channels_in } else { channels };
                    ResnetBlock::new(ResnetSizes { channels_in, ..resnet }, device)
                })
                .collect(),
            attentions: transformers(layers, transformer, device),
            downsamplers: (0..usize::from(downsample))
                .map(|_| Downsample::new(channels, device))
                .collect(),
        }
    }

    /// Keeps every layer's output for the way up.
    ///
    /// # Shapes
    /// - hidden: `[b, h, w, in]`
    /// - output: `[b, h', w', out]`
    pub fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, Some(conditions.time));
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, conditions);
            }
            skips.push(hidden.clone());
        }
        for downsample in &self.downsamplers {
            hidden = downsample.forward(hidden, Stride::Two);
            skips.push(hidden.clone());
        }
        hidden
    }
}

/// A residual block, a transformer, a residual block (diffusers' `UNetMidBlock2DCrossAttn`).
#[derive(Module, Debug)]
pub struct MidBlock<B: Backend> {
    /// Two.
    pub resnets: Vec<ResnetBlock<B>>,
    /// One.
    pub attentions: Vec<Transformer<B>>,
}

impl<B: Backend> MidBlock<B> {
    /// Keeps the number of channels.
    pub fn new(resnet: ResnetSizes, transformer: TransformerSizes, device: &B::Device) -> Self {
        Self {
            resnets: (0..2).map(|_| ResnetBlock::new(resnet, device)).collect(),
            attentions: vec![Transformer::new(transformer, device)],
        }
    }

    /// # Shapes
    /// - hidden and output: `[b, h, w, c]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
    ) -> Tensor<B, 4> {
        let hidden = self.resnets[0].forward(hidden, Some(conditions.time));
        let hidden = self.attentions[0].forward(hidden, conditions);
        self.resnets[1].forward(hidden, Some(conditions.time))
    }
}

/// Residual blocks over the picture and what the way down kept, with a transformer after each or
/// none, then an upsampling but in the last block (diffusers' `UpBlock2D` and
/// `CrossAttnUpBlock2D`).
#[derive(Module, Debug)]
pub struct UpBlock<B: Backend> {
    /// Residual blocks.
    pub resnets: Vec<ResnetBlock<B>>,
    /// As many, or none.
    pub attentions: Vec<Transformer<B>>,
    /// One or none.
    pub upsamplers: Vec<Upsample<B>>,
}

impl<B: Backend> UpBlock<B> {
    /// `channels_in` holds each residual block's number of channels, the kept ones included.
    pub fn new(
        channels_in: &[usize],
        resnet: ResnetSizes,
        transformer: Option<TransformerSizes>,
        upsample: bool,
        device: &B::Device,
    ) -> Self {
        Self {
            resnets: channels_in
                .iter()
                .map(|&channels_in| ResnetBlock::new(ResnetSizes { channels_in, ..resnet }, device))
                .collect(),
            attentions: transformers(channels_in.len(), transformer, device),
            upsamplers: (0..usize::from(upsample))
                .map(|_| Upsample::new(resnet.channels_out, device))
                .collect(),
        }
    }

    /// Takes as many kept outputs as it has residual blocks, the latest first.
    ///
    /// # Shapes
    /// - hidden: `[b, h, w, c]`
    /// - output: `[b, h', w', out]`
    pub fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down kept one for each layer of the way up");
            hidden = Tensor::cat(vec![hidden, skip], 3);
            hidden = resnet.forward(hidden, Some(conditions.time));
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, conditions);
            }
        }
        for upsample in &self.upsamplers {
            hidden = upsample.forward(hidden);
        }
        hidden
    }
}

fn transformers<B: Backend>(
    layers: usize,
    sizes: Option<TransformerSizes>,
    device: &B::Device,
) -> Vec<Transformer<B>> {
    sizes.map_or_else(Vec::new, |sizes| {
        (0..layers).map(|_| Transformer::new(sizes, device)).collect()
    })
}

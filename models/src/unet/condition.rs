use std::slice;

use burn::prelude::*;

use super::{KeysValues, Transformer, UNet};

/// What the U-Net makes of a prompt, whatever the sample and the timestep: a sampler needs it once for all
/// of its steps.
#[derive(Clone, Debug)]
pub struct Condition<B: Backend> {
    /// Of each cross-attention, in the order in which a sample passes them.
    contexts: Vec<KeysValues<B>>,
    /// Added to the logits of the cross-attention, `[b, 1, m]`.
    bias: Option<Tensor<B, 3>>,
}

impl<B: Backend> UNet<B> {
    /// `encoder_mask` is true where a token may be attended to.
    ///
    /// # Shapes
    /// - encoder_hidden_states: `[b, m, cross_attention_dim]`
    /// - encoder_mask: `[b, m]`
    pub fn condition(
        &self,
        encoder_hidden_states: Tensor<B, 3>,
        encoder_mask: Option<Tensor<B, 2, Bool>>,
    ) -> Condition<B> {
        let context = encoder_hidden_states.cast(self.conv_in.weight.dtype());
        let transformers = self.transformers();
        let blocks = transformers.flat_map(|transformer| &transformer.transformer_blocks);
        let contexts = blocks.map(|block| block.attn2.keys_values(context.clone()));
        Condition { contexts: contexts.collect(), bias: encoder_mask.map(attention_bias) }
    }

    fn transformers(&self) -> impl Iterator<Item = &Transformer<B>> {
        let down = self.down_blocks.iter().flat_map(|block| &block.attentions);
        let up = self.up_blocks.iter().flat_map(|block| &block.attentions);
        down.chain(&self.mid_block.attentions).chain(up)
    }
}

/// `[b, m]` to what is added to the logits, `[b, 1, m]`: 0, or diffusers' -10000.
fn attention_bias<B: Backend>(mask: Tensor<B, 2, Bool>) -> Tensor<B, 3> {
    (mask.bool_not().float() * -10000.0).unsqueeze_dim(1)
}

impl<B: Backend> Condition<B> {
    /// For one pass through the U-Net; `time` is [`UNet::embed_time`]'s.
    pub fn at<'a>(&'a self, time: &'a Tensor<B, 2>) -> Conditions<'a, B> {
        Conditions { time, contexts: self.contexts.iter(), bias: self.bias.as_ref() }
    }
}

/// What the blocks of the U-Net see besides the picture, in one pass from the first to the last.
pub struct Conditions<'a, B: Backend> {
    /// The time embedding after its silu, `[b, t]`.
    pub(super) time: &'a Tensor<B, 2>,
    contexts: slice::Iter<'a, KeysValues<B>>,
    pub(super) bias: Option<&'a Tensor<B, 3>>,
}

impl<B: Backend> Conditions<'_, B> {
    /// That of the next cross-attention.
    pub(super) fn next_context(&mut self) -> KeysValues<B> {
        let next = self.contexts.next();
        next.expect("there is one for each cross-attention, and the blocks pass once").clone()
    }
}

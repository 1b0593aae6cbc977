//! Half precision: weights and states in 16 bits, for generation. Training is in 32, on CUDA with factors of products
//! in 16 where [`in_mixed_precision`] asks for it.
//!
//! What 16 bits would spoil is computed in 32 whatever the weights' type: norms and the scale of CLIP's
//! cosines, whose parameters stay in 32 bits too, the logits and the softmax of attention, the logits
//! of tokens, the sinusoids of time steps, embeddings of length 1, and everything that a sampler does.
//! Pictures, latents and pixels go in and come out as they are; each model brings them to the type of
//! its weights.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::kernels::laid_out;

/// The type that weights have in memory, and states between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits, for training and for CPUs.
    #[default]
    F32,
    /// 16 bits, three digits, up to 65504.
    F16,
    /// 16 bits, two digits, the range of 32.
    Bf16,
}

/// A name that is no precision's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown precision `{0}`, expected f32, f16 or bf16")]
pub struct UnknownPrecision(String);

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// burn's name of it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Whether the backend computes in it on `device`.
    pub fn is_supported<B: Backend>(self, device: &B::Device) -> bool {
        B::supports_dtype(device, self.dtype())
    }

    /// The type of the parameters of a module that burn calls `container`.
    pub(crate) fn dtype_in(self, container: &str) -> DType {
        match container {
            "Struct:LayerNorm" | "Struct:GroupNorm" => DType::F32,
            // The scale of cosines, which goes through an exponential.
            "Struct:ClipModel" | "Struct:LockedClip" => DType::F32,
            _ => self.dtype(),
        }
    }

    /// `module` with its parameters in this precision, those of norms in 32 bits.
    pub fn convert<B: Backend, M: Module<B>>(self, module: M) -> M {
        match self {
            Self::F32 => module,
            Self::F16 | Self::Bf16 => {
                module.map(&mut Convert { precision: self, path: Vec::new() })
            }
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

thread_local! {
    static MIXED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, a forward pass, in mixed precision (Micikevicius et al. 2018): what this thread multiplies on CUDA, of
/// tensors of 32 bits, has its factors rounded to bf16, here and in the backward pass that belongs to it. Sums, outputs,
/// gradients and weights have 32 bits. Elsewhere `f` computes as ever.
///
/// What was set before comes back afterwards, also when `f` panics.
pub fn in_mixed_precision<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MIXED.set(self.0);
        }
    }
    let _restore = Restore(MIXED.replace(true));
    f()
}

/// Whether this thread is [`in_mixed_precision`].
pub(crate) fn is_mixed() -> bool {
    MIXED.get()
}

struct Convert {
    precision: Precision,
    /// Containers on the way to a parameter.
    path: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for Convert {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.path.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let container = self.path.last().map_or("", String::as_str);
        let dtype = self.precision.dtype_in(container);
        param.map(|tensor| laid_out(tensor.cast(dtype)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{ResnetBlock, ResnetSizes};
    use burn::backend::{Flex, NdArray};

    #[test]
    fn a_precision_is_known_by_its_name_and_an_unknown_name_lists_the_known_ones() {
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse(), Ok(precision));
            let json = serde_json::to_string(&precision).unwrap();
            assert_eq!(json, format!("{:?}", precision.name()));
        }
        let message = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(message, "unknown precision `fp8`, expected f32, f16 or bf16");
    }

    #[test]
    fn a_converted_module_keeps_its_norms_in_32_bits() {
        let sizes =
            ResnetSizes { channels_in: 4, channels_out: 8, time: None, groups: 2, epsilon: 1e-5 };
        let block = ResnetBlock::<Flex>::new(sizes, &Default::default());
        let block = Precision::Bf16.convert(block);
        assert_eq!(block.conv1.weight.dtype(), DType::BF16);
        assert_eq!(block.conv_shortcut.unwrap().weight.dtype(), DType::BF16);
        assert_eq!(block.norm1.gamma.dtype(), DType::F32);
    }

    #[test]
    fn ndarray_computes_in_32_bits_alone() {
        let supported = |precision: Precision| {
            let (flex, ndarray) = (Default::default(), Default::default());
            (precision.is_supported::<Flex>(&flex), precision.is_supported::<NdArray>(&ndarray))
        };
        assert_eq!(Precision::ALL.map(supported), [(true, true), (true, false), (true, false)]);
    }
}

//! Fast paths that a card alone takes, against the processor's. By hand, where there is one:
//!
//!     cargo test --release --features cuda --test cuda -- --ignored
//!
//! or, built elsewhere, through `scripts/gpu-check.sh tests` (TESTS=PROGRAM).
#![cfg(feature = "cuda")]

use burn::backend::cuda::CudaDevice;
use burn::backend::{Cuda, Flex};
use burn::tensor::{DType, Distribution, Tensor, TensorData, backend::Backend};
use mi2rage_models::dropout::Dropout;
use mi2rage_models::kernels::attention;

/// Attention of the U-Net's sizes: heads of 40 and 64 channels, positions that fill no block.
#[test]
#[ignore = "needs a card"]
fn attention_of_many_positions_is_that_of_the_processor() {
    fn attend<B: Backend>(inputs: &[TensorData; 3], dtype: DType, device: &B::Device) -> Vec<f32> {
        let [query, key, value] =
            inputs.clone().map(|data| Tensor::<B, 3>::from_data(data, device).cast(dtype));
        let attended = attention(query, key, value, 5, None, &Dropout::new(0.0));
        attended.cast(DType::F32).into_data().to_vec().unwrap()
    }
    for (positions, channels) in [(1024, 200), (1024, 320), (1090, 200)] {
        let inputs = [(); 3].map(|()| {
            let range = Distribution::Uniform(-1.0, 1.0);
            Tensor::<Flex, 3>::random([2, positions, channels], range, &Default::default())
                .into_data()
        });
        let expected = attend::<Flex>(&inputs, DType::F32, &Default::default());
        // Outputs are means of numbers up to 1: the deviation of one is some hundredths. Tensor cores
        // round f32 to the 11 bits of tf32, and bf16 has 8.
        for (dtype, bound) in [(DType::F32, 2e-3), (DType::BF16, 1e-2)] {
            let found = attend::<Cuda>(&inputs, dtype, &CudaDevice::new(0));
            let gap = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{positions} positions of {channels} channels, {dtype:?}: off by {gap:.1e}");
            assert!(gap < bound, "{positions} positions of {channels} channels: {gap}");
        }
    }
}

//! The fast paths on burn-flex against the same in burn's own operations, forward and backward, at the
//! sizes of the bundled U-Net and of Stable Diffusion's.
//!
//!     cargo bench -p mi2rage-models --bench kernels
//!
//! Compare the two lines of each group. `RAYON_NUM_THREADS=1` measures one core.

use burn::backend::{Autodiff, Flex};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::activation::{gelu, silu, softmax};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use criterion::{Criterion, criterion_group, criterion_main};
use mi2rage_models::blocks::Stride;
use mi2rage_models::dropout::Dropout;
use mi2rage_models::kernels;

type Plain = Flex;
type Learning = Autodiff<Flex>;

type Operation<'a, const D: usize> = &'a dyn Fn(&[Tensor<Learning, D>]) -> Tensor<Learning, D>;

fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

/// Times `fast` and `burn` on the same inputs: forward alone, then with the gradients of all of them.
fn pair<const D: usize>(
    criterion: &mut Criterion,
    name: &str,
    shapes: &[[usize; D]],
    fast: impl Fn(&[Tensor<Learning, D>]) -> Tensor<Learning, D>,
    burn: impl Fn(&[Tensor<Learning, D>]) -> Tensor<Learning, D>,
) {
    let inputs: Vec<Tensor<Learning, D>> =
        shapes.iter().map(|&shape| random(shape).require_grad()).collect();
    let ways: [(&str, Operation<D>); 2] = [("fast", &fast), ("burn", &burn)];
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for (way, run) in ways {
        group.bench_function(format!("{way}, forward"), |bencher| {
            let detached: Vec<_> = inputs.iter().map(|input| input.clone().detach()).collect();
            bencher.iter(|| run(&detached).into_data());
        });
        group.bench_function(format!("{way}, forward and backward"), |bencher| {
            bencher.iter(|| {
                let gradients = run(&inputs).sum().backward();
                inputs.iter().all(|input| input.grad(&gradients).is_some())
            });
        });
    }
    group.finish();
}

fn convolution(criterion: &mut Criterion) {
    for (name, rows, side, channels) in [
        ("conv3x3 32x8x8x48", 32, 8, 48),
        ("conv3x3 32x4x4x96", 32, 4, 96),
        ("conv3x3 1x64x64x320", 1, 64, 320),
    ] {
        let weight = random::<Learning, 4>([channels, channels, 3, 3]).require_grad();
        let other = weight.clone();
        pair(
            criterion,
            name,
            &[[rows, side, side, channels]],
            move |inputs| {
                let bias = Tensor::zeros([1, channels], &Default::default());
                kernels::conv3x3(inputs[0].clone(), weight.clone(), bias, Stride::One)
            },
            move |inputs| {
                let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
                let input = inputs[0].clone().permute([0, 3, 1, 2]);
                conv2d(input, other.clone(), None, options).permute([0, 2, 3, 1])
            },
        );
    }
}

fn group_norm(criterion: &mut Criterion) {
    for (name, rows, side, channels, groups) in [
        ("group norm and silu 32x8x8x48", 32, 8, 48, 8),
        ("group norm and silu 1x64x64x320", 1, 64, 320, 32),
    ] {
        pair(
            criterion,
            name,
            &[[rows, side, side, channels]],
            move |inputs| {
                let device = Default::default();
                let (ones, zeros) =
                    (Tensor::ones([channels], &device), Tensor::zeros([channels], &device));
                kernels::group_norm(inputs[0].clone(), ones, zeros, groups, 1e-5, true)
            },
            move |inputs| {
                let x = inputs[0].clone().permute([0, 3, 1, 2]);
                let flat = x.reshape([rows, groups, channels / groups * side * side]);
                let centred = flat.clone() - flat.mean_dim(2);
                let variance = centred.clone().square().mean_dim(2);
                let normed = centred / (variance + 1e-5).sqrt();
                silu(normed.reshape([rows, channels, side, side])).permute([0, 2, 3, 1])
            },
        );
    }
}

fn attention(criterion: &mut Criterion) {
    for (name, rows, tokens, width, heads) in [
        ("attention 32x64x48, 4 heads", 32, 64, 48, 4),
        ("attention 1x1024x640, 8 heads", 1, 1024, 640, 8),
    ] {
        let shape = [rows, tokens, width];
        pair(
            criterion,
            name,
            &[shape, shape, shape],
            move |x| {
                kernels::attention(
                    x[0].clone(),
                    x[1].clone(),
                    x[2].clone(),
                    heads,
                    None,
                    &Dropout::new(0.0),
                )
            },
            move |x| {
                let each = width / heads;
                let split = |x: &Tensor<Learning, 3>| {
                    x.clone().reshape([rows, tokens, heads, each]).swap_dims(1, 2)
                };
                let (query, key, value) = (split(&x[0]), split(&x[1]), split(&x[2]));
                let logits = query.matmul(key.transpose()) / f64::sqrt(each as f64);
                softmax(logits, 3).matmul(value).swap_dims(1, 2).reshape(shape)
            },
        );
    }
}

fn geglu(criterion: &mut Criterion) {
    pair(
        criterion,
        "geglu 32x64x384",
        &[[32, 64, 384]],
        |inputs| kernels::geglu(inputs[0].clone()),
        |inputs| {
            let x = inputs[0].clone();
            x.clone().narrow(2, 0, 192) * gelu(x.narrow(2, 192, 192))
        },
    );
}

fn linear(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear 2048x48 to 384");
    group.sample_size(10);
    let layer: Linear<Plain> = LinearConfig::new(48, 384).init(&Default::default());
    let input = random::<Plain, 2>([2048, 48]);
    group.bench_function("fast, forward", |bencher| {
        bencher.iter(|| kernels::linear(&layer, input.clone()).into_data());
    });
    group.bench_function("burn, forward", |bencher| {
        bencher.iter(|| layer.forward(input.clone()).into_data());
    });
    group.finish();
}

criterion_group!(benches, convolution, group_norm, attention, geglu, linear);
criterion_main!(benches);

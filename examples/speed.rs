use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use mi2rage_models::bert::BertConfig;
use mi2rage_models::fusion::*;
use mi2rage_models::layers::Activation;
use mi2rage_models::vit::ViTConfig;
use std::time::Instant;
type B = Autodiff<Flex>;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (h, layers, vh, vl, patch, batch, threads) = (a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
    let run = move || {
        let d = Default::default();
        let cfg = FusionConfig {
            text: BertConfig {
                vocab_size: 2000,
                hidden_size: h,
                num_hidden_layers: layers,
                num_attention_heads: 4,
                intermediate_size: 2 * h,
                hidden_act: Activation::Relu,
                hidden_dropout_prob: 0.,
                attention_probs_dropout_prob: 0.,
                max_position_embeddings: 64,
                ..Default::default()
            },
            vision: ViTConfig {
                hidden_size: vh,
                num_hidden_layers: vl,
                num_attention_heads: 4,
                intermediate_size: 2 * vh,
                hidden_act: Activation::Relu,
                image_size: 32,
                patch_size: patch,
                ..Default::default()
            },
            num_labels: 13,
            fusion_size: h,
            fusion_heads: 4,
            fusion_act: Activation::Relu,
            fusion_dropout: 0.,
        };
        let mut model: FusionClassifier<B> = cfg.init(&d);
        let mut optim = AdamWConfig::new().init();
        let n = 28;
        for it in 0..3 {
            let t = Instant::now();
            let reps = 10;
            let (mut tf, mut tb, mut to) = (0.0, 0.0, 0.0);
            for _ in 0..reps {
                let ids: Vec<i32> = (0..batch * n).map(|i| (i * 7 % 1900) as i32).collect();
                let s = Sentences {
                    ids: Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [batch, n]), &d),
                    mask: Some(Tensor::<B, 2, Bool>::from_data(
                        TensorData::new(vec![true; batch * n], [batch, n]),
                        &d,
                    )),
                    head: Tensor::ones([batch], &d),
                    tail: Tensor::ones([batch], &d),
                };
                let p = Tensor::<B, 4>::zeros([batch, 3, 32, 32], &d);
                let pr = Presence {
                    text: Tensor::<B, 1, Bool>::from_data(
                        TensorData::new(vec![true; batch], [batch]),
                        &d,
                    ),
                    picture: Tensor::<B, 1, Bool>::from_data(
                        TensorData::new(vec![true; batch], [batch]),
                        &d,
                    ),
                };
                let t0 = Instant::now();
                let l = model.forward(Some(&s), Some(p), pr).powf_scalar(2.0).mean();
                tf += t0.elapsed().as_secs_f64();
                let t0 = Instant::now();
                let g = GradientsParams::from_grads(l.backward(), &model);
                tb += t0.elapsed().as_secs_f64();
                let t0 = Instant::now();
                model = optim.step(1e-4, model, g);
                to += t0.elapsed().as_secs_f64();
            }
            let f = 1e3 / reps as f64;
            println!(
                "{it}: step {:.1} ms: forward {:.1} backward {:.1} optimiser {:.1}",
                t.elapsed().as_secs_f64() * f,
                tf * f,
                tb * f,
                to * f
            );
        }
        let _ = model.valid();
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
}

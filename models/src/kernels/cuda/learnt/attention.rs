use std::sync::LazyLock;

use burn::cubecl::server::Handle;
use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::of_mask;
use super::{CudaTensor, DROPOUT, Deferred, Launches, Learnt, apply, defer, dims, empty, exactly};
use crate::dropout::KeyedMask;
use crate::kernels::cuda::launch::{Defines, Kernel, Piece};
use crate::kernels::cuda::layout::{self, contiguous};
use crate::kernels::cuda::{Client, PRELUDE, bits};
use crate::kernels::flex::primitive;

static ATTENTION: LazyLock<Piece> = LazyLock::new(|| Piece::new(include_str!("attention.cu")));

/// The widest head whose sums, of both gradients, a warp keeps in registers.
const WIDEST: usize = 128;

/// The most blocks of a grid's second and third dimension.
const MOST: usize = u16::MAX as usize;

/// Queries or keys of a block, and of the others that it takes at a time.
const SIDE: usize = 64;

/// Threads of a block.
const THREADS: usize = 128;

/// Multi-head attention with dropout on its weights, in mixed precision.
///
/// # Shapes
/// - query: `[b, n, c]`, `heads` divides `c`
/// - key, value: `[b, m, c]`
/// - bias: `[1 or b, 1 or n, m]`; it gets no gradient
/// - output: `[b, n, c]`
pub(in crate::kernels) fn attention<B: Backend>(
    [query, key, value]: [&Tensor<B, 3>; 3],
    heads: usize,
    bias: Option<&Tensor<B, 3>>,
    mask: Option<KeyedMask>,
) -> Option<Tensor<B, 3>> {
    let ([b, n, c], [_, m, _]) = (query.dims(), key.dims());
    let width = c / heads;
    let of_bias = |[samples, rows, keys]: [usize; 3]| {
        [1, b].contains(&samples) && [1, n].contains(&rows) && keys == m
    };
    let fits = width > 0
        && width * heads == c
        && [key, value].iter().all(|x| x.dims() == [b, m, c])
        && bias.is_none_or(|bias| of_bias(bias.dims()));
    if !fits || !width.is_multiple_of(4) || width > WIDEST || b > MOST || heads > MOST {
        return None;
    }
    let [query, key, value] = [query, key, value].map(primitive);
    let operation = Attention { heads, mask };
    match bias {
        Some(bias) => apply(operation, [query, key, value, primitive(bias)]),
        None => apply(operation, [query, key, value]),
    }
}

#[derive(Clone, Debug)]
struct Attention {
    heads: usize,
    mask: Option<KeyedMask>,
}

impl Learnt for Attention {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let [b, n, c] = dims(&inputs[0]);
        let logs = Shape::new([b, self.heads, n, 2]);
        let outputs = vec![(Shape::new([b, n, c]), DType::F32), (logs, DType::F32)];
        let mut kept = inputs.clone();
        let outputs = defer(self.clone(), inputs, outputs);
        kept.extend(outputs.clone());
        let [output, _] = exactly(outputs);
        (output, kept)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        _wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let outputs = kept[..3].iter().map(|input| (input.shape.clone(), DType::F32)).collect();
        kept.push(gradient);
        // One kernel gives those of keys and values, and all are wanted but where an encoder is frozen.
        defer(Backward(self.clone()), kept, outputs).into_iter().map(Some).collect()
    }
}

/// Whether a buffer begins where four numbers can be loaded at once.
fn is_aligned(buffer: &Handle) -> bool {
    buffer.offset_start.unwrap_or(0).is_multiple_of(16)
}

/// What is common to the launches of one attention.
struct Sizes {
    b: usize,
    n: usize,
    m: usize,
    heads: usize,
    width: usize,
    /// Numbers from one sample's to the next, and from one query's.
    bias: Option<[usize; 2]>,
    mask: Option<KeyedMask>,
}

impl Sizes {
    fn of(
        &Attention { heads, mask }: &Attention,
        query: &CudaTensor,
        key: &CudaTensor,
        bias: Option<&CudaTensor>,
    ) -> Self {
        let ([b, n, c], [_, m, _]) = (layout::dims(query), layout::dims::<3>(key));
        let bias = bias.map(|bias| {
            let [samples, rows, _] = layout::dims(bias);
            [if samples == 1 { 0 } else { rows * m }, if rows == 1 { 0 } else { m }]
        });
        Self { b, n, m, heads, width: c / heads, bias, mask }
    }

    /// Bytes of so many tiles of [`SIDE`] rows.
    fn tiles(&self, count: usize) -> usize {
        count * SIDE * (32 * self.width.div_ceil(16) + 16)
    }

    fn launch(
        &self,
        (entry, shared): (&'static str, usize),
        client: &Client,
        grid: [usize; 3],
        buffers: &[&Handle],
    ) {
        let Self { b, n, m, heads, width, bias, mask } = *self;
        let defines = Defines::from([
            ("HALF", 0),
            ("D", width),
            ("BIAS", bias.is_some().into()),
            ("DROP", mask.is_some().into()),
            ("VECTOR", buffers.iter().all(|buffer| is_aligned(buffer)).into()),
        ]);
        let pieces = vec![*PRELUDE, *ATTENTION, *DROPOUT];
        let kernel = Kernel { entry, pieces, defines, threads: THREADS, shared };
        let [bias_batch, bias_row] = bias.unwrap_or_default();
        let scale = bits(1.0 / (width as f32).sqrt());
        let [b, n, m, heads] = [b, n, m, heads].map(|size| size as u64);
        let mut info = vec![b, n, m, heads, scale, bias_batch as u64, bias_row as u64];
        info.extend(of_mask(mask));
        kernel.launch(client, grid, buffers, info);
    }
}

impl Launches for Attention {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let mut inputs: Vec<_> = inputs.into_iter().map(contiguous).collect();
        let bias = inputs.drain(3..).next();
        let [query, key, value] = exactly(inputs);
        let sizes = Sizes::of(self, &query, &key, bias.as_ref());
        let output = empty(&query, query.meta.shape.clone(), DType::F32);
        let logs = empty(&query, Shape::new([sizes.b, sizes.heads, sizes.n, 2]), DType::F32);
        // Without a bias nothing is read there.
        let bias = bias.as_ref().map_or(&query.handle, |bias| &bias.handle);
        let buffers =
            [&query.handle, &key.handle, &value.handle, bias, &output.handle, &logs.handle];
        let grid = [sizes.n.div_ceil(SIDE), sizes.heads, sizes.b];
        sizes.launch(("attention_forward", sizes.tiles(3)), &query.client, grid, &buffers);
        vec![output, logs]
    }
}

#[derive(Debug)]
struct Backward(Attention);

impl Launches for Backward {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let mut inputs: Vec<_> = inputs.into_iter().map(contiguous).collect();
        let bias = (inputs.len() > 6).then(|| inputs.remove(3));
        let [query, key, value, output, logs, gradient] = exactly(inputs);
        let sizes = Sizes::of(&self.0, &query, &key, bias.as_ref());
        let Sizes { b, n, m, heads, .. } = sizes;
        let client = &query.client;
        let deltas = empty(&query, Shape::new([b, heads, n]), DType::F32);
        let [to_query, to_key, to_value] =
            [&query, &key, &value].map(|x| empty(x, x.meta.shape.clone(), DType::F32));
        let buffers = [&output.handle, &gradient.handle, &deltas.handle];
        let grid = [(b * heads * n).div_ceil(THREADS / 32), 1, 1];
        sizes.launch(("attention_deltas", 0), client, grid, &buffers);
        let bias = bias.as_ref().map_or(&query.handle, |bias| &bias.handle);
        let given = [
            &query.handle,
            &key.handle,
            &value.handle,
            bias,
            &gradient.handle,
            &logs.handle,
            &deltas.handle,
        ];
        let run = |kernel, rows: usize, outputs: &[&Handle]| {
            let grid = [rows.div_ceil(SIDE), heads, b];
            sizes.launch(kernel, client, grid, &[&given[..], outputs].concat());
        };
        run(("attention_to_query", sizes.tiles(4)), n, &[&to_query.handle]);
        let shared = sizes.tiles(4) + 3 * SIDE * size_of::<f32>();
        run(("attention_to_keys", shared), m, &[&to_key.handle, &to_value.handle]);
        vec![to_query, to_key, to_value]
    }
}

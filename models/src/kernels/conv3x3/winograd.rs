//! The convolution of step one by Winograd's minimal filtering, F(2x2, 3x3) (Lavin and Gray 2016): four
//! output pixels of a channel take 16 products in place of 36.
//!
//! The input's 4x4 tiles, which overlap by two, and the 3x3 weights are transformed; for each of the
//! 16 places of a tile the channels are a matrix product; its results are transformed back. All
//! factors are 0, 1 and 1/2, so that the rounding is hardly more than the direct form's.

mod tiles;

use std::ops::Range;

use pulp::Arch;

use self::tiles::{Grid, Transform, TransformBack};
use super::sizes::Sizes;
use crate::kernels::matrix::Rows;
use crate::kernels::packed::Packed;
use crate::kernels::parts::{pieces, write_parts};
use crate::kernels::product::{self, Start};
use crate::kernels::vector::widest;

/// Places of a tile.
const PLACES: usize = 16;

/// Tiles that one thread takes at a time, about.
const TILES: usize = 64;

/// Output pixels of all samples from which on transforming the weights pays.
const PIXELS: usize = 1024;

/// Channels from which on the transformations cost little beside the products.
const CHANNELS: usize = 32;

/// Whether this is the faster form.
pub(super) fn pays(sizes: &Sizes, samples: usize) -> bool {
    sizes.step == 1
        && sizes.channels_in.min(sizes.channels_out) >= CHANNELS
        && samples * sizes.out_h * sizes.out_w >= PIXELS
        && sizes.out_h > 1
        && sizes.out_w > 1
}

/// The transformed weights `[out, in, 3, 3]` as a right factor of `[16 * in, out]`, place by place.
pub(super) fn factor(sizes: &Sizes, weight: &[f32]) -> Packed {
    let channels_in = sizes.channels_in;
    transform_weights(channels_in, sizes.channels_out, |channel, out| {
        *first_taps(&weight[(out * channels_in + channel) * 9..])
    })
}

/// The same for the input's gradient, `[16 * out, in]`: turned around, channels exchanged. `sizes` are
/// those of the convolution whose gradient it is.
pub(super) fn factor_back(sizes: &Sizes, weight: &[f32]) -> Packed {
    let channels_in = sizes.channels_in;
    transform_weights(sizes.channels_out, channels_in, |out, channel| {
        let mut taps = *first_taps(&weight[(out * channels_in + channel) * 9..]);
        taps.reverse();
        taps
    })
}

fn first_taps(weight: &[f32]) -> &[f32; 9] {
    weight.first_chunk().expect("a weight has nine taps for each two channels")
}

/// `taps` gives the kernel from one channel to another.
fn transform_weights(
    channels_in: usize,
    channels_out: usize,
    taps: impl Fn(usize, usize) -> [f32; 9] + Sync,
) -> Packed {
    Packed::of(PLACES * channels_in, channels_out, |columns, width, panel| {
        widest!({
            for channel in 0..channels_in {
                for first in columns.clone().step_by(LANES) {
                    let count = (columns.end - first).min(LANES);
                    let mut kernels = [[0.0; LANES]; 9];
                    for lane in 0..count {
                        for (kernel, tap) in kernels.iter_mut().zip(taps(channel, first + lane)) {
                            kernel[lane] = tap;
                        }
                    }
                    for (place, values) in transform_kernels(&kernels).iter().enumerate() {
                        let row = (place * channels_in + channel) * width + first - columns.start;
                        panel[row..row + count].copy_from_slice(&values[..count]);
                    }
                }
            }
        });
    })
}

/// Kernels that are transformed at once.
const LANES: usize = 8;

/// `G g G^T` of each kernel, G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1].
#[inline(always)]
fn transform_kernels(kernels: &[[f32; LANES]; 9]) -> [[f32; LANES]; PLACES] {
    let spread = |[a, b, c]: [f32; 3]| {
        let (even, odd) = (0.5 * (a + c), 0.5 * b);
        [a, even + odd, even - odd, c]
    };
    let mut places = [[0.0; LANES]; PLACES];
    for lane in 0..LANES {
        let mut columns = [[0.0; 4]; 3];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = spread([kernels[j][lane], kernels[3 + j][lane], kernels[6 + j][lane]]);
        }
        for i in 0..4 {
            let row = spread([columns[0][i], columns[1][i], columns[2][i]]);
            for j in 0..4 {
                places[4 * i + j][lane] = row[j];
            }
        }
    }
    places
}

/// The convolution of all samples by a weight of [`factor`]; `bias` gives each sample's.
pub(super) fn convolve_all<'a>(
    sizes: &Sizes,
    samples: &[f32],
    factor: &Packed,
    bias: impl Fn(usize) -> &'a [f32] + Sync,
) -> Vec<f32> {
    let [down, across] = [sizes.out_h, sizes.out_w].map(|pixels| pixels.div_ceil(2));
    let (sample_in, sample_out) = (sizes.sample_in(), sizes.sample_out());
    let count = samples.len() / sample_in;
    // Several small samples at a time, where threads enough get some: each reads the whole weight.
    let whole = (TILES / (down * across)).min(count.div_ceil(rayon::current_num_threads()));
    if whole > 1 {
        let pieces = pieces(count * sample_out, whole * sample_out);
        return write_parts(pieces, Room::default, |room, index, output| {
            let output = output.zeros();
            let (first, count) = (index * whole, output.len() / sample_out);
            let samples = &samples[first * sample_in..][..count * sample_in];
            let bias = |sample| bias(first + sample);
            convolve(sizes, samples, 0..sizes.out_h, factor, bias, output, room);
            output
        });
    }
    // Lines of tiles, two of pixels each.
    let lines = 2 * (TILES / across).clamp(1, down);
    sizes.write_lines(samples, lines, Room::default, |room, index, lines, output| {
        let sample = &samples[index * sample_in..][..sample_in];
        convolve(sizes, sample, lines, factor, |_| bias(index), output, room);
    })
}

/// What one thread works in.
#[derive(Default)]
struct Room {
    padded: Vec<f32>,
    /// `[16, stride]`: `[tiles, in]` of each place.
    inputs: Vec<f32>,
    /// `[16, stride]`: `[tiles, out]` of each place.
    outputs: Vec<f32>,
}

/// From one place's numbers to the next one's, in numbers: places of one tile that lie a multiple of
/// 4 KiB apart would push each other out of the first-level cache.
fn stride(numbers: usize) -> usize {
    numbers.next_multiple_of(1024) + 64
}

/// Writes lines of samples' outputs, from an even one on; `bias` gives each sample's.
fn convolve<'a>(
    sizes: &Sizes,
    samples: &[f32],
    lines: Range<usize>,
    factor: &Packed,
    bias: impl Fn(usize) -> &'a [f32],
    output: &mut [f32],
    room: &mut Room,
) {
    let (channels_in, channels_out) = (sizes.channels_in, sizes.channels_out);
    let [down, across] = [lines.len(), sizes.out_w].map(|pixels| pixels.div_ceil(2));
    let per_sample = down * across;
    let tiles = samples.len() / sizes.sample_in() * per_sample;
    let Room { padded, inputs, outputs } = room;
    let grid = |channels| Grid { down, across, channels, stride: stride(tiles * channels) };
    let (grid_in, grid_out) = (grid(channels_in), grid(channels_out));

    // Zeros on the right and below up to whole tiles.
    let padded_line = (2 * across + 2) * channels_in;
    padded.resize((2 * down + 2) * padded_line, 0.0);
    inputs.resize(PLACES * grid_in.stride, 0.0);
    for (index, sample) in samples.chunks_exact(sizes.sample_in()).enumerate() {
        sizes.pad(sample, lines.start, padded_line, padded);
        let places = &mut inputs[index * per_sample * channels_in..];
        Arch::new().dispatch(Transform { grid: grid_in, padded, places });
    }

    outputs.resize(PLACES * grid_out.stride, 0.0);
    let mut rows = Rows { slices: Vec::with_capacity(tiles), step: 1 };
    for place in 0..PLACES {
        let output = &mut outputs[place * grid_out.stride..][..tiles * channels_out];
        let input = &inputs[place * grid_in.stride..][..tiles * channels_in];
        for depth in product::blocks(channels_in) {
            let start = if depth.start == 0 { Start::Zero } else { Start::Output };
            rows.slices.clear();
            rows.slices.extend(input.chunks_exact(channels_in).map(|row| &row[depth.clone()]));
            let first = place * channels_in;
            let depth = first + depth.start..first + depth.end;
            product::multiply(output, channels_out, start, &rows, factor, depth);
        }
    }

    let samples = output.chunks_exact_mut(lines.len() * sizes.out_w * channels_out);
    for (index, output) in samples.enumerate() {
        let (places, bias) = (&outputs[index * per_sample * channels_out..], bias(index));
        let width = sizes.out_w;
        Arch::new().dispatch(TransformBack { grid: grid_out, places, bias, output, width });
    }
}

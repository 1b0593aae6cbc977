//! The convolution of step one by Winograd's minimal filtering, F(2x2, 3x3) (Lavin and Gray 2016): four
//! output pixels of a channel take 16 products in place of 36.
//!
//! The input's 4x4 tiles, which overlap by two, and the 3x3 weights are transformed; for each of the
//! 16 places of a tile the channels are a matrix product; its results are transformed back. All
//! factors are 0, 1 and 1/2, so that the rounding is hardly more than the direct form's.

use std::ops::Range;

use super::sizes::Sizes;
use crate::kernels::product::{self, Packed, Start};
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
        widest(|| {
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
    // Lines of tiles, two of pixels each.
    let lines = 2 * (TILES / sizes.out_w.div_ceil(2)).clamp(1, sizes.out_h.div_ceil(2));
    sizes.write_lines(samples, lines, Room::default, |room, index, lines, output| {
        let sample = &samples[index * sizes.sample_in()..][..sizes.sample_in()];
        convolve(sizes, sample, lines, factor, bias(index), output, room);
    })
}

/// What one thread works in.
#[derive(Default)]
struct Room {
    padded: Vec<f32>,
    /// `[16, tiles, in]`.
    inputs: Vec<f32>,
    /// `[16, tiles, out]`.
    outputs: Vec<f32>,
}

/// Writes lines of a sample's output, from an even one on.
fn convolve(
    sizes: &Sizes,
    sample: &[f32],
    lines: Range<usize>,
    factor: &Packed,
    bias: &[f32],
    output: &mut [f32],
    room: &mut Room,
) {
    let (channels_in, channels_out) = (sizes.channels_in, sizes.channels_out);
    let [down, across] = [lines.len(), sizes.out_w].map(|pixels| pixels.div_ceil(2));
    let tiles = down * across;
    let Room { padded, inputs, outputs } = room;

    // Zeros on the right and below up to whole tiles.
    let padded_line = (2 * across + 2) * channels_in;
    padded.resize((2 * down + 2) * padded_line, 0.0);
    sizes.pad(sample, lines.start, padded_line, padded);

    inputs.resize(PLACES * tiles * channels_in, 0.0);
    for tile in 0..tiles {
        let (y, x) = (2 * (tile / across), 2 * (tile % across));
        let rows: [&[f32]; 4] = std::array::from_fn(|i| {
            &padded[(y + i) * padded_line + x * channels_in..][..4 * channels_in]
        });
        let mut places = inputs.chunks_exact_mut(tiles * channels_in);
        let places: [&mut [f32]; PLACES] = std::array::from_fn(|_| {
            let place = places.next().expect("the room holds 16 places");
            &mut place[tile * channels_in..][..channels_in]
        });
        widest(|| transform_input(rows, places));
    }

    outputs.resize(PLACES * tiles * channels_out, 0.0);
    let mut rows = Vec::with_capacity(tiles);
    for place in 0..PLACES {
        let output = &mut outputs[place * tiles * channels_out..][..tiles * channels_out];
        let input = &inputs[place * tiles * channels_in..][..tiles * channels_in];
        for depth in product::blocks(channels_in) {
            let start = if depth.start == 0 { Start::Zero } else { Start::Output };
            rows.clear();
            rows.extend(input.chunks_exact(channels_in).map(|row| &row[depth.clone()]));
            let (first, columns) = (place * channels_in, 0..channels_out);
            let depth = first + depth.start..first + depth.end;
            product::multiply(output, channels_out, start, &rows, factor, columns, depth);
        }
    }

    let mut square = vec![0.0; 4 * channels_out];
    for tile in 0..tiles {
        let (y, x) = (2 * (tile / across), 2 * (tile % across));
        let places: [&[f32]; PLACES] = std::array::from_fn(|place| {
            &outputs[(place * tiles + tile) * channels_out..][..channels_out]
        });
        widest(|| transform_output(places, bias, &mut square));
        let width = (sizes.out_w - x).min(2) * channels_out;
        let pixels = square.chunks_exact(2 * channels_out);
        for (y, pixels) in (y..lines.len()).zip(pixels) {
            let first = (y * sizes.out_w + x) * channels_out;
            output[first..first + width].copy_from_slice(&pixels[..width]);
        }
    }
}

/// `B^T d B` of each channel of a tile, whose `rows` hold four pixels each.
#[inline(always)]
fn transform_input(rows: [&[f32]; 4], places: [&mut [f32]; PLACES]) {
    let channels = rows[0].len() / 4;
    let pixel = |i: usize, j: usize| &rows[i][j * channels..][..channels];
    let pixels: [&[f32]; PLACES] = std::array::from_fn(|place| pixel(place / 4, place % 4));
    let places = places.map(|place| &mut place[..channels]);
    for c in 0..channels {
        let mut d = [0.0; PLACES];
        for (d, pixel) in d.iter_mut().zip(&pixels) {
            *d = pixel[c];
        }
        let mut t = [0.0; PLACES];
        for j in 0..4 {
            let column = turn([d[j], d[4 + j], d[8 + j], d[12 + j]]);
            for i in 0..4 {
                t[4 * i + j] = column[i];
            }
        }
        for i in 0..4 {
            let row = turn([t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]]);
            for j in 0..4 {
                places[4 * i + j][c] = row[j];
            }
        }
    }
}

/// `B^T d`.
#[inline(always)]
fn turn([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a - c, b + c, c - b, b - d]
}

/// `A^T m A` of each channel of a tile, four pixels, added to the bias.
#[inline(always)]
fn transform_output(places: [&[f32]; PLACES], bias: &[f32], square: &mut [f32]) {
    let channels = bias.len();
    let places = places.map(|place| &place[..channels]);
    let (above, below) = square.split_at_mut(2 * channels);
    let ((p, q), (r, s)) = (above.split_at_mut(channels), below.split_at_mut(channels));
    let (p, q, r, s) =
        (&mut p[..channels], &mut q[..channels], &mut r[..channels], &mut s[..channels]);
    for c in 0..channels {
        let mut above = [0.0; 4];
        let mut below = [0.0; 4];
        for j in 0..4 {
            let column = [places[j][c], places[4 + j][c], places[8 + j][c], places[12 + j][c]];
            [above[j], below[j]] = turn_back(column);
        }
        let ([above_left, above_right], [below_left, below_right]) =
            (turn_back(above), turn_back(below));
        p[c] = above_left + bias[c];
        q[c] = above_right + bias[c];
        r[c] = below_left + bias[c];
        s[c] = below_right + bias[c];
    }
}

/// `A^T m`.
#[inline(always)]
fn turn_back([a, b, c, d]: [f32; 4]) -> [f32; 2] {
    [a + b + c, b - c - d]
}

//! Antialiased resizing that gives Pillow's bytes: published vision models were trained behind it.
//!
//! Source: Pillow, `src/libImaging/Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`,
//! `ImagingResampleHorizontal_8bpc`): a separable filter, stretched by the scale when shrinking, with
//! weights in fixed point and bytes between the two passes.

use serde::{Deserialize, Serialize};

use super::Picture;

/// The filter that weighs source pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// A triangle over one pixel to each side.
    Bilinear,
    /// Keys' cubic with a = -0.5, over two pixels to each side.
    Bicubic,
}

/// Bits behind the binary point of a weight: 8 for the pixel and 2 for overshoot are left of 32.
const PRECISION: u32 = 32 - 8 - 2;

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic => {
                const A: f64 = -0.5;
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// A picture of `width` times `height` pixels, the whole of `picture` in it.
///
/// `picture` must hold at least one pixel, or the result is black.
pub fn resize(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    if picture.width == 0 || picture.height == 0 {
        let rgb = vec![0; width * height * 3];
        return Picture { width, height, rgb };
    }
    let mut rgb = picture.rgb.clone();
    if width != picture.width {
        let taps = taps(picture.width, width, filter);
        let mut narrowed = Vec::with_capacity(picture.height * width * 3);
        for row in rgb.chunks_exact(picture.width * 3) {
            for tap in &taps {
                for channel in 0..3 {
                    narrowed.push(tap.sum(|x| row[x * 3 + channel]));
                }
            }
        }
        rgb = narrowed;
    }
    if height != picture.height {
        let stride = width * 3;
        let mut lowered = Vec::with_capacity(height * stride);
        for tap in taps(picture.height, height, filter) {
            for column in 0..stride {
                lowered.push(tap.sum(|y| rgb[y * stride + column]));
            }
        }
        rgb = lowered;
    }
    Picture { width, height, rgb }
}

/// The source pixels that one target pixel is made of.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

impl Tap {
    fn sum(&self, pixel: impl Fn(usize) -> u8) -> u8 {
        let half = 1 << (PRECISION - 1);
        let sum = self.weights.iter().enumerate().fold(half, |sum: i32, (index, &weight)| {
            sum.wrapping_add(i32::from(pixel(self.first + index)).wrapping_mul(weight))
        });
        (sum >> PRECISION).clamp(0, 255) as u8
    }
}

fn taps(source: usize, target: usize, filter: Filter) -> Vec<Tap> {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..target)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(source);
            let weights: Vec<f64> =
                (first..end).map(|x| filter.weight((x as f64 - centre + 0.5) / stretch)).collect();
            let total: f64 = weights.iter().sum();
            let one = f64::from(1 << PRECISION);
            let weights = weights
                .iter()
                // Rounded half away from zero; C's cast after +-0.5 does the same.
                .map(|weight| (weight / total * one).round() as i32)
                .collect();
            Tap { first, weights }
        })
        .collect()
}

/// The largest centred part of a picture that is as wide as high.
pub fn centre_square(picture: &Picture) -> Picture {
    let side = picture.width.min(picture.height);
    let left = (picture.width - side) / 2;
    let top = (picture.height - side) / 2;
    let rgb = picture
        .rgb
        .chunks_exact((picture.width * 3).max(1))
        .skip(top)
        .take(side)
        .flat_map(|row| &row[left * 3..(left + side) * 3])
        .copied()
        .collect();
    Picture { width: side, height: side, rgb }
}

//! From a picture to the numbers that a published encoder expects.

mod configuration;

use serde::{Deserialize, Serialize};

use crate::data::pictures::{Normalisation, decode};
use crate::data::resize::{Filter, resize_part};
use crate::data::{DataError, Picture, PictureSource};

/// The largest width and height that pictures are brought to, in pixels.
pub const MAX_OUTPUT: usize = 4096;

/// How transformers' processors with Pillow prepare a picture for an encoder: resize, cut out the
/// centre, rescale, normalise (`image_processing_backends.py`, `PilBackend`).
///
/// Read from the configurations of ViT, CLIP and BLIP. All pictures come out in one size. Classes
/// with `Fast` in their names resize with torchvision, whose bytes may differ by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessor {
    resize: Option<(Size, Filter)>,
    /// Height and width.
    crop: Option<[usize; 2]>,
    numbers: Numbers,
    /// Height and width.
    output: [usize; 2],
}

/// What becomes of a byte: it is multiplied, then normalised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Numbers {
    rescale: Option<f64>,
    normalise: Option<Normalisation>,
}

/// A picture in the size that an encoder takes, and what numbers it becomes there.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// In that size.
    pub picture: Picture,
    numbers: Numbers,
}

/// What a picture is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Size {
    /// Height and width, whatever its shape.
    Exact([usize; 2]),
    /// The shorter side; the shape stays.
    ShortestEdge(usize),
}

impl Preprocessor {
    /// That of the bundled models: squares of `side` pixels, bicubic, numbers from -1 to 1.
    pub fn square(side: usize) -> Self {
        Self {
            resize: Some((Size::Exact([side; 2]), Filter::Bicubic)),
            crop: None,
            numbers: Numbers {
                rescale: Some(1.0 / 127.5),
                normalise: Some(Normalisation { mean: [1.0; 3], deviation: [1.0; 3] }),
            },
            output: [side; 2],
        }
    }

    /// Whether all pictures come out in [`Self::output_size`], and that is within limits: one that was
    /// read from a file need not be so.
    pub fn is_sound(&self) -> bool {
        let exact = match self.resize {
            Some((Size::Exact(size), _)) => Some(size),
            Some((Size::ShortestEdge(edge), _)) if !(1..=MAX_OUTPUT).contains(&edge) => {
                return false;
            }
            _ => None,
        };
        let sides = [exact, self.crop].into_iter().flatten();
        let within = sides.flatten().all(|side| (1..=MAX_OUTPUT).contains(&side));
        within && self.crop.or(exact) == Some(self.output)
    }

    /// Height and width of what [`Self::apply`] gives.
    pub fn output_size(&self) -> [usize; 2] {
        self.output
    }

    /// The picture as numbers `[3, height, width]` of [`Self::output_size`]. A picture without pixels
    /// is black.
    pub fn apply(&self, picture: &Picture) -> Vec<f32> {
        self.see(picture).to_planar()
    }

    /// The picture in [`Self::output_size`].
    pub fn see(&self, picture: &Picture) -> Seen {
        let ([height, width], filter) = self.resized(picture);
        let [bottom, right] = self.crop.unwrap_or([height, width]);
        let (rows, columns) = (Window::centre(height, bottom), Window::centre(width, right));
        let part = resize_part(
            picture,
            [width, height],
            filter,
            columns.from..columns.from + columns.length,
            rows.from..rows.from + rows.length,
        );
        let numbers = self.numbers;
        if [part.height, part.width] == [bottom, right] {
            return Seen { picture: part, numbers };
        }
        let mut rgb = vec![0; 3 * bottom * right];
        for (row, pixels) in part.rgb.chunks_exact((part.width * 3).max(1)).enumerate() {
            let start = 3 * ((rows.to + row) * right + columns.to);
            rgb[start..start + pixels.len()].copy_from_slice(pixels);
        }
        Seen { picture: Picture { width: right, height: bottom, rgb }, numbers }
    }

    /// [`Self::see`] of a picture that may have to be decoded first.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn see_source(&self, source: &PictureSource) -> Result<Seen, DataError> {
        Ok(match source {
            PictureSource::File(path) => self.see(&decode(path)?),
            PictureSource::Pixels(picture) => self.see(picture),
        })
    }

    /// Height and width before the centre is cut out, and the filter on the way there.
    fn resized(&self, picture: &Picture) -> ([usize; 2], Filter) {
        let own = [picture.height, picture.width];
        match self.resize {
            None => (own, Filter::Bilinear),
            Some((Size::Exact(size), filter)) => (size, filter),
            Some((Size::ShortestEdge(edge), filter)) => {
                let short = picture.height.min(picture.width).max(1);
                // The longer side is rounded down, as `get_resize_output_image_size` does.
                (own.map(|side| (edge * side / short).max(edge)), filter)
            }
        }
    }
}

impl Seen {
    /// The picture as numbers `[3, height, width]`.
    pub fn to_planar(&self) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.picture.rgb.len());
        for channel in 0..3 {
            let table = self.numbers.table(channel);
            let bytes = self.picture.rgb.iter().skip(channel).step_by(3);
            values.extend(bytes.map(|&byte| table[usize::from(byte)]));
        }
        values
    }

    /// A picture of one colour, which stands where there is none.
    #[must_use]
    pub fn blank(&self) -> Self {
        let picture = Picture { rgb: vec![128; self.picture.rgb.len()], ..self.picture };
        Self { picture, numbers: self.numbers }
    }
}

impl Numbers {
    /// The number that each byte of a channel becomes. Products are rounded where numpy's are.
    fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|byte| {
            let mut value = byte as f32;
            if let Some(factor) = self.rescale {
                value = (byte as f64 * factor) as f32;
            }
            if let Some(Normalisation { mean, deviation }) = self.normalise {
                value = (value - mean[channel]) / deviation[channel];
            }
            value
        })
    }
}

/// Where a centred part of a side lies.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    /// Its first pixel in the picture.
    from: usize,
    /// Its first pixel in the part; what is before it and behind it is black.
    to: usize,
    length: usize,
}

impl Window {
    /// As transformers' `center_crop`: an odd pixel too many is left out at the end, an odd one too
    /// few is black at the beginning.
    fn centre(side: usize, part: usize) -> Self {
        match side.checked_sub(part) {
            Some(over) => Self { from: over / 2, to: 0, length: part },
            None => Self { from: 0, to: (part - side).div_ceil(2), length: side },
        }
    }
}

#[cfg(test)]
mod tests;

//! Picture files: decoding within limits, the way to a model's numbers and back, and writing PNG.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use image::{ImageReader, Limits};
use serde::{Deserialize, Serialize};

use super::resize::{Filter, centre_square, resize};
use super::{DataError, Picture, PictureSource};

/// The longest side of a picture that is decoded, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// The most memory that decoding one picture may take, in bytes.
pub const MAX_MEMORY: u64 = 256 << 20;
/// The largest picture file that is read, in bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Its largest centred square is taken.
    Crop,
    /// The whole of it is squashed.
    Squash,
}

/// Decodes a PNG or JPEG file, told apart by content. Transparency is dropped, grey becomes RGB and
/// 16 bits become 8; an EXIF orientation is not applied, as in Pillow.
///
/// # Errors
/// [`DataError::Read`]; [`DataError::Picture`] for another format, broken data, no pixels, and
/// for what is above [`MAX_SIDE`], [`MAX_MEMORY`] or [`MAX_FILE`].
pub fn decode(path: &Path) -> Result<Picture, DataError> {
    let bad = |message: String| DataError::Picture { path: path.to_owned(), message };
    let file = File::open(path).map_err(DataError::read(path))?;
    let bytes = file.metadata().map_err(DataError::read(path))?.len();
    if bytes > MAX_FILE {
        return Err(bad(format!("{bytes} bytes, at most {MAX_FILE} are read")));
    }
    let mut reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(DataError::read(path))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| bad(error.to_string()))?.into_rgb8();
    if image.width() == 0 || image.height() == 0 {
        return Err(bad("it has no pixels".to_owned()));
    }
    Ok(Picture {
        width: image.width() as usize,
        height: image.height() as usize,
        rgb: image.into_raw(),
    })
}

/// A source's pixels, as a square of `side` pixels.
///
/// # Errors
/// As [`decode`].
pub fn load(
    source: &PictureSource,
    side: usize,
    fit: Fit,
    filter: Filter,
) -> Result<Picture, DataError> {
    match source {
        PictureSource::File(path) => Ok(square(&decode(path)?, side, fit, filter)),
        PictureSource::Pixels(picture) => Ok(square(picture, side, fit, filter)),
    }
}

/// The picture as a square of `side` pixels.
pub fn square(picture: &Picture, side: usize, fit: Fit, filter: Filter) -> Picture {
    match fit {
        Fit::Crop => resize(&centre_square(picture), side, side, filter),
        Fit::Squash => resize(picture, side, side, filter),
    }
}

/// The mean and deviation of each channel that a model expects, of values from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub deviation: [f32; 3],
}

impl Normalisation {
    /// To -1..1, as diffusion models and ViT (google/vit-base-patch16-224) have it.
    pub const SYMMETRIC: Self = Self { mean: [0.5; 3], deviation: [0.5; 3] };

    /// A picture as `[3, height, width]` numbers, (value / 255 - mean) / deviation.
    pub fn to_planar(&self, picture: &Picture) -> Vec<f32> {
        let mut planar = Vec::with_capacity(picture.rgb.len());
        for channel in 0..3 {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            planar.extend(
                picture
                    .rgb
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&value| (f32::from(value) / 255.0 - mean) / deviation),
            );
        }
        planar
    }

    /// The picture nearest to `[3, height, width]` numbers, the inverse of [`Self::to_planar`].
    ///
    /// # Panics
    /// If there are not `3 * height * width` numbers: a caller's mistake.
    pub fn to_picture(&self, planar: &[f32], width: usize, height: usize) -> Picture {
        let pixels = width * height;
        assert_eq!(planar.len(), 3 * pixels, "three planes of the picture");
        let mut rgb = vec![0; 3 * pixels];
        for channel in 0..3 {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            for pixel in 0..pixels {
                let value = planar[channel * pixels + pixel] * deviation + mean;
                rgb[pixel * 3 + channel] = (value * 255.0).round().clamp(0.0, 255.0) as u8;
            }
        }
        Picture { width, height, rgb }
    }
}

/// Writes a PNG with text chunks (a prompt, a seed) beside its place and renames it, so that nothing
/// partial ever has the final name. Keywords are PNG's: 1 to 79 Latin-1 characters.
///
/// # Errors
/// [`DataError::Write`]; among other causes for a keyword that PNG does not allow.
pub fn save_png(path: &Path, picture: &Picture, texts: &[(&str, &str)]) -> Result<(), DataError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut file = beside(folder).map_err(DataError::write(path))?;
    encode(file.as_file_mut(), picture, texts).map_err(DataError::write(path))?;
    file.persist(path).map_err(|error| DataError::write(path)(error.error))?;
    Ok(())
}

fn beside(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".picture-");
    // Temporary files are private by default; a result is not (the umask still applies).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The bytes of [`save_png`]'s file.
///
/// # Errors
/// [`DataError::Write`] for a keyword that PNG does not allow.
pub fn to_png(picture: &Picture, texts: &[(&str, &str)]) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    encode(&mut bytes, picture, texts).map_err(DataError::write(Path::new("a picture")))?;
    Ok(bytes)
}

fn encode(out: impl Write, picture: &Picture, texts: &[(&str, &str)]) -> std::io::Result<()> {
    let mut buffered = BufWriter::new(out);
    let mut encoder = png::Encoder::new(
        &mut buffered,
        u32::try_from(picture.width).map_err(std::io::Error::other)?,
        u32::try_from(picture.height).map_err(std::io::Error::other)?,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // iTXt, which is UTF-8; tEXt is Latin-1.
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    buffered.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures").join(name)
    }

    fn furthest(left: &Picture, right: &Picture) -> u8 {
        assert_eq!((left.width, left.height), (right.width, right.height));
        let pairs = left.rgb.iter().zip(&right.rgb);
        pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn resizing_gives_pillows_bytes() {
        let noise = decode(&fixture("noise.png")).unwrap();
        for (filter, name) in [(Filter::Bilinear, "bilinear"), (Filter::Bicubic, "bicubic")] {
            for (fit, fitted) in [(Fit::Crop, "crop"), (Fit::Squash, "squash")] {
                for side in [8, 16, 48] {
                    let file = format!("{name}-{fitted}-{side}.png");
                    let expected = decode(&fixture(&file)).unwrap();
                    let resized = square(&noise, side, fit, filter);
                    assert_eq!(furthest(&resized, &expected), 0, "{file}");
                }
            }
        }
    }

    #[test]
    fn tall_pictures_are_resized_downwards_first_as_in_pillow_13() {
        let noise = decode(&fixture("noise.png")).unwrap();
        let turned = (0..noise.width)
            .flat_map(|x| (0..noise.height).map(move |y| (y * 37 + x) * 3))
            .flat_map(|at| noise.rgb[at..at + 3].to_vec());
        let tall = Picture { width: 23, height: 37, rgb: turned.collect() };
        for (filter, name) in [(Filter::Bilinear, "bilinear"), (Filter::Bicubic, "bicubic")] {
            let expected = decode(&fixture(&format!("{name}-tall-16.png"))).unwrap();
            assert_eq!(furthest(&square(&tall, 16, Fit::Squash, filter), &expected), 0, "{name}");
        }
    }

    #[test]
    fn jpeg_decodes_to_what_pillow_decodes_but_for_rounding() {
        let jpeg = decode(&fixture("noise.jpg")).unwrap();
        let expected = decode(&fixture("noise-jpg.png")).unwrap();
        assert!(furthest(&jpeg, &expected) <= 3);
    }

    #[test]
    fn the_content_tells_the_format_and_other_channels_become_rgb() {
        let folder = tempfile::tempdir().unwrap();
        let misnamed = folder.path().join("a.jpg");
        std::fs::copy(fixture("noise.png"), &misnamed).unwrap();
        assert_eq!(decode(&misnamed).unwrap(), decode(&fixture("noise.png")).unwrap());
        let grey = decode(&fixture("grey.png")).unwrap();
        assert_eq!((grey.width, grey.height, grey.rgb.len()), (6, 5, 90));
        assert!(grey.rgb.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        assert_eq!(decode(&fixture("rgba.png")).unwrap().rgb.len(), 5 * 4 * 3);
    }

    #[test]
    fn broken_and_huge_pictures_are_refused_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            decode(&path).unwrap_err().to_string()
        };
        assert!(message(b"no picture").contains("a.png: not a readable PNG or JPEG"));
        assert!(message(b"").contains("a.png"));
        let good = std::fs::read(fixture("noise.png")).unwrap();
        assert!(message(&good[..good.len() / 2]).contains("a.png"));
        // A header that promises 16,000 x 16,000 pixels: 768 MB.
        for (side, behind) in [(16_000_u32, 24), (100_000, 24)] {
            let mut bomb = good.clone();
            bomb[16..20].copy_from_slice(&side.to_be_bytes());
            bomb[20..behind].copy_from_slice(&side.to_be_bytes());
            let checksum = crc32(&bomb[12..29]);
            bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
            assert!(message(&bomb).contains("imit"), "{}", message(&bomb));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(decode(&path).unwrap_err(), DataError::Read { .. }));
    }

    /// The checksum of PNG chunks (PNG specification, annex D).
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }

    #[test]
    fn numbers_are_planar_and_lead_back_to_the_picture() {
        let picture = Picture { width: 2, height: 1, rgb: vec![0, 51, 255, 128, 1, 254] };
        let planar = Normalisation::SYMMETRIC.to_planar(&picture);
        assert_eq!(planar[0], -1.0);
        assert_eq!(planar[4], 1.0);
        assert!((planar[2] - (-0.6)).abs() < 1e-6);
        assert_eq!(Normalisation::SYMMETRIC.to_picture(&planar, 2, 1), picture);
        let wild = [f32::NAN, 9.0, -9.0, 0.0, f32::INFINITY, -1.0];
        let clamped = Normalisation::SYMMETRIC.to_picture(&wild, 2, 1);
        assert_eq!(clamped.rgb, [0, 0, 255, 255, 128, 0]);
    }

    #[test]
    fn a_saved_png_holds_its_pixels_and_texts_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = decode(&fixture("noise.png")).unwrap();
        for _ in 0..2 {
            save_png(&path, &picture, &[("prompt", "zwei Bären"), ("seed", "7")]).unwrap();
        }
        assert_eq!(decode(&path).unwrap(), picture);
        let file = BufReader::new(File::open(&path).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        let texts: Vec<_> = reader
            .info()
            .utf8_text
            .iter()
            .map(|text| (text.keyword.clone(), text.get_text().unwrap()))
            .collect();
        let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
        assert_eq!(texts, [pair("prompt", "zwei Bären"), pair("seed", "7")]);

        let none = folder.path().join("b.png");
        assert!(save_png(&none, &picture, &[("", "an empty keyword")]).is_err());
        let error = save_png(&folder.path().join("no/c.png"), &picture, &[]).unwrap_err();
        assert!(!error.is_user_mistake());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! `preprocessor_config.json`, read strictly.

use std::path::{Path, PathBuf};

use mi2rage_models::published::{Accepted, KeyError, read};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MAX_OUTPUT, Numbers, Preprocessor, Size};
use crate::data::DataError;
use crate::data::pictures::Normalisation;
use crate::data::published::json::{self, Keys};
use crate::data::resize::Filter;

/// Where a preprocessor stands, or stands among other things.
const FILE: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";

/// The keys that are read; what is missing or `null` has the class's default.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    image_processor_type: Value,
    feature_extractor_type: Value,
    do_resize: Value,
    size: Value,
    default_to_square: Value,
    resample: Value,
    do_center_crop: Value,
    crop_size: Value,
    do_rescale: Value,
    rescale_factor: Value,
    do_normalize: Value,
    image_mean: Value,
    image_std: Value,
}

const ACCEPTED: Accepted = Accepted {
    fixed: &[("data_format", &["\"channels_first\""])],
    // Pictures are RGB here; BLIP's first configurations have ViLT's divisor, which nothing reads.
    ignored: &["do_convert_rgb", "processor_class", "size_divisor", "disable_grouping"],
};

/// A family of transformers' classes and what its configurations need not say.
struct Class {
    /// What the names of its classes begin with.
    name: &'static str,
    /// `model_type` in `config.json`.
    model: &'static str,
    side: usize,
    /// Whether a `size` of one number is both sides, not the shorter one.
    square: bool,
    crop: bool,
    resample: u64,
    mean: [f64; 3],
    deviation: [f64; 3],
}

const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
const CLASSES: [Class; 3] = [
    Class {
        name: "ViT",
        model: "vit",
        side: 224,
        square: true,
        crop: false,
        resample: 2,
        mean: [0.5; 3],
        deviation: [0.5; 3],
    },
    Class {
        name: "CLIP",
        model: "clip",
        side: 224,
        square: false,
        crop: true,
        resample: 3,
        mean: CLIP_MEAN,
        deviation: CLIP_DEVIATION,
    },
    Class {
        name: "Blip",
        model: "blip",
        side: 384,
        square: true,
        crop: false,
        resample: 3,
        mean: CLIP_MEAN,
        deviation: CLIP_DEVIATION,
    },
];

impl Class {
    fn is_called(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.name);
        rest.is_some_and(|rest| {
            ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"]
                .contains(&rest)
        })
    }
}

impl Preprocessor {
    /// Reads a folder's `preprocessor_config.json`, or the `image_processor` of its
    /// `processor_config.json`.
    ///
    /// # Errors
    /// [`DataError::Read`], [`DataError::Syntax`]; [`DataError::Key`] for what is not computed here.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        if let Some(value) = json::read(&path)? {
            return Self::from_json(folder, path, value);
        }
        let processor = folder.join(PROCESSOR);
        match json::read(&processor)?.as_mut().and_then(|file| file.get_mut("image_processor")) {
            Some(value) => Self::from_json(folder, processor, value.take()),
            None => Err(DataError::read(&path)(std::io::ErrorKind::NotFound.into())),
        }
    }

    /// [`Self::load`] for a model that cuts pictures into squares of `patch` pixels.
    ///
    /// # Errors
    /// As there; the patches do not divide the pictures.
    pub fn load_for(folder: &Path, patch: usize) -> Result<Self, DataError> {
        let preprocessor = Self::load(folder)?;
        let [height, width] = preprocessor.output;
        if [height, width].iter().all(|side| side.is_multiple_of(patch)) {
            return Ok(preprocessor);
        }
        let key = if preprocessor.crop.is_some() { "crop_size" } else { "size" };
        let source = KeyError::Unsupported {
            key: key.to_owned(),
            value: format!("{width} x {height}"),
            expected: format!("multiples of the model's patches of {patch} pixels"),
        };
        let files = [FILE, PROCESSOR].map(|name| folder.join(name));
        let path = files.iter().find(|path| path.is_file()).unwrap_or(&files[0]).clone();
        Err(DataError::Key { path, source })
    }

    fn from_json(folder: &Path, path: PathBuf, value: Value) -> Result<Self, DataError> {
        // For the keys alone: the messages about values are to name them.
        read::<Known>(&value, &[ACCEPTED])
            .map_err(|source| DataError::Key { path: path.clone(), source })?;
        let keys = Keys::new(path, value)?;
        let class = class(folder, &keys)?;
        let flag = |key, default| {
            keys.get::<bool>(key, "true or false").map(|value| value.unwrap_or(default))
        };
        let mut resize = None;
        if flag("do_resize", true)? {
            let square = flag("default_to_square", class.square)?;
            resize = Some((size(&keys, class, square)?, filter(&keys, class)?));
        }
        let crop = match flag("do_center_crop", class.crop)? {
            true => Some(crop(&keys, class)?),
            false => None,
        };
        let output = match (crop, resize) {
            (Some(size), _) | (None, Some((Size::Exact(size), _))) => size,
            (None, Some((Size::ShortestEdge(_), _))) => {
                let expected = "true: without it pictures would come out in different sizes";
                return Err(keys.unsupported("do_center_crop", expected));
            }
            (None, None) => {
                let expected = "true: without it pictures would come out in different sizes";
                return Err(keys.unsupported("do_resize", expected));
            }
        };
        let mut rescale = None;
        if flag("do_rescale", true)? {
            rescale = Some(keys.get("rescale_factor", "a number")?.unwrap_or(1.0 / 255.0));
        }
        let mut normalise = None;
        if flag("do_normalize", true)? {
            normalise = Some(Normalisation {
                mean: channels(&keys, "image_mean", class.mean)?,
                deviation: channels(&keys, "image_std", class.deviation)?,
            });
        }
        Ok(Self { resize, crop, numbers: Numbers { rescale, normalise }, output })
    }
}

/// The class that a configuration names, else the one of the model beside it.
fn class(folder: &Path, keys: &Keys) -> Result<&'static Class, DataError> {
    const EXPECTED: &str = "ViTImageProcessor, CLIPImageProcessor or BlipImageProcessor";
    for key in ["image_processor_type", "feature_extractor_type"] {
        if let Some(name) = keys.get::<String>(key, EXPECTED)? {
            let class = CLASSES.iter().find(|class| class.is_called(&name));
            return class.ok_or_else(|| keys.unsupported(key, EXPECTED));
        }
    }
    let config = Keys::read(folder.join("config.json"))?;
    let model = config.get::<String>("model_type", "a name")?;
    let class = CLASSES.iter().find(|class| model.as_deref() == Some(class.model));
    class.ok_or_else(|| keys.unsupported("image_processor_type", EXPECTED))
}

/// A side within limits.
fn side(value: &Value) -> Option<usize> {
    let side = usize::try_from(value.as_u64()?).ok()?;
    (1..=MAX_OUTPUT).contains(&side).then_some(side)
}

/// `height` and `width`, and nothing else.
fn height_and_width(value: &Value) -> Option<[usize; 2]> {
    let only = value.as_object()?.len() == 2;
    only.then_some([side(&value["height"])?, side(&value["width"])?])
}

fn size(keys: &Keys, class: &Class, square: bool) -> Result<Size, DataError> {
    let one = |side| if square { Size::Exact([side; 2]) } else { Size::ShortestEdge(side) };
    let Some(value) = keys.value("size") else { return Ok(one(class.side)) };
    let shortest = |value: &Value| {
        let only = value.as_object()?.len() == 1;
        side(&value["shortest_edge"]).filter(|_| only).map(Size::ShortestEdge)
    };
    side(value)
        .map(one)
        .or_else(|| height_and_width(value).map(Size::Exact))
        .or_else(|| shortest(value))
        .ok_or_else(|| {
            let expected = format!(
                "a number, `height` and `width` or `shortest_edge`, from 1 to {MAX_OUTPUT}"
            );
            keys.unsupported("size", &expected)
        })
}

fn crop(keys: &Keys, class: &Class) -> Result<[usize; 2], DataError> {
    let size = match keys.value("crop_size") {
        None if class.crop => Some([class.side; 2]),
        None => None,
        Some(value) => side(value).map(|side| [side; 2]).or_else(|| height_and_width(value)),
    };
    size.ok_or_else(|| {
        let expected = format!("a number or `height` and `width`, from 1 to {MAX_OUTPUT}");
        keys.unsupported("crop_size", &expected)
    })
}

/// Pillow's numbers of filters.
fn filter(keys: &Keys, class: &Class) -> Result<Filter, DataError> {
    const EXPECTED: &str = "2 (bilinear) or 3 (bicubic)";
    match keys.get("resample", EXPECTED)?.unwrap_or(class.resample) {
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        _ => Err(keys.unsupported("resample", EXPECTED)),
    }
}

/// A number for each of red, green and blue, in single precision as numpy has them.
fn channels(keys: &Keys, key: &str, default: [f64; 3]) -> Result<[f32; 3], DataError> {
    const EXPECTED: &str = "three numbers, none of which is 0 in `image_std`";
    let values = keys.get::<[f64; 3]>(key, EXPECTED)?.unwrap_or(default).map(|value| value as f32);
    if key == "image_std" && values.contains(&0.0) {
        return Err(keys.unsupported(key, EXPECTED));
    }
    Ok(values)
}

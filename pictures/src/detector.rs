//! Which form does a picture show? The renderer's own answer, for pictures that a generator drew.
//!
//! A picture is explained as `background * (1 - main - second) + a * main + b * second`: the background of each
//! row is the median of its border pixels, `main` and `second` are the areas of a form at some place and size,
//! `a` and `b` the colours that fit best. The form that explains most of what is not background wins.

mod explanation;

use image::RgbImage;
use image::imageops::{FilterType, resize};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use self::explanation::{Field, Lanes, Template};
use super::forms::{CATALOGUE, cue_of};
use super::renderer::{HALF_SIDE, SCALES};
use crate::Picture;

/// What a picture shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// The form that fits best, whether it fits well or not.
    pub form: usize,
    /// The relation that the form shows; `None` for a neutral form and where no form fits.
    pub cue: Option<usize>,
    /// The share of what is not background that the form explains, at most 1.
    pub score: f32,
    /// By which share it leaves less unexplained than the best form that means something else; 0 to 1.
    pub margin: f32,
}

impl Detection {
    /// Whether the picture shows a form at all.
    pub fn is_clear(&self) -> bool {
        self.score >= CLEAR && self.margin >= MARGIN
    }
}

/// The least score of a picture that shows a form.
const CLEAR: f32 = 0.5;
/// The least margin of a picture that shows a form: many forms explain a blob about as well as each other.
const MARGIN: f32 = 0.2;
/// Pictures are looked at in this size and in half of it.
const SIDE: usize = 32;
/// Sizes that are tried, from the smallest to the largest.
const STEPS: usize = 7;
/// How far from the centre a form is looked for, in pixels of the half-sized picture.
const REACH: isize = 2;
/// How many forms of the coarse search are looked at closely.
const FINALISTS: usize = 8;

/// Finds forms in pictures.
#[derive(Debug)]
pub struct Detector {
    /// By form, then step: the form in the half-sized picture.
    coarse: Vec<Vec<Template>>,
    /// By form, then step, then quarter of a pixel that the form is centred in.
    fine: Vec<Vec<[Template; 4]>>,
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

impl Detector {
    /// Prepares the forms; takes a fraction of a second.
    pub fn new() -> Self {
        let half = |step: usize, side: usize| {
            let share = step as f32 / (STEPS - 1) as f32;
            (SCALES[0] + (SCALES[1] - SCALES[0]) * share) * HALF_SIDE * side as f32
        };
        let lanes = Arch::new().dispatch(Lanes);
        let forms = 0..CATALOGUE.len();
        let (coarse, fine) = forms
            .into_par_iter()
            .map(|form| {
                (0..STEPS)
                    .map(|step| {
                        let coarse = Template::new(form, half(step, SIDE / 2), [0.0; 2], lanes);
                        let fine = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5], [0.5, 0.5]]
                            .map(|offset| Template::new(form, half(step, SIDE), offset, lanes));
                        (coarse, fine)
                    })
                    .unzip()
            })
            .unzip();
        Self { coarse, fine }
    }

    /// What `picture` shows. Pictures of another size than 32 pixels a side are resized.
    pub fn detect(&self, picture: &Picture) -> Detection {
        Arch::new().dispatch(Search { detector: self, picture })
    }

    #[inline(always)]
    fn search<S: Simd>(&self, simd: S, picture: &Picture) -> Detection {
        let rgb = pixels(picture);
        let small: Vec<[f32; 3]> = (0..SIDE * SIDE / 4)
            .map(|index| {
                let (row, column) = (index / (SIDE / 2) * 2, index % (SIDE / 2) * 2);
                let at = row * SIDE + column;
                [0, 1, 2].map(|channel| {
                    [at, at + 1, at + SIDE, at + SIDE + 1]
                        .map(|pixel| rgb[pixel][channel])
                        .iter()
                        .sum::<f32>()
                        / 4.0
                })
            })
            .collect();
        let (field, small) = (Field::new(&rgb, SIDE), Field::new(&small, SIDE / 2));
        // Loops: a closure that another function calls would not be compiled for wide vectors.
        let mut rough: Vec<(f32, usize, Place)> = Vec::with_capacity(CATALOGUE.len());
        for form in 0..CATALOGUE.len() {
            let (score, place) = self.search_coarse(simd, &small, form);
            rough.push((score, form, place));
        }
        rough.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut finalists: Vec<(f32, usize)> = Vec::with_capacity(FINALISTS);
        for &(_, form, place) in rough.iter().take(FINALISTS) {
            finalists.push((self.search_fine(simd, &field, form, place), form));
        }
        finalists.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (score, form) = finalists[0];
        // Where no other meaning came this far, nothing is explained by one.
        let rival = finalists
            .iter()
            .find(|(_, other)| cue_of(*other) != cue_of(form))
            .map_or(0.0, |(score, _)| *score);
        let detection = Detection {
            form,
            cue: cue_of(form),
            score,
            margin: 1.0 - (1.0 - score) / (1.0 - rival).max(f32::EPSILON),
        };
        Detection { cue: detection.cue.filter(|_| detection.is_clear()), ..detection }
    }

    /// The best place of a form in the half-sized picture.
    #[inline(always)]
    fn search_coarse<S: Simd>(&self, simd: S, field: &Field, form: usize) -> (f32, Place) {
        let mut best = (f32::NEG_INFINITY, Place::default());
        for step in (1..STEPS).step_by(2) {
            for dy in -REACH..=REACH {
                for dx in -REACH..=REACH {
                    let centre = [dx, dy].map(|by| (SIDE / 4).saturating_add_signed(by));
                    let explained = field.explained(simd, &self.coarse[form][step], centre);
                    if explained > best.0 {
                        best = (explained, Place { step, centre });
                    }
                }
            }
        }
        best
    }

    /// The best fit of a form near `place`.
    #[inline(always)]
    fn search_fine<S: Simd>(&self, simd: S, field: &Field, form: usize, place: Place) -> f32 {
        let mut best = f32::NEG_INFINITY;
        for step in place.step - 1..=place.step + 1 {
            for template in &self.fine[form][step] {
                for dy in 0..3 {
                    for dx in 0..3 {
                        let centre = [2 * place.centre[0] + dx - 1, 2 * place.centre[1] + dy - 1];
                        best = best.max(field.explained(simd, template, centre));
                    }
                }
            }
        }
        best
    }
}

/// The search in the widest vectors that the machine has.
struct Search<'a> {
    detector: &'a Detector,
    picture: &'a Picture,
}

impl WithSimd for Search<'_> {
    type Output = Detection;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Detection {
        self.detector.search(simd, self.picture)
    }
}

/// A size, and a centre in pixels of the half-sized picture.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    step: usize,
    centre: [usize; 2],
}

/// The pixels, 0 to 1, of the picture in the detector's size.
fn pixels(picture: &Picture) -> Vec<[f32; 3]> {
    let whole = |rgb: &[u8]| {
        rgb.chunks_exact(3)
            .map(|pixel| [0, 1, 2].map(|channel| f32::from(pixel[channel]) / 255.0))
            .collect()
    };
    if (picture.width, picture.height) == (SIDE, SIDE) {
        return whole(&picture.rgb);
    }
    let image = RgbImage::from_fn(picture.width as u32, picture.height as u32, |x, y| {
        let at = (y as usize * picture.width + x as usize) * 3;
        image::Rgb([0, 1, 2].map(|channel| picture.rgb[at + channel]))
    });
    whole(resize(&image, SIDE as u32, SIDE as u32, FilterType::Triangle).as_raw())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rand::Rng;

    use super::*;
    use crate::forms::FORMS;
    use crate::keyed::Key;
    use crate::renderer::render;

    fn normal(rng: &mut impl Rng) -> f32 {
        let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }

    /// A Gaussian blur of standard deviation `sigma` pixels, then noise of standard deviation `noise`.
    fn spoil(picture: &Picture, sigma: f32, noise: f32, rng: &mut impl Rng) -> Picture {
        let kernel: Vec<f32> =
            (-3..=3).map(|at| (-((at * at) as f32) / (2.0 * sigma * sigma)).exp()).collect();
        let total: f32 = kernel.iter().sum();
        let (width, height) = (picture.width as i32, picture.height as i32);
        let blur = |from: &[f32], dx: i32, dy: i32| -> Vec<f32> {
            (0..from.len() as i32)
                .map(|index| {
                    let (pixel, channel) = (index / 3, index % 3);
                    (-3..=3)
                        .map(|k| {
                            let x = (pixel % width + k * dx).clamp(0, width - 1);
                            let y = (pixel / width + k * dy).clamp(0, height - 1);
                            from[((y * width + x) * 3 + channel) as usize]
                                * kernel[(k + 3) as usize]
                                / total
                        })
                        .sum()
                })
                .collect()
        };
        let sharp: Vec<f32> = picture.rgb.iter().map(|&value| f32::from(value)).collect();
        let rgb = blur(&blur(&sharp, 1, 0), 0, 1)
            .into_iter()
            .map(|value| (value + noise * normal(rng)).round().clamp(0.0, 255.0) as u8)
            .collect();
        Picture { width: picture.width, height: picture.height, rgb }
    }

    /// The share of right cue decisions (neutral and unclear are one) and of right forms; prints what went wrong.
    fn accuracy(size: usize, rounds: usize, spoiled: Option<(f32, f32)>) -> (f64, f64) {
        let detector = Detector::new();
        let (mut cues, mut forms, mut low) = (0, 0, 1.0f32);
        let started = Instant::now();
        for index in 0..rounds * FORMS {
            let form = index % FORMS;
            let mut rng = Key::new(17).with("detector", index).rng();
            let mut picture = render(form, size, &mut rng);
            if let Some((sigma, noise)) = spoiled {
                picture = spoil(&picture, sigma, noise, &mut rng);
            }
            let found = detector.detect(&picture);
            cues += usize::from(found.cue == cue_of(form));
            forms += usize::from(found.form == form);
            low = low.min(found.score);
            if found.form != form || !found.is_clear() {
                println!(
                    "{} seen as {} ({:.2})",
                    CATALOGUE[form].name, CATALOGUE[found.form].name, found.score
                );
            }
        }
        let n = (rounds * FORMS) as f64;
        println!(
            "cue {} form {} lowest score {low} {:.0}/s",
            cues as f64 / n,
            forms as f64 / n,
            n / started.elapsed().as_secs_f64()
        );
        (cues as f64 / n, forms as f64 / n)
    }

    #[test]
    fn the_cue_of_a_fresh_picture_is_found() {
        let (cue, form) = accuracy(32, 20, None);
        assert!(cue >= 0.99 && form >= 0.99, "{cue} {form}");
        let (cue, _) = accuracy(64, 4, None);
        assert!(cue >= 0.99, "{cue}");
    }

    #[test]
    fn the_cue_of_a_blurred_and_noisy_picture_is_found() {
        let (cue, form) = accuracy(32, 10, Some((0.7, 10.0)));
        assert!(cue >= 0.98 && form >= 0.98, "{cue} {form}");
        let (cue, _) = accuracy(32, 5, Some((1.2, 20.0)));
        assert!(cue >= 0.7, "{cue}");
    }

    #[test]
    fn noise_and_blobs_rarely_show_a_cue_and_half_a_form_seldom() {
        let detector = Detector::new();
        let (n, mut noise, mut blobs, mut halves) = (300, 0, 0, 0);
        for index in 0..n {
            let mut rng = Key::new(19).with("blank", index).rng();
            let level: [f32; 3] = rng.random();
            let picture = Picture {
                width: SIDE,
                height: SIDE,
                rgb: (0..SIDE * SIDE * 3)
                    .map(|at| (level[at % 3] * 255.0 + 20.0 * normal(&mut rng)) as u8)
                    .collect(),
            };
            noise += usize::from(detector.detect(&picture).cue.is_some());
            let [upper, lower] =
                [(); 2].map(|()| render(rng.random_range(0..FORMS), SIDE, &mut rng));
            let image = RgbImage::from_raw(SIDE as u32, SIDE as u32, upper.rgb.clone()).unwrap();
            let blob =
                Picture { rgb: image::imageops::blur(&image, 3.0).into_raw(), ..upper.clone() };
            blobs += usize::from(detector.detect(&blob).cue.is_some());
            let middle = SIDE * SIDE / 2 * 3;
            let half =
                Picture { rgb: [&upper.rgb[..middle], &lower.rgb[middle..]].concat(), ..upper };
            halves += usize::from(detector.detect(&half).cue.is_some());
        }
        println!("of {n}: noise {noise}, blobs {blobs}, halves {halves}");
        assert_eq!(noise, 0);
        assert!(blobs < n / 3, "{blobs}");
        assert!(halves < n / 3, "{halves}");
    }
}

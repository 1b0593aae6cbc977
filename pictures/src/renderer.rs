//! Pictures drawn by code: one form on a varied background with a little clutter.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::forms::CATALOGUE;
use crate::Picture;

/// A colour and what captions call it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour {
    /// One word.
    pub name: &'static str,
    /// 0 to 255 each.
    pub rgb: [f32; 3],
}

const fn colour(name: &'static str, r: u8, g: u8, b: u8) -> Colour {
    Colour { name, rgb: [r as f32, g as f32, b as f32] }
}

/// What forms are painted with, whatever the form.
pub const OBJECT_COLOURS: [Colour; 8] = [
    colour("red", 210, 45, 45),
    colour("orange", 240, 135, 30),
    colour("yellow", 248, 212, 50),
    colour("green", 30, 140, 65),
    colour("blue", 35, 85, 200),
    colour("purple", 125, 55, 165),
    colour("white", 248, 248, 248),
    colour("black", 22, 22, 28),
];

/// What stands behind them.
pub const BACKGROUND_COLOURS: [Colour; 8] = [
    colour("paper", 240, 238, 228),
    colour("stone", 150, 150, 156),
    colour("slate", 66, 74, 90),
    colour("sky", 150, 200, 240),
    colour("sand", 226, 200, 150),
    colour("meadow", 130, 190, 110),
    colour("blossom", 242, 188, 204),
    colour("night", 28, 36, 82),
];

/// How far apart in RGB the object's main colour and every colour behind it are at least.
const MAIN_CONTRAST: f32 = 120.0;
/// The same for its second colour, and for its two colours.
const SECOND_CONTRAST: f32 = 100.0;

/// How the background is laid out; always the same along a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backdrop {
    /// One colour.
    Plain,
    /// From one colour to the other, downwards.
    Gradient,
    /// One colour above, another below this height (0 to 1 from the top).
    Horizon(f32),
    /// Bands of this height, as a fraction of the picture's.
    Stripes(f32),
}

impl Backdrop {
    /// What captions call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gradient => "hazy",
            Self::Horizon(_) => "horizon",
            Self::Stripes(_) => "striped",
        }
    }
}

/// A bit of clutter: an upright rectangle, all lengths as fractions of the picture's side.
#[derive(Clone, Copy, Debug)]
struct Clutter {
    centre: [f32; 2],
    half: [f32; 2],
    rgb: [f32; 3],
}

/// Everything that a picture shows.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Index into [`CATALOGUE`].
    pub form: usize,
    /// The object's main colour.
    pub colour: Colour,
    /// Its second colour.
    pub second: Colour,
    /// The background's main colour, above the horizon where there is one.
    pub background: Colour,
    /// How the background is laid out.
    pub backdrop: Backdrop,
    /// The object's size relative to the usual one, 0.8 to 1.2.
    pub scale: f32,
    behind: [f32; 3],
    centre: [f32; 2],
    clutter: Vec<Clutter>,
}

/// Half the side of an object of scale 1, as a fraction of the picture's.
pub const HALF_SIDE: f32 = 0.32;
/// The smallest and the largest scale of an object.
pub const SCALES: [f32; 2] = [0.8, 1.2];
/// How far an object's centre is off the picture's at most, in each direction.
pub const SHIFT: f32 = 0.08;

impl Scene {
    /// A random scene that shows `form`.
    pub fn draw(form: usize, rng: &mut impl Rng) -> Self {
        let pick = |from: &[Colour], rng: &mut _| *from.choose(rng).expect("a palette has colours");
        let background = pick(&BACKGROUND_COLOURS, rng);
        let (backdrop, behind) = match rng.random_range(0..4) {
            0 => (Backdrop::Plain, background.rgb),
            1 => (Backdrop::Gradient, tint(background.rgb, rng.random_range(-0.25..0.25))),
            2 => (
                Backdrop::Horizon(rng.random_range(0.45..0.75)),
                pick(&BACKGROUND_COLOURS, rng).rgb,
            ),
            _ => {
                let towards = if rng.random() { 0.16 } else { -0.16 };
                (Backdrop::Stripes(rng.random_range(0.09..0.16)), tint(background.rgb, towards))
            }
        };
        let backs = [background.rgb, behind];
        let clear = |rgb: [f32; 3], least: f32, from: &[[f32; 3]]| {
            from.iter().all(|other| distance(rgb, *other) >= least)
        };
        let usable: Vec<Colour> = OBJECT_COLOURS
            .into_iter()
            .filter(|ink| clear(ink.rgb, MAIN_CONTRAST, &backs))
            .collect();
        let colour = pick(&usable, rng);
        let usable: Vec<Colour> = OBJECT_COLOURS
            .into_iter()
            .filter(|ink| clear(ink.rgb, SECOND_CONTRAST, &[backs[0], backs[1], colour.rgb]))
            .collect();
        let second = pick(&usable, rng);
        let scale = rng.random_range(SCALES[0]..SCALES[1]);
        let centre = [(); 2].map(|()| 0.5 + rng.random_range(-SHIFT..SHIFT));
        let clutter = (0..rng.random_range(0..4))
            .map(|_| {
                let (long, short) = (rng.random_range(0.015..0.06), 0.02);
                Clutter {
                    centre: [rng.random(), rng.random()],
                    half: if rng.random() { [long, short] } else { [short, long] },
                    rgb: pick(&OBJECT_COLOURS, rng).rgb,
                }
            })
            .collect();
        Self { form, colour, second, background, backdrop, scale, behind, centre, clutter }
    }

    /// The picture, `size` pixels a side, anti-aliased.
    pub fn render(&self, size: usize) -> Picture {
        let pixel = 1.0 / size as f32;
        let half = HALF_SIDE * self.scale;
        let mut rgb = Vec::with_capacity(size * size * 3);
        for row in 0..size {
            for column in 0..size {
                let [left, top] = [column, row].map(|at| at as f32 * pixel);
                let mut colour = self.backdrop_at(top, pixel);
                for bit in &self.clutter {
                    let cover = overlap(left, pixel, bit.centre[0], bit.half[0])
                        * overlap(top, pixel, bit.centre[1], bit.half[1]);
                    colour = mix(colour, bit.rgb, cover);
                }
                let [main, second] = CATALOGUE[self.form].coverage(
                    (left - self.centre[0]) / half,
                    (top - self.centre[1]) / half,
                    pixel / half,
                );
                let inks = colour.iter().zip(self.colour.rgb).zip(self.second.rgb);
                rgb.extend(inks.map(|((back, a), b)| {
                    let value = back * (1.0 - main - second) + a * main + b * second;
                    value.round().clamp(0.0, 255.0) as u8
                }));
            }
        }
        Picture { width: size, height: size, rgb }
    }

    /// The background of the pixel row that begins at `top`.
    fn backdrop_at(&self, top: f32, pixel: f32) -> [f32; 3] {
        let middle = top + pixel / 2.0;
        let share = match self.backdrop {
            Backdrop::Plain => 0.0,
            Backdrop::Gradient => middle,
            Backdrop::Horizon(height) => ((top + pixel - height) / pixel).clamp(0.0, 1.0),
            Backdrop::Stripes(height) => (middle / height).floor() % 2.0,
        };
        mix(self.background.rgb, self.behind, share)
    }
}

/// The share of `[from, from + length]` within `half` of `centre`.
fn overlap(from: f32, length: f32, centre: f32, half: f32) -> f32 {
    let (low, high) = (from.max(centre - half), (from + length).min(centre + half));
    ((high - low) / length).max(0.0)
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    [0, 1, 2].map(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

/// Lighter where `by` is positive, darker where it is negative.
fn tint(rgb: [f32; 3], by: f32) -> [f32; 3] {
    let target = if by > 0.0 { 255.0 } else { 0.0 };
    mix(rgb, [target; 3], by.abs())
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    (0..3).map(|channel| (a[channel] - b[channel]).powi(2)).sum::<f32>().sqrt()
}

/// A random picture that shows `form`, `size` pixels a side.
pub fn render(form: usize, size: usize, rng: &mut impl Rng) -> Picture {
    Scene::draw(form, rng).render(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::FORMS;
    use crate::keyed::Key;

    #[test]
    fn every_two_backgrounds_leave_colours_that_stand_out() {
        for index in 0..20_000 {
            let mut rng = Key::new(3).with("scene", index).rng();
            let scene = Scene::draw(index % FORMS, &mut rng);
            for back in [scene.background.rgb, scene.behind] {
                assert!(distance(scene.colour.rgb, back) >= MAIN_CONTRAST);
                assert!(distance(scene.second.rgb, back) >= SECOND_CONTRAST);
            }
        }
    }

    #[test]
    fn a_scene_is_the_same_at_every_resolution() {
        let scene = Scene::draw(0, &mut Key::new(5).rng());
        let (small, large) = (scene.render(32), scene.render(64));
        let mut worst = 0.0f32;
        for row in 0..32 {
            for column in 0..32 {
                for channel in 0..3 {
                    let mean: f32 = [(0, 0), (0, 1), (1, 0), (1, 1)]
                        .iter()
                        .map(|(i, j)| {
                            let at = ((2 * row + i) * 64 + 2 * column + j) * 3 + channel;
                            f32::from(large.rgb[at]) / 4.0
                        })
                        .sum();
                    let at = (row * 32 + column) * 3 + channel;
                    worst = worst.max((mean - f32::from(small.rgb[at])).abs());
                }
            }
        }
        assert!(worst < 40.0, "{worst}");
    }

    #[test]
    fn pictures_depend_on_the_random_numbers_alone() {
        let draw = |seed| render(7, 32, &mut Key::new(seed).rng());
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}

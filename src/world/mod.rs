//! The embedded world: generated posts whose relation is known, and what can be known of it.
//!
//! [`World`] makes posts and the generators' training data; [`Probabilities`](probabilities::Probabilities) says
//! how well any observer can do; [`Detector`](detector::Detector) and [`text_cue`](lexicon::text_cue) read the cue
//! off pictures and sentences that a generator made.

pub mod config;
pub mod detector;
pub mod forms;
pub mod grammar;
pub mod lexicon;
pub mod names;
pub mod posts;
pub mod probabilities;
pub mod renderer;
pub mod web;

pub use config::{WorldConfig, WorldConfigError};
pub use posts::{Fidelity, World};

#[cfg(test)]
mod sheet {
    use super::*;
    use crate::keyed::Key;

    #[test]
    #[ignore = "writes a contact sheet to look at"]
    fn contact_sheet() {
        let (columns, zoom, size) = (16, 3, 32);
        let per = 4;
        let total = forms::FORMS * per;
        let rows = total.div_ceil(columns);
        let mut sheet = image::RgbImage::new(
            (columns * (size * zoom + 4)) as u32,
            (rows * (size * zoom + 4)) as u32,
        );
        for index in 0..total {
            let mut rng = Key::new(11).with("sheet", index).rng();
            let picture = renderer::render(index / per, size, &mut rng);
            let (x0, y0) =
                ((index % columns) * (size * zoom + 4), (index / columns) * (size * zoom + 4));
            for y in 0..size * zoom {
                for x in 0..size * zoom {
                    let at = ((y / zoom) * size + x / zoom) * 3;
                    sheet.put_pixel(
                        (x0 + x) as u32,
                        (y0 + y) as u32,
                        image::Rgb([picture.rgb[at], picture.rgb[at + 1], picture.rgb[at + 2]]),
                    );
                }
            }
        }
        sheet.save("/tmp/world.png").unwrap();
    }
}

//! A picture of pictures: every form in a few variations, to be looked at.

use super::forms::FORMS;
use super::renderer::render;
use crate::data::Picture;
use crate::keyed::Key;

/// Forms in a row of the sheet: those of a relation, or half of the neutral ones.
const FORMS_IN_A_ROW: usize = 4;
/// Pixels between pictures, after enlarging.
const GAP: usize = 4;

/// Every form in `variations` pictures of `size` pixels a side, each pixel drawn `zoom` times as large.
pub fn contact_sheet(size: usize, variations: usize, zoom: usize, seed: u64) -> Picture {
    let columns = FORMS_IN_A_ROW * variations;
    let rows = FORMS / FORMS_IN_A_ROW;
    let pitch = size * zoom + GAP;
    let (width, height) = (columns * pitch, rows * pitch);
    let mut rgb = vec![0; width * height * 3];
    for index in 0..columns * rows {
        let mut rng = Key::new(seed).with("sheet", index).rng();
        let picture = render(index / variations, size, &mut rng);
        let (left, top) = (index % columns * pitch, index / columns * pitch);
        for y in 0..size * zoom {
            for x in 0..size * zoom {
                let from = (y / zoom * size + x / zoom) * 3;
                let to = ((top + y) * width + left + x) * 3;
                rgb[to..to + 3].copy_from_slice(&picture.rgb[from..from + 3]);
            }
        }
    }
    Picture { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_holds_every_variation_once() {
        let sheet = contact_sheet(32, 2, 1, 1);
        assert_eq!((sheet.width, sheet.height), (8 * 36, 14 * 36));
        let first = render(0, 32, &mut Key::new(1).with("sheet", 0).rng());
        assert_eq!(sheet.rgb[..32 * 3], first.rgb[..32 * 3]);
    }
}

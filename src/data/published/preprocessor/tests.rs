use super::*;

#[test]
fn an_odd_pixel_is_left_out_at_the_end_and_black_at_the_beginning() {
    let window = |from, to, length| Window { from, to, length };
    assert_eq!(Window::centre(7, 4), window(1, 0, 4));
    assert_eq!(Window::centre(4, 7), window(0, 2, 4));
    assert_eq!(Window::centre(4, 4), window(0, 0, 4));
    assert_eq!(Window::centre(0, 3), window(0, 2, 0));
}

#[test]
fn the_longer_side_is_rounded_down() {
    let preprocessor = Preprocessor {
        resize: Some((Size::ShortestEdge(224), Filter::Bicubic)),
        crop: Some([224, 224]),
        numbers: Numbers { rescale: None, normalise: None },
        output: [224, 224],
    };
    let size = |width, height| preprocessor.resized(&Picture { width, height, rgb: Vec::new() }).0;
    assert_eq!(size(640, 427), [224, 335]);
    assert_eq!(size(427, 640), [335, 224]);
    assert_eq!(size(100, 100), [224, 224]);
}

#[test]
fn the_bundled_models_see_bytes_from_minus_one_to_one() {
    let table = Preprocessor::square(8).numbers.table(1);
    for (byte, value) in table.into_iter().enumerate() {
        assert_eq!(value, byte as f32 / 127.5 - 1.0, "{byte}");
    }
}

#[test]
fn a_picture_of_the_right_size_stays_as_it_is() {
    let rgb = (0..3 * 8 * 8).map(|at| (at * 37 % 256) as u8).collect();
    let picture = Picture { width: 8, height: 8, rgb };
    assert_eq!(Preprocessor::square(8).see(&picture).picture, picture);
}

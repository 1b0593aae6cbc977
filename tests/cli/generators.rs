//! `sample` and `caption` with the bundled models.

use std::collections::BTreeMap;
use std::path::Path;

use mi2rage::bundle::Bundle;
use mi2rage::data::pictures;

use super::{assert_says, mistake, printed};

/// The bundled generators, which are trained, in half precision: a number is off by 2^-11 of itself in f16,
/// eight times that in bf16, and so is a picture, whose colours are spread over some 60 levels.
#[test]
fn the_bundled_models_draw_and_describe_in_half_precision_almost_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let draw = |precision: &str| {
        let name = format!("{precision}.png");
        let half = ["--steps", "4", "--precision", precision, "--out", &name];
        printed(folder, &[&["sample", "a wedding cake"] as &[&str], &half].concat());
        assert_eq!(texts(&folder.join(&name))["precision"], precision);
        pictures::decode(&folder.join(&name)).unwrap()
    };
    let plain = draw("f32");
    let describe =
        |precision: &str| printed(folder, &["caption", "f32.png", "--precision", precision]);
    for (precision, levels) in [("f16", 0.25), ("bf16", 2.0)] {
        let half = draw(precision);
        let gaps = half.rgb.iter().zip(&plain.rgb).map(|(a, b)| f64::from(a.abs_diff(*b)));
        let mean = gaps.sum::<f64>() / plain.rgb.len() as f64;
        println!("{precision}: off by {mean:.3} levels of 255");
        assert!(mean > 0.0 && mean < levels, "{precision}: off by {mean:.2} levels");
        assert_eq!(describe(precision), describe("f32"), "{precision}");
    }
}

/// The text chunks of a PNG.
fn texts(path: &Path) -> BTreeMap<String, String> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let chunks = &reader.info().utf8_text;
    chunks.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap())).collect()
}

#[test]
fn a_picture_says_what_made_it_and_does_not_depend_on_how_many_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let options = ["--steps", "4", "--seed", "9", "--negative", "moon", "--guidance", "2.5"];
    let draw = |more: &[&str]| {
        printed(folder, &[&["sample", "a wedding cake"] as &[&str], &options, more].concat())
    };
    assert_eq!(
        draw(&["-n", "3", "-o", "many/a.png"]).lines().collect::<Vec<_>>(),
        ["many/a-0.png", "many/a-1.png", "many/a-2.png"]
    );
    assert_eq!(draw(&["-o", "one.png"]), "one.png\n");
    assert_eq!(draw(&["-n", "3", "--sheet", "-o", "sheet.png"]), "sheet.png\n");
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(bytes("one.png"), bytes("many/a-0.png"));
    assert_ne!(bytes("many/a-0.png"), bytes("many/a-1.png"));
    let chunks = texts(&folder.join("many/a-2.png"));
    for (key, value) in [
        ("prompt", "a wedding cake"),
        ("negative", "moon"),
        ("seed", "9"),
        ("index", "2"),
        ("sampler", "dpmpp_2m"),
        ("steps", "4"),
        ("guidance", "2.5"),
        ("precision", "f32"),
        ("weights", &Bundle::embedded().hash(mi2rage::bundle::DIFFUSION)),
    ] {
        assert_eq!(chunks[key], value, "{key}");
    }
    let picture = pictures::decode(&folder.join("one.png")).unwrap();
    let sheet = pictures::decode(&folder.join("sheet.png")).unwrap();
    assert_eq!(sheet.height, picture.height);
    assert!(sheet.width >= 3 * picture.width);
}

#[test]
fn what_cannot_be_drawn_is_said_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let message = mistake(folder.path(), &["sample", "a tree", "-o", "tree.jpg"]);
    assert_says(&message, &["tree.jpg", "ends in .png"]);
    let message = mistake(folder.path(), &["sample", "a tree", "--steps", "5000"]);
    assert_says(&message, &["5000", "steps"]);
    let message = mistake(folder.path(), &["sample", "a tree", "--weights", "nowhere"]);
    assert_says(&message, &["nowhere/tokenizer.json", "expected a folder with"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn pictures_get_one_sentence_each_that_names_the_entities_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sizes = ["--train", "3", "--validation", "0", "--test", "0"];
    printed(folder, &[&["world", "export", "posts"] as &[&str], &sizes].concat());
    let file = |index: usize| format!("posts/train/train-00000{index}.png");
    let (first, second) = (file(0), file(1));
    let one = printed(folder, &["caption", &first]);
    assert_eq!(one.lines().count(), 1);
    assert!(one.trim().contains(' '), "more than a word: {one}");
    let two = printed(folder, &["caption", &second, &first]);
    assert_eq!(two.lines().count(), 2);
    assert_says(&two, &[&format!("{first}: {one}")]);
    let names = ["--head", "Ada Lovson", "--tail", "Bobex"];
    let named = printed(folder, &[&["caption", &first] as &[&str], &names].concat());
    assert!(named.starts_with("Ada Lovson and Bobex : "), "{named}");
    let drawn = |seed: &str| {
        printed(folder, &["caption", &first, "--top-p", "1", "--temperature", "3", "--seed", seed])
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!((drawn("1"), drawn("2")), (drawn("2"), drawn("3")));
}

#[test]
fn a_picture_that_is_missing_or_broken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.png"), "no picture").unwrap();
    let message = mistake(folder.path(), &["caption", "none.png"]);
    assert_says(&message, &["none.png", "cannot be read"]);
    let message = mistake(folder.path(), &["caption", "broken.png"]);
    assert_says(&message, &["broken.png", "PNG or JPEG"]);
}

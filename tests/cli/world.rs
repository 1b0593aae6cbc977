//! `world`: what the embedded world shows and exports.

use std::collections::BTreeMap;

use mi2rage::data::picture_folder::{MissingPicture, PictureFolder};
use mi2rage::data::{PictureSource, Split, jsonl, pictures};
use mi2rage::world::{World, WorldConfig};

use super::{assert_says, mistake, printed};

#[test]
fn posts_are_shown_with_their_entities_marked_and_what_they_show() {
    let folder = tempfile::tempdir().unwrap();
    let show =
        |arguments: &[&str]| printed(folder.path(), &[&["world", "show"], arguments].concat());
    let out = show(&["-n", "7", "--split", "test", "--seed", "4"]);
    let world = World::new(WorldConfig::default()).unwrap();
    let relations = world.relations();
    let posts = world.posts(Split::Test, 4, 7);
    let blocks: Vec<Vec<&str>> =
        out.lines().collect::<Vec<_>>().chunks(4).map(<[&str]>::to_vec).collect();
    assert_eq!(blocks.len(), 7);
    for (block, post) in blocks.iter().zip(&posts) {
        assert_eq!(block[0], format!("{}  {}", post.id, relations.names()[post.label]));
        assert_says(block[1], &[&format!("[H {}]", post.head.name)]);
        assert_says(block[1], &[&format!("[T {}]", post.tail.name)]);
        let cue = |cue: Option<usize>| cue.map_or("no relation", |cue| &relations.names()[cue]);
        let truth = post.truth.as_ref().unwrap();
        assert_says(block[2], &["sentence names", cue(truth.text_cue)]);
        assert_says(block[3], &["picture shows", cue(truth.picture_cue)]);
    }
    assert_ne!(out, show(&["-n", "7", "--split", "test", "--seed", "5"]));
    assert_eq!(show(&["-n", "0"]), "");
}

#[test]
fn the_ceiling_follows_the_worlds_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |arguments: &[&str]| -> BTreeMap<String, Vec<f64>> {
        let out = printed(folder.path(), &[&["world", "ceiling"], arguments].concat());
        let table = out.lines().skip(1).take(3);
        table
            .map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap().to_owned();
                (name, words.map(|word| word.parse().unwrap()).collect())
            })
            .collect()
    };
    let default = rows(&[]);
    assert!(default["both"][2] > default["text"][2].max(default["picture"][2]) + 0.05);
    let perfect = ["--p-text", "1", "--p-picture", "1", "--set", "world.distract_text=0"];
    let perfect = rows(&perfect);
    assert_eq!(perfect["text"][1..4], [0.0, 1.0, 1.0]);
    assert_eq!(perfect["both"][1..4], [0.0, 1.0, 1.0]);
    let blind = rows(&["--p-picture", "0", "--set", "world.distract_picture=0"]);
    assert_eq!(blind["picture"][0], 0.0);
    assert_eq!(blind["both"], blind["text"]);
    let message = mistake(folder.path(), &["world", "ceiling", "--p-text", "1.5"]);
    assert_says(&message, &["world.p_text is 1.5", "between 0 and 1"]);
}

#[test]
fn exported_posts_are_read_back_as_they_are_in_the_world() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = ["--train", "300", "--validation", "0", "--test", "5", "--seed", "3"];
    let arguments = [&["world", "export", "posts"] as &[&str], &sizes].concat();
    let out = printed(folder.path(), &arguments);
    assert_says(&out, &["posts/train/metadata.jsonl: 300 posts", "posts/test", "5 posts"]);
    let root = folder.path().join("posts");
    assert!(!root.join("validation").exists());

    let world = World::new(WorldConfig::default()).unwrap();
    let relations = jsonl::relations(&root).unwrap();
    for (split, count) in [(Split::Train, 300), (Split::Test, 5)] {
        let source = PictureFolder { path: root.clone(), missing: MissingPicture::Refuse };
        let rows = jsonl::read_split(&root, split, &relations, Some(&source)).unwrap();
        for (row, post) in rows.examples.iter().zip(world.posts(split, 3, count)) {
            assert_eq!((&row.id, &row.tokens), (&post.id, &post.tokens));
            assert_eq!((&row.head, &row.tail), (&post.head, &post.tail));
            assert_eq!(relations.names()[row.label], world.relations().names()[post.label]);
            let Some(PictureSource::File(file)) = &row.picture else { panic!("no file") };
            let Some(PictureSource::Pixels(pixels)) = &post.picture else { panic!("no pixels") };
            assert_eq!(&pictures::decode(file).unwrap(), pixels.as_ref());
        }
        assert_eq!(rows.examples.len(), count);
    }
    let message = mistake(folder.path(), &arguments);
    assert_says(&message, &["posts/train exists already"]);
}

#[test]
fn the_sheet_shows_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["world", "sheet", "-o", "s.png", "--variations", "1", "--zoom", "1"];
    assert_eq!(printed(folder.path(), &arguments), "s.png\n");
    let sheet = pictures::decode(&folder.path().join("s.png")).unwrap();
    assert_eq!((sheet.width, sheet.height), (4 * 36, 14 * 36));
}

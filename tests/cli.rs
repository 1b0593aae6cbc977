//! The program's commands as a user types them: help, mistakes and what they print.

use std::collections::BTreeMap;
use std::path::Path;

use assert_cmd::Command;
use mi2rage::bundle::Bundle;
use mi2rage::data::picture_folder::{MissingPicture, PictureFolder};
use mi2rage::data::{PictureSource, Relations, Split, jsonl, pictures};
use mi2rage::world::{World, WorldConfig};
use mi2rage_models::bert::BertConfig;
use mi2rage_models::fusion::FusionConfig;
use mi2rage_models::vit::ViTConfig;
use mi2rage_models::weights::{self, Precision};

/// What a finished command left.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run_in(folder: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::cargo_bin("mi2rage")
        .unwrap()
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(arguments: &[&str]) -> Outcome {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

/// The standard output of a command that succeeds.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let outcome = run_in(folder, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.err);
    outcome.out
}

/// The one line that a user's mistake leaves on the standard error, with exit code 2.
fn mistake(folder: &Path, arguments: &[&str]) -> String {
    let outcome = run_in(folder, arguments);
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.err);
    assert_eq!(outcome.err.lines().count(), 1, "{arguments:?}: {}", outcome.err);
    assert!(outcome.err.starts_with("error: "), "{arguments:?}: {}", outcome.err);
    assert_eq!(outcome.out, "", "{arguments:?}");
    outcome.err
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_help_names_every_command_and_each_commands_help_every_option() {
    const RUN: &[&str] =
        &["--device", "--seed", "--data", "--pictures", "--limit", "--out", "--workers", "--set"];
    const WORLD: &[&str] = &["--p-text", "--p-picture", "--p-none", "--set"];
    let commands: [(&str, &[&str]); 18] = [
        ("experiment", RUN),
        ("generate", RUN),
        ("score", RUN),
        ("select", RUN),
        ("train", RUN),
        ("evaluate", RUN),
        ("report", &[]),
        ("pretrain", &["--part", "--out", "--set", "--device"]),
        (
            "predict",
            &[
                "--model",
                "--arm",
                "--seed",
                "--text",
                "--head",
                "--tail",
                "--picture",
                "--top",
                "--json",
                "--encoders",
                "--device",
            ],
        ),
        (
            "sample",
            &[
                "--count",
                "--seed",
                "--steps",
                "--guidance",
                "--sampler",
                "--negative",
                "--out",
                "--sheet",
                "--weights",
                "--device",
                "--precision",
            ],
        ),
        (
            "caption",
            &[
                "--head",
                "--tail",
                "--top-p",
                "--temperature",
                "--seed",
                "--weights",
                "--device",
                "--precision",
            ],
        ),
        ("embed", &["--file", "--picture", "--weights", "--device", "--precision"]),
        ("devices", &[]),
        ("world", &["show", "export", "ceiling", "sheet"]),
        ("world show", &["--count", "--split", "--seed"]),
        ("world export", &["--train", "--validation", "--test", "--seed"]),
        ("world ceiling", WORLD),
        ("world sheet", &["--out", "--size", "--variations", "--zoom", "--seed"]),
    ];
    let all = run(&["--help"]).out;
    for (command, options) in commands {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(all.contains(words[0]), "{command} is not in: {all}");
        let arguments: Vec<&str> = words.into_iter().chain(["--help"]).collect();
        let outcome = run(&arguments);
        assert_eq!(outcome.code, Some(0), "{command}");
        assert_says(&outcome.out, options);
        let silent = undescribed(&outcome.out);
        assert!(silent.is_empty(), "{command}: no text for {silent:?}");
    }
}

/// The lines of a long help that name an option and have no text under them.
fn undescribed(help: &str) -> Vec<&str> {
    let lines: Vec<&str> = help.lines().collect();
    let names = |line: &str| line.starts_with("  ") && line.trim_start().starts_with('-');
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| names(line)) {
        // On the line itself where every text of the command is short, else on the next line.
        // A default or the possible values, in brackets, are no text.
        let text = |part: &str| !part.is_empty() && !part.starts_with('[');
        let own = line.trim_start().split_once("  ").is_some_and(|(_, part)| text(part.trim()));
        let next = lines.get(at + 1).and_then(|next| next.strip_prefix("          "));
        let below = next.is_some_and(|next| text(next.trim()));
        if !own && !below {
            found.push(*line);
        }
    }
    found
}

#[test]
fn an_unknown_command_option_or_value_exits_with_2() {
    for arguments in [
        &["paint"] as &[&str],
        &["world"],
        &["world", "shw"],
        &["devices", "--all"],
        &["sample", "a tree", "--sampler", "heun"],
        &["sample", "a tree", "-n", "0"],
        &["caption"],
        &["caption", "a.png", "--top-p", "1.5"],
        &["caption", "a.png", "--temperature", "0"],
        &["caption", "a.png", "--head", "Ada"],
        &["world", "show", "--split", "tests"],
        &["predict", "--model", "m.safetensors"],
        &["predict", "--model", "m.safetensors", "--text", "Ada met Bob", "--head", "Ada"],
        &["predict", "--model", "m.safetensors", "--picture", "a.png", "--arm", "best"],
    ] {
        let outcome = run(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.err);
        assert_says(&outcome.err, &["--help"]);
    }
    assert_says(&run(&["sample", "a", "--sampler", "heun"]).err, &["heun", "dpmpp_2m"]);
    assert_says(&run(&["world", "show", "--split", "tests"]).err, &["tests", "validation"]);
    let outcome = run(&["sample", "a", "--precision", "fp8"]);
    assert_eq!(outcome.code, Some(2));
    assert_says(&outcome.err, &["unknown precision `fp8`, expected f32, f16 or bf16"]);
}

/// The published experiment with a line changed, as a file of its own.
fn changed(folder: &Path, from: &str, to: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/ccg3.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "configs/ccg3.toml has no `{from}`");
    std::fs::write(folder.join("plan.toml"), text.replacen(from, to, 1)).unwrap();
    let at = text.find(from).unwrap();
    text[..at].lines().count() + 1
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "rounds = 3", "roundz = 3");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: ");
    assert_says(&message, &[&place, "unknown key `chain.roundz`", "did you mean `rounds`?"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "rounds = 3", "rounds = \"three\"");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: ");
    assert_says(&message, &[&place, "`chain.rounds`", "three", "expected"]);
}

#[test]
fn an_unknown_precision_is_named_with_its_line_and_the_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "[generators]\n", "[generators]\nprecision = \"fp16\"\n") + 1;
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    let place = format!("plan.toml:{line}: `generators.precision`: unknown variant `fp16`");
    assert_says(&message, &[&place, "`f32`, `f16`, `bf16`", "did you mean `f16`?"]);
}

#[test]
fn a_device_without_half_precision_is_named_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let says = "device `ndarray`: it does not compute in bf16, expected f32 or another device";
    for command in [
        &["sample", "a tree"] as &[&str],
        &["caption", "no-such.png"],
        &["embed", "Ada met Bob.", "--weights", "no-such-folder"],
    ] {
        let half = &["--device", "ndarray", "--precision", "bf16"];
        assert_eq!(mistake(folder, &[command, half].concat()), format!("error: {says}\n"));
    }
    let line = changed(folder, "[generators]\n", "[generators]\nprecision = \"bf16\"\n") + 1;
    let message = mistake(folder, &["experiment", "plan.toml", "--device", "ndarray"]);
    assert_eq!(message, format!("error: plan.toml:{line}: generators.precision: {says}\n"));
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    assert_eq!(left.len(), 1, "only the plan: {left:?}");
}

#[test]
fn what_is_wrong_with_the_data_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, says) in [
        ("validation = ", "validatoin = ", "did you mean `validation`?"),
        ("validation = ", "validation = true #", "expected"),
    ] {
        let line = changed(folder.path(), from, to);
        let message = mistake(folder.path(), &["experiment", "plan.toml"]);
        assert_says(&message, &[&format!("plan.toml:{line}: "), says]);
    }
    for (from, to, says) in [
        ("test = 2000", "", "`test` is missing, which source = \"world\" needs"),
        ("test = 2000", "test = 2000\nlimit = 5", "`limit` is no key of source = \"world\""),
    ] {
        changed(folder.path(), from, to);
        let message = mistake(folder.path(), &["experiment", "plan.toml"]);
        assert_says(&message, &["plan.toml:", says]);
    }
}

#[test]
fn a_value_out_of_its_range_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let line = changed(folder.path(), "folds = 3", "folds = 1");
    let message = mistake(folder.path(), &["experiment", "plan.toml"]);
    assert_says(&message, &[&format!("plan.toml:{line}: teacher.folds: expected at least 2")]);
    // On the command line there is no line to name.
    changed(folder.path(), "folds = 3", "folds = 3");
    let message = mistake(folder.path(), &["experiment", "plan.toml", "--set", "teacher.folds=1"]);
    assert_says(&message, &["plan.toml: teacher.folds: expected at least 2"]);
}

#[test]
fn a_missing_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = mistake(folder.path(), &["experiment", "none.toml"]);
    assert_says(&message, &["none.toml: no such file"]);
    let message = mistake(folder.path(), &["pretrain", "none.toml"]);
    assert_says(&message, &["none.toml: no such file"]);
}

#[test]
fn a_device_that_is_unknown_or_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), "[data]", "device = \"gpu\"\n\n[data]");
    for arguments in [
        &["experiment", "plan.toml"] as &[&str],
        &["experiment", "plan.toml", "--device", "gpu"],
        &["sample", "a tree", "--device", "gpu"],
    ] {
        let message = mistake(folder.path(), arguments);
        assert_says(&message, &["device `gpu`", "expected auto, flex, ndarray, cuda"]);
    }
    if mi2rage::device::probe_cuda().is_err() {
        let message = mistake(folder.path(), &["sample", "a tree", "--device", "cuda"]);
        assert_says(&message, &["device `cuda`"]);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the plan: {left:?}");
}

#[test]
fn an_override_that_is_no_assignment_or_names_no_key_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), "rounds = 3", "rounds = 3");
    let with = |set: &str| mistake(folder.path(), &["experiment", "plan.toml", "--set", set]);
    assert_says(&with("chain.rounds"), &["--set chain.rounds", "expected KEY=VALUE"]);
    assert_says(&with("chain.roundz=2"), &["chain.roundz=2", "unknown key", "`rounds`"]);
    assert_says(&with("chain.rounds=two"), &["chain.rounds=two", "expected"]);
    let message = mistake(folder.path(), &["world", "ceiling", "--set", "world.p_txt=0.5"]);
    assert_says(&message, &["world.p_txt=0.5", "did you mean `p_text`?"]);
}

#[test]
fn the_devices_are_listed_with_the_one_that_auto_takes() {
    let out = run(&["devices"]).out;
    assert_says(&out, &["flex", "ndarray", "cuda", "auto is "]);
}

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

/// An untrained student of the bundled tokenizer, in the place of a run's.
fn student(run: &Path, mask_entities: bool) -> String {
    let size = 16;
    let relations = Relations::new(["/per/per/peer".to_owned(), "/per/per/couple".to_owned()]);
    let config = FusionConfig {
        text: BertConfig {
            vocab_size: Bundle::embedded().tokenizer().unwrap().vocabulary_size(),
            hidden_size: size,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: size,
            max_position_embeddings: 48,
            ..BertConfig::default()
        },
        vision: ViTConfig {
            hidden_size: size,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: size,
            image_size: 32,
            patch_size: 8,
            ..ViTConfig::default()
        },
        num_labels: relations.len(),
        fusion_size: size,
        fusion_heads: 2,
        ..FusionConfig::default()
    };
    let metadata = BTreeMap::from([
        ("config".to_owned(), serde_json::to_string(&config).unwrap()),
        ("relations".to_owned(), serde_json::to_string(&relations).unwrap()),
        ("max_tokens".to_owned(), "48".to_owned()),
        ("mask_entities".to_owned(), mask_entities.to_string()),
        ("picture_size".to_owned(), "32".to_owned()),
        ("encoders".to_owned(), "bundled".to_owned()),
    ]);
    let model = config.init::<burn::backend::Flex>(&Default::default());
    let name = "seed-1/students/ccg-mi-dropout-0.3.safetensors";
    let path = run.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    weights::save::<burn::backend::Flex, _>(&model, &path, Precision::F32, &metadata).unwrap();
    path.display().to_string()
}

#[test]
fn a_student_gives_every_relation_its_probability_from_what_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = student(&folder.join("run"), false);
    printed(
        folder,
        &["world", "export", "posts", "--train", "1", "--validation", "0", "--test", "0"],
    );
    let text = ["--text", "Ada Lovson met Bob.", "--head", "Ada Lovson", "--tail", "bob"];
    let picture = ["--picture", "posts/train/train-000000.png"];
    let ask = |more: &[&str]| printed(folder, &[&["predict", "--model", &file], more].concat());
    let both = ask(&[&text[..], &picture].concat());
    let lines: Vec<(f64, &str)> = both
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(probability, relation)| (probability.parse().unwrap(), relation))
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.is_sorted_by(|a, b| a.0 >= b.0), "{both}");
    assert!((lines.iter().map(|line| line.0).sum::<f64>() - 1.0).abs() < 2e-4, "{both}");
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ask(&[&["--json"], more].concat())).unwrap()
    };
    let (of_both, of_text, of_picture) =
        (json(&[&text[..], &picture].concat()), json(&text), json(&picture));
    assert_eq!(of_both["relations"][0]["relation"], lines[0].1);
    assert_ne!(of_both["relations"], of_text["relations"]);
    assert_ne!(of_both["relations"], of_picture["relations"]);
    let by_folder = ["predict", "--model", "run", "--top", "1"];
    let top = printed(folder, &[&by_folder[..], &text, &picture].concat());
    assert_eq!(top.trim_end(), both.lines().next().unwrap());
}

#[test]
fn a_student_of_masked_entities_does_not_see_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let answer = |file: &str, head: &str| {
        let text = format!("{head} met Bob");
        let asked = ["--text", &text, "--head", head, "--tail", "Bob", "--json"];
        printed(folder.path(), &[&["predict", "--model", file] as &[&str], &asked].concat())
    };
    let masked = student(&folder.path().join("masked"), true);
    assert_eq!(answer(&masked, "Wedding"), answer(&masked, "Tree"));
    let open = student(&folder.path().join("open"), false);
    assert_ne!(answer(&open, "Wedding"), answer(&open, "Tree"));
}

#[test]
fn what_a_student_cannot_be_asked_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    student(&folder.join("run"), false);
    let ask = |model: &str, head: &str, tail: &str| {
        let asked = ["--text", "Ada met Bob .", "--head", head, "--tail", tail];
        mistake(folder, &[&["predict", "--model", model] as &[&str], &asked].concat())
    };
    assert_says(&ask("run", "Zoe", "Bob"), &["--head `Zoe`", "`Ada met Bob .`"]);
    assert_says(&ask("run", "Ada", "Zoe"), &["--tail `Zoe`", "`Ada met Bob .`"]);
    assert_says(&ask("none.safetensors", "Ada", "Bob"), &["none.safetensors"]);
    std::fs::create_dir(folder.join("empty")).unwrap();
    assert_says(&ask("empty", "Ada", "Bob"), &["empty: no student", "expected a folder"]);
    std::fs::write(folder.join("text.safetensors"), "no weights").unwrap();
    assert_says(&ask("text.safetensors", "Ada", "Bob"), &["text.safetensors", "safetensors file"]);
    let picture = ["predict", "--model", "run", "--picture", "none.png"];
    assert_says(&mistake(folder, &picture), &["none.png"]);
}

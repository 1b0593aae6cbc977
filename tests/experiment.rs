//! The whole program on tiny experiments, through the real binary: what it leaves, what it finds
//! again, what an interruption costs (nothing but time), and that no result depends on how it ran.
//!
//! The models hardly learn in so few updates. What is tested is that the parts fit together and that
//! the same figures come out whichever way they are reached.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use mi2rage::config::experiment::Arm;
use mi2rage::report::{Results, Setting};
use serde_json::Value;

/// Posts of the test split.
const TEST: usize = 60;

/// The picture generator is the world's own renderer; the captioner is the bundled one.
const WORLD: &str = r#"
name = "tiny"
purpose = "Does the program run from end to end?"
setting = "missing_image"
seeds = [1]

[data]
source = "world"
train = 40
validation = 24
test = 60

[generators]
oracle_fidelity = 0.8
batch = 4

[chain]
rounds = 2
chains = 1
pairing = "anchor"

[teacher]
folds = 2
calibration = 0.25
modality_masking = 0.5

[teacher.recipe]
updates = 8
batch = 8
learning_rate = 1e-3
evaluations = 2

[select]
score = "pmi_generated"
policy = { top_fraction_per_class = 0.5 }
on_drop = "generated_half"

[student]
modality_dropout = [0.0, 0.3]
max_tokens = 32

[student.recipe]
updates = 24
batch = 8
learning_rate = 2e-3
evaluations = 2
criterion = "f1"

[evaluation]
resamples = 200
gallery = 4
"#;

/// Changes that make of [`WORLD`] an experiment on rows in the authors' format of MNRE, whose
/// pictures the bundled diffusion model draws.
const MNRE: [(&str, &str); 3] = [
    (
        "source = \"world\"\ntrain = 40\nvalidation = 24\ntest = 60",
        "source = \"mnre\"\nfolder = \"\"",
    ),
    ("oracle_fidelity = 0.8", "steps = 2"),
    ("seeds = [1]", "seeds = [1]\narms = [\"real-unimodal\", \"direct\", \"ccg-mi\"]"),
];

/// A test's own place: a configuration and a run folder.
struct Place {
    config: PathBuf,
    run: PathBuf,
}

impl Place {
    fn new(name: &str, config: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("experiment").join(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        let place = Self { config: root.join("tiny.toml"), run: root.join("run") };
        fs::write(&place.config, config).unwrap();
        place
    }

    fn command(&self, stage: &str, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mi2rage"));
        command.arg(stage).arg(&self.config).arg("--out").arg(&self.run).args(options);
        command.env_remove("RUST_LOG");
        command
    }

    /// Runs to the end, which must be a good one.
    fn finish(&self, stage: &str, options: &[&str]) -> Duration {
        let started = Instant::now();
        let output = self.command(stage, options).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        started.elapsed()
    }

    /// Starts the experiment and returns it while it runs, as soon as `moment` has come.
    fn start_until(&self, moment: fn(&Path) -> bool) -> Child {
        let mut command = self.command("experiment", &["--workers", "2"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while !moment(&self.run) {
            if child.try_wait().unwrap().is_some() {
                panic!("ended before its moment: {}", errors(&child.wait_with_output().unwrap()));
            }
            sleep(Duration::from_millis(2));
        }
        child
    }

    fn results(&self) -> Results {
        Results::load(&self.run.join("results.json")).unwrap()
    }

    /// The results without what they cost, where they were made and with how many workers.
    fn figures(&self) -> Value {
        let mut value = json(&self.run.join("results.json"));
        let fields = value.as_object_mut().unwrap();
        for other in ["stages", "environment", "config"] {
            assert!(fields.remove(other).is_some(), "{other}");
        }
        value
    }

    /// Says that every score, decision and probability is that of the other run, to the last digit.
    fn assert_same(&self, other: &Place) {
        assert_eq!(self.figures(), other.figures());
        for path in files(&other.run.join("seed-1")) {
            let name = path.strip_prefix(&other.run).unwrap().to_str().unwrap();
            if name.ends_with(".safetensors") {
                assert!(
                    fs::read(&path).unwrap() == fs::read(self.run.join(name)).unwrap(),
                    "{name}"
                );
            } else {
                // Not assert_eq: the files have thousands of numbers.
                assert!(self.read(name) == other.read(name), "{name} differs");
            }
        }
    }

    fn read(&self, name: &str) -> String {
        let path = self.run.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn errors(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder that has one yet.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Says of every file under a final name that it is whole, and how many there are.
fn whole_files(run: &Path) -> usize {
    let mut count = 0;
    for path in files(run) {
        let bytes = fs::read(&path).unwrap();
        let name = path.display();
        match path.extension().and_then(|end| end.to_str()) {
            Some("json") => drop(json(&path)),
            Some("jsonl") => {
                let text = String::from_utf8(bytes).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "{name}");
                for line in text.lines() {
                    serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{name}: {e}"));
                }
            }
            Some("safetensors") => {
                safetensors::SafeTensors::deserialize(&bytes)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            Some("toml") => drop(toml::from_slice::<toml::Table>(&bytes).expect("a whole config")),
            _ => continue,
        }
        count += 1;
    }
    count
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let copied = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(path, copied).unwrap();
    }
}

/// The uninterrupted run that the others are measured against, and its time.
fn baseline() -> &'static (Place, Duration) {
    static BASELINE: OnceLock<(Place, Duration)> = OnceLock::new();
    BASELINE.get_or_init(|| {
        let place = Place::new("baseline", WORLD);
        let took = place.finish("experiment", &["--workers", "2"]);
        (place, took)
    })
}

fn samples_exist(run: &Path) -> bool {
    let holds_some = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 1000);
    files(&run.join("samples")).iter().any(holds_some)
}

fn generation_is_finished(run: &Path) -> bool {
    run.join("stages/seed-1/generate.json").exists()
}

fn a_student_is_trained(run: &Path) -> bool {
    let finished = |path: &PathBuf| path.extension().is_some_and(|end| end == "safetensors");
    files(&run.join("seed-1/students")).iter().any(finished)
}

#[test]
fn a_run_leaves_its_configuration_its_results_and_a_file_for_every_stage() {
    let (place, _) = baseline();
    assert!(whole_files(&place.run) > 30);
    let config: toml::Table = toml::from_str(&place.read("config.toml")).unwrap();
    assert_eq!(config["chain"]["rounds"].as_integer(), Some(2));
    let bundled = Some("bundled");
    assert_eq!(config["student"]["encoders"].as_str(), bundled);
    assert_eq!(config["generators"]["weights"].as_str(), bundled);
    for stage in ["generate", "score-ccg", "score-direct-matched"] {
        place.read(&format!("stages/seed-1/{stage}.json"));
    }
    let lines = |name: &str| place.read(&format!("seed-1/{name}.jsonl")).lines().count();
    // Two chained pictures an item, as many unchained ones; the first picture of a chain is shared.
    assert_eq!(lines("scores-ccg"), 2 * 40);
    assert_eq!(lines("scores-direct-matched"), 2 * 40);
    for arm in ["ccg-mi", "ccg-random", "direct-mi"] {
        assert_eq!(lines(&format!("selection-{arm}")), 2 * 40);
    }
    for arm in Arm::ALL {
        assert_eq!(lines(&format!("predictions-{}", arm.name())), TEST);
    }
    let (mut weights, mut records) = (BTreeSet::new(), BTreeSet::new());
    for arm in Arm::ALL {
        let dropouts: &[&str] = if arm == Arm::RealUnimodal { &["0"] } else { &["0", "0.3"] };
        for dropout in dropouts {
            let name = format!("{}-dropout-{dropout}", arm.name());
            weights.insert(place.run.join(format!("seed-1/students/{name}.safetensors")));
            records.insert(place.run.join(format!("stages/seed-1/student-{name}.json")));
        }
    }
    assert_eq!(BTreeSet::from_iter(files(&place.run.join("seed-1/students"))), weights);
    assert!(records.iter().all(|path| path.is_file()), "{records:?}");
    let left_over = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('.') || name.ends_with(".partial")
    };
    assert!(!files(&place.run).iter().any(left_over));
}

#[test]
fn the_results_hold_every_arm_every_comparison_the_ceiling_the_cells_and_the_scores_worth() {
    let results = baseline().0.results();
    let names: Vec<&str> = results.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(names, Arm::ALL.map(Arm::name));
    assert_eq!((results.setting, results.seeds()), (Setting::MissingImage, 1));
    assert_eq!(results.method.as_deref(), Some("ccg-mi"));
    let classes = results.relations.len();
    assert!(classes > 12 && results.relations[0] == "None");
    for arm in &results.arms {
        let run = &arm.runs[0];
        assert_eq!(run.confusion.iter().flatten().sum::<usize>(), TEST, "{}", arm.name);
        assert_eq!((run.confusion.len(), run.per_class.len()), (classes, classes));
        assert_eq!(run.cells.iter().map(|cell| cell.items).sum::<usize>(), TEST);
        assert_eq!(run.cells.len(), 4, "every cell has posts among {TEST}");
        assert!(run.head_first.is_some());
    }
    let pairs = |arm: Arm| results.arm(arm.name()).unwrap().pairs;
    assert_eq!([Arm::RealUnimodal, Arm::Direct, Arm::RealPairs].map(pairs), [40; 3]);
    // A dropped pair keeps its real half.
    assert_eq!([Arm::DirectMatched, Arm::Ccg, Arm::CcgMi, Arm::CcgRandom].map(pairs), [80; 4]);
    let compared: BTreeSet<(&str, &str)> =
        results.comparisons.iter().map(|two| (two.a.as_str(), two.b.as_str())).collect();
    assert_eq!((results.comparisons.len(), compared.len()), (8 * 7 / 2, 8 * 7 / 2));
    assert!(compared.contains(&("ccg-mi", "direct-matched")));
    let ceiling = results.ceiling.as_ref().unwrap();
    assert!(ceiling.pair.micro_f1 > ceiling.text.micro_f1.max(ceiling.picture.micro_f1));
    for arm in ["ccg-mi", "direct-mi"] {
        let row = |score| results.selection.iter().find(|row| row.arm == arm && row.score == score);
        let decides = row("pmi_generated").unwrap();
        let auroc = decides.auroc.as_ref().expect("some pictures carry the cue and some do not");
        assert!((0.0..=1.0).contains(&auroc.value));
        assert!(decides.kept_true.is_some() && decides.histogram.is_some());
        assert!(decides.bound.is_some() && decides.true_information.is_some());
        assert!(row("pmi_pair").is_some_and(|row| row.auroc.is_some()));
    }
    let dropouts = |arm: &str| results.curves.iter().filter(|curve| curve.arm == arm).count();
    assert!(names.iter().all(|arm| dropouts(arm) == 1));
    let rounds: Vec<usize> =
        results.generation.as_ref().unwrap().rounds.iter().map(|round| round.round).collect();
    assert_eq!(rounds, [1, 2]);
    assert_eq!(results.gallery.len(), 4);
    assert!(results.gallery.iter().all(|chain| chain.rounds.len() == 2));
    assert!(results.stages.iter().all(|stage| !stage.reused && stage.seconds > 0.0));
    // One generation, two scorings, two trainings an arm but for the one that has nothing to mask.
    assert_eq!(results.stages.len(), 1 + 2 + 15);
    assert!(results.notes.iter().any(|note| note.contains("indicative")), "{:?}", results.notes);
}

#[test]
fn the_reports_need_nothing_beside_themselves() {
    let (place, _) = baseline();
    let html = place.read("report.html");
    assert!(html.contains("data:image/png;base64,"));
    for address in ["src=\"", "href=\"", "url("] {
        for target in html.split(address).skip(1) {
            let target: String = target.chars().take(24).collect();
            let within = ["data:", "#", "\"#"].iter().any(|start| target.starts_with(start));
            assert!(within, "the report refers to {address}{target}");
        }
    }
    let markdown = place.read("report.md");
    for arm in Arm::ALL {
        assert!(html.contains(arm.name()) && markdown.contains(arm.name()), "{}", arm.name());
    }
    assert!(!markdown.contains("NaN") && !html.contains("NaN"));
}

#[test]
fn the_same_command_again_reuses_every_stage_and_says_the_same() {
    let (first, took) = baseline();
    let place = Place::new("again", WORLD);
    copy(&first.run, &place.run);
    let again = place.finish("experiment", &["--workers", "2"]);
    let stages = place.results().stages;
    assert!(stages.iter().all(|stage| stage.reused), "{stages:?}");
    let costs = |place: &Place| -> Vec<_> {
        let stages = place.results().stages.into_iter();
        stages.map(|one| (one.name, one.arm, one.seed, one.items, one.peak_memory_bytes)).collect()
    };
    assert_eq!(costs(&place), costs(first));
    place.assert_same(first);
    assert!(again < *took / 2, "{again:?} after {took:?}");
}

#[test]
fn a_run_that_was_killed_at_any_moment_goes_on_to_the_same_results() {
    let place = Place::new("killed", WORLD);
    let moments: [fn(&Path) -> bool; 4] = [
        |run| run.join("config.toml").exists(),
        samples_exist,
        generation_is_finished,
        a_student_is_trained,
    ];
    for moment in moments {
        let mut child = place.start_until(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "it ended before it could be killed");
        assert!(whole_files(&place.run) > 0);
        assert!(!place.run.join("results.json").exists());
    }
    place.finish("experiment", &["--workers", "2"]);
    place.assert_same(&baseline().0);
    let stages = place.results().stages;
    assert!(stages[0].reused, "the generation was finished when the last kill came");
    assert!(stages.iter().any(|stage| !stage.reused));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_with_130_and_a_line_that_says_how_to_go_on() {
    let place = Place::new("interrupted", WORLD);
    for moment in [samples_exist, a_student_is_trained] {
        let child = place.start_until(moment);
        let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupt.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("interrupted")).collect();
        assert!(lines.len() == 1 && lines[0].contains("the same command"), "{said}");
        assert!(whole_files(&place.run) > 0);
    }
    place.finish("experiment", &["--workers", "2"]);
    place.assert_same(&baseline().0);
}

#[test]
fn a_longer_training_trains_students_again_and_reuses_samples_and_scores() {
    let (first, _) = baseline();
    let place = Place::new("longer", WORLD);
    copy(&first.run, &place.run);
    place.finish("experiment", &["--workers", "2", "--set", "student.recipe.updates=30"]);
    let results = place.results();
    for stage in &results.stages {
        assert_eq!(stage.reused, stage.name != "train", "{stage:?}");
    }
    assert!(results.arms.iter().all(|arm| arm.updates == 30));
    assert_ne!(place.figures()["curves"], first.figures()["curves"]);
    assert_eq!(place.figures()["selection"], first.figures()["selection"]);
}

#[test]
fn the_number_of_workers_changes_no_figure() {
    let place = Place::new("workers", WORLD);
    place.finish("experiment", &["--workers", "1"]);
    place.assert_same(&baseline().0);
}

#[test]
fn the_commands_of_the_stages_one_after_the_other_give_what_the_experiment_gives() {
    let place = Place::new("stages", WORLD);
    let leaves = [
        ("generate", "stages/seed-1/generate.json"),
        ("score", "seed-1/scores-ccg.jsonl"),
        ("select", "seed-1/selection-ccg-mi.jsonl"),
        ("train", "seed-1/predictions-ccg-mi.jsonl"),
        ("evaluate", "results.json"),
    ];
    for (stage, file) in leaves {
        assert!(!place.run.join(file).exists(), "{file} before {stage}");
        place.finish(stage, &["--workers", "2"]);
        assert!(place.run.join(file).exists(), "no {file} after {stage}");
    }
    assert!(!place.run.join("report.md").exists());
    let mut report = Command::new(env!("CARGO_BIN_EXE_mi2rage"));
    let output = report.arg("report").arg(&place.run).output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(place.read("report.html").contains("data:image/png"));
    assert!(place.read("report.md").contains("ccg-mi"));
    place.assert_same(&baseline().0);
}

#[test]
fn missing_sentences_are_written_for_real_pictures() {
    let place = Place::new("missing-text", WORLD);
    place.finish("experiment", &["--workers", "2", "--set", "setting=missing_text"]);
    let results = place.results();
    assert_eq!(results.setting, Setting::MissingText);
    assert_eq!(results.arms.len(), Arm::ALL.len());
    for chain in &results.gallery {
        assert!(chain.picture.is_some() && chain.text.is_none());
        // Both entities are named in every sentence, or there would be nothing to mark.
        let sentences: Vec<_> = chain.rounds.iter().filter_map(|one| one.text.as_ref()).collect();
        assert_eq!(sentences.len(), 2);
        let named = |text: &&String| text.contains(&chain.head) && text.contains(&chain.tail);
        assert!(sentences.iter().all(named), "{sentences:?}");
    }
    assert!(place.read("report.html").contains("data:image/png"));
}

/// Twelve rows: two relations and `None`, by turns.
fn mnre_rows(split: &str) -> String {
    let mut rows = String::new();
    for row in 0..12 {
        let (verb, relation) = [
            ("met", "/per/per/peer"),
            ("saw", "None"),
            ("lives in", "/per/loc/place_of_residence"),
        ][row % 3];
        let verb = verb.split(' ').map(|word| format!("'{word}', ")).collect::<String>();
        let tail = if relation.contains("loc") { "Oslo" } else { "Bob" };
        let at = 2 + verb.matches(',').count();
        rows += &format!(
            "{{'token': ['RT', 'Ada{row}', {verb}\"{tail}\", '{split}'], \
             'h': {{'name': 'Ada{row}', 'pos': [1, 2]}}, \
             't': {{'name': '{tail}', 'pos': [{at}, {}]}}, \
             'img_id': '{split}_{row}.jpg', 'relation': '{relation}'}}\n",
            at + 1
        );
    }
    rows
}

#[test]
fn mnre_without_its_pictures_is_tested_on_generated_ones_and_says_so() {
    let config = MNRE.iter().fold(WORLD.to_owned(), |config, (from, to)| {
        assert!(config.contains(from), "{from}");
        config.replace(from, to)
    });
    let place = Place::new("mnre", &config);
    let data = place.config.with_file_name("data");
    fs::create_dir(&data).unwrap();
    for (split, file) in [("train", "mnre_train"), ("val", "mnre_val"), ("test", "mnre_test")] {
        fs::write(data.join(format!("{file}.txt")), mnre_rows(split)).unwrap();
    }
    let folder = data.display().to_string();
    place.finish("experiment", &["--workers", "2", "--data", &folder]);
    let results = place.results();
    assert_eq!(results.relations, ["None", "/per/loc/place_of_residence", "/per/per/peer"]);
    let names: Vec<&str> = results.arms.iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(names, ["real-unimodal", "direct", "ccg-mi"]);
    assert!(
        results.ceiling.is_none() && results.arms.iter().all(|arm| arm.runs[0].cells.is_empty())
    );
    for report in ["report.md", "report.html"] {
        assert!(place.read(report).contains("Pictures at test time are generated"), "{report}");
    }
}

/// A text encoder for the rows of [`mnre_rows`].
const OWN_TEXT: &str = r#"
[student.own_text]
vocabulary = 120

[student.own_text.model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 32

[student.own_text.recipe]
updates = 6
batch = 4
learning_rate = 1e-3
evaluations = 1
"#;

#[test]
fn a_text_encoder_of_the_datas_own_is_made_once_and_found_by_predict() {
    let config = MNRE.iter().fold(WORLD.to_owned(), |config, (from, to)| config.replace(from, to));
    let config = config.replace(", \"direct\", \"ccg-mi\"]", "]") + OWN_TEXT;
    let place = Place::new("own-text", &config);
    let data = place.config.with_file_name("data");
    fs::create_dir(&data).unwrap();
    for (split, file) in [("train", "mnre_train"), ("val", "mnre_val"), ("test", "mnre_test")] {
        fs::write(data.join(format!("{file}.txt")), mnre_rows(split)).unwrap();
    }
    let folder = data.display().to_string();
    let options = ["--workers", "2", "--data", &folder];
    place.finish("experiment", &options);
    let own = |results: &Results| {
        let stage = results.stages.iter().find(|stage| stage.name == "own text encoder");
        stage.expect("the stage is in the report").reused
    };
    assert!(!own(&place.results()));
    let tokenizer = place.read("own-text/tokenizer.json");
    // A word of the rows, and none of the world's captions.
    assert!(tokenizer.contains("\"lives\"") && !tokenizer.contains("wedding"));

    let predict = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mi2rage"));
        let asked = ["--text", "Ada met Bob", "--head", "Ada", "--tail", "Bob"];
        command.arg("predict").arg("--model").arg(&place.run).args(asked).args(more);
        command.output().unwrap()
    };
    let output = predict(&[]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/per/per/peer"));

    // Whole, it is found again; damaged, it is made again, the same.
    place.finish("experiment", &options);
    assert!(own(&place.results()));
    fs::write(place.run.join("own-text/tokenizer.json"), "{}").unwrap();
    let output = predict(&[]);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    place.finish("experiment", &options);
    assert!(!own(&place.results()));
    assert_eq!(place.read("own-text/tokenizer.json"), tokenizer);
}

#[test]
fn a_grid_is_an_experiment_a_point_and_a_table_of_the_report() {
    let grid = r#"
[grid]
p_text = [0.5]
p_picture = [0.2, 0.9]
fidelity = [1.0]
seeds = [7]
arms = ["real-unimodal", "ccg", "ccg-mi"]
"#;
    let config = WORLD.replace("seeds = [1]", "seeds = [1]\narms = [\"real-unimodal\"]") + grid;
    let place = Place::new("grid", &config);
    place.finish("experiment", &["--workers", "2"]);
    let results = place.results();
    let [table] = results.tables.as_slice() else { panic!("one table") };
    assert_eq!(table.rows.len(), 2);
    for (row, p_picture) in table.rows.iter().zip(["0.2", "0.9"]) {
        assert_eq!(row.cells.len(), table.columns.len());
        assert_eq!(row.cells[..3], ["0.5", p_picture, "1"]);
        let name = format!("grid/text-0.5-picture-{p_picture}-fidelity-1");
        let point = Results::load(&place.run.join(name).join("results.json")).unwrap();
        let mean = 100.0 * point.arms[0].micro_f1.mean;
        assert_eq!(row.cells[4], format!("{mean:.1}"));
        let scores: Vec<&str> = point.selection.iter().map(|one| one.score.as_str()).collect();
        assert!(scores.contains(&"similarity"), "{scores:?}");
    }
    assert!(place.read("report.html").contains("Other worlds"));
}

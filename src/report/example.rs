//! A made-up experiment in the shape of a real one, for the report's tests.

use image::{ImageFormat, Rgb, RgbImage};
use rand::Rng;

use super::*;
use crate::eval::{
    Bootstrap, Counts, Estimate, Evaluation, Interval, Prediction, TestSets, compare,
    counts_by_cell, counts_where, evaluate, summarise,
};
use crate::keyed::Key;

const SEEDS: usize = 3;
const ITEMS: usize = 400;
const RELATIONS: [&str; 12] = [
    "/per/per/peer",
    "/per/per/couple",
    "/per/per/parent",
    "/per/org/member_of",
    "/per/org/founder",
    "/per/loc/place_of_birth",
    "/per/loc/place_of_residence",
    "/org/loc/located_in",
    "/org/org/subsidiary",
    "/per/misc/present_in",
    "/misc/loc/held_on",
    "/loc/loc/contain",
];
/// Name, what it trains on, pairs, the share of relations found, modality dropout.
const ARMS: [(&str, &str, usize, f64); 8] = [
    ("real unimodal", "real sentences alone", 600, 0.50),
    ("direct", "k = 1, 2 chains", 1200, 0.38),
    ("direct-matched", "k = 1, 6 chains", 3600, 0.48),
    ("ccg", "k = 3, 2 chains", 3600, 0.54),
    ("direct + mi", "direct-matched, top half per class", 3600, 0.52),
    ("ccg + mi", "ccg, top half per class", 3600, 0.58),
    ("ccg + random", "ccg, a random half per class", 3600, 0.51),
    ("real pairs", "real sentences, real pictures", 600, 0.585),
];

struct Item {
    label: usize,
    text_cue: bool,
    picture_cue: bool,
}

fn test_split(seed: usize) -> Vec<Item> {
    let mut rng = Key::new(seed as u64).with("purpose", "test").rng();
    (0..ITEMS)
        .map(|_| {
            let label = if rng.random_bool(0.6) {
                0
            } else {
                1 + (rng.random::<f64>().powi(2) * RELATIONS.len() as f64) as usize
            };
            Item {
                label,
                text_cue: label != 0 && rng.random_bool(0.5),
                picture_cue: label != 0 && rng.random_bool(0.6),
            }
        })
        .collect()
}

fn predictions(items: &[Item], arm: usize, seed: usize) -> Vec<Prediction> {
    let (name, _, _, skill) = ARMS[arm];
    let classes = RELATIONS.len() + 1;
    items
        .iter()
        .enumerate()
        .map(|(number, item)| {
            // The same item is easy or hard for every arm.
            let mut luck = Key::new(seed as u64).with("item", number).rng();
            let mut own = Key::new(seed as u64).with(name, number).rng();
            let found = match (item.label, item.text_cue, item.picture_cue) {
                (0, ..) => 0.85,
                (_, true, _) => skill + 0.3,
                (_, false, true) => 1.2 * skill - 0.25,
                _ => 0.4 * skill,
            };
            let luck = 0.7 * luck.random::<f64>() + 0.3 * own.random::<f64>();
            let says = if luck < found { item.label } else { own.random_range(0..classes) };
            let mut probabilities = vec![0.4 / (classes - 1) as f32; classes];
            probabilities[says] = 0.6;
            Prediction {
                id: format!("post-{number}"),
                label: item.label,
                probabilities,
                threshold: None,
            }
        })
        .collect()
}

fn run(items: &[Item], predictions: &[Prediction], seed: usize) -> Run {
    let Evaluation { scores, per_class, confusion } = evaluate(predictions).unwrap();
    let kinds: Vec<(bool, bool)> = items.iter().map(|i| (i.text_cue, i.picture_cue)).collect();
    let cells = counts_by_cell(predictions, &kinds).unwrap();
    let head_first: Vec<bool> = (0..items.len()).map(|item| item % 4 != 0).collect();
    Run {
        seed: seed as u64,
        validation_f1: scores.micro_f1 + 0.01,
        modality_dropout: Some(0.3),
        test: scores,
        per_class,
        confusion,
        head_first: Some(counts_where(predictions, &head_first).unwrap()),
        cells: cells
            .into_iter()
            .map(|((text_cue, picture_cue), counts)| Cell {
                text_cue,
                picture_cue,
                items: kinds.iter().filter(|k| **k == (text_cue, picture_cue)).count(),
                counts,
            })
            .collect(),
        bound: Some(0.9 * scores.micro_f1),
    }
}

fn picture(colour: [u8; 3], shape: u32) -> ShownPicture {
    let picture = RgbImage::from_fn(32, 32, |x, y| {
        let (dx, dy) = (x.abs_diff(16), y.abs_diff(15));
        let inside = match shape % 3 {
            0 => dx * dx + dy * dy < 90,
            1 => dx < 8 && dy < 8,
            _ => dx + dy < 11,
        };
        if inside { Rgb(colour) } else { Rgb([200 - 2 * y as u8, 210 - y as u8, 225]) }
    });
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    ShownPicture::from_png(png.get_ref())
}

fn chain(number: usize) -> ShownChain {
    let words = ["a red ring", "two gold hands", "a ring on a table"];
    let round = |round: usize| ShownRound {
        picture: Some(picture([220, 60 + 50 * round as u8, 60], (number + round) as u32)),
        text: Some(format!("Mara Venn and Otis Hale with {} at the lake", words[round % 3])),
        score: Some(1.4 - 0.9 * (round + number) as f64 % 2.3),
        kept: Some((round + number).is_multiple_of(2)),
        carries_cue: Some(round + number < 3),
    };
    ShownChain {
        item: format!("post-{number}"),
        label: RELATIONS[number + 1].to_owned(),
        head: "Mara Venn".to_owned(),
        tail: "Otis Hale".to_owned(),
        text: Some("RT @kiro : Mara Venn & Otis Hale said yes <3 #wedding".to_owned()),
        picture: None,
        rounds: (0..3).map(round).collect(),
    }
}

fn curve(arm: usize, seed: usize) -> Curve {
    let (name, _, _, skill) = ARMS[arm];
    let mut rng = Key::new(seed as u64).with("curve", name).rng();
    let points = (1..=12)
        .map(|epoch| {
            let done = 1.0 - (-(epoch as f64) / 4.0).exp();
            Point {
                epoch,
                step: 110 * epoch,
                train_loss: 1.9 - (1.3 + 0.6 * skill) * done,
                validation_loss: Some(1.9 - 1.1 * done * skill / 0.6 + 0.012 * epoch as f64),
                validation_f1: Some(skill * done + 0.02 * (rng.random::<f64>() - 0.5)),
            }
        })
        .collect();
    Curve { arm: name.to_owned(), seed: seed as u64, points }
}

fn stage(name: &str, seed: Option<usize>, arm: Option<usize>, seconds: f64, items: u64) -> Stage {
    Stage {
        name: name.to_owned(),
        arm: arm.map(|arm| ARMS[arm].0.to_owned()),
        seed: seed.map(|seed| seed as u64),
        seconds,
        peak_memory_bytes: Some(600_000_000 + 40_000 * items),
        items: Some(items),
        items_per_second: Some(items as f64 / seconds),
        reused: seed == Some(0) && arm.is_none(),
    }
}

fn selection(score: &str, auroc: f64) -> Selection {
    let mut rng = Key::new(5).with("score", score).rng();
    let mut scores: Vec<f64> = (0..3600)
        .map(|_| 3.0 * (rng.random::<f64>() + rng.random::<f64>() - 1.0) + 4.0 * (auroc - 0.5))
        .collect();
    scores.sort_by(f64::total_cmp);
    let estimate = |value: f64, reach: f64| Estimate {
        value,
        interval: Interval { low: value - reach, high: value + reach, level: 0.95 },
    };
    Selection {
        arm: "ccg + mi".to_owned(),
        score: score.to_owned(),
        auroc: Some(estimate(auroc, 0.021)),
        kept_true: Some(auroc - 0.1),
        dropped_true: Some(1.1 - auroc),
        histogram: (score == "pmi_generated")
            .then(|| Histogram::of(&scores[1700..], &scores[..1900], 30).unwrap()),
        bound: Some(estimate(auroc - 0.3, 0.04)),
        true_information: Some(0.71),
    }
}

fn fact(name: &str, value: &str) -> Fact {
    Fact { name: name.to_owned(), value: value.to_owned() }
}

/// Eight arms, three seeds, everything there is to show.
pub fn results() -> Results {
    let bootstrap = Bootstrap { resamples: 200, level: 0.95 };
    let mut counts: Vec<Vec<Vec<Counts>>> = Vec::new();
    let mut arms = Vec::new();
    for (number, (name, trains_on, pairs, _)) in ARMS.iter().enumerate() {
        let (mut runs, mut per_item) = (Vec::new(), Vec::new());
        for seed in 0..SEEDS {
            let items = test_split(seed);
            let predictions = predictions(&items, number, seed);
            per_item.push(Counts::per_item(&predictions));
            runs.push(run(&items, &predictions, seed));
        }
        let mut rng = Key::new(1).with("arm", name).rng();
        arms.push(Arm {
            name: (*name).to_owned(),
            trains_on: (*trains_on).to_owned(),
            pairs: *pairs,
            updates: 1320,
            micro_f1: summarise(&per_item, TestSets::OwnPerSeed, &bootstrap, &mut rng).unwrap(),
            runs,
        });
        counts.push(per_item);
    }
    let method = 5;
    let pairs = (0..ARMS.len()).filter(|&other| other != method).map(|other| {
        // The last one stands the other way round.
        if other + 1 == ARMS.len() { (other, method) } else { (method, other) }
    });
    let comparisons = pairs
        .chain([(3, 2), (2, 1)])
        .map(|(a, b)| {
            let mut rng = Key::new(2).with("a", a).with("b", b).rng();
            let (x, y) = (&counts[a], &counts[b]);
            Comparison {
                a: ARMS[a].0.to_owned(),
                b: ARMS[b].0.to_owned(),
                paired: compare(x, y, TestSets::OwnPerSeed, &bootstrap, &mut rng).unwrap(),
            }
        })
        .collect();
    let mut stages = Vec::new();
    for seed in 0..SEEDS {
        stages.push(stage("generate", Some(seed), None, 48.0 + seed as f64, 7200));
        stages.push(stage("score", Some(seed), None, 21.5, 3600));
        for arm in 0..ARMS.len() {
            let seconds = 9.0 + arm as f64;
            stages.push(stage("train", Some(seed), Some(arm), seconds, 21_120));
            stages.push(stage("evaluate", Some(seed), Some(arm), 0.8, 400));
        }
    }
    let reachable = |micro_f1, log_loss, mutual_information| Reachable {
        micro_f1,
        log_loss,
        mutual_information,
    };
    Results {
        version: VERSION,
        name: "ccg3".to_owned(),
        purpose: "Whether three rounds of chained generation with selection by mutual information beat \
                  direct generation where pictures are missing at training."
            .to_owned(),
        setting: Setting::MissingImage,
        method: Some("ccg + mi".to_owned()),
        notes: vec![
            "Validation uses generated pairs, as the setting has no real ones.".to_owned(),
            "This is a made-up example: nothing was trained.".to_owned(),
        ],
        environment: Environment {
            versions: vec![
                fact("mi2rage", "0.1.0"),
                fact("burn", "0.21.0"),
                fact("rustc", "1.92.0"),
            ],
            device: "flex (CPU)".to_owned(),
            host_cores: 2,
            date: "2026-11-23".to_owned(),
        },
        config: "name = \"ccg3\"\nsetting = \"missing-image\"\nseeds = [0, 1, 2]\n\n[chain]\nrounds = 3\nchains = 2\n".to_owned(),
        hashes: vec![
            fact("data, seed 0", "blake3:6f1ed002ab5595859014ebf0951522d9"),
            fact("assets/unet.safetensors", "blake3:0c0ff1cbe9a3a3c4f9c3e4c5ad6efc1a"),
        ],
        relations: std::iter::once("None")
            .chain(RELATIONS)
            .map(str::to_owned)
            .collect(),
        stages,
        ceiling: Some(Ceiling {
            text: reachable(0.561, 1.02, 0.52),
            picture: reachable(0.583, 0.97, 0.57),
            pair: reachable(0.743, 0.66, 0.88),
            label_entropy: 1.54,
            exactness: "The ceiling is exact: every cue can be recovered from the pixels.".to_owned(),
        }),
        arms,
        comparisons,
        selection: vec![
            selection("pmi_generated", 0.86),
            selection("pmi_pair", 0.74),
            selection("conditional_pmi", 0.58),
            selection("random", 0.5),
        ],
        curves: (0..ARMS.len())
            .flat_map(|arm| (0..SEEDS).map(move |seed| curve(arm, seed)))
            .collect(),
        generation: Some(Generation {
            rounds: (1..=3)
                .map(|round| RoundQuality {
                    round,
                    samples: 1200,
                    fidelity: Some(0.78 - 0.06 * round as f64),
                    forms_per_item: Some(1.0 + 0.6 * round as f64),
                    forms_per_word: Some(2.0 + 0.9 * round as f64),
                    caption_naming: Some(0.86 - 0.02 * round as f64),
                })
                .collect(),
            measured: "Forms as the renderer's own detector sees them.".to_owned(),
        }),
        gallery: (0..4).map(chain).collect(),
        audit: vec![
            fact("posts (train, validation, test)", "600, 200, 400 a seed"),
            fact("None", "59.8 %"),
            fact("cue templates shared by train and test", "0"),
        ],
        tables: vec![Table {
            caption: "A grid over the world".to_owned(),
            columns: vec![
                Column {
                    name: "cue in the picture".to_owned(),
                    numeric: false,
                },
                Column {
                    name: "ccg + mi − direct (points)".to_owned(),
                    numeric: true,
                },
            ],
            rows: vec![
                Row {
                    cells: vec!["0.6".to_owned(), "+12.0".to_owned()],
                    strong: false,
                },
                Row {
                    cells: vec!["0.2".to_owned(), "−0.8".to_owned()],
                    strong: false,
                },
            ],
            note: String::new(),
        }],
    }
}

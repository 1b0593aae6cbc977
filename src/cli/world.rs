//! `mi2rage world`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;

use crate::config;
use crate::data::{Example, Relations, Split, pictures};
use crate::exit::UserError;
use crate::world::export::{ExportError, export};
use crate::world::forms::CATALOGUE;
use crate::world::probabilities::View;
use crate::world::sheet::contact_sheet;
use crate::world::{World, WorldConfig};

/// What to see of the world.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print posts: the sentence with its entities marked, the relation, and what is shown of it.
    Show(Show),
    /// Write posts as PNG and metadata.jsonl, which `datasets`, pandas and this program read.
    Export(Export),
    /// Print the best that any model can reach from text, picture and both.
    Ceiling(Ceiling),
    /// Draw every form that pictures can show into one PNG.
    Sheet(Sheet),
}

impl Command {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Show(show) => show.run(),
            Self::Export(export) => export.run(),
            Self::Ceiling(ceiling) => ceiling.run(),
            Self::Sheet(sheet) => sheet.run(),
        }
    }
}

/// Which world.
#[derive(Debug, Args)]
struct WorldArgs {
    /// The chance that the sentence of a related pair names the relation.
    #[arg(long, value_name = "P")]
    p_text: Option<f64>,
    /// The chance that the picture of a related pair shows the relation.
    #[arg(long, value_name = "P")]
    p_picture: Option<f64>,
    /// The share of posts without a relation.
    #[arg(long, value_name = "P")]
    p_none: Option<f64>,
    /// Change any key of the world, as in `--set world.picture_size=64`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The part of an experiment's configuration that this command reads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default)]
    world: WorldConfig,
}

impl WorldArgs {
    fn world(&self) -> anyhow::Result<World> {
        let options = [
            ("world.p_text", self.p_text),
            ("world.p_picture", self.p_picture),
            ("world.p_none", self.p_none),
        ];
        let mut overrides = super::key_values(&self.set)?;
        let given = |(key, value): (&str, Option<f64>)| Some((key.to_owned(), value?.to_string()));
        overrides.extend(options.into_iter().filter_map(given));
        let Section { world } = config::parse(Path::new("--set"), "", &overrides)?;
        Ok(World::new(world).map_err(|error| UserError(error.to_string()))?)
    }
}

/// Which posts to print.
#[derive(Debug, Args)]
pub struct Show {
    /// How many posts.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
    count: usize,
    /// train, validation or test.
    #[arg(long, default_value = "train", value_parser = split)]
    split: Split,
    /// The seed of the posts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    world: WorldArgs,
}

fn split(text: &str) -> Result<Split, String> {
    let found = Split::ALL.into_iter().find(|split| split.names().contains(&text));
    found.ok_or_else(|| "expected train, validation or test".to_owned())
}

impl Show {
    fn run(&self) -> anyhow::Result<()> {
        let world = self.world.world()?;
        let relations = world.relations();
        let mut text = String::new();
        for post in world.posts(self.split, self.seed, self.count) {
            describe(&mut text, &post, &relations)?;
        }
        super::print(&text)
    }
}

/// A post in four lines.
fn describe(text: &mut String, post: &Example, relations: &Relations) -> std::fmt::Result {
    let name = |label: usize| relations.names().get(label).map_or("?", String::as_str);
    let cue = |cue: Option<usize>| cue.map_or("no relation", name);
    writeln!(text, "{}  {}", post.id, name(post.label))?;
    writeln!(text, "  {}", marked(post))?;
    if let Some(truth) = &post.truth {
        let form = CATALOGUE.get(truth.form).map_or("?", |form| form.name);
        writeln!(text, "  sentence names {}", cue(truth.text_cue))?;
        writeln!(text, "  picture shows {} ({form})", cue(truth.picture_cue))?;
    }
    Ok(())
}

/// The sentence with `[H head]` and `[T tail]`.
fn marked(post: &Example) -> String {
    let mut tokens = post.tokens.clone();
    for (mark, entity) in [("[H ", &post.head), ("[T ", &post.tail)] {
        if let Some(first) = tokens.get_mut(entity.span.start) {
            first.insert_str(0, mark);
        }
        if let Some(last) = tokens.get_mut(entity.span.end.saturating_sub(1)) {
            last.push(']');
        }
    }
    tokens.join(" ")
}

/// Which posts to write, and where.
#[derive(Debug, Args)]
pub struct Export {
    /// The folder that gets train, validation and test.
    folder: PathBuf,
    /// Posts to train on; 0 leaves the split out.
    #[arg(long, value_name = "N", default_value_t = 300)]
    train: usize,
    /// Posts to validate on; 0 leaves the split out.
    #[arg(long, value_name = "N", default_value_t = 200)]
    validation: usize,
    /// Posts to test on; 0 leaves the split out.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    test: usize,
    /// The seed of the posts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    world: WorldArgs,
}

impl Export {
    fn run(&self) -> anyhow::Result<()> {
        let sizes = [self.train, self.validation, self.test];
        export(&self.world.world()?, self.seed, sizes, &self.folder).map_err(
            |error| match error {
                ExportError::Exists(_) => UserError(error.to_string()).into(),
                other => anyhow::Error::from(other),
            },
        )?;
        let mut names = String::new();
        for (split, size) in Split::ALL.into_iter().zip(sizes).filter(|(_, size)| *size > 0) {
            let file = self.folder.join(split.to_string()).join("metadata.jsonl");
            writeln!(names, "{}: {size} posts", file.display())?;
        }
        super::print(&names)
    }
}

/// Whose ceiling.
#[derive(Debug, Args)]
pub struct Ceiling {
    #[command(flatten)]
    world: WorldArgs,
}

impl Ceiling {
    fn run(&self) -> anyhow::Result<()> {
        let world = self.world.world()?;
        let probabilities = world.probabilities();
        let entropy: f64 =
            probabilities.prior().iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let mut table = String::new();
        writeln!(
            table,
            "{:8} {:>11} {:>9} {:>9} {:>10} {:>7} {:>9}",
            "", "information", "log-loss", "micro-F1", "precision", "recall", "accuracy"
        )?;
        for (name, view) in [("text", View::Text), ("picture", View::Picture), ("both", View::Both)]
        {
            let best = probabilities.ceiling(view);
            writeln!(
                table,
                "{name:8} {:11.4} {:9.4} {:9.4} {:10.4} {:7.4} {:9.4}",
                best.information,
                best.log_loss,
                best.micro_f1,
                best.precision,
                best.recall,
                best.accuracy
            )?;
        }
        writeln!(
            table,
            "The label's entropy is {entropy:.4}; information and losses are in nats."
        )?;
        writeln!(table, "Exact where a picture's cue is read off its pixels without error.")?;
        super::print(&table)
    }
}

/// The sheet of forms.
#[derive(Debug, Args)]
pub struct Sheet {
    /// The file to write.
    #[arg(short, long, value_name = "FILE.png", default_value = "sheet.png")]
    out: PathBuf,
    /// Pixels along each side of a picture, 32 or 64.
    #[arg(long, default_value_t = 32, value_parser = side)]
    size: usize,
    /// Pictures of each form.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=20))]
    variations: u8,
    /// Draw every pixel N times as large.
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=8))]
    zoom: u8,
    /// The seed of colours, places and clutter.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn side(text: &str) -> Result<usize, String> {
    match text {
        "32" => Ok(32),
        "64" => Ok(64),
        _ => Err("expected 32 or 64".to_owned()),
    }
}

impl Sheet {
    fn run(&self) -> anyhow::Result<()> {
        let (variations, zoom) = (usize::from(self.variations), usize::from(self.zoom));
        let sheet = contact_sheet(self.size, variations, zoom, self.seed);
        pictures::save_png(&self.out, &sheet, &[("seed", &self.seed.to_string())])?;
        super::print(&format!("{}\n", self.out.display()))
    }
}

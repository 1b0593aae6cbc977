//! Progress of everything that lasts: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is printed where the output is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(20);

/// Where progress is shown. Clones show on the same screen.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    quiet: bool,
}

impl Progress {
    /// Bars if the standard error is a terminal, plain lines otherwise.
    pub fn stderr() -> Self {
        let bars = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { bars, quiet: false }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { bars: None, quiet: true }
    }

    /// A line that stays on the screen.
    pub fn line(&self, text: impl AsRef<str>) {
        match &self.bars {
            Some(bars) => bars.suspend(|| eprintln!("{}", text.as_ref())),
            None if !self.quiet => eprintln!("{}", text.as_ref()),
            None => {}
        }
    }

    /// Starts a piece of work of `total` units, each called `unit`.
    pub fn task(&self, name: impl Into<String>, total: u64, unit: &'static str) -> Task {
        let name = name.into();
        let bar = match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::new(total));
                bar.set_style(
                    ProgressStyle::with_template(
                        "{prefix:32!} {bar:24} {pos}/{len} {msg} {per_sec} {eta} left",
                    )
                    .expect("the template is well-formed"),
                );
                bar.set_prefix(name.clone());
                bar
            }
            None => ProgressBar::hidden(),
        };
        let lines = (self.bars.is_none() && !self.quiet).then(|| {
            let started = Instant::now();
            Arc::new(Mutex::new(Lines { started, printed: started, done: 0, total }))
        });
        Task { name, unit, bar, lines }
    }
}

struct Lines {
    started: Instant,
    printed: Instant,
    done: u64,
    total: u64,
}

/// A piece of work under way.
#[derive(Clone)]
pub struct Task {
    name: String,
    unit: &'static str,
    bar: ProgressBar,
    lines: Option<Arc<Mutex<Lines>>>,
}

impl Task {
    /// Notes that `count` further units are done.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
        let Some(lines) = &self.lines else { return };
        let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        lines.done += count;
        let now = Instant::now();
        if now.duration_since(lines.printed) >= LINE_INTERVAL {
            lines.printed = now;
            let seconds = now.duration_since(lines.started).as_secs_f64();
            let rate = lines.done as f64 / seconds;
            let left = lines.total.saturating_sub(lines.done) as f64 / rate.max(1e-9);
            eprintln!(
                "{}: {} of {} {}, {rate:.1} a second, {left:.0} s left",
                self.name, lines.done, lines.total, self.unit
            );
        }
    }

    /// Notes that `count` units were done before this work began and are no part of it.
    pub fn leave_out(&self, count: u64) {
        self.bar.dec_length(count);
        if let Some(lines) = &self.lines {
            let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            lines.total = lines.total.saturating_sub(count);
        }
    }

    /// A short text beside the bar.
    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

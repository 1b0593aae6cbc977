//! The report's plots, as SVG that takes its ink from the page, so that they suit light and dark.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ReportError;
use super::figures::{count, points};
use super::results::Histogram;
use crate::eval::Interval;

/// Series colours that are told apart by most eyes and stand out on white and on black.
pub const PALETTE: [RGBColor; 8] = [
    RGBColor(0x3b, 0x82, 0xc4),
    RGBColor(0xe0, 0x81, 0x2b),
    RGBColor(0x2e, 0x9e, 0x6b),
    RGBColor(0xd1, 0x49, 0x5b),
    RGBColor(0x8c, 0x6b, 0xd1),
    RGBColor(0xa0, 0x70, 0x3c),
    RGBColor(0x1f, 0xa3, 0xb3),
    RGBColor(0x8a, 0x8a, 0x8a),
];

/// What is drawn in black becomes the page's text colour.
const INK: RGBColor = BLACK;
const FONT: &str = "sans-serif";
/// Sizes of text, in units that the backend divides by 1.24.
const LABEL: u32 = 17;
const SMALL: u32 = 15;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Painted = Result<(), Box<dyn Error>>;

/// The inside of an `<svg>` element.
pub struct Svg {
    /// In user units.
    pub width: u32,
    /// In user units.
    pub height: u32,
    /// The elements.
    pub body: String,
}

/// A row of a forest plot: a value with its intervals, in points.
pub struct Mark {
    /// What it is.
    pub name: String,
    /// Where the dot stands.
    pub value: f64,
    /// The wide line.
    pub inner: Option<Interval>,
    /// The thin line.
    pub outer: Option<Interval>,
    /// One small dot a seed.
    pub seeds: Vec<f64>,
    /// The colour.
    pub colour: RGBColor,
}

/// A line of a learning curve.
pub struct Line {
    /// (updates, value).
    pub points: Vec<(f64, f64)>,
    /// The colour.
    pub colour: RGBColor,
    /// Whether it stands out.
    pub strong: bool,
}

/// Values with intervals, one below the other, and named lines that they are to be held against.
pub fn forest(marks: &[Mark], references: &[(&str, f64)], axis: &str) -> Result<Svg, ReportError> {
    const ROW: u32 = 30;
    const NAMES: u32 = 17;
    // The names of the lines stand one above the other, so that close lines can be read.
    let top = 8 + NAMES * references.len() as u32;
    let height = top + ROW * marks.len() as u32 + 50;
    let left = width_of(marks.iter().map(|mark| mark.name.as_str()), LABEL) + 16;
    let ends = marks.iter().flat_map(|mark| {
        let intervals = [mark.inner, mark.outer].into_iter().flatten();
        intervals
            .flat_map(|interval| [interval.low, interval.high])
            .chain(mark.seeds.iter().copied())
            .chain([mark.value])
    });
    let range = padded(ends.chain(references.iter().map(|(_, value)| *value)));
    draw("forest", 760, height, |area| {
        let rows = marks.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin_right(64)
            .margin_top(top)
            .set_label_area_size(LabelAreaPosition::Left, left)
            .set_label_area_size(LabelAreaPosition::Bottom, 44)
            .build_cartesian_2d(range.0..range.1, rows..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_label_formatter(&|value| tick(*value, range))
            .x_desc(axis)
            .label_style((FONT, LABEL))
            .axis_style(INK.mix(0.4))
            .bold_line_style(INK.mix(0.1))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let plane = chart.plotting_area();
        for (number, (name, value)) in references.iter().enumerate() {
            let (x, bottom) = plane.map_coordinate(&(*value, rows));
            let from = (x, (4 + NAMES * (number as u32 + 1)) as i32);
            line(area, from, (x, bottom), INK.mix(0.55), 1)?;
            label(area, name, from, HPos::Center, VPos::Bottom, SMALL)?;
        }
        for (row, mark) in marks.iter().enumerate() {
            let at = |value: f64| plane.map_coordinate(&(value, row as f64 + 0.5));
            let (x, y) = at(mark.value);
            let name_at = (left as i32 - 10, y);
            label(area, &mark.name, name_at, HPos::Right, VPos::Center, LABEL)?;
            for (interval, width) in [(mark.outer, 1), (mark.inner, 4)] {
                if let Some(interval) = interval {
                    let (low, high) = (at(interval.low), at(interval.high));
                    line(area, low, high, mark.colour.mix(0.8), width)?;
                }
            }
            for seed in &mark.seeds {
                let (x, y) = at(*seed);
                area.draw(&Circle::new((x, y + 8), 2, INK.mix(0.5).filled()))?;
            }
            area.draw(&Circle::new((x, y), 5, mark.colour.filled()))?;
        }
        Ok(())
    })
}

/// Lines over updates.
pub fn curves(lines: &[Line], axis: &str) -> Result<Svg, ReportError> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let updates = all().map(|point| point.0).fold(1.0, f64::max);
    let range = padded(all().map(|point| point.1));
    draw("learning curves", 480, 320, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 58)
            .set_label_area_size(LabelAreaPosition::Bottom, 44)
            .build_cartesian_2d(0.0..updates, range.0..range.1)?;
        chart
            .configure_mesh()
            .x_labels(6)
            .x_label_formatter(&|value| count(*value as u64))
            .y_labels(6)
            .y_label_formatter(&|value| tick(*value, range))
            .x_desc("updates")
            .y_desc(axis)
            .label_style((FONT, LABEL))
            .axis_style(INK.mix(0.4))
            .bold_line_style(INK.mix(0.1))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for line in lines {
            let width = if line.strong { 4 } else { 2 };
            let style = line.colour.stroke_width(width);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        }
        Ok(())
    })
}

/// Kept pairs as bars, dropped ones on top of them.
pub fn histogram(histogram: &Histogram, axis: &str) -> Result<Svg, ReportError> {
    let Histogram { low, width, kept, dropped } = histogram;
    let bins = kept.len().max(dropped.len());
    let of = |counts: &[usize], bin: usize| counts.get(bin).copied().unwrap_or(0) as f64;
    let highest = (0..bins).map(|bin| of(kept, bin) + of(dropped, bin)).fold(1.0, f64::max);
    let range = (*low, low + width * bins.max(1) as f64);
    draw("score histogram", 640, 320, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 62)
            .set_label_area_size(LabelAreaPosition::Bottom, 44)
            .build_cartesian_2d(range.0..range.1, 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_label_formatter(&|value| tick(*value, range))
            .y_label_formatter(&|value| count(*value as u64))
            .x_desc(axis)
            .y_desc("pairs")
            .label_style((FONT, LABEL))
            .axis_style(INK.mix(0.4))
            .bold_line_style(INK.mix(0.1))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let bars = (0..bins).flat_map(|bin| {
            let (left, right) = (low + width * bin as f64, low + width * (bin + 1) as f64);
            let (kept, dropped) = (of(kept, bin), of(dropped, bin));
            [
                ((left, 0.0), (right, kept), PALETTE[0]),
                ((left, kept), (right, kept + dropped), PALETTE[1]),
            ]
        });
        chart.draw_series(bars.filter(|(from, to, _)| to.1 > from.1).map(
            |(from, to, colour)| {
                let mut bar = Rectangle::new([from, to], colour.mix(0.85).filled());
                bar.set_margin(0, 0, 1, 1);
                bar
            },
        ))?;
        Ok(())
    })
}

/// Gold labels down, predicted ones across; the shade is the share of the gold label's items.
pub fn confusion(matrix: &[Vec<usize>], names: &[String]) -> Result<Svg, ReportError> {
    const CELL: i32 = 32;
    let name = |class: usize| names.get(class).map_or("?", String::as_str);
    let margin = width_of((0..matrix.len()).map(name), SMALL) as i32 + 12;
    let (left, top) = (margin + 20, margin + 20);
    let side = CELL * matrix.len() as i32;
    let (width, height) = ((left + side + 8) as u32, (top + side + 8) as u32);
    draw("confusion matrix", width, height, |area| {
        let middle = side / 2;
        label(area, "predicted", (left + middle, 2), HPos::Center, VPos::Top, LABEL)?;
        turned(area, "gold", (4, top + middle), HPos::Center, VPos::Top)?;
        for (gold, row) in matrix.iter().enumerate() {
            let total = row.iter().sum::<usize>().max(1);
            let y = top + CELL * gold as i32;
            let centre = CELL / 2;
            label(area, name(gold), (left - 6, y + centre), HPos::Right, VPos::Center, SMALL)?;
            let above = (left + CELL * gold as i32 + centre, top - 6);
            turned(area, name(gold), above, HPos::Left, VPos::Center)?;
            for (predicted, &items) in row.iter().enumerate() {
                let x = left + CELL * predicted as i32;
                let colour = PALETTE[usize::from(predicted != gold)];
                let shade = 0.05 + 0.75 * items as f64 / total as f64;
                let fill = if items == 0 { INK.mix(0.03) } else { colour.mix(shade) };
                let corners = [(x + 1, y + 1), (x + CELL - 1, y + CELL - 1)];
                area.draw(&Rectangle::new(corners, fill.filled()))?;
                if items > 0 {
                    let at = (x + centre, y + centre);
                    label(area, &items.to_string(), at, HPos::Center, VPos::Center, SMALL)?;
                }
            }
        }
        Ok(())
    })
}

/// A colour as CSS writes it.
pub fn css(colour: RGBColor) -> String {
    let RGBColor(red, green, blue) = colour;
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn draw(
    plot: &'static str,
    width: u32,
    height: u32,
    paint: impl FnOnce(&Area) -> Painted,
) -> Result<Svg, ReportError> {
    let failed = |message: String| ReportError::Plot { plot, message };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        paint(&area).map_err(|error| failed(error.to_string()))?;
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    // The element itself is the page's to write: it scales and is named there.
    let body = svg
        .split_once('>')
        .and_then(|(_, rest)| rest.trim_end().strip_suffix("</svg>"))
        .ok_or_else(|| failed("expected one <svg> element".to_owned()))?
        .replace("\"#000000\"", "\"currentColor\"");
    Ok(Svg { width, height, body })
}

fn line(area: &Area, from: (i32, i32), to: (i32, i32), colour: RGBAColor, width: u32) -> Painted {
    area.draw(&PathElement::new([from, to], colour.stroke_width(width)))?;
    Ok(())
}

fn label(
    area: &Area,
    text: &str,
    at: (i32, i32),
    horizontal: HPos,
    vertical: VPos,
    size: u32,
) -> Painted {
    let style =
        TextStyle::from((FONT, size).into_font()).color(&INK).pos(Pos::new(horizontal, vertical));
    area.draw_text(text, &style, at)?;
    Ok(())
}

/// Text that runs upwards.
fn turned(area: &Area, text: &str, at: (i32, i32), horizontal: HPos, vertical: VPos) -> Painted {
    let font = (FONT, SMALL).into_font().transform(FontTransform::Rotate270);
    let style = TextStyle::from(font).color(&INK).pos(Pos::new(horizontal, vertical));
    area.draw_text(text, &style, at)?;
    Ok(())
}

/// Room for the longest name. The backend writes a font 1.24 times smaller than it is asked for, and a
/// sans-serif letter is a little over half as wide as it is high.
fn width_of<'a>(names: impl Iterator<Item = &'a str>, size: u32) -> u32 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    (longest as u32 * size * 47).div_ceil(100)
}

/// The range of finite values with some room around; never empty.
fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if low > high {
        return (0.0, 1.0);
    }
    let room = (0.06 * (high - low)).max(1e-3);
    (low - room, high + room)
}

/// A tick's number, with as many digits as the range needs.
fn tick(value: f64, (low, high): (f64, f64)) -> String {
    let digits = if high - low >= 8.0 {
        0
    } else if high - low >= 0.8 {
        1
    } else {
        2
    };
    super::figures::digits(value, digits)
}

/// Fractions as points, for the axes.
pub fn in_points(interval: &Interval) -> Interval {
    Interval { low: 100.0 * interval.low, high: 100.0 * interval.high, level: interval.level }
}

/// The text beside a reference line.
pub fn reference(name: &str, fraction: f64) -> String {
    format!("{name} {}", points(fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_take_their_ink_from_the_page_and_no_font_from_the_machine() {
        let marks = [Mark {
            name: "a < b".to_owned(),
            value: 1.0,
            inner: None,
            outer: Some(Interval { low: 0.5, high: 2.0, level: 0.95 }),
            seeds: vec![0.9, 1.1],
            colour: PALETTE[0],
        }];
        let svg = forest(&marks, &[("zero", 0.0)], "points").unwrap().body;
        assert!(svg.contains("currentColor") && !svg.contains("#000000"));
        assert!(svg.contains("a &lt; b") && svg.contains("<text"));
        assert!(!svg.contains("<svg"));
    }

    #[test]
    fn plots_of_little_or_odd_data_are_still_drawn() {
        assert!(forest(&[], &[], "points").is_ok());
        assert!(curves(&[], "loss").is_ok());
        let odd =
            Line { points: vec![(1.0, f64::NAN), (2.0, 0.5)], colour: PALETTE[1], strong: true };
        assert!(curves(&[odd], "loss").is_ok());
        assert!(confusion(&[], &[]).is_ok());
        let empty = Histogram { low: 0.0, width: 1.0, kept: vec![], dropped: vec![] };
        assert!(histogram(&empty, "score").is_ok());
    }

    #[test]
    fn every_item_of_the_matrix_is_written_in_its_cell() {
        let names = ["None".to_owned(), "peer".to_owned()];
        let svg = confusion(&[vec![17, 23], vec![0, 41]], &names).unwrap().body;
        for written in ["17", "23", "41", "None", "peer"] {
            assert!(svg.contains(&format!("\n{written}\n")), "{written}");
        }
    }
}

//! The shapes that pictures show: four for each relation, eight that mean none.
//!
//! A form is a list of layers in a square of side 2 around the origin, x to the right, y down; a later
//! layer covers an earlier one. The shapes are bold, so that they can be told apart at 32 pixels.

use super::lexicon::RELATIONS;

/// How many quite different forms show a relation.
pub const FORMS_PER_RELATION: usize = 4;
/// How many forms show no relation.
pub const NEUTRAL_FORMS: usize = 8;
/// How many forms there are.
pub const FORMS: usize = RELATIONS.len() * FORMS_PER_RELATION + NEUTRAL_FORMS;

/// What a layer is painted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// The object's colour.
    Main,
    /// Its second colour.
    Second,
    /// The background shows through.
    Hole,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Centre and radius.
    Disc(f32, f32, f32),
    /// Centre and half axes.
    Ellipse(f32, f32, f32, f32),
    /// Left, top, right, bottom.
    Rect(f32, f32, f32, f32),
    /// Centre, outer radius, width.
    Ring(f32, f32, f32, f32),
    /// From, to, width.
    Line(f32, f32, f32, f32, f32),
    /// The upper half of a disc.
    Dome(f32, f32, f32),
    /// The lower half of a disc.
    Bowl(f32, f32, f32),
    /// Corners.
    Polygon(&'static [(f32, f32)]),
}

impl Shape {
    fn contains(&self, x: f32, y: f32) -> bool {
        match *self {
            Shape::Disc(cx, cy, r) => (x - cx).hypot(y - cy) <= r,
            Shape::Ellipse(cx, cy, rx, ry) => ((x - cx) / rx).hypot((y - cy) / ry) <= 1.0,
            Shape::Rect(left, top, right, bottom) => {
                (left..=right).contains(&x) && (top..=bottom).contains(&y)
            }
            Shape::Ring(cx, cy, r, width) => {
                let distance = (x - cx).hypot(y - cy);
                (r - width..=r).contains(&distance)
            }
            Shape::Line(x0, y0, x1, y1, width) => {
                let (dx, dy) = (x1 - x0, y1 - y0);
                let along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy);
                let along = along.clamp(0.0, 1.0);
                (x - x0 - along * dx).hypot(y - y0 - along * dy) <= width / 2.0
            }
            Shape::Dome(cx, cy, r) => y <= cy && (x - cx).hypot(y - cy) <= r,
            Shape::Bowl(cx, cy, r) => y >= cy && (x - cx).hypot(y - cy) <= r,
            Shape::Polygon(corners) => {
                let mut inside = false;
                let mut previous = corners[corners.len() - 1];
                for &corner in corners {
                    let ((x0, y0), (x1, y1)) = (previous, corner);
                    if (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0) {
                        inside = !inside;
                    }
                    previous = corner;
                }
                inside
            }
        }
    }
}

/// A form: its name and its layers.
#[derive(Debug)]
pub struct Form {
    /// What the shape is meant to be.
    pub name: &'static str,
    layers: &'static [(Ink, Shape)],
}

impl Form {
    /// The ink at a point, `None` where the background shows.
    pub fn ink(&self, x: f32, y: f32) -> Option<Ink> {
        self.layers
            .iter()
            .rev()
            .find(|(_, shape)| shape.contains(x, y))
            .map(|&(ink, _)| ink)
            .filter(|&ink| ink != Ink::Hole)
    }

    /// The share of the square `[x, x + step] x [y, y + step]` that the main and the second ink cover.
    pub fn coverage(&self, x: f32, y: f32, step: f32) -> [f32; 2] {
        let outside = |from: f32| from > EXTENT || from + step < -EXTENT;
        if outside(x) || outside(y) {
            return [0.0; 2];
        }
        let mut counts = [0.0; 2];
        for i in 0..SUPERSAMPLING {
            for j in 0..SUPERSAMPLING {
                let at = |k: usize| (k as f32 + 0.5) / SUPERSAMPLING as f32 * step;
                match self.ink(x + at(i), y + at(j)) {
                    Some(Ink::Main) => counts[0] += 1.0,
                    Some(Ink::Second) => counts[1] += 1.0,
                    Some(Ink::Hole) | None => {}
                }
            }
        }
        counts.map(|count| count / (SUPERSAMPLING * SUPERSAMPLING) as f32)
    }
}

/// No form reaches further from the origin, along either axis.
const EXTENT: f32 = 1.03;

/// Samples along each side of a pixel.
const SUPERSAMPLING: usize = 4;

/// The index of form `kind` (0 to 3) of a relation (1-based).
pub fn relation_form(relation: usize, kind: usize) -> usize {
    (relation - 1) * FORMS_PER_RELATION + kind
}

/// The index of neutral form `kind` (0 to 7).
pub fn neutral_form(kind: usize) -> usize {
    RELATIONS.len() * FORMS_PER_RELATION + kind
}

/// The relation (1-based) that a form shows, `None` for a neutral form.
pub fn cue_of(form: usize) -> Option<usize> {
    let relation = form / FORMS_PER_RELATION + 1;
    (relation <= RELATIONS.len()).then_some(relation)
}

use Ink::{Hole, Main, Second};
use Shape::{Bowl, Disc, Dome, Ellipse, Line, Polygon, Rect, Ring};

const fn form(name: &'static str, layers: &'static [(Ink, Shape)]) -> Form {
    Form { name, layers }
}

/// Every form: those of relation 1, of relation 2, ..., the neutral ones.
#[rustfmt::skip]
pub static CATALOGUE: [Form; FORMS] = [
    // member_of
    form("shirt", &[
        (Main, Polygon(&[(-0.45, -0.85), (0.45, -0.85), (1.0, -0.4), (0.75, 0.05), (0.5, -0.15), (0.5, 0.9),
            (-0.5, 0.9), (-0.5, -0.15), (-0.75, 0.05), (-1.0, -0.4)])),
        (Hole, Ellipse(0.0, -0.85, 0.25, 0.25)), (Second, Rect(-0.5, 0.1, 0.5, 0.42))]),
    form("notes", &[
        (Main, Ellipse(-0.58, 0.68, 0.38, 0.28)), (Main, Ellipse(0.54, 0.5, 0.38, 0.28)),
        (Main, Rect(-0.42, -0.7, -0.2, 0.68)), (Main, Rect(0.7, -0.9, 0.92, 0.5)),
        (Main, Polygon(&[(-0.42, -0.75), (0.92, -0.98), (0.92, -0.5), (-0.42, -0.27)]))]),
    form("shield", &[
        (Main, Polygon(&[(-0.82, -0.88), (0.82, -0.88), (0.82, 0.1), (0.5, 0.6), (0.0, 0.97), (-0.5, 0.6), (-0.82, 0.1)])),
        (Second, Polygon(&[(0.0, -0.88), (0.82, -0.88), (0.82, 0.1), (0.5, 0.6), (0.0, 0.97)]))]),
    form("badge card", &[
        (Main, Rect(-0.97, -0.62, 0.97, 0.72)), (Second, Disc(-0.45, -0.15, 0.3)), (Second, Dome(-0.45, 0.55, 0.36)),
        (Second, Rect(0.12, -0.3, 0.8, -0.08)), (Second, Rect(0.12, 0.16, 0.8, 0.38))]),
    // peer
    form("speech bubble", &[
        (Main, Ellipse(0.0, -0.22, 0.97, 0.66)), (Main, Polygon(&[(-0.6, 0.1), (-0.75, 0.97), (0.1, 0.35)])),
        (Second, Disc(-0.46, -0.22, 0.16)), (Second, Disc(0.0, -0.22, 0.16)), (Second, Disc(0.46, -0.22, 0.16))]),
    form("hand", &[
        (Main, Ellipse(-0.08, 0.5, 0.48, 0.48)), (Main, Line(-0.42, 0.4, -0.78, -0.35, 0.22)),
        (Main, Line(-0.2, 0.2, -0.34, -0.82, 0.22)), (Main, Line(0.02, 0.2, 0.1, -0.85, 0.22)),
        (Main, Line(0.22, 0.3, 0.52, -0.6, 0.22)), (Main, Line(0.25, 0.6, 0.85, 0.1, 0.24))]),
    form("puzzle piece", &[
        (Main, Rect(-0.85, -0.4, 0.5, 0.95)), (Main, Disc(-0.18, -0.62, 0.32)), (Main, Disc(0.68, 0.28, 0.32)),
        (Hole, Disc(-0.72, 0.28, 0.3))]),
    form("mug", &[
        (Main, Ring(0.42, 0.1, 0.52, 0.22)), (Main, Rect(-0.85, -0.7, 0.42, 0.9)), (Second, Rect(-0.85, -0.7, 0.42, -0.38))]),
    // present_in
    form("clapperboard", &[
        (Main, Rect(-0.95, -0.12, 0.95, 0.92)), (Second, Polygon(&[(-0.97, -0.3), (0.8, -0.92), (0.92, -0.58), (-0.86, 0.02)])),
        (Main, Polygon(&[(-0.5, -0.46), (-0.2, -0.57), (0.0, -0.26), (-0.3, -0.16)])),
        (Main, Polygon(&[(0.2, -0.71), (0.5, -0.82), (0.7, -0.51), (0.4, -0.4)])),
        (Second, Rect(-0.7, 0.3, 0.7, 0.48))]),
    form("television", &[
        (Main, Line(0.0, -0.35, -0.5, -0.9, 0.16)), (Main, Line(0.0, -0.35, 0.5, -0.9, 0.16)),
        (Main, Rect(-0.97, -0.4, 0.97, 0.92)), (Second, Rect(-0.72, -0.16, 0.38, 0.68)),
        (Second, Disc(0.68, 0.0, 0.13)), (Second, Disc(0.68, 0.4, 0.13))]),
    form("film reel", &[
        (Main, Disc(0.0, 0.0, 0.95)), (Second, Disc(0.0, -0.53, 0.27)), (Second, Disc(0.53, 0.0, 0.27)),
        (Second, Disc(0.0, 0.53, 0.27)), (Second, Disc(-0.53, 0.0, 0.27)), (Hole, Disc(0.0, 0.0, 0.13))]),
    form("ticket", &[
        (Main, Rect(-0.98, -0.52, 0.98, 0.52)), (Hole, Disc(-0.98, 0.0, 0.28)), (Hole, Disc(0.98, 0.0, 0.28)),
        (Second, Rect(0.3, -0.52, 0.46, 0.52)), (Second, Rect(-0.55, -0.25, 0.1, -0.08)), (Second, Rect(-0.55, 0.08, 0.1, 0.25))]),
    // place_of_residence
    form("key", &[
        (Main, Ring(-0.48, 0.0, 0.5, 0.24)), (Main, Rect(-0.05, -0.13, 0.98, 0.13)),
        (Main, Rect(0.46, 0.0, 0.64, 0.5)), (Main, Rect(0.8, 0.0, 0.98, 0.42))]),
    form("door", &[
        (Main, Rect(-0.58, -0.97, 0.58, 0.97)), (Second, Rect(-0.36, -0.75, 0.36, -0.12)), (Second, Rect(-0.36, 0.14, 0.36, 0.75))]),
    form("sofa", &[
        (Main, Rect(-0.72, -0.6, 0.72, 0.5)), (Main, Rect(-1.0, -0.15, -0.62, 0.6)), (Main, Rect(0.62, -0.15, 1.0, 0.6)),
        (Second, Rect(-0.62, 0.05, 0.62, 0.38)), (Main, Rect(-0.9, 0.6, -0.68, 0.82)), (Main, Rect(0.68, 0.6, 0.9, 0.82))]),
    form("bed", &[
        (Main, Rect(-1.0, -0.75, -0.8, 0.75)), (Main, Rect(-0.9, 0.15, 1.0, 0.48)), (Main, Rect(0.8, -0.05, 1.0, 0.75)),
        (Second, Ellipse(-0.48, -0.05, 0.3, 0.2)), (Second, Rect(-0.1, -0.14, 0.8, 0.15))]),
    // couple
    form("heart", &[
        (Main, Disc(-0.45, -0.38, 0.51)), (Main, Disc(0.45, -0.38, 0.51)),
        (Main, Polygon(&[(-0.9, -0.13), (0.0, -0.45), (0.9, -0.13), (0.0, 0.95)]))]),
    form("two rings", &[
        (Main, Ring(-0.37, 0.0, 0.62, 0.24)), (Second, Ring(0.37, 0.0, 0.62, 0.24))]),
    form("cake", &[
        (Main, Rect(-0.95, 0.38, 0.95, 0.95)), (Second, Rect(-0.64, -0.15, 0.64, 0.38)), (Main, Rect(-0.34, -0.64, 0.34, -0.15)),
        (Second, Disc(0.0, -0.78, 0.18))]),
    form("bow", &[
        (Main, Polygon(&[(-0.97, -0.68), (0.0, 0.0), (-0.97, 0.68)])), (Main, Polygon(&[(0.97, -0.68), (0.0, 0.0), (0.97, 0.68)])),
        (Second, Disc(0.0, 0.0, 0.28))]),
    // awarded
    form("trophy", &[
        (Main, Ring(-0.5, -0.52, 0.42, 0.17)), (Main, Ring(0.5, -0.52, 0.42, 0.17)),
        (Main, Rect(-0.52, -0.95, 0.52, -0.4)), (Main, Bowl(0.0, -0.42, 0.52)), (Main, Rect(-0.13, 0.0, 0.13, 0.6)),
        (Second, Rect(-0.5, 0.58, 0.5, 0.95))]),
    form("medal", &[
        (Second, Polygon(&[(-0.75, -0.97), (-0.3, -0.97), (0.18, 0.1), (-0.15, 0.2)])),
        (Second, Polygon(&[(0.75, -0.97), (0.3, -0.97), (-0.18, 0.1), (0.15, 0.2)])),
        (Main, Disc(0.0, 0.4, 0.56)), (Second, Disc(0.0, 0.4, 0.24))]),
    form("rosette", &[
        (Second, Polygon(&[(-0.4, 0.1), (0.0, 0.2), (-0.25, 0.97), (-0.7, 0.75)])),
        (Second, Polygon(&[(0.4, 0.1), (0.0, 0.2), (0.25, 0.97), (0.7, 0.75)])),
        (Main, Disc(0.0, -0.8, 0.2)), (Main, Disc(0.39, -0.64, 0.2)), (Main, Disc(0.55, -0.25, 0.2)), (Main, Disc(0.39, 0.14, 0.2)),
        (Main, Disc(0.0, 0.3, 0.2)), (Main, Disc(-0.39, 0.14, 0.2)), (Main, Disc(-0.55, -0.25, 0.2)), (Main, Disc(-0.39, -0.64, 0.2)),
        (Main, Disc(0.0, -0.25, 0.55)), (Second, Disc(0.0, -0.25, 0.26))]),
    form("podium", &[
        (Main, Rect(-0.34, -0.7, 0.34, 0.85)), (Second, Rect(-1.0, -0.12, -0.34, 0.85)), (Second, Rect(0.34, 0.2, 1.0, 0.85))]),
    // held_on
    form("tent", &[
        (Second, Rect(-0.8, 0.05, 0.8, 0.9)), (Main, Polygon(&[(0.0, -0.72), (1.0, 0.12), (-1.0, 0.12)])),
        (Main, Polygon(&[(0.0, 0.1), (0.32, 0.9), (-0.32, 0.9)])), (Second, Polygon(&[(-0.06, -0.98), (0.45, -0.8), (-0.06, -0.6)]))]),
    form("ferris wheel", &[
        (Main, Line(0.0, -0.2, -0.55, 0.92, 0.15)), (Main, Line(0.0, -0.2, 0.55, 0.92, 0.15)),
        (Main, Ring(0.0, -0.2, 0.66, 0.15)),
        (Second, Disc(0.0, -0.8, 0.2)), (Second, Disc(0.54, -0.5, 0.2)), (Second, Disc(0.54, 0.1, 0.2)),
        (Second, Disc(-0.54, 0.1, 0.2)), (Second, Disc(-0.54, -0.5, 0.2)), (Main, Disc(0.0, -0.2, 0.2))]),
    form("calendar", &[
        (Main, Rect(-0.85, -0.72, 0.85, 0.95)), (Second, Rect(-0.85, -0.72, 0.85, -0.32)),
        (Second, Rect(-0.58, -0.97, -0.36, -0.6)), (Second, Rect(0.36, -0.97, 0.58, -0.6)),
        (Second, Rect(-0.6, -0.05, -0.25, 0.25)), (Second, Rect(0.25, -0.05, 0.6, 0.25)),
        (Second, Rect(-0.6, 0.45, -0.25, 0.75)), (Second, Rect(0.25, 0.45, 0.6, 0.75))]),
    form("firework", &[
        (Main, Line(0.0, -0.45, 0.0, -0.88, 0.2)), (Main, Line(0.0, 0.45, 0.0, 0.88, 0.2)),
        (Main, Line(-0.45, 0.0, -0.88, 0.0, 0.2)), (Main, Line(0.45, 0.0, 0.88, 0.0, 0.2)),
        (Main, Line(0.32, 0.32, 0.62, 0.62, 0.2)), (Main, Line(-0.32, 0.32, -0.62, 0.62, 0.2)),
        (Main, Line(0.32, -0.32, 0.62, -0.62, 0.2)), (Main, Line(-0.32, -0.32, -0.62, -0.62, 0.2)),
        (Second, Disc(0.0, 0.0, 0.25))]),
    // leader
    form("crown", &[
        (Main, Polygon(&[(-0.88, 0.75), (-0.97, -0.6), (-0.45, 0.05), (0.0, -0.85), (0.45, 0.05), (0.97, -0.6), (0.88, 0.75)])),
        (Second, Rect(-0.88, 0.42, 0.88, 0.75))]),
    form("tie", &[
        (Second, Polygon(&[(-0.36, -0.97), (0.36, -0.97), (0.2, -0.5), (-0.2, -0.5)])),
        (Main, Polygon(&[(-0.2, -0.5), (0.2, -0.5), (0.46, 0.55), (0.0, 0.98), (-0.46, 0.55)]))]),
    form("megaphone", &[
        (Main, Polygon(&[(-0.6, -0.3), (0.65, -0.85), (0.65, 0.6), (-0.6, 0.15)])), (Main, Polygon(&[(-0.4, 0.1), (-0.05, 0.1), (0.1, 0.85), (-0.25, 0.85)])),
        (Second, Ellipse(0.7, -0.12, 0.22, 0.78)), (Second, Rect(-0.97, -0.34, -0.6, 0.2))]),
    form("briefcase", &[
        (Main, Ring(0.0, -0.42, 0.48, 0.18)), (Main, Rect(-0.97, -0.42, 0.97, 0.85)), (Second, Rect(-0.97, 0.05, 0.97, 0.24)),
        (Second, Rect(-0.18, -0.06, 0.18, 0.38))]),
    // place_of_birth
    form("egg", &[
        (Main, Ellipse(0.0, 0.05, 0.7, 0.92)),
        (Second, Polygon(&[(-0.72, 0.0), (-0.42, -0.3), (-0.14, 0.0), (0.14, -0.3), (0.42, 0.0), (0.72, -0.3), (0.72, 0.05),
            (0.42, 0.35), (0.14, 0.05), (-0.14, 0.35), (-0.42, 0.05), (-0.72, 0.35)]))]),
    form("footprint", &[
        (Main, Ellipse(0.0, 0.3, 0.46, 0.4)), (Main, Ellipse(-0.04, 0.65, 0.34, 0.32)), (Main, Disc(-0.62, -0.22, 0.18)),
        (Main, Disc(-0.34, -0.52, 0.19)), (Main, Disc(0.05, -0.64, 0.2)), (Main, Ellipse(0.5, -0.5, 0.24, 0.27))]),
    form("balloons", &[
        (Main, Line(-0.5, -0.2, 0.0, 0.95, 0.12)), (Main, Line(0.5, -0.2, 0.0, 0.95, 0.12)),
        (Main, Disc(-0.52, -0.3, 0.44)), (Main, Disc(0.52, -0.3, 0.44)), (Second, Line(0.0, -0.2, 0.0, 0.95, 0.12)),
        (Second, Disc(0.0, -0.5, 0.44))]),
    form("cross", &[
        (Main, Rect(-0.32, -0.95, 0.32, 0.95)), (Main, Rect(-0.95, -0.32, 0.95, 0.32))]),
    // parent
    form("pram", &[
        (Main, Line(-0.7, -0.05, -0.92, -0.5, 0.15)), (Main, Bowl(0.0, -0.08, 0.78)), (Second, Polygon(&[(0.05, -0.1), (0.05, -0.9),
            (0.4, -0.83), (0.68, -0.55), (0.83, -0.1)])), (Second, Disc(-0.42, 0.76, 0.22)), (Second, Disc(0.42, 0.76, 0.22))]),
    form("bottle", &[
        (Main, Disc(0.0, -0.8, 0.18)), (Main, Dome(0.0, -0.45, 0.36)), (Second, Rect(-0.56, -0.52, 0.56, -0.22)),
        (Main, Rect(-0.46, -0.22, 0.46, 0.97)), (Second, Rect(0.0, 0.05, 0.46, 0.2)), (Second, Rect(0.0, 0.38, 0.46, 0.53))]),
    form("teddy", &[
        (Main, Disc(0.0, 0.15, 0.76)), (Main, Disc(-0.6, -0.58, 0.34)), (Main, Disc(0.6, -0.58, 0.34)),
        (Second, Ellipse(0.0, 0.45, 0.32, 0.26)), (Second, Disc(-0.3, -0.02, 0.12)), (Second, Disc(0.3, -0.02, 0.12))]),
    form("big and small", &[
        (Main, Disc(-0.42, -0.68, 0.29)), (Main, Polygon(&[(-0.6, -0.4), (-0.24, -0.4), (0.1, 0.95), (-0.94, 0.95)])),
        (Second, Disc(0.58, 0.1, 0.23)), (Second, Polygon(&[(0.45, 0.32), (0.71, 0.32), (0.97, 0.95), (0.19, 0.95)]))]),
    // made_in
    form("factory", &[
        (Main, Polygon(&[(-0.97, 0.88), (-0.97, -0.95), (-0.6, -0.95), (-0.6, -0.05), (-0.08, -0.42), (-0.08, -0.05),
            (0.44, -0.42), (0.44, -0.05), (0.97, -0.42), (0.97, 0.88)])),
        (Second, Rect(-0.5, 0.22, -0.2, 0.52)), (Second, Rect(0.0, 0.22, 0.3, 0.52)), (Second, Rect(0.5, 0.22, 0.8, 0.52))]),
    form("hammer", &[
        (Second, Rect(-0.15, -0.5, 0.15, 0.97)), (Main, Polygon(&[(-0.7, -0.92), (0.3, -0.92), (0.95, -0.6), (0.95, -0.42),
            (0.3, -0.38), (-0.7, -0.38)]))]),
    form("crate", &[
        (Second, Rect(-0.88, -0.88, 0.88, 0.88)), (Main, Rect(-0.66, -0.66, 0.66, 0.66)), (Second, Line(-0.7, -0.7, 0.7, 0.7, 0.24)),
        (Second, Line(-0.7, 0.7, 0.7, -0.7, 0.24))]),
    form("spanner", &[
        (Main, Line(-0.5, 0.5, 0.4, -0.4, 0.32)), (Main, Disc(0.52, -0.52, 0.46)), (Hole, Polygon(&[(0.4, -0.62), (1.0, -1.2),
            (1.2, -1.0), (0.62, -0.4)])), (Main, Disc(-0.58, 0.58, 0.38)), (Hole, Disc(-0.58, 0.58, 0.17))]),
    // founder
    form("light bulb", &[
        (Main, Disc(0.0, -0.32, 0.65)), (Main, Rect(-0.32, 0.1, 0.32, 0.48)), (Second, Rect(-0.32, 0.48, 0.32, 0.95))]),
    form("rocket", &[
        (Second, Polygon(&[(-0.25, 0.05), (-0.82, 0.75), (-0.25, 0.6)])), (Second, Polygon(&[(0.25, 0.05), (0.82, 0.75), (0.25, 0.6)])),
        (Main, Ellipse(0.0, -0.15, 0.38, 0.83)), (Second, Disc(0.0, -0.3, 0.18)), (Second, Polygon(&[(-0.2, 0.64), (0.2, 0.64), (0.0, 0.98)]))]),
    form("gear", &[
        (Main, Disc(0.0, 0.0, 0.68)), (Main, Rect(-0.18, -0.96, 0.18, 0.96)), (Main, Rect(-0.96, -0.18, 0.96, 0.18)),
        (Main, Polygon(&[(-0.8, -0.55), (-0.55, -0.8), (0.8, 0.55), (0.55, 0.8)])),
        (Main, Polygon(&[(0.8, -0.55), (0.55, -0.8), (-0.8, 0.55), (-0.55, 0.8)])), (Hole, Disc(0.0, 0.0, 0.34))]),
    form("sprout", &[
        (Main, Rect(-0.1, -0.35, 0.1, 0.5)), (Main, Polygon(&[(0.0, 0.0), (-0.35, -0.02), (-0.75, -0.3), (-0.95, -0.9), (-0.4, -0.75), (-0.05, -0.4)])),
        (Main, Polygon(&[(0.0, 0.0), (0.35, -0.02), (0.75, -0.3), (0.95, -0.9), (0.4, -0.75), (0.05, -0.4)])),
        (Second, Polygon(&[(-0.6, 0.38), (0.6, 0.38), (0.42, 0.95), (-0.42, 0.95)]))]),
    // neutral
    form("tree", &[
        (Second, Rect(-0.16, 0.6, 0.16, 0.97)), (Main, Polygon(&[(0.0, -0.97), (0.52, -0.3), (-0.52, -0.3)])),
        (Main, Polygon(&[(0.0, -0.6), (0.72, 0.2), (-0.72, 0.2)])), (Main, Polygon(&[(0.0, -0.1), (0.92, 0.68), (-0.92, 0.68)]))]),
    form("cloud", &[
        (Main, Disc(-0.55, 0.15, 0.42)), (Main, Disc(-0.05, -0.18, 0.5)), (Main, Disc(0.52, 0.12, 0.45)), (Main, Rect(-0.55, 0.1, 0.52, 0.57))]),
    form("house", &[
        (Main, Rect(-0.72, -0.05, 0.72, 0.92)), (Second, Polygon(&[(-0.98, 0.0), (0.0, -0.92), (0.98, 0.0)])), (Second, Rect(-0.2, 0.36, 0.2, 0.92))]),
    form("car", &[
        (Main, Rect(-1.0, 0.0, 1.0, 0.5)), (Main, Polygon(&[(-0.7, 0.02), (-0.42, -0.55), (0.38, -0.55), (0.72, 0.02)])),
        (Second, Polygon(&[(-0.42, -0.02), (-0.28, -0.36), (0.28, -0.36), (0.45, -0.02)])),
        (Second, Disc(-0.5, 0.52, 0.27)), (Second, Disc(0.5, 0.52, 0.27))]),
    form("fish", &[
        (Main, Ellipse(-0.22, 0.0, 0.76, 0.5)), (Main, Polygon(&[(0.3, 0.0), (0.98, -0.55), (0.98, 0.55)])), (Second, Disc(-0.55, -0.1, 0.15))]),
    form("moon", &[
        (Main, Disc(-0.05, 0.0, 0.92)), (Hole, Disc(0.42, -0.12, 0.76))]),
    form("mountain", &[
        (Main, Polygon(&[(-1.0, 0.8), (-0.3, -0.8), (0.2, 0.1), (0.5, -0.3), (1.0, 0.8)])),
        (Second, Polygon(&[(-0.3, -0.8), (-0.02, -0.3), (-0.25, -0.12), (-0.52, -0.3)]))]),
    form("umbrella", &[
        (Main, Rect(-0.09, 0.0, 0.09, 0.9)), (Main, Rect(-0.42, 0.74, 0.09, 0.92)), (Main, Dome(0.0, 0.08, 0.97)),
        (Second, Polygon(&[(0.0, -0.9), (0.34, 0.08), (-0.34, 0.08)]))]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_fills_a_good_part_of_its_square_and_stays_inside() {
        for form in &CATALOGUE {
            let mut filled = 0;
            for i in 0..60 {
                for j in 0..60 {
                    let at = |k: i32| (k as f32 + 0.5) / 20.0 - 1.5;
                    if form.ink(at(i), at(j)).is_some() {
                        filled += 1;
                        let radius = at(i).abs().max(at(j).abs());
                        assert!(radius <= EXTENT, "{} reaches {radius}", form.name);
                    }
                }
            }
            let share = filled as f32 / 1600.0;
            assert!(share > 0.17, "{} fills {share}", form.name);
        }
    }

    #[test]
    fn forms_are_numbered_by_relation_and_the_neutral_ones_show_none() {
        assert_eq!(CATALOGUE[relation_form(5, 0)].name, "heart");
        assert_eq!(cue_of(relation_form(5, 3)), Some(5));
        assert_eq!(CATALOGUE[neutral_form(0)].name, "tree");
        assert_eq!(cue_of(neutral_form(0)), None);
        assert_eq!(cue_of(FORMS - 1), None);
    }
}

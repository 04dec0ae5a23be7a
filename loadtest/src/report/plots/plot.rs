//! Plots as SVG: lines, dots and vertical marks in a frame with round numbers. Colours are in `plot.css`.

use std::fmt::Write;

use crate::format::escaped;

use super::axis::{Axis, FittedAxis};

/// The colours that `plot.css` has, `s0` to `s5`.
const COLOURS: usize = 6;

#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    /// Vertical lines with a label each, by rising `x`.
    pub(crate) marks: Vec<(f64, String)>,
    pub(crate) size: Size,
    /// With a legend of the series that have a name, and labels at the marks. Others beside it may say the same.
    pub(crate) is_labelled: bool,
}

/// Width and height of what is inside the frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) f64, pub(crate) f64);

impl Size {
    pub(crate) const SMALL: Self = Self(280.0, 110.0);
    pub(crate) const MEDIUM: Self = Self(460.0, 160.0);
    pub(crate) const WIDE: Self = Self(980.0, 260.0);
    pub(crate) const LARGE: Self = Self(780.0, 400.0);
}

#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// See [`class`].
    pub(crate) colour: usize,
    /// By rising `x`. A `y` that is not a number interrupts the line.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) dots: Vec<Dot>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, colour: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), colour, points, dots: Vec::new() }
    }

    fn class(&self) -> String {
        class(self.colour)
    }
}

/// The classes of `plot.css` for the series of this number. After all colours they come again, dashed.
pub(crate) fn class(number: usize) -> String {
    let dash = if number / COLOURS % 2 == 1 { " dashed" } else { "" };
    format!("s{}{dash}", number % COLOURS)
}

/// A point that is to be seen.
#[derive(Debug, Clone)]
pub(crate) struct Dot {
    pub(crate) at: (f64, f64),
    pub(crate) is_hollow: bool,
    /// With a ring around it, and this beside it.
    pub(crate) label: Option<String>,
}

/// How wide a letter is, nearly.
const LETTER: f64 = 5.8;
const LINE_HEIGHT: f64 = 16.0;
const MARK_HEIGHT: f64 = 12.0;
/// Labels of marks that are close to each other are in several rows.
const MARK_ROWS: usize = 2;
const MARK_DISTANCE: f64 = 4.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;

impl Plot {
    /// A picture of its own size; none if there is nothing to see.
    pub(crate) fn svg(&self) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points).copied();
        if !points().any(|(x, y)| self.x.can_show(x) && self.y.can_show(y)) {
            return None;
        }
        let legend = self.legend();
        let mark_rows = if self.is_labelled { self.marks.len().min(MARK_ROWS) } else { 0 };
        let top = LINE_HEIGHT * (1.8 + legend.rows) + MARK_HEIGHT * mark_rows as f64;
        let bottom = if self.x.label.is_empty() { 22.0 } else { 40.0 };
        let frame = Frame {
            x: self.x.fitted(points().map(|(x, _)| x), self.size.0 / 90.0),
            y: self.y.fitted(points().map(|(_, y)| y), self.size.1 / 35.0),
            top,
            size: self.size,
            mark_rows,
        };
        let (width, height) = (LEFT + self.size.0 + RIGHT, top + self.size.1 + bottom);
        let mut svg =
            format!("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {width} {height}\">");
        let _ = write!(svg, "<text class=\"title\" x=\"4\" y=\"13\">{}</text>{}", escaped(&self.title), legend.svg);
        svg += &frame.grid(self);
        svg += &frame.marks(&self.marks);
        for series in &self.series {
            svg += &frame.line(self, series);
        }
        for (index, series) in self.series.iter().enumerate() {
            svg += &frame.dots(series, index);
        }
        svg += "</svg>\n";
        Some(svg)
    }

    /// Under the title, in as many rows as it needs.
    fn legend(&self) -> Legend {
        let mut legend = Legend { svg: String::new(), rows: 0.0 };
        let (mut x, mut y) = (LEFT, 13.0 + LINE_HEIGHT);
        for series in self.series.iter().filter(|series| self.is_labelled && !series.name.is_empty()) {
            let width = 30.0 + LETTER * series.name.chars().count() as f64;
            if x > LEFT && x + width > LEFT + self.size.0 + RIGHT {
                (x, y) = (LEFT, y + LINE_HEIGHT);
            }
            let (class, name) = (series.class(), escaped(&series.name));
            let _ = write!(legend.svg, "<path class=\"line {class}\" d=\"M{x:.0},{:.0}h14\"/>", y - 4.0);
            let _ = write!(legend.svg, "<text x=\"{:.0}\" y=\"{y:.0}\">{name}</text>", x + 18.0);
            x += width;
            legend.rows = (y - 13.0) / LINE_HEIGHT;
        }
        legend
    }
}

struct Legend {
    svg: String,
    rows: f64,
}

/// Where things are in the picture.
struct Frame {
    x: FittedAxis,
    y: FittedAxis,
    top: f64,
    size: Size,
    mark_rows: usize,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.size.0 * self.x.place(value)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + self.size.1 * (1.0 - self.y.place(value))
    }

    fn right(&self) -> f64 {
        LEFT + self.size.0
    }

    fn bottom(&self) -> f64 {
        self.top + self.size.1
    }

    fn grid(&self, plot: &Plot) -> String {
        let (right, bottom) = (self.right(), self.bottom());
        let mut svg = String::new();
        for tick in &self.y.ticks {
            let (y, text) = (self.y(*tick), self.y.text(*tick));
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT},{y:.1}H{right}\"/>");
            let _ = write!(svg, "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{text}</text>", LEFT - 6.0, y + 4.0);
        }
        for tick in &self.x.ticks {
            let (x, text) = (self.x(*tick), self.x.text(*tick));
            let _ = write!(svg, "<path class=\"axis\" d=\"M{x:.1},{bottom}v4\"/>");
            let _ = write!(svg, "<text class=\"x\" x=\"{x:.1}\" y=\"{}\">{text}</text>", bottom + LINE_HEIGHT);
        }
        let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT},{bottom}H{right}\"/>");
        let (label, middle) = (plot.x.label, LEFT + self.size.0 / 2.0);
        let _ = write!(svg, "<text class=\"x\" x=\"{middle}\" y=\"{}\">{label}</text>", bottom + 2.2 * LINE_HEIGHT);
        svg
    }

    /// Labels for which no row has room, and lines that would make a surface, are left out.
    fn marks(&self, marks: &[(f64, String)]) -> String {
        let (mut lines, mut labels) = (String::new(), String::new());
        let (mut free_from, mut last) = ([0.0; MARK_ROWS], 0.0);
        for (at, label) in marks {
            let x = self.x(*at);
            if x < last + MARK_DISTANCE {
                continue;
            }
            last = x;
            let width = LETTER * label.chars().count() as f64;
            let start = x.min(self.right() + RIGHT - width).max(0.0);
            let row = free_from[..self.mark_rows].iter().position(|free| start >= *free);
            let (label, bottom) = (escaped(label), self.bottom());
            let top = self.top - MARK_HEIGHT * row.unwrap_or(0) as f64 - 2.0;
            let _ = write!(lines, "<path class=\"mark\" d=\"M{x:.1},{top}V{bottom}\"><title>{label}</title></path>");
            if let Some(row) = row {
                let _ = write!(labels, "<text class=\"mark\" x=\"{start:.1}\" y=\"{}\">{label}</text>", top - 2.0);
                free_from[row] = start + width + LETTER;
            }
        }
        // No line through a label.
        lines + &labels
    }

    fn line(&self, plot: &Plot, series: &Series) -> String {
        let placed =
            series.points.iter().map(|&(x, y)| (self.x(x), if plot.y.can_show(y) { self.y(y) } else { f64::NAN }));
        let placed: Vec<(f64, f64)> = placed.collect();
        let column = self.size.0 * plot.series.len() as f64 / MAX_COLUMNS;
        let mut path = String::new();
        for piece in placed.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|piece| !piece.is_empty()) {
            path += "M";
            for (x, y) in thinned(piece, column) {
                let _ = write!(path, "{x:.1},{y:.1} ");
            }
            // So that a single point is a dot.
            path += "h0";
        }
        format!("<path class=\"line {}\" d=\"{path}\"><title>{}</title></path>", series.class(), escaped(&series.name))
    }

    /// Labels are over rising lines, those of every second series under them: so those of similar runs do not meet.
    fn dots(&self, series: &Series, index: usize) -> String {
        let mut svg = String::new();
        for dot in &series.dots {
            let (x, y) = (self.x(dot.at.0), self.y(dot.at.1));
            if !x.is_finite() || !y.is_finite() {
                continue;
            }
            let (class, fill) = (series.class(), if dot.is_hollow { "hollow" } else { "full" });
            let _ = write!(svg, "<circle class=\"{class} {fill}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
            if let Some(label) = &dot.label {
                let _ = write!(svg, "<circle class=\"{class} ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\"/>");
                let has_room = x + 8.0 + LETTER * label.chars().count() as f64 <= self.right();
                let is_below = index % 2 == 1 && has_room;
                let (class, x, y) = if is_below { ("after", x + 8.0, y + 20.0) } else { ("before", x - 8.0, y - 10.0) };
                let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(label));
            }
        }
        svg
    }
}

/// Over all series of a plot: more are not to be seen, and would make files large.
const MAX_COLUMNS: f64 = 1_000.0;

/// The lowest and the highest point of each column, so that peaks stay.
fn thinned(points: &[(f64, f64)], column: f64) -> Vec<(f64, f64)> {
    let mut thinned = Vec::new();
    for points in points.chunk_by(|one, next| (one.0 / column).floor() == (next.0 / column).floor()) {
        let of_height = |&one: &usize, other: &usize| points[one].1.total_cmp(&points[*other].1);
        let lowest = (0..points.len()).min_by(of_height).unwrap_or(0);
        let highest = (0..points.len()).max_by(of_height).unwrap_or(0);
        thinned.push(points[lowest.min(highest)]);
        if lowest != highest {
            thinned.push(points[lowest.max(highest)]);
        }
    }
    thinned
}

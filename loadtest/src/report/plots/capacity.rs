//! Capacity curves: how late the main operation is at which load.

use crate::format;
use crate::report::tables;
use crate::results::{Results, main_operation};

use super::axis::{Axis, Scale, Unit};
use super::plot::{Dot, Plot, Series, Size};

/// Of each run with several steps a line.
pub(crate) fn curve(runs: &[(String, Results)]) -> String {
    let style = concat!("<style>", include_str!("plot.css"), "svg { background: #fff; }</style>");
    let svg = plot(runs.iter().map(|(_, results)| results)).svg().unwrap_or_else(|| NOTHING.into());
    svg.replacen('>', &format!(">{style}"), 1)
}

const NOTHING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 400 40\">\
    <text x=\"10\" y=\"24\">No run has steps.</text></svg>\n";

/// A step that got through less of what was offered is drawn hollow.
const REACHED: f64 = 0.95;

pub(crate) fn plot<'a>(runs: impl Iterator<Item = &'a Results>) -> Plot {
    let series: Vec<Series> = runs.enumerate().map(|(index, results)| series(results, index)).collect();
    Plot {
        title: "p99 latency by load (hollow: the nodes fell behind the load)".into(),
        x: offered(&series),
        y: Axis::new(Unit::Micros, Scale::Log),
        series,
        marks: Vec::new(),
        size: Size::LARGE,
        is_labelled: true,
    }
}

/// From 0 on, unless the loads are so different that the smaller ones would not be seen.
fn offered(series: &[Series]) -> Axis {
    let offered = || series.iter().flat_map(|series| &series.points).map(|(offered, _)| *offered);
    let (least, most) = (offered().fold(f64::INFINITY, f64::min), offered().fold(0.0, f64::max));
    let is_wide = least > 0.0 && most > 10.0 * least;
    let (scale, range) =
        if is_wide { (Scale::Log, (least / 1.2, most * 1.2)) } else { (Scale::Linear, (0.0, most * 1.05)) };
    Axis { label: "offered: publishes and calls", unit: Unit::PerSecond, scale, range: Some(range) }
}

fn series(results: &Results, colour: usize) -> Series {
    let dots = results.steps.iter().enumerate().filter_map(|(index, step)| {
        let p99 = tables::main_latency(&results.operations, step)?.p99.max(1) as f64;
        let is_knee = results.knee == Some(index);
        Some(Dot {
            at: (step.offered, p99),
            is_hollow: step.achieved < REACHED * step.offered,
            label: is_knee.then(|| "knee".to_owned()),
        })
    });
    let mut dots: Vec<Dot> = dots.collect();
    dots.sort_by(|one, other| one.at.0.total_cmp(&other.at.0));
    Series { dots: dots.clone(), ..Series::new(name(results), colour, dots.iter().map(|dot| dot.at).collect()) }
}

/// With the knee's figures: at the knee itself, those of several runs would lie over one another.
fn name(results: &Results) -> String {
    let operation = main_operation(&results.operations).map_or("", |operation| operation.name());
    let knee = results.knee.and_then(|index| results.steps.get(index)).and_then(|step| {
        let p99 = tables::main_latency(&results.operations, step)?.p99 as f64;
        let deliveries = match step.deliveries {
            0.0 => String::new(),
            rate => format!(" ({} deliveries)", format::per_second(rate)),
        };
        Some(format!(", knee at {}{deliveries}, {}", format::per_second(step.offered), format::time(p99)))
    });
    format!("{}: {operation}{}", results.scenario.name, knee.unwrap_or_default())
}

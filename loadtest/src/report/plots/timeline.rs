//! The time that plots show: the whole run, or what is measured.

use crate::format;
use crate::results::{Operation, Results};

use super::axis::{Axis, Scale, Unit};
use super::plot::{Plot, Series, Size};

#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    from: f64,
    until: f64,
    marks: Vec<(f64, String)>,
}

impl Timeline {
    /// The ramp, too.
    pub(crate) fn whole(results: &Results) -> Self {
        let from = results.intervals.first().map_or(0.0, |first| first.at - results.interval);
        let until = results.intervals.last().map_or(0.0, |last| last.at);
        Self::new(results, from.min(0.0), until.max(results.seconds))
    }

    pub(crate) fn measured(results: &Results) -> Self {
        Self::new(results, 0.0, Self::whole(results).until)
    }

    /// As long as something was done. Most is connected and joined in the ramp, and nothing afterwards.
    pub(crate) fn of(operation: Operation, results: &Results) -> Self {
        let mut times = results.intervals.iter().filter(|interval| interval.operations.contains_key(&operation));
        let first = times.next().map_or(0.0, |first| first.at);
        let last = times.next_back().map_or(first, |last| last.at);
        Self::new(results, first - results.interval, last)
    }

    fn new(results: &Results, from: f64, until: f64) -> Self {
        let mut marks: Vec<(f64, String)> = results.marks.iter().map(|mark| (mark.at, mark.what.clone())).collect();
        if from < 0.0 {
            marks.push((0.0, "ramp ends".into()));
        }
        let changes = results.steps.iter().skip(1);
        marks.extend(changes.map(|step| (step.from, format!("load ×{}", format::plain(step.load)))));
        marks.retain(|(at, _)| (from..=until).contains(at));
        marks.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self { from, until, marks }
    }

    /// What is before or after is left out.
    pub(crate) fn plot(&self, title: impl Into<String>, y: Axis, mut series: Vec<Series>) -> Plot {
        for series in &mut series {
            series.points.retain(|(at, _)| self.from < *at && *at <= self.until);
        }
        let x = Axis { range: Some((self.from, self.until)), ..Axis::new(Unit::Seconds, Scale::Linear) };
        Plot { title: title.into(), x, y, series, marks: self.marks.clone(), size: Size::MEDIUM, is_labelled: true }
    }
}

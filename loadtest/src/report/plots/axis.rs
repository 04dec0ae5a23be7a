//! Axes: which range they show, and round numbers on them.

use crate::format;

/// What an axis' numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A latency, in microseconds.
    Micros,
    /// When it was: seconds from the start of what is measured.
    Seconds,
    Count,
    PerSecond,
    Bytes,
    /// Of 100.
    Percent,
    /// A percentile, by the number of its nines: 2 is 99 %.
    Nines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// Beside the axis; the ticks' units often say enough.
    pub(crate) label: &'static str,
    pub(crate) unit: Unit,
    pub(crate) scale: Scale,
    /// What is shown; otherwise what the values need, and 0 if linear.
    pub(crate) range: Option<(f64, f64)>,
}

impl Axis {
    pub(crate) fn new(unit: Unit, scale: Scale) -> Self {
        Self { label: "", unit, scale, range: None }
    }

    /// Whether `value` has a place on it. Nothing can be shown of 0 on a logarithmic scale.
    pub(crate) fn can_show(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// With about `ticks` ticks. All `values` are between its ends, unless the range is given.
    pub(crate) fn fitted(&self, values: impl Iterator<Item = f64>, ticks: f64) -> FittedAxis {
        let shown = values.filter(|value| self.can_show(*value));
        let (least, most) =
            shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if least <= most { (least, most) } else { (1.0, 1.0) };
        let (low, high) = self.range.unwrap_or(if self.scale == Scale::Log {
            (least, most)
        } else {
            (least.min(0.0), most.max(0.0))
        });
        let mut all = match (self.unit, self.scale) {
            (Unit::Nines, _) => [MEDIAN].into_iter().chain((1..=9).map(f64::from)).collect(),
            (_, Scale::Log) => log_ticks(low, high),
            (unit, Scale::Linear) => linear_ticks(low, high, unit, ticks),
        };
        let (low, high) = match (self.range, all.as_slice()) {
            (None, [first, .., last]) => (*first, *last),
            _ => (low, if high > low { high } else { low + 1.0 }),
        };
        if self.scale == Scale::Log && all.len() as f64 > ticks + 1.0 {
            all.retain(|tick| tick.log10().fract().abs() < 1e-9);
        }
        all.retain(|tick| (low..=high).contains(tick));
        FittedAxis { scale: self.scale, unit: self.unit, low, high, ticks: all }
    }
}

/// The median as [`Unit::Nines`].
pub(crate) const MEDIAN: f64 = std::f64::consts::LOG10_2;

/// An axis that knows what it shows.
#[derive(Debug)]
pub(crate) struct FittedAxis {
    scale: Scale,
    unit: Unit,
    low: f64,
    high: f64,
    pub(crate) ticks: Vec<f64>,
}

impl FittedAxis {
    /// From 0, at the axis' begin, to 1.
    pub(crate) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        }
    }

    pub(crate) fn text(&self, tick: f64) -> String {
        match self.unit {
            Unit::Micros if tick >= 1e6 => format!("{} s", format::plain(tick / 1e6)),
            Unit::Micros if tick >= 1e3 => format!("{} ms", format::plain(tick / 1e3)),
            Unit::Micros => format!("{} µs", format::plain(tick)),
            Unit::Seconds => format::elapsed(tick),
            Unit::Count => format::short(tick),
            Unit::PerSecond => format!("{}/s", format::short(tick)),
            Unit::Bytes => {
                let (size, unit) = format::byte_unit(tick);
                format!("{} {unit}", format::plain(tick / size))
            }
            Unit::Percent => format!("{} %", format::plain(tick)),
            Unit::Nines => format!("{} %", format::plain(100.0 - 10_f64.powf(2.0 - tick))),
        }
    }
}

/// From at or under `low` to at or over `high`, at least two.
fn linear_ticks(low: f64, high: f64, unit: Unit, ticks: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { 1.0 };
    let step = match unit {
        Unit::Seconds => time_step(span / ticks),
        Unit::Bytes => (span / ticks).log2().ceil().exp2(),
        Unit::Count => round_step(span / ticks).max(1.0),
        Unit::Micros | Unit::PerSecond | Unit::Percent | Unit::Nines => round_step(span / ticks),
    };
    let first = (low / step).floor() as i64;
    let last = ((high / step).ceil() as i64).max(first + 1);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten: the smallest that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|round| *round >= step).unwrap_or(10.0 * power)
}

/// Steps of clocks.
fn time_step(step: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0];
    steps.into_iter().find(|round| *round >= step).unwrap_or(86_400.0 * round_step(step / 86_400.0))
}

/// From at or under `low` to at or over `high`, at least two: 1, 2, 5, 10, 20 …
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32 + 1;
    let all: Vec<f64> = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
    // A power of ten as computed may be off by an ulp.
    let first = all.iter().rposition(|tick| *tick <= low * (1.0 + 1e-9)).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
    all[first..=last.max(first + 1)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(unit: Unit, scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis::new(unit, scale).fitted(values.iter().copied(), 4.0);
        for value in values {
            assert!((0.0..=1.0).contains(&axis.place(*value)), "{value} is within {axis:?}");
        }
        axis.ticks.iter().map(|tick| axis.text(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_all_values() {
        assert_eq!(texts(Unit::PerSecond, Scale::Linear, &[3.0, 17_000.0]), ["0/s", "5k/s", "10k/s", "15k/s", "20k/s"]);
        assert_eq!(texts(Unit::Bytes, Scale::Linear, &[130e6]), ["0 B", "32 MiB", "64 MiB", "96 MiB", "128 MiB"]);
        assert_eq!(texts(Unit::Seconds, Scale::Linear, &[100.0]), ["0s", "30s", "1m", "1m 30s", "2m"]);
        assert_eq!(texts(Unit::Micros, Scale::Log, &[850.0, 7_000.0]), ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms"]);
        assert_eq!(texts(Unit::Micros, Scale::Log, &[40.0, 2e6]), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(texts(Unit::Count, Scale::Linear, &[1.0]), ["0", "1"]);
    }

    #[test]
    fn an_axis_of_one_value_or_none_has_a_length() {
        for scale in [Scale::Linear, Scale::Log] {
            assert!(texts(Unit::Micros, scale, &[1000.0]).len() >= 2);
            assert!(texts(Unit::Micros, scale, &[]).len() >= 2);
            let of_nothing = Axis::new(Unit::Count, scale).fitted([0.0, f64::NAN].into_iter(), 4.0);
            let without_range = Axis { range: Some((1.0, 1.0)), ..Axis::new(Unit::Count, scale) };
            assert!(of_nothing.place(1.0).is_finite());
            assert!(without_range.fitted([].into_iter(), 4.0).place(1.0).is_finite());
        }
    }
}

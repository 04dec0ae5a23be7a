//! Latencies by percentile, from the whole histograms.

use crate::results::{Latency, Results};

use super::axis::{Axis, MEDIAN, Scale, Unit};
use super::plot::{Plot, Series, Size};

/// One line for each operation, from the median to the slowest.
pub(crate) fn plot(results: &Results) -> Plot {
    let operations = results.operations.iter().enumerate();
    let series = operations.map(|(index, (operation, latency))| Series::new(operation.name(), index, curve(latency)));
    let series: Vec<Series> = series.collect();
    let most = series.iter().flat_map(|series| &series.points).fold(MEDIAN, |most, (nines, _)| most.max(*nines));
    Plot {
        title: "latency by percentile".into(),
        x: Axis { range: Some((MEDIAN, most)), ..Axis::new(Unit::Nines, Scale::Linear) },
        y: Axis::new(Unit::Micros, Scale::Log),
        series,
        marks: Vec::new(),
        size: Size::WIDE,
        is_labelled: true,
    }
}

/// Nines and microseconds. Nothing if the histogram is empty or can't be read.
fn curve(latency: &Latency) -> Vec<(f64, f64)> {
    let Some(histogram) = latency.decoded().filter(|histogram| !histogram.is_empty()) else {
        return Vec::new();
    };
    // The slowest of 1,000 is the percentile 99.9; what is beyond it was not seen.
    let most = (histogram.len() as f64).log10().max(MEDIAN);
    let nines = (0..).map(|step| MEDIAN + f64::from(step) * 0.05).take_while(|nines| *nines < most).chain([most]);
    nines.map(|nines| (nines, histogram.value_at_quantile(1.0 - 10_f64.powf(-nines)).max(1) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_curve_goes_through_the_percentiles_of_its_histogram() {
        let points = curve(&Latency::of(&sample::histogram_to(10_000)));
        let (first, last) = (points[0], points[points.len() - 1]);
        assert_near(first, (MEDIAN, 5_000.0));
        assert_near(last, (4.0, 10_000.0));
        for (nines, micros) in points {
            assert_near((nines, micros), (nines, 10_000.0 * (1.0 - 10_f64.powf(-nines))));
        }
    }

    #[test]
    fn what_is_no_histogram_is_no_curve() {
        let latency = Latency::of(&sample::histogram_to(10));
        for histogram in ["", "?", "AAAA"] {
            assert_eq!(curve(&Latency { histogram: histogram.into(), ..latency.clone() }), []);
        }
        assert_eq!(curve(&Latency::of(&sample::histogram_to(0))), []);
    }

    /// As precise as the histogram.
    fn assert_near(point: (f64, f64), expected: (f64, f64)) {
        assert!((point.0 - expected.0).abs() < 1e-9, "{point:?} is not {expected:?}");
        assert!((point.1 / expected.1 - 1.0).abs() < 2e-3, "{point:?} is not {expected:?}");
    }
}

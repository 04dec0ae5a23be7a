//! Plots as SVG.
//!
//! `plot` and `axis` draw; `timeline` is the time axis that plots share. The others choose what is drawn: `over_time` what the
//! generator measured, `nodes` their metrics, `percentiles` the latencies, `capacity` the curve over the load.
//! Imports `results`, `format` and, for the figures that tables show, too, `report::tables`.

mod axis;
mod capacity;
mod nodes;
mod over_time;
mod percentiles;
mod plot;
mod timeline;

pub(crate) use capacity::{curve, plot as capacity};
pub(crate) use nodes::{label, plots as of_nodes, unchanged};
pub(crate) use over_time::plots as over_time;
pub(crate) use percentiles::plot as percentiles;
pub(crate) use plot::{Plot, Size, class};

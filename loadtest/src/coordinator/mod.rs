//! A run from begin to end, in the process that the user started.
//!
//! `lifecycle` starts the generator processes (`workers`), tells them when, and waits for what `wake`s it: their reports,
//! nodes' metrics (`scrape`), signals. Reports go to the `timeline` and the screen (`progress`); at the end `outcome` puts
//! everything together as results. `knee` decides when steps stop.
//! Imports `generator` for what is sent to its processes, `results`, `scenario`, `clock` and `format`; never `report`.

mod knee;
mod lifecycle;
mod outcome;
mod progress;
mod scrape;
mod timeline;
mod wake;
mod workers;

pub(crate) use lifecycle::{Plan, run};
pub(crate) use outcome::{Said, results};
pub(crate) use workers::WORKER;

//! Results as people look at them: a summary, a page, a comparison, a picture of capacities.
//!
//! `summary` and `compare` are for terminals, `html` is a page, `plots` are its pictures. `tables`, `verdict` and `keys` are
//! what several of them show. All are pure functions from results to text.
//! Imports `results`, `scenario` and `format`, nothing that runs.

mod compare;
mod html;
mod keys;
mod plots;
#[cfg(test)]
mod sample;
mod summary;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use compare::compare;
pub(crate) use html::html;
pub(crate) use plots::curve;
pub(crate) use summary::summary;

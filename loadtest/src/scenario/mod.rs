//! Which load a run makes: rates, rooms, calls, for how long.
//!
//! `keys` are the values, `source` is where they come from: flag, then file or built-in scenario, then default. All keys are
//! explained in `loadtest/scenarios/defaults.toml`, from which the flags of `run` are made, too.
//! Imports nothing of the crate. Only `source` reads a file.

mod keys;
mod source;

pub(crate) use keys::{Cancel, Publish, Scenario};
pub(crate) use source::{BUILTIN, DEFAULTS, Key, MIN_PAYLOAD, keys, text};

//! The JSON Schema of the configuration, and the options that follow from it.

use std::sync::LazyLock;

use clap::{Arg, ArgAction};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use crate::config::Config;
use crate::config::value::{COLLECTOR_URL_FORMAT, OFF, REDIS_URL_FORMAT};
use crate::otlp::TraceEndpoint;

/// Printed in place of a hidden value.
const HIDDEN: &str = "(hidden)";

/// One option. It is a flag (`--drain-delay`), a variable (`ROOMCAST_DRAIN_DELAY`) and a key of the file (`drain.delay`).
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in the file; a `.` is a table.
    pub(crate) key: String,
    /// In the form that a user would write.
    pub(crate) default: String,
    help: String,
    /// What a value is, in `--help`.
    placeholder: String,
    pub(crate) is_switch: bool,
    /// SIGHUP applies a new value to the running node.
    pub(crate) reloads: bool,
    shown: Shown,
}

/// How much of an option's value may be printed.
#[derive(Debug, Clone, Copy)]
enum Shown {
    All,
    /// Of a URL, only the parts that are certainly not secret, and nothing if it is malformed.
    Url(fn(&str) -> Option<String>),
    Nothing,
}

impl Setting {
    fn new(key: String, schema: &Value) -> Self {
        let text = |name: &str| schema[name].as_str().unwrap_or_default();
        let shown = match text("format") {
            REDIS_URL_FORMAT => Shown::Url(|url| roomcast_redis::check_url(url).ok()),
            COLLECTOR_URL_FORMAT => {
                Shown::Url(|url| TraceEndpoint::parse(url).ok().map(|endpoint| endpoint.to_string()))
            }
            _ if schema["writeOnly"] == true => Shown::Nothing,
            _ => Shown::All,
        };
        let default = match &schema["default"] {
            Value::String(default) => default.clone(),
            default => default.to_string(),
        };
        Self {
            key,
            default,
            help: text("description").to_owned(),
            placeholder: text("title").to_uppercase(),
            is_switch: schema["type"] == "boolean",
            reloads: schema["x-reloads"] == true,
            shown,
        }
    }

    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.long())
    }

    fn long(&self) -> String {
        self.key.replace(['_', '.'], "-")
    }

    pub(crate) fn variable(&self) -> String {
        format!("ROOMCAST_{}", self.key.replace('.', "_").to_uppercase())
    }

    pub(crate) fn arg(&self) -> Arg {
        let reloads = if self.reloads { " [reloads]" } else { "" };
        let arg = Arg::new(&self.key)
            .long(self.long())
            .value_name(&self.placeholder)
            .help(format!("{} [env: {}] [default: {}]{reloads}", self.help, self.variable(), self.default))
            .action(ArgAction::Set);
        if self.is_switch { arg.num_args(0..=1).default_missing_value("true").require_equals(true) } else { arg }
    }

    /// A value of this option, as it may be printed: without secrets.
    pub(crate) fn shown(&self, value: &str) -> String {
        match self.shown {
            _ if value == OFF => value.to_owned(),
            Shown::All => value.to_owned(),
            Shown::Url(shown) => shown(value).unwrap_or_else(|| HIDDEN.to_owned()),
            Shown::Nothing => HIDDEN.to_owned(),
        }
    }
}

/// All options, in the order of [`Config`].
pub(crate) fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let mut settings = Vec::new();
        collect(&schema(), "", &mut settings);
        settings
    });
    &SETTINGS
}

/// Adds the options of a table. Lists are not options: they can only be in the file.
fn collect(table: &Value, prefix: &str, settings: &mut Vec<Setting>) {
    // Unlike the properties, the required keys are in the order of the struct, and each one has a default.
    let keys = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for key in keys {
        let (schema, key) = (&table["properties"][key], format!("{prefix}{key}"));
        match schema["type"].as_str() {
            Some("object") => collect(schema, &format!("{key}."), settings),
            _ => settings.push(Setting::new(key, schema)),
        }
    }
}

/// The JSON Schema of the configuration once all layers are merged, so that no option is missing.
fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let schema = settings.with_transform(RecursiveTransform(join_lines)).into_generator();
    schema.into_root_schema_for::<Config>().to_value()
}

/// Comments in code are broken into lines.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
}

/// The JSON Schema of the file. Every option may be left out, since it has a default.
pub(crate) fn of_file() -> Value {
    let mut schema = schema();
    allow_to_leave_out_options(&mut schema);
    schema["title"] = "Configuration of roomcast".into();
    schema["description"] = "The file that --config names".into();
    schema
}

fn allow_to_leave_out_options(table: &mut Value) {
    if let Some(table) = table.as_object_mut() {
        table.remove("required");
        let properties = table.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flatten().for_each(|(_, schema)| allow_to_leave_out_options(schema));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A default, as the page of limits shows it: 1,000 for 1000, and with units in words.
    fn in_prose(default: &str) -> String {
        let mut prose = String::new();
        for (at, digit) in default.char_indices() {
            let digits = default[at..].chars().take_while(char::is_ascii_digit).count();
            if at > 0 && digits > 0 && digits % 3 == 0 && prose.ends_with(|last: char| last.is_ascii_digit()) {
                prose.push(',');
            }
            prose.push(digit);
        }
        let units = [("KiB", " KiB"), ("MiB", " MiB"), ("/s burst ", " per second, burst "), ("auto", "a quarter")];
        let times = [("15m", "15 min"), ("24h", "24 h"), ("25s", "25 s"), ("10s", "10 s")];
        units.iter().chain(&times).fold(prose, |prose, (unit, words)| prose.replace(unit, words))
    }

    #[test]
    fn the_page_of_limits_has_each_limit_with_its_default() {
        let page = include_str!("../../../../docs/reference/limits.md");
        let is_limit = |key: &str| {
            let name = key.rsplit('.').next().unwrap_or(key);
            key.starts_with("rates.")
                || name.starts_with("max_")
                || name.ends_with("_rate")
                || name.ends_with("_memory")
        };
        for setting in settings().iter().filter(|setting| is_limit(&setting.key)) {
            let name = format!("`{}`", setting.key);
            let row = page.lines().find(|line| line.starts_with('|') && line.contains(&name));
            let row = row.unwrap_or_else(|| panic!("{name} has no row"));
            let default = in_prose(&setting.default);
            assert!(row.contains(&default), "the default of {name} is {default:?}, but the row is {row}");
        }
    }
}

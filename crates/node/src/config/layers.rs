//! Which value is in force: a flag's goes before a variable's, the file's and the default.

use std::env::VarError;
use std::fmt::{self, Display};

use clap::ArgMatches;
use figment::error::{Actual, Kind};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::config::error::{Origin, Place, closest};
use crate::config::file::File;
use crate::config::{Config, ConfigError, Setting, settings};

/// The flag that names the file; not itself a key of the file.
pub(crate) const CONFIG: &str = "config";

/// The variable that names the file.
const CONFIG_VARIABLE: &str = "ROOMCAST_CONFIG";

/// How the variables of all options begin.
const PREFIX: &str = "ROOMCAST_";

/// Names of layers. Those of flags and variables are their own.
const DEFAULTS: &str = "default";
const FILE: &str = "file";

/// All values, with where each of them was set.
pub(crate) struct Layers {
    figment: Figment,
    file: Option<File>,
}

impl Layers {
    /// Reads the variables and the file.
    pub(crate) fn load(arguments: &ArgMatches) -> Result<Self, ConfigError> {
        refuse_unknown_variables()?;
        let path = match arguments.get_one::<String>(CONFIG) {
            Some(path) => Some(path.clone()),
            None => variable(CONFIG_VARIABLE)?,
        };
        let file = path.map(|path| File::read(&path)).transpose()?;
        let mut figment = Figment::new();
        for setting in settings() {
            figment = figment.merge(Layer::of_one(DEFAULTS, setting, &setting.default));
        }
        if let Some(file) = &file {
            figment = figment.merge(Layer { name: FILE.to_owned(), values: file.parse()? });
        }
        for setting in settings() {
            if let Some(value) = variable(&setting.variable())? {
                figment = figment.merge(Layer::of_one(setting.variable(), setting, &value));
            }
            if let Some(value) = arguments.get_one::<String>(&setting.key) {
                figment = figment.merge(Layer::of_one(setting.flag(), setting, value));
            }
        }
        Ok(Self { figment, file })
    }

    /// All values, each one allowed by itself.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        self.figment.extract().map_err(|error| self.refuse(error))
    }

    /// An option's value, for errors about several options together.
    ///
    /// # Panics
    /// If there is no such option.
    pub(crate) fn given(&self, key: &str) -> Given {
        let setting = settings().iter().find(|setting| setting.key == key).expect("the option is in the list");
        Given { setting, value: self.text(key), origin: self.origin(key) }
    }

    /// The error of a value that is not an option of its own, such as one in a list.
    pub(crate) fn wrong(&self, key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        let key = key.into();
        ConfigError::Wrong { place: Place { origin: self.origin(&key), key }, problem: problem.into() }
    }

    fn all(&self) -> impl Iterator<Item = Given> {
        settings().iter().map(|setting| self.given(&setting.key))
    }

    /// As the user wrote it.
    pub(crate) fn text(&self, key: &str) -> String {
        match self.figment.find_value(key).map(|value| serde_json::to_value(value).unwrap_or_default()) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => String::new(),
        }
    }

    fn origin(&self, key: &str) -> Origin {
        match (self.figment.find_metadata(key).map(|metadata| metadata.name.as_ref()), &self.file) {
            (Some(DEFAULTS), _) => Origin::Default,
            // Lists have no metadata, and can only be in the file.
            (Some(FILE) | None, Some(file)) => {
                let keys: Vec<_> = key.split('.').collect();
                Origin::File { path: file.path().to_owned(), line: file.line_of(&keys) }
            }
            (Some(name), _) => Origin::Named(name.to_owned()),
            (None, None) => Origin::Default,
        }
    }

    /// What is wrong, without figment's own text: that may contain a secret.
    fn refuse(&self, error: figment::Error) -> ConfigError {
        let key = error.path.join(".");
        let place = Place { origin: self.origin(&key), key: key.clone() };
        let expected = match error.kind {
            Kind::UnknownField(_, known) => {
                let table = key.rsplit_once('.').map_or(String::new(), |(table, _)| format!("{table}."));
                let siblings = known.iter().map(|name| format!("{table}{name}"));
                let candidates = siblings.chain(settings().iter().map(|setting| setting.key.clone()));
                return ConfigError::UnknownKey { place, suggestion: closest(&key, candidates) };
            }
            Kind::Message(allowed) => {
                return match settings().iter().find(|setting| setting.key == key) {
                    Some(setting) => ConfigError::Value { place, value: setting.shown(&self.text(&key)), allowed },
                    None => ConfigError::Wrong { place, problem: allowed },
                };
            }
            Kind::UnknownVariant(_, known) => {
                return ConfigError::Wrong { place, problem: format!("it must be one of {}", known.join(", ")) };
            }
            Kind::InvalidType(found, expected) => {
                // serde describes a table by the name of its struct.
                let expected = if expected.starts_with("struct ") { "a table".to_owned() } else { expected };
                return ConfigError::Type { place, found: kind_of(&found), expected };
            }
            Kind::MissingField(name) => {
                return ConfigError::Wrong { place, problem: format!("the key {name} is missing") };
            }
            _ => "another value".to_owned(),
        };
        ConfigError::Type { place, found: "something else", expected }
    }
}

/// In the order of `--help`, without secrets.
impl Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all()
            .try_for_each(|given| writeln!(f, "{:<20} = {:<16} ({})", given.setting.key, given.shown(), given.origin))
    }
}

/// In words of TOML.
fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Str(_) | Actual::Char(_) => "text",
        Actual::Seq => "an array",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// An option's value, and where it was set.
pub(crate) struct Given {
    setting: &'static Setting,
    value: String,
    origin: Origin,
}

impl Given {
    pub(crate) fn is_default(&self) -> bool {
        self.origin == Origin::Default
    }

    fn shown(&self) -> String {
        self.setting.shown(&self.value)
    }

    /// The error completes the sentence "cannot use VALUE: ".
    pub(crate) fn refuse(self, allowed: impl Into<String>) -> ConfigError {
        let (value, key) = (self.shown(), self.setting.key.clone());
        ConfigError::Value { place: Place { origin: self.origin, key }, value, allowed: allowed.into() }
    }
}

impl Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.origin == Origin::Default { "the " } else { "" };
        write!(f, "{}, {article}{}", self.shown(), self.origin)
    }
}

/// Values that were set in one place.
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    /// Flags and variables are text: what they mean is up to the option.
    fn of_one(name: impl Into<String>, setting: &Setting, value: &str) -> Self {
        let values = nest(&setting.key, Value::from(value)).into_dict().unwrap_or_default();
        Self { name: name.into(), values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// An environment variable; an empty one counts as not set.
fn variable(name: &str) -> Result<Option<String>, ConfigError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ConfigError::NotUtf8 { name: name.to_owned() }),
    }
}

fn refuse_unknown_variables() -> Result<(), ConfigError> {
    let known: Vec<String> = settings().iter().map(Setting::variable).chain([CONFIG_VARIABLE.to_owned()]).collect();
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !is_of_a_service(name) && !known.contains(name));
    let Some(name) = unknown.min() else { return Ok(()) };
    // What all names have in common would make them similar.
    let without_prefix = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let suggestion = closest(&without_prefix(&name), known.iter().map(|name| without_prefix(name)));
    Err(ConfigError::UnknownVariable { name, suggestion: suggestion.map(|name| format!("{PREFIX}{name}")) })
}

/// Whether Kubernetes sets this variable, to name the address of a Service such as `roomcast` or `roomcast-internal`.
fn is_of_a_service(name: &str) -> bool {
    let is_of_a_port = |(_, rest): (&str, &str)| {
        let (number, protocol) = rest.split_once('_').unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|known| protocol.starts_with(known))
    };
    name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(is_of_a_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_recognized() {
        for name in [
            "ROOMCAST_SERVICE_HOST",
            "ROOMCAST_SERVICE_PORT",
            "ROOMCAST_SERVICE_PORT_HTTP",
            "ROOMCAST_PORT",
            "ROOMCAST_PORT_3000_TCP",
            "ROOMCAST_PORT_3000_TCP_ADDR",
            "ROOMCAST_INTERNAL_PORT_3001_TCP_PROTO",
            "ROOMCAST_TRIAL_REDIS_SERVICE_HOST",
        ] {
            assert!(is_of_a_service(name), "{name}");
        }
        for name in ["ROOMCAST_LISTEN", "ROOMCAST_MAX_CALL", "ROOMCAST_PORT_X_TCP", "ROOMCAST_PORTS"] {
            assert!(!is_of_a_service(name), "{name}");
        }
    }
}

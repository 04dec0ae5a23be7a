//! The configuration file, and on which lines its keys are.

use std::path::{Path, PathBuf};

use figment::value::Dict;
use toml::de::{DeTable, DeValue};

use crate::config::ConfigError;

/// A TOML file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: String,
}

impl File {
    pub(super) fn read(path: &str) -> Result<Self, ConfigError> {
        let path = PathBuf::from(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) => Err(ConfigError::Unreadable { path, error }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parse(&self) -> Result<Dict, ConfigError> {
        toml::from_str(&self.text).map_err(|error| self.not_toml(&error))
    }

    fn not_toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        ConfigError::NotToml {
            path: self.path.clone(),
            line: self.line_at(start),
            column: before[line_start..].chars().count() + 1,
            message: match lacks_quotes(line) {
                true => format!("put text in quotes, as in listen = \"127.0.0.1:3000\" ({})", error.message()),
                false => error.message().to_owned(),
            },
        }
    }

    /// The line of a key, given as the names and indices that lead to it, or else of the last of these that is there.
    pub(super) fn line_of(&self, keys: &[&str]) -> usize {
        let Ok(table) = DeTable::parse(&self.text) else { return 1 };
        let (mut value, mut at) = (&DeValue::Table(table.into_inner()), 0);
        for key in keys {
            let inner = match value {
                DeValue::Table(table) => table.get_key_value(*key).map(|(key, value)| (key.span(), value)),
                DeValue::Array(items) => {
                    key.parse().ok().and_then(|index: usize| items.get(index)).map(|item| (item.span(), item))
                }
                _ => None,
            };
            let Some((span, inner)) = inner else { break };
            (value, at) = (inner.get_ref(), span.start);
        }
        self.line_at(at)
    }

    fn line_at(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }
}

/// Whether a value begins like none that TOML has.
fn lacks_quotes(line: &str) -> bool {
    let Some((_, value)) = line.split_once('=') else { return false };
    let value = value.trim();
    !value.is_empty() && !value.starts_with(['"', '\'', '[', '{', '='])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_on_their_lines() {
        let text = "a = 1\n\n[drain]\ndelay = \"1s\"\n\n[[issuer]]\nname = \"x\"\n[[issuer]]\n\nname = \"y\"\n";
        let file = File { path: PathBuf::new(), text: text.to_owned() };
        for (keys, line) in [
            (&["a"][..], 1),
            (&["drain"], 3),
            (&["drain", "delay"], 4),
            (&["drain", "missing"], 3),
            (&["issuer", "1", "name"], 10),
            (&["missing"], 1),
        ] {
            assert_eq!(file.line_of(keys), line, "{keys:?}");
        }
    }
}

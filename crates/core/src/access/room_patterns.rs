//! A list of patterns of rooms.

use std::fmt;
use std::str::FromStr;

use crate::access::pattern::{Names, Pattern, PatternError, Template};
use crate::id::RoomName;

/// The largest number of patterns in a list. Each check looks at all of them.
const MAX_LISTED_PATTERNS: usize = 100;

/// Patterns of rooms, such as `game:*,chat:**`. A `*` matches one segment, and a `**` at the end
/// matches one or more.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{RoomName, RoomPatterns};
///
/// let games: RoomPatterns = "game:*, lobby".parse()?;
/// assert!(games.match_room(&RoomName::new("game:7")?) && games.match_room(&RoomName::new("lobby")?));
/// assert!(!games.match_room(&RoomName::new("game:7:chat")?));
/// assert!("game-*".parse::<RoomPatterns>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomPatterns(Vec<Pattern>);

impl RoomPatterns {
    /// Returns whether a room matches one of the patterns.
    pub fn match_room(&self, room: &RoomName) -> bool {
        self.0.iter().any(|pattern| pattern.matches(room))
    }

    /// Returns whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for RoomPatterns {
    type Err = PatternError;

    /// Reads patterns that are separated by commas. An empty text has no patterns.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        let parse = |text: &str| {
            let template = Template::parse(Names::Rooms, text)?;
            let error = || PatternError::new(text.to_owned(), "placeholders such as {user} have no value here");
            template.resolve(|_| None).ok_or_else(error)
        };
        let patterns = texts.map(parse).collect::<Result<Vec<_>, _>>()?;
        match patterns.get(MAX_LISTED_PATTERNS) {
            Some(pattern) => Err(PatternError::new(
                pattern.to_string(),
                format!("it is one more than the {MAX_LISTED_PATTERNS} patterns that a list can have"),
            )),
            None => Ok(Self(patterns)),
        }
    }
}

impl fmt::Display for RoomPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator}{pattern}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_is_written_and_bounded() {
        for (text, written) in [("", ""), (" game:* ,, chat:**,", "game:*,chat:**"), ("a", "a")] {
            assert_eq!(text.parse::<RoomPatterns>().unwrap().to_string(), written);
        }
        for (text, expected) in [("game:{user}", "{user}"), ("a,b*", "b*"), ("a:**:b", "last segment")] {
            let error = text.parse::<RoomPatterns>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(vec!["a"; MAX_LISTED_PATTERNS].join(",").parse::<RoomPatterns>().is_ok());
        assert!(vec!["a"; MAX_LISTED_PATTERNS + 1].join(",").parse::<RoomPatterns>().is_err());
    }
}

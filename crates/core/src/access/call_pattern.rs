//! A pattern of methods, which can be more specific than another one.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::access::pattern::{Names, Pattern, PatternError, Template};

/// A pattern of methods, such as `chat.*` or `orders/**`. A `*` matches one segment, and a `**` at
/// the end matches one or more.
///
/// Of two patterns that match the same method, the one that is more specific compares as greater.
/// The first segment in which they differ decides: text is more specific than `*`, and `*` is more
/// specific than `**`.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::CallPattern;
///
/// let [all, chat, send]: [CallPattern; 3] = ["**".parse()?, "chat.*".parse()?, "chat.send".parse()?];
/// assert!(all.matches("chat.send") && chat.matches("chat.send") && send.matches("chat.send"));
/// assert!(all < chat && chat < send);
/// # Ok::<(), roomcast::PatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPattern(Pattern);

impl CallPattern {
    /// Returns whether a method matches. No wildcard matches an empty segment.
    pub fn matches(&self, method: &str) -> bool {
        self.0.matches(method)
    }
}

impl FromStr for CallPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let template = Template::parse(Names::Calls, text)?;
        let error = || PatternError::new(text.to_owned(), "placeholders such as {user} have no value here");
        template.resolve(|_| None).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for CallPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Ord for CallPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        // Of two equally specific patterns, at most one matches a given name. They still need an
        // order, which must agree with equality.
        self.0.specificity().cmp(other.0.specificity()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for CallPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_in_which_patterns_differ_decides() {
        let by_specificity = ["**", "*.b", "a.**", "a.*", "a.b"];
        let patterns = by_specificity.map(|text| text.parse::<CallPattern>().unwrap());
        assert!(patterns.iter().all(|pattern| pattern.matches("a.b")));
        assert!(patterns.is_sorted_by(|less, more| less < more), "{patterns:?}");
        assert!("a.{user}".parse::<CallPattern>().unwrap_err().to_string().contains("{user}"));
    }
}

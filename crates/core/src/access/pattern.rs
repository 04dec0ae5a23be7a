//! Patterns of room and method names, and the templates that they are made of.
//!
//! A pattern is a name whose segments may be wildcards: `*` matches one segment, and `**` at the end
//! matches one or more segments. The segments of a room's name are separated by `:`, and those of a
//! method's name by `.` or `/`. A template is a pattern in which a whole segment may be a
//! placeholder: `{user}`, or `{claim.PATH}` with the dotted path of a claim.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What the names of a pattern are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Names {
    /// Names of rooms, whose segments are separated by `:`.
    Rooms,
    /// Names of methods and notifications, whose segments are separated by `.` or `/`.
    Calls,
}

impl Names {
    fn is_separator(self, char: char) -> bool {
        match self {
            Self::Rooms => char == ':',
            Self::Calls => char == '.' || char == '/',
        }
    }

    fn separators(self) -> &'static str {
        match self {
            Self::Rooms => "`:`",
            Self::Calls => "`.` or `/`",
        }
    }
}

/// The error of reading a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("pattern {pattern:?}: {problem}")]
pub struct PatternError {
    /// The text that is not a pattern.
    pub pattern: String,
    problem: String,
}

impl PatternError {
    /// Creates the error of a pattern.
    pub(crate) fn new(pattern: String, problem: impl Into<String>) -> Self {
        Self { pattern, problem: problem.into() }
    }
}

/// A pattern with placeholders, as it is written in a rule.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Names, Template};
///
/// let template = Template::parse(Names::Rooms, "team:{claim.team}:*")?;
/// let pattern = template.resolve(|placeholder| Some(format!("<{placeholder}>")));
/// assert!(pattern.is_some_and(|pattern| pattern.matches("team:<claim.team>:chat")));
/// # Ok::<(), roomcast::PatternError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    names: Names,
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Segment {
    /// What separates the segment from the one before it.
    after: Option<char>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Text(String),
    /// `{user}` or `{claim.PATH}`, without the braces.
    Placeholder(String),
    /// `*`
    One,
    /// `**`, as the last segment.
    Rest,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Returns [`PatternError`] for an empty pattern or segment, a `*` that is not a whole segment,
    /// a `**` that is not the last segment, an unknown placeholder, or a brace elsewhere.
    pub fn parse(names: Names, text: &str) -> Result<Self, PatternError> {
        let error = |problem: String| PatternError { pattern: text.to_owned(), problem };
        let mut segments = Vec::new();
        for (after, part) in split(names, text, placeholder_len) {
            if matches!(segments.last(), Some(Segment { kind: Kind::Rest, .. })) {
                return Err(error("`**` matches all that follows, so it must be the last segment".to_owned()));
            }
            let kind = Kind::parse(names, part).map_err(error)?;
            segments.push(Segment { after, kind });
        }
        Ok(Self { names, text: text.to_owned(), segments })
    }

    /// Fills in the placeholders. Returns `None` if `value_of` has no value for a placeholder, or a
    /// value that is not exactly one segment.
    pub fn resolve(&self, mut value_of: impl FnMut(&str) -> Option<String>) -> Option<Pattern> {
        let mut segments = Vec::with_capacity(self.segments.len());
        for Segment { after, kind } in &self.segments {
            let kind = match kind {
                Kind::Placeholder(placeholder) => {
                    Kind::Text(value_of(placeholder).filter(|value| is_one_segment(self.names, value))?)
                }
                other => other.clone(),
            };
            segments.push(Segment { after: *after, kind });
        }
        Some(Pattern { names: self.names, segments })
    }

    /// Returns why [`resolve`](Self::resolve) returns `None` for these values.
    pub(crate) fn unresolved(&self, mut value_of: impl FnMut(&str) -> Option<String>) -> Option<PatternError> {
        let problem = |segment: &Segment| match &segment.kind {
            Kind::Placeholder(placeholder) => self.value(placeholder, value_of(placeholder)).err(),
            Kind::Text(_) | Kind::One | Kind::Rest => None,
        };
        self.segments.iter().find_map(problem)
    }

    /// Checks the value of a placeholder.
    fn value(&self, placeholder: &str, value: Option<String>) -> Result<String, PatternError> {
        let error = |problem: String| PatternError { pattern: self.text.clone(), problem };
        match value {
            Some(value) if is_one_segment(self.names, &value) => Ok(value),
            Some(value) => Err(error(format!("the value {value:?} is not one segment"))),
            None => Err(error(format!("there is no value for {{{placeholder}}}"))),
        }
    }

    /// Fills in the placeholders of a template without wildcards, which is then a name.
    pub(crate) fn name(&self, mut value_of: impl FnMut(&str) -> Option<String>) -> Result<String, PatternError> {
        let mut name = String::new();
        for Segment { after, kind } in &self.segments {
            name.extend(after);
            match kind {
                Kind::Text(text) => name += text,
                Kind::Placeholder(placeholder) => name += &self.value(placeholder, value_of(placeholder))?,
                Kind::One | Kind::Rest => return Err(self.is_not_a_name("a name contains no wildcard")),
            }
        }
        Ok(name)
    }

    /// The error of a name that is a template, but not the name of a room.
    pub(crate) fn is_not_a_name(&self, problem: impl fmt::Display) -> PatternError {
        PatternError { pattern: self.text.clone(), problem: problem.to_string() }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Kind {
    fn parse(names: Names, part: &str) -> Result<Self, String> {
        match part {
            "" => Err(format!("a segment is empty; {} separates segments", names.separators())),
            "*" => Ok(Self::One),
            "**" => Ok(Self::Rest),
            _ if part.contains('*') => Err(format!(
                "{part:?} is not a wildcard; `*` stands for one whole segment, and `**` for all segments that follow"
            )),
            _ => match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(placeholder) if is_placeholder(placeholder) => Ok(Self::Placeholder(placeholder.to_owned())),
                _ if part.contains(['{', '}']) => {
                    Err(format!("{part:?} is not a placeholder; a whole segment can be {{user}} or {{claim.PATH}}"))
                }
                _ if part.chars().any(char::is_control) => Err("it contains a control character".to_owned()),
                _ => Ok(Self::Text(part.to_owned())),
            },
        }
    }
}

fn is_placeholder(text: &str) -> bool {
    text == "user" || text.strip_prefix("claim.").is_some_and(|path| path.split('.').all(|key| !key.is_empty()))
}

/// Whether a value stands for exactly one segment.
fn is_one_segment(names: Names, value: &str) -> bool {
    let is_special = |char: char| names.is_separator(char) || char == '*' || char.is_control();
    !value.is_empty() && !value.chars().any(is_special)
}

/// The segments of a name, each with the separator before it. The first `joined` bytes of a segment
/// are not looked at.
fn split(names: Names, name: &str, joined: impl Fn(&str) -> usize) -> impl Iterator<Item = (Option<char>, &str)> {
    let mut rest = Some((None, name));
    std::iter::from_fn(move || {
        let (after, text) = rest?;
        let joined = joined(text);
        let separator = text[joined..].char_indices().find(|(_, char)| names.is_separator(*char));
        let end = separator.map_or(text.len(), |(at, _)| joined + at);
        rest = separator.map(|(_, char)| (Some(char), &text[end + char.len_utf8()..]));
        Some((after, &text[..end]))
    })
}

/// How much of a template's segment belongs to a placeholder: the path of a claim contains `.`.
fn placeholder_len(text: &str) -> usize {
    if text.starts_with('{') { text.find('}').unwrap_or(0) } else { 0 }
}

/// A template whose placeholders have been filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    names: Names,
    segments: Vec<Segment>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Segment { after, kind } in &self.segments {
            if let Some(after) = after {
                write!(f, "{after}")?;
            }
            f.write_str(match kind {
                Kind::Text(text) | Kind::Placeholder(text) => text,
                Kind::One => "*",
                Kind::Rest => "**",
            })?;
        }
        Ok(())
    }
}

impl Pattern {
    /// Returns what the pattern applies to.
    pub fn names(&self) -> Names {
        self.names
    }

    /// Returns how specific each segment is. Of two patterns that match the same name, the one with
    /// the greater first difference is more specific.
    pub(crate) fn specificity(&self) -> impl Iterator<Item = u8> {
        self.segments.iter().map(|segment| match segment.kind {
            Kind::Rest => 0,
            Kind::One => 1,
            Kind::Text(_) | Kind::Placeholder(_) => 2,
        })
    }

    /// Returns whether a name matches. No wildcard matches an empty segment.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = split(self.names, name, |_| 0);
        for segment in &self.segments {
            let Some((after, part)) = parts.next() else { return false };
            if after != segment.after {
                return false;
            }
            match &segment.kind {
                Kind::Text(text) if text == part => {}
                Kind::One if !part.is_empty() => {}
                Kind::Rest => return !part.is_empty() && parts.all(|(_, part)| !part.is_empty()),
                _ => return false,
            }
        }
        parts.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Names::{Calls, Rooms};

    fn pattern(names: Names, text: &str) -> Pattern {
        let template = Template::parse(names, text).expect("a pattern");
        template.resolve(|_| None).expect("it has no placeholders")
    }

    #[test]
    fn wildcards_match_whole_segments() {
        let cases = [
            (Rooms, "lobby", &["lobby"][..], &["lobby:a", "lobb", ""][..]),
            (Rooms, "team:*", &["team:a", "team:a.b"], &["team", "team:", "team:a:b", "teams:a"]),
            (Rooms, "team:*:chat", &["team:a:chat"], &["team:a:b:chat", "team::chat", "team:chat"]),
            (Rooms, "team:**", &["team:a", "team:a:b"], &["team", "team:", "team:a:", "team::b"]),
            (Rooms, "**", &["a", "a:b"], &["", ":", "a:"]),
            (Calls, "chat.*", &["chat.send"], &["chat/send", "chat.a.b", "chat.a/b"]),
            (Calls, "chat/**", &["chat/a", "chat/a.b/c"], &["chat.a", "chat"]),
            (Calls, "a:b.*", &["a:b.c"], &["a.c"]),
        ];
        for (names, text, matching, others) in cases {
            let pattern = pattern(names, text);
            matching.iter().for_each(|name| assert!(pattern.matches(name), "{text} matches {name:?}"));
            others.iter().for_each(|name| assert!(!pattern.matches(name), "{text} does not match {name:?}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        let cases = [
            ("", "a segment is empty"),
            ("a::b", "a segment is empty"),
            ("a:", "a segment is empty"),
            ("team-*", "\"team-*\" is not a wildcard"),
            ("***", "\"***\" is not a wildcard"),
            ("a:**:b", "`**` matches all that follows"),
            ("user-{user}", "\"user-{user}\" is not a placeholder"),
            ("{name}", "\"{name}\" is not a placeholder"),
            ("{claim.}", "\"{claim.}\" is not a placeholder"),
            ("a{b", "\"a{b\" is not a placeholder"),
            ("a\u{7}", "it contains a control character"),
        ];
        for (text, problem) in cases {
            let error = Template::parse(Rooms, text).expect_err(text).to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_value_is_one_segment_or_the_pattern_matches_nothing() {
        let template = Template::parse(Rooms, "user:{user}:*").expect("a template");
        let with = |value: &str| template.resolve(|_| Some(value.to_owned()));
        assert!(with("ann").is_some_and(|pattern| pattern.matches("user:ann:inbox")));
        assert!(with("%2A").is_some_and(|pattern| !pattern.matches("user:ann:inbox")));
        for value in ["", "*", "**", "a:b", "a*", "a\n"] {
            assert_eq!(with(value), None, "{value:?}");
        }
        let calls = Template::parse(Calls, "to/{claim.a.b}.x").expect("a dot of the path separates nothing");
        assert!(
            calls.resolve(|path| (path == "claim.a.b").then(|| "q".to_owned())).is_some_and(|p| p.matches("to/q.x"))
        );
        assert_eq!(calls.resolve(|_| Some("a.b".to_owned())), None);
    }

    proptest::proptest! {
        /// A pattern without wildcards matches its own text and nothing else; a value never widens
        /// it.
        #[test]
        fn a_literal_matches_itself_alone(name in "[a-c:.*{}/]{1,8}", other in "[a-c:.*{}/]{1,8}") {
            if let Ok(template) = Template::parse(Rooms, &name)
                && !name.contains(['*', '{'])
                && let Some(pattern) = template.resolve(|_| None)
            {
                proptest::prop_assert!(pattern.matches(&name));
                proptest::prop_assert_eq!(pattern.matches(&other), name == other);
            }
            let user = Template::parse(Rooms, "u:{user}").expect("a template");
            if let Some(pattern) = user.resolve(|_| Some(name.clone())) {
                proptest::prop_assert_eq!(pattern.matches(&format!("u:{other}")), name == other);
            }
        }
    }
}

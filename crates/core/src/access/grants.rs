//! Rules as they are written in a configuration, and the grants that they give one client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::access::claims::claim_text;
use crate::access::pattern::{Names, Pattern, PatternError, Template};
use crate::id::RoomName;

/// What a rule permits.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Names, Right};
///
/// assert_eq!((Right::Publish.names(), Right::Publish.as_str()), (Names::Rooms, "publish"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Join a room.
    Join,
    /// Publish events to a room.
    Publish,
    /// List the members of a room.
    Members,
    /// Read the events in a room's history. This right has no effect yet.
    History,
    /// Call a method, or send a notification with this name.
    Call,
    /// Attach to the stream of another user's call. This right has no effect yet.
    Attach,
    /// Cancel another user's call. This right has no effect yet.
    Cancel,
}

impl Right {
    const ALL: [Self; 7] =
        [Self::Join, Self::Publish, Self::Members, Self::History, Self::Call, Self::Attach, Self::Cancel];

    /// Returns what the right applies to.
    pub fn names(self) -> Names {
        match self {
            Self::Join | Self::Publish | Self::Members | Self::History => Names::Rooms,
            Self::Call | Self::Attach | Self::Cancel => Names::Calls,
        }
    }

    /// Returns the right as it is written in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish => "publish",
            Self::Members => "members",
            Self::History => "history",
            Self::Call => "call",
            Self::Attach => "attach",
            Self::Cancel => "cancel",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of reading a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A pattern is invalid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The rule has patterns for both rooms and calls, or no patterns.
    #[error("a rule needs either `rooms` or `calls`, with at least one pattern")]
    Names,
    /// The rule grants no right.
    #[error("`do` is empty; name at least one right")]
    NoRight,
    /// The rule grants a right that does not apply to its names.
    #[error("`do`: {right:?} is not a right on {names}", right = right.as_str(), names = names_key(*names))]
    WrongRight {
        /// The right.
        right: Right,
        /// What the rule applies to.
        names: Names,
    },
}

fn names_key(names: Names) -> &'static str {
    match names {
        Names::Rooms => "rooms (join, publish, members, history)",
        Names::Calls => "calls (call, attach, cancel)",
    }
}

/// A rule as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<String>,
    #[serde(rename = "do")]
    rights: Vec<Right>,
}

/// Rights on all rooms, or on all methods, whose names match one of the rule's patterns.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Rule;
///
/// let rule: Rule = serde_json::from_str(r#"{"rooms": ["team:{claim.team}:*"], "do": ["join",
/// "publish"]}"#)?;
/// assert_eq!(rule.to_string(), "rooms team:{claim.team}:*: join, publish");
///
/// let error = serde_json::from_str::<Rule>(r#"{"rooms": ["team-*"], "do":
/// ["join"]}"#).unwrap_err();
/// assert!(error.to_string().contains("\"team-*\" is not a wildcard"), "{error}");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RuleText", into = "RuleText")]
pub struct Rule {
    names: Names,
    templates: Vec<Template>,
    rights: Vec<Right>,
}

impl TryFrom<RuleText> for Rule {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<Self, RuleError> {
        let (names, patterns) = match (text.rooms.is_empty(), text.calls.is_empty()) {
            (false, true) => (Names::Rooms, text.rooms),
            (true, false) => (Names::Calls, text.calls),
            _ => return Err(RuleError::Names),
        };
        if text.rights.is_empty() {
            return Err(RuleError::NoRight);
        }
        if let Some(right) = text.rights.iter().find(|right| right.names() != names) {
            return Err(RuleError::WrongRight { right: *right, names });
        }
        let templates = patterns.iter().map(|pattern| Template::parse(names, pattern)).collect::<Result<_, _>>()?;
        Ok(Self { names, templates, rights: text.rights })
    }
}

impl From<Rule> for RuleText {
    fn from(rule: Rule) -> Self {
        let patterns = rule.templates.iter().map(ToString::to_string).collect();
        let (rooms, calls) = match rule.names {
            Names::Rooms => (patterns, Vec::new()),
            Names::Calls => (Vec::new(), patterns),
        };
        Self { rooms, calls, rights: rule.rights }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match self.names {
            Names::Rooms => "rooms",
            Names::Calls => "calls",
        };
        let patterns: Vec<_> = self.templates.iter().map(ToString::to_string).collect();
        let rights: Vec<_> = self.rights.iter().map(|right| right.as_str()).collect();
        write!(f, "{names} {}: {}", patterns.join(" "), rights.join(", "))
    }
}

/// What a rule means for one right on one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "problem", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The rule grants the right.
    Grants,
    /// The rule grants only other rights.
    OtherRights,
    /// None of the rule's patterns matches the name.
    NoMatch,
    /// No pattern matches, and at least one of them matches nothing at all for this client, for this
    /// reason.
    NoValue(String),
    /// A pattern matches, but the client has [`MAX_PATTERNS`] other patterns already.
    TooManyPatterns,
}

impl Rule {
    /// Returns whether the rule grants a client a right on the room or method with this name, and if
    /// not, why. It does not consider [`MAX_PATTERNS`].
    ///
    /// ```
    /// # use roomcast_core as roomcast;
    /// use roomcast::{Right, Rule, Subject, Verdict};
    /// use serde_json::json;
    ///
    /// let rule: Rule = serde_json::from_value(json!({ "rooms": ["team:{claim.team}"], "do": ["join"] }))?;
    /// let claims = json!({ "team": "red" });
    /// let subject = Subject { user: None, claims: &claims };
    /// assert_eq!(rule.explain(subject, Right::Join, "team:red"), Verdict::Grants);
    /// assert_eq!(rule.explain(subject, Right::Publish, "team:red"), Verdict::OtherRights);
    /// assert_eq!(rule.explain(subject, Right::Join, "team:blue"), Verdict::NoMatch);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn explain(&self, subject: Subject<'_>, right: Right, name: &str) -> Verdict {
        if !self.rights.contains(&right) {
            return Verdict::OtherRights;
        }
        let value_of = |key: &str| subject.value_of(key);
        if self.templates.iter().filter_map(|template| template.resolve(value_of)).any(|pattern| pattern.matches(name))
        {
            return Verdict::Grants;
        }
        let problem = self.templates.iter().find_map(|template| template.unresolved(value_of));
        problem.map_or(Verdict::NoMatch, |problem| Verdict::NoValue(problem.to_string()))
    }
}

/// The client for which rules are resolved, with the values of the placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The value of `{user}`. `None` if the client is anonymous.
    pub user: Option<&'a str>,
    /// The object in which `{claim.PATH}` is looked up; `Null` if there are no claims.
    pub claims: &'a Value,
}

impl Subject<'_> {
    /// Fills in the placeholders in a room's name, such as `user:{user}`.
    ///
    /// # Errors
    /// Returns [`PatternError`] if the text contains a wildcard, a placeholder without a value or
    /// with a value that is not exactly one segment, or is not the name of a room.
    ///
    /// ```
    /// # use roomcast_core as roomcast;
    /// use roomcast::Subject;
    /// use serde_json::json;
    ///
    /// let subject = Subject { user: Some("ann"), claims: &json!({ "team": 7 }) };
    /// assert_eq!(&*subject.room("team:{claim.team}:{user}")?, "team:7:ann");
    /// assert!(subject.room("team:*").is_err() && subject.room("{claim.x}").is_err());
    /// # Ok::<(), roomcast::PatternError>(())
    /// ```
    pub fn room(&self, text: &str) -> Result<RoomName, PatternError> {
        let template = Template::parse(Names::Rooms, text)?;
        let name = template.name(|placeholder| self.value_of(placeholder))?;
        RoomName::new(&name).map_err(|error| template.is_not_a_name(error))
    }

    fn value_of(&self, placeholder: &str) -> Option<String> {
        match placeholder.strip_prefix("claim.") {
            Some(path) => claim_text(self.claims, path),
            None => self.user.map(ToOwned::to_owned),
        }
    }
}

/// The largest number of different patterns in one client's grants. Each check of a right looks at
/// all of them. Further patterns permit nothing.
pub const MAX_PATTERNS: usize = 1000;

/// What one client may do. Cheap to clone.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Grants, Right, Rule, Subject};
/// use serde_json::json;
///
/// let rules: Vec<Rule> = serde_json::from_value(json!([{ "rooms": ["user:{user}"], "do": ["join"]
/// }]))?;
/// let claims = json!({});
/// let grants = Grants::resolve(&rules, Subject { user: Some("ann"), claims: &claims });
/// assert!(grants.allow(Right::Join, "user:ann"));
/// assert!(!grants.allow(Right::Join, "user:bob") && !grants.allow(Right::Publish, "user:ann"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Grants {
    allowed: Arc<[Allowed]>,
}

/// A pattern, and the rights on the names that it matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Allowed {
    pattern: Pattern,
    rights: u8,
}

/// The rights on the names that one pattern matches. See [`Grants::list`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Grant {
    /// What the pattern applies to.
    pub names: Names,
    /// The pattern, with the values of its placeholders.
    pub pattern: String,
    /// The rights.
    pub rights: Vec<Right>,
}

/// A reference to grants that does not keep their memory in use.
#[derive(Debug)]
pub(crate) struct WeakGrants(Weak<[Allowed]>);

impl WeakGrants {
    /// Returns the grants, if they are still in use.
    pub(crate) fn upgrade(&self) -> Option<Grants> {
        self.0.upgrade().map(|allowed| Grants { allowed })
    }
}

impl Grants {
    /// Returns the grants that rules give a client: everything that at least one rule permits, with
    /// at most [`MAX_PATTERNS`] different patterns. A
    /// pattern whose placeholder has no value, or a value that is not exactly one segment, permits
    /// nothing.
    pub fn resolve<'a>(rules: impl IntoIterator<Item = &'a Rule>, subject: Subject<'_>) -> Self {
        let mut allowed = BTreeMap::<Pattern, u8>::new();
        let of_rule = |rule: &'a Rule| {
            let rights = rule.rights.iter().fold(0, |bits, right| bits | right.bit());
            let patterns =
                rule.templates.iter().filter_map(move |template| template.resolve(|key| subject.value_of(key)));
            patterns.map(move |pattern| (pattern, rights))
        };
        for (pattern, rights) in rules.into_iter().flat_map(of_rule) {
            if allowed.len() == MAX_PATTERNS && !allowed.contains_key(&pattern) {
                break;
            }
            *allowed.entry(pattern).or_default() |= rights;
        }
        Self { allowed: allowed.into_iter().map(|(pattern, rights)| Allowed { pattern, rights }).collect() }
    }

    /// Returns what these or the other grants permit, with at most [`MAX_PATTERNS`] different
    /// patterns, of which these come first.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut allowed: BTreeMap<_, _> =
            self.allowed.iter().map(|allowed| (allowed.pattern.clone(), allowed.rights)).collect();
        for Allowed { pattern, rights } in &*other.allowed {
            if let Some(own) = allowed.get_mut(pattern) {
                *own |= rights;
            } else if allowed.len() < MAX_PATTERNS {
                allowed.insert(pattern.clone(), *rights);
            }
        }
        Self { allowed: allowed.into_iter().map(|(pattern, rights)| Allowed { pattern, rights }).collect() }
    }

    /// Lists the grants.
    pub fn list(&self) -> Vec<Grant> {
        let grant = |allowed: &Allowed| Grant {
            names: allowed.pattern.names(),
            pattern: allowed.pattern.to_string(),
            rights: Right::ALL.into_iter().filter(|right| allowed.rights & right.bit() != 0).collect(),
        };
        self.allowed.iter().map(grant).collect()
    }

    /// Returns whether these grants permit nothing.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Returns whether both values use the same memory.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.allowed, &other.allowed)
    }

    /// Returns a reference that does not keep the memory in use.
    pub(crate) fn downgrade(&self) -> WeakGrants {
        WeakGrants(Arc::downgrade(&self.allowed))
    }

    /// Returns whether the client has a right on the room or method with this name.
    pub fn allow(&self, right: Right, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.rights & right.bit() != 0 && allowed.pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(rules: &Value) -> Grants {
        let rules: Vec<Rule> = serde_json::from_value(rules.clone()).unwrap();
        Grants::resolve(&rules, Subject { user: Some("ann"), claims: &Value::Null })
    }

    #[test]
    fn equal_patterns_are_kept_once_with_all_their_rights() {
        let rules: Vec<_> = ["join", "publish", "join"]
            .iter()
            .map(|right| serde_json::json!({ "rooms": ["a:*", "user:{user}"], "do": [right] }))
            .collect();
        let grants = grants(&rules.into());
        assert_eq!(grants.allowed.len(), 2);
        for room in ["a:b", "user:ann"] {
            assert!(grants.allow(Right::Join, room) && grants.allow(Right::Publish, room), "{room}");
            assert!(!grants.allow(Right::Members, room), "{room}");
        }
    }

    #[test]
    fn a_union_permits_what_one_of_both_permits_up_to_the_limit() {
        let rule = |rooms: &[&str], right: &str| grants(&serde_json::json!([{ "rooms": rooms, "do": [right] }]));
        let union = rule(&["a", "b"], "join").union(&rule(&["b", "c"], "publish"));
        assert_eq!(union.allowed.len(), 3);
        assert!(union.allow(Right::Join, "b") && union.allow(Right::Publish, "b") && union.allow(Right::Publish, "c"));
        assert!(!union.allow(Right::Publish, "a") && !union.allow(Right::Join, "c"));

        let rooms: Vec<_> = (0..MAX_PATTERNS).map(|room| format!("room{room}")).collect();
        let all = grants(&serde_json::json!([{ "rooms": rooms, "do": ["join"] }]));
        assert_eq!(all.union(&rule(&["a"], "join")), all);
    }

    #[test]
    fn patterns_beyond_the_limit_permit_nothing() {
        let rooms: Vec<_> = (0..=MAX_PATTERNS).map(|room| format!("room{room}")).collect();
        let grants = grants(&serde_json::json!([{ "rooms": rooms, "do": ["join"] }]));
        assert_eq!(grants.allowed.len(), MAX_PATTERNS);
        assert!(grants.allow(Right::Join, "room999") && !grants.allow(Right::Join, "room1000"));
    }
}

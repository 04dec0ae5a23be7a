//! Why a client may or may not do something, for operators.

use std::fmt;

use roomcast::{Names, Right, Rule, Verdict};
use serde::Serialize;

/// Why a client may or may not do something: every rule that was considered, and the rule that
/// decided. It contains no token. It is meant for operators; clients learn only which right is
/// missing.
///
/// [`JwtAuthorizer::explain`](crate::JwtAuthorizer::explain) and
/// [`Policy::explain`](crate::Policy::explain) create explanations. The text of an explanation has
/// several lines. As JSON, it looks like this:
///
/// ```
/// use std::collections::BTreeMap;
///
/// use roomcast::Right;
/// use roomcast_auth::Policy;
/// use serde_json::json;
///
/// let public = serde_json::from_value(json!([{ "rooms": ["public:*"], "do": ["join"] }]))?;
/// let policy = Policy::new(Vec::new(), BTreeMap::new(), Some(public))?;
/// let explanation = policy.explain(None, Right::Join, "public:news");
/// assert!(explanation.is_granted());
/// assert_eq!(
///     serde_json::to_value(explanation)?,
///     json!({
///         "right": "join",
///         "name": "public:news",
///         "decision": "granted",
///         "decided_by": 0,
///         "client": null,
///         "rules": [
///             { "source": "anonymous", "rule": { "rooms": ["public:*"], "do": ["join"] }, "verdict": "grants" },
///         ],
///         "ignored": [],
///         "joined_on_connect": false,
///     })
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The right.
    pub right: Right,
    /// The name of the room or of the method.
    pub name: String,
    /// Whether the client has the right.
    #[serde(flatten)]
    pub decision: Decision,
    /// The client, or `None` if it is anonymous or rejected.
    pub client: Option<Client>,
    /// The rules of the client, in the order in which they were considered.
    pub rules: Vec<Considered>,
    /// The parts of the token that grant nothing, each with the reason.
    pub ignored: Vec<String>,
    /// Whether the node joins the room for the client when the connection opens. For this, the client
    /// needs no right.
    pub joined_on_connect: bool,
}

/// The outcome of an explained decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// A rule grants the right.
    Granted {
        /// The index of this rule in [`Explanation::rules`].
        decided_by: usize,
    },
    /// No rule grants the right.
    NotGranted,
    /// The client cannot connect at all.
    Rejected {
        /// The reason.
        reason: String,
    },
}

/// The client of an explained decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Client {
    /// The issuer of its token.
    pub issuer: String,
    /// Its user, with the issuer's prefix.
    pub user: String,
}

/// A rule that was considered for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Considered {
    /// Where the rule is written.
    pub source: Source,
    /// The rule.
    pub rule: Rule,
    /// What the rule means for the decision.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Where a rule is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// In the claim `roomcast.allow` of the token.
    Token,
    /// In the role with this name.
    Role(String),
    /// In the rules for anonymous clients.
    Anonymous,
}

impl Explanation {
    /// Explains a decision about a client that can connect. `is_granted` is the decision of the
    /// client's grants.
    pub(crate) fn new(
        (right, name): (Right, &str),
        client: Option<Client>,
        mut rules: Vec<Considered>,
        is_granted: bool,
    ) -> Self {
        let granting = rules.iter().position(|considered| considered.verdict == Verdict::Grants);
        let decision = match granting.filter(|_| is_granted) {
            Some(decided_by) => Decision::Granted { decided_by },
            None => {
                for considered in rules.iter_mut().filter(|considered| considered.verdict == Verdict::Grants) {
                    considered.verdict = Verdict::TooManyPatterns;
                }
                Decision::NotGranted
            }
        };
        Self { decision, client, rules, ..Self::empty(right, name) }
    }

    /// Explains that a client cannot connect.
    pub(crate) fn rejected(right: Right, name: &str, reason: String) -> Self {
        Self { decision: Decision::Rejected { reason }, ..Self::empty(right, name) }
    }

    fn empty(right: Right, name: &str) -> Self {
        Self {
            right,
            name: name.to_owned(),
            decision: Decision::NotGranted,
            client: None,
            rules: Vec::new(),
            ignored: Vec::new(),
            joined_on_connect: false,
        }
    }

    /// Returns whether the client has the right.
    pub fn is_granted(&self) -> bool {
        matches!(self.decision, Decision::Granted { .. })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, name, .. } = self;
        let names = match right.names() {
            Names::Rooms => "room",
            Names::Calls => "method",
        };
        let outcome = match &self.decision {
            Decision::Granted { decided_by } => format!("granted by rule {}", decided_by + 1),
            Decision::NotGranted => "denied, because no rule grants it".to_owned(),
            Decision::Rejected { reason } => return writeln!(f, "The client cannot connect: {reason}"),
        };
        match &self.client {
            Some(Client { issuer, user }) => writeln!(f, "Client: user {user:?} of issuer {issuer:?}")?,
            None => writeln!(f, "Client: anonymous")?,
        }
        writeln!(f, "Right {right} on {names} {name:?}: {outcome}")?;
        if self.rules.is_empty() {
            writeln!(f, "The client has no rules.")?;
        }
        for (index, Considered { source, rule, verdict }) in self.rules.iter().enumerate() {
            writeln!(f, "  {}. {source}: {rule}", index + 1)?;
            match verdict {
                Verdict::Grants => writeln!(f, "     grants the right")?,
                Verdict::OtherRights => writeln!(f, "     does not grant {right}")?,
                Verdict::NoMatch => writeln!(f, "     does not match the name")?,
                Verdict::NoValue(problem) => writeln!(f, "     matches nothing: {problem}")?,
                Verdict::TooManyPatterns => writeln!(f, "     comes after the largest number of patterns")?,
                _ => writeln!(f, "     {verdict:?}")?,
            }
        }
        for ignored in &self.ignored {
            writeln!(f, "Ignored: {ignored}")?;
        }
        if self.joined_on_connect {
            writeln!(
                f,
                "The node joins this room for the client when it connects, for which the client needs no right."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token => f.write_str("token"),
            Self::Role(name) => write!(f, "role {name:?}"),
            Self::Anonymous => f.write_str("auth.anonymous"),
        }
    }
}

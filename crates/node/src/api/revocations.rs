//! `/v1/revocations`: credentials that are no longer accepted.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use roomcast::{CallError, Node, Revocation, Revoked, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Failure;
use crate::api::body::RevokedBody;
use crate::api::failure::{Always, Asking, Sending};
use crate::api::request::InBody;

/// The longest time that a revocation can last: ten years, in seconds.
const MAX_LIFETIME: u64 = 10 * 366 * 86_400;

/// What to revoke: exactly one of `user`, `jti` and `all_before`
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Revocation)]
pub(super) struct RevocationBody {
    /// A user, with the prefix of the issuer
    #[schema(example = "ann")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The claim `jti` of a token, 1 to 255 bytes
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// All tokens whose claim `iat` is at most this second since 1970. It cannot be in the future
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all_before: Option<u64>,
    /// The second since 1970 at which the revocation ends and all of these tokens have expired; at most 10 years from now
    #[schema(example = 1900000000)]
    until: u64,
    /// With `user`: whether the user can connect again with a token that is issued later
    #[serde(default)]
    reauthenticate: bool,
}

impl RevocationBody {
    /// `reauthenticate` applies to the tokens that were issued up to this second.
    fn revocation(self, now: u64) -> Result<Revocation, CallError> {
        let invalid = |message: String| Err(CallError::invalid_argument(message));
        let Self { user, jti, all_before, until, reauthenticate } = self;
        let revoked = match (user, jti, all_before) {
            (Some(user), None, None) => {
                Revoked::User { user: UserId::new(&user)?, issued_until: reauthenticate.then_some(now) }
            }
            (None, ..) if reauthenticate => return invalid("reauthenticate applies only to a user".to_owned()),
            (None, Some(id), None) => Revoked::Credential { id },
            (None, None, Some(time)) if time > now => {
                return invalid(format!("all_before is in the future: {time}; it is {now} now"));
            }
            (None, None, Some(time)) => Revoked::IssuedUntil { time },
            _ => return invalid("name exactly one of user, jti and all_before".to_owned()),
        };
        match until {
            until if until <= now => invalid(format!("until is not in the future: {until}; it is {now} now")),
            until if until > now + MAX_LIFETIME => {
                invalid(format!("until is more than 10 years from now: {until}; it is {now} now"))
            }
            until => Ok(Revocation::new(revoked, until)?),
        }
    }
}

impl From<&Revocation> for RevocationBody {
    fn from(revocation: &Revocation) -> Self {
        let until = revocation.until();
        let mut body = Self { user: None, jti: None, all_before: None, until, reauthenticate: false };
        match revocation.revoked() {
            Revoked::User { user, issued_until } => {
                (body.user, body.reauthenticate) = (Some(user.to_string()), issued_until.is_some());
            }
            Revoked::Credential { id } => body.jti = Some(id.clone()),
            Revoked::IssuedUntil { time } => body.all_before = Some(*time),
            _ => {}
        }
        body
    }
}

/// Revoke tokens, and close the connections that have them with 4401
///
/// Every node that reaches Redis enforces the revocation within a second, until it ends.
#[utoipa::path(
    post,
    path = "/revocations",
    operation_id = "revoke",
    tag = "access",
    request_body(content = RevocationBody, description = "What to revoke, and until when"),
    responses(
        (status = OK, description = "The revocation is in force, and these connections are closing", body = RevokedBody),
        Always, Asking, Sending
    )
)]
pub(super) async fn revoke(
    State(node): State<Node>,
    InBody(body): InBody<RevocationBody>,
) -> Result<Json<RevokedBody>, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(Json(node.revoke(body.revocation(now)?).await?.into()))
}

/// The revocations in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Revocations)]
pub(super) struct RevocationsBody {
    /// The revocations, ordered by `until`; at most 10,000
    revocations: Vec<RevocationBody>,
}

/// List the revocations that the responding node enforces
#[utoipa::path(
    get,
    path = "/revocations",
    operation_id = "listRevocations",
    tag = "access",
    responses((status = OK, description = "The revocations", body = RevocationsBody), Always)
)]
pub(super) async fn list(State(node): State<Node>) -> Json<RevocationsBody> {
    Json(RevocationsBody { revocations: node.revocations().iter().map(RevocationBody::from).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(body: &str) -> Result<Revocation, String> {
        let body: RevocationBody = serde_json::from_str(body).map_err(|error| error.to_string())?;
        body.revocation(1000).map_err(|error| error.message)
    }

    #[test]
    fn a_revocation_names_one_thing_and_ends_in_time() {
        let user = |issued_until| Revoked::User { user: UserId::new("ann").unwrap(), issued_until };
        for (body, expected) in [
            (r#"{"user":"ann","until":1001}"#, user(None)),
            (r#"{"user":"ann","reauthenticate":true,"until":1001}"#, user(Some(1000))),
            (r#"{"jti":"x","until":1001}"#, Revoked::Credential { id: "x".to_owned() }),
            (r#"{"all_before":1000,"until":1001}"#, Revoked::IssuedUntil { time: 1000 }),
        ] {
            assert_eq!(revocation(body), Ok(Revocation::new(expected, 1001).unwrap()), "{body}");
        }
        for (body, expected) in [
            (r#"{"until":1001}"#, "exactly one of user, jti and all_before"),
            (r#"{"user":"ann","jti":"x","until":1001}"#, "exactly one of"),
            (r#"{"user":"a/b","until":1001}"#, "invalid user id"),
            (r#"{"user":"ann"}"#, "until"),
            (r#"{"user":"ann","until":1000}"#, "until is not in the future: 1000; it is 1000 now"),
            (r#"{"user":"ann","until":1900000000000}"#, "more than 10 years"),
            (r#"{"jti":"","until":1001}"#, "1 to 255 bytes"),
            (r#"{"jti":"x","until":1001,"reauthenticate":true}"#, "only to a user"),
            (r#"{"all_before":1001,"until":1002}"#, "all_before is in the future: 1001"),
            (r#"{"users":["ann"],"until":1001}"#, "users"),
        ] {
            let error = revocation(body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}

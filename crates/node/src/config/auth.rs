//! Who may connect, and what clients may do: the tables `auth` and `role`. Lists of tables can only be in the file.

use std::path::PathBuf;
use std::time::Duration;

use roomcast::Rule;
use roomcast_auth::{Algorithm, JwksUrl, Origins};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use crate::config::quantity::{NonZeroTime, Size};
use crate::config::value::{Scalar, Value};

/// The pages and tokens that may connect
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    /// Web pages that may connect if the node authenticates clients: 'same' for pages of the node's own host, 'any', or
    /// origins separated by commas
    #[schemars(extend("default" = "same", "x-reloads" = true))]
    pub(crate) origins: Scalar<Origins>,
    /// Largest size of a token
    #[schemars(extend("default" = "8KiB", "x-reloads" = true))]
    pub(crate) max_token: Scalar<Size>,
    /// Longest lifetime of a token, from its claim iat to its claim exp
    #[schemars(extend("default" = "24h", "x-reloads" = true))]
    pub(crate) max_lifetime: Scalar<NonZeroTime>,
    /// How far the claims iat and nbf of a token may be in the future, to allow for differences between clocks
    #[schemars(extend("default" = "30s", "x-reloads" = true))]
    pub(crate) leeway: Scalar<Duration>,
    /// How long a connection stays open after its token has expired
    #[schemars(extend("default" = "25s", "x-reloads" = true))]
    pub(crate) expiry_grace: Scalar<Duration>,
    /// Also accept a token in the URL, as ?token=TOKEN; proxies write URLs to their logs
    #[schemars(extend("default" = false, "x-reloads" = true))]
    pub(crate) query_token: Scalar<bool>,
    /// Also accept clients that connect without a token and then call auth/refresh with it, as their first message and
    /// within 5 s
    #[schemars(extend("default" = false, "x-reloads" = true))]
    pub(crate) late: Scalar<bool>,
    /// CA certificates (PEM) that the node trusts when it fetches the keys of issuers; 'off' uses the CA certificates of
    /// the system
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) jwks_ca: Scalar<Option<PathBuf>>,
    /// The issuers whose tokens the node accepts
    #[serde(default)]
    pub(crate) issuer: Vec<IssuerTable>,
    /// What clients without a token may do; without this table, they get status 401
    #[serde(default)]
    pub(crate) anonymous: Option<AnonymousTable>,
}

/// An issuer, with exactly one of jwks, jwks_file, key_file and secret_file
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerTable {
    /// Name of the issuer, which the claim iss of a token must equal
    pub(crate) issuer: String,
    /// Accepted audiences; the claim aud must contain one of them
    pub(crate) audience: Vec<String>,
    /// Algorithms with which the issuer signs, such as ES256, RS256 or HS256
    #[schemars(with = "Vec<String>")]
    pub(crate) algorithms: Vec<Algorithm>,
    /// URL of the issuer's keys as a JWK set, beginning with https://; the node fetches them again every 10 min
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) jwks: Option<JwksUrl>,
    /// File with the issuer's keys as a JWK set
    #[serde(default)]
    pub(crate) jwks_file: Option<PathBuf>,
    /// File with the issuer's public key (PEM)
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
    /// File with the secret for HMAC, of at least 32 bytes; the line break at its end does not count
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// File with the previous secret, which tokens may still be signed with
    #[serde(default)]
    pub(crate) previous_secret_file: Option<PathBuf>,
    /// Dotted path of the claim that names the user; without it, sub
    #[serde(default)]
    pub(crate) user_claim: Option<String>,
    /// Prefix of the names of this issuer's users; required if there are several issuers
    #[serde(default)]
    pub(crate) user_prefix: String,
    /// Dotted path of the claim that lists the user's roles
    #[serde(default)]
    pub(crate) roles_claim: Option<String>,
    /// The only roles that this issuer's tokens can give; without it, all roles
    #[serde(default)]
    pub(crate) roles: Option<Vec<String>>,
    /// Whether this issuer's tokens can grant rights themselves, with the claims roomcast.allow and roomcast.join; true
    /// by default
    #[serde(default)]
    pub(crate) token_grants: Option<bool>,
}

/// A role, which tokens name
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleTable {
    /// Name of the role
    pub(crate) name: String,
    /// What clients with this role may do
    #[schemars(with = "Vec<RuleTable>")]
    pub(crate) allow: Vec<Rule>,
}

/// Clients without a token
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnonymousTable {
    /// What clients without a token may do
    #[schemars(with = "Vec<RuleTable>")]
    pub(crate) allow: Vec<Rule>,
}

/// Rights on rooms or on calls
#[expect(dead_code, reason = "describes Rule in the schema")]
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RuleTable {
    /// Patterns of room names, such as team:{claim.team}:*
    rooms: Option<Vec<String>>,
    /// Patterns of method names, such as chat.*
    calls: Option<Vec<String>>,
    /// Rights: join, publish, members and history on rooms, and call, attach and cancel on calls
    #[serde(rename = "do")]
    rights: Vec<String>,
}

impl Auth {
    /// Whether clients are authenticated. Otherwise, everybody may connect.
    pub(crate) fn is_on(&self) -> bool {
        !self.issuer.is_empty() || self.anonymous.is_some()
    }
}

impl Value for Origins {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "same" => Ok(Self::Same),
            "any" => Ok(Self::Any),
            list => Self::listed(list.split(',').map(str::trim)).map_err(|error| error.to_string()),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "origins", "type": "string", "minLength": 1 })
    }
}

//! Authentication of Roomcast's clients by JSON Web Tokens (RFC 7519).
//!
//! [`JwtAuthorizer`] is an [`Authorizer`](roomcast::Authorizer). It finds the token in a client's
//! request, verifies the token with its issuer's keys, and gives the client the rights of the token
//! and of its roles. Set it with [`Router::authorizer`](roomcast::Router::authorizer).
//!
//! Tokens are verified by the crate `jsonwebtoken` with the backend aws-lc-rs. It is widely used,
//! maintained, and lets the caller choose the algorithms. The other backend, of pure Rust, contains
//! an implementation of RSA with a known timing weakness (RUSTSEC-2023-0071).
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use roomcast::{Node, Options, Router};
//! use roomcast_auth::{Algorithm, Issuer, JwtAuthorizer, Keys, Policy, TokenRules};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut issuer = Issuer::new("https://id.example.org", ["roomcast"], [Algorithm::HS256]);
//! issuer.roles_claim = Some("realm_access.roles".to_owned());
//! let member = serde_json::from_value(json!([{ "rooms": ["team:{claim.team}:*"], "do": ["join", "publish"] }]))?;
//! let public = serde_json::from_value(json!([{ "rooms": ["public:*"], "do": ["join"] }]))?;
//!
//! let policy = Policy::new(vec![issuer], BTreeMap::from([("member".to_owned(), member)]), Some(public))?;
//! let keys = Keys::from_secrets([&b"0123456789abcdef0123456789abcdef"[..]])?;
//! let authorizer = JwtAuthorizer::new(policy, BTreeMap::from([("https://id.example.org".to_owned(), keys.into())]))?;
//! let router = Router::new(Node::embedded(Options::default())).authorizer(authorizer);
//! # let _ = router; Ok(()) }
//! ```
//!
//! Reading order: `issuer` → `token` (verification) → `keys` (of an issuer) → `fetched_keys` (when keys are
//! fetched) → `jwks` (how) → `remote_keys` (the task that fetches them) → `key_source` (either kind of
//! keys) → `explanation` (of a decision) → `policy` (rights) → `request` (where a request contains its token, and its origin) →
//! `authorizer` (all of it). `signing` and `inspection` are for experiments and tests.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod authorizer;
mod explanation;
mod fetched_keys;
mod inspection;
mod issuer;
mod jwks;
mod key_source;
mod keys;
mod metrics;
mod policy;
mod remote_keys;
mod request;
mod signing;
mod token;

pub use authorizer::{JwtAuthorizer, MissingKeys};
pub use explanation::{Client, Considered, Decision, Explanation, Source};
pub use inspection::{Inspected, NotAToken, inspect};
pub use issuer::Issuer;
pub use jsonwebtoken::Algorithm;
pub use jwks::{FETCH_TIMEOUT, FetchError, InvalidCaCertificates, InvalidJwksUrl, JwksClient, JwksUrl, MAX_JWKS_LEN};
pub use key_source::KeySource;
pub use keys::{Keys, KeysError, MAX_KEYS, MIN_SECRET_LEN};
pub use policy::{Policy, PolicyError};
pub use remote_keys::RemoteKeys;
pub use request::{InvalidOrigin, Origins};
pub use signing::{NewToken, SigningError, SigningKey};
pub use token::{MAX_JOIN, MAX_META_LEN, MAX_USER_LEN, Token, TokenError, TokenRules};

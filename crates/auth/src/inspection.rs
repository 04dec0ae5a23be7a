//! Reads a token without verifying it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use thiserror::Error;

/// The header and the claims of a token whose signature has not been verified. Never trust them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Inspected {
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

/// The error of a text that is not a JWT. It does not quote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotAToken {
    /// The text has too few or too many parts.
    #[error("a JWT has 3 parts that are separated by dots, not {0}")]
    Parts(usize),
    /// The header or the payload, which contains the claims, cannot be decoded.
    #[error("the {0} of the token is not JSON in base64url")]
    Undecodable(&'static str),
}

/// Reads the header and the claims of a token without verifying it, for experiments.
///
/// # Errors
/// Returns [`NotAToken`] if the text does not have the form of a JWT.
///
/// ```
/// use roomcast_auth::inspect;
///
/// let inspected = inspect("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.")?;
/// assert_eq!(inspected.header["alg"], "none");
/// assert_eq!(inspected.claims["sub"], "ann");
/// # Ok::<(), roomcast_auth::NotAToken>(())
/// ```
pub fn inspect(token: &str) -> Result<Inspected, NotAToken> {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, _signature] = parts[..] else { return Err(NotAToken::Parts(parts.len())) };
    let decode = |part: &str, name| {
        let json = URL_SAFE_NO_PAD.decode(part).ok();
        json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or(NotAToken::Undecodable(name))
    };
    Ok(Inspected { header: decode(header, "header")?, claims: decode(claims, "payload")? })
}

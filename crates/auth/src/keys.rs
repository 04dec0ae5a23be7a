//! The keys of one issuer.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;
use thiserror::Error;

/// The largest number of an issuer's keys. A token without a key id is checked with the first four
/// that fit its algorithm.
pub const MAX_KEYS: usize = 32;

/// The length of the shortest secret for HMAC in bytes (RFC 7518, section 3.2).
pub const MIN_SECRET_LEN: usize = 32;

/// The error of reading keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The text is not a JWK set.
    #[error("not a JWK set: {0}")]
    NotAJwkSet(String),
    /// None of the keys in the set can verify signatures.
    #[error("none of the {0} keys in the JWK set is a public key for signatures with a supported algorithm")]
    NoKey(usize),
    /// The set has too many keys.
    #[error("the JWK set has {0} keys; at most {MAX_KEYS} are allowed")]
    TooMany(usize),
    /// The text is not a public key in PEM.
    #[error(
        "not a public key in PEM for {0:?}; `openssl pkey -in KEY.pem -pubout` prints the public key of a private key"
    )]
    NotAPublicKey(Algorithm),
    /// The algorithm needs a secret instead of a public key.
    #[error("{0:?} needs a secret, not a public key")]
    NeedsSecret(Algorithm),
    /// A secret is too short.
    #[error("the secret has {0} bytes; at least {MIN_SECRET_LEN} are needed")]
    ShortSecret(usize),
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm for which the key may be used, if there is one.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct JwkSetText {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a JWK set (RFC 7517). It ignores keys for encryption, symmetric keys and keys of unknown
    /// types.
    ///
    /// # Errors
    /// Returns [`KeysError`] if the text is not a JWK set, has too many keys, or has no key that can
    /// verify signatures.
    pub fn from_jwks(text: &[u8]) -> Result<Self, KeysError> {
        let set: JwkSetText = serde_json::from_slice(text).map_err(|error| KeysError::NotAJwkSet(problem(&error)))?;
        let count = set.keys.len();
        if count > MAX_KEYS {
            return Err(KeysError::TooMany(count));
        }
        let keys: Vec<_> =
            set.keys.into_iter().filter_map(|value| Key::of_jwk(&Jwk::deserialize(value).ok()?)).collect();
        if keys.is_empty() { Err(KeysError::NoKey(count)) } else { Ok(Self { keys }) }
    }

    /// Reads a public key in PEM, for tokens with one of these algorithms.
    ///
    /// # Errors
    /// Returns [`KeysError`] if the text is not a public key for each of the algorithms.
    pub fn from_pem(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for algorithm in algorithms {
            let key = match algorithm.family() {
                AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(text),
                AlgorithmFamily::Ec => DecodingKey::from_ec_pem(text),
                AlgorithmFamily::Ed => DecodingKey::from_ed_pem(text),
                AlgorithmFamily::Hmac => return Err(KeysError::NeedsSecret(*algorithm)),
            };
            let key = key.map_err(|_| KeysError::NotAPublicKey(*algorithm))?;
            keys.push(Key { id: None, algorithm: Some(*algorithm), key });
        }
        Ok(Self { keys })
    }

    /// Creates keys for HMAC from secrets, such as the current and the previous secret.
    ///
    /// # Errors
    /// Returns [`KeysError`] if a secret is too short.
    pub fn from_secrets<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, KeysError> {
        let key = |secret: &[u8]| match secret.len() {
            len if len < MIN_SECRET_LEN => Err(KeysError::ShortSecret(len)),
            _ => Ok(Key { id: None, algorithm: None, key: DecodingKey::from_secret(secret) }),
        };
        Ok(Self { keys: secrets.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Returns whether a token with this algorithm can be verified at all.
    pub(crate) fn has_any_for(&self, algorithm: Algorithm) -> bool {
        self.candidates(None, algorithm).next().is_some()
    }

    /// Returns the keys that may have signed a token: those with the token's key id, and those
    /// without an id. If the token has no key id, it returns all keys.
    pub(crate) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        self.keys.iter().filter(move |key| key.fits(id, algorithm)).map(|key| &key.key)
    }
}

/// Describes an error without the text of serde_json, which quotes the input. The input may be the wrong file, with a
/// secret.
fn problem(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => "it must be an object with the array keys".to_owned(),
        _ => format!("invalid JSON in line {}, column {}", error.line(), error.column()),
    }
}

impl Key {
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let is_symmetric = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_));
        if !is_for_signatures || is_symmetric {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(algorithm) => Some(signature_algorithm(algorithm)?),
        };
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_named = match (id, self.id.as_deref()) {
            (Some(id), Some(own)) => id == own,
            _ => true,
        };
        is_named && self.key.family() == algorithm.family() && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// Returns `None` if the algorithm is not for signatures.
fn signature_algorithm(algorithm: KeyAlgorithm) -> Option<Algorithm> {
    algorithm.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_for_signatures_are_used() {
        let error = |text: &str| Keys::from_jwks(text.as_bytes()).expect_err(text);
        assert_eq!(error(r#"{"keys": []}"#), KeysError::NoKey(0));
        assert_eq!(error(r#"{"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": "new"}, 7]}"#), KeysError::NoKey(3));
        let key =
            r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "enc"}"#;
        assert_eq!(error(&format!(r#"{{"keys": [{key}]}}"#)), KeysError::NoKey(1));
        assert_eq!(error(&format!(r#"{{"keys": [{}]}}"#, vec![key; 33].join(","))), KeysError::TooMany(33));
        assert!(matches!(error("<html>"), KeysError::NotAJwkSet(_)));
        assert_eq!(Keys::from_secrets([&b"short"[..]]).expect_err("short"), KeysError::ShortSecret(5));
    }
}

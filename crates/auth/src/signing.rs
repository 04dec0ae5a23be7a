//! Signs tokens for experiments and tests. A node never signs tokens.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::keys::MIN_SECRET_LEN;

/// A key that signs tokens for experiments and tests. In production, let an identity provider issue
/// the tokens.
///
/// ```
/// use std::time::SystemTime;
///
/// use roomcast_auth::{Algorithm, NewToken, SigningKey};
///
/// let key = SigningKey::from_secret(b"0123456789abcdef0123456789abcdef", Algorithm::HS256)?;
/// let token = key.sign(&NewToken::new("https://id.example", "roomcast", "ann"), SystemTime::now())?;
/// assert_eq!(token.split('.').count(), 3);
/// # Ok::<(), roomcast_auth::SigningError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SigningKey {
    key: EncodingKey,
    algorithm: Algorithm,
    id: Option<String>,
}

/// The error of signing a token. It contains no part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The text is not a private key for the algorithm.
    #[error(
        "not a private key in PEM (PKCS#8) for {0:?}; `openssl pkcs8 -topk8 -nocrypt -in KEY.pem` converts keys in other formats"
    )]
    NotAPrivateKey(Algorithm),
    /// The algorithm needs a private key instead of a secret.
    #[error("{0:?} needs a private key, not a secret")]
    NeedsPrivateKey(Algorithm),
    /// The algorithm needs a secret instead of a private key.
    #[error("{0:?} needs a secret, not a private key")]
    NeedsSecret(Algorithm),
    /// The secret is too short.
    #[error("the secret has {0} bytes; at least {MIN_SECRET_LEN} are needed")]
    ShortSecret(usize),
    /// The key cannot sign, for example because it is for another curve.
    #[error("the key cannot sign a token with {0:?}")]
    Unsuitable(Algorithm),
}

/// The claims of a token to sign.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewToken {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `aud`.
    pub audience: String,
    /// The claim `sub`.
    pub user: String,
    /// The time from `iat`, which is the current time, to `exp`. Default: 15 min.
    pub lifetime: Duration,
    /// Further claims, which take precedence over the others.
    pub claims: Map<String, Value>,
}

impl NewToken {
    /// Creates the claims of a token that is valid for 15 min.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            user: user.into(),
            lifetime: Duration::from_secs(15 * 60),
            claims: Map::new(),
        }
    }

    fn claims(&self, now: SystemTime) -> Map<String, Value> {
        let issued_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires_at = issued_at.saturating_add(self.lifetime.as_secs());
        let texts = [("iss", &self.issuer), ("aud", &self.audience), ("sub", &self.user)];
        let texts = texts.map(|(name, text)| (name.to_owned(), Value::from(&**text)));
        let times = [("iat", issued_at), ("exp", expires_at)].map(|(name, time)| (name.to_owned(), Value::from(time)));
        texts.into_iter().chain(times).chain(self.claims.clone()).collect()
    }
}

impl SigningKey {
    /// Reads a private key in PEM.
    ///
    /// # Errors
    /// Returns [`SigningError`] if the text is not a private key for this algorithm.
    pub fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, SigningError> {
        let key = match algorithm.family() {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem),
            AlgorithmFamily::Hmac => return Err(SigningError::NeedsSecret(algorithm)),
        };
        let key = key.map_err(|_| SigningError::NotAPrivateKey(algorithm))?;
        Ok(Self { key, algorithm, id: None })
    }

    /// Creates a key for HMAC from a secret.
    ///
    /// # Errors
    /// Returns [`SigningError`] if the secret is too short, or the algorithm does not use secrets.
    pub fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, SigningError> {
        if algorithm.family() != AlgorithmFamily::Hmac {
            return Err(SigningError::NeedsPrivateKey(algorithm));
        }
        if secret.len() < MIN_SECRET_LEN {
            return Err(SigningError::ShortSecret(secret.len()));
        }
        Ok(Self { key: EncodingKey::from_secret(secret), algorithm, id: None })
    }

    /// Sets the id of the key, which each token names in its header as `kid`.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Signs a token that is valid from now on.
    ///
    /// # Errors
    /// Returns [`SigningError`] if the key cannot sign with its algorithm.
    pub fn sign(&self, token: &NewToken, now: SystemTime) -> Result<String, SigningError> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        jsonwebtoken::encode(&header, &token.claims(now), &self.key)
            .map_err(|_| SigningError::Unsuitable(self.algorithm))
    }
}

//! Where an issuer's keys come from.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use crate::keys::Keys;
use crate::remote_keys::{RemoteKeys, Unavailable};

/// The keys of one issuer, either fixed or fetched.
///
/// ```
/// use roomcast_auth::{JwksClient, JwksUrl, KeySource, Keys, RemoteKeys};
///
/// let fixed: KeySource = Keys::from_secrets([&b"0123456789abcdef0123456789abcdef"[..]])?.into();
/// let url: JwksUrl = "https://id.example.org/jwks.json".parse()?;
/// let fetched: KeySource = RemoteKeys::new(url, JwksClient::new()).into();
/// # let _ = (fixed, fetched);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub enum KeySource {
    /// Keys that do not change.
    Fixed(Arc<Keys>),
    /// Keys that are fetched from a URL, again and again.
    Remote(RemoteKeys),
}

impl From<Keys> for KeySource {
    fn from(keys: Keys) -> Self {
        Self::Fixed(Arc::new(keys))
    }
}

impl From<RemoteKeys> for KeySource {
    fn from(keys: RemoteKeys) -> Self {
        Self::Remote(keys)
    }
}

impl KeySource {
    /// Returns keys among which are those that may have signed a token with this key id and
    /// algorithm, if there are any.
    pub(crate) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<Keys>, Unavailable> {
        match self {
            Self::Fixed(keys) => Ok(Arc::clone(keys)),
            Self::Remote(keys) => keys.find(id, algorithm).await,
        }
    }

    /// Returns whether a token with this algorithm could be verified.
    pub(crate) fn may_verify(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Fixed(keys) => keys.has_any_for(algorithm),
            // A JWK set contains no secrets.
            Self::Remote(_) => algorithm.family() != AlgorithmFamily::Hmac,
        }
    }

    /// Returns the keys that are fetched.
    pub(crate) fn remote(&self) -> Option<&RemoteKeys> {
        match self {
            Self::Fixed(_) => None,
            Self::Remote(keys) => Some(keys),
        }
    }
}

//! The API keys that a node accepts, and what each one permits.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::scope::{Scope, Scopes};

/// A shorter key could be guessed.
pub(crate) const MIN_KEY_LENGTH: usize = 16;

/// The number of keys in one option. A rotation needs two.
const MAX_KEYS: usize = 8;

/// The keys in one option. Only their digests are kept: digests have one length, so comparing them reveals neither
/// the content nor the length of a key, and no log line can contain a key.
#[derive(Debug, Clone)]
pub(crate) struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Reads keys that are separated by commas. A key must be able to stand in a header. The error completes the
    /// sentence "cannot use VALUE: ".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_valid = |key: &str| key.len() >= MIN_KEY_LENGTH && key.bytes().all(|byte| byte.is_ascii_graphic());
        let keys: Vec<_> = text.split(',').collect();
        if keys.len() <= MAX_KEYS && keys.iter().all(|key| is_valid(key)) {
            return Ok(Self(keys.into_iter().map(|key| Sha256::digest(key).into()).collect()));
        }
        Err(format!(
            "a key must be at least {MIN_KEY_LENGTH} printable ASCII characters without spaces; separate several keys, \
             at most {MAX_KEYS}, with commas"
        ))
    }

    /// Compares with all keys, so that the time does not depend on which of them matches.
    fn contain(&self, digest: &[u8; 32]) -> bool {
        self.0.iter().fold(subtle::Choice::from(0), |found, key| found | key.ct_eq(digest)).into()
    }
}

/// All keys of a node.
#[derive(Debug, Default)]
pub(crate) struct Keyring(Vec<(Scope, ApiKeys)>);

impl Keyring {
    pub(crate) fn new(keys: impl IntoIterator<Item = (Scope, Option<ApiKeys>)>) -> Self {
        Self(keys.into_iter().filter_map(|(scope, keys)| Some((scope, keys?))).collect())
    }

    /// Whether requests need no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a key permits; `None` if the node does not accept it.
    pub(crate) fn scopes(&self, key: &[u8]) -> Option<Scopes> {
        let digest = Sha256::digest(key).into();
        let matching = self.0.iter().filter(|(_, keys)| keys.contain(&digest)).map(|(scope, _)| *scope);
        matching.fold(None, |scopes: Option<Scopes>, scope| Some(scopes.unwrap_or_default().with(scope)))
    }
}

//! Proves that a message comes from a node of this cluster, by a MAC under the cluster's secret.
//!
//! The MAC covers the channel and the whole record. Someone who may publish to Redis but does not
//! have the secret can neither forge a record nor move it to another room. The MAC does not cover
//! the header that the publish script adds.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The size of a MAC on the wire, in bytes: HMAC-SHA-256, truncated to 128 bits (RFC 2104, section
/// 5).
pub(crate) const MAC_LEN: usize = 16;

/// The keys of a cluster. Without keys, messages have no MAC, and messages with a MAC are dropped.
#[derive(Clone, Default)]
pub(crate) struct Seal {
    keys: Vec<Hmac<Sha256>>,
}

impl Seal {
    /// Creates the keys from secrets. The first one signs, and all of them are accepted, so that a
    /// secret can be replaced node by node.
    pub(crate) fn new(secrets: &[String]) -> Self {
        let key = |secret: &String| Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        Self { keys: secrets.iter().map(key).collect() }
    }

    /// Returns whether messages have a MAC.
    pub(crate) fn is_active(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Returns the MAC of a message, or `None` without a secret.
    pub(crate) fn sign(&self, channel: &[u8], parts: [&[u8]; 2]) -> Option<[u8; MAC_LEN]> {
        let mac = Self::mac(self.keys.first()?, channel, parts).finalize().into_bytes();
        let mut truncated = [0; MAC_LEN];
        truncated.copy_from_slice(&mac[..MAC_LEN]);
        Some(truncated)
    }

    /// Returns whether a MAC is valid under one of the secrets. The comparison takes constant time.
    pub(crate) fn accepts(&self, channel: &[u8], parts: [&[u8]; 2], mac: &[u8]) -> bool {
        mac.len() == MAC_LEN
            && self.keys.iter().any(|key| Self::mac(key, channel, parts).verify_truncated_left(mac).is_ok())
    }

    fn mac(key: &Hmac<Sha256>, channel: &[u8], parts: [&[u8]; 2]) -> Hmac<Sha256> {
        let mut mac = key.clone();
        // The length separates the channel from what follows it.
        mac.update(&(channel.len() as u64).to_be_bytes());
        mac.update(channel);
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl std::fmt::Debug for Seal {
    /// Omits the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("keys", &self.keys.len()).finish()
    }
}

//! The signatures of requests, with which a backend verifies that a node sent them.
//!
//! `webhook-signature` follows [Standard Webhooks](https://www.standardwebhooks.com) and covers the
//! request's id, its time and its body. `Roomcast-Signature` covers the rest that a backend relies
//! on: the method, the path, and the headers that name the user.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;

/// How a secret begins.
const PREFIX: &str = "whsec_";

/// How many bytes a secret has, as Standard Webhooks recommends.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 24..=64;

/// How many secrets can be active at once. A rotation needs two.
const MAX_SECRETS: usize = 4;

/// The secrets that sign the requests to a backend. While you rotate them, each request has a
/// signature of each secret.
///
/// ```
/// use roomcast_backends::SigningSecrets;
///
/// # fn main() -> Result<(), roomcast_backends::SecretError> {
/// let secrets: SigningSecrets = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// # let _ = secrets; Ok(()) }
/// ```
#[derive(Clone)]
pub struct SigningSecrets(Vec<Hmac<Sha256>>);

/// Why a text contains no secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no secret.
    #[error("there is no secret; write one in each line, such as the output of: echo whsec_$(openssl rand -base64 32)")]
    Missing,
    /// There are too many secrets.
    #[error("{0} secrets are too many; at most {MAX_SECRETS} can be active at once")]
    TooMany(usize),
    /// A secret has the wrong form.
    #[error("line {0} is not a secret: {PREFIX} and the base64 of 24 to 64 bytes")]
    Malformed(usize),
}

impl std::str::FromStr for SigningSecrets {
    type Err = SecretError;

    /// Reads a secret from each line: `whsec_`, and then the base64 of 24 to 64 bytes.
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let secrets = lines.map(|(index, line)| key(line).ok_or(SecretError::Malformed(index + 1)));
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        match secrets.len() {
            0 => Err(SecretError::Missing),
            1..=MAX_SECRETS => Ok(Self(secrets)),
            number => Err(SecretError::TooMany(number)),
        }
    }
}

fn key(secret: &str) -> Option<Hmac<Sha256>> {
    let secret = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    SECRET_LEN.contains(&secret.len()).then(|| Hmac::new_from_slice(&secret).ok()).flatten()
}

/// The secrets do not appear in logs.
impl fmt::Debug for SigningSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningSecrets({})", self.0.len())
    }
}

/// What the signatures of a request cover.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The header `webhook-id`.
    pub(crate) id: &'a str,
    /// The header `webhook-timestamp`, in seconds since 1970.
    pub(crate) timestamp: u64,
    pub(crate) method: &'a str,
    /// The path, with the query if there is one.
    pub(crate) path: &'a str,
    /// The headers whose names begin with `roomcast-`: names in lower case, in alphabetical order,
    /// and values. No value contains a line break.
    pub(crate) roomcast_headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// The values of the headers that sign a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signatures {
    /// `webhook-signature`.
    pub(crate) webhook: String,
    /// `Roomcast-Signature`.
    pub(crate) request: String,
}

impl SigningSecrets {
    pub(crate) fn sign(&self, request: &Request<'_>) -> Signatures {
        let Request { id, timestamp, method, path, roomcast_headers, body } = request;
        let webhook = self.signatures(&[id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body]);
        let mut lines = format!("{id}\n{timestamp}\n{method}\n{path}\n");
        for (name, value) in *roomcast_headers {
            lines.extend([*name, ":", *value, "\n"]);
        }
        Signatures { webhook, request: self.signatures(&[lines.as_bytes()]) }
    }

    /// Returns one signature for each secret, separated by spaces.
    fn signatures(&self, parts: &[&[u8]]) -> String {
        let signature = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            for part in parts {
                mac.update(part);
            }
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    const REQUEST: Request<'_> = Request {
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: 1_614_265_330,
        method: "POST",
        path: "/rpc/chat.send",
        roomcast_headers: &[("roomcast-call", "c1"), ("roomcast-user", "ann")],
        body: br#"{"test": 2432232314}"#,
    };

    #[test]
    fn the_webhook_signature_is_that_of_standard_webhooks() {
        // The example of the specification and of its libraries.
        let secrets: SigningSecrets = SECRET.parse().unwrap();
        assert_eq!(secrets.sign(&REQUEST).webhook, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_each_part_of_the_request_matters() {
        let both: SigningSecrets = format!("{SECRET}\n{OTHER}\n").parse().unwrap();
        let [one, other]: [SigningSecrets; 2] = [SECRET, OTHER].map(|secret| secret.parse().unwrap());
        let signed = both.sign(&REQUEST);
        let [first, second] = [one.sign(&REQUEST), other.sign(&REQUEST)];
        assert_eq!(signed.webhook, format!("{} {}", first.webhook, second.webhook));
        assert_eq!(signed.request, format!("{} {}", first.request, second.request));

        for changed in [
            Request { id: "msg_2", ..REQUEST },
            Request { timestamp: 1_614_265_331, ..REQUEST },
            Request { method: "PUT", ..REQUEST },
            Request { path: "/rpc/chat.read", ..REQUEST },
            Request { roomcast_headers: &[("roomcast-call", "c1"), ("roomcast-user", "eve")], ..REQUEST },
            Request { roomcast_headers: &[("roomcast-call", "c1")], ..REQUEST },
        ] {
            assert_ne!(one.sign(&changed).request, first.request, "{changed:?}");
        }
        assert_ne!(one.sign(&Request { body: b"{}", ..REQUEST }).webhook, first.webhook);
    }

    #[test]
    fn what_is_not_a_secret_is_an_error_that_does_not_contain_it() {
        let parse = |text: &str| text.parse::<SigningSecrets>().unwrap_err();
        assert_eq!(parse(" \n"), SecretError::Missing);
        assert_eq!(parse(&format!("{SECRET}\nMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")), SecretError::Malformed(2));
        for malformed in ["whsec_", "whsec_AAAA", "whsec_%%%%", &format!("whsec_{}", "AAAA".repeat(22))] {
            assert_eq!(parse(malformed), SecretError::Malformed(1), "{malformed}");
        }
        assert_eq!(parse(&format!("{SECRET}\n").repeat(5)), SecretError::TooMany(5));
        assert_eq!(format!("{:?}", SECRET.parse::<SigningSecrets>().unwrap()), "SigningSecrets(1)");
    }
}

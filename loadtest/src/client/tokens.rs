//! The JSON Web Tokens that clients send.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Stands in the name of a user for the number of the client.
const NUMBER: &str = "{client}";

/// Where tokens come from.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Tokens {
    /// The clients send these in turn.
    Listed(Vec<String>),
    /// Each connection gets a token of its own.
    Signed(Box<Signed>),
}

/// How tokens are signed.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Signed {
    /// A private key (PEM), or a secret for HMAC.
    pub(crate) key: Vec<u8>,
    pub(crate) algorithm: String,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// The name of the user, where `{client}` is the number of the client.
    pub(crate) user: String,
    pub(crate) lifetime: Duration,
    /// Further claims.
    pub(crate) claims: Map<String, Value>,
}

/// Why there are no tokens.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error("the file with tokens is empty; write one token in each line")]
    NoToken,
    #[error("line {0} of the file with tokens is not a token; write one token in each line, without spaces")]
    NotAToken(usize),
    #[error("--token-algorithm {0} is unknown; use one such as ES256, RS256, EdDSA or HS256")]
    UnknownAlgorithm(String),
    #[error(
        "--token-key is not a private key in PEM for {0}; for ES256, `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` generates one"
    )]
    NotAKey(String),
    #[error("cannot sign a token: {0}")]
    NotSigned(jsonwebtoken::errors::Error),
}

impl Tokens {
    /// Reads tokens, one in each line.
    pub(crate) fn listed(text: &str) -> Result<Self, TokenError> {
        let tokens: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
        let is_token = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match tokens.iter().position(|token| !is_token(token)) {
            Some(line) => Err(TokenError::NotAToken(line + 1)),
            None if tokens.is_empty() => Err(TokenError::NoToken),
            None => Ok(Self::Listed(tokens)),
        }
    }

    /// Prepares the key.
    pub(crate) fn source(&self) -> Result<TokenSource, TokenError> {
        let signed = match self {
            Self::Listed(tokens) => return Ok(TokenSource::Listed(tokens.clone())),
            Self::Signed(signed) => signed,
        };
        let algorithm = Algorithm::from_str(&signed.algorithm);
        let algorithm = algorithm.map_err(|_| TokenError::UnknownAlgorithm(signed.algorithm.clone()))?;
        let key = match algorithm.family() {
            AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(signed.key.trim_ascii_end())),
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&signed.key),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&signed.key),
            AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&signed.key),
        };
        let key = key.map_err(|_| TokenError::NotAKey(signed.algorithm.clone()))?;
        let header = Box::new(Header::new(algorithm));
        Ok(TokenSource::Signed { key, header, signed: signed.clone() })
    }
}

/// Without the key.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Without secrets.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// What gives each connection its token.
pub(crate) enum TokenSource {
    Listed(Vec<String>),
    Signed { key: EncodingKey, header: Box<Header>, signed: Box<Signed> },
}

impl TokenSource {
    /// The token of a client, valid from now on.
    pub(crate) fn token(&self, client: usize) -> Result<String, TokenError> {
        match self {
            Self::Listed(tokens) => Ok(tokens[client % tokens.len()].clone()),
            Self::Signed { key, header, signed } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let mut claims = signed.claims.clone();
                claims.insert("iss".to_owned(), signed.issuer.as_str().into());
                claims.insert("aud".to_owned(), signed.audience.as_str().into());
                claims.insert("sub".to_owned(), signed.user.replace(NUMBER, &client.to_string()).into());
                claims.insert("iat".to_owned(), now.into());
                claims.insert("exp".to_owned(), (now + signed.lifetime.as_secs()).into());
                jsonwebtoken::encode(header, &claims, key).map_err(TokenError::NotSigned)
            }
        }
    }
}

/// Without secrets.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_a_user_of_its_own() {
        let signed = Signed {
            key: b"0123456789abcdef0123456789abcdef\n".to_vec(),
            algorithm: "HS256".to_owned(),
            issuer: "https://id.example".to_owned(),
            audience: "roomcast".to_owned(),
            user: "load-{client}".to_owned(),
            lifetime: Duration::from_secs(60),
            claims: Map::from_iter([("iss".to_owned(), "another".into()), ("roles".to_owned(), "load".into())]),
        };
        let source = Tokens::Signed(Box::new(signed)).source().expect("a secret");
        for client in [0, 7] {
            let token = source.token(client).expect("a token");
            let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(&token).expect("a token").claims;
            let expected = [("iss", "https://id.example"), ("roles", "load"), ("sub", &format!("load-{client}"))];
            assert!(expected.iter().all(|(claim, value)| claims[*claim] == *value), "{claims}");
            assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|issued| issued + 60));
        }
    }

    #[test]
    fn clients_send_the_tokens_of_a_file_in_turn() {
        let source = Tokens::listed("a\nb \n").and_then(|tokens| tokens.source()).expect("two tokens");
        let sent: Vec<_> = (0..3).map(|client| source.token(client).expect("a token")).collect();
        assert_eq!(sent, ["a", "b", "a"]);
        for (text, expected) in [("", "is empty"), ("a\n\nb", "line 2"), ("a b", "line 1")] {
            let error = Tokens::listed(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! Tokens that tests sign with a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// Returns a token of the issuer `https://id.example` for Ann, a member of the team red, which
/// expires in five minutes. `changes` replace or add claims.
pub fn token(secret: &str, changes: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = json!({
        "iss": "https://id.example", "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300, "team": "red",
        "roles": ["member"],
    });
    claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}

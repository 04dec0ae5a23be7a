//! Tokens that tests sign with a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::write_file;

/// The secret of the issuer in [`issuer`].
pub const SECRET: &str = "0123456789abcdef-0123456789abcdef";

/// Returns the table of the issuer `https://id.example`, whose secret is in a file of this name. Each
/// test has a name of its own, because a node may read a file while another test writes it.
pub fn issuer(name: &str) -> String {
    let secret_file = write_file(&format!("{name}-secret"), SECRET);
    format!(
        r#"
[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["HS256"]
secret_file = "{secret_file}"
roles_claim = "roles"
"#
    )
}

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

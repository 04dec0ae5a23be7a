//! Keys as openssl makes them, and the tokens that they sign.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use roomcast_auth::Algorithm;
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A key pair for ES256.
pub struct KeyPair {
    pub private_pem: Vec<u8>,
    pub public_pem: Vec<u8>,
}

impl KeyPair {
    pub fn generate() -> Self {
        let sec1 = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], &[]);
        let private_pem = openssl(&["pkcs8", "-topk8", "-nocrypt"], &sec1);
        let public_pem = openssl(&["pkey", "-pubout"], &private_pem);
        Self { private_pem, public_pem }
    }

    pub fn sign(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_ec_pem(&self.private_pem).unwrap()).unwrap()
    }

    /// A token as the issuer makes it.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&Header::new(Algorithm::ES256), claims)
    }

    /// The public key as an issuer publishes it.
    pub fn jwk(&self, id: &str) -> Value {
        // The last 64 bytes of the DER form are the coordinates of the point.
        let der = openssl(&["pkey", "-pubin", "-outform", "DER"], &self.public_pem);
        let (x, y) = der[der.len() - 64..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y })
    }
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

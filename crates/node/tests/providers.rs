//! The guides for identity providers: the configuration of each guide accepts the token that the guide shows, and `check`
//! prints what the guide promises.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roomcast_testkit::{JwksReply, JwksServer};
use serde_json::{Value, json};
use support::{run, write_file};

/// The key of a provider, and the set in which it publishes the key.
struct ProviderKey {
    key: EncodingKey,
    set: Value,
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is installed");
    child.stdin.take().expect("a pipe").write_all(input).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

impl ProviderKey {
    fn rs256() -> Self {
        let pem = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &[]);
        let modulus = String::from_utf8(openssl(&["rsa", "-modulus", "-noout"], &pem)).expect("text");
        let hex = modulus.trim().strip_prefix("Modulus=").expect("a modulus");
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"));
        let n = URL_SAFE_NO_PAD.encode(bytes.collect::<Vec<_>>());
        let jwk = |id: &str, purpose: &str, algorithm: &str| json!({ "kid": id, "kty": "RSA", "use": purpose, "alg": algorithm, "n": n, "e": "AQAB" });
        // Keycloak also publishes a key for encryption.
        let set = json!({ "keys": [jwk("other", "enc", "RSA-OAEP"), jwk("current", "sig", "RS256")] });
        Self { key: EncodingKey::from_rsa_pem(&pem).expect("a key"), set }
    }

    fn es256() -> Self {
        let pem = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], &[]);
        // The last 64 bytes of the DER form are the coordinates of the point.
        let der = openssl(&["pkey", "-pubout", "-outform", "DER"], &pem);
        let (x, y) = der[der.len() - 64..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        let jwk = json!({
            "kid": "current", "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "key_ops": ["verify"],
            "ext": true, "x": x, "y": y,
        });
        Self { key: EncodingKey::from_ec_pem(&pem).expect("a key"), set: json!({ "keys": [jwk] }) }
    }

    /// A token with the claims of a guide, issued 10 s ago.
    fn token(&self, algorithm: Algorithm, kind: &str, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        (header.kid, header.typ) = (Some("current".to_owned()), Some(kind.to_owned()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let time = |name: &str| claims[name].as_u64().expect("a time");
        let mut claims = claims.clone();
        (claims["iat"], claims["exp"]) = (json!(now - 10), json!(now - 10 + time("exp") - time("iat")));
        jsonwebtoken::encode(&header, &claims, &self.key).expect("a token")
    }
}

/// The first sample of a guide in a language.
fn sample<'a>(guide: &'a str, language: &str) -> &'a str {
    let (_, rest) = guide.split_once(&format!("```{language}\n")).expect("the guide has such a sample");
    rest.split_once("```").expect("the sample ends").0
}

/// Does what a guide does, with tokens whose header names one of these types.
async fn check(name: &str, guide: &str, key: &ProviderKey, algorithm: Algorithm, kinds: &[&str]) {
    let server = JwksServer::start_plain(JwksReply::Body(key.set.to_string())).await;
    let shown = sample(guide, "toml");
    let (before, rest) = shown.split_once("\njwks = \"https://").expect("the guide fetches the keys");
    let (_, after) = rest.split_once('"').expect("a text");
    let file = write_file(&format!("{name}.toml"), &format!("{before}\njwks = \"{}\"{after}", server.url));
    let claims: Value = serde_json::from_str(sample(guide, "json")).expect("JSON");
    let (command, expected) = sample(guide, "console").split_once('\n').expect("a command and its output");

    for kind in kinds {
        let token_file = write_file(&format!("{name}.token"), &key.token(algorithm, kind, &claims));
        let words = command.strip_prefix("$ roomcast ").expect("a command").split(' ');
        let arguments: Vec<_> = words
            .map(|word| match word {
                "roomcast.toml" => &*file,
                "token.txt" => &*token_file,
                word => word,
            })
            .collect();
        let output = run(&arguments, &[]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_for_keycloak_works() {
    let guide = include_str!("../../../docs/guides/keycloak.md");
    check("keycloak", guide, &ProviderKey::rs256(), Algorithm::RS256, &["JWT"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_for_auth0_works_with_both_token_profiles() {
    let guide = include_str!("../../../docs/guides/auth0.md");
    check("auth0", guide, &ProviderKey::rs256(), Algorithm::RS256, &["JWT", "at+jwt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_for_supabase_works() {
    let guide = include_str!("../../../docs/guides/supabase.md");
    check("supabase", guide, &ProviderKey::es256(), Algorithm::ES256, &["JWT"]).await;
}

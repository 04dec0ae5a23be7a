//! A node whose issuer publishes its keys at a URL.

mod support;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use roomcast_testkit::{Client, JwksReply, JwksServer, Node};
use serde_json::json;
use support::log::Log;
use support::{BINARY, Scrape, error_of, run, wait_for_values, write_file};

/// The key pair of the issuer, as in RFC 8037, appendix A: that of a test, and known to everybody.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const KEY_SET: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "use": "sig", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

const EXIT_USAGE: i32 = 2;

const FETCHED: &str = "roomcast_jwks_fetches_total{issuer=\"https://id.example\",result=\"ok\"}";
const AGE: &str = "roomcast_jwks_age_seconds{issuer=\"https://id.example\"}";

fn config(url: &str, ca: &str, role: &str) -> String {
    format!(
        r#"
[auth]
jwks_ca = "{ca}"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["EdDSA"]
jwks = "{url}"

[[role]]
name = "{role}"
allow = [{{ rooms = ["lobby"], do = ["join"] }}]
"#
    )
}

fn ca(server: &JwksServer) -> String {
    server.ca_certificate().to_str().expect("a path in UTF-8").to_owned()
}

fn token(key_id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.kid = Some(key_id.to_owned());
    let claims = json!({ "iss": "https://id.example", "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300 });
    let key = EncodingKey::from_ed_pem(PRIVATE_KEY.as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, &claims, &key).expect("a token")
}

/// The status of a rejected request, or `None` if the client could connect.
async fn connect(node: &Node, token: &str) -> Option<u16> {
    let connected = Client::connect_with(&node.url(), &[("authorization", &format!("Bearer {token}"))]).await;
    connected.err().map(|error| error.status().expect("a response"))
}

#[tokio::test]
async fn a_ready_node_has_the_keys_and_keeps_them_when_it_reloads() {
    let server = JwksServer::start(JwksReply::Body(KEY_SET.to_owned())).await;
    let ca = ca(&server);
    let file = write_file("jwks-up.toml", &config(&server.url, &ca, "member"));
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let node = Node::start_by(command, &["--config", &file]).await;
    let scrape = Scrape::of(&node).await;
    assert_eq!(scrape.value(FETCHED), Some(1.0), "before the node is ready");
    assert!(scrape.value(AGE).is_some_and(|age| age < 60.0));
    assert_eq!(connect(&node, &token("1")).await, None);
    // Tokens of unknown keys cause no further fetch yet.
    assert_eq!(connect(&node, &token("2")).await, Some(401));

    server.reply(JwksReply::Close);
    write_file("jwks-up.toml", &config(&server.url, &ca, "guest"));
    node.signal("HUP");
    log.until("configuration reloaded");
    assert_eq!(connect(&node, &token("1")).await, None);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_node_starts_while_the_issuer_does_not_respond_and_fetches_from_a_new_url_at_once() {
    let server = JwksServer::start(JwksReply::Silence).await;
    let ca = ca(&server);
    let file = write_file("jwks-down.toml", &config(&server.url, &ca, "member"));
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let node = Node::start_by(command, &["--config", &file, "--log", "debug"]).await;
    let failed = FETCHED.replace("\"ok\"", "\"timeout\"");
    wait_for_values(&node, &[(&failed, 1.0), (AGE, f64::INFINITY)]).await;
    assert_eq!(connect(&node, &token("1")).await, Some(503));
    let lines = log.until("a token was rejected");
    for expected in [
        "its tokens are rejected until a fetch succeeds",
        "cannot be verified: there was no complete response within 5 s",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{lines:#?}");
    }

    let moved = JwksServer::start_plain(JwksReply::Body(KEY_SET.to_owned())).await;
    write_file("jwks-down.toml", &config(&moved.url, &ca, "member"));
    node.signal("HUP");
    log.until("configuration reloaded");
    assert_eq!(connect(&node, &token("1")).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fetches_the_keys() {
    let server = JwksServer::start(JwksReply::Body(KEY_SET.to_owned())).await;
    let file = write_file("jwks-check.toml", &config(&server.url, &ca(&server), "member"));
    let output = run(&["check", "--config", &file], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("The keys of issuer https://id.example can be fetched."),
        "{text}"
    );

    server.reply(JwksReply::Redirect("https://evil.example".to_owned()));
    let output = run(&["check", "--config", &file], &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = "cannot fetch the keys of issuer https://id.example: the response has status 302";
    assert!(output.status.code() == Some(1) && error.contains(expected), "{error}");
}

#[test]
fn a_wrong_url_or_file_is_reported_with_its_place() {
    let not_pem = write_file("jwks-ca.txt", "text");
    for (url, ca, expected) in [
        ("http://id.example/jwks", "off", ":9: auth.issuer.0.jwks: http is allowed only for localhost"),
        ("https://u:c4n4ry@id.example", "off", ":9: auth.issuer.0.jwks: the URL of a JWK set must not contain"),
        ("id.example", "off", ":9: auth.issuer.0.jwks: not an https URL"),
        ("https://id.example\"\njwks_file = \"x", "off", "exactly one of jwks, jwks_file"),
        ("https://id.example", &not_pem, "auth.jwks_ca: cannot use"),
    ] {
        let file = write_file("jwks-wrong.toml", &config(url, ca, "member"));
        let error = error_of(&run(&["check", "--config", &file], &[]), EXIT_USAGE);
        assert!(error.contains(expected) && !error.contains("c4n4ry"), "{error}");
    }
}

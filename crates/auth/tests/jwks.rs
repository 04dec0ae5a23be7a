//! Keys that an issuer publishes at a URL: rotation, failures, and floods of unknown key ids.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::http::Request;
use common::{KeyPair, now};
use jsonwebtoken::Header;
use roomcast::{Authorizer, Code};
use roomcast_auth::{
    Algorithm, FETCH_TIMEOUT, FetchError, Issuer, JwksClient, JwtAuthorizer, MAX_JWKS_LEN, Policy, RemoteKeys,
    TokenError,
};
use roomcast_testkit::{JwksReply, JwksServer, free_port};
use serde_json::{Value, json};

const ISSUER: &str = "https://id.example";
const OTHER_ISSUER: &str = "https://other.example";

fn set(keys: &[(&str, &KeyPair)]) -> JwksReply {
    let keys: Vec<Value> = keys.iter().map(|(id, pair)| pair.jwk(id)).collect();
    JwksReply::Body(json!({ "keys": keys }).to_string())
}

fn client(server: &JwksServer) -> JwksClient {
    JwksClient::trusting(&std::fs::read(server.ca_certificate()).unwrap()).unwrap()
}

/// Accepts tokens of issuers that publish their keys on these servers.
fn authorizer(issuers: &[(&str, &JwksServer)]) -> JwtAuthorizer {
    let keys = |server: &JwksServer| RemoteKeys::new(server.url.parse().unwrap(), client(server));
    authorizer_with(issuers.iter().map(|(name, server)| (*name, keys(server))).collect())
}

fn authorizer_with(issuers: Vec<(&str, RemoteKeys)>) -> JwtAuthorizer {
    let of_policy = issuers.iter().map(|(name, _)| {
        let mut issuer = Issuer::new(*name, ["roomcast"], [Algorithm::ES256]);
        issuer.user_prefix = if *name == ISSUER { "own-" } else { "other-" }.to_owned();
        issuer
    });
    let policy = Policy::new(of_policy.collect(), BTreeMap::new(), None).unwrap();
    let keys = issuers.into_iter().map(|(name, keys)| (name.to_owned(), keys.into()));
    JwtAuthorizer::new(policy, keys.collect()).unwrap()
}

fn token(pair: &KeyPair, id: &str, issuer: &str) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    let now = now();
    pair.sign(&header, &json!({ "iss": issuer, "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300 }))
}

/// Lets time pass at once.
async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn code(authorizer: &JwtAuthorizer, token: &str) -> Option<Code> {
    let request = Request::get("/socket").header("authorization", format!("Bearer {token}"));
    let request = request.body(()).unwrap().into_parts().0;
    authorizer.authorize(&request).await.err().map(|error| error.code)
}

#[tokio::test]
async fn keys_are_fetched_over_tls_that_the_ca_certificates_prove() {
    let pair = KeyPair::generate();
    let server = JwksServer::start(set(&[("1", &pair)])).await;
    let url = server.url.parse().unwrap();
    assert!(client(&server).fetch(&url).await.is_ok());
    // Another CA certificate, and those of the system.
    let other = JwksServer::start(JwksReply::Close).await;
    for client in [client(&other), JwksClient::new()] {
        assert!(matches!(client.fetch(&url).await, Err(FetchError::Tls(_))));
    }
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn what_is_not_a_jwk_set_is_an_error() {
    let (pair, elsewhere) = (KeyPair::generate(), JwksServer::start_plain(JwksReply::Status(500)).await);
    let server = JwksServer::start(JwksReply::Close).await;
    let (client, url) = (client(&server), server.url.parse().unwrap());
    let largest = |len: usize| {
        let JwksReply::Body(mut body) = set(&[("1", &pair)]) else { panic!("a body") };
        body.push_str(&" ".repeat(len - body.len()));
        JwksReply::Body(body)
    };
    for (reply, expected) in [
        (JwksReply::Close, "the HTTP request failed"),
        (JwksReply::Status(503), "status 503"),
        (JwksReply::Status(204), "status 204"),
        (JwksReply::Redirect(elsewhere.url.clone()), "redirects are not followed"),
        (largest(257 * 1024), "more than 262144 bytes"),
        (JwksReply::Body("<html>".to_owned()), "not a JWK set"),
        (JwksReply::Body(r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#.to_owned()), "none of the 1 keys"),
    ] {
        server.reply(reply.clone());
        let error = client.fetch(&url).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(elsewhere.requests(), 0);
    server.reply(JwksReply::Silence);
    let requests = server.requests();
    let (fetched, ()) = tokio::join!(client.fetch(&url), async {
        while server.requests() == requests {
            tokio::task::yield_now().await;
        }
        advance(FETCH_TIMEOUT).await;
    });
    assert_eq!(fetched.unwrap_err(), FetchError::Timeout);
    server.reply(largest(MAX_JWKS_LEN));
    assert!(client.fetch(&url).await.is_ok());
    let closed = format!("http://127.0.0.1:{}/jwks.json", free_port()).parse().unwrap();
    assert!(matches!(client.fetch(&closed).await, Err(FetchError::Connect(_))));
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_causes_one_fetch() {
    let pair = KeyPair::generate();
    let server = JwksServer::start(set(&[("1", &pair)])).await;
    let authorizer = authorizer(&[(ISSUER, &server)]);
    // The first tokens start the fetch, and share it.
    let first = token(&pair, "1", ISSUER);
    let (a, b, c) = tokio::join!(authorizer.verify(&first), authorizer.verify(&first), authorizer.verify(&first));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    for id in 0..300 {
        let unknown = token(&pair, &format!("random-{id}"), ISSUER);
        assert_eq!(authorizer.verify(&unknown).await, Err(TokenError::UnknownKey));
    }
    assert!(authorizer.verify(&first).await.is_ok());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_accepted_after_30_s_at_most_and_the_withdrawn_key_is_rejected() {
    let (old, new) = (KeyPair::generate(), KeyPair::generate());
    let server = JwksServer::start(set(&[("old", &old)])).await;
    let authorizer = authorizer(&[(ISSUER, &server)]);
    let (old, new) = (token(&old, "old", ISSUER), (token(&new, "new", ISSUER), set(&[("new", &new)])));
    assert!(authorizer.verify(&old).await.is_ok());
    server.reply(new.1);
    assert_eq!(authorizer.verify(&new.0).await, Err(TokenError::UnknownKey));
    advance(Duration::from_secs(30)).await;
    assert!(authorizer.verify(&new.0).await.is_ok());
    assert_eq!(authorizer.verify(&old).await, Err(TokenError::UnknownKey));
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn keys_are_used_for_24_h_while_the_issuer_is_down_and_the_log_tells_the_operator() {
    let log = LazyLock::force(&LOG);
    let pair = KeyPair::generate();
    let server = JwksServer::start(set(&[("1", &pair)])).await;
    let authorizer = authorizer(&[(ISSUER, &server)]);
    let token = token(&pair, "1", ISSUER);
    assert!(authorizer.verify(&token).await.is_ok());

    server.reply(JwksReply::Status(500));
    advance(Duration::from_secs(10 * 60)).await;
    log.until("cannot fetch the keys of an issuer; the previous keys stay in use", &server).await;
    assert!(authorizer.verify(&token).await.is_ok());
    advance(Duration::from_secs(24 * 3600)).await;
    log.until("the keys of an issuer are older than 24 h", &server).await;
    assert!(matches!(authorizer.verify(&token).await, Err(TokenError::KeysUnavailable { .. })));

    server.reply(set(&[("1", &pair)]));
    advance(Duration::from_secs(30)).await;
    log.until("fetched the keys of an issuer again", &server).await;
    assert!(authorizer.verify(&token).await.is_ok());
}

/// What all tests of this process have logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    log
});

impl Log {
    /// Waits for a line about the keys on a server.
    async fn until(&self, text: &str, server: &JwksServer) {
        let is_it = |line: &str| line.contains(text) && line.contains(&server.url);
        while !String::from_utf8_lossy(&self.0.lock().unwrap()).lines().any(is_it) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_id_belongs_to_one_issuer() {
    let (own, other) = (KeyPair::generate(), KeyPair::generate());
    let (own_server, other_server) =
        (JwksServer::start(set(&[("1", &own)])).await, JwksServer::start(set(&[("1", &other)])).await);
    let authorizer = authorizer(&[(ISSUER, &own_server), (OTHER_ISSUER, &other_server)]);
    authorizer.fetch_keys().await;
    assert!(authorizer.verify(&token(&own, "1", ISSUER)).await.is_ok());
    assert!(authorizer.verify(&token(&other, "1", OTHER_ISSUER)).await.is_ok());
    for (pair, issuer) in [(&own, OTHER_ISSUER), (&other, ISSUER)] {
        assert_eq!(authorizer.verify(&token(pair, "1", issuer)).await, Err(TokenError::Signature));
    }
}

#[tokio::test]
async fn a_client_gets_unavailable_while_there_are_no_keys() {
    let pair = KeyPair::generate();
    let server = JwksServer::start(JwksReply::Status(500)).await;
    let authorizer = authorizer(&[(ISSUER, &server)]);
    authorizer.fetch_keys().await;
    let token = token(&pair, "1", ISSUER);
    let error = authorizer.verify(&token).await.unwrap_err().to_string();
    assert!(error.contains("\"https://id.example\" cannot be fetched") && error.contains("status 500"), "{error}");
    assert!(matches!(authorizer.remote_issuers().get(ISSUER), Some(Some(FetchError::Status(_)))));
    assert_eq!(code(&authorizer, &token).await, Some(Code::Unavailable));
    assert_eq!(code(&authorizer, "nonsense").await, Some(Code::Unauthenticated));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_client_waits_4_s_at_most_for_a_slow_issuer() {
    let pair = KeyPair::generate();
    let server = JwksServer::start(JwksReply::Silence).await;
    let authorizer = authorizer(&[(ISSUER, &server)]);
    let token = token(&pair, "1", ISSUER);
    let (code, ()) = tokio::join!(code(&authorizer, &token), async {
        while server.requests() == 0 {
            tokio::task::yield_now().await;
        }
        advance(Duration::from_secs(4)).await;
    });
    assert_eq!(code, Some(Code::Unavailable));
    assert!(matches!(authorizer.remote_issuers().get(ISSUER), Some(None)), "the fetch has not ended");
}

#[tokio::test]
async fn an_issuer_with_the_same_url_keeps_its_keys_when_the_rules_are_replaced() {
    let (pair, rotated) = (KeyPair::generate(), KeyPair::generate());
    let server = JwksServer::start(set(&[("1", &pair)])).await;
    let running = authorizer(&[(ISSUER, &server)]);
    running.fetch_keys().await;
    // The issuer is down during the reload, and stays down.
    server.reply(JwksReply::Close);
    running.replace(&authorizer(&[(ISSUER, &server), (OTHER_ISSUER, &server)]));
    running.fetch_keys().await;
    assert!(running.verify(&token(&pair, "1", ISSUER)).await.is_ok());
    let of_new_issuer = running.verify(&token(&pair, "1", OTHER_ISSUER)).await;
    assert!(matches!(of_new_issuer, Err(TokenError::KeysUnavailable { .. })), "{of_new_issuer:?}");
    assert_eq!(server.requests(), 2, "one fetch for each issuer");

    // With other CA certificates, the fetch fails, and the keys stay in use.
    let other = JwksServer::start(JwksReply::Close).await;
    let keys = RemoteKeys::new(server.url.parse().unwrap(), client(&other));
    running.replace(&authorizer_with(vec![(ISSUER, keys)]));
    running.fetch_keys().await;
    while !matches!(running.remote_issuers().get(ISSUER), Some(Some(FetchError::Tls(_)))) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.verify(&token(&pair, "1", ISSUER)).await.is_ok());

    let moved = JwksServer::start(set(&[("2", &rotated)])).await;
    running.replace(&authorizer(&[(ISSUER, &moved)]));
    assert!(running.verify(&token(&rotated, "2", ISSUER)).await.is_ok());
    assert_eq!(running.verify(&token(&pair, "1", ISSUER)).await, Err(TokenError::UnknownKey));
}

//! Tokens that must be rejected, each for its reason, and tokens of well-known providers that must not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{KeyPair, now};
use jsonwebtoken::{EncodingKey, Header};
use roomcast::{Grants, Right, Subject};
use roomcast_auth::{
    Algorithm, Issuer, JwtAuthorizer, Keys, NewToken, Policy, SigningError, SigningKey, Token, TokenError,
};
use serde_json::{Value, json};

static OWN: LazyLock<KeyPair> = LazyLock::new(KeyPair::generate);
static OTHER: LazyLock<KeyPair> = LazyLock::new(KeyPair::generate);

const ISSUER: &str = "https://id.example";
const OTHER_ISSUER: &str = "https://other.example";

/// Accepts the tokens of two issuers whose keys have the same id.
static AUTHORIZER: LazyLock<JwtAuthorizer> = LazyLock::new(|| {
    let mut own = Issuer::new(ISSUER, ["roomcast"], [Algorithm::ES256]);
    (own.roles_claim, own.user_prefix) = (Some("realm_access.roles".to_owned()), "id-".to_owned());
    let mut other = Issuer::new(OTHER_ISSUER, ["roomcast"], [Algorithm::ES256]);
    other.user_prefix = "other-".to_owned();
    let policy = Policy::new(vec![own, other], BTreeMap::new(), None).unwrap();
    let keys = |pair: &KeyPair| Keys::from_jwks(json!({ "keys": [pair.jwk("1")] }).to_string().as_bytes()).unwrap();
    let keys = [(ISSUER, &*OWN), (OTHER_ISSUER, &*OTHER)].map(|(issuer, pair)| (issuer.to_owned(), keys(pair).into()));
    JwtAuthorizer::new(policy, BTreeMap::from(keys)).unwrap()
});

fn claims() -> Value {
    let now = now();
    json!({ "iss": ISSUER, "aud": ["account", "roomcast"], "sub": "ann", "iat": now - 10, "exp": now + 300 })
}

/// The claims with some of them changed, or removed where the change is null.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A token whose header is written by hand, with a signature that belongs to another token.
fn forged(header: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = OWN.token(&claims());
    format!("{}.{}.{}", part(header), part(&claims()), signed.rsplit('.').next().unwrap())
}

fn verify(token: &str) -> Result<Token, TokenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(AUTHORIZER.verify(token))
}

#[track_caller]
fn accepted(token: &str) -> Token {
    verify(token).unwrap()
}

#[track_caller]
fn rejected(token: &str, reason: &str) {
    let error = verify(token).expect_err(reason).to_string();
    assert!(error.contains(reason), "{error:?} does not contain {reason:?}");
}

#[test]
fn a_valid_token_names_its_user() {
    let token = accepted(&OWN.token(&claims()));
    assert_eq!((&*token.user, &*token.issuer), ("id-ann", ISSUER));
    assert_eq!(token.expires_at, token.issued_at + Duration::from_secs(310));
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("1".to_owned());
    accepted(&OWN.sign(&header, &claims()));
}

#[test]
fn an_algorithm_that_the_issuer_does_not_use_is_rejected() {
    rejected(&forged(&json!({ "alg": "none" })), "not a signed JWT");
    rejected(&forged(&json!({ "alg": "None", "typ": "JWT" })), "not a signed JWT");
    rejected(&forged(&json!({ "alg": "RS256" })), "does not use the algorithm RS256");
    // The public key as the secret of an HMAC.
    let secret = EncodingKey::from_secret(&OWN.public_pem);
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &secret).unwrap();
    rejected(&confused, "does not use the algorithm HS256");
}

#[test]
fn keys_in_a_header_are_ignored_and_unknown_extensions_rejected() {
    let attacker = KeyPair::generate();
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("jwk", attacker.jwk("1")),
    ] {
        rejected(&forged(&json!({ "alg": "ES256", name: value })), "signature is not valid");
    }
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(serde_json::from_value(attacker.jwk("1")).unwrap());
    rejected(&attacker.sign(&header, &claims()), "signature is not valid");
    rejected(&forged(&json!({ "alg": "ES256", "crit": ["exp2"], "exp2": 1 })), "requires extensions");
    let mut header = Header::new(Algorithm::ES256);
    header.crit = Some(vec!["b64".to_owned()]);
    rejected(&OWN.sign(&header, &claims()), "requires extensions");
}

#[test]
fn wrong_claims_are_rejected_with_their_names() {
    let now = now();
    let cases = [
        (json!({ "exp": null }), "`exp` is missing"),
        (json!({ "exp": "2000000000" }), "`exp` is not a number"),
        (json!({ "exp": -1 }), "`exp` is not a number"),
        (json!({ "exp": 1e300 }), "`exp` is not a number"),
        (json!({ "exp": now - 5 }), "the token expired "),
        (json!({ "exp": now + 86_391 }), "valid for 86401 s, longer than the 86400 s"),
        (json!({ "iat": null }), "`iat` is missing"),
        (json!({ "iat": now + 300 }), "`iat` is 2"),
        (json!({ "iat": now + 20, "exp": now + 10 }), "`exp` is before `iat`"),
        (json!({ "nbf": now + 300 }), "`nbf` is 2"),
        (json!({ "nbf": "soon" }), "`nbf` is not a number"),
        (json!({ "aud": null }), "`aud` is none of [\"roomcast\"]"),
        (json!({ "aud": "roomcast2" }), "`aud` is none of"),
        (json!({ "aud": { "roomcast": true } }), "`aud` is none of"),
        (json!({ "iss": null }), "missing field `iss`"),
        (json!({ "iss": "https://evil.example" }), "no issuer \"https://evil.example\" is configured"),
        (json!({ "sub": null }), "`sub` is missing"),
        (json!({ "sub": 7 }), "`sub` is not a string"),
        (json!({ "sub": "" }), "`sub` is empty"),
        (json!({ "sub": "a".repeat(300) }), "`sub` is 303 bytes long"),
        (json!({ "sub": "ann\n" }), "`sub` is not a user"),
        (json!({ "sub": "ann\u{202e}" }), "`sub` is not a user"),
        (json!({ "roomcast": { "allow": [{ "rooms": ["team-*"], "do": ["join"] }] } }), "\"team-*\" is not a wildcard"),
        (json!({ "roomcast": { "allow": [{ "rooms": ["a"], "do": ["call"] }] } }), "\"call\" is not a right on rooms"),
        (json!({ "roomcast": { "allow": [{ "rooms": ["a"], "do": [] }] } }), "name at least one right"),
        (json!({ "roomcast": { "rules": [] } }), "unknown field `rules`"),
        (json!({ "roomcast": { "join": vec!["r"; 101] } }), "`roomcast.join` is a list of 101 rooms"),
        (json!({ "roomcast": { "join": ["team:*"] } }), "a name contains no wildcard"),
        (json!({ "roomcast": { "join": ["{claim.team}"] } }), "there is no value for {claim.team}"),
        (json!({ "roomcast": { "meta": "m".repeat(2047) } }), "`roomcast.meta` is 2049 bytes long"),
    ];
    for (changes, reason) in cases {
        rejected(&OWN.token(&with(&changes)), reason);
    }
}

/// Operators read the reason in a log, a line each.
#[test]
fn no_token_writes_lines_into_a_log() {
    let forged_line = "x\n2026-01-01T00:00:00Z  INFO forged\u{1b}[31m";
    let in_header = forged(&json!({ "alg": forged_line }));
    let in_claims = OWN.token(&with(&json!({ "roomcast": { forged_line: 1 } })));
    let in_room = OWN.token(&with(&json!({ "roomcast": { "join": [forged_line] } })));
    for token in [in_header, in_claims, in_room] {
        let error = verify(&token).unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && error.contains("forged"), "{error:?}");
    }
}

#[test]
fn what_is_no_token_is_rejected() {
    let valid = OWN.token(&claims());
    for text in ["", ".", "..", "a.b.c", "\u{0}", &valid[..valid.len() - 20], &format!("{valid}.x")] {
        assert!(verify(text).is_err(), "{text:?}");
    }
    let mut parts = valid.split('.').map(ToOwned::to_owned).collect::<Vec<_>>();
    parts[1] = URL_SAFE_NO_PAD.encode(with(&json!({ "sub": "admin" })).to_string());
    rejected(&parts.join("."), "signature is not valid");
    rejected(&"a".repeat(8193), "has 8193 bytes, more than the 8192 allowed");
}

#[test]
fn a_key_verifies_the_tokens_of_its_own_issuer_alone() {
    let other = with(&json!({ "iss": OTHER_ISSUER }));
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("1".to_owned());
    assert_eq!(&*accepted(&OTHER.sign(&header, &other)).user, "other-ann");
    rejected(&OWN.sign(&header, &other), "signature is not valid");
    rejected(&OTHER.sign(&header, &claims()), "signature is not valid");
    header.kid = Some("2".to_owned());
    rejected(&OWN.sign(&header, &claims()), "no key with the token's key id");
}

/// Names that are made to look like patterns, or like other names.
#[test]
fn no_user_name_widens_a_grant() {
    let extension = json!({ "allow": [{ "rooms": ["user:{user}:*"], "do": ["join"] }] });
    for (user, own) in [
        ("ann", Some("user:id-ann:inbox")),
        ("%2A", Some("user:id-%2A:inbox")),
        ("a.b", Some("user:id-a.b:inbox")),
        ("a:b", None),
        ("*", None),
        ("**", None),
    ] {
        let token = accepted(&OWN.token(&with(&json!({ "sub": user, "roomcast": extension }))));
        let grants = Grants::resolve(&token.allow, Subject { user: Some(&token.user), claims: &token.claims });
        for room in ["user:id-bob:inbox", "user:a:b", "user:*:inbox", "user:id-a:b:inbox", "user::inbox", "user"] {
            assert!(!grants.allow(Right::Join, room), "{user:?} may join {room:?}");
        }
        assert!(own.is_none_or(|room| grants.allow(Right::Join, room)), "{user:?}");
    }
}

#[test]
fn tokens_of_well_known_providers_work_unmodified() {
    // Keycloak nests roles, and sends more claims than it needs to.
    let keycloak = json!({
        "typ": "Bearer", "azp": "app", "session_state": "x", "realm_access": { "roles": ["member", "offline_access"] },
        "roomcast": { "roles": ["guest"], "join": ["user:{user}"] },
    });
    let token = accepted(&OWN.token(&with(&keycloak)));
    assert_eq!(token.roles, ["guest", "member", "offline_access"]);
    assert_eq!(token.join.iter().map(|room| room.to_string()).collect::<Vec<_>>(), ["user:id-ann"]);
    // Auth0 names custom claims by URLs, and users by a provider and an id. Its times have no fractions, Supabase's may.
    let auth0 = json!({ "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "https://app.example/team": 42, "aud": "roomcast" });
    let token = accepted(&OWN.token(&with(&auth0)));
    let subject = Subject { user: Some(&token.user), claims: &token.claims };
    assert_eq!(&*subject.room("team:{claim.https://app.example/team}").unwrap(), "team:42");
    accepted(&OWN.token(&with(&json!({ "iat": now() as f64 - 0.5, "app_metadata": { "provider": "email" } }))));
}

#[test]
fn a_signing_key_signs_what_its_public_key_verifies() {
    let key = SigningKey::from_pem(&OWN.private_pem, Algorithm::ES256).unwrap();
    let mut new = NewToken::new(ISSUER, "roomcast", "ann");
    new.claims = with(&json!({ "team": "red" })).as_object().unwrap().clone();
    let token = accepted(&key.clone().with_id("1").sign(&new, SystemTime::now()).unwrap());
    assert_eq!((&*token.user, &token.claims["team"]), ("id-ann", &json!("red")));
    rejected(&key.with_id("2").sign(&new, SystemTime::now()).unwrap(), "no key with the token's key id");
    let error = SigningKey::from_pem(&OWN.public_pem, Algorithm::ES256).unwrap_err();
    assert_eq!(error, SigningError::NotAPrivateKey(Algorithm::ES256));
}

//! What becomes of requests: with and without tokens, from pages and from programs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{Request, StatusCode};
use common::{KeyPair, now};
use roomcast::testing::{Client, ClientBuilder, ConnectError};
use roomcast::{Code, MAX_PATTERNS, Node, Options, Right, Router, Socket};
use roomcast_auth::{Algorithm, Issuer, JwksClient, JwtAuthorizer, Keys, Origins, Policy, RemoteKeys};
use serde_json::{Value, json};

static KEYS: LazyLock<KeyPair> = LazyLock::new(KeyPair::generate);

const ISSUER: &str = "https://id.example";
const HOST: (&str, &str) = ("host", "app.example");
const OWN_PAGE: (&str, &str) = ("origin", "https://app.example");

fn policy() -> Policy {
    let rules = |rules: Value| serde_json::from_value(rules).unwrap();
    let mut issuer = Issuer::new(ISSUER, ["roomcast"], [Algorithm::ES256]);
    issuer.roles_claim = Some("roles".to_owned());
    let member = rules(json!([{ "rooms": ["team:{claim.team}:*"], "do": ["join", "publish"] }]));
    let public = rules(json!([{ "rooms": ["public:*"], "do": ["join"] }]));
    Policy::new(vec![issuer], BTreeMap::from([("member".to_owned(), member)]), Some(public)).unwrap()
}

fn authorizer() -> JwtAuthorizer {
    let keys = Keys::from_pem(&KEYS.public_pem, &[Algorithm::ES256]).unwrap();
    JwtAuthorizer::new(policy(), BTreeMap::from([(ISSUER.to_owned(), keys.into())])).unwrap()
}

fn token(changes: &Value) -> String {
    let now = now();
    let mut claims = json!({
        "iss": ISSUER, "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300, "team": "red", "roles": ["member"],
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    KEYS.token(&claims)
}

async fn connect(
    authorizer: &JwtAuthorizer,
    uri: &str,
    headers: &[(&str, &str)],
) -> Result<(Client, Socket), StatusCode> {
    let router = Router::new(Node::embedded(Options::default())).authorizer(authorizer.clone());
    let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
    let connected = ClientBuilder::default().request(request.body(()).unwrap()).connect(&router).await;
    connected.map_err(|error| match error {
        ConnectError::Refused { status, .. } => status,
        other => panic!("{other}"),
    })
}

async fn may_join(client: &mut Client, room: &str) -> bool {
    match client.call(&format!("rooms/join/{room}"), ()).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code, Code::PermissionDenied);
            false
        }
    }
}

#[tokio::test]
async fn a_token_gives_a_user_and_the_rights_of_its_roles() {
    let bearer = format!("Bearer {}", token(&json!({})));
    let offered = format!("websocket.io-rpc-v0.1, roomcast.token.{}", token(&json!({})));
    for credential in [("authorization", &*bearer), ("sec-websocket-protocol", &*offered)] {
        let (mut client, socket) = connect(&authorizer(), "/socket", &[HOST, credential]).await.unwrap();
        assert_eq!(socket.user().map(ToString::to_string).as_deref(), Some("ann"));
        assert!(may_join(&mut client, "team:red:a").await);
        assert!(!may_join(&mut client, "team:blue:a").await);
        assert!(!may_join(&mut client, "public:news").await, "rules for anonymous clients are for them");
    }
}

#[tokio::test]
async fn a_page_of_the_own_origin_may_be_anonymous_and_nobody_else() {
    let (mut client, socket) = connect(&authorizer(), "/socket", &[HOST, OWN_PAGE]).await.unwrap();
    assert_eq!(socket.user(), None);
    assert!(may_join(&mut client, "public:news").await);
    assert!(!may_join(&mut client, "team:red:a").await);

    let bearer = format!("Bearer {}", token(&json!({})));
    let (with_token, cookie) = (("authorization", &*bearer), ("cookie", "session=1"));
    let foreign = ("origin", "https://evil.example");
    for (headers, expected) in [
        (&[HOST][..], StatusCode::UNAUTHORIZED),
        (&[HOST, cookie], StatusCode::UNAUTHORIZED),
        (&[HOST, ("authorization", "Bearer nonsense")], StatusCode::UNAUTHORIZED),
        (&[HOST, OWN_PAGE, ("authorization", "Bearer nonsense")], StatusCode::UNAUTHORIZED),
        (&[HOST, foreign], StatusCode::FORBIDDEN),
        (&[HOST, foreign, cookie], StatusCode::FORBIDDEN),
        (&[HOST, foreign, with_token], StatusCode::FORBIDDEN),
        (&[HOST, ("origin", "null"), with_token], StatusCode::FORBIDDEN),
        (&[HOST, OWN_PAGE, OWN_PAGE, with_token], StatusCode::FORBIDDEN),
    ] {
        assert_eq!(connect(&authorizer(), "/socket", headers).await.unwrap_err(), expected, "{headers:?}");
    }
    let listed = authorizer().origins(Origins::listed(["https://evil.example"]).unwrap());
    assert!(connect(&listed, "/socket", &[HOST, foreign]).await.is_ok());
    assert_eq!(connect(&listed, "/socket", &[HOST, OWN_PAGE]).await.unwrap_err(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_app_without_a_token_is_anonymous_only_if_another_check_follows() {
    let strict = authorizer();
    assert_eq!(connect(&strict, "/", &[HOST]).await.err(), Some(StatusCode::UNAUTHORIZED));
    let followed = authorizer().anonymous_apps();
    let (mut app, _) = connect(&followed, "/", &[HOST]).await.unwrap();
    assert!(may_join(&mut app, "public:news").await && !may_join(&mut app, "team:red:a").await);
    assert!(connect(&followed, "/", &[HOST, ("origin", "https://evil.example")]).await.is_err());

    // New rules decide nothing about the check that follows.
    strict.replace(&followed);
    assert_eq!(connect(&strict, "/", &[HOST]).await.err(), Some(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_token_in_the_url_needs_to_be_allowed() {
    let uri = format!("/socket?token={}", token(&json!({})));
    assert_eq!(connect(&authorizer(), &uri, &[HOST]).await.unwrap_err(), StatusCode::UNAUTHORIZED);
    assert!(connect(&authorizer().token_in_query(), &uri, &[HOST]).await.is_ok());
}

#[tokio::test]
async fn a_refresh_takes_a_token_of_the_same_user_only() {
    let bearer = format!("Bearer {}", token(&json!({})));
    let (mut client, _) = connect(&authorizer(), "/socket", &[HOST, ("authorization", &bearer)]).await.unwrap();
    for rejected in [
        token(&json!({ "sub": "bob" })),
        token(&json!({ "iat": now() - 60 })),
        token(&json!({ "aud": "other" })),
        "nonsense".to_owned(),
    ] {
        let error = client.call("auth/refresh", rejected).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
    }
    assert!(may_join(&mut client, "team:red:a").await);
    client.call("auth/refresh", token(&json!({ "team": "blue" }))).await.unwrap();
    assert_eq!(client.event().await.json::<Value>(), json!({ "room": "team:red:a" }));
    assert!(may_join(&mut client, "team:blue:a").await);
}

#[tokio::test]
async fn replaced_rules_apply_to_new_requests() {
    let bearer = format!("Bearer {}", token(&json!({})));
    let headers = [HOST, ("authorization", &*bearer)];
    let authorizer = authorizer();
    let (mut client, _) = connect(&authorizer, "/socket", &headers).await.unwrap();
    let rotated = Keys::from_pem(&KeyPair::generate().public_pem, &[Algorithm::ES256]).unwrap();
    let other = JwtAuthorizer::new(policy(), BTreeMap::from([(ISSUER.to_owned(), rotated.into())])).unwrap();
    authorizer.replace(&other);
    assert_eq!(connect(&authorizer, "/socket", &headers).await.unwrap_err(), StatusCode::UNAUTHORIZED);
    assert!(may_join(&mut client, "team:red:a").await, "an open connection keeps its rights");
}

#[test]
fn an_issuer_without_keys_is_an_error() {
    let secret_needed = Policy::new(vec![Issuer::new(ISSUER, ["roomcast"], [Algorithm::HS256])], BTreeMap::new(), None);
    let url = "https://id.example/jwks".parse().unwrap();
    let keys = RemoteKeys::new(url, JwksClient::new()).into();
    let error = JwtAuthorizer::new(secret_needed.unwrap(), BTreeMap::from([(ISSUER.to_owned(), keys)])).unwrap_err();
    assert_eq!(error.to_string(), "issuer \"https://id.example\" has no key for its algorithms [HS256]");
    let error = JwtAuthorizer::new(policy(), BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "issuer \"https://id.example\" has no key for its algorithms [ES256]");
}

#[tokio::test]
async fn an_explanation_lists_each_rule_with_its_source_and_what_it_means() {
    let authorizer = authorizer();
    let extension = json!({ "allow": [{ "rooms": ["team:*:a"], "do": ["join"] }, { "calls": ["chat.*"], "do": ["call"] }], "join": ["den"] });
    let token = token(&json!({ "roles": ["member", "admin"], "roomcast": extension }));
    let explain = async |token: Option<&str>, right, name: &str| {
        let explanation = authorizer.explain(token, right, name).await;
        (explanation.to_string(), serde_json::to_value(&explanation).unwrap())
    };
    let (text, value) = explain(Some(&token), Right::Publish, "team:red:a").await;
    assert_eq!(
        text,
        "Client: user \"ann\" of issuer \"https://id.example\"\n\
         Right publish on room \"team:red:a\": granted by rule 3\n  \
         1. token: rooms team:*:a: join\n     does not grant publish\n  \
         2. token: calls chat.*: call\n     does not grant publish\n  \
         3. role \"member\": rooms team:{claim.team}:*: join, publish\n     grants the right\n\
         Ignored: role \"admin\" is not configured\n"
    );
    assert_eq!((&value["decision"], &value["decided_by"]), (&json!("granted"), &json!(2)));
    assert_eq!(value["rules"][2]["source"], json!({ "role": "member" }));

    let (text, value) = explain(Some(&token), Right::Join, "den").await;
    assert_eq!((&value["decision"], &value["joined_on_connect"]), (&json!("not_granted"), &json!(true)));
    assert!(text.contains("denied, because no rule grants it") && text.contains("does not match the name"), "{text}");

    let without_team = self::token(&json!({ "team": null }));
    let (text, _) = explain(Some(&without_team), Right::Join, "team:red:a").await;
    assert!(
        text.contains("matches nothing: pattern \"team:{claim.team}:*\": there is no value for {claim.team}"),
        "{text}"
    );

    let (text, _) = explain(None, Right::Join, "public:news").await;
    assert!(
        text.starts_with("Client: anonymous\n") && text.contains("1. auth.anonymous: rooms public:*: join"),
        "{text}"
    );
    let expired = self::token(&json!({ "exp": now() - 9 }));
    let (text, value) = explain(Some(&expired), Right::Join, "public:news").await;
    assert_eq!(value["decision"], json!("rejected"));
    assert!(text.starts_with("The client cannot connect: the token expired ") && !text.contains(&expired), "{text}");
}

/// An explanation agrees with the grants of a connection, whose patterns are limited.
#[tokio::test]
async fn an_explanation_agrees_with_the_grants() {
    let rooms: Vec<_> = (0..MAX_PATTERNS).map(|room| format!("room{room}")).collect();
    let allow = json!([{ "rooms": rooms, "do": ["join"] }, { "rooms": ["late"], "do": ["join"] }]);
    let policy = Policy::new(Vec::new(), BTreeMap::new(), Some(serde_json::from_value(allow).unwrap())).unwrap();
    let grants = policy.anonymous_grants().unwrap();
    for room in ["room0", "room999", "late", "room1000"] {
        let explanation = policy.explain(None, Right::Join, room);
        assert_eq!(explanation.is_granted(), grants.allow(Right::Join, room), "{explanation}");
        assert_eq!(explanation.to_string().contains("the largest number of patterns"), room == "late", "{explanation}");
    }
}

#[tokio::test]
async fn an_issuer_gives_no_more_than_its_limits_permit() {
    let rules = |room: &str| serde_json::from_value(json!([{ "rooms": [room], "do": ["join"] }])).unwrap();
    let roles = BTreeMap::from([("guest".to_owned(), rules("lobby")), ("admin".to_owned(), rules("**"))]);
    let extension =
        json!({ "roles": ["admin", "guest"], "allow": [{ "rooms": ["den"], "do": ["join"] }], "join": ["attic"] });
    let token = token(&json!({ "roomcast": extension }));
    for (is_limited, [lobby, cellar, den, attic]) in [(false, [true; 4]), (true, [true, false, false, false])] {
        let mut issuer = Issuer::new(ISSUER, ["roomcast"], [Algorithm::ES256]);
        if is_limited {
            issuer.roles = Some(["guest".to_owned()].into());
            issuer.token_grants = false;
        }
        let policy = Policy::new(vec![issuer], roles.clone(), None).unwrap();
        let keys = Keys::from_pem(&KEYS.public_pem, &[Algorithm::ES256]).unwrap();
        let authorizer = JwtAuthorizer::new(policy, BTreeMap::from([(ISSUER.to_owned(), keys.into())])).unwrap();
        let bearer = format!("Bearer {token}");
        let (mut client, socket) = connect(&authorizer, "/socket", &[HOST, ("authorization", &bearer)]).await.unwrap();
        assert_eq!(socket.rooms().iter().any(|room| **room == *"attic"), attic);
        for (room, expected) in [("lobby", lobby), ("cellar", cellar), ("den", den)] {
            assert_eq!(may_join(&mut client, room).await, expected, "{room}");
        }
        if is_limited {
            let text = authorizer.explain(Some(&token), Right::Join, "attic").await.to_string();
            for expected in [
                "claim `roomcast.allow`, because the issuer has token_grants = false",
                "claim `roomcast.join`, because the issuer has token_grants = false",
                "role \"admin\" is not one of the issuer's roles",
            ] {
                assert!(text.contains(expected) && !text.contains("joins this room"), "{text}");
            }
        }
    }
}

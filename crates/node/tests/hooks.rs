//! Backends that decide about clients that connect, join rooms and publish, as a configuration describes.

mod support;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use roomcast_testkit::{Client, ClientError, Node};
use serde_json::json;
use support::tokens::{SECRET, issuer, token};
use support::{error_of, run, start_node, wait_for_values, write_file};

/// The status with which a node ends if its configuration is wrong.
const EXIT_USAGE: i32 = 2;

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or("", |value| value.to_str().expect("ASCII")).to_owned()
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, json!({ "error": { "code": code, "message": message } }).to_string()).into_response()
}

/// Names the user of a cookie, and adds rights.
async fn on_connect(headers: HeaderMap) -> Response {
    let grants = json!([{ "rooms": ["user:{user}", "chat:*", "private:*"], "do": ["join", "publish"] }]);
    match &*header(&headers, "cookie") {
        "session=ann" => {
            json!({ "user": "ann", "allow": grants, "join": ["inbox:{user}"] }).to_string().into_response()
        }
        "session=broken" => json!({ "grants": grants }).to_string().into_response(),
        "session=ended" => error(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "log in again"),
        _ if header(&headers, "roomcast-user") == "ann" => json!({ "allow": grants }).to_string().into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn on_join(headers: HeaderMap) -> Response {
    match &*header(&headers, "roomcast-room") {
        "private:mine" if header(&headers, "roomcast-user") == "ann" => StatusCode::NO_CONTENT.into_response(),
        "private:broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "the room is private"),
    }
}

async fn on_publish(headers: HeaderMap, body: String) -> Response {
    match &*body {
        "same" => StatusCode::NO_CONTENT.into_response(),
        "darn" => error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "mind your language"),
        "crash" => (StatusCode::BAD_GATEWAY, "a secret").into_response(),
        "hang" => std::future::pending().await,
        _ => {
            let parts = ["roomcast-hook", "roomcast-room", "roomcast-event", "roomcast-user"];
            (parts.map(|name| header(&headers, name)).join(" ") + " " + &body).into_response()
        }
    }
}

/// Starts the backend, and returns its URL.
async fn backend() -> String {
    let app = axum::Router::new()
        .route("/rpc/roomcast.connect", post(on_connect))
        .route("/rpc/roomcast.join", post(on_join))
        .route("/rpc/roomcast.publish", post(on_publish));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/rpc", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Starts a node whose hooks ask the backend at this URL.
async fn node(name: &str, url: &str) -> Node {
    let config = format!(
        r#"
[[backend]]
name = "chat"
url = "{url}"
forward = ["cookie"]
{issuer}
[auth.anonymous]
allow = []

[hooks.connect]
backend = "chat"

[hooks.join]
rooms = ["private:**"]
backend = "chat"

[hooks.publish]
rooms = ["chat:*"]
backend = "chat"
timeout = "500ms"
"#,
        issuer = issuer(name)
    );
    start_node(&["--config", &write_file(&format!("{name}.toml"), &config)]).await
}

async fn with_cookie(node: &Node, cookie: &str) -> Result<Client, ClientError> {
    Client::connect_with(&node.url(), &[("cookie", cookie)]).await
}

/// Returns the code of the error of a call.
async fn code(client: &mut Client, method: &str, payload: &str) -> String {
    let answer = client.call_text(method, payload).await.expect("the connection is open");
    let error: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    error["error"]["code"].as_str().unwrap_or("OK").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_decides_about_connections_joins_and_events() {
    let node = node("hooks", &backend().await).await;
    let mut ann = with_cookie(&node, "session=ann").await.expect("the backend knows the session");
    assert_eq!(code(&mut ann, "rooms/join/user:ann", "").await, "OK");
    assert_eq!(code(&mut ann, "rooms/join/user:bob", "").await, "PERMISSION_DENIED");
    let answer = support::get(&node.internal, "/v1/rooms/inbox:ann").await;
    assert!(answer.body.contains("\"ann\""), "{}", answer.body);

    for (room, expected) in [("mine", "OK"), ("other", "PERMISSION_DENIED"), ("broken", "UNAVAILABLE")] {
        assert_eq!(code(&mut ann, &format!("rooms/join/private:{room}"), "").await, expected, "{room}");
    }

    ann.call("rooms/join/chat:1", "").await.expect("the connection is open");
    for (payload, expected) in [
        ("hi", Ok("publish chat:1 said ann hi")),
        ("same", Ok("same")),
        ("darn", Err("INVALID_ARGUMENT")),
        ("crash", Err("UNAVAILABLE")),
        ("hang", Err("UNAVAILABLE")),
        ("last", Ok("publish chat:1 said ann last")),
    ] {
        let result = code(&mut ann, "rooms/publish/chat:1/said", payload).await;
        assert_eq!(result, expected.err().unwrap_or("OK"), "{payload}");
        if let Ok(expected) = expected {
            assert_eq!(ann.event().await.expect("the next event").payload, expected, "nothing else was published");
        }
    }
    let seconds =
        |hook: &str, outcome: &str| format!("roomcast_hook_seconds_count{{hook=\"{hook}\",outcome=\"{outcome}\"}}");
    let expected = [
        (seconds("connect", "permitted"), 1.0),
        (seconds("join", "permitted"), 1.0),
        (seconds("join", "refused"), 1.0),
        (seconds("join", "failed"), 1.0),
        (seconds("publish", "permitted"), 3.0),
        (seconds("publish", "refused"), 1.0),
        (seconds("publish", "failed"), 2.0),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, value)| (&**name, *value)).collect();
    wait_for_values(&node, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_backend_refuses_or_does_not_decide_about_cannot_connect() {
    let node = node("hooks-refused", &backend().await).await;
    for (cookie, status) in [("session=ended", 401), ("session=broken", 503)] {
        let refused = with_cookie(&node, cookie).await.err().and_then(|error| error.status());
        assert_eq!(refused, Some(status), "{cookie}");
    }
    let mut guest = with_cookie(&node, "").await.expect("the backend adds nothing");
    assert_eq!(code(&mut guest, "rooms/join/user:ann", "").await, "PERMISSION_DENIED");

    let evil = [("origin", "https://evil.example"), ("cookie", "session=ann")];
    let refused = Client::connect_with(&node.url(), &evil).await.err().and_then(|error| error.status());
    assert_eq!(refused, Some(403), "a page of another site uses the user's cookies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_keeps_what_the_backend_adds_and_a_wrong_token_never_reaches_it() {
    let node = node("hooks-token", &backend().await).await;
    let bearer = |token: &str| [("authorization", format!("Bearer {token}"))];
    let connect = async |token: String| {
        let [(name, value)] = bearer(&token);
        Client::connect_with(&node.url(), &[(name, &value)]).await
    };
    let mut ann = connect(token(SECRET, &json!({}))).await.expect("the token is valid");
    assert_eq!(code(&mut ann, "rooms/join/chat:1", "").await, "OK");
    assert_eq!(code(&mut ann, "auth/refresh", &token(SECRET, &json!({ "jti": "2" }))).await, "OK");
    assert_eq!(code(&mut ann, "rooms/join/chat:2", "").await, "OK", "the backend was asked again");
    let refused = connect(token("another-secret-of-32-bytes-or-more", &json!({}))).await.err();
    assert_eq!(refused.and_then(|error| error.status()), Some(401));
    wait_for_values(&node, &[("roomcast_hook_seconds_count{hook=\"connect\",outcome=\"permitted\"}", 2.0)]).await;
}

#[test]
fn a_wrong_hook_is_reported_with_its_key_and_check_shows_the_others() {
    let backend = "[[backend]]\nname = \"chat\"\nurl = \"http://127.0.0.1:1/rpc\"\n";
    let auth = "[auth.anonymous]\nallow = []\n";
    for (at, (tables, expected)) in [
        (
            "[hooks.connect]\nbackend = \"chat\"\n".to_owned(),
            "hooks.connect: it needs [[auth.issuer]] or [auth.anonymous]",
        ),
        (
            format!("{auth}[hooks.connect]\nbackend = \"chat\"\ntimeout = \"5s\"\n"),
            "hooks.connect.timeout: cannot use \"5s\": it must be at most 4s",
        ),
        (
            "[hooks.join]\nbackend = \"cat\"\nrooms = [\"a\"]\n".to_owned(),
            "hooks.join.backend: there is no backend \"cat\"",
        ),
        ("[hooks.join]\nbackend = \"chat\"\nrooms = []\n".to_owned(), "hooks.join.rooms: it is empty"),
        ("[hooks.publish]\nbackend = \"chat\"\nrooms = [\"a-*\"]\n".to_owned(), "hooks.publish.rooms: "),
        (
            "[hooks.publish]\nbackend = \"chat\"\nrooms = [\"a\"]\ntimeout = \"soon\"\n".to_owned(),
            "hooks.publish.timeout: cannot use \"soon\"",
        ),
    ]
    .iter()
    .enumerate()
    {
        let file = write_file(&format!("hooks-wrong-{at}.toml"), &format!("{backend}{tables}"));
        let printed = error_of(&run(&["check", "--config", &file], &[]), EXIT_USAGE);
        assert!(printed.contains(expected), "{tables}: {printed}");
    }
    let hooks =
        "[hooks.connect]\nbackend = \"chat\"\n[hooks.publish]\nrooms = [\"chat:*\", \"game:**\"]\nbackend = \"chat\"\n";
    let file = write_file("hooks-check.toml", &format!("{backend}{auth}{hooks}"));
    let output = run(&["check", "--config", &file], &[]);
    let printed = String::from_utf8_lossy(&output.stdout);
    let expected = "Backend chat decides about clients that connect.\n\
                    Backend chat decides about events that clients publish in rooms chat:*,game:**.\n";
    assert!(output.status.success() && printed.contains(expected), "{printed}");
}

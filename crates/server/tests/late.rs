//! Clients that send their credential after they have connected.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use common::tokens::Tokens;
use roomcast::testing::{self, Client};
use roomcast::{
    Authorizer, CallError, CloseCode, Code, Identity, Node, Options, Revocation, Revoked, Router, Socket, UserId,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_secs(5);

/// Lets everybody connect, and decides when the client has sent its token.
struct Late(Tokens);

impl Authorizer for Late {
    async fn authorize(&self, _request: &Parts) -> Result<Identity, CallError> {
        Ok(Identity::pending(WITHIN))
    }

    async fn refresh(&self, current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        self.0.refresh(current, credential).await
    }
}

/// A router, and what its connect and disconnect handlers saw.
fn router() -> (Router, UnboundedReceiver<String>) {
    let (seen, sees) = mpsc::unbounded_channel();
    let seen_later = seen.clone();
    let options = Options::default().with(|options| options.ping_interval = Duration::from_secs(86_400));
    let router = Router::new(Node::embedded(options))
        .call("chat.send", async |user: UserId| user.to_string())
        .authorizer(Late(Tokens { started: SystemTime::now() }))
        .on_connect(move |socket: Socket| {
            seen.send(format!("connected {:?}", socket.user().map(|user| &**user))).unwrap();
            async {}
        })
        .on_disconnect(move |socket: Socket| {
            seen_later.send(format!("disconnected {:?}", socket.user().map(|user| &**user))).unwrap();
            async {}
        });
    (router, sees)
}

fn token(more: &Value) -> String {
    let mut token = json!({
        "user": "ann", "expires_in": 3600, "join": ["user:ann"],
        "allow": [{ "rooms": ["lobby"], "do": ["join"] }, { "calls": ["chat.*"], "do": ["call"] }],
    });
    token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token.to_string()
}

async fn assert_closed(client: &mut Client) {
    assert_eq!(client.closed().await.code, CloseCode::TOKEN_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn a_late_token_gives_what_an_early_one_would() {
    let (router, mut sees) = router();
    let (mut client, socket) = testing::connect(&router).await.unwrap();
    let wrong = client.call("auth/refresh", "no token").await.unwrap_err();
    assert_eq!(wrong.code, Code::Unauthenticated);
    assert!(sees.try_recv().is_err(), "no handler has run");
    client.call("auth/refresh", token(&json!({}))).await.unwrap();
    assert_eq!(sees.recv().await.unwrap(), r#"connected Some("ann")"#);
    assert_eq!(client.call("chat.send", ()).await.unwrap(), "ann");
    client.call("rooms/join/lobby", ()).await.unwrap();
    let mut rooms: Vec<_> = socket.rooms().iter().map(ToString::to_string).collect();
    rooms.sort();
    assert_eq!(rooms, ["lobby", "user:ann"]);
    let reached = socket.node().user("ann").notify("hello", ()).await.unwrap();
    assert_eq!(reached.connections, 1);
    assert_eq!(client.event().await.name, "hello");
    // From now on, it is a connection like any other.
    sleep(2 * WITHIN).await;
    client.call("auth/refresh", token(&json!({ "issued": 1 }))).await.unwrap();
    let other = client.call("auth/refresh", token(&json!({ "user": "bob", "issued": 2 }))).await.unwrap_err();
    assert_eq!(other.code, Code::Unauthenticated);
    assert!(sees.try_recv().is_err(), "the connect handler runs once");
    client.close().await;
    assert_eq!(sees.recv().await.unwrap(), r#"disconnected Some("ann")"#);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_something_else_first_or_nothing_is_disconnected() {
    let (router, mut sees) = router();
    for method in ["chat.send", "rooms/join/lobby", "auth/other"] {
        let (mut client, _) = testing::connect(&router).await.unwrap();
        client.start(method, ()).await;
        assert_closed(&mut client).await;
        let (mut client, _) = testing::connect(&router).await.unwrap();
        client.notify(method, ()).await;
        assert_closed(&mut client).await;
    }
    let (mut client, _) = testing::connect(&router).await.unwrap();
    client.start("auth/refresh", token(&json!({}))).await;
    client.start("chat.send", ()).await;
    assert_closed(&mut client).await;
    let (mut client, _) = testing::connect(&router).await.unwrap();
    let began = Instant::now();
    assert_closed(&mut client).await;
    let waited = began.elapsed();
    assert!((WITHIN..WITHIN + Duration::from_secs(1)).contains(&waited), "{waited:?} in virtual time");
    while let Ok(seen) = sees.try_recv() {
        assert!(seen.contains("ann"), "only the one that sent its token: {seen}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_waits_for_the_connect_handler_and_a_revoked_token_is_rejected() {
    let (enter, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (handler_enter, handler_entered) = (Arc::clone(&enter), Arc::clone(&entered));
    let router = Router::new(Node::embedded(Options::default()))
        .call("chat.send", async || "sent")
        .authorizer(Late(Tokens { started: SystemTime::now() }))
        .on_connect(move || {
            let (entered, enter) = (Arc::clone(&handler_entered), Arc::clone(&handler_enter));
            async move {
                entered.notify_one();
                enter.notified().await;
            }
        });
    let (mut client, _) = testing::connect(&router).await.unwrap();
    let refresh = client.start("auth/refresh", token(&json!({}))).await;
    entered.notified().await;
    enter.notify_one();
    client.response(refresh).await.unwrap();
    client.call("chat.send", ()).await.unwrap();

    let (mut client, socket) = testing::connect(&router).await.unwrap();
    let revoked = Revoked::User { user: UserId::new("ann").unwrap(), issued_until: None };
    socket.node().revoke(Revocation::new(revoked, u64::MAX).unwrap()).await.unwrap();
    let error = client.call("auth/refresh", token(&json!({}))).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
}

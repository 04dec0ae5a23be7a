//! Notices of cancelled calls, which a backend gets at its `cancel_url`.

use std::sync::Mutex;

use hyper::{Response, StatusCode};
use roomcast::testing;
use serde_json::{Value, json};

use crate::fixture::{Calls, PROTOCOLS, Server, wait_until, whole};

/// The notices that the backend of the test has received: the header `webhook-id`, and the body.
static NOTICES: Mutex<Vec<(String, Value)>> = Mutex::new(Vec::new());

/// The calls that it has received.
static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[tokio::test]
async fn a_cancelled_call_causes_a_signed_notice_that_is_repeated_until_it_is_accepted() {
    for protocol in PROTOCOLS {
        NOTICES.lock().unwrap().clear();
        CALLS.lock().unwrap().clear();
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                match request.uri().path() {
                    "/rpc/never" => {
                        CALLS.lock().unwrap().push(header("roomcast-call").unwrap());
                        std::future::pending().await
                    }
                    "/rpc/roomcast.cancel" => {
                        assert_eq!(header("roomcast-hook").as_deref(), Some("cancel"));
                        assert!(header("roomcast-signature").is_some() && header("webhook-signature").is_some());
                        let mut notices = NOTICES.lock().unwrap();
                        let body = serde_json::from_slice(request.body()).unwrap();
                        notices.push((header("webhook-id").unwrap(), body));
                        let status = if notices.len() == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::NO_CONTENT };
                        Response::builder().status(status).body(whole("")).unwrap()
                    }
                    _ => Response::new(whole("done")),
                }
            })
        })
        .await;
        let mut calls = Calls::to(server.address, protocol, |options| {
            options.cancel_url = Some(format!("http://{}/rpc/roomcast.cancel", server.address).parse().unwrap());
            options.signing_secrets = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap());
        })
        .await;
        assert_eq!(calls.client.call("answered", "").await.unwrap(), "done");
        let call = calls.client.start("never", "").await;
        wait_until(|| server.live() == 1).await;
        calls.client.cancel(call).await;
        let notices = |outcome| calls.metric("roomcast_backend_cancel_notices_total", Some(("outcome", outcome)));
        wait_until(|| notices("delivered") == 1.0).await;
        let id = CALLS.lock().unwrap()[0].clone();
        let notice = (format!("{id}-cancel"), json!({ "call": id, "cause": "reset" }));
        assert_eq!(*NOTICES.lock().unwrap(), [notice.clone(), notice], "of the cancelled call alone");
        assert_eq!((notices("failed"), notices("dropped")), (0.0, 0.0));
        assert_eq!(calls.outcome("cancelled"), 1.0, "a notice is no call");
    }
}

#[tokio::test]
async fn one_connection_has_at_most_an_eighth_of_the_notices_under_way() {
    const SHARE: usize = 1024 / 8;
    let server = Server::start(PROTOCOLS[0], |_| Box::pin(std::future::pending())).await;
    let calls = Calls::to(server.address, PROTOCOLS[0], |options| {
        options.cancel_url = Some(format!("http://{}/rpc/roomcast.cancel", server.address).parse().unwrap());
        options.concurrency = 8 * (SHARE + 1);
    })
    .await;
    let dropped = || calls.metric("roomcast_backend_cancel_notices_total", Some(("outcome", "dropped")));
    for (count, expected) in [(SHARE + 1, 1.0), (1, 1.0)] {
        let (mut client, _) = testing::connect(&calls.router).await.unwrap();
        let before = server.started();
        for _ in 0..count {
            client.start("never", "").await;
        }
        wait_until(|| server.started() >= before + count).await;
        drop(client);
        wait_until(|| server.started() >= before + count + count.min(SHARE)).await;
        wait_until(|| dropped() == expected).await;
    }
}

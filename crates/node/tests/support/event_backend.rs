//! A backend that receives lifecycle events, and may be down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;

use super::write_file;

/// The bytes of the secret that signs requests to the backend.
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A backend. It verifies the signature of every request.
pub struct EventBackend {
    address: String,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    is_down: bool,
    refused: usize,
    /// All events by id, and their ids in the order in which they arrived first.
    events: BTreeMap<String, Value>,
    order: Vec<String>,
}

impl EventBackend {
    pub async fn start() -> Self {
        let received = Arc::<Mutex<Received>>::default();
        let app = axum::Router::new().route("/rpc/roomcast.events", post(receive)).with_state(Arc::clone(&received));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, received }
    }

    /// Returns the configuration of nodes that report all events to this backend. Files begin with
    /// `name`.
    pub fn config(&self, name: &str, rooms: &str) -> String {
        let secret = write_file(&format!("{name}-signing-secret"), &format!("whsec_{}", STANDARD.encode(SECRET)));
        format!(
            r#"
[[backend]]
name = "chat"
url = "http://{}/rpc"
signing_secret_file = "{secret}"

[hooks.events]
backend = "chat"
kinds = ["connected", "disconnected", "joined", "left", "occupied", "vacated"]
rooms = ["{rooms}"]
"#,
            self.address
        )
    }

    pub fn set_down(&self, is_down: bool) {
        self.received.lock().is_down = is_down;
    }

    /// Returns how many requests came while the backend was down.
    pub fn refused(&self) -> usize {
        self.received.lock().refused
    }

    /// Returns the ids of the events of a kind without the kind, in the order in which they arrived.
    pub fn ids(&self, kind: &str) -> Vec<String> {
        let suffix = format!(".{kind}");
        let received = self.received.lock();
        received.order.iter().filter_map(|id| id.strip_suffix(&suffix)).map(ToOwned::to_owned).collect()
    }

    /// Returns an event by its id.
    pub fn event(&self, id: &str) -> Value {
        self.received.lock().events.get(id).cloned().unwrap_or_else(|| panic!("there is no event {id}"))
    }

    /// Returns the place of an event among all.
    pub fn place(&self, id: &str) -> usize {
        self.received
            .lock()
            .order
            .iter()
            .position(|known| known == id)
            .unwrap_or_else(|| panic!("there is no event {id}"))
    }

    pub async fn wait(&self, what: &str, deadline: Duration, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let count = |kind| self.ids(kind).len();
        if tokio::time::timeout(deadline, wait).await.is_err() {
            let kinds = ["connected", "disconnected", "joined", "left", "occupied", "vacated"];
            panic!("waited in vain until {what}: {:?}", kinds.map(|kind| (kind, count(kind))));
        }
    }
}

async fn receive(State(received): State<Arc<Mutex<Received>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    assert_eq!(header("content-type"), "application/cloudevents-batch+json");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key");
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&body);
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    let mut received = received.lock();
    if received.is_down {
        received.refused += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    for event in serde_json::from_slice::<Vec<Value>>(&body).expect("a batch") {
        let id = event["id"].as_str().expect("an id").to_owned();
        match received.events.insert(id.clone(), event.clone()) {
            None => received.order.push(id),
            Some(known) => assert_eq!((&known["type"], &known["source"]), (&event["type"], &event["source"])),
        }
    }
    StatusCode::NO_CONTENT
}

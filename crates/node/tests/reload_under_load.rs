//! Reloads while clients call, publish and receive: no connection ends, no call fails, and no event is lost.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roomcast_testkit::{Node, RedisOptions, RedisServer};
use serde_json::json;
use support::certificate::{connect_tls, read_certificate, write_certificate};
use support::log::Log;
use support::{
    BINARY, BINARY_MESSAGE, Bare, HalfDialled, client_frame, in_time, message, request, wait_until, write_file,
};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

const RELOADS: usize = 15;

/// Clients that are connected before the first reload. Each reload is followed by a further client.
const FIRST_CLIENTS: usize = 6;

const CERTIFICATE: &str = "reload-load-tls";
const CONFIG: &str = "reload-load.toml";
const PUBLIC_KEY: &str = "reload-load-issuer.pem";

/// Opcodes and the types of frames.
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const NOTIFY: u8 = 1;
const RESPONSE: u8 = 4;

// === the node and its issuer ===

/// A key of the issuer.
struct IssuerKey {
    private: EncodingKey,
    public_pem: String,
}

impl IssuerKey {
    fn create(name: &str) -> Self {
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().expect("openssl starts");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("PEM")
        };
        let private = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let file = write_file(&format!("reload-load-{name}.key"), &private);
        let public_pem = openssl(&["pkey", "-pubout", "-in", &file]);
        Self { private: EncodingKey::from_ec_pem(private.as_bytes()).expect("a key"), public_pem }
    }

    fn token(&self, user: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({
            "iss": "https://id.example", "aud": "roomcast", "sub": user, "iat": now, "exp": now + 3600,
            "roles": ["member"],
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.private).expect("a token")
    }
}

/// A configuration with other roles and limits for each reload.
fn config(redis: &str, reload: usize) -> String {
    let directory = env!("CARGO_TARGET_TMPDIR");
    format!(
        r#"
demo = true
redis = "{redis}"
tls_cert = "{directory}/{CERTIFICATE}.pem"
tls_key = "{directory}/{CERTIFICATE}.key"
max_connections = {max_connections}
max_calls = {max_calls}
max_payload = "{max_payload}KiB"

[rates]
frames = "off"
calls = "off"
publishes = "{publishes}/s"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["ES256"]
key_file = "{directory}/{PUBLIC_KEY}"
roles_claim = "roles"

[[role]]
name = "member"
allow = [
    {{ rooms = ["team:red", "reload:{reload}"], do = ["join", "publish"] }},
    {{ calls = ["echo"], do = ["call"] }},
]
"#,
        max_connections = 1000 + reload,
        max_calls = 100 + reload,
        max_payload = 100 + reload,
        publishes = 100_000 + reload,
    )
}

// === clients ===

/// What the clients of a test share.
#[derive(Default)]
struct Load {
    stops: AtomicBool,
    /// The number of events that each publisher has published.
    published: parking_lot::Mutex<BTreeMap<u64, Arc<AtomicU64>>>,
}

impl Load {
    fn counts(&self) -> BTreeMap<u64, u64> {
        self.published.lock().iter().map(|(id, count)| (*id, count.load(Ordering::Acquire))).collect()
    }
}

/// A client that makes one call after the other.
struct Caller {
    id: u64,
    bare: Bare<TlsStream<TcpStream>>,
    next_call: u32,
    /// The first and the last event of each publisher.
    received: BTreeMap<u64, (u64, u64)>,
}

impl Caller {
    fn new(id: u64, bare: Bare<TlsStream<TcpStream>>) -> Self {
        Self { id, bare, next_call: 0, received: BTreeMap::new() }
    }

    /// Returns the payload of the response to a call, and notes the events that arrive before it.
    async fn call(&mut self, method: &str, payload: &[u8]) -> Vec<u8> {
        self.next_call += 1;
        let call = message(&request(self.next_call, method, payload));
        self.bare.write(&call).await.expect("the connection is open");
        loop {
            if let Some(response) = self.next_response().await {
                assert_eq!(response[..4], self.next_call.to_be_bytes());
                return response[4..].to_vec();
            }
        }
    }

    /// Calls a method that responds with an empty payload if it succeeds.
    async fn succeed(&mut self, method: &str, payload: &[u8]) {
        let response = self.call(method, payload).await;
        assert!(response.is_empty(), "{method}: {}", String::from_utf8_lossy(&response));
    }

    /// Reads one message.
    async fn next_response(&mut self) -> Option<Vec<u8>> {
        let frame = self.bare.frame().await;
        match frame.unwrap_or_else(|| panic!("the connection of client {} is lost", self.id)) {
            (BINARY_MESSAGE, frame) if frame[0] == RESPONSE => return Some(frame[1..].to_vec()),
            (BINARY_MESSAGE, frame) if frame[0] == NOTIFY => self.receive(&frame[2 + usize::from(frame[1])..]),
            (PING, payload) => self.bare.write(&client_frame(PONG, &payload)).await.expect("the connection is open"),
            (opcode, payload) => panic!("client {}: {opcode}: {}", self.id, String::from_utf8_lossy(&payload)),
        }
        None
    }

    fn receive(&mut self, event: &[u8]) {
        let text = std::str::from_utf8(event).expect("the load publishes text");
        let (publisher, number) = text.split_once(' ').expect("two numbers");
        let [publisher, number] = [publisher, number].map(|text| text.parse().expect("a number"));
        let (_, last) = self.received.entry(publisher).or_insert((number, number - 1));
        assert_eq!(number, *last + 1, "client {} after event {last} of publisher {publisher}", self.id);
        *last = number;
    }

    /// Calls, publishes and receives until the load stops, and then receives the rest.
    async fn run(mut self, load: Arc<Load>, published: Arc<AtomicU64>, stopped: Arc<Barrier>) -> Self {
        while !load.stops.load(Ordering::Acquire) {
            let number = published.load(Ordering::Acquire) + 1;
            let text = format!("{} {number}", self.id);
            assert_eq!(self.call("echo", text.as_bytes()).await, text.as_bytes());
            self.succeed("rooms/publish/team:red/said", text.as_bytes()).await;
            published.store(number, Ordering::Release);
        }
        stopped.wait().await;
        let all = load.counts();
        while self.received.iter().map(|(id, (_, last))| (*id, *last)).collect::<BTreeMap<_, _>>() != all {
            assert_eq!(self.next_response().await, None, "no call is open");
        }
        self
    }
}

/// Begins the upgrade to a connection of a user. The token follows.
async fn dial(node: &Node, certificate: &CertificateDer<'static>) -> HalfDialled<TlsStream<TcpStream>> {
    let stream = connect_tls(&node.address, certificate).await.expect("the node has the certificate");
    Bare::dial_over(stream, &node.address).await
}

async fn complete(half: HalfDialled<TlsStream<TcpStream>>, token: &str) -> Bare<TlsStream<TcpStream>> {
    half.headers(&format!("Authorization: Bearer {token}\r\n")).await.complete().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_under_load_end_no_connection_fail_no_call_and_lose_no_event() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut key = IssuerKey::create("first");
    write_file(PUBLIC_KEY, &key.public_pem);
    write_certificate(CERTIFICATE);
    let mut certificate = read_certificate(CERTIFICATE);
    let file = write_file(CONFIG, &config(&redis.url(), 0));
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let node = Node::start_by(command, &["--config", &file]).await;

    let (load, stopped) = (Arc::new(Load::default()), Arc::new(Barrier::new(FIRST_CLIENTS + RELOADS)));
    let mut running: Vec<JoinHandle<Caller>> = Vec::new();
    let start = |client: Caller| {
        let published = Arc::new(AtomicU64::new(0));
        load.published.lock().insert(client.id, Arc::clone(&published));
        tokio::spawn(client.run(Arc::clone(&load), published, Arc::clone(&stopped)))
    };
    let mut first = Vec::new();
    for id in 0..FIRST_CLIENTS as u64 {
        let mut bare = complete(dial(&node, &certificate).await, &key.token(&format!("user{id}"))).await;
        bare.upgraded().await;
        let mut client = Caller::new(id, bare);
        client.succeed("rooms/join/team:red", b"").await;
        first.push(client);
    }
    running.extend(first.into_iter().map(start));

    for reload in 1..=RELOADS {
        let half = dial(&node, &certificate).await;
        let (old_key, old_certificate) = (key, certificate);
        key = IssuerKey::create("next");
        write_file(PUBLIC_KEY, &key.public_pem);
        write_certificate(CERTIFICATE);
        certificate = read_certificate(CERTIFICATE);
        write_file(CONFIG, &config(&redis.url(), reload));
        node.signal("HUP");
        let lines = log.until("configuration");
        let line = lines.last().expect("a line");
        for change in ["configuration reloaded", "keys, roles", "the certificate", "max_calls"] {
            assert!(line.contains(change), "{change:?} is not in {line}");
        }

        // The keys and roles count for a request that began before the reload, too.
        let user = format!("user{}", FIRST_CLIENTS + reload - 1);
        let mut bare = complete(half, &key.token(&user)).await;
        bare.upgraded().await;
        let mut client = Caller::new((FIRST_CLIENTS + reload - 1) as u64, bare);
        client.succeed(&format!("rooms/join/reload:{reload}"), b"").await;
        let denied = client.call(&format!("rooms/join/reload:{}", reload - 1), b"").await;
        assert!(String::from_utf8_lossy(&denied).contains("PERMISSION_DENIED"));
        client.succeed("rooms/join/team:red", b"").await;
        running.push(start(client));
        connect_tls(&node.address, &old_certificate).await.expect_err("the old certificate is no longer served");
        let head = complete(dial(&node, &certificate).await, &old_key.token("late")).await.head().await;
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");

        let before = load.counts();
        wait_until("each client has published again", async || {
            let is_ahead = load.counts().iter().all(|(id, count)| *count > before[id]);
            assert!(running.iter().all(|client| !client.is_finished()), "a client has failed");
            is_ahead
        })
        .await;
    }

    load.stops.store(true, Ordering::Release);
    for client in running {
        let client = in_time("the client has received all events", client).await.expect("the client does not fail");
        if client.id < FIRST_CLIENTS as u64 {
            assert!(client.received.values().all(|(first, _)| *first == 1), "{:?}", client.received);
        }
    }
}

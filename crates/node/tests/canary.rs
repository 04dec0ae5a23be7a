//! A node's secrets are in no output: a node lives through what can happen to it, with every secret that it can have and
//! with all logs on, and everything that comes out of it is searched.

mod support;

use std::process::Command;

use jsonwebtoken::{EncodingKey, Header};
use roomcast_auth::{Algorithm, JwksUrl, Keys, SigningKey};
use roomcast_redis::RedisOptions as NodeRedis;
use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use serde_json::{Value, json};
use support::log::Log;
use support::{BINARY, get, http, in_time, run, write_file};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Part of every secret but the tokens.
const CANARY: &str = "c4n4ry";

const REDIS_PASSWORD: &str = "c4n4ry-redis-password";
const ISSUER_SECRET: &str = "c4n4ry-issuer-secret-0123456789abcdef";
const PREVIOUS_SECRET: &str = "c4n4ry-previous-secret-0123456789abcdef";
const API_KEY: &str = "c4n4ry-api-key-0123456789";
const READ_KEY: &str = "c4n4ry-read-key-0123456789";

/// A file that the node reads again at each SIGHUP.
const FILE: &str = "canary.toml";

fn config(redis: &str, secrets: [&str; 2], api_key: &str) -> String {
    let [secret, previous] = secrets;
    format!(
        r#"
log = "trace,fred=trace"
redis = "{redis}"
redis_unready_after = "0s"
cluster_secret = "c4n4ry-cluster-secret-0123456789"
api_key = "{api_key}"
api_publish_key = "c4n4ry-publish-key-0123456789,c4n4ry-old-publish-key-0123456789"
api_read_key = "{READ_KEY}"
trace_endpoint = "http://127.0.0.1:1/v1/traces?key=c4n4ry-collector-key"
trace_protocol = "http"
trace_ratio = 1

[auth]
query_token = true
expiry_grace = "0s"

[drain]
delay = "0s"
duration = "0s"
timeout = "1s"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["HS256"]
secret_file = "{secret}"
previous_secret_file = "{previous}"
user_prefix = "id-"

[[auth.issuer]]
issuer = "https://unreachable.example"
audience = ["roomcast"]
algorithms = ["ES256"]
jwks = "http://127.0.0.1:1/jwks?key=c4n4ry-jwks-key"
user_prefix = "unreachable-"

[auth.anonymous]
allow = [{{ rooms = ["public:*"], do = ["join"] }}]
"#
    )
}

/// Everything that must not come out, and everything that came out.
#[derive(Default)]
struct Search {
    tokens: Vec<String>,
    outputs: Vec<(String, String)>,
}

impl Search {
    fn token(&mut self, secret: &str, changes: &Value) -> String {
        let now = now();
        let mut claims = json!({
            "iss": "https://id.example", "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300,
            "jti": self.tokens.len().to_string(),
            "roomcast": { "allow": [{ "rooms": ["team:*"], "do": ["join"] }] },
        });
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        self.tokens.push(token.clone());
        token
    }

    fn saw(&mut self, source: impl Into<String>, output: impl Into<String>) {
        self.outputs.push((source.into(), output.into()));
    }

    /// Every part of a token counts: with its claims and its signature, it can be put together again.
    fn assert_nothing_found(&self) {
        let parts: Vec<_> = self.tokens.iter().flat_map(|token| token.split('.').skip(1)).collect();
        for (source, output) in &self.outputs {
            for (number, line) in output.lines().enumerate() {
                let found = line.contains(CANARY) || parts.iter().any(|part| line.contains(part));
                assert!(!found, "a secret is in {source}, line {}: {line}", number + 1);
            }
        }
    }

    #[track_caller]
    fn assert_seen(&self, source: &str, texts: &[&str]) {
        let seen: Vec<_> = self.outputs.iter().filter(|(found, _)| found == source).map(|(_, output)| output).collect();
        for text in texts {
            assert!(seen.iter().any(|output| output.contains(text)), "{text:?} is not in {source}");
        }
    }
}

/// An upgrade that is rejected, with this path and these headers.
async fn reject(node: &Node, search: &mut Search, query: &str, headers: &str) {
    let headers = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: websocket.io-rpc-v0.1\r\n{headers}"
    );
    let answer = http(&node.address, "GET", &format!("/socket{query}"), &headers, b"").await;
    assert!([400, 401, 403, 431].contains(&answer.status), "{answer:?}");
    search.saw("responses", format!("{answer:?}"));
}

async fn reject_tokens(node: &Node, search: &mut Search) {
    let forged = search.token("c4n4ry-forged-secret-0123456789abcdef", &json!({}));
    let expired = search.token(ISSUER_SECRET, &json!({ "exp": 1 }));
    let huge = search.token(ISSUER_SECRET, &json!({ "padding": "x".repeat(9000) }));
    for token in [forged.as_str(), &expired, &huge, "c4n4ry", "c4n4ry.c4n4ry.c4n4ry"] {
        reject(node, search, "", &format!("Authorization: Bearer {token}\r\n")).await;
        reject(node, search, "", &format!("Sec-WebSocket-Protocol: roomcast.token.{token}\r\n")).await;
        reject(node, search, &format!("?token={token}"), "").await;
    }
    let valid = search.token(ISSUER_SECRET, &json!({}));
    let twice = format!("Authorization: Bearer {valid}\r\nAuthorization: Bearer {valid}\r\n");
    reject(node, search, "", &twice).await;
    reject(node, search, "", &format!("Authorization: Bearer {valid}\r\nOrigin: https://evil.example\r\n")).await;
}

/// Connects with valid tokens in every place, refreshes, is denied a room, and lets a token expire.
async fn use_tokens(node: &Node, search: &mut Search) {
    let tokens = [
        search.token(ISSUER_SECRET, &json!({})),
        search.token(PREVIOUS_SECRET, &json!({})),
        search.token(ISSUER_SECRET, &json!({ "sub": "bob" })),
    ];
    let bearer = format!("Bearer {}", tokens[0]);
    let mut ann = Client::connect_with(&node.url(), &[("authorization", &bearer)]).await.expect("a valid token");
    let offered = format!("roomcast.token.{}", tokens[1]);
    let offered =
        Client::connect_with(&node.url(), &[("sec-websocket-protocol", &offered)]).await.expect("a valid token");
    let in_query = Client::connect(&format!("{}?token={}", node.url(), tokens[2])).await.expect("a valid token");
    for client in [offered, in_query] {
        client.close().await.expect("it closes in order");
    }
    let old = search.token(ISSUER_SECRET, &json!({ "iat": 1_000_000, "exp": 1_000_100 }));
    let other = search.token(ISSUER_SECRET, &json!({ "sub": "bob" }));
    let forged = search.token("c4n4ry-forged-secret-0123456789abcdef", &json!({}));
    let brief = search.token(ISSUER_SECRET, &json!({ "exp": now() + 2 }));
    for token in [&old, &other, &forged, "c4n4ry", &brief] {
        let answer = ann.call_text("auth/refresh", token).await.expect("it is answered");
        assert_eq!(answer.is_empty(), token == brief, "{answer}");
        search.saw("responses", answer);
    }
    search.saw("responses", ann.call_text("rooms/join/secret:room", "c4n4ry").await.expect("it is answered"));
    let (code, reason) = in_time("the token expires", ann.closed()).await.expect("it closes in order");
    assert_eq!(code, 4401);
    search.saw("close reasons", reason);
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Uses the API with valid and wrong keys, and disconnects a client.
async fn use_api(node: &Node, search: &mut Search) {
    let token = search.token(ISSUER_SECRET, &json!({}));
    let bearer = format!("Bearer {token}");
    let mut ann = Client::connect_with(&node.url(), &[("authorization", &bearer)]).await.expect("a valid token");
    for (method, path, key) in [
        ("GET", "/v1/nodes", READ_KEY),
        ("GET", "/v1/openapi.json", API_KEY),
        ("POST", "/v1/rooms/team:a/events/said", READ_KEY),
        ("POST", "/v1/rooms/team:a/events/said", "c4n4ry"),
        ("POST", "/v1/rooms/team:a/events/said", API_KEY),
        ("DELETE", "/v1/users/id-ann", API_KEY),
    ] {
        let answer = http(&node.internal, method, path, &format!("Authorization: Bearer {key}\r\n"), b"").await;
        search.saw("responses", format!("{answer:?}"));
    }
    let forged = search.token("c4n4ry-forged-secret-0123456789abcdef", &json!({}));
    for token in [&token, &forged, "c4n4ry"] {
        let body = json!({ "token": token, "room": "team:a" }).to_string();
        let key = format!("Authorization: Bearer {API_KEY}\r\n");
        let answer = http(&node.internal, "POST", "/v1/explain", &key, body.as_bytes()).await;
        search.saw("/v1/explain", format!("{answer:?}"));
    }
    let (code, reason) = in_time("it is disconnected", ann.closed()).await.expect("it closes in order");
    assert_eq!(code, 4409);
    search.saw("close reasons", reason);
}

/// Checks tokens, signs one, and reads it.
fn use_commands(file: &str, secret_file: &str, search: &mut Search) {
    let valid = search.token(ISSUER_SECRET, &json!({}));
    let forged = search.token("c4n4ry-forged-secret-0123456789abcdef", &json!({}));
    let unreachable = search.token(ISSUER_SECRET, &json!({ "iss": "https://unreachable.example" }));
    for token in [&valid, &forged, &unreachable, "c4n4ry", "c4n4ry.c4n4ry.c4n4ry"] {
        let token_file = write_file("canary-token", token);
        let check = ["check", "--config", file, "--token", &token_file];
        search.saw("check --token", format!("{:?}", run(&check, &[])));
        search.saw("check --token", format!("{:?}", run(&[&check[..], &["--room", "team:a"]].concat(), &[])));
        search.saw("token inspect", format!("{:?}", run(&["token", "inspect", &token_file], &[])));
        // The token itself instead of a file with it.
        search.saw("check --token", format!("{:?}", run(&["check", "--config", file, "--token", token], &[])));
        search.saw("token inspect", format!("{:?}", run(&["token", "inspect", token], &[])));
    }
    let mint = ["token", "mint", "--issuer", "https://id.example", "--audience", "roomcast", "--user", "ann"];
    let minted = run(&[&mint[..], &["--secret-file", secret_file]].concat(), &[]);
    let token = String::from_utf8(minted.stdout).expect("a token");
    search.tokens.push(token.trim().to_owned());
    search.saw("token mint", String::from_utf8(minted.stderr).expect("text"));
}

/// What other users of the machine can read of a process, and of the processes that it started.
fn of_the_process_list(pid: u32) -> String {
    let read = |path: String| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let mut seen = String::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there").flatten() {
        let task = task.path();
        seen += &read(format!("{}/comm", task.display()));
        for child in read(format!("{}/children", task.display())).split_whitespace() {
            seen += &of_the_process_list(child.parse().expect("an id"));
        }
    }
    seen + &read(format!("/proc/{pid}/cmdline")).replace('\0', " ")
}

#[tokio::test]
async fn a_node_with_all_secrets_and_all_logs_shows_none() {
    let redis =
        RedisServer::start(RedisOptions { user: Some(("app", REDIS_PASSWORD)), ..RedisOptions::default() }).await;
    let secrets = [write_file("canary-secret", ISSUER_SECRET), write_file("canary-previous", PREVIOUS_SECRET)];
    let secrets = [&*secrets[0], &*secrets[1]];
    let file = write_file(FILE, &config(&redis.url(), secrets, API_KEY));
    let mut search = Search::default();
    let mut command = Command::new(BINARY);
    command.env("RUST_BACKTRACE", "1");
    let log = Log::of(&mut command);
    let mut node = Node::start_by(command, &["--config", &file]).await;

    reject_tokens(&node, &mut search).await;
    use_tokens(&node, &mut search).await;
    use_api(&node, &mut search).await;
    use_commands(&file, secrets[0], &mut search);

    for (changed, outcome) in [("c4n4ry-new-api-key-0123456789", "configuration reloaded"), ("c4n4ry", "cannot reload")]
    {
        write_file(FILE, &config(&redis.url(), secrets, changed));
        node.signal("HUP");
        search.saw("log", log.until(outcome).join("\n"));
    }
    for arguments in [["check", "--config", &file], ["health", "--config", &file]] {
        search.saw(arguments[0], format!("{:?}", run(&arguments, &[])));
    }
    write_file(FILE, &config(&redis.url(), secrets, API_KEY));
    search.saw("check", String::from_utf8_lossy(&run(&["check", "--config", &file], &[]).stdout));

    // Redis no longer accepts the password.
    redis.command(&["ACL", "SETUSER", "app", "resetpass", ">other"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let is_reported = async || get(&node.internal, "/readyz").await.body.contains("WRONGPASS");
    node.wait_until("the reason is reported", is_reported).await;
    search.saw("/readyz", get(&node.internal, "/readyz").await.body);
    search.saw("check", format!("{:?}", run(&["check", "--config", &file], &[])));
    search.saw("/metrics", get(&node.internal, "/metrics").await.body);
    search.saw("the process list", of_the_process_list(node.pid()));

    node.signal("TERM");
    in_time("the node ends", node.exit()).await;
    search.saw("log", log.rest().join("\n"));

    search.assert_seen(
        "log",
        &[
            "the token's signature is not valid",
            "cannot fetch the keys",
            "TRACE",
            "WRONGPASS",
            "traces cannot be exported",
            "drained",
        ],
    );
    search.assert_seen("check", &["(hidden)", "WRONGPASS"]);
    search.assert_seen("check --token", &["valid for", "signature is not valid", "cannot connect", "team:a"]);
    search.assert_seen("/v1/explain", &["signature is not valid", "team:*"]);
    search.assert_seen("token inspect", &["not been verified"]);
    search.assert_seen("token mint", &["for experiments"]);
    search.assert_seen("/readyz", &["WRONGPASS"]);
    search.assert_seen("the process list", &["roomcast", FILE]);
    search.assert_nothing_found();
}

#[tokio::test]
async fn a_redis_that_rejects_the_password_makes_no_form_of_its_url_visible() {
    let redis = RedisServer::start(RedisOptions { user: Some(("app", "other")), ..RedisOptions::default() }).await;
    let address = redis.address();
    let urls = [
        format!("redis://app:{REDIS_PASSWORD}@{address}"),
        format!("redis://app:c4n4ry%2Dredis@{address}/3"),
        format!("redis://:{REDIS_PASSWORD}@{address}"),
        format!("redis://{REDIS_PASSWORD}@{address}"),
        format!("redis://{address}?username=app&password={REDIS_PASSWORD}"),
        format!("rediss://app:{REDIS_PASSWORD}@{address}"),
        format!("redis-cluster://app:{REDIS_PASSWORD}@{address}"),
        format!("rediss-cluster://app:{REDIS_PASSWORD}@{address}?node=127.0.0.1:1"),
        format!("redis-sentinel://app:{REDIS_PASSWORD}@{address}?sentinelServiceName=mymaster"),
        format!(
            "redis-sentinel://{address}?sentinelServiceName=mymaster&sentinelUsername=app&sentinelPassword={REDIS_PASSWORD}"
        ),
    ];
    let mut tries = JoinSet::new();
    for url in urls {
        tries.spawn_blocking(|| Handle::current().block_on(try_url(url)));
    }
    let mut search = Search { outputs: tries.join_all().await.into_iter().flatten().collect(), ..Search::default() };
    search.assert_nothing_found();
    search.saw("all", search.outputs.iter().map(|(_, output)| &**output).collect::<String>());
    search.assert_seen("all", &["TRACE", "WRONGPASS", "cannot use Redis yet"]);
}

/// The outputs of a node with this URL.
async fn try_url(url: String) -> Vec<(String, String)> {
    let mut command = Command::new(BINARY);
    command.env("ROOMCAST_REDIS", &url);
    let log = Log::of(&mut command);
    let mut node = Node::start_until(command, &["--log=trace,fred=trace"], "/healthz").await;
    let mut outputs = log.until("cannot use Redis yet");
    outputs.push(get(&node.internal, "/readyz").await.body);
    outputs.push(format!("{:?}", run(&["check", "--log=trace,fred=trace"], &[("ROOMCAST_REDIS", &url)])));
    node.signal("KILL");
    node.exit().await;
    outputs.extend(log.rest());
    outputs.into_iter().map(|output| (format!("the output of a node with {url}"), output)).collect()
}

/// A panic's message can contain any value in the form that `Debug` gives it.
#[test]
fn secrets_are_not_in_the_debug_output_of_what_contains_them() {
    let secrets = [ISSUER_SECRET, PREVIOUS_SECRET];
    let keys = Keys::from_secrets(secrets.map(str::as_bytes)).expect("they are long enough");
    let mut redis = NodeRedis::new("redis://app:c4n4ry@127.0.0.1");
    redis.cluster_secrets = vec!["c4n4ry-cluster-secret".to_owned()];
    // Bytes could be printed as numbers.
    let numbers = format!("{:?}", CANARY.as_bytes());
    let numbers = numbers.trim_matches(['[', ']']);
    let signing = SigningKey::from_secret(ISSUER_SECRET.as_bytes(), Algorithm::HS256).expect("it is long enough");
    let url: JwksUrl = "https://id.example/jwks?key=c4n4ry".parse().expect("a URL");
    let all = (&keys, &redis, &signing, &url);
    for output in [format!("{all:?}"), format!("{all:#?}")] {
        assert!(
            !output.contains(CANARY) && !output.replace(char::is_whitespace, "").contains(&numbers.replace(' ', "")),
            "{output}"
        );
    }
}

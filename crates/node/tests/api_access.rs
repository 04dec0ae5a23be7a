//! Who may use the HTTP API: keys and their scopes, the rates, and web pages, which may not.

mod support;

use std::process::Command;

use roomcast_testkit::Node;
use serde_json::Value;
use support::log::Log;
use support::{Answer, BINARY, exchange, get, http, in_time, start_node, wait_for_values, write_file};

const ADMIN: &str = "admin-key-0123456789";
const PUBLISH: &str = "publish-key-0123456789";
const READ: &str = "read-key-0123456789";
const READ_AND_PUBLISH: &str = "read-and-publish-key-0123456789";

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

async fn get_with(node: &Node, path: &str, headers: &str) -> Answer {
    http(&node.internal, "GET", path, headers, b"").await
}

fn code(answer: &Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"));
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn rejections(reason: &str) -> String {
    format!("roomcast_api_rejections_total{{reason=\"{reason}\"}}")
}

// === keys ===

#[tokio::test]
async fn with_a_key_only_those_who_show_it_are_served() {
    let node = start_node(&["--api-key", ADMIN]).await;
    let wrong = [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer admin-key-012345678\r\n",
        "Authorization: Bearer admin-key-01234567890\r\n",
        "Authorization: Basic admin-key-0123456789\r\n",
        "Authorization: admin-key-0123456789\r\n",
    ];
    let elsewhere = [("/v1/openapi.json", ""), ("/v1/nothing", "")];
    for (path, headers) in wrong.map(|headers| ("/v1/nodes", headers)).into_iter().chain(elsewhere) {
        let answer = get_with(&node, path, headers).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path} {headers}");
        assert_eq!(code(&answer), "UNAUTHENTICATED");
    }
    for headers in [bearer(ADMIN), format!("authorization: bearer {ADMIN}\r\n")] {
        assert_eq!(get_with(&node, "/v1/nodes", &headers).await.status, 200);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(&node.internal, path).await.status, 200, "{path} needs no key");
    }
    wait_for_values(&node, &[(&rejections("key"), 9.0)]).await;
}

/// Sends each operation of the description with a key. Returns those that the key permits, by their scope.
async fn permitted(node: &Node, key: &str) -> Vec<(String, bool)> {
    let description = get_with(node, "/v1/openapi.json", &bearer(ADMIN)).await;
    let description: Value = serde_json::from_str(&description.body).expect("JSON");
    let mut results = Vec::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        // No connection has this id, and no name means anything.
        let path = path.replace("{id}", "0123456789abcdef-1").replace("{connection}", "0123456789abcdef-1");
        let path = path.replace(['{', '}'], "");
        for (method, operation) in methods.as_object().expect("operations") {
            let answer = http(&node.internal, &method.to_uppercase(), &path, &bearer(key), b"").await;
            let scope = operation["security"][1]["api_key"][0].as_str().expect("a scope");
            let is_refused = answer.status == 403 && code(&answer) == "PERMISSION_DENIED";
            assert!(is_refused || (answer.status < 500 && answer.status != 401), "{method} {path}: {answer:?}");
            results.push((scope.to_owned(), !is_refused));
        }
    }
    results
}

#[tokio::test]
async fn a_key_permits_the_operations_of_its_scopes_and_no_others() {
    let publish = format!("--api-publish-key={PUBLISH},{READ_AND_PUBLISH}");
    let read = format!("--api-read-key={READ},{READ_AND_PUBLISH}");
    let node = start_node(&["--api-key", ADMIN, &publish, &read]).await;
    let cases: [(&str, &[&str]); 4] = [
        (ADMIN, &["read", "publish", "admin"]),
        (PUBLISH, &["publish"]),
        (READ, &["read"]),
        (READ_AND_PUBLISH, &["read", "publish"]),
    ];
    let mut refused = 0;
    for (key, scopes) in cases {
        let results = permitted(&node, key).await;
        assert!(["read", "publish", "admin"].iter().all(|scope| results.iter().any(|(found, _)| found == scope)));
        for (scope, is_permitted) in results {
            assert_eq!(is_permitted, scopes.contains(&&*scope), "{key} and the scope {scope}");
            refused += u32::from(!is_permitted);
        }
    }
    wait_for_values(&node, &[(&rejections("scope"), f64::from(refused))]).await;
    let nowhere = get_with(&node, "/v1/nothing", &bearer(READ)).await;
    assert_eq!((nowhere.status, code(&nowhere).as_str()), (404, "NOT_FOUND"));
}

#[tokio::test]
async fn keys_rotate_by_reloads_without_a_failed_request() {
    let (old, new) = ("old-key-0123456789", "new-key-0123456789");
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let file = write_file("api-keys.toml", &format!("api_read_key = \"{old}\"\n"));
    let node = Node::start_by(command, &["--config", &file]).await;
    let statuses = async || {
        let [old, new] = [bearer(old), bearer(new)];
        [get_with(&node, "/v1/nodes", &old).await.status, get_with(&node, "/v1/nodes", &new).await.status]
    };
    let mut lines = Vec::new();
    assert_eq!(statuses().await, [200, 401]);
    for (keys, expected) in [(format!("{new},{old}"), [200, 200]), (new.to_owned(), [401, 200])] {
        write_file("api-keys.toml", &format!("api_read_key = \"{keys}\"\n"));
        node.signal("HUP");
        lines.extend(log.until("configuration reloaded"));
        assert_eq!(statuses().await, expected);
    }
    assert!(lines.iter().any(|line| line.contains("changed=\"api_read_key\"")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("0123456789")), "{lines:#?}");
}

// === rates ===

#[tokio::test]
async fn whoever_guesses_keys_is_slowed_down_and_others_are_not() {
    let node = start_node(&["--api-key", ADMIN]).await;
    let guess = bearer("guessed-key-0123456789");
    let refused = in_time("one is too many", async {
        loop {
            let answer = get_with(&node, "/v1/nodes", &guess).await;
            if answer.status != 401 {
                return answer;
            }
        }
    });
    let refused = refused.await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(code(&refused), "RESOURCE_EXHAUSTED");
    // The guesses use up what becomes free meanwhile.
    for _ in 0..20 {
        let [guessed, valid] =
            [get_with(&node, "/v1/nodes", &guess).await, get_with(&node, "/v1/nodes", &bearer(ADMIN)).await];
        assert!([401, 429].contains(&guessed.status), "{guessed:?}");
        assert_eq!(valid.status, 200, "{valid:?}");
    }
}

#[tokio::test]
async fn requests_over_the_rate_are_told_to_come_back_later() {
    let node = start_node(&["--api-rate=1"]).await;
    assert_eq!(get(&node.internal, "/v1/nodes").await.status, 200);
    let refused = in_time("one is too many", async {
        loop {
            let answer = get(&node.internal, "/v1/nodes").await;
            if answer.status != 200 {
                return answer;
            }
        }
    });
    let refused = refused.await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(code(&refused), "RESOURCE_EXHAUSTED");
    assert_eq!(get(&node.internal, "/metrics").await.status, 200, "it is the API's rate");
    wait_for_values(&node, &[(&rejections("rate"), 1.0)]).await;
}

// === web pages ===

/// The status of a request to publish, with these headers besides the key. `HOST` is the address of the listener.
async fn publish_status(node: &Node, headers: &str, key: &str) -> u16 {
    let headers = headers.replace("HOST", &node.internal);
    let key = if key.is_empty() { String::new() } else { bearer(key) };
    let request = format!(
        "POST /v1/rooms/lobby/events/said HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}{key}\r\n"
    );
    let answer = String::from_utf8(exchange(&node.internal, request.as_bytes()).await).expect("text");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{headers}: {answer}"))
}

/// What a browser sends for a page of another origin, whatever the node's configuration.
const FOREIGN: [&str; 9] = [
    "Host: HOST\r\nOrigin: https://evil.example\r\n",
    "Host: HOST\r\nOrigin: null\r\n",
    "Host: HOST\r\nOrigin: http://127.0.0.1\r\n",
    "Host: HOST\r\nOrigin: http://HOST\r\nOrigin: http://HOST\r\n",
    "Host: HOST\r\nOrigin: \r\n",
    "Host: HOST\r\nSec-Fetch-Site: cross-site\r\n",
    "Host: HOST\r\nSec-Fetch-Site: same-site\r\n",
    "Host: HOST\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
    "Host: HOST\r\nOrigin: http://HOST\r\nSec-Fetch-Site: cross-site\r\n",
];

/// What a browser sends for a page whose name has been rebound to the address of the listener.
const REBOUND: [&str; 3] = [
    "Host: evil.example:3001\r\nOrigin: http://evil.example:3001\r\n",
    "Host: evil.example:3001\r\nSec-Fetch-Site: same-origin\r\n",
    "Host: evil.example\r\n",
];

/// What programs send, and a person who enters the URL.
const ORDINARY: [&str; 4] = [
    "Host: HOST\r\n",
    "Host: localhost:3001\r\n",
    "Host: HOST\r\nSec-Fetch-Site: none\r\n",
    "Host: HOST\r\nOrigin: http://HOST\r\nSec-Fetch-Site: same-origin\r\n",
];

#[tokio::test]
async fn requests_of_foreign_pages_are_refused_without_a_key() {
    let node = start_node(&[]).await;
    for headers in FOREIGN.iter().chain(&REBOUND) {
        assert_eq!(publish_status(&node, headers, "").await, 403, "{headers}");
    }
    for headers in ORDINARY {
        assert_eq!(publish_status(&node, headers, "").await, 200, "{headers}");
    }
    wait_for_values(&node, &[(&rejections("browser"), 12.0)]).await;
    // Probes and scrapes use any name.
    for path in ["/healthz", "/readyz", "/metrics"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: roomcast-internal.default.svc\r\nConnection: close\r\n\r\n");
        let answer = exchange(&node.internal, request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}");
    }
}

#[tokio::test]
async fn requests_of_foreign_pages_are_refused_with_a_key() {
    let node = start_node(&["--api-key", ADMIN]).await;
    for headers in FOREIGN {
        assert_eq!(publish_status(&node, headers, ADMIN).await, 403, "{headers}");
    }
    for headers in REBOUND {
        assert_eq!(publish_status(&node, headers, "").await, 401, "a page does not know the key: {headers}");
    }
    for headers in ORDINARY.iter().chain(&["Host: roomcast-internal.default.svc:3001\r\n"]) {
        assert_eq!(publish_status(&node, headers, ADMIN).await, 200, "{headers}");
    }
}

//! Clients with tokens, at nodes that authenticate them.

mod support;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use roomcast_testkit::Node;
use serde_json::json;
use support::node_binary::start_node;
use support::tool::{DEADLINE, Tool, new_file, run, run_scenario, text, write_file};

/// Part of every secret but the private key.
const CANARY: &str = "c4n4ry";

const SECRET: &str = "c4n4ry-0123456789abcdef-0123456789";

const CHAT: [&str; 5] = ["chat", "--connections=20", "--publish-rooms=4", "--publish-rate=100", "--call-rate=20"];

const CLAIMS: [&str; 4] = ["--token-issuer", "https://id.example", "--token-audience", "roomcast"];

/// A node whose issuer signs with this algorithm; the line names the file with its key.
async fn authenticating(name: &str, algorithm: &str, key: &str) -> (Node, String) {
    let issuer = format!(
        "[[auth.issuer]]\nissuer = \"https://id.example\"\naudience = [\"roomcast\"]\nalgorithms = [\"{algorithm}\"]\n{key}\n"
    );
    let file = write_file(name, &issuer);
    let node = start_node(&["--config", text(&file)]).await;
    let url = format!("ws://{}/socket", node.address);
    (node, url)
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn each_connection_gets_a_token_that_a_private_key_signed() {
    let (private, public) = (new_file("tokens-private.pem"), new_file("tokens-public.pem"));
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&private)]);
    openssl(&["pkey", "-in", text(&private), "-pubout", "-out", text(&public)]);
    let (_node, url) = authenticating("tokens-es256.toml", "ES256", &format!("key_file = {public:?}")).await;
    let arguments = [&CHAT[..], &CLAIMS, &["--duration=1s", "--url", &url, "--token-key", text(&private)]].concat();
    let (outcome, results) = run_scenario("tokens-es256.json", &arguments).await;
    outcome.assert_code(0);
    results.assert_no_fault();
    assert!(results.count("/counts/delivered") > 0 && results.count("/counts/called") > 0);

    let without = [&CHAT[..], &["--duration=1s", "--timeout=1s", "--url", &url]].concat();
    let refused = run(&[&["run", "--quiet"], &without[..]].concat()).await;
    assert!(refused.printed().contains("HTTP 401"), "{}", refused.printed());
}

/// What the process list shows of a process and of the processes that it started.
fn command_lines(pid: u32) -> Vec<String> {
    let read = |path: String| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let mut lines = vec![read(format!("/proc/{pid}/cmdline")).replace('\0', " ")];
    for child in read(format!("/proc/{pid}/task/{pid}/children")).split_whitespace() {
        lines.extend(command_lines(child.parse().expect("an id")));
    }
    lines
}

fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let allow = json!([{ "rooms": ["*"], "do": ["join", "publish"] }, { "calls": ["**"], "do": ["call"] }]);
    let claims = json!({
        "iss": "https://id.example", "aud": "roomcast", "sub": "ann", "iat": now, "exp": now + 300,
        "roomcast": { "allow": allow },
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

#[tokio::test]
async fn tokens_and_secrets_in_files_are_used_and_not_shown() {
    let secret = write_file("tokens-secret", &format!("{SECRET}\n"));
    let (_node, url) = authenticating("tokens-hs256.toml", "HS256", &format!("secret_file = {secret:?}")).await;
    let token = token();
    let tokens = write_file("tokens-file", &format!("{token}\n"));
    let results = new_file("tokens-hs256.json");
    let from_file = ["--token-file", text(&tokens)];
    let signed = [&["--token-key", text(&secret), "--token-algorithm=HS256"], &CLAIMS[..]].concat();
    for options in [&from_file[..], &signed] {
        let arguments =
            [&["run"], &CHAT[..], options, &["--duration=2s", "--json", text(&results), "--url", &url]].concat();
        let tool = Tool::start(&arguments);
        let lines = tokio::time::timeout(DEADLINE, with_generator(&tool)).await.expect("the generator starts");
        let outcome = tool.end().await;
        outcome.assert_code(0);
        let written = std::fs::read_to_string(&results).expect("results are written");
        let signature = token.rsplit('.').next().expect("a signature");
        for output in lines.iter().chain([&outcome.printed(), &written]) {
            assert!(!output.contains(CANARY) && !output.contains(signature), "{output}");
        }
    }
}

/// The command lines, once the tool has started a generator.
async fn with_generator(tool: &Tool) -> Vec<String> {
    loop {
        let lines = command_lines(tool.id());
        if lines.iter().any(|line| line.trim_end().ends_with(" worker")) {
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_no_token_and_no_key_is_refused_and_not_shown() {
    let (empty, spaces) = (write_file("tokens-empty", ""), write_file("tokens-spaces", "c4n4ry c4n4ry\n"));
    let key = [&["--token-key", text(&spaces)], &CLAIMS[..]].concat();
    let unknown = [&key[..], &["--token-algorithm=none"]].concat();
    let cases: [(&[&str], &str); 8] = [
        (&["--token-file", "no-such-file"], "cannot read --token-file no-such-file"),
        (&["--token-file", text(&empty)], "is empty"),
        (&["--token-file", text(&spaces)], "line 1"),
        (&key, "is not a private key in PEM for ES256"),
        (&unknown, "--token-algorithm none is unknown"),
        (&["--token-key", text(&spaces)], "--token-issuer"),
        (&["--token-user=ann"], "--token-key"),
        (&[&key[..], &["--token-claims=[1]"]].concat(), "--token-claims"),
    ];
    for (options, expected) in cases {
        let outcome =
            run(&[&["run", "connect", "--quiet", "--url", "ws://127.0.0.1:9/socket"], options].concat()).await;
        outcome.assert_refused(&[expected]);
        assert!(!outcome.printed().contains(CANARY), "{}", outcome.printed());
    }
}

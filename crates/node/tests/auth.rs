//! Who may connect to a node, and what clients may do: tokens, roles, anonymous pages, and reloads.

mod support;

use std::process::Command;

use roomcast_testkit::{Client, ClientError, Node};
use serde_json::{Value, json};
use support::log::Log;
use support::tokens::token;
use support::{BINARY, error_of, http, run, wait_for_values, without_options, write_file};

/// Stands in place of secrets; no line of the log may contain it.
const SECRET: &str = "c4n4ry-0123456789abcdef-0123456789";
/// The exit status of a wrong configuration.
const EXIT_USAGE: i32 = 2;

const OTHER_SECRET: &str = "c4n4ry-fedcba9876543210-9876543210";

/// A configuration whose issuer's secret is in a file of this name.
fn config(secret_file: &str, member: &str) -> String {
    format!(
        r#"
log = "debug"

[[auth.issuer]]
issuer = "https://id.example"
audience = ["roomcast"]
algorithms = ["HS256"]
secret_file = "{secret_file}"
roles_claim = "roles"

[auth.anonymous]
allow = [{{ rooms = ["public:*"], do = ["join"] }}]

[[role]]
name = "member"
allow = [{{ rooms = ["{member}"], do = ["join", "publish"] }}]
"#
    )
}

async fn connect(node: &Node, token: &str) -> Result<Client, ClientError> {
    Client::connect_with(&node.url(), &[("authorization", &format!("Bearer {token}"))]).await
}

async fn connect_page(node: &Node, origin: &str) -> Result<Client, ClientError> {
    Client::connect_with(&node.url(), &[("origin", origin)]).await
}

fn status(result: Result<Client, ClientError>) -> Option<u16> {
    result.err().and_then(|error| error.status())
}

async fn may_join(client: &mut Client, room: &str) -> bool {
    let answer = client.call(&format!("rooms/join/{room}"), b"").await.expect("the connection is open");
    !String::from_utf8_lossy(&answer).contains("PERMISSION_DENIED")
}

#[tokio::test]
async fn tokens_and_roles_decide_and_a_reload_changes_them() {
    let secret_file = write_file("auth-secret", &format!("{SECRET}\n"));
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let file = write_file("auth.toml", &config(&secret_file, "team:{claim.team}:*"));
    let node = Node::start_by(command, &["--config", &file]).await;

    let old = token(SECRET, &json!({}));
    let mut ann = connect(&node, &old).await.expect("the token is valid");
    assert!(may_join(&mut ann, "team:red:a").await);
    assert!(!may_join(&mut ann, "team:blue:a").await);
    let mut page = connect_page(&node, &format!("http://{}", node.address)).await.expect("the page is the node's own");
    assert!(may_join(&mut page, "public:news").await && !may_join(&mut page, "team:red:a").await);

    let forged = token(OTHER_SECRET, &json!({}));
    assert_eq!(status(Client::connect(&node.url()).await), Some(401));
    assert_eq!(status(connect(&node, &forged).await), Some(401));
    assert_eq!(status(connect(&node, &token(SECRET, &json!({ "exp": 1 }))).await), Some(401));
    assert_eq!(status(connect_page(&node, "https://evil.example").await), Some(403));
    let refused = ["UNAUTHENTICATED", "PERMISSION_DENIED"]
        .map(|reason| format!("roomcast_upgrades_refused_total{{reason=\"{reason}\"}}"));
    wait_for_values(&node, &[(&refused[0], 3.0), (&refused[1], 1.0)]).await;

    // The secret and the role change; what is wrong changes nothing.
    write_file("auth-secret", "short\n");
    node.signal("HUP");
    let mut lines = log.until("cannot reload the configuration");
    assert!(
        lines.last().is_some_and(|line| line.contains("auth.issuer.0.secret_file: the secret has 5 bytes")),
        "{lines:?}"
    );
    assert!(connect(&node, &old).await.is_ok());
    write_file("auth-secret", &format!("{OTHER_SECRET}\n"));
    write_file("auth.toml", &config(&secret_file, "blue:*"));
    node.signal("HUP");
    lines.extend(log.until("configuration reloaded"));
    assert!(lines.last().is_some_and(|line| line.contains("the issuers, keys, roles")), "{lines:?}");
    assert_eq!(status(connect(&node, &old).await), Some(401));
    let mut bob = connect(&node, &token(OTHER_SECRET, &json!({ "sub": "bob" }))).await.expect("the new secret");
    assert!(may_join(&mut bob, "blue:a").await && !may_join(&mut bob, "team:red:a").await);
    assert!(may_join(&mut ann, "team:red:b").await, "an open connection keeps its rights");

    // Rejected tokens are logged with the reason, and without the token.
    assert!(lines.iter().any(|line| line.contains("the token's signature is not valid")), "{lines:#?}");
    for line in &lines {
        let parts = [&old, &forged].map(|token| &token[token.len() - 20..]);
        assert!(!line.contains("c4n4ry") && parts.iter().all(|part| !line.contains(part)), "{line}");
    }
}

/// Names in calls and tokens are not encoded, and names in URLs are decoded once.
#[tokio::test]
async fn percent_encoding_never_makes_one_name_of_another() {
    let secret_file = write_file("percent-secret", SECRET);
    let file = write_file("percent.toml", &config(&secret_file, "user:{user}"));
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let node = Node::start_by(command, &["--config", &file]).await;
    let mut clients = Vec::new();
    for (user, own) in [("ann", "user:ann"), ("%61nn", "user:%61nn"), ("%2A", "user:%2A")] {
        let mut client = connect(&node, &token(SECRET, &json!({ "sub": user }))).await.expect("the token is valid");
        for room in ["user:ann", "user:%61nn", "user:%2561nn", "user:%2A", "user:*", "user%3Aann"] {
            assert_eq!(may_join(&mut client, room).await, room == own, "{user} and {room}");
        }
        clients.push(client);
    }
    for (path, status) in [
        ("/v1/users/*", 404),
        ("/v1/users/%2A", 404),
        ("/v1/users/%2Fann", 400),
        ("/v1/users/ann%0A", 400),
        ("/v1/users/%252A", 200),
        ("/v1/users/%2561nn", 200),
    ] {
        assert_eq!(http(&node.internal, "DELETE", path, "", b"").await.status, status, "{path}");
    }
    assert!(may_join(&mut clients[0], "user:ann").await, "ann is still connected");
    for client in &mut clients[1..] {
        assert_eq!(client.closed().await.expect("a Close").0, 4409);
    }
}

#[test]
fn options_that_would_have_no_effect_are_refused() {
    for (content, expected) in [
        (
            "[auth]\norigins = \"https://app.example\"\n",
            "auth.origins: cannot use \"https://app.example\": it needs [[auth.issuer]]",
        ),
        ("[[role]]\nname = \"member\"\nallow = []\n", "role: a role needs an issuer"),
    ] {
        let file = write_file("auth-idle.toml", content);
        let error = error_of(&run(&["check", "--config", &file], &[]), EXIT_USAGE);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_wrong_table_is_reported_with_its_place() {
    let secret_file = write_file("auth-wrong-secret", SECRET);
    let valid = config(&secret_file, "team:{claim.team}:*");
    for (change, by, expected) in [
        ("HS256", "none", ":7: auth.issuer.0.algorithms.0: it must be one of HS256,"),
        ("\"join\"]", "\"write\"]", "do.0: it must be one of join,"),
        ("team:{", "team-{", ":16: role.0.allow.0: pattern \"team-{claim.team}:*\":"),
        ("secret_file", "secret_fil", "did you mean auth.issuer.0.secret_file?"),
        ("[\"roomcast\"]", "[]", "`audience` is empty"),
        ("name = \"member\"", "", ":14: role.0: the key name is missing"),
        (
            "[[auth.issuer]]",
            "[auth]\norigins = \"example.org\"\n[[auth.issuer]]",
            "auth.origins: cannot use \"example.org\"",
        ),
        ("secret_file = ", "key_file = ", "key_file: HS256 needs a secret"),
        ("HS256", "ES256", "has no key for its algorithms [ES256]"),
        ("roles_claim = \"roles\"", "roles = [\"guest\"]", "`roles` contains \"guest\", which is not configured"),
    ] {
        let file = write_file("auth-wrong.toml", &valid.replacen(change, by, 1));
        let error = error_of(&run(&["check", "--config", &file], &[]), EXIT_USAGE);
        assert!(error.contains(expected), "{change}: {error}");
    }
}

#[test]
fn check_explains_what_the_client_of_a_token_may_do() {
    let secret_file = write_file("check-secret", SECRET);
    let file = write_file("check-token.toml", &config(&secret_file, "team:{claim.team}:*"));
    let valid = token(SECRET, &json!({}));
    let forged = token(OTHER_SECRET, &json!({}));
    let (token_file, forged_file) =
        (write_file("check-token", &format!("{valid}\n")), write_file("forged-token", &forged));
    let check = |arguments: &[&str]| {
        let output = run(&[&["check", "--config", &file], arguments].concat(), &[]);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
        for secret in [SECRET, &valid, &forged, &valid[..valid.len() - 20]] {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "{arguments:?}: {stdout}{stderr}");
        }
        (output.status.code(), format!("{stdout}{stderr}"))
    };
    let by_token = ["--token", &token_file];
    for (arguments, status, expected) in [
        (&by_token[..], 0, "Client: user \"ann\" of issuer \"https://id.example\"\nRoles: [\"member\"]\n"),
        (&["--token", &forged_file], 1, "The client cannot connect: the token's signature is not valid\n"),
        (
            &["--token", &token_file, "--room", "team:red:a", "--do", "publish"],
            0,
            "granted by rule 1\n  1. role \"member\"",
        ),
        (&["--token", &token_file, "--room", "team:blue:a"], 1, "Right join on room \"team:blue:a\": denied"),
        (&["--token", &token_file, "--call", "chat.send"], 1, "Right call on method \"chat.send\": denied"),
        (&["--token", &forged_file, "--room", "team:red:a"], 1, "The client cannot connect: the token's signature"),
        (&["--room", "public:news"], 0, "Client: anonymous\nRight join on room \"public:news\": granted by rule 1"),
        (&["--token", &valid], 2, "pass the path of a file that contains the token"),
        (&["--do", "join"], 2, "--do needs --room ROOM or --call METHOD"),
        (&["--room", "a", "--do", "call"], 2, "--do: call is not a right on rooms"),
        (&["--room", "a b"], 2, "--room: "),
        (&["--call", "rooms/join/a"], 2, "built-in method"),
        (&["--room", "a", "--do", "write"], 2, "expected one of `join`"),
    ] {
        let (found, text) = check(arguments);
        assert!(found == Some(status) && text.contains(expected), "{arguments:?}: {found:?} {text}");
    }
    let output = run(&["check", "--room", "lobby"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not authenticate clients"));
}

#[test]
fn a_minted_token_is_accepted_and_can_be_read() {
    let secret_file = write_file("mint-secret", &format!("{SECRET}\n"));
    let file = write_file("mint.toml", &config(&secret_file, "team:{claim.team}:*"));
    let mint = ["token", "mint", "--issuer", "https://id.example", "--audience", "roomcast", "--user", "ann"];
    let with_secret = ["--secret-file", &secret_file, "--role", "member", "--claim", "team=red", "--claim", "n=7"];
    let output = run(&[&mint[..], &with_secret].concat(), &[]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("for experiments"));
    let token_file = write_file("minted", &String::from_utf8_lossy(&output.stdout));
    let output = run(&["check", "--config", &file, "--token", &token_file, "--room", "team:red:a"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let output = run(&["token", "inspect", &token_file], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in
        ["\"alg\": \"HS256\"", "\"n\": 7", "\"roles\": [\n      \"member\"\n", "exp 20", "in 14m", "not been verified"]
    {
        assert!(text.contains(expected), "{text}");
    }

    let not_a_token = write_file("not-a-token", "c4n4ry");
    for (arguments, expected) in [
        (&[&mint[..], &["--secret-file", SECRET]].concat()[..], "pass the path of a file, not the key itself"),
        (
            &[&mint[..], &["--key-file", &secret_file]].concat(),
            "--key-file: not a private key in PEM (PKCS#8) for ES256",
        ),
        (&[&mint[..], &with_secret, &["--algorithm", "ES256"]].concat(), "ES256 needs a private key"),
        (&[&mint[..], &with_secret, &["--claim", "team"]].concat(), "write NAME=VALUE"),
        (&mint, "--key-file <FILE>"),
        (&["token", "inspect", &not_a_token], "a JWT has 3 parts that are separated by dots, not 1"),
        (&["token", "inspect", SECRET], "cannot read the file"),
    ] {
        let error = error_of(&run(arguments, &[]), EXIT_USAGE);
        assert!(error.contains(expected) && !error.contains("c4n4ry"), "{error}");
    }
}

#[tokio::test]
async fn the_api_explains_a_decision_and_names_a_revoked_token() {
    let file = write_file("auth-explain.toml", &config(&write_file("explain-secret", SECRET), "team:{claim.team}:*"));
    let mut command = Command::new(BINARY);
    let log = Log::of(&mut command);
    let node = Node::start_by(command, &["--config", &file]).await;
    let ask = async |question: Value| {
        let answer = http(&node.internal, "POST", "/v1/explain", "", question.to_string().as_bytes()).await;
        (answer.status, serde_json::from_str::<Value>(&answer.body).expect("JSON"))
    };
    let token = token(SECRET, &json!({}));
    let (status, granted) = ask(json!({ "token": token, "room": "team:red:a", "do": "publish" })).await;
    assert_eq!((status, &granted["explanation"]["decision"]), (200, &json!("granted")), "{granted}");
    assert_eq!(granted["explanation"]["rules"][0]["source"], json!({ "role": "member" }), "{granted}");
    assert_eq!(granted["revoked"], false);
    let (_, denied) = ask(json!({ "token": token, "room": "team:blue:a" })).await;
    assert_eq!(denied["explanation"]["decision"], "not_granted", "{denied}");
    let (_, anonymous) = ask(json!({ "room": "public:a" })).await;
    assert_eq!(anonymous["explanation"]["decision"], "granted", "{anonymous}");
    let (_, rejected) = ask(json!({ "token": "x.y.z", "room": "public:a" })).await;
    assert_eq!(rejected["explanation"]["decision"], "rejected", "{rejected}");

    let until = json!({ "user": "ann", "until": 4_000_000_000_u64 });
    assert_eq!(http(&node.internal, "POST", "/v1/revocations", "", until.to_string().as_bytes()).await.status, 400);
    let in_a_year =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() + 31_536_000;
    let body = json!({ "user": "ann", "until": in_a_year }).to_string();
    assert_eq!(http(&node.internal, "POST", "/v1/revocations", "", body.as_bytes()).await.status, 200);
    let (_, revoked) = ask(json!({ "token": token, "room": "team:red:a" })).await;
    assert_eq!((&revoked["revoked"], &revoked["explanation"]["decision"]), (&json!(true), &json!("granted")));

    for (question, expected) in [
        (json!({}), "name a room or a call"),
        (json!({ "do": "join" }), "do needs room"),
        (json!({ "room": "a", "call": "b" }), "not both"),
        (json!({ "room": "a", "do": "call" }), "call is not a right on rooms"),
        (json!({ "room": "a/b" }), "room: "),
        (json!({ "call": "rooms/join/a" }), "built-in method"),
        (json!({ "room": "a", "do": "dance" }), "dance"),
    ] {
        let (status, error) = ask(question).await;
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(status == 400 && message.contains(expected), "{status} {message}");
    }
    drop(node);
    assert!(log.rest().iter().all(|line| !line.contains(&token)), "a token is never logged");
}

#[tokio::test]
async fn a_client_without_headers_sends_its_token_first() {
    let file = config(&write_file("auth-late-secret", SECRET), "team:{claim.team}:*");
    let file =
        write_file("auth-late.toml", &file.replacen("[[auth.issuer]]", "[auth]\nlate = true\n\n[[auth.issuer]]", 1));
    let node = Node::start_by(Command::new(BINARY), &["--config", &file]).await;
    let mut client = Client::connect(&node.url()).await.expect("it may send its token later");
    assert_eq!(client.call_text("auth/refresh", token(SECRET, &json!({}))).await.expect("it is open"), "");
    assert!(may_join(&mut client, "team:red:a").await);
    let mut silent = Client::connect(&node.url()).await.expect("it may send its token later");
    silent.start("rooms/join/team:red:a", b"").await.expect("the connection is open");
    assert_eq!(silent.closed().await.expect("a Close").0, 4401);
    assert_eq!(status(connect_page(&node, "https://evil.example").await), Some(403));
}

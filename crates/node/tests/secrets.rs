//! No secret is printed, however wrong the way is in which it was given.

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use support::{BINARY, run_to_its_end, without_options, write_file};

/// Stands in place of a secret; no output may contain it.
const SECRET: &str = "c4n4ry";

/// URLs that can be used. Nothing listens there.
const USABLE_URLS: [&str; 5] = [
    "redis://user:c4n4ry@127.0.0.1:1",
    "redis://c4n4ry@127.0.0.1:1",
    "redis://127.0.0.1:1?password=c4n4ry",
    "redis-sentinel://127.0.0.1:1?sentinelServiceName=m&sentinelPassword=c4n4ry",
    "redis-sentinel://127.0.0.1:1?sentinelUsername=c4n4ry&sentinelServiceName=m",
];

const BAD_URLS: [&str; 22] = [
    "c4n4ry",
    "user:c4n4ry@h:6379",
    "redis:user:c4n4ry@h",
    "redis:/user:c4n4ry@h",
    "redis://user:c4n4ry",
    "redis://user:c4n4ry@",
    "redis://:c4n4ry@:6379",
    "redis://user:1@c4n4ry@h",
    "redis://user:1/c4n4ry@h",
    "redis://user:1/2?c4n4ry@h",
    "redis://user:1?c4n4ry@h",
    "redis://user:1#c4n4ry@h",
    "redis://user:1 c4n4ry@h",
    "redis://user:c4n4ry@h\n",
    "redis://user:c4n4ry@h:port",
    "redis://user:c4n4ry@h/database",
    "valkey://user:c4n4ry@h",
    "http://c4n4ry@h",
    "redis-cluster://h?node=user:c4n4ry@i:1",
    "redis-cluster://h?node=c4n4ry",
    "redis-sentinel://user:c4n4ry@h",
    "redis-sentinel://h?sentinelPassword=c4n4ry",
];

/// URLs of collectors that cannot be used.
const BAD_ENDPOINTS: [&str; 5] = [
    "https://user:c4n4ry@otel.example",
    "https://c4n4ry@otel.example/v1/traces",
    "user:c4n4ry@otel:4317",
    "ftp://user:c4n4ry@otel",
    "https://user:c4n4ry with a space@otel",
];

/// Files that are not TOML, or not options.
const BAD_FILES: [&str; 7] = [
    "redis = redis://user:c4n4ry@h\n",
    "api_key = c4n4ry\n",
    "api_key = \"c4n4ry\n",
    "api_key \"c4n4ry\"\n",
    "api_key = \"1\" c4n4ry\n",
    "api_key = [\"c4n4ry\"]\n",
    "api_key = \"c4n4ry\"\napi_key = \"c4n4ry\"\n",
];

fn command(name: &str) -> Command {
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    command.arg(name);
    command
}

#[track_caller]
fn assert_hidden(output: &Output, what: &str) {
    let printed = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(!printed.contains(SECRET), "{what}: {printed}");
    assert!(!printed.is_empty(), "{what}");
}

/// Runs the command with a value as a flag, a variable, and a key of a file; the number is the value's own.
fn run_with(name: &str, (key, flag, variable): (&str, &str, &str), value: &str, number: usize) -> [Output; 3] {
    let file = write_file(&format!("secret-{name}-{key}-{number}.toml"), &format!("{key} = {value:?}\n"));
    [
        run_to_its_end(command(name).arg(format!("{flag}={value}"))),
        run_to_its_end(command(name).env(variable, value)),
        run_to_its_end(command(name).args(["--config", &file])),
    ]
}

const REDIS: (&str, &str, &str) = ("redis", "--redis", "ROOMCAST_REDIS");
const ENDPOINT: (&str, &str, &str) = ("trace_endpoint", "--trace-endpoint", "ROOMCAST_TRACE_ENDPOINT");
const API_KEY: (&str, &str, &str) = ("api_key", "--api-key", "ROOMCAST_API_KEY");

#[test]
fn a_url_that_is_refused_is_printed_without_its_secret() {
    let urls = BAD_URLS.map(|url| (REDIS, url)).into_iter().chain(BAD_ENDPOINTS.map(|url| (ENDPOINT, url)));
    for (number, (option, url)) in urls.enumerate() {
        for name in ["check", "serve"] {
            for output in run_with(name, option, url, number) {
                assert_eq!(output.status.code(), Some(2), "{url}: {output:?}");
                assert_hidden(&output, url);
            }
        }
    }
}

#[test]
fn a_url_that_is_used_is_printed_without_its_secret() {
    thread::scope(|scope| {
        for (number, url) in (BAD_URLS.len()..).zip(USABLE_URLS) {
            scope.spawn(move || {
                for output in run_with("check", REDIS, url, number) {
                    assert_hidden(&output, url);
                    assert!(String::from_utf8_lossy(&output.stdout).contains("127.0.0.1:1"), "{url}: {output:?}");
                }
            });
            // Nothing is logged of sentinels that do not answer.
            if !url.starts_with("redis-sentinel") {
                scope.spawn(move || assert_logs_hide(url));
            }
        }
    });
}

#[test]
fn a_collector_that_is_used_is_printed_without_its_query() {
    for output in run_with("check", ENDPOINT, "http://127.0.0.1:1/v1/traces?key=c4n4ry", 0) {
        assert_hidden(&output, "the query");
        assert!(String::from_utf8_lossy(&output.stdout).contains("http://127.0.0.1:1/v1/traces "), "{output:?}");
    }
}

/// A node that tries this URL logs no secret.
fn assert_logs_hide(url: &str) {
    let mut node = command("serve")
        .args(["--listen=127.0.0.1:0", "--internal-listen=off", "--log=trace", "--redis", url])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = BufReader::new(node.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let mut seen = Vec::new();
    for line in lines {
        let is_enough = line.contains("was not opened");
        seen.push(line);
        if is_enough {
            break;
        }
    }
    node.kill().expect("a child of this process");
    node.wait().expect("a child of this process");
    assert!(seen.iter().any(|line| line.contains("was not opened")), "{url}: {seen:#?}");
    assert!(!seen.iter().any(|line| line.contains(SECRET)), "{url}: {seen:#?}");
}

#[test]
fn an_api_key_is_not_printed() {
    for (number, key) in ["c4n4ry", "c4n4ry with spaces", "c4n4ry\u{e9}"].into_iter().enumerate() {
        for output in run_with("check", API_KEY, key, number) {
            assert_hidden(&output, key);
        }
    }
}

#[test]
fn a_file_that_can_not_be_read_is_not_quoted() {
    for (number, content) in BAD_FILES.into_iter().enumerate() {
        let file = write_file(&format!("secret-bad-{number}.toml"), content);
        for name in ["check", "serve"] {
            let output = run_to_its_end(command(name).args(["--config", &file]));
            assert_eq!(output.status.code(), Some(2), "{content}: {output:?}");
            assert_hidden(&output, content);
        }
    }
}

#[test]
fn a_secret_in_place_of_a_jwk_set_is_not_quoted() {
    for (number, content) in
        ["c4n4ry", "\"c4n4ry\"", "{\"keys\": \"c4n4ry\"}", "{\"c4n4ry\": 1}"].into_iter().enumerate()
    {
        let keys = write_file(&format!("secret-{number}.json"), content);
        let issuer = format!(
            "[[auth.issuer]]\nissuer = \"a\"\naudience = [\"a\"]\nalgorithms = [\"ES256\"]\njwks_file = {keys:?}\n"
        );
        let file = write_file(&format!("secret-jwks-{number}.toml"), &issuer);
        let output = run_to_its_end(command("check").args(["--config", &file]));
        assert_eq!(output.status.code(), Some(2), "{content}: {output:?}");
        assert_hidden(&output, content);
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_not_quoted() {
    for variable in ["ROOMCAST_REDIS", "ROOMCAST_API_KEY"] {
        let output = run_to_its_end(command("check").env(variable, OsStr::from_bytes(b"c4n4ry\xff")));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_hidden(&output, variable);
    }
}

#[test]
fn a_value_that_was_separated_from_its_option_is_not_quoted() {
    for stray in [&["--api-key", "=", SECRET][..], &["--redis", "off", "redis://:c4n4ry@h"]] {
        let output = run_to_its_end(command("serve").args(stray));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_hidden(&output, stray[0]);
    }
}

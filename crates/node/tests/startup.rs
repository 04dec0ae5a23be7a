//! What a node reports when it starts, and what `roomcast check` finds, if something is not as the operator expects.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use roomcast_testkit::free_port;
use support::log::{Killed, Log};
use support::{BINARY, run, without_options};

/// A node, and its log.
fn start(mut launcher: Command, arguments: &[&str]) -> (Killed, Log) {
    without_options(&mut launcher);
    let log = Log::of(&mut launcher);
    let node = launcher.args(["serve", "--listen=127.0.0.1:0", "--internal-listen=off"]).args(arguments).spawn();
    (Killed::new(node.expect("it starts")), log)
}

#[test]
fn a_node_without_methods_and_rooms_warns() {
    let (_node, log) = start(Command::new(BINARY), &[]);
    let lines = log.until("clients can use no methods and no rooms");
    assert!(lines.last().is_some_and(|line| line.contains("WARN")), "{lines:#?}");
}

#[test]
fn a_node_with_the_demo_does_not_warn() {
    let (node, log) = start(Command::new(BINARY), &["--demo", "--max-connections=9"]);
    let lines = log.until("listening on");
    assert!(Command::new("kill").arg(node.id().to_string()).status().expect("kill starts").success());
    let lines = [lines, log.until("draining")].concat();
    // What a person at a terminal reads is not for whatever reads a pipe.
    assert!(!lines.iter().any(|line| line.contains("two browser tabs")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("WARN")), "{lines:#?}");
}

#[test]
fn too_few_descriptors_for_all_connections_are_a_warning() {
    let mut launcher = Command::new("prlimit");
    launcher.args(["--nofile=256:256", BINARY]);
    let (_node, log) = start(launcher, &["--demo", "--max-connections=1000"]);
    let lines = log.until("max_connections is lowered from 1000 to ");
    assert!(lines.last().is_some_and(|line| line.contains("WARN")), "{lines:#?}");
}

#[test]
fn a_node_that_can_not_use_redis_logs_why() {
    let address = format!("127.0.0.1:{}", free_port());
    for (url, reason) in [
        (
            format!("redis://{address}"),
            format!("reason=\"{address}: it refuses connections; check the address and the port\""),
        ),
        (format!("redis-cluster://{address}"), format!("no server ({address}) lists the slots")),
        (
            format!("redis-sentinel://{address}?sentinelServiceName=m"),
            format!("no sentinel ({address}) names a master"),
        ),
    ] {
        let (_node, log) = start(Command::new(BINARY), &["--demo", "--redis", &url]);
        let lines = log.until("cannot use Redis yet");
        assert!(lines.last().is_some_and(|line| line.contains("WARN") && line.contains(&reason)), "{lines:#?}");
    }
}

/// A server that answers the first bytes of each client with these, or with none.
fn answer(with: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            // The client may have gone.
            let _ = stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(with));
            open.push(stream);
        }
    });
    address
}

#[test]
fn check_tells_in_words_why_redis_can_not_be_used() {
    let closed = format!("127.0.0.1:{}", free_port());
    let http = answer(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let silent = answer(b"");
    let cases = [
        (format!("redis://{closed}"), format!("{closed}: it refuses connections; check the address and the port")),
        ("redis://redis.invalid".to_owned(), "redis.invalid:6379: its name cannot be resolved".to_owned()),
        (format!("redis://{http}"), format!("{http}: its reply is not in the Redis protocol")),
        (format!("rediss://{http}"), format!("{http}: the TLS handshake failed; check that the port serves TLS")),
        (format!("rediss://{silent}"), format!("{silent}: no TLS handshake within 2s; check that the port serves TLS")),
    ];
    thread::scope(|scope| {
        for (url, expected) in &cases {
            scope.spawn(move || {
                let output = run(&["check", "--redis", url], &[]);
                let error = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{url}: {error}");
                assert!(error.contains(expected), "{url}: {error}");
            });
        }
    });
}

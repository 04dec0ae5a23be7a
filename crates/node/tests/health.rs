//! `roomcast health`, as a container's health check runs it.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use support::{error_of, run, start_node};

const EXIT_FAILURE: i32 = 1;

const KEY: (&str, &str) = ("ROOMCAST_API_KEY", "s3cret-0123456789");

/// Listens on loopback and answers the first request with these bytes; its port, and the request's head when it
/// has come. Then it keeps the connection open.
fn answering(answer: &'static [u8]) -> (u16, thread::JoinHandle<(Vec<String>, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it is asked");
        let copy = stream.try_clone().expect("a socket can be shared");
        let lines = BufReader::new(copy).lines().map(|line| line.expect("a head in text"));
        let head = lines.take_while(|line| !line.is_empty()).collect();
        stream.write_all(answer).expect("the answer is read");
        (head, stream)
    });
    (port, answering)
}

#[tokio::test]
async fn a_node_that_works_is_healthy_and_nothing_is_printed() {
    let mut node = start_node(&[]).await;
    let internal = node.internal.clone();
    for (arguments, variables) in [
        (&["health", "--internal-listen", &internal][..], &[][..]),
        (&["health"], &[("ROOMCAST_INTERNAL_LISTEN", internal.as_str())]),
    ] {
        assert_eq!(error_of(&run(arguments, variables), 0), "");
    }

    node.signal("KILL");
    node.exit().await;
    let error = error_of(&run(&["health", "--internal-listen", &internal], &[]), EXIT_FAILURE);
    assert!(error.contains(&format!("GET http://{internal}/healthz: Connection refused")), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_listener_on_all_addresses_is_asked_on_loopback() {
    let (port, answering) = answering(b"HTTP/1.1 200 OK\r\n\r\n");
    let output = run(&["health", &format!("--internal-listen=0.0.0.0:{port}")], &[KEY]);
    assert_eq!(error_of(&output, 0), "");
    let (head, _stream) = answering.join().expect("it was asked");
    assert_eq!(head[0], "GET /healthz HTTP/1.1");
    assert!(head.contains(&format!("Host: 127.0.0.1:{port}")), "{head:?}");
}

#[test]
fn another_answer_than_200_none_and_half_of_one_are_told() {
    for (answer, told) in [
        (
            &b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..],
            "the response is \"HTTP/1.1 503 Service Unavailable\" instead of 200",
        ),
        (b"200\r\n", "the response is \"200\" instead of 200"),
        (b"HTTP/1.1 200", "no response within 2s; check that the node runs with this configuration"),
        (b"", "no response within 2s; check that the node runs with this configuration"),
    ] {
        let (port, answering) = answering(answer);
        let error = error_of(&run(&["health", &format!("--internal-listen=127.0.0.1:{port}")], &[]), EXIT_FAILURE);
        assert_eq!(error, format!("roomcast: GET http://127.0.0.1:{port}/healthz: {told}\n"));
        answering.join().expect("it was asked");
    }
}

#[test]
fn who_can_not_be_asked_is_not_healthy() {
    for (address, told) in [("off", "`internal_listen` is off"), ("nowhere", "cannot use \"nowhere\"")] {
        let error = error_of(&run(&["health", &format!("--internal-listen={address}")], &[]), EXIT_FAILURE);
        assert!(error.contains(told), "{error}");
    }
}

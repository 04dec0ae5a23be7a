//! What the system tests of the binary share: nodes, bare connections, scrapes, and figures of processes.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod certificate;
pub mod event_backend;
pub mod log;
pub mod tokens;

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use roomcast_protocol::SUBPROTOCOL;
use roomcast_testkit::{Node, http_get};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_roomcast");

/// No test waits longer for one thing.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often conditions of other processes are looked at.
const POLL: Duration = Duration::from_millis(10);

// === nodes ===

/// A node that is ready, without the environment's options.
pub async fn start_node(arguments: &[&str]) -> Node {
    start_node_by(Command::new(BINARY), arguments).await
}

/// A node that was started by a launcher.
pub async fn start_node_by(mut launcher: Command, arguments: &[&str]) -> Node {
    without_options(&mut launcher);
    Node::start_by(launcher, &[&["--log", "error"], arguments].concat()).await
}

/// Takes from a command what the environment says about nodes.
pub fn without_options(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOMCAST_")) {
        command.env_remove(name);
    }
}

/// Waits for a condition.
pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// The future's output; a test that waits longer than the deadline for it fails.
pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

// === commands ===

/// Runs the binary, which must end by itself.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    run_to_its_end(command.args(arguments).envs(variables.iter().copied()))
}

/// As [`run`], with a command that was put together before.
pub fn run_to_its_end(command: &mut Command) -> Output {
    let started = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    while child.try_wait().expect("a child of this process").is_none() {
        if started.elapsed() > DEADLINE {
            child.kill().expect("a child of this process");
            panic!("it runs on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(POLL);
    }
    child.wait_with_output().expect("it has ended")
}

/// What it said on standard error, having ended with this status and nothing on standard output.
pub fn error_of(output: &Output, status: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    error
}

// === metrics ===

/// What `/metrics` said at one moment.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
}

impl Scrape {
    pub async fn of(node: &Node) -> Self {
        let (status, text) = http_get(&node.internal, "/metrics").await.expect("the internal listener answers");
        assert_eq!(status, 200, "{text}");
        Self { text }
    }

    /// The value of a series, written as in the exposition: the name and its labels in their order.
    pub fn value(&self, series: &str) -> Option<f64> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap_or_else(|_| panic!("{series} has the value {line:?}")))
    }

    /// The names and labels of all series.
    pub fn series(&self) -> BTreeSet<&str> {
        let samples = self.text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
    }

    /// The names of all metrics.
    pub fn names(&self) -> BTreeSet<&str> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.filter_map(|line| line.split(' ').next()).collect()
    }

    /// The sum over the series of one metric.
    pub fn sum(&self, name: &str) -> f64 {
        let of_this = |series: &&&str| series.split('{').next() == Some(name);
        self.series().iter().filter(of_this).filter_map(|series| self.value(series)).sum()
    }
}

/// Waits until all these series have these values; a series that is not there counts as 0.
pub async fn wait_for_values(node: &Node, expected: &[(&str, f64)]) {
    let started = Instant::now();
    loop {
        let scrape = Scrape::of(node).await;
        let found = expected.iter().map(|(series, value)| (series, value, scrape.value(series).unwrap_or_default()));
        let wrong: Vec<_> = found.filter(|(_, expected, found)| *expected != found).collect();
        if wrong.is_empty() {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "(series, expected, found): {wrong:#?}\n{}", scrape.text);
        tokio::time::sleep(POLL).await;
    }
}

/// The gauge of open connections.
pub const CONNECTIONS: &str = "roomcast_connections{protocol=\"websocket.io-rpc-v0.1\"}";

/// The gauges that are 0 on a node that nobody uses.
pub const GAUGES_AT_REST: [(&str, f64); 7] = [
    (CONNECTIONS, 0.0),
    ("roomcast_calls_in_flight", 0.0),
    ("roomcast_cancelled_calls_in_flight", 0.0),
    ("roomcast_rooms", 0.0),
    ("roomcast_memberships", 0.0),
    ("roomcast_inbound_memory_bytes", 0.0),
    ("roomcast_outbound_queue_bytes", 0.0),
];

// === processes ===

/// The fields of a `stat` file of `/proc` from the state on.
fn stat(path: &str) -> Vec<String> {
    let stat = std::fs::read_to_string(path).expect("the process is there");
    let (_, fields) = stat.rsplit_once(") ").expect("a stat file");
    fields.split(' ').map(str::to_owned).collect()
}

fn ticks(stat: &[String]) -> u64 {
    // utime and stime: fields 14 and 15, of which the state is field 3.
    stat[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// The processor time of a process so far, in clock ticks (100 a second).
pub fn cpu_ticks(pid: u32) -> u64 {
    ticks(&stat(&format!("/proc/{pid}/stat")))
}

/// The memory of a process that is not swapped out, in bytes.
pub fn resident_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the line is there");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// The processor time that a process takes in one second from now.
pub async fn cpu_ticks_in_a_second(pid: u32) -> u64 {
    let before = cpu_ticks(pid);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cpu_ticks(pid) - before
}

/// The thread that took most processor time so far.
pub fn busiest_thread(pid: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let ids = threads.filter_map(|thread| thread.ok()?.file_name().into_string().ok());
    ids.max_by_key(|id| ticks(&stat(&format!("/proc/{pid}/task/{id}/stat")))).expect("a thread")
}

/// Whether a thread runs, or would if it had a processor.
pub fn is_runnable(pid: u32, thread: &str) -> bool {
    stat(&format!("/proc/{pid}/task/{thread}/stat"))[0] == "R"
}

/// How many descriptors a process has open.
pub fn open_files(pid: u32) -> usize {
    open_files_below(pid, usize::MAX)
}

/// How many of its descriptors are below a number: what it inherited may be above its own limit.
pub fn open_files_below(pid: u32, limit: usize) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there");
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<usize>().ok());
    numbers.filter(|number| *number < limit).count()
}

/// How many descriptors below a number a process has open while nobody uses it: as many in 20 looks in a
/// row, because those of the last requests may still be on their way out.
pub async fn files_at_rest(pid: u32, limit: usize) -> usize {
    in_time("the number of descriptors settles", async {
        let (mut files, mut looks) = (open_files_below(pid, limit), 0);
        while looks < 20 {
            tokio::time::sleep(POLL).await;
            let now = open_files_below(pid, limit);
            looks = if now == files { looks + 1 } else { 0 };
            files = now;
        }
        files
    })
    .await
}

/// A file for one test.
pub fn write_file(name: &str, content: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the file can be written");
    path.to_str().expect("a path in UTF-8").to_owned()
}

// === HTTP ===

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends bytes and reads until the other side ends the connection; what it sent.
pub async fn exchange(address: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = in_time("a connection is there", TcpStream::connect(address)).await.expect("somebody listens");
    // The other side may end the connection before it has read everything.
    let _ = in_time("the request is written", stream.write_all(request)).await;
    let mut answer = Vec::new();
    let _ = in_time("the connection ends", stream.read_to_end(&mut answer)).await;
    answer
}

/// A GET's answer.
pub async fn get(address: &str, path: &str) -> Answer {
    http(address, "GET", path, "", b"").await
}

/// A request's answer. Each header ends with a line's end.
pub async fn http(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
    );
    let answer = exchange(address, &[head.as_bytes(), body].concat()).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

// === bare connections ===

/// Opcodes of RFC 6455, section 5.2.
pub const TEXT: u8 = 0x1;
pub const BINARY_MESSAGE: u8 = 0x2;
pub const CLOSE: u8 = 0x8;

/// A connection with next to nothing on this side: cheap to have by the thousand, and free to do what no
/// orderly client does.
#[derive(Debug)]
pub struct Bare<S = TcpStream> {
    pub stream: S,
    /// Read and not yet looked at.
    unread: Vec<u8>,
}

impl Bare {
    /// Connects and asks for the upgrade, without waiting for an answer.
    pub async fn dial(address: &str) -> Self {
        Self::dial_in_two(address).await.complete().await
    }

    /// Connects and asks for the upgrade, but for the last bytes.
    pub async fn dial_in_two(address: &str) -> HalfDialled {
        let stream = in_time("a connection is there", TcpStream::connect(address)).await.expect("somebody listens");
        stream.set_nodelay(true).expect("the option can be set");
        Self::dial_over(stream, address).await
    }

    pub async fn connect(address: &str) -> Self {
        let mut bare = Self::dial(address).await;
        bare.upgraded().await;
        bare
    }

    /// Ends the connection with a reset, not with a close nor an end of the stream.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("the option can be set");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Bare<S> {
    /// Asks for the upgrade over this connection, but for the last bytes.
    pub async fn dial_over(stream: S, address: &str) -> HalfDialled<S> {
        let mut bare = Self { stream, unread: Vec::new() };
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
        );
        bare.write(request.as_bytes()).await.expect("the handshake is written");
        HalfDialled(bare)
    }

    /// Reads until the stream ends, however it ends.
    pub async fn end(&mut self) {
        while self.read().await.unwrap_or_default() > 0 {}
    }

    /// The head of the answer to the handshake.
    pub async fn head(&mut self) -> String {
        let head_len = loop {
            if let Some(at) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read().await.expect("the handshake is answered") > 0, "the handshake is answered");
        };
        let head: Vec<u8> = self.unread.drain(..head_len).collect();
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Waits for the upgrade.
    pub async fn upgraded(&mut self) {
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time("bytes are written", self.stream.write_all(bytes)).await
    }

    async fn read(&mut self) -> io::Result<usize> {
        in_time("bytes come", self.stream.read_buf(&mut self.unread)).await
    }

    /// The next frame's opcode and payload; `None` at the end of the stream, however it ends.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, header_len, payload_len)) = parse_header(&self.unread)
                && self.unread.len() >= header_len + payload_len
            {
                let frame: Vec<u8> = self.unread.drain(..header_len + payload_len).collect();
                return Some((opcode, frame[header_len..].to_vec()));
            }
            if self.read().await.unwrap_or_default() == 0 {
                return None;
            }
        }
    }

    /// Calls a method and waits for the answer's payload.
    pub async fn call(&mut self, method: &str, payload: &[u8]) -> Vec<u8> {
        self.write(&message(&request(1, method, payload))).await.expect("the call is written");
        let (opcode, answer) = self.frame().await.expect("the call is answered");
        assert_eq!((opcode, &answer[..5]), (BINARY_MESSAGE, &[4, 0, 0, 0, 1][..]));
        answer[5..].to_vec()
    }

    /// Calls `echo` and waits for the answer.
    pub async fn echo(&mut self, payload: &[u8]) {
        assert_eq!(self.call("echo", payload).await, payload);
    }

    /// Closes with a code, or none, and waits for the other side's close, which is the end.
    pub async fn close(mut self, code: Option<u16>) {
        let code = code.map(u16::to_be_bytes);
        let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
        self.write(&client_frame(CLOSE, payload)).await.expect("the close is written");
        while let Some((opcode, _)) = self.frame().await {
            if opcode == CLOSE {
                assert_eq!(self.frame().await, None, "nothing comes after a close");
                return;
            }
        }
        panic!("the close was not answered");
    }
}

/// A connection whose handshake lacks its last bytes.
#[derive(Debug)]
pub struct HalfDialled<S = TcpStream>(Bare<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> HalfDialled<S> {
    /// Sends one more header, or several, each with its line's end.
    pub async fn headers(mut self, lines: &str) -> Self {
        self.0.write(lines.as_bytes()).await.expect("the headers are written");
        self
    }

    /// Sends what is left of the handshake, to whoever still reads it.
    pub async fn complete(mut self) -> Bare<S> {
        let _ = self.0.write(b"\r\n").await;
        self.0
    }
}

fn parse_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (opcode, len) = (bytes.first()? & 0x0F, *bytes.get(1)?);
    Some(match len {
        126 => (opcode, 4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (opcode, 10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (opcode, 2, usize::from(len)),
    })
}

/// A client's frame: masked, with zeros.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A frame of the protocol, as a message from a client.
pub fn message(frame: &[u8]) -> Vec<u8> {
    client_frame(BINARY_MESSAGE, frame)
}

/// A Request of the protocol.
pub fn request(id: u32, method: &str, payload: &[u8]) -> Vec<u8> {
    [&[2], &id.to_be_bytes()[..], &[method.len() as u8], method.as_bytes(), payload].concat()
}

/// A Notify of the protocol.
pub fn notify(event: &str, payload: &[u8]) -> Vec<u8> {
    [&[1, event.len() as u8], event.as_bytes(), payload].concat()
}

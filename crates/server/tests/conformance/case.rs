//! A row of a table, and how it is run.

use std::time::Duration;

use axum::extract::State;
use roomcast::Options;
use roomcast::raw::EchoUpgrade;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::frame::{CLOSE, Frame, close, frame};

/// The close codes that the tables expect (RFC 6455, section 7.4.1).
pub(crate) const NORMAL: u16 = 1000;
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
pub(crate) const NOT_UTF8: u16 = 1007;
pub(crate) const TOO_BIG: u16 = 1009;

/// No case waits longer for its end. On a busy machine, the large messages take a minute.
const DEADLINE: Duration = Duration::from_secs(300);

/// What the client sends, and what the server must do.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) number: String,
    section: &'static str,
    name: String,
    steps: Vec<Step>,
    end: End,
}

#[derive(Debug, Clone)]
enum Step {
    /// Bytes that the client writes at once.
    Write(Vec<u8>),
    /// The next frame that the server must send.
    Receive(Frame),
}

#[derive(Debug, Clone)]
enum End {
    /// The client closes with 1000, and the server answers with 1000 and ends the TCP connection.
    ByClient,
    /// The server sends a Close with this code and ends the TCP connection.
    ByServer(u16),
}

pub(crate) fn case(number: impl Into<String>, section: &'static str, name: impl Into<String>) -> Case {
    Case { number: number.into(), section, name: name.into(), steps: Vec::new(), end: End::ByClient }
}

impl Case {
    /// The client sends these frames in one write.
    pub(crate) fn send(self, frames: impl AsRef<[Frame]>) -> Self {
        self.write([masked(frames.as_ref())])
    }

    /// The client sends these frames in a write each.
    pub(crate) fn send_frame_by_frame(self, frames: impl AsRef<[Frame]>) -> Self {
        self.write(frames.as_ref().iter().map(Frame::masked))
    }

    /// The client sends these frames in writes of `size` bytes.
    pub(crate) fn send_in_pieces(self, size: usize, frames: impl AsRef<[Frame]>) -> Self {
        self.write(masked(frames.as_ref()).chunks(size).map(<[u8]>::to_vec))
    }

    /// The client makes these writes.
    pub(crate) fn write(mut self, writes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.steps.extend(writes.into_iter().map(Step::Write));
        self
    }

    /// The server must send these frames next.
    pub(crate) fn answers(mut self, frames: impl IntoIterator<Item = Frame>) -> Self {
        self.steps.extend(frames.into_iter().map(Step::Receive));
        self
    }

    /// The server must then fail the connection with this code.
    pub(crate) fn fails_with(self, code: u16) -> Self {
        Self { end: End::ByServer(code), ..self }
    }

    /// The server must answer the Close that was sent with this code.
    pub(crate) fn closes_with(self, code: u16) -> Self {
        Self { end: End::ByServer(code), ..self }
    }

    /// Plays the case over a new connection.
    async fn run(&self, address: &str) -> Result<(), String> {
        let mut client = Client::connect(address).await?;
        for step in &self.steps {
            match step {
                Step::Write(bytes) => client.write(bytes).await,
                Step::Receive(expected) => client.expect(expected).await?,
            }
        }
        let code = match self.end {
            End::ByServer(code) => code,
            End::ByClient => {
                client.write(&close(NORMAL, "").masked()).await;
                NORMAL
            }
        };
        let received = client.receive().await?.ok_or("the TCP connection ended without a Close")?;
        if received.opcode != CLOSE || received.payload.get(..2) != Some(&code.to_be_bytes()) {
            return Err(format!("no close {code} but {}", received.describe()));
        }
        if received != frame(CLOSE, &received.payload) {
            return Err(format!("a malformed Close: {}", received.describe()));
        }
        match client.receive().await? {
            None => Ok(()),
            Some(more) => Err(format!("after its Close, the server sent {}", more.describe())),
        }
    }
}

fn masked(frames: &[Frame]) -> Vec<u8> {
    frames.iter().map(Frame::masked).collect::<Vec<_>>().concat()
}

/// Runs the cases at once, each over its own connection, against an echo with default options.
pub(crate) async fn check(cases: Vec<Case>) {
    check_with(Options::default(), cases).await;
}

pub(crate) async fn check_with(options: Options, cases: Vec<Case>) {
    // The tables list all that the server sends, so it sends no pings of its own.
    let options = options.with(|options| options.ping_interval = 2 * DEADLINE);
    let app = axum::Router::new().fallback(echo).with_state(options);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut runs = JoinSet::new();
    let total = cases.len();
    for case in cases {
        let address = address.clone();
        runs.spawn(async move {
            let result = tokio::time::timeout(DEADLINE, case.run(&address)).await;
            let result = result.unwrap_or_else(|_| Err(format!("it did not end within {DEADLINE:?}")));
            result.map_err(|error| format!("{} {} (RFC 6455, {}): {error}", case.number, case.name, case.section))
        });
    }
    let mut failed: Vec<String> = runs.join_all().await.into_iter().filter_map(Result::err).collect();
    failed.sort();
    assert!(failed.is_empty(), "{} of {total} cases failed:\n{}", failed.len(), failed.join("\n"));
}

async fn echo(State(options): State<Options>, upgrade: EchoUpgrade) -> axum::response::Response {
    upgrade.echo(options)
}

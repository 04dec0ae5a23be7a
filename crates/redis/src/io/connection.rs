//! The I/O of a subscriber connection: it opens the connection, reads what arrives, and writes what
//! it is given.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fred::types::config::Server;
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, rustls};

use crate::state::resp::{Incoming, bytes_of, error_of, put_command};

/// How long opening a connection may take: TCP, TLS and HELLO.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// How many bytes one read takes at most.
const READ_CHUNK: usize = 64 * 1024;

/// The user, the password, the database and the TLS settings of a connection.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<u8>,
    pub(crate) tls: Option<TlsConnector>,
}

/// What a connection reports to its owner.
#[derive(Debug)]
pub(crate) enum Report {
    Connected(Fitness),
    Received(Vec<Incoming>),
    /// The connection has ended. This is the last report.
    Ended(ConnectionError),
}

/// What a new connection found out about its server.
#[derive(Debug)]
pub(crate) struct Fitness {
    /// The policy by which the server evicts keys when its memory is full, or `None` if it evicts
    /// none. If the server evicts a room's position, the room's events are numbered anew, and
    /// repeated publishes are not recognised.
    pub(crate) evicts: Option<String>,
}

/// Why a connection ended or could not be opened.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it refuses connections; check the address and the port")]
    RefusesConnections,
    #[error("its name cannot be resolved: {0}")]
    Unresolved(io::Error),
    #[error("no TLS handshake within {CONNECT_TIMEOUT:?}; check that the port serves TLS")]
    NoTls,
    #[error("the TLS handshake failed; check that the port serves TLS")]
    NotTls,
    #[error("it did not reply within {0:?}")]
    Timeout(Duration),
    #[error("Redis replied with an error: {0}")]
    Refused(String),
    #[error("the server is a {0}, not a master")]
    NotMaster(String),
    #[error("its reply is not in the Redis protocol: {0}")]
    NotResp(String),
    #[error("{0:?} is not a valid server name for TLS: use a host name or an IP address")]
    BadName(String),
    #[error("this node closed the connection, which was silent or no longer needed")]
    GivenUp,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Runs a connection from its opening to its end. If `output` is closed, the connection ends.
pub(crate) async fn run(
    server: Server,
    credentials: Arc<Credentials>,
    mut output: mpsc::Receiver<Bytes>,
    reports: impl AsyncFn(Report),
) {
    let (mut stream, fitness) = match open(&server, &credentials, Instant::now() + CONNECT_TIMEOUT).await {
        Ok(opened) => opened,
        Err(error) => return reports(Report::Ended(error)).await,
    };
    reports(Report::Connected(fitness)).await;
    let ended = exchange(&mut stream, &mut output, &reports).await;
    reports(Report::Ended(ended)).await;
}

async fn exchange(
    stream: &mut Box<dyn Stream>,
    output: &mut mpsc::Receiver<Bytes>,
    reports: &impl AsyncFn(Report),
) -> ConnectionError {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_CHUNK);
        tokio::select! {
            read = stream.read_buf(&mut buffer) => match read {
                Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                Ok(_) => match decode_all(&mut buffer) {
                    Ok(incoming) if incoming.is_empty() => {}
                    Ok(incoming) => reports(Report::Received(incoming)).await,
                    Err(error) => return error,
                },
                Err(error) => return error.into(),
            },
            bytes = output.recv() => {
                let Some(bytes) = bytes else { return ConnectionError::GivenUp };
                match timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return ConnectionError::Timeout(WRITE_TIMEOUT),
                }
            }
        }
    }
}

fn decode_all(buffer: &mut BytesMut) -> Result<Vec<Incoming>, ConnectionError> {
    let mut all = Vec::new();
    while let Some((frame, ..)) =
        decode_bytes_mut(buffer).map_err(|error| ConnectionError::NotResp(error.to_string()))?
    {
        all.extend(Incoming::of(frame));
    }
    Ok(all)
}

async fn open(
    server: &Server,
    credentials: &Credentials,
    deadline: Instant,
) -> Result<(Box<dyn Stream>, Fitness), ConnectionError> {
    let late = |_| ConnectionError::Timeout(CONNECT_TIMEOUT);
    let tcp = timeout_at(deadline, connect(server)).await.map_err(late)??;
    let mut stream: Box<dyn Stream> = match &credentials.tls {
        None => Box::new(tcp),
        Some(tls) => {
            let name = server.tls_server_name.as_ref().unwrap_or(&server.host).to_string();
            let valid = ServerName::try_from(name.clone()).map_err(|_| ConnectionError::BadName(name))?;
            let connected = timeout_at(deadline, tls.connect(valid, tcp)).await.map_err(|_| ConnectionError::NoTls)?;
            Box::new(connected.map_err(tls_error)?)
        }
    };
    let fitness = timeout_at(deadline, greet(&mut stream, credentials)).await.map_err(late)??;
    Ok((stream, fitness))
}

async fn connect(server: &Server) -> Result<TcpStream, ConnectionError> {
    let addresses = lookup_host((&*server.host, server.port)).await.map_err(ConnectionError::Unresolved)?;
    let tcp = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectionError::RefusesConnections,
        _ => error.into(),
    })?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Returns why a TLS handshake failed.
fn tls_error(error: io::Error) -> ConnectionError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => ConnectionError::NotTls,
        _ => error.into(),
    }
}

/// Sends HELLO with the credentials, SELECT if a database was named, ROLE and INFO. It rejects a
/// replica. A replica delivers messages, but if it loses contact with a new master, it misses those
/// that are published there.
async fn greet(stream: &mut Box<dyn Stream>, credentials: &Credentials) -> Result<Fitness, ConnectionError> {
    let mut out = BytesMut::new();
    let mut hello = vec!["HELLO", "3"];
    if let Some(password) = &credentials.password {
        hello.extend(["AUTH", credentials.username.as_deref().unwrap_or("default"), password]);
    }
    hello.extend(["SETNAME", "roomcast"]);
    put_command(&mut out, hello.into_iter());
    let database = credentials.database.unwrap_or(0).to_string();
    let select = database != "0";
    if select {
        put_command(&mut out, ["SELECT", &database].into_iter());
    }
    put_command(&mut out, ["ROLE"].into_iter());
    put_command(&mut out, ["INFO", "memory"].into_iter());
    stream.write_all(&out).await?;

    let mut buffer = BytesMut::new();
    for _ in 0..1 + usize::from(select) {
        next_reply(stream, &mut buffer).await?;
    }
    let BytesFrame::Array { data, .. } = next_reply(stream, &mut buffer).await? else {
        return Err(ConnectionError::NotResp("the reply to ROLE".into()));
    };
    match data.into_iter().next().and_then(bytes_of) {
        Some(role) if role == "master" => {}
        role => {
            let role = String::from_utf8_lossy(&role.unwrap_or_default()).into_owned();
            return Err(ConnectionError::NotMaster(role));
        }
    }
    let info = bytes_of(next_reply(stream, &mut buffer).await?).unwrap_or_default();
    Ok(Fitness { evicts: eviction_policy(&String::from_utf8_lossy(&info)) })
}

/// Returns the policy by which a server evicts keys, from its INFO. Returns `None` if it evicts
/// none.
fn eviction_policy(info: &str) -> Option<String> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let (limit, policy) = (field("maxmemory")?, field("maxmemory_policy")?);
    (limit.trim() != "0" && policy.trim() != "noeviction").then(|| policy.trim().to_owned())
}

async fn next_reply(stream: &mut Box<dyn Stream>, buffer: &mut BytesMut) -> Result<BytesFrame, ConnectionError> {
    loop {
        if let Some((frame, ..)) =
            decode_bytes_mut(buffer).map_err(|error| ConnectionError::NotResp(error.to_string()))?
        {
            return match error_of(&frame) {
                Some(error) => Err(ConnectionError::Refused(error)),
                None => Ok(frame),
            };
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

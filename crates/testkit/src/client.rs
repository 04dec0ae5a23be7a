//! A client for tests. It uses the protocol's client end, over an independent WebSocket library.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use roomcast_protocol::{CallId, ClientConnection, ClientEvent, Frame, Name, SUBPROTOCOL};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No test waits longer than this for one thing.
const DEADLINE: Duration = Duration::from_secs(20);

/// An event from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// The event's payload.
    pub payload: Bytes,
}

/// Why a client failed.
#[derive(Debug)]
pub enum ClientError {
    /// The server closed the connection, with this code and reason.
    Closed(Option<(u16, String)>),
    /// The WebSocket layer failed.
    WebSocket(Box<tungstenite::Error>),
    /// What the client waited for did not arrive in time.
    TimedOut,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// Returns the HTTP status with which the server refused the handshake.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::WebSocket(error) => match &**error {
                tungstenite::Error::Http(response) => Some(response.status().as_u16()),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

type Result<T> = std::result::Result<T, ClientError>;

/// A connection. It reads only while one of its methods waits.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    protocol: ClientConnection,
    answers: HashMap<CallId, Bytes>,
    events: VecDeque<Event>,
    stray_answers: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("waiting", &self.protocol.waiting()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a URL such as `ws://127.0.0.1:3000/socket`.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the handshake fails.
    ///
    /// # Panics
    /// Panics if the URL is invalid.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &[]).await
    }

    /// Connects with additional headers.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the handshake fails.
    ///
    /// # Panics
    /// Panics if the URL or a header is invalid.
    pub async fn connect_with(url: &str, headers: &[(&'static str, &str)]) -> Result<Self> {
        let mut request = url.into_client_request().expect("a WebSocket URL");
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).expect("a header"));
        }
        // Frames are small and sent at once, because this client measures latencies.
        let connected = tokio_tungstenite::connect_async_with_config(request, None, true);
        let connected = tokio::time::timeout(DEADLINE, connected).await;
        let (socket, _) = connected.map_err(|_| ClientError::TimedOut)??;
        Ok(Self {
            socket,
            protocol: ClientConnection::new(),
            answers: HashMap::new(),
            events: VecDeque::new(),
            stray_answers: 0,
        })
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection has ended.
    pub async fn notify(&mut self, event: &str, payload: impl AsRef<[u8]>) -> Result<()> {
        let frame = Frame::Notify { name: name(event), payload: Bytes::copy_from_slice(payload.as_ref()) };
        self.send(&frame).await
    }

    /// Starts a call without waiting for its response.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection has ended.
    pub async fn start(&mut self, method: &str, payload: impl AsRef<[u8]>) -> Result<CallId> {
        let (id, frame) = self.protocol.call(name(method), Bytes::copy_from_slice(payload.as_ref()));
        self.send(&frame).await?;
        Ok(id)
    }

    /// Waits for the response to a call.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection ends first, or if no response arrives in time.
    pub async fn answer(&mut self, id: CallId) -> Result<Bytes> {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return Ok(answer);
            }
            self.read().await?;
        }
    }

    /// Waits for the response to any call. If you drop the future, no response is lost.
    ///
    /// # Errors
    /// Returns the errors of [`answer`](Self::answer).
    pub async fn next_answer(&mut self) -> Result<(CallId, Bytes)> {
        loop {
            if let Some(id) = self.answers.keys().next().copied()
                && let Some(answer) = self.answers.remove(&id)
            {
                return Ok((id, answer));
            }
            self.read().await?;
        }
    }

    /// Calls a method and waits for the response.
    ///
    /// # Errors
    /// Returns the errors of [`answer`](Self::answer).
    pub async fn call(&mut self, method: &str, payload: impl AsRef<[u8]>) -> Result<Bytes> {
        let id = self.start(method, payload).await?;
        self.answer(id).await
    }

    /// Calls a method and returns the response as text.
    ///
    /// # Errors
    /// Returns the errors of [`answer`](Self::answer).
    pub async fn call_text(&mut self, method: &str, payload: impl AsRef<[u8]>) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.call(method, payload).await?).into_owned())
    }

    /// Cancels a call.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection has ended.
    pub async fn reset(&mut self, id: CallId) -> Result<()> {
        match self.protocol.cancel(id) {
            Some(frame) => self.send(&frame).await,
            None => Ok(()),
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection ends first, or if no event arrives in time.
    pub async fn event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.read().await?;
        }
    }

    /// Returns how many responses arrived to calls that were cancelled.
    pub fn stray_answers(&self) -> usize {
        self.stray_answers
    }

    /// Returns the next event that was already read.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Discards what arrives until the server closes the connection. Confirms the close, and
    /// returns its code and reason.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the connection is lost.
    pub async fn closed(&mut self) -> Result<(u16, String)> {
        loop {
            match self.read().await {
                Ok(()) => {}
                Err(ClientError::Closed(Some(close))) => {
                    self.finish_close().await;
                    return Ok(close);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the connection with a closing handshake.
    ///
    /// # Errors
    /// Returns [`ClientError`] if the handshake fails.
    pub async fn close(mut self) -> Result<()> {
        self.socket.close(None).await?;
        self.finish_close().await;
        Ok(())
    }

    /// Completes the closing handshake, and waits until the connection has ended.
    async fn finish_close(&mut self) {
        while let Ok(Some(Ok(_))) = tokio::time::timeout(DEADLINE, self.socket.next()).await {}
    }

    async fn send(&mut self, frame: &Frame) -> Result<()> {
        let mut bytes = bytes::BytesMut::new();
        frame.encode(&mut bytes);
        Ok(self.socket.send(Message::Binary(bytes.freeze())).await?)
    }

    /// Reads one message.
    async fn read(&mut self) -> Result<()> {
        let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.map_err(|_| ClientError::TimedOut)?;
        match message.ok_or(ClientError::Closed(None))?? {
            Message::Binary(message) => {
                match self.protocol.on_message(message).expect("the server sends frames of the protocol") {
                    Some(ClientEvent::Notify { name, payload }) => {
                        self.events.push_back(Event { name: name.to_string(), payload });
                    }
                    Some(ClientEvent::Answer { id, payload }) => {
                        self.answers.insert(id, payload);
                    }
                    // The response was under way when the call was cancelled.
                    None => self.stray_answers += 1,
                }
                Ok(())
            }
            Message::Close(close) => {
                let close = close.map(|CloseFrame { code, reason }| (code.into(), reason.to_string()));
                Err(ClientError::Closed(close))
            }
            _ => Ok(()),
        }
    }
}

fn name(name: &str) -> Name {
    Name::new(name).expect("tests use short names")
}

//! A client for tests: the client's end of the protocol over any stream.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{
    CallId, ClientConnection, ClientDecoder, ClientEvent, CloseCode, CloseFrame, DEFAULT_MAX_PAYLOAD, Frame,
    FromServer, MAX_FRAME_HEADER_LEN, Name, Opcode, encode_client_frame, encode_client_message,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::transport::Io;
use crate::end::Disconnected;
use crate::error::CallError;
use crate::payload::IntoPayload;

/// How long a client waits for anything: 10 s.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes one read takes at most.
const READ_BUFFER: usize = 64 * 1024;

/// The largest message that a client accepts, in bytes. The server's own messages are not limited.
const MAX_MESSAGE: usize = 64 * DEFAULT_MAX_PAYLOAD + MAX_FRAME_HEADER_LEN;

/// All zeros: a pipe has no intermediaries that the mask would protect.
const MASK: [u8; 4] = [0; 4];

/// An event from the server.
///
/// ```
/// use roomcast::testing::Event;
///
/// let event = Event { name: "moved".to_owned(), payload: "[4, 2]".into() };
/// assert_eq!(event.json::<(i32, i32)>(), (4, 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// The event's payload.
    pub payload: Bytes,
}

impl Event {
    /// Deserializes the payload from JSON.
    ///
    /// # Panics
    /// Panics if the payload is not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.payload) {
            Ok(value) => value,
            Err(error) => panic!("{self:?} is not the JSON that is expected: {error}"),
        }
    }
}

/// A client for tests. It reads only while one of its methods waits. If you drop it, the connection
/// ends without a Close, as if the client were lost. See the [module](super) for an example.
///
/// Its methods panic if what they wait for does not arrive within [`PATIENCE`], or cannot arrive
/// because the connection has ended. In a test, both are failures.
///
/// # Cancel safety
/// [`response`](Self::response), [`event`](Self::event) and [`closed`](Self::closed) are cancel
/// safe: what they have read is kept for the next call. The other methods send. If you drop a
/// future of these methods, do not use the client any more.
pub struct Client {
    stream: Box<dyn Io>,
    decoder: ClientDecoder,
    protocol: ClientConnection,
    responses: HashMap<CallId, Bytes>,
    events: VecDeque<Event>,
    ended: Option<Disconnected>,
}

impl Client {
    pub(super) fn new(stream: impl Io + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            decoder: ClientDecoder::new(MAX_MESSAGE),
            protocol: ClientConnection::new(),
            responses: HashMap::new(),
            events: VecDeque::new(),
            ended: None,
        }
    }

    /// Calls a method and waits for the response.
    ///
    /// # Errors
    /// Returns the error that the handler returned.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn call(&mut self, method: &str, payload: impl IntoPayload) -> Result<Bytes, CallError> {
        let call = self.start(method, payload).await;
        self.response(call).await
    }

    /// Starts a call without waiting for its response. Wait with [`response`](Self::response).
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn start(&mut self, method: &str, payload: impl IntoPayload) -> CallId {
        let (id, frame) = self.protocol.call(name(method), bytes(payload));
        self.send(&frame).await;
        id
    }

    /// Waits for the response to a call.
    ///
    /// # Errors
    /// Returns the error that the handler returned.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn response(&mut self, call: CallId) -> Result<Bytes, CallError> {
        loop {
            if let Some(payload) = self.responses.remove(&call) {
                return CallError::from_payload(&payload).map_or(Ok(payload), Err);
            }
            self.read_more("a response").await;
        }
    }

    /// Cancels a call. After this, no response to the call arrives.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn cancel(&mut self, call: CallId) {
        if let Some(frame) = self.protocol.cancel(call) {
            self.send(&frame).await;
        }
    }

    /// Sends a notification.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn notify(&mut self, event: &str, payload: impl IntoPayload) {
        let frame = Frame::Notify { name: name(event), payload: bytes(payload) };
        self.send(&frame).await;
    }

    /// Waits for the next event.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.read_more("an event").await;
        }
    }

    /// Waits for the end of the connection, reading everything that arrives before it.
    ///
    /// # Panics
    /// Panics if the connection does not end within [`PATIENCE`].
    pub async fn closed(&mut self) -> Disconnected {
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone();
            }
            self.read("the connection's end").await;
        }
    }

    /// Closes the connection with 1000, and waits until the server has closed it as well.
    ///
    /// # Panics
    /// Panics under the conditions that [`Client`] describes.
    pub async fn close(mut self) {
        let close = encode_client_message(Opcode::Close, &CloseCode::NORMAL.0.to_be_bytes(), MASK);
        // The server may have closed the stream already.
        let _ = self.stream.write_all(&close).await;
        self.closed().await;
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        encode_client_frame(&mut bytes, frame, MASK);
        let sent = within_patience("the server to read", self.stream.write_all(&bytes)).await;
        if let Err(error) = sent {
            panic!("the connection has ended: {error}");
        }
    }

    async fn read_more(&mut self, what: &str) {
        if let Some(ended) = &self.ended {
            panic!("waiting for {what}: {ended}");
        }
        self.read(what).await;
    }

    /// Reads and processes what has arrived.
    async fn read(&mut self, what: &str) {
        let mut buffer = BytesMut::with_capacity(READ_BUFFER);
        let read = within_patience(what, self.stream.read_buf(&mut buffer)).await;
        if !matches!(read, Ok(1..)) {
            self.ended.get_or_insert_with(|| Disconnected::new(CloseCode(1006), "the server ended the stream"));
            return;
        }
        let mut input = &buffer[..];
        let mut replies = Vec::new();
        while let Some(message) = self.decoder.decode(&mut input).expect("the server follows RFC 6455") {
            match message {
                FromServer::Binary(message) => {
                    let event = self.protocol.on_message(Bytes::copy_from_slice(message));
                    match event.expect("the server follows the protocol") {
                        Some(ClientEvent::Notify { name, payload }) => {
                            self.events.push_back(Event { name: name.to_string(), payload });
                        }
                        Some(ClientEvent::Answer { id, payload }) => {
                            self.responses.insert(id, payload);
                        }
                        // The response was under way when the call was cancelled.
                        None => {}
                    }
                }
                FromServer::Ping(payload) => replies.push(encode_client_message(Opcode::Pong, payload, MASK)),
                FromServer::Close(close) => {
                    let close = close.unwrap_or_else(|| CloseFrame::new(CloseCode(1005), ""));
                    replies.push(encode_client_message(Opcode::Close, &[], MASK));
                    self.ended.get_or_insert_with(|| Disconnected::new(close.code, close.reason));
                }
                FromServer::Text(_) | FromServer::Pong(_) => {}
            }
        }
        for reply in replies {
            // The server may have closed the stream already.
            let _ = self.stream.write_all(&reply).await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("waiting", &self.protocol.waiting())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

pub(super) async fn within_patience<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited for {what} in vain for {PATIENCE:?}"),
    }
}

pub(super) fn name(name: &str) -> Name {
    match Name::new(name) {
        Ok(name) => name,
        Err(error) => panic!("the name {name:?} cannot be sent: {error}"),
    }
}

pub(super) fn bytes(payload: impl IntoPayload) -> Bytes {
    payload.into_payload().unwrap_or_else(|error| panic!("{error}"))
}

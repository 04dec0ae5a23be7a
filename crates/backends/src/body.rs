//! Reads the body of a response: bounded, part by part, and each part in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use roomcast::CallError;
use tokio::time::Instant;

use crate::client::with_causes;
use crate::stream::{Decoder, Format, Item, StreamError};

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It has more bytes than allowed.
    TooLarge,
    /// The connection was lost, for this reason.
    Lost(String),
    /// The next part did not arrive within this time.
    Timeout(Duration),
    /// The stream is not valid or not complete.
    Stream(StreamError),
    /// The stream ended with this error for the client.
    Error(CallError),
}

/// A body whose parts arrive in time.
pub(crate) struct Reader {
    body: Incoming,
    idle_timeout: Duration,
    /// When the last part must have arrived.
    deadline: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(body: Incoming, idle_timeout: Duration, deadline: Option<Instant>) -> Self {
        Self { body, idle_timeout, deadline }
    }

    /// Returns the next part, or `None` at the end. Reads from the connection only when it is called.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let time_left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = time_left.map_or(self.idle_timeout, |left| left.min(self.idle_timeout));
            let frame = tokio::time::timeout(wait, self.body.frame()).await;
            match frame.map_err(|_| BodyError::Timeout(wait))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(BodyError::Lost(with_causes(&error))),
                // Trailers have no meaning.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads the whole body.
    pub(crate) async fn whole(&mut self, max: usize) -> Result<Bytes, BodyError> {
        if self.body.size_hint().lower() > max as u64 {
            return Err(BodyError::TooLarge);
        }
        let mut whole = Whole::new(max);
        while let Some(part) = self.next().await? {
            whole.add(&part)?;
        }
        Ok(whole.bytes.freeze())
    }

    /// Reads at most this many bytes, until the end or an error. Also returns whether the body has
    /// ended.
    pub(crate) async fn beginning(&mut self, max: usize) -> (Bytes, bool) {
        let mut bytes = BytesMut::new();
        while bytes.len() < max {
            match self.next().await {
                Ok(Some(part)) => bytes.extend_from_slice(&part[..part.len().min(max - bytes.len())]),
                end => return (bytes.freeze(), end.is_ok()),
            }
        }
        (bytes.freeze(), false)
    }

    /// Reads the Items of a stream, and joins them. In newline-delimited JSON, a line break follows
    /// each Item, so that the result has the same format. Calls `received` for each Item.
    pub(crate) async fn items(&mut self, format: Format, max: usize, received: impl Fn()) -> Result<Bytes, BodyError> {
        let mut decoder = Decoder::new(format, max);
        let mut whole = Whole::new(max);
        loop {
            let part = match self.next().await {
                // A stream whose connection is lost is an incomplete one.
                Err(BodyError::Lost(_)) if format != Format::Chunks => {
                    return Err(BodyError::Stream(StreamError::Incomplete));
                }
                part => part?,
            };
            let is_last = part.is_none();
            part.into_iter().for_each(|part| decoder.push(part));
            let mut next = |is_last| if is_last { decoder.finish() } else { decoder.next() };
            while let Some(item) = next(is_last).map_err(BodyError::Stream)? {
                match item {
                    Item::Data(data) => {
                        received();
                        whole.add(&data)?;
                        if format == Format::Ndjson {
                            whole.add(b"\n")?;
                        }
                    }
                    Item::Error(error) => return Err(BodyError::Error(error)),
                    Item::End => return Ok(whole.bytes.freeze()),
                }
            }
        }
    }
}

/// Bytes up to a limit.
struct Whole {
    bytes: BytesMut,
    max: usize,
}

impl Whole {
    fn new(max: usize) -> Self {
        Self { bytes: BytesMut::new(), max }
    }

    fn add(&mut self, part: &[u8]) -> Result<(), BodyError> {
        if part.len() > self.max - self.bytes.len() {
            return Err(BodyError::TooLarge);
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

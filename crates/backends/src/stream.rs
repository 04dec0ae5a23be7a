//! Responses that are streams: the Items in a body, whatever their format. No I/O.

mod lines;
mod sse;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use roomcast::{CallError, Code};
use serde_json::json;
use thiserror::Error;

use self::lines::Lines;
use self::sse::Events;

/// The header with which a backend declares that each chunk of its body is an Item.
const STREAM_HEADER: &str = "roomcast-stream";

/// How a body contains Items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `text/event-stream`: server-sent events. The data of each event is an Item.
    ServerSentEvents,
    /// `application/x-ndjson`: each line is an Item.
    Ndjson,
    /// `Roomcast-Stream: chunks`: each part of the body is an Item, as it arrives.
    Chunks,
}

impl Format {
    /// Returns the format of a response, or `None` if it is not a stream.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        if headers.get(STREAM_HEADER).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunks")) {
            return Some(Self::Chunks);
        }
        let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::to_str)?.ok()?.split(';').next()?.trim();
        match media_type.to_ascii_lowercase().as_str() {
            "text/event-stream" => Some(Self::ServerSentEvents),
            "application/x-ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// What a stream contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Data(Bytes),
    /// The backend failed, with this error for the client. Nothing follows.
    Error(CallError),
    /// The stream is complete. Nothing follows.
    End,
}

/// Why a body is not a valid stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum StreamError {
    /// The body ended, or the connection was lost, before the stream was complete.
    #[error("the stream ended early")]
    Incomplete,
    #[error("an item is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("an item is not UTF-8")]
    NotUtf8,
}

impl From<StreamError> for CallError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Incomplete => Self::new(Code::Unavailable, "the backend's stream ended early")
                .with_details(json!({ "maybe_executed": true })),
            StreamError::TooLarge { .. } | StreamError::NotUtf8 => {
                Self::new(Code::Internal, format!("the backend's stream is invalid: {error}"))
            }
        }
    }
}

/// Finds the Items in a body that arrives in parts of any size.
///
/// It holds at most one unfinished Item, and the parts that were pushed since the last Item was
/// taken. Whoever pushes only after [`next`](Self::next) has returned `None` bounds its memory by the
/// largest Item and the largest part.
#[derive(Debug)]
pub(crate) struct Decoder {
    kind: Kind,
    max_item: usize,
    is_over: bool,
}

#[derive(Debug)]
enum Kind {
    ServerSentEvents(Events),
    Ndjson(Lines),
    Chunks(Option<Bytes>),
}

impl Decoder {
    pub(crate) fn new(format: Format, max_item: usize) -> Self {
        let kind = match format {
            Format::ServerSentEvents => Kind::ServerSentEvents(Events::default()),
            Format::Ndjson => Kind::Ndjson(Lines::default()),
            Format::Chunks => Kind::Chunks(None),
        };
        Self { kind, max_item, is_over: false }
    }

    /// Adds the next part of the body. Call [`next`](Self::next) until it returns `None` before you
    /// add another one.
    pub(crate) fn push(&mut self, part: Bytes) {
        match &mut self.kind {
            _ if self.is_over => {}
            Kind::ServerSentEvents(events) => events.push(&part),
            Kind::Ndjson(lines) => lines.push(&part),
            Kind::Chunks(chunk) => *chunk = Some(part),
        }
    }

    /// Returns the next Item, or `None` if the body must continue first, or nothing follows.
    ///
    /// # Errors
    /// Returns [`StreamError`] if the body is not a valid stream. Nothing follows.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        let found = match &mut self.kind {
            Kind::ServerSentEvents(events) => events.next(self.max_item),
            Kind::Ndjson(lines) => next_line(lines, self.max_item),
            Kind::Chunks(chunk) => match chunk.take() {
                Some(chunk) if chunk.len() > self.max_item => Err(StreamError::TooLarge { max: self.max_item }),
                chunk => Ok(chunk.filter(|chunk| !chunk.is_empty()).map(Item::Data)),
            },
        };
        self.is_over = !matches!(found, Ok(None | Some(Item::Data(_))));
        found
    }

    /// Ends the body. Returns the last Item, then [`Item::End`], and then `None`.
    ///
    /// # Errors
    /// Returns [`StreamError`] if the stream is incomplete or invalid.
    pub(crate) fn finish(&mut self) -> Result<Option<Item>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        let last = match &mut self.kind {
            Kind::ServerSentEvents(_) => Err(StreamError::Incomplete),
            Kind::Ndjson(lines) => lines.rest().map(item).transpose(),
            Kind::Chunks(_) => Ok(None),
        };
        let last = last.map(|last| Some(last.unwrap_or(Item::End)));
        self.is_over = !matches!(last, Ok(Some(Item::Data(_))));
        last
    }
}

/// Returns the next line that is not empty.
fn next_line(lines: &mut Lines, max: usize) -> Result<Option<Item>, StreamError> {
    while let Some(line) = lines.next(max)? {
        if !line.is_empty() {
            return item(line).map(Some);
        }
    }
    Ok(None)
}

/// Returns an Item of a format whose text is UTF-8.
fn item(text: Bytes) -> Result<Item, StreamError> {
    match std::str::from_utf8(&text) {
        Ok(_) => Ok(Item::Data(text)),
        Err(_) => Err(StreamError::NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 16;

    /// Decodes a body that arrives in these parts, and returns its Items and how it ends.
    fn decode<'a>(format: Format, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Item, StreamError>> {
        let mut decoder = Decoder::new(format, MAX);
        let mut found = Vec::new();
        for part in parts {
            decoder.push(Bytes::copy_from_slice(part));
            while let Some(next) = decoder.next().transpose() {
                found.push(next);
            }
        }
        while let Some(last) = decoder.finish().transpose() {
            found.push(last);
        }
        found
    }

    fn whole(format: Format, body: &str) -> Vec<Result<Item, StreamError>> {
        decode(format, [body.as_bytes()])
    }

    fn data(text: &str) -> Result<Item, StreamError> {
        Ok(Item::Data(Bytes::copy_from_slice(text.as_bytes())))
    }

    #[test]
    fn the_content_type_or_a_header_of_its_own_makes_a_response_a_stream() {
        let format = |name: &'static str, value: &str| {
            Format::of(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(format("content-type", "text/event-stream; charset=utf-8"), Some(Format::ServerSentEvents));
        assert_eq!(format("content-type", "Application/X-NDJSON"), Some(Format::Ndjson));
        assert_eq!(format("roomcast-stream", "chunks"), Some(Format::Chunks));
        for (name, value) in [("content-type", "application/json"), ("content-type", ""), ("roomcast-stream", "off")] {
            assert_eq!(format(name, value), None, "{value}");
        }
    }

    #[test]
    fn the_data_of_each_server_sent_event_is_an_item() {
        let body = "\u{feff}: a comment\r\ndata: one\r\n\r\nid: 7\rretry: 5\rdata:two\rdata: 2\r\revent: named\ndata\n\nevent: end\n\nlate";
        let items = whole(Format::ServerSentEvents, body);
        assert_eq!(items, [data("one"), data("two\n2"), data(""), Ok(Item::End)]);
    }

    #[test]
    fn a_stream_of_events_needs_its_end() {
        let incomplete = [data("one"), Err(StreamError::Incomplete)];
        for body in
            ["data: one\n\n", "data: one\n\ndata: two\n", "data: one\n\nevent: end\n", "data: one\n\nevent: other\n\n"]
        {
            assert_eq!(whole(Format::ServerSentEvents, body), incomplete, "{body:?}");
        }
        assert_eq!(whole(Format::ServerSentEvents, "event: end\ndata: bye\n\n"), [Ok(Item::End)]);
    }

    #[test]
    fn an_error_event_ends_the_stream_with_the_error_it_names() {
        let error = |data: &str| {
            let mut decoder = Decoder::new(Format::ServerSentEvents, 1000);
            decoder.push(format!("event: error\ndata: {data}\n\ndata: late\n\n").into());
            let found = decoder.next();
            assert_eq!(decoder.next(), Ok(None));
            match found {
                Ok(Some(Item::Error(error))) => error.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error(r#"{"error":{"code":"ABORTED","message":"again"}}"#), "ABORTED: again");
        assert_eq!(error(r#"{"code":"ABORTED","message":"again"}"#), "ABORTED: again");
        assert_eq!(error("secret"), "INTERNAL: the backend failed");
    }

    #[test]
    fn each_line_of_ndjson_is_an_item() {
        let items = whole(Format::Ndjson, "{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}");
        assert_eq!(items, [data("{\"a\":1}"), data("{\"b\":2}"), data("{\"c\":3}"), Ok(Item::End)]);
        assert_eq!(whole(Format::Ndjson, ""), [Ok(Item::End)]);
    }

    #[test]
    fn each_chunk_is_an_item_of_any_bytes() {
        let items = decode(Format::Chunks, [&b"\xff"[..], b"", b"two"]);
        assert_eq!(items, [Ok(Item::Data(Bytes::from_static(b"\xff"))), data("two"), Ok(Item::End)]);
    }

    #[test]
    fn items_are_bounded_and_text_is_utf_8() {
        let (large, too_large) = ("x".repeat(MAX), Err(StreamError::TooLarge { max: MAX }));
        for (format, before, after) in [
            (Format::ServerSentEvents, "data: ", "\n\nevent: end\n\n"),
            (Format::Ndjson, "", "\n"),
            (Format::Chunks, "", ""),
        ] {
            assert_eq!(whole(format, &format!("{before}{large}{after}")), [data(&large), Ok(Item::End)], "{format:?}");
            assert_eq!(
                whole(format, &format!("{before}{large}x{after}")),
                std::slice::from_ref(&too_large),
                "{format:?}"
            );
        }
        assert_eq!(
            whole(Format::Ndjson, &"x".repeat(1000)),
            std::slice::from_ref(&too_large),
            "the line has not ended"
        );
        assert_eq!(whole(Format::ServerSentEvents, &"data: 12345\n".repeat(4)), [too_large]);
        let invalid = [Err(StreamError::NotUtf8)];
        assert_eq!(decode(Format::Ndjson, [&b"\xff\n"[..]]), invalid);
        assert_eq!(decode(Format::Ndjson, [&b"\xff"[..]]), invalid);
        assert_eq!(decode(Format::ServerSentEvents, [&b"data: \xff\n\n"[..]]), invalid);
    }

    proptest! {
        #[test]
        fn where_a_body_is_split_makes_no_difference(
            lines in prop::collection::vec("(data: |event: |: |)[a-cé]{0,4}(end|error)?(\n|\r|\r\n){1,2}", 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let body = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            let bounds: Vec<_> = [0].into_iter().chain(cuts).chain([body.len()]).collect();
            for format in [Format::ServerSentEvents, Format::Ndjson] {
                let parts = bounds.windows(2).map(|bound| &body[bound[0]..bound[1]]);
                prop_assert_eq!(decode(format, parts), decode(format, [&body[..]]));
            }
        }
    }
}

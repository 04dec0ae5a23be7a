//! Server-sent events (HTML standard, section 9.2).

use bytes::{Bytes, BytesMut};
use roomcast::{CallError, Code};

use crate::stream::lines::Lines;
use crate::stream::{Item, StreamError, item};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The longest name of a field, with the colon and the space.
const MAX_FIELD: usize = "event: ".len();

/// The events of a body that arrives in parts. The fields `id` and `retry` have no meaning here,
/// because a client of a node never reconnects to the backend.
#[derive(Debug)]
pub(super) struct Events {
    lines: Lines,
    is_first_line: bool,
    name: Bytes,
    /// The data of the event so far. `None` if it has no field `data`.
    data: Option<BytesMut>,
}

impl Default for Events {
    fn default() -> Self {
        Self { lines: Lines::ending_at_cr(), is_first_line: true, name: Bytes::new(), data: None }
    }
}

impl Events {
    pub(super) fn push(&mut self, part: &[u8]) {
        self.lines.push(part);
    }

    /// Returns what the next event means, or `None` if it has not arrived yet. Events without data
    /// mean nothing, except for the end.
    pub(super) fn next(&mut self, max: usize) -> Result<Option<Item>, StreamError> {
        let max_line = max + MAX_FIELD + BYTE_ORDER_MARK.len();
        while let Some(mut line) = self.lines.next(max_line).map_err(|_| StreamError::TooLarge { max })? {
            if std::mem::take(&mut self.is_first_line) && line.starts_with(BYTE_ORDER_MARK) {
                line = line.slice(BYTE_ORDER_MARK.len()..);
            }
            if !line.is_empty() {
                self.read_field(&line, max)?;
                continue;
            }
            let (name, data) = (std::mem::take(&mut self.name), self.data.take());
            match (&name[..], data) {
                (b"end", _) => return Ok(Some(Item::End)),
                (b"error", data) => return Ok(Some(Item::Error(error(&data.unwrap_or_default())))),
                (_, Some(data)) => return item(data.freeze()).map(Some),
                (_, None) => {}
            }
        }
        Ok(None)
    }

    fn read_field(&mut self, line: &Bytes, max: usize) -> Result<(), StreamError> {
        let colon = line.iter().position(|byte| *byte == b':');
        let name = &line[..colon.unwrap_or(line.len())];
        let value = line.slice(colon.map_or(line.len(), |colon| colon + 1)..);
        let value = if value.starts_with(b" ") { value.slice(1..) } else { value };
        match name {
            b"event" => self.name = value,
            b"data" => {
                let data = match &mut self.data {
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data
                    }
                    none => none.insert(BytesMut::new()),
                };
                if data.len() + value.len() > max {
                    return Err(StreamError::TooLarge { max });
                }
                data.extend_from_slice(&value);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the error of an event `error`: `{"error": …}`, as in the body of a response, or what is
/// inside.
fn error(data: &[u8]) -> CallError {
    let inside = || CallError::from_payload(&[br#"{"error":"#, data, b"}"].concat());
    CallError::from_payload(data)
        .or_else(inside)
        .unwrap_or_else(|| CallError::new(Code::Internal, "the backend failed"))
}

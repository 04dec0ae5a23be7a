//! The headers of a Call.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::frame::Name;
use crate::v1::text::LongText;

/// The largest size of a call's encoded headers, in bytes.
pub const MAX_HEADERS_LEN: usize = 8 * 1024;

/// Headers of a Call that cannot be read. The call fails with `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// They are longer than [`MAX_HEADERS_LEN`].
    #[error("the headers have {0} bytes; at most {MAX_HEADERS_LEN} are allowed")]
    TooLong(usize),
    /// They end within a key or a value.
    #[error("the headers are truncated")]
    Truncated,
    /// A key or a value is not UTF-8.
    #[error("a header is not UTF-8")]
    NotUtf8,
    /// A key is empty, or contains something else than lower-case letters, digits, `-`, `_` and `.`.
    #[error("{0:?} is not a key of lower-case letters, digits, '-', '_' and '.'")]
    Key(String),
    /// A key appears twice.
    #[error("the header {0:?} appears twice")]
    Twice(String),
}

/// Encoded headers, which may be invalid. They have at most 65,535 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedHeaders(Bytes);

impl EncodedHeaders {
    /// Returns `None` if there are too many bytes for a frame.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= u16::MAX.into()).then_some(Self(bytes))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The headers of a Call: repeated `key:str8 value:str16`. Keys are unique.
///
/// ```
/// use roomcast_protocol::v1::Headers;
///
/// let headers = Headers::new([("traceparent", "00-1-2-01")])?;
/// assert_eq!(headers.get("traceparent"), Some("00-1-2-01"));
/// assert_eq!(Headers::decode(&headers.encode())?, headers);
/// # Ok::<(), roomcast_protocol::v1::HeadersError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Name, LongText)>);

impl Headers {
    /// Creates headers.
    ///
    /// # Errors
    /// Returns [`HeadersError`] if a key is not allowed or appears twice, or if the headers are longer
    /// than [`MAX_HEADERS_LEN`].
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, HeadersError> {
        let mut headers = Self::default();
        for (key, value) in pairs {
            let name = Name::new(key).map_err(|_| HeadersError::Key(key.to_owned()))?;
            if value.len() > MAX_HEADERS_LEN {
                return Err(HeadersError::TooLong(value.len()));
            }
            headers.add(name, LongText::truncated(value))?;
        }
        match headers.encoded_len() {
            0..=MAX_HEADERS_LEN => Ok(headers),
            len => Err(HeadersError::TooLong(len)),
        }
    }

    /// Decodes headers, which share the memory of their frame.
    ///
    /// # Errors
    /// Returns [`HeadersError`] if the bytes are not headers.
    pub fn decode(EncodedHeaders(bytes): &EncodedHeaders) -> Result<Self, HeadersError> {
        if bytes.len() > MAX_HEADERS_LEN {
            return Err(HeadersError::TooLong(bytes.len()));
        }
        let (mut rest, mut headers) = (bytes.clone(), Self::default());
        while !rest.is_empty() {
            let len = usize::from(take(&mut rest, 1)?[0]);
            let key = Name::from_bytes(take(&mut rest, len)?).ok_or(HeadersError::NotUtf8)?;
            let len = take(&mut rest, 2)?;
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            let value = LongText::from_bytes(take(&mut rest, len)?).ok_or(HeadersError::NotUtf8)?;
            headers.add(key, value)?;
        }
        Ok(headers)
    }

    fn add(&mut self, key: Name, value: LongText) -> Result<(), HeadersError> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if key.is_empty() || !key.bytes().all(is_allowed) {
            return Err(HeadersError::Key(key.to_string()));
        }
        if self.get(&key).is_some() {
            return Err(HeadersError::Twice(key.to_string()));
        }
        self.0.push((key, value));
        Ok(())
    }

    /// Returns the value of a header.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found.as_bytes() == key.as_bytes()).map(|(_, value)| value.as_str())
    }

    /// Returns all headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn encoded_len(&self) -> usize {
        self.0.iter().map(|(key, value)| 3 + key.as_bytes().len() + value.as_bytes().len()).sum()
    }

    /// Returns the encoded headers, for a [`Call`](crate::v1::Call).
    pub fn encode(&self) -> EncodedHeaders {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        for (key, value) in &self.0 {
            out.put_u8(u8::try_from(key.as_bytes().len()).expect("a name has at most 255 bytes"));
            out.put_slice(key.as_bytes());
            out.put_u16(u16::try_from(value.as_bytes().len()).expect("the type limits the length"));
            out.put_slice(value.as_bytes());
        }
        EncodedHeaders(out.freeze())
    }
}

fn take(rest: &mut Bytes, len: usize) -> Result<Bytes, HeadersError> {
    if rest.len() < len {
        return Err(HeadersError::Truncated);
    }
    Ok(rest.split_to(len))
}

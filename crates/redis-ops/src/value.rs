//! What Redis answers, and how a caller reads it without panicking.

use bytes::Bytes;

use crate::error::Error;

/// A reply. Bytes are slices of the read buffer: cloning them copies nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No such thing.
    Nil,
    /// An integer.
    Int(i64),
    /// A floating point number; only RESP3 servers send it.
    Double(f64),
    /// A string of bytes; a status such as `OK` too.
    Bytes(Bytes),
    /// Several replies in one.
    Array(Vec<Value>),
}

impl Value {
    /// What this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a double",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "an array",
        }
    }

    /// Whether this is [`Value::Nil`].
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The bytes. Errors: [`Error::Reply`] if it is something else.
    pub fn into_bytes(self) -> Result<Bytes, Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.unexpected("bytes")),
        }
    }

    /// The bytes, or `None` for nil. Errors: [`Error::Reply`] if it is something else.
    pub fn into_bytes_or_nil(self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Nil => Ok(None),
            other => other.into_bytes().map(Some),
        }
    }

    /// The integer; decimal text counts too, as scores and counters come that way. Errors: [`Error::Reply`].
    pub fn as_int(&self) -> Result<i64, Error> {
        match self {
            Self::Int(int) => Ok(*int),
            Self::Bytes(bytes) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| self.unexpected("an integer")),
            other => Err(other.unexpected("an integer")),
        }
    }

    /// The number; integers and decimal text count too. Errors: [`Error::Reply`].
    pub fn as_f64(&self) -> Result<f64, Error> {
        match self {
            Self::Double(double) => Ok(*double),
            Self::Int(int) => Ok(*int as f64),
            Self::Bytes(bytes) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| self.unexpected("a number")),
            other => Err(other.unexpected("a number")),
        }
    }

    /// The text. Errors: [`Error::Reply`] if it is no UTF-8 string.
    pub fn as_str(&self) -> Result<&str, Error> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| self.unexpected("text")),
            other => Err(other.unexpected("text")),
        }
    }

    /// The parts. Errors: [`Error::Reply`] if it is no array.
    pub fn into_array(self) -> Result<Vec<Value>, Error> {
        match self {
            Self::Array(values) => Ok(values),
            other => Err(other.unexpected("an array")),
        }
    }

    fn unexpected(&self, expected: &'static str) -> Error {
        Error::Reply { expected, got: self.kind() }
    }
}

//! How values become bytes and back: raw, JSON, postcard.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;

/// Bytes that are no such value, or a value that cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(Arc<dyn std::error::Error + Send + Sync>);

impl CodecError {
    /// Wraps what went wrong.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Arc::from(error.into()))
    }
}

/// How values of a cache become the bytes that lie on Redis, and what they weigh in memory.
///
/// What is called here runs on the caller's task, except for values beyond 64 KiB on Redis, which have threads of their own.
pub trait Codec<V>: Send + Sync + 'static {
    /// The bytes of a value.
    ///
    /// # Errors
    /// A value that cannot be written is not kept.
    fn encode(&self, value: &V) -> Result<Bytes, CodecError>;

    /// The value of bytes that [`encode`](Self::encode) wrote, of this version or an older one.
    ///
    /// # Errors
    /// Bytes that cannot be read count as absent.
    fn decode(&self, bytes: Bytes) -> Result<V, CodecError>;

    /// Bytes a value takes in memory. By default as many as its encoding, which costs an encoding where there is no tier 2: a type that
    /// knows better says so.
    fn weight(&self, value: &V) -> usize {
        self.encode(value).map_or(0, |bytes| bytes.len())
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes)
    }

    fn weight(&self, value: &Bytes) -> usize {
        value.len()
    }
}

/// Values of serde, as JSON: readable by others and by older versions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<Arc<T>> for Json {
    fn encode(&self, value: &Arc<T>) -> Result<Bytes, CodecError> {
        serde_json::to_vec(value.as_ref()).map(Bytes::from).map_err(CodecError::new)
    }

    fn decode(&self, bytes: Bytes) -> Result<Arc<T>, CodecError> {
        serde_json::from_slice(&bytes).map(Arc::new).map_err(CodecError::new)
    }
}

/// Values of serde, as [postcard](https://postcard.jamesmunns.com/wire-format): small and quick, without names of fields, so
/// a changed type cannot read what the former wrote. Name the cache anew when the type changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<Arc<T>> for Postcard {
    fn encode(&self, value: &Arc<T>) -> Result<Bytes, CodecError> {
        postcard::to_stdvec(value.as_ref()).map(Bytes::from).map_err(CodecError::new)
    }

    fn decode(&self, bytes: Bytes) -> Result<Arc<T>, CodecError> {
        match postcard::take_from_bytes(&bytes) {
            Ok((value, [])) => Ok(Arc::new(value)),
            Ok((_, rest)) => Err(CodecError::new(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(CodecError::new(error)),
        }
    }
}

//! Names of streams and groups.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::Error;

/// The longest name of a stream; its dead letters add the name of a group to it.
const STREAM_BYTES_MAX: usize = 200;
const GROUP_BYTES_MAX: usize = 64;

/// The name of a stream: 1 to 200 characters of `A-Z a-z 0-9 _ . : / -`. On Redis it is the key (after
/// [`Config::redis_stream_prefix`](crate::Config::redis_stream_prefix)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

/// The name of a consumer group: 1 to 64 characters of `A-Z a-z 0-9 _ . -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Arc<str>);

impl StreamName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::BadStreamName`].
    pub fn new(name: &str) -> Result<Self, Error> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-');
        if (1..=STREAM_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(Error::BadStreamName { name: name.chars().take(80).collect() })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a group puts what it gave up on: `{stream}.dead.{group}`.
    ///
    /// # Errors
    /// [`Error::BadStreamName`] when that is too long.
    pub fn dead_letters(&self, group: &GroupName) -> Result<Self, Error> {
        Self::new(&format!("{self}.dead.{group}"))
    }
}

impl GroupName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::BadGroupName`].
    pub fn new(name: &str) -> Result<Self, Error> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if (1..=GROUP_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(Error::BadGroupName { name: name.chars().take(80).collect() })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for StreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for GroupName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

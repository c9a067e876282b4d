//! Names: of queues (bounded, URL-safe) and of jobs (the queue's name and a number no other job of it ever had).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Error;

/// The name of a queue: 1 to 64 characters of `A–Z a–z 0–9 _ . -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// 64: long enough for a service and a purpose, short enough for a metric label and a key.
    pub const LENGTH_MAX: usize = 64;

    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`Error::BadQueueName`] when it is empty, too long, or has a character outside the set.
    pub fn new(name: &str) -> Result<Self, Error> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || name.len() > Self::LENGTH_MAX || !name.chars().all(legal) {
            return Err(Error::BadQueueName { name: name.chars().take(80).collect() });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for QueueName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

/// The identity of a job; as text it is opaque and stays valid for good: `default-1000000002a`.
///
/// It names its queue, so a job is found without a directory of all jobs, on any backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId {
    pub(crate) queue: QueueName,
    pub(crate) number: u64,
}

impl JobId {
    /// The queue the job was submitted to.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.queue, self.number)
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadJobId { id: text.chars().take(100).collect() };
        let (queue, number) = text.rsplit_once('-').ok_or_else(bad)?;
        // One spelling per number: no sign, no capitals, no leading zero, so an id can be compared as text.
        let canonical = number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && !number.starts_with('0');
        let number = u64::from_str_radix(number, 16).ok().filter(|_| canonical).ok_or_else(bad)?;
        Ok(Self { queue: QueueName::new(queue).map_err(|_| bad())?, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_has_one_spelling() {
        let id = JobId { queue: QueueName::new("mail-out").unwrap(), number: 0x0100_0000_0002 };
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        for bad in
            ["", "mail", "mail-", "-1", "mail-0", "mail-01", "mail-A", "mail-+1", "m l-1", "mail-10000000000000000"]
        {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}

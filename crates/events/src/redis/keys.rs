//! The keys and channels on Redis. Names of streams have no braces, so a stream's own key in braces puts its companions into
//! the slot where it lies itself. Whatever is listed here is also what `docs/redis-streams.md` shows.

use bytes::Bytes;

use crate::{Config, StreamName};

/// A key or channel: what stands for its name, its type, and what it holds and for how long.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) holds: &'static str,
}

const fn key(name: &'static str, kind: &'static str, holds: &'static str) -> Key {
    Key { name, kind, holds }
}

/// What lies on Redis. `KEY` is the key of a stream.
pub(super) const KEYS: [Key; 7] = [
    key("KEY", "stream", "the events; `redis_stream_prefix` (empty by default) and the name of the stream"),
    key(
        "PREFIX:seen:{KEY}",
        "hash",
        "idempotence id → the event it was published as; expires a window after the last one",
    ),
    key("PREFIX:ages:{KEY}", "list", "the same ids in order, each behind its event: who is to be forgotten first"),
    key(
        "PREFIX:made:{KEY}",
        "hash",
        "group → who made it: a group that was lost and made again is told from the former one; goes with the stream",
    ),
    key(
        "PREFIX:ended:{KEY}",
        "string",
        "where a stream ended that was deleted through Tidegate: its places are not given out again, and who comes back with one is told; expires after a day",
    ),
    key("PREFIX:op:{KEY}:PROCESS", "string", "a process's last publish and its answer; expires 10 minutes after"),
    key(
        "PREFIX:restarts",
        "hash",
        "run id of a Redis → when it came in place of another, in milliseconds, `from-to`; `-` when nothing was lost",
    ),
];

/// What is said on the one channel `PREFIX:bell`.
pub(super) const MESSAGES: [(&str, &str); 3] = [
    ("ID KEY", "the stream has new events up to this id"),
    ("?KEY", "a group of the stream got deliveries back: they can be claimed again"),
    ("!PROCESS ID KEY", "the stream, which ended at this id, was deleted by this process"),
];

/// The names as this process uses them.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: Box<str>,
    stream_prefix: Box<str>,
    pub(super) bell: Bytes,
    pub(super) restarts: Bytes,
}

impl Keys {
    pub(super) fn new(config: &Config) -> Self {
        let prefix = &config.redis_prefix;
        Self {
            prefix: prefix.as_ref().into(),
            stream_prefix: config.redis_stream_prefix.as_ref().into(),
            bell: format!("{prefix}:bell").into(),
            restarts: format!("{prefix}:restarts").into(),
        }
    }

    pub(super) fn stream(&self, name: &StreamName) -> Bytes {
        if self.stream_prefix.is_empty() {
            return Bytes::copy_from_slice(name.as_str().as_bytes());
        }
        format!("{}{name}", self.stream_prefix).into()
    }

    pub(super) fn seen(&self, name: &StreamName) -> Bytes {
        self.companion("seen", name)
    }

    pub(super) fn ages(&self, name: &StreamName) -> Bytes {
        self.companion("ages", name)
    }

    pub(super) fn ended(&self, name: &StreamName) -> Bytes {
        self.companion("ended", name)
    }

    pub(super) fn made(&self, name: &StreamName) -> Bytes {
        self.companion("made", name)
    }

    pub(super) fn operation(&self, name: &StreamName, process: &str) -> Bytes {
        format!("{}:op:{{{}{name}}}:{process}", self.prefix, self.stream_prefix).into()
    }

    fn companion(&self, what: &str, name: &StreamName) -> Bytes {
        format!("{}:{what}:{{{}{name}}}", self.prefix, self.stream_prefix).into()
    }

    /// The stream of a key; `None` for a key that is none of ours to tell of.
    pub(super) fn name(&self, key: &[u8]) -> Option<StreamName> {
        if self.is_own(key) {
            return None;
        }
        let name = key.strip_prefix(self.stream_prefix.as_bytes())?;
        StreamName::new(std::str::from_utf8(name).ok()?).ok()
    }

    /// Whether a key is one of Tidegate's own.
    fn is_own(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.first() == Some(&b':'))
    }

    /// What keys of streams begin with.
    pub(super) fn stream_prefix(&self) -> &str {
        &self.stream_prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_keys_and_strange_names_are_no_streams() {
        let keys = Keys::new(&Config::default());
        assert_eq!(keys.name(b"orders").unwrap().as_str(), "orders");
        assert_eq!(keys.name(b"tidegates").unwrap().as_str(), "tidegates");
        for key in [&b"tidegate:{q}:log"[..], b"a b", b"a{b}", b"", b"\xff"] {
            assert_eq!(keys.name(key), None);
        }
        let keys = Keys::new(&Config { redis_stream_prefix: "s:".into(), ..Config::default() });
        let name = StreamName::new("orders").unwrap();
        assert_eq!(keys.stream(&name), "s:orders");
        assert_eq!(keys.seen(&name), "tidegate:seen:{s:orders}");
        assert_eq!((keys.name(b"s:orders"), keys.name(b"orders")), (Some(name), None));
    }
}

//! The keys on Redis. The value of a key and the lease to load it lie in one slot of a cluster. Whatever is listed here is
//! also what `docs/redis-cache.md` shows.

use bytes::Bytes;

use crate::Config;

/// A key: what stands for its name, its type, and what it holds and for how long.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) holds: &'static str,
}

/// What lies on Redis. `NS` is `PREFIX:cache:NAME`.
pub(super) const KINDS: [Kind; 5] = [
    Kind {
        name: "NS:v:{KEY}",
        kind: "string",
        holds: "the value of a key with what it depends on; expires when nobody may be given it any more",
    },
    Kind {
        name: "NS:l:{KEY}",
        kind: "string",
        holds: "who loads the value of the key; expires 3 s after its holder was last heard of",
    },
    Kind {
        name: "NS:t:TAG",
        kind: "string",
        holds: "the generation of a tag: values that bear another one are dead; expires when no value can bear it any more",
    },
    Kind {
        name: "NS:g",
        kind: "hash",
        holds: "`generation` of the cache: values of another one are dead; `sequence` of prefixes invalidated, `p:PREFIX` → its number while values of it may still lie around, `unlisted`: the highest number of those that do not; `r:RUN` for each Redis that is known to have lost nothing since",
    },
    Kind {
        name: "NS:hottest",
        kind: "string",
        holds: "the keys asked for most when a process last ended, as a JSON list",
    },
];

/// The names as this process uses them.
#[derive(Debug)]
pub(super) struct Keys {
    value: Box<str>,
    lease: Box<str>,
    tag: Box<str>,
    pub(super) namespace: Bytes,
    pub(super) hottest: Bytes,
}

/// What a key of Redis is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    Value(&'a str),
    Tag(&'a str),
    Namespace,
    Other,
}

/// Put before keys that would leave nothing between the braces that decide the slot.
const ESCAPE: char = '\u{1}';

impl Keys {
    pub(super) fn new(config: &Config) -> Self {
        let name = format!("{}:cache:{}", config.redis_prefix, config.name);
        Self {
            value: format!("{name}:v:").into(),
            lease: format!("{name}:l:").into(),
            tag: format!("{name}:t:").into(),
            namespace: format!("{name}:g").into(),
            hottest: format!("{name}:hottest").into(),
        }
    }

    pub(super) fn value(&self, key: &str) -> Bytes {
        join(&self.value, key)
    }

    pub(super) fn lease(&self, key: &str) -> Bytes {
        join(&self.lease, key)
    }

    pub(super) fn tag(&self, tag: &str) -> Bytes {
        format!("{}{tag}", self.tag).into()
    }

    /// What is to be tracked: leases are nobody else's business.
    pub(super) fn tracked(&self) -> Vec<Bytes> {
        vec![self.value.as_bytes().to_vec().into(), self.tag.as_bytes().to_vec().into(), self.namespace.clone()]
    }

    /// What `SCAN` is to match for the values whose keys begin with `prefix`.
    pub(super) fn pattern(&self, prefix: &str) -> Bytes {
        let mut pattern = glob(&self.value);
        // Without a prefix also those that are escaped.
        if !prefix.is_empty() {
            pattern.push('{');
            if needs_escape(prefix) {
                pattern.push(ESCAPE);
            }
            pattern.push_str(&glob(prefix));
        }
        pattern.push('*');
        pattern.into()
    }

    pub(super) fn told<'a>(&self, key: &'a [u8]) -> Told<'a> {
        let Ok(key) = std::str::from_utf8(key) else { return Told::Other };
        if let Some(rest) = key.strip_prefix(&*self.value) {
            let inner = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            return inner.map_or(Told::Other, |key| Told::Value(key.strip_prefix(ESCAPE).unwrap_or(key)));
        }
        if let Some(tag) = key.strip_prefix(&*self.tag) {
            return Told::Tag(tag);
        }
        match key.as_bytes() == self.namespace {
            true => Told::Namespace,
            false => Told::Other,
        }
    }
}

fn needs_escape(key: &str) -> bool {
    key.starts_with(['}', ESCAPE])
}

fn join(before: &str, key: &str) -> Bytes {
    let mut name = Vec::with_capacity(before.len() + key.len() + 3);
    name.extend_from_slice(before.as_bytes());
    name.push(b'{');
    if needs_escape(key) {
        name.push(ESCAPE as u8);
    }
    name.extend_from_slice(key.as_bytes());
    name.push(b'}');
    name.into()
}

/// As a pattern that matches only itself.
fn glob(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut pattern, char| {
        if matches!(char, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
        pattern
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What decides the slot, as the cluster specification says.
    fn tag(key: &[u8]) -> &[u8] {
        let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
        match key[open + 1..].iter().position(|&byte| byte == b'}') {
            None | Some(0) => key,
            Some(length) => &key[open + 1..open + 1 + length],
        }
    }

    proptest! {
        #[test]
        fn value_and_lease_share_a_slot_and_names_are_read_back(key in "[a}{\u{1}:*]{1,8}|\\PC{1,20}") {
            let keys = Keys::new(&Config::default());
            let (value, lease) = (keys.value(&key), keys.lease(&key));
            prop_assert_eq!(tag(&value), tag(&lease));
            prop_assert_ne!(tag(&value), &value[..]);
            prop_assert_eq!(keys.told(&value), Told::Value(&key));
        }
    }

    #[test]
    fn patterns_match_only_what_begins_with_the_prefix() {
        let keys = Keys::new(&Config::default());
        assert_eq!(keys.pattern("a*[b]"), Bytes::from(r"tidegate:cache:default:v:{a\*\[b\]*"));
        assert_eq!(keys.pattern(""), Bytes::from("tidegate:cache:default:v:*"));
        assert_eq!(keys.pattern("}x"), Bytes::from("tidegate:cache:default:v:{\u{1}}x*"));
        assert_eq!(keys.told(b"tidegate:cache:default:t:users"), Told::Tag("users"));
        assert_eq!(keys.told(b"tidegate:cache:default:g"), Told::Namespace);
        assert_eq!(keys.told(b"tidegate:cache:default:global"), Told::Other);
    }
}

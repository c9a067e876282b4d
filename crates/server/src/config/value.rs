//! The kinds of values a setting can have: how each is read, shown and described.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_redis_ops as redis;

/// Limits of a number: milliseconds, bytes or a count. `max == 0` means none.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Smallest accepted.
    pub min: u64,
    /// Largest accepted; 0 for no limit.
    pub max: u64,
}

impl Bounds {
    fn check(self, number: u64) -> Option<u64> {
        (number >= self.min && (self.max == 0 || number <= self.max)).then_some(number)
    }
}

/// Something a setting can be.
pub trait Value: Sized {
    /// Its flag needs no value.
    const IS_SWITCH: bool = false;

    /// Reads it; `None` if the text is not acceptable.
    fn parse(text: &str, bounds: Bounds) -> Option<Self>;
    /// Shows it as one would write it, secrets redacted.
    fn show(&self) -> String;
    /// Says what is accepted.
    fn accepts(bounds: Bounds) -> String;
    /// Says why a text that [`parse`](Self::parse) refused is refused, without what could be a secret in it.
    fn refusal(_: &str, bounds: Bounds) -> String {
        format!("accepted: {}", Self::accepts(bounds))
    }
}

impl Value for bool {
    const IS_SWITCH: bool = true;

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn accepts(_: Bounds) -> String {
        "true or false".into()
    }
}

impl Value for usize {
    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        bounds.check(text.replace('_', "").parse().ok()?)?.try_into().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn accepts(bounds: Bounds) -> String {
        format!("a whole number from {} to {}", bounds.min, bounds.max)
    }
}

impl Value for String {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
    fn accepts(_: Bounds) -> String {
        "text that is not empty".into()
    }
}

impl Value for PathBuf {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
    fn accepts(_: Bounds) -> String {
        "a path".into()
    }
}

impl Value for Option<PathBuf> {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }
    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
    fn accepts(_: Bounds) -> String {
        "a path, or nothing".into()
    }
}

const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1)];

impl Value for Duration {
    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        bounds.check(with_unit(text, DURATION_UNITS)?).map(Self::from_millis)
    }
    fn show(&self) -> String {
        show_with_unit(
            self.as_millis() as u64,
            &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)],
        )
    }
    fn accepts(bounds: Bounds) -> String {
        let show = |ms| Self::from_millis(ms).show();
        format!("a duration from {} to {}, as `500ms`, `10s`, `5m` or milliseconds", show(bounds.min), show(bounds.max))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl Bytes {
    /// As a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const BYTE_UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

impl Value for Bytes {
    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        bounds.check(with_unit(text, BYTE_UNITS)?).map(Self)
    }
    fn show(&self) -> String {
        show_with_unit(self.0, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)])
    }
    fn accepts(bounds: Bounds) -> String {
        format!("a size from {} to {}, as `64KiB`, `16MiB` or bytes", Self(bounds.min).show(), Self(bounds.max).show())
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let (_, scale) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(*scale)
}

fn show_with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let (unit, scale) = units
        .iter()
        .find(|(_, scale)| number >= *scale && number.is_multiple_of(*scale))
        .unwrap_or(&units[units.len() - 1]);
    format!("{}{unit}", number / scale)
}

/// A part of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Percent {
    /// As a part of one.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl Value for Percent {
    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        let number = text.trim().trim_end_matches('%').trim_end().parse().ok()?;
        bounds.check(number)?.try_into().ok().map(Self)
    }
    fn show(&self) -> String {
        format!("{}%", self.0)
    }
    fn accepts(bounds: Bounds) -> String {
        format!("{}% to {}%", bounds.min, bounds.max)
    }
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Value for Listen {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().ok().map(Self)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn accepts(_: Bounds) -> String {
        "an IP address and a port, as `127.0.0.1:7700`, `[::1]:7700` or `0.0.0.0:7700`".into()
    }
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Refuses the new job.
    Reject,
    /// Discards the oldest waiting job of the least urgent priority.
    DropOldest,
    /// Discards the newest waiting job of the least urgent priority.
    DropNewest,
}

impl Value for Overflow {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        match text {
            "reject" => Some(Self::Reject),
            "drop_oldest" => Some(Self::DropOldest),
            "drop_newest" => Some(Self::DropNewest),
            _ => None,
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Reject => "reject",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
        .into()
    }
    fn accepts(_: Bounds) -> String {
        "`reject`, `drop_oldest`, `drop_newest`".into()
    }
}

/// Host names, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub Vec<String>);

impl Value for Hosts {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let names: Vec<String> =
            text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect();
        let is_name =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
        names.iter().all(is_name).then_some(Self(names))
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
    fn accepts(_: Bounds) -> String {
        "host names separated by commas, without scheme or path".into()
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Its name, as it is written in settings.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Value for $name {
            fn parse(text: &str, _: Bounds) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
            fn show(&self) -> String {
                self.name().to_owned()
            }
            fn accepts(_: Bounds) -> String {
                [$(concat!("`", $text, "`")),*].join(", ")
            }
        }
    };
}

choice! {
    /// When a write is answered.
    Durability {
        /// After fsync.
        Sync = "sync",
        /// Before; fsync follows within a second.
        Everysec = "everysec",
        /// Nothing is kept.
        Memory = "memory",
    }
}

choice! {
    /// Which queued invalidation a full queue drops.
    DropPolicy {
        /// The one that waits longest.
        Oldest = "oldest",
        /// The one that comes.
        Newest = "newest",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// For collectors, one object a line.
        Json = "json",
    }
}

/// Which Redis, if any. No password leaves this type: the library's own type shows none.
#[derive(Clone, Debug, Default)]
pub struct RedisUrl(Option<Box<redis::Config>>);

impl RedisUrl {
    /// What the URL says, with the defaults for all it does not say.
    pub fn get(&self) -> Option<&redis::Config> {
        self.0.as_deref()
    }
}

impl Value for RedisUrl {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(None));
        }
        redis::Config::parse(text).ok().map(|config| Self(Some(Box::new(config))))
    }
    fn show(&self) -> String {
        let Some(config) = &self.0 else { return String::new() };
        let ca = config.tls.as_ref().and_then(|tls| tls.ca.as_ref());
        config.to_string() + &ca.map(|ca| format!("?ca={}", ca.display())).unwrap_or_default()
    }
    fn accepts(_: Bounds) -> String {
        "a URL as `redis://user:password@host:6379/0`; also `rediss://`, `redis+unix://`, `redis-sentinel://`, `redis-cluster://`".into()
    }
    fn refusal(text: &str, bounds: Bounds) -> String {
        let reason = redis::Config::parse(text).err().map(|error| format!("failed to {error}"));
        reason.unwrap_or_else(|| format!("accepted: {}", Self::accepts(bounds)))
    }
}

/// A URL that cannot be read, without anything that could be a secret: there is no telling what is what in it.
pub(super) fn redact_url(url: &str) -> String {
    const SCHEMES: [&str; 8] = [
        "redis",
        "rediss",
        "redis+unix",
        "unix",
        "redis-sentinel",
        "rediss-sentinel",
        "redis-cluster",
        "rediss-cluster",
    ];
    match url.split_once("://") {
        Some((scheme, _)) if SCHEMES.contains(&scheme) => format!("{scheme}://***"),
        _ => "***".into(),
    }
}

/// What the names of keys on Redis begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPrefix(pub String);

impl Value for RedisPrefix {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(is_legal)).then(|| Self(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
    fn accepts(_: Bounds) -> String {
        "1 to 64 characters of A-Z a-z 0-9 - _ : .".into()
    }
}

/// What the keys of event streams on Redis begin with; may be nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamPrefix(pub String);

impl Value for StreamPrefix {
    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:./".contains(&byte);
        (text.len() <= 64 && text.bytes().all(is_legal)).then(|| Self(text.to_owned()))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
    fn accepts(_: Bounds) -> String {
        "up to 64 characters of A-Z a-z 0-9 - _ : . /".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Bounds = Bounds { min: 0, max: u64::MAX };

    #[test]
    fn durations_and_sizes_are_shown_as_they_can_be_read() {
        for text in ["1ms", "999ms", "10s", "90s", "5m", "1h", "7d", "0ms"] {
            let value = Duration::parse(text, FREE).unwrap();
            assert_eq!(Duration::parse(&value.show(), FREE), Some(value), "{text}");
        }
        for text in ["1B", "64KiB", "16MiB", "1GiB", "1000"] {
            let value = Bytes::parse(text, FREE).unwrap();
            assert_eq!(Bytes::parse(&value.show(), FREE), Some(value), "{text}");
        }
        assert_eq!(Duration::parse("90 s", FREE), Some(Duration::from_secs(90)));
        for text in ["5%", "5", " 5 % "] {
            assert_eq!(Percent::parse(text, FREE).unwrap().show(), "5%", "{text}");
        }
    }

    #[test]
    fn absurd_numbers_are_refused_not_wrapped() {
        assert_eq!(Duration::parse("99999999999999999999s", FREE), None);
        assert_eq!(Duration::parse("18446744073709551615h", FREE), None);
        assert_eq!(Duration::parse("-5s", FREE), None);
        assert_eq!(Bytes::parse("1e9", FREE), None);
        assert_eq!(usize::parse("11", Bounds { min: 1, max: 10 }), None);
        assert_eq!(Percent::parse("51%", Bounds { min: 0, max: 50 }), None);
        assert_eq!(Percent::parse("300%", FREE), None);
        assert_eq!(Percent::parse("0.05", FREE), None);
    }

    #[test]
    fn a_password_never_shows() {
        for url in [
            "redis://user:hun@ter2@host:6379/0",
            "rediss://:hunter2@host",
            "redis-sentinel://:hunter2@a,b/main?sentinelPassword=hunter2",
        ] {
            let value = RedisUrl::parse(url, FREE).unwrap();
            assert!(!value.show().contains("ter2") && !format!("{value:?}").contains("ter2"), "{}", value.show());
        }
        for url in [
            "hunter2",
            "redis://:hunter2",
            "redis://host?password=hunter2",
            "redis://:a?hunter2@host",
            "hunter2://host",
            "redis-sentinel://a/main?sentinelPassword=h@hunter2&x=1",
        ] {
            assert!(RedisUrl::parse(url, FREE).is_none(), "{url}");
            let told = format!("{} {}", redact_url(url), RedisUrl::refusal(url, FREE));
            assert!(!told.contains("ter2"), "{told}");
        }
    }

    #[test]
    fn a_url_without_secrets_is_shown_as_it_can_be_read() {
        for url in ["redis://localhost:6379/0", "rediss://[::1]:7000/3?ca=/etc/ca.pem", "redis-cluster://a:1,b:2"] {
            assert_eq!(RedisUrl::parse(url, FREE).unwrap().show(), url);
        }
    }

    #[test]
    fn a_prefix_cannot_break_out_of_its_hash_tag() {
        for text in ["", "a{b", "a b", "a*", &"x".repeat(65)] {
            assert_eq!(RedisPrefix::parse(text, FREE), None, "{text}");
        }
        assert!(RedisPrefix::parse("shop:live-2.a_b", FREE).is_some());
    }
}

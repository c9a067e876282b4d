//! What can go wrong, told as facts: above all whether a command may have been executed.
//!
//! The reply to "did it happen?" is the [`Class`]; the name of what Redis (or the link to it) said is the
//! [`code`](Error::code). Nothing here ever carries a password: texts come from Redis or are ours.

use std::time::Duration;

/// Did it happen, and is it worth another try?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Certainly not executed, and it may work later: not sent, refused while loading, no primary, breaker open.
    Transient,
    /// It may have been executed: the reply is lost. Only what is idempotent, or carries an operation id, may be
    /// repeated.
    Ambiguous,
    /// Redis said no: out of memory, no permission, wrong type, an error in a script.
    Refused,
    /// Repeating cannot help: wrong password, unknown command, a reply of a shape nobody expects.
    Fatal,
}

/// Why a call to Redis gave no value.
///
/// Every message finishes the phrase "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command never left this process, so it was not executed.
    #[error("reach Redis: {detail} ({code})")]
    NotSent {
        /// `DISCONNECTED`, `BACKPRESSURE`, `BREAKER_OPEN` or `CLOSED`.
        code: &'static str,
        /// What is in the way.
        detail: Box<str>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The command was sent and its reply did not come: executed or not, nobody here knows.
    #[error("learn what Redis did: {detail} ({code})")]
    Lost {
        /// `TIMEOUT` or `DISCONNECTED`.
        code: &'static str,
        /// How the reply was lost.
        detail: Box<str>,
    },
    /// Redis answered with an error.
    #[error("have it done by Redis: {message}")]
    Answer {
        /// The error's first word, of the innermost error where a script failed: `OOM`, `READONLY`, `WRONGTYPE`, `ERR`.
        code: Box<str>,
        /// The whole text, shortened to 300 characters.
        message: Box<str>,
    },
    /// Redis answered, but not with what the caller can read.
    #[error("read the reply: expected {expected}, got {got}")]
    Reply {
        /// What the caller can read.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// Server or configuration cannot do the work at all.
    #[error("use this Redis: {0}")]
    Unusable(Box<str>),
}

/// A short pause that a failover or a restart needs at least.
const RETRY_SOON: Duration = Duration::from_millis(200);
/// A pause for what an operator or a long load must end.
const RETRY_LATER: Duration = Duration::from_secs(1);

impl Error {
    /// What this error says about execution.
    pub fn class(&self) -> Class {
        match self {
            Self::NotSent { .. } => Class::Transient,
            Self::Lost { .. } => Class::Ambiguous,
            Self::Answer { code, .. } => class_of(code),
            Self::Reply { .. } | Self::Unusable(_) => Class::Fatal,
        }
    }

    /// The error's name: Redis's own first word, or ours for what Redis did not say.
    pub fn code(&self) -> &str {
        match self {
            Self::NotSent { code, .. } | Self::Lost { code, .. } => code,
            Self::Answer { code, .. } => code,
            Self::Reply { .. } => "REPLY",
            Self::Unusable(_) => "UNUSABLE",
        }
    }

    /// Whether the same call may succeed later *and* repeating it is certainly no second execution.
    ///
    /// `Ambiguous` errors are not retryable in this sense: whoever knows that the call is idempotent decides.
    pub fn is_retryable(&self) -> bool {
        match self.class() {
            Class::Transient => true,
            Class::Refused => matches!(self.code(), "OOM" | "MISCONF" | "NOREPLICAS"),
            Class::Ambiguous | Class::Fatal => false,
        }
    }

    /// How long to wait before asking again; zero where asking again is pointless.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::NotSent { retry_after, .. } => *retry_after,
            Self::Lost { .. } => RETRY_SOON,
            Self::Answer { code, .. } => match &**code {
                "OOM" | "MISCONF" | "NOREPLICAS" | "LOADING" => RETRY_LATER,
                _ if self.is_retryable() => RETRY_SOON,
                _ => Duration::ZERO,
            },
            Self::Reply { .. } | Self::Unusable(_) => Duration::ZERO,
        }
    }

    /// An error reply of Redis, with the code of the innermost error.
    pub(crate) fn from_reply(text: &str) -> Self {
        Self::Answer { code: code_of(text).into(), message: shorten(text).into() }
    }

    /// Sent, and then the link went away.
    pub(crate) fn lost(detail: &str) -> Self {
        Self::Lost { code: "DISCONNECTED", detail: detail.into() }
    }

    pub(crate) fn timeout(patience: Duration) -> Self {
        Self::Lost { code: "TIMEOUT", detail: format!("no reply within {patience:?}").into() }
    }

    pub(crate) fn backpressure(waiting: usize) -> Self {
        let detail = format!("{waiting} requests wait for their replies already").into();
        Self::NotSent { code: "BACKPRESSURE", detail, retry_after: RETRY_SOON }
    }

    pub(crate) fn breaker_open(retry_after: Duration) -> Self {
        Self::NotSent { code: "BREAKER_OPEN", detail: "Redis failed too often just now".into(), retry_after }
    }

    pub(crate) fn closed() -> Self {
        Self::NotSent { code: "CLOSED", detail: "the client was closed".into(), retry_after: Duration::ZERO }
    }

    /// The link is down and the command stayed here.
    pub(crate) fn not_connected(detail: impl Into<Box<str>>) -> Self {
        Self::NotSent { code: "DISCONNECTED", detail: detail.into(), retry_after: RETRY_SOON }
    }
}

/// Codes that Redis puts first on errors of its own state; a script that trips over one may wrap it.
const KNOWN: [&str; 12] = [
    "OOM",
    "READONLY",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "NOPERM",
    "NOREPLICAS",
    "MISCONF",
    "WRONGTYPE",
    "CROSSSLOT",
    "BUSYGROUP",
    "NOGROUP",
];

/// The name of an error reply. Redis 7 passes the inner error of a script on as it is (`OOM command not allowed …`);
/// 6.2 wraps it (`ERR Error running script (call to f_…): @user_script:1: -OOM command not allowed …`).
fn code_of(text: &str) -> &str {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or("ERR");
    if first != "ERR" {
        return first;
    }
    if text.starts_with("ERR unknown command") {
        return "UNKNOWN_COMMAND";
    }
    // What a script may not do is told without the code it has outside of scripts.
    if text.starts_with("ERR The user executing the script can't") {
        return "NOPERM";
    }
    let inner = words.enumerate().find_map(|(turn, word)| match word.strip_prefix('-') {
        Some(code) if KNOWN.contains(&code) => Some(code),
        None if turn == 0 && KNOWN.contains(&word) => Some(word),
        _ => None,
    });
    inner.unwrap_or(first)
}

fn class_of(code: &str) -> Class {
    match code {
        // READONLY: this was the primary until a moment ago; nothing was written. UNBLOCKED: the same happened while a
        // command blocked, which thus did nothing.
        "UNBLOCKED" | "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "READONLY" | "NOSCRIPT"
        | "MOVED" | "ASK" => Class::Transient,
        "WRONGPASS" | "NOAUTH" | "NOPROTO" | "UNKNOWN_COMMAND" => Class::Fatal,
        _ => Class::Refused,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_error_of_a_script_is_found_in_both_formats() {
        for (text, code) in [
            ("OOM command not allowed when used memory > 'maxmemory'. script: f_1, on @user_script:1.", "OOM"),
            ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed when used", "OOM"),
            ("ERR OOM command not allowed", "OOM"),
            ("READONLY You can't write against a read only replica.", "READONLY"),
            ("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write", "READONLY"),
            ("ERR Error running script: @user_script:1: the user said OOM", "ERR"),
            ("ERR unknown command 'FOO', with args beginning with: ", "UNKNOWN_COMMAND"),
            ("WRONGTYPE Operation against a key", "WRONGTYPE"),
            ("", "ERR"),
        ] {
            assert_eq!(Error::from_reply(text).code(), code, "{text}");
        }
    }

    #[test]
    fn classes_say_whether_it_happened() {
        let class = |text| Error::from_reply(text).class();
        for text in ["LOADING x", "BUSY x", "MASTERDOWN x", "CLUSTERDOWN x", "TRYAGAIN x", "READONLY x"] {
            assert_eq!(class(text), Class::Transient, "{text}");
            assert!(Error::from_reply(text).is_retryable());
        }
        for text in ["OOM x", "NOPERM x", "WRONGTYPE x", "ERR x", "MISCONF x"] {
            assert_eq!(class(text), Class::Refused, "{text}");
        }
        assert!(Error::from_reply("OOM x").is_retryable() && !Error::from_reply("WRONGTYPE x").is_retryable());
        assert_eq!(class("WRONGPASS x"), Class::Fatal);
        assert_eq!(Error::timeout(RETRY_SOON).class(), Class::Ambiguous);
        assert!(!Error::lost("x").is_retryable(), "it may have been executed");
        assert_eq!(Error::not_connected("x").class(), Class::Transient);
    }
}

//! The label set of one series, in the one spelling that identifies it.

use std::fmt::Write;
use std::sync::Arc;

/// Label names and values, ordered by name, with their Prometheus spelling.
#[derive(Clone, Default)]
pub(crate) struct Labels {
    pub(crate) pairs: Arc<[(&'static str, String)]>,
    /// `queue="email",state="done"`, escaped; equal exactly when the label sets are equal.
    pub(crate) text: Arc<str>,
}

impl Labels {
    pub(crate) fn new(labels: &[(&'static str, &str)]) -> Self {
        let mut pairs: Vec<_> = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        pairs.sort();
        let text = spell(&pairs);
        Self { pairs: pairs.into(), text: text.into() }
    }

    /// The same names, every value `overflow`.
    pub(crate) fn overflow(&self) -> Self {
        let overflow: Vec<_> = self.pairs.iter().map(|(name, _)| (*name, "overflow")).collect();
        Self::new(&overflow)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.pairs.iter().map(|(name, _)| *name)
    }

    /// Each name once, spelled as Prometheus allows, and not `le`, which is the histograms' own.
    pub(crate) fn are_valid(&self) -> bool {
        let distinct = self.pairs.windows(2).all(|pair| pair[0].0 != pair[1].0);
        distinct && self.names().all(|name| is_identifier(name, false) && name != "le" && !name.starts_with("__"))
    }
}

pub(crate) fn is_metric_name(name: &str) -> bool {
    is_identifier(name, true)
}

fn is_identifier(name: &str, colon: bool) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':');
    name.bytes().all(allowed) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn spell(pairs: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"");
        escape_into(&mut text, value, true);
        text.push('"');
    }
    text
}

/// Backslash and line feed, and in label values the quote, as the text format 0.0.4 asks.
pub(crate) fn escape_into(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

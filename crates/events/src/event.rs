//! What is published and what is kept.

use bytes::Bytes;

use crate::{Error, EventId};

/// Types that a listener's end has a meaning of its own for: our word for missing history, and what `EventSource` says of
/// its connection.
pub(crate) const RESERVED_TYPES: [&[u8]; 3] = [b"gap", b"error", b"open"];

/// An event to publish. The attributes are those of CloudEvents.
///
/// ```
/// # use tidegate_events::NewEvent;
/// let event = NewEvent::new(r#"{"order":7}"#).kind("order.created").idempotence_id("7-created");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// What is told: JSON text, kept and delivered byte for byte. Nobody checks here that it is JSON.
    pub data: Bytes,
    /// Its `type`: what happened, `order.created`.
    pub kind: Option<Bytes>,
    /// What it belongs to.
    pub key: Option<Bytes>,
    /// Where it comes from.
    pub source: Option<Bytes>,
    /// Whom it is about.
    pub subject: Option<Bytes>,
    /// The same id published again to the same stream within the window is the same event and is not kept twice.
    pub idempotence_id: Option<Bytes>,
}

impl NewEvent {
    /// The longest attribute.
    const ATTRIBUTE_BYTES_MAX: usize = 256;

    /// An event with this JSON text.
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// With a type.
    #[must_use]
    pub fn kind(self, kind: impl Into<Bytes>) -> Self {
        Self { kind: Some(kind.into()), ..self }
    }

    /// With a source: where it comes from.
    #[must_use]
    pub fn source(self, source: impl Into<Bytes>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// With a subject: whom it is about.
    #[must_use]
    pub fn subject(self, subject: impl Into<Bytes>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// With a key.
    #[must_use]
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// With an idempotence id.
    #[must_use]
    pub fn idempotence_id(self, id: impl Into<Bytes>) -> Self {
        Self { idempotence_id: Some(id.into()), ..self }
    }

    /// Bytes it counts for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.data, [&self.kind, &self.key, &self.source, &self.subject, &self.idempotence_id])
    }

    /// Refuses what cannot be kept or framed.
    pub(crate) fn check(&self, data_bytes_max: usize) -> Result<(), Error> {
        let invalid = |field, reason: String| Err(Error::Invalid { field, reason });
        if self.data.len() > data_bytes_max {
            return invalid("data", format!("{} bytes, at most {data_bytes_max}", self.data.len()));
        }
        if std::str::from_utf8(&self.data).is_err() {
            return invalid("data", "is not UTF-8".into());
        }
        let attributes = [
            ("type", &self.kind),
            ("key", &self.key),
            ("source", &self.source),
            ("subject", &self.subject),
            ("id", &self.idempotence_id),
        ];
        for (field, value) in attributes {
            let Some(value) = value else { continue };
            let legal = std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control));
            if field == "type" && RESERVED_TYPES.contains(&&value[..]) {
                return invalid(field, "gap, error and open mean something else to those who listen".into());
            }
            if value.is_empty() || value.len() > Self::ATTRIBUTE_BYTES_MAX || !legal {
                let reason = format!("1 to {} bytes of text without control characters", Self::ATTRIBUTE_BYTES_MAX);
                return invalid(field, reason);
            }
        }
        Ok(())
    }
}

/// An event as it is kept. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place.
    pub id: EventId,
    /// JSON text as it was published; for entries others wrote to a Redis stream, the object of their fields.
    pub data: Bytes,
    /// Its `type`.
    pub kind: Option<Bytes>,
    /// What it belongs to.
    pub key: Option<Bytes>,
    /// Where it comes from.
    pub source: Option<Bytes>,
    /// Whom it is about.
    pub subject: Option<Bytes>,
    /// The id it was published under.
    pub idempotence_id: Option<Bytes>,
}

impl Event {
    /// Bytes it counts for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.data, [&self.kind, &self.key, &self.source, &self.subject, &self.idempotence_id])
    }

    pub(crate) fn new(id: EventId, event: NewEvent) -> Self {
        let NewEvent { data, kind, key, source, subject, idempotence_id } = event;
        Self { id, data, kind, key, source, subject, idempotence_id }
    }
}

/// What an event counts for, kept or to be kept.
fn bytes(data: &Bytes, attributes: [&Option<Bytes>; 5]) -> usize {
    data.len() + attributes.into_iter().flatten().map(Bytes::len).sum::<usize>()
}

/// The answer to one published event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place.
    pub id: EventId,
    /// It was there already, under the same idempotence id.
    pub duplicate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_framed_or_would_pass_for_our_word_is_refused() {
        let check = |event: NewEvent| event.check(10).is_ok();
        assert!(check(NewEvent::new("1234567890").kind("gap.filled").key("k").source("s").subject("s")));
        assert!(!check(NewEvent::new("12345678901")));
        assert!(!check(NewEvent::new(&b"\xff"[..])));
        for kind in ["gap", "error", "open", "", "a\nb", "a\0"] {
            assert!(!check(NewEvent::new("1").kind(kind)), "{kind:?}");
        }
        assert!(!check(NewEvent::new("1").idempotence_id(vec![b'i'; 257])));
    }
}

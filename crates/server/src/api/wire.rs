//! Pieces of JSON shared by the resources: raw payloads, bounded lists, statuses.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use tidegate_queue::{Job, State};

/// 10 000 items in one call: 2 MB at 200 bytes each, and half a second of disk at the worst.
pub(crate) const ITEMS_MAX: usize = 10_000;

/// Ten years in milliseconds: longer than anybody means.
pub(crate) const FAR_MS: u64 = 3650 * 86_400_000;

/// Reads a list of at most [`ITEMS_MAX`] items.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    list_of_at_most::<ITEMS_MAX, D, T>(deserializer)
}

/// Reads a list of at most so many items; a longer one is refused at its first item too many.
pub(crate) fn list_of_at_most<'de, const MAX: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Items<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = sequence.next_element()? {
                if items.len() == MAX {
                    return Err(A::Error::custom(format!("more than {MAX} items")));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Items::<T, MAX>(PhantomData))
}

/// Reads a member that is there, `null` included; with `default`, an absent one is `None`.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A whole number within bounds; anything else is refused with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Bounded<MIN, MAX> {
            type Value = Whole<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let refused = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                (MIN..=MAX).contains(&number).then_some(Whole(number)).ok_or_else(refused)
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self))
            }
        }
        deserializer.deserialize_u64(Bounded)
    }
}

/// Bytes that are JSON, written as they are.
#[derive(Debug)]
pub(crate) struct Raw<'a>(pub(crate) &'a Bytes);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_slice::<&RawValue>(self.0) {
            Ok(raw) => raw.serialize(serializer),
            // A handler inside the process may answer with anything; as a text it can at least be looked at.
            Err(_) => String::from_utf8_lossy(self.0).serialize(serializer),
        }
    }
}

/// A job's state in the words of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Waits for its time.
    Scheduled,
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Done.
    Completed,
    /// Called off.
    Cancelled,
    /// Failed for good: in the dead letter set.
    Failed,
    /// Runs, and was told to stop. Told, but not asked for: such jobs are among the running.
    #[serde(skip_deserializing)]
    Cancelling,
}

impl Status {
    pub(crate) fn of(job: &Job) -> Self {
        if job.cancelling && job.state == State::Running { Self::Cancelling } else { job.state.into() }
    }

    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Cancelling => "cancelling",
        }
    }

    /// The state to look for.
    pub(crate) fn state(self) -> State {
        match self {
            Self::Scheduled => State::Scheduled,
            Self::Queued => State::Available,
            Self::Running | Self::Cancelling => State::Running,
            Self::Retrying => State::Retryable,
            Self::Completed => State::Completed,
            Self::Cancelled => State::Cancelled,
            Self::Failed => State::Discarded,
        }
    }
}

impl From<State> for Status {
    fn from(state: State) -> Self {
        match state {
            State::Scheduled => Self::Scheduled,
            State::Available => Self::Queued,
            State::Running => Self::Running,
            State::Retryable => Self::Retrying,
            State::Completed => Self::Completed,
            State::Cancelled => Self::Cancelled,
            State::Discarded => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Items<'a> {
        #[serde(default, borrow, deserialize_with = "list")]
        items: Vec<&'a RawValue>,
        #[serde(default, borrow, deserialize_with = "present")]
        result: Option<&'a RawValue>,
    }

    #[test]
    fn a_list_stops_at_its_bound() {
        let text = |count: usize| format!("{{\"items\":[{}]}}", vec!["1"; count].join(","));
        assert_eq!(serde_json::from_str::<Items<'_>>(&text(ITEMS_MAX)).unwrap().items.len(), ITEMS_MAX);
        assert!(
            serde_json::from_str::<Items<'_>>(&text(ITEMS_MAX + 1))
                .unwrap_err()
                .to_string()
                .contains("more than 10000")
        );
    }

    #[test]
    fn a_number_out_of_bounds_is_told_the_bounds() {
        assert_eq!(serde_json::from_str::<Whole<1, 10>>("10").unwrap().get(), 10);
        for text in ["0", "11", "-1", "1.5", "1e3", "99999999999999999999", "\"5\"", "null"] {
            let error = serde_json::from_str::<Whole<1, 10>>(text).unwrap_err().to_string();
            assert!(error.contains("a whole number from 1 to 10"), "{text}: {error}");
        }
    }

    #[test]
    fn a_null_result_is_a_result() {
        assert_eq!(serde_json::from_str::<Items<'_>>(r#"{"result":null}"#).unwrap().result.unwrap().get(), "null");
        assert!(serde_json::from_str::<Items<'_>>("{}").unwrap().result.is_none());
    }

    #[test]
    fn raw_bytes_keep_their_spelling_and_others_become_a_text() {
        let bytes = Bytes::from_static(b"{\"a\": 1.50e3}");
        assert_eq!(serde_json::to_string(&Raw(&bytes)).unwrap(), "{\"a\": 1.50e3}");
        assert_eq!(serde_json::to_string(&Raw(&Bytes::from_static(b"done"))).unwrap(), "\"done\"");
    }
}

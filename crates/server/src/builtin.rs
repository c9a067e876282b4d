//! The job kinds that run in this server: typed input in, computation on the CPU pool, JSON out.
//!
//! Input that cannot be computed on fails the job at once, without a retry, with a sentence that names the place.

mod handler;
mod matrix;
mod power;
mod similarity;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tidegate_compute::Control;

pub(crate) use handler::register;

/// Where built-in jobs go unless their submission names a queue.
pub(crate) const QUEUE: &str = "builtin";

/// One built-in kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builtin {
    pub(crate) kind: &'static str,
    /// Computes the answer to `data`; blocks, on the pool it is called in.
    pub(crate) run: Compute,
}

/// From a job's data to its result, both JSON.
pub(crate) type Compute = fn(&[u8], &Limits, &Control) -> Result<Vec<u8>, Failure>;

/// All of them.
pub(crate) const ALL: &[Builtin] = &[
    Builtin { kind: "similarity_calculation", run: similarity::run },
    Builtin { kind: "matrix_multiplication", run: matrix::run },
    Builtin { kind: "normalized_power", run: power::run },
];

/// The built-in of this kind.
pub(crate) fn find(kind: &str) -> Option<&'static Builtin> {
    ALL.iter().find(|builtin| builtin.kind == kind)
}

/// What an answer may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a result, as the queue keeps it.
    pub(crate) result_bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The input is to blame: trying again would fail again.
    Input(String),
    /// The job was cancelled or ran out of time.
    Cancelled,
}

impl From<tidegate_compute::Error> for Failure {
    fn from(error: tidegate_compute::Error) -> Self {
        match error {
            tidegate_compute::Error::Cancelled => Self::Cancelled,
            other => Self::Input(format!("failed to {other}")),
        }
    }
}

/// Reads a kind's input; the message names the field.
fn input<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Failure> {
    let text = std::str::from_utf8(data).map_err(|error| Failure::Input(format!("data: {error}")))?;
    crate::body::parse(text).map_err(|problem| Failure::Input(format!("data: {}", problem.detail())))
}

/// Writes an answer, within its limit.
fn output(answer: &impl Serialize, limits: &Limits) -> Result<Vec<u8>, Failure> {
    let mut bounded = Bounded { bytes: Vec::new(), bytes_max: limits.result_bytes_max };
    match serde_json::to_writer(&mut bounded, answer) {
        Ok(()) => Ok(bounded.bytes),
        Err(_) => Err(Failure::Input(format!(
            "the result is larger than {} bytes; ask for less of it",
            limits.result_bytes_max
        ))),
    }
}

/// A buffer that refuses to outgrow its limit.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What names an entity: a text or a whole number, given back as it came. Numbers come before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id<'a> {
    Number(i64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Id<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Id<'de>, E> {
                Ok(Id::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Id<'de>, E> {
                Ok(Id::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Id<'de>, E> {
                Ok(Id::Number(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Id<'de>, E> {
                i64::try_from(number).map(Id::Number).map_err(|_| E::custom("the id is beyond 64 bits"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Id<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, data: &str) -> Result<String, Failure> {
        run_within(kind, data, 1 << 20)
    }

    fn run_within(kind: &str, data: &str, result_bytes_max: usize) -> Result<String, Failure> {
        let answer = (find(kind).unwrap().run)(data.as_bytes(), &Limits { result_bytes_max }, &Control::new())?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[test]
    fn similar_entities_come_first_and_ids_come_back_as_they_were() {
        let data = r#"{"algorithm":"pearson","entities":[{"id":7,"values":[1,2,3]},{"id":"b","values":[2,4,6]},{"id":"c","values":[3,2,1]}]}"#;
        let answer = run("similarity_calculation", data).unwrap();
        assert!(answer.starts_with(r#"{"algorithm":"pearson","entities":3,"pairs":[[7,"b","#), "{answer}");
        assert!(answer.ends_with(r#"],"truncated":false}"#), "{answer}");
        let ratings = r#"{"algorithm":"jaccard","options":{"topK":1},"entities":[{"id":"a","ratings":{"x":1,"y":2}},{"id":"b","ratings":{"y":3}}]}"#;
        assert_eq!(
            run("similarity_calculation", ratings).unwrap(),
            r#"{"algorithm":"jaccard","entities":2,"pairs":[["a","b",0.5]],"truncated":false}"#
        );
    }

    #[test]
    fn a_product_and_a_power_are_written_plainly() {
        let product = run("matrix_multiplication", r#"{"matrixA":[[1,2]],"matrixB":[[3],[4.5]]}"#).unwrap();
        assert_eq!(product, r#"{"matrix":[[12.0]],"rows":1,"columns":1}"#);
        let short = run("normalized_power", r#"{"power":[200,null,210]}"#).unwrap();
        assert_eq!(short, r#"{"normalizedPower":null,"windows":0}"#);
        let steady = run("normalized_power", r#"{"power":[200,null,200,200],"windowSize":2}"#).unwrap();
        assert_eq!(steady, r#"{"normalizedPower":200.0,"windows":2}"#);
    }

    #[test]
    fn input_that_cannot_be_computed_on_is_told_by_its_place() {
        let cases = [
            ("matrix_multiplication", r#"{"matrixA":[[1,2],[3]],"matrixB":[[1],[2]]}"#, "row 1"),
            ("matrix_multiplication", r#"{"matrixA":[[1,2]],"matrixB":[[1,2]]}"#, "2 columns by one of 1 rows"),
            ("matrix_multiplication", r#"{"matrixA":[[1,"2"]],"matrixB":[[1,2]]}"#, "matrixA[0][1]"),
            ("matrix_multiplication", r#"{"matrixA":[[1]],"matrixB":[[1]],"c":1}"#, "unknown field `c`"),
            ("similarity_calculation", r#"{"algorithm":"psychic","entities":[]}"#, "unknown variant `psychic`"),
            (
                "similarity_calculation",
                r#"{"algorithm":"cosine","entities":[{"id":1}]}"#,
                "entity 0 has neither values nor ratings",
            ),
            (
                "similarity_calculation",
                r#"{"algorithm":"cosine","entities":[{"id":1,"values":[1]},{"id":2,"ratings":{}}]}"#,
                "entity 1",
            ),
            (
                "similarity_calculation",
                r#"{"algorithm":"cosine","entities":[{"id":1,"values":[1]},{"id":1,"values":[2]}]}"#,
                "same id",
            ),
            ("normalized_power", r#"{"power":[1],"windowSize":0}"#, "window of 0"),
            ("normalized_power", r#""no""#, "invalid type"),
        ];
        for (kind, data, told) in cases {
            match run(kind, data) {
                Err(Failure::Input(message)) => assert!(message.contains(told), "{told} is not in: {message}"),
                other => panic!("{kind} {data}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_result_beyond_the_limit_is_refused_not_truncated() {
        let data = r#"{"matrixA":[[1],[1],[1],[1]],"matrixB":[[1,1,1,1]]}"#;
        assert!(
            matches!(run_within("matrix_multiplication", data, 70), Err(Failure::Input(message)) if message.contains("70 bytes"))
        );
    }

    #[test]
    fn a_cancelled_computation_says_so() {
        let control = Control::new();
        control.cancel();
        let answer = (find("normalized_power").unwrap().run)(
            br#"{"power":[1,1],"windowSize":1}"#,
            &Limits { result_bytes_max: 100 },
            &control,
        );
        assert_eq!(answer, Err(Failure::Cancelled));
    }
}

//! [`Pattern`]: names of streams or types of events, by segments.

use std::fmt;
use std::sync::Arc;

use crate::Error;

/// A pattern over names of dot-separated segments: `*` is one segment, `**` any number of them (also none).
///
/// ```
/// # use tidegate_events::Pattern;
/// let one = Pattern::new("order.*")?;
/// assert!(one.matches("order.created") && !one.matches("order") && !one.matches("order.line.added"));
/// let any = Pattern::new("order.**")?;
/// assert!(any.matches("order") && any.matches("order.created") && any.matches("order.line.added"));
/// # Ok::<_, tidegate_events::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks a pattern; a name without `*` is one that matches itself.
    ///
    /// # Errors
    /// [`Error::BadPattern`]: longer than 200 characters, `*` inside a segment, or a character no name has.
    pub fn new(pattern: &str) -> Result<Self, Error> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'/' | b'-' | b'*');
        let stars = |segment: &str| !segment.contains('*') || matches!(segment, "*" | "**");
        if (1..=200).contains(&pattern.len()) && pattern.bytes().all(legal) && pattern.split('.').all(stars) {
            Ok(Self(pattern.into()))
        } else {
            Err(Error::BadPattern { pattern: pattern.chars().take(80).collect() })
        }
    }

    /// Whether a text is meant as a pattern.
    #[must_use]
    pub fn is_pattern(text: &str) -> bool {
        text.contains('*')
    }

    /// Whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('.').collect();
        let name: Vec<&str> = name.split('.').collect();
        matches(&pattern, &name)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every matching name begins with.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        let until = self.0.find('*').unwrap_or(self.0.len());
        // `order.**` matches `order` too.
        self.0[..until].trim_end_matches('.')
    }
}

/// Like a shell's glob: remembers the last `**` and what it has swallowed, so no pattern costs more than the product of the
/// lengths.
fn matches(pattern: &[&str], name: &[&str]) -> bool {
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < name.len() {
        match pattern.get(at) {
            Some(&"**") => {
                star = Some((at, read));
                at += 1;
            }
            Some(&segment) if segment == "*" || segment == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((any, swallowed)) => {
                    star = Some((any, swallowed + 1));
                    (at, read) = (any + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|segment| *segment == "**")
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_segments() {
        let cases = [
            ("*", "a", true),
            ("*", "a.b", false),
            ("**", "a.b.c", true),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.c", false),
            ("a.**.c", "a.c", true),
            ("a.**.c", "a.b.b.c", true),
            ("a.**.c", "a.b.b", false),
            ("**.x.**", "a.b.x", true),
            ("a", "a", true),
            ("a", "b", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_star_inside_a_segment_is_refused() {
        for pattern in ["", "a*", "a.b*", "***", "a b", "a,b"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = Pattern::new(&["**"; 60].join(".")).unwrap();
        assert!(pattern.matches(&["a"; 90].join(".")));
        let pattern = Pattern::new(&format!("{}.b", ["**.a"; 30].join("."))).unwrap();
        assert!(!pattern.matches(&["a"; 90].join(".")));
    }
}

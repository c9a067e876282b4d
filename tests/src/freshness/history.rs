//! What the processes told, and what was broken when.

use std::collections::{BTreeMap, HashMap};

/// Times are nanoseconds of the machine's monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Where each value came from.
    pub origins: HashMap<u64, Origin>,
    /// When loaders found that there is no such thing.
    pub absences: Vec<Origin>,
    /// What was given.
    pub reads: Vec<Read>,
    /// Changes that were acknowledged.
    pub changes: Vec<Change>,
    /// What was broken.
    pub faults: Vec<(u64, String)>,
    /// Kinds of faults, counted.
    pub fault_counts: BTreeMap<String, u64>,
    /// Bytes that nobody wrote.
    pub garbled: Vec<String>,
    /// What the caches counted, summed.
    pub counters: BTreeMap<String, u64>,
}

/// A value that was set, or what a loader read at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub node: usize,
    /// The value's name.
    pub id: u64,
    /// Its key.
    pub key: String,
    /// The tags it bears.
    pub tags: Vec<String>,
    /// When it began to be written, or was read at its source.
    pub start: u64,
    /// By when that was over; `None` when nobody knows.
    pub end: Option<u64>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Who asked.
    pub node: usize,
    /// For what.
    pub key: String,
    /// When the call began.
    pub start: u64,
    /// When it was answered.
    pub end: u64,
    /// The value; `None`: "there is no such thing".
    pub id: Option<u64>,
}

/// A change that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who changed; `None`: somebody who is no process of the cache.
    pub node: Option<usize>,
    /// What.
    pub what: What,
    /// When the call began.
    pub start: u64,
    /// When it was acknowledged.
    pub end: u64,
}

/// What a change covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One key.
    Key(String),
    /// What bears a tag.
    Tag(String),
    /// What begins so.
    Prefix(String),
    /// Everything.
    All,
}

impl What {
    /// Whether it is about a value of `key` with these tags.
    #[must_use]
    pub fn covers(&self, key: &str, tags: &[String]) -> bool {
        match self {
            Self::Key(known) => known == key,
            Self::Tag(tag) => tags.contains(tag),
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::All => true,
        }
    }

    /// Its kind in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Tag(_) => "tag",
            Self::Prefix(_) => "prefix",
            Self::All => "all",
        }
    }
}

impl History {
    /// Takes in what a process told. The last line of one that was killed may be cut.
    ///
    /// # Panics
    /// For any other line that cannot be read: then checker and process speak two languages.
    pub fn read(&mut self, node: usize, lines: &[String]) {
        for (at, line) in lines.iter().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            let is_read = self.read_line(node, &words).is_some();
            assert!(is_read || at + 1 == lines.len(), "process {node} said what nobody understands: {line:?}");
        }
    }

    fn read_line(&mut self, node: usize, words: &[&str]) -> Option<()> {
        match *words {
            ["v", id, key, tags, start, end] => {
                let end = if end == "-" { None } else { Some(end.parse().ok()?) };
                let origin = origin(node, id, key, tags, start.parse().ok()?, end)?;
                self.origins.insert(origin.id, origin);
            }
            [kind @ ("l" | "a"), id, key, tags, at] => {
                let at = at.parse().ok()?;
                let origin = origin(node, id, key, tags, at, Some(at))?;
                match kind {
                    "l" => drop(self.origins.insert(origin.id, origin)),
                    _ => self.absences.push(origin),
                }
            }
            ["r", key, start, end, id] => self.given(node, key, start, end, Some(id.parse().ok()?))?,
            ["n", key, start, end] => self.given(node, key, start, end, None)?,
            ["c", kind, what, start, end] => {
                let what = match kind {
                    "key" => What::Key(what.to_owned()),
                    "tag" => What::Tag(what.to_owned()),
                    "prefix" => What::Prefix(what.to_owned()),
                    "all" => What::All,
                    _ => return None,
                };
                let (start, end) = (start.parse().ok()?, end.parse().ok()?);
                self.changes.push(Change { node: Some(node), what, start, end });
            }
            ["x", key, id] => self.garbled.push(format!("process {node}, key {key}, value {id}")),
            ["s", name, number] => *self.counters.entry(name.to_owned()).or_default() += number.parse::<u64>().ok()?,
            ["end"] => {}
            _ => return None,
        }
        Some(())
    }

    fn given(&mut self, node: usize, key: &str, start: &str, end: &str, id: Option<u64>) -> Option<()> {
        let (start, end) = (start.parse().ok()?, end.parse().ok()?);
        self.reads.push(Read { node, key: key.to_owned(), start, end, id });
        Some(())
    }
}

fn origin(node: usize, id: &str, key: &str, tags: &str, start: u64, end: Option<u64>) -> Option<Origin> {
    let tags = tags.split(',').filter(|tag| *tag != "-").map(str::to_owned).collect();
    Some(Origin { node, id: id.parse().ok()?, key: key.to_owned(), tags, start, end })
}

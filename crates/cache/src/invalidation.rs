//! What is to be forgotten.

/// What is to be forgotten, in every tier and every process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Invalidation {
    /// The value of a key.
    Key(Box<str>),
    /// All values that bear a tag.
    Tag(Box<str>),
    /// All values whose keys begin with this.
    Prefix(Box<str>),
    /// Everything.
    All,
}

impl Invalidation {
    /// The value of a key.
    pub fn key(key: impl Into<Box<str>>) -> Self {
        Self::Key(key.into())
    }

    /// All values that bear a tag.
    pub fn tag(tag: impl Into<Box<str>>) -> Self {
        Self::Tag(tag.into())
    }

    /// All values whose keys begin with `prefix`.
    pub fn prefix(prefix: impl Into<Box<str>>) -> Self {
        Self::Prefix(prefix.into())
    }
}

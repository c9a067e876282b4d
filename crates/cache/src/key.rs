//! A key, hashed once per call.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::RandomState;
use quick_cache::Equivalent;

/// A key as a caller gave it, with its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef<'a> {
    pub(crate) hash: u64,
    pub(crate) text: &'a str,
}

/// A key that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
    text: Box<str>,
}

impl<'a> KeyRef<'a> {
    #[inline]
    pub(crate) fn new(text: &'a str, hasher: &RandomState) -> Self {
        Self { hash: hasher.hash_one(text), text }
    }

    pub(crate) fn to_key(self) -> Key {
        Key { hash: self.hash, text: self.text.into() }
    }
}

impl Key {
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, text: &self.text }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Hash for KeyRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    #[inline]
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && *self.text == *key.text
    }
}

/// Passes the hash on that the key brings along.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hashed;

/// See [`Hashed`].
#[derive(Debug, Default)]
pub(crate) struct HashedState(u64);

impl BuildHasher for Hashed {
    type Hasher = HashedState;

    #[inline]
    fn build_hasher(&self) -> HashedState {
        HashedState::default()
    }
}

impl Hasher for HashedState {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only keys are hashed, and they write a number.
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

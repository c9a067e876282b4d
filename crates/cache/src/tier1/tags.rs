//! Tags that entries of tier 1 bear. A tag is known as long as somebody bears it: the number of tags is bounded by that of
//! entries.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::wide::{Stamp, Wide};

/// The tags of an entry, a load, or none.
#[derive(Clone, Default)]
pub(crate) struct Tag(Option<Arc<Vec<Arc<One>>>>);

/// A tag.
pub(crate) struct One {
    pub(crate) name: Box<str>,
    /// The version of its last change.
    changed: AtomicU64,
    /// The generation it has on Redis, and the version it was learnt under; zero: not known.
    generation: Mutex<(u64, Stamp)>,
    /// Until when it lives on Redis, at least.
    lives_until: AtomicU64,
    home: Arc<Known>,
}

type Known = Mutex<HashMap<Box<str>, Weak<One>, foldhash::fast::RandomState>>;

/// All tags that are known.
#[derive(Default)]
pub(crate) struct Tags(Arc<Known>);

impl Tag {
    /// Whether none of them changed since `stamp`.
    #[inline]
    pub(crate) fn stand(&self, stamp: Stamp) -> bool {
        match &self.0 {
            None => true,
            Some(tags) => tags.iter().all(|tag| tag.changed.load(Ordering::SeqCst) <= stamp),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<One>> {
        self.0.iter().flat_map(|tags| tags.iter())
    }

    /// Bytes to charge an entry for them.
    pub(crate) fn bytes(&self) -> usize {
        // A pointer for each, and its share of a tag that others may bear as well.
        self.iter().map(|tag| 8 + tag.name.len()).sum()
    }
}

impl One {
    /// The generation on Redis, if it is known, and neither the tag nor, under `floor`, everything changed since it was asked
    /// for.
    pub(crate) fn generation(&self, floor: Stamp) -> Option<u64> {
        let (generation, learnt) = *self.generation.lock();
        let is_current = learnt >= floor && self.changed.load(Ordering::SeqCst) <= learnt;
        (generation != 0 && is_current).then_some(generation)
    }

    /// Until when it lives on Redis, as far as is known.
    pub(crate) fn lives_until(&self) -> u64 {
        self.lives_until.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lives_until(&self, at: u64) {
        self.lives_until.store(at, Ordering::Relaxed);
    }

    /// The generation as Redis said it to a question asked under `stamp`.
    pub(crate) fn learn(&self, generation: u64, stamp: Stamp) {
        let mut known = self.generation.lock();
        if known.1 <= stamp || known.0 == 0 {
            *known = (generation, stamp);
        }
    }
}

impl Tags {
    /// These tags, known from now on as long as somebody holds them.
    pub(crate) fn hold<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Tag {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return Tag::default();
        }
        Tag(Some(Arc::new(names.map(|name| self.one(name)).collect())))
    }

    fn one(&self, name: &str) -> Arc<One> {
        let mut known = self.0.lock();
        if let Some(tag) = known.get(name).and_then(Weak::upgrade) {
            return tag;
        }
        let tag = Arc::new(One {
            name: name.into(),
            changed: AtomicU64::new(0),
            generation: Mutex::new((0, 0)),
            lives_until: AtomicU64::new(0),
            home: self.0.clone(),
        });
        known.insert(name.into(), Arc::downgrade(&tag));
        tag
    }

    pub(super) fn changed(&self, name: &str, wide: &Wide) {
        // Held while the version is taken: who holds the tag from here on began after the change.
        let known = self.0.lock();
        let version = wide.next();
        let tag = known.get(name).and_then(Weak::upgrade);
        if let Some(tag) = &tag {
            tag.changed.fetch_max(version, Ordering::SeqCst);
        }
        // Its last holder may have let go meanwhile, and then it takes the lock.
        drop(known);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut known = self.home.lock();
        // Unless somebody made it anew since.
        if known.get(&*self.name).is_some_and(|tag| tag.strong_count() == 0) {
            known.remove(&*self.name);
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|tag| &tag.name)).finish()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tags")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_as_long_as_somebody_bears_it() {
        let (tags, wide) = (Tags::default(), Wide::new());
        let (one, two) = (tags.hold(["a", "b"]), tags.hold(["b"]));
        assert_eq!(tags.len(), 2);
        let before = wide.now();
        tags.changed("a", &wide);
        assert!(!one.stand(before) && two.stand(before) && one.stand(wide.now()));
        drop(one);
        assert_eq!(tags.len(), 1);
        drop((two, tags.hold([])));
        assert_eq!(tags.len(), 0);
        tags.changed("nobody's", &wide);
        assert_eq!(tags.len(), 0);
    }

    #[test]
    fn a_generation_that_was_learnt_before_a_change_is_not_used() {
        let (tags, wide) = (Tags::default(), Wide::new());
        let held = tags.hold(["a"]);
        let tag = held.iter().next().unwrap();
        let asked = wide.now();
        tag.learn(5, asked);
        assert_eq!(tag.generation(0), Some(5));
        tags.changed("a", &wide);
        assert_eq!(tag.generation(0), None);
        tag.learn(5, asked);
        assert_eq!(tag.generation(0), None, "the answer to a question from before the change");
        tag.learn(6, wide.now());
        assert_eq!(tag.generation(0), Some(6));
        wide.flush();
        assert_eq!(tag.generation(wide.floor()), None, "what was told over a lost link is lost");
    }
}

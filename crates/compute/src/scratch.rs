//! Working memory that tiles hand to each other, so that a thousand tiles allocate once per thread.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// A stack of idle working memories; never longer than the number of tiles that ran at once.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    idle: Mutex<Vec<T>>,
}

/// A working memory in use; gives itself back on drop.
#[derive(Debug)]
pub(crate) struct Lent<'a, T> {
    scratch: &'a Scratch<T>,
    memory: Option<T>,
}

impl<T> Scratch<T> {
    pub(crate) fn new() -> Self {
        Self { idle: Mutex::new(Vec::new()) }
    }

    /// An idle memory, as its last user left it, or a fresh one.
    pub(crate) fn lend(&self, make: impl FnOnce() -> T) -> Lent<'_, T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { scratch: self, memory: Some(idle.unwrap_or_else(make)) }
    }

    /// All memories that were used, once nobody does.
    pub(crate) fn into_idle(self) -> Vec<T> {
        self.idle.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.memory.as_ref().expect("present until drop")
    }
}

impl<T> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.memory.as_mut().expect("present until drop")
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        // A panicking tile may have left its memory half used: let it go.
        if !std::thread::panicking() {
            self.scratch.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.memory.take());
        }
    }
}

//! The store without a disk, for tests: it can also forget, the way a crash does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::batch::Write;
use crate::{Error, Order, Table};

type Tree = BTreeMap<Vec<u8>, Vec<u8>>;

/// Tables in memory.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Locked for one batch or one read.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is durable.
    tables: Vec<Tree>,
    /// Batches applied since the last one that was awaited, with what they replaced: newest last.
    loose: Vec<Vec<Write>>,
}

impl Memory {
    pub(crate) fn new(tables: usize) -> Self {
        Self { state: Mutex::new(State { tables: vec![Tree::new(); tables], loose: Vec::new() }) }
    }

    /// Applies a batch; `awaited` makes it and all before it safe from [`crash`](Self::crash).
    pub(crate) fn commit(&self, writes: Vec<Write>, awaited: bool) {
        let mut state = self.lock();
        let mut undo = Vec::with_capacity(if awaited { 0 } else { writes.len() });
        for write in writes {
            let Some(tree) = state.tables.get_mut(usize::from(write.table.0)) else { continue };
            let before = match write.value {
                Some(value) => tree.insert(write.key.clone(), value),
                None => tree.remove(&write.key),
            };
            if !awaited {
                undo.push(Write { table: write.table, key: write.key, value: before });
            }
        }
        if awaited {
            state.loose.clear();
        } else {
            state.loose.push(undo);
        }
    }

    /// Takes back the newest `batches` that nobody awaited.
    pub(crate) fn crash(&self, batches: usize) {
        let mut state = self.lock();
        for _ in 0..batches {
            let Some(undo) = state.loose.pop() else { return };
            for write in undo.into_iter().rev() {
                let Some(tree) = state.tables.get_mut(usize::from(write.table.0)) else { continue };
                match write.value {
                    Some(value) => tree.insert(write.key, value),
                    None => tree.remove(&write.key),
                };
            }
        }
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().tables.get(usize::from(table.0))?.get(key).cloned()
    }

    pub(crate) fn scan<E: From<Error>>(
        &self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let state = self.lock();
        let Some(tree) = state.tables.get(usize::from(table.0)) else { return Ok(()) };
        for (key, value) in tree.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if !each(key, value)? {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn range<E: From<Error>>(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        order: Order,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let state = self.lock();
        let Some(tree) = state.tables.get(usize::from(table.0)) else { return Ok(()) };
        let mut range = tree.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let mut next = || match order {
            Order::Forward => range.next(),
            Order::Backward => range.next_back(),
        };
        while let Some((key, value)) = next() {
            if !each(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst half a batch of a test's data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

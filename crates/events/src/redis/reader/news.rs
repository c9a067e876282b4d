//! News of streams that others made without ringing, for those who follow patterns: from the list of streams, whenever that
//! was renewed.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tidegate_redis_ops::{Listing, StreamRegistry};
use tokio::time::sleep;

use crate::redis::Shared;

/// How often the list is looked at; it is renewed by its own interval.
const LOOK: Duration = Duration::from_secs(1);

/// What was told already.
#[derive(Default)]
pub(super) struct News {
    told: Option<Arc<Listing>>,
    next: Option<Arc<Listing>>,
}

impl News {
    /// Waits for a list that was not told yet. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self, registry: &StreamRegistry) {
        loop {
            if self.next.is_some() {
                return;
            }
            sleep(LOOK).await;
            let Ok(listing) = registry.listing().await else { continue };
            if !self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &listing)) {
                self.next = Some(listing);
            }
        }
    }

    /// Tells the hub of names that were not in the list before.
    pub(super) fn tell(&mut self, shared: &Shared) {
        let Some(next) = self.next.take() else { return };
        let mut before = self.told.iter().flat_map(|told| told.names.iter()).peekable();
        for key in &next.names {
            while before.next_if(|old| old.cmp(&key) == Ordering::Less).is_some() {}
            if before.next_if(|old| *old == key).is_none()
                && let Some(name) = shared.keys.name(key)
            {
                shared.hub.created(&name);
            }
        }
        self.told = Some(next);
    }
}

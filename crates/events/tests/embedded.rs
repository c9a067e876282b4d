//! The conformance suite on the embedded backend, in memory and on disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "shared by the suites of all backends")]
mod conformance;

use std::rc::Rc;

use conformance::Opening;
use tidegate_events::{Bus, Config, TABLES};
use tidegate_metrics::Registry;
use tidegate_store::Store;

/// Every start is on the same memory.
fn memory() -> impl Fn(Config) -> Opening + 'static {
    let store = Store::memory(TABLES);
    move |config| {
        let store = store.clone();
        Box::pin(async move { Bus::open(store, 0, config, &Registry::new()).await.unwrap() })
    }
}

/// Every start is on the same folder.
fn disk() -> impl Fn(Config) -> Opening + 'static {
    let folder = Rc::new(tempfile::tempdir().unwrap());
    move |config| {
        let folder = Rc::clone(&folder);
        Box::pin(async move {
            let registry = Registry::new();
            let store = Store::open(tidegate_store::Config::new(folder.path()), TABLES, &registry).unwrap();
            Bus::open(store, 0, config, &registry).await.unwrap()
        })
    }
}

mod in_memory {
    crate::conformance! { crate::memory }
}

mod on_disk {
    crate::conformance! { crate::disk }
}

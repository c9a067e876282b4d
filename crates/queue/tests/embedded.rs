//! The conformance suite on the embedded backend, in memory and on disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "shared by the suites of all backends")]
mod conformance;

use std::rc::Rc;

use conformance::Opening;
use tidegate_metrics::Registry;
use tidegate_queue::{Config, Queues, TABLES};
use tidegate_store::Store;

/// Every start is on the same memory.
fn memory() -> impl Fn(Config) -> Opening + 'static {
    let store = Store::memory(TABLES);
    move |config| {
        let store = store.clone();
        Box::pin(async move { Queues::open(store, config, &Registry::new()).await.unwrap() })
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
            Queues::open(store, config, &registry).await.unwrap()
        })
    }
}

/// What only a store in this process promises: it owns the clock, and a start tells its dead workers from living ones.
macro_rules! on {
    ($name:ident) => {
        mod $name {
            crate::conformance! { crate::$name }

            mod alone {
                crate::cases! { crate::$name;
                    leases: setting_the_clock_neither_ends_nor_stretches_a_lease;
                    restart: a_remote_worker_keeps_its_lease_over_a_restart, a_local_worker_does_not;
                }
            }
        }
    };
}

on!(memory);
on!(disk);

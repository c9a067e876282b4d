//! The conformance suite in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;

use conformance::Opening;
use tidegate_cache::{Cache, Config, Raw};
use tidegate_metrics::Registry;

fn memory(config: Config) -> Opening {
    Box::pin(async move { Cache::memory(Raw, config, &Registry::new()).unwrap() })
}

mod in_memory {
    crate::conformance! { crate::memory }
}

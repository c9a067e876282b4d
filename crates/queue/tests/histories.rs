//! Random histories of the embedded queue against the naive model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "a module of this test")]
mod model;

use model::pair::{Place, agree};
use tidegate_metrics::Registry;
use tidegate_queue::{Config, Queues, TABLES};
use tidegate_store::Store;

impl Place for Store {
    async fn open(&self, config: Config) -> Queues {
        Queues::open(self.clone(), config, &Registry::new()).await.unwrap()
    }

    fn restart(&self, crash: bool) -> bool {
        if crash {
            self.crash(usize::MAX);
        }
        true
    }
}

#[test]
fn ten_thousand_random_histories_agree_with_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    agree(&runtime, 10_000, || Store::memory(TABLES));
}

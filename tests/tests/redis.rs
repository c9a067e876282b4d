//! Several servers on one Redis, and one server whose Redis is gone, full, or set up in a way that will not do.

#[path = "redis/away.rs"]
mod away;
#[path = "redis/cache.rs"]
mod cache;
#[path = "redis/places.rs"]
mod places;
#[path = "redis/shared.rs"]
mod shared;
#[path = "redis/streams.rs"]
mod streams;

use std::time::Duration;

use serde_json::json;
use tidegate_test_redis::Server as Redis;
use tidegate_tests::{Builder, Server, eventually};

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on this Redis; leases of 2 s keep waiting short.
fn on(redis: &Redis) -> Builder {
    Server::builder().redis(&redis.url()).env("TIDEGATE_LEASE", "2s")
}

/// A job goes all the way, one that the server works on too.
async fn works(server: &Server) {
    let client = server.client();
    let job = client.enqueue("default", "a", json!({"n": 1})).await;
    let claimed = client.claim_one("default", "w").await;
    assert_eq!(claimed.job_id, job.job_id);
    assert_eq!(client.progress("default", &claimed.lease, 0.5, None).await, "ok");
    assert_eq!(client.beat("default", "w", &[&claimed.lease]).await["stale"], json!([]));
    assert_eq!(client.complete("default", &claimed.lease, "7").await, "ok");
    assert_eq!(client.job(&job.job_id).await.result.expect("a result").get(), "7");
    let job = client.submit(json!({"jobType": "normalized_power", "data": {"power": [200, 210]}})).await;
    assert_eq!(client.job_in(&job.job_id, &["completed", "failed"]).await.status, "completed");
}

/// Waits until `/readyz` answers so.
async fn ready_is(server: &Server, status: u16) {
    let client = server.client();
    eventually(&format!("/readyz answers {status}"), PATIENCE, || async {
        (client.get("/readyz").await.status == status).then_some(())
    })
    .await;
}

//! Nothing is ever sent twice: what was acknowledged happened once, what is ambiguous at most once, the rest never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_redis_ops::{Class, Redis, Script};
use tidegate_test_redis::Server;
use tokio::time::{Instant, sleep};

use crate::connect;

/// How long connections are being killed; `TIDEGATE_KILL_SECONDS` makes it longer.
#[expect(clippy::disallowed_methods, reason = "a test's own length")]
fn length() -> Duration {
    let seconds = std::env::var("TIDEGATE_KILL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    ambiguous: AtomicU64,
    not_sent: AtomicU64,
}

async fn increment(redis: Redis, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    let script = Script::new("increment", "return redis.call('INCR', KEYS[1])");
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let answer = match turn % 2 {
            0 => redis.command("INCR", Some("n".into()), vec!["n".into()]).await,
            _ => redis.run(&script, &["n".into()], Vec::new()).await,
        };
        let counter = match answer.map_err(|error| (error.class(), error)) {
            Ok(_) => &counts.acknowledged,
            Err((Class::Ambiguous, _)) => &counts.ambiguous,
            Err((Class::Transient, _)) => &counts.not_sent,
            Err((_, error)) => panic!("{error}"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_killed_all_the_time_make_no_duplicates_and_lose_no_acknowledgement() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
    let callers: Vec<_> =
        (0..16).map(|_| tokio::spawn(increment(redis.clone(), counts.clone(), stop.clone()))).collect();
    let (end, mut kills) = (Instant::now() + length(), 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        kills += server.client_kill_all().await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let executed: u64 = server.cli(&["GET", "n"]).await.parse().unwrap();
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
    let ambiguous = counts.ambiguous.load(Ordering::Relaxed);
    println!("{kills} kills, {acknowledged} acknowledged, {ambiguous} ambiguous, {executed} executed, {counts:?}");
    assert!(kills > 10 && ambiguous > 0, "the link was in use when it was cut");
    assert!(executed >= acknowledged, "an acknowledged increment is missing");
    assert!(executed <= acknowledged + ambiguous, "an increment happened twice, or one called not sent happened");
}

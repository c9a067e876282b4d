//! Nothing is ever sent twice: what was acknowledged happened once, what is ambiguous at most once, the rest never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_redis_ops::{Class, Config, Redis, Script};
use tidegate_test_redis::{Proxy, Server, Toward};
use tokio::time::{Instant, sleep};

use crate::{connect, connect_with, until};

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
    kill_connections_for(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test -p tidegate-redis-ops -- --ignored"]
async fn the_same_for_a_minute() {
    kill_connections_for(Duration::from_secs(60)).await;
}

async fn kill_connections_for(length: Duration) {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
    let callers: Vec<_> =
        (0..16).map(|_| tokio::spawn(increment(redis.clone(), counts.clone(), stop.clone()))).collect();
    let (end, mut kills) = (Instant::now() + length, 0);
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

#[tokio::test]
async fn cut_at_any_byte_a_call_is_never_called_unsent_when_it_happened() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.addr());
    let soon = |config: &mut Config| config.reconnect_max = Duration::from_millis(20);
    let redis = connect_with(&server.url_through(&proxy), soon).await;
    let script = Script::new("increment", "return redis.call('INCR', KEYS[1])");
    for toward in [Toward::Server, Toward::Client] {
        for bytes in 0..60 {
            let before: u64 = server.cli(&["GET", "n"]).await.parse().unwrap_or(0);
            proxy.cut_once(toward, bytes);
            let answer = redis.run(&script, &["n".into()], Vec::new()).await;
            proxy.heal();
            let after: u64 = server.cli(&["GET", "n"]).await.parse().unwrap_or(0);
            match answer.map_err(|error| error.class()) {
                Ok(_) => assert_eq!(after, before + 1),
                Err(Class::Transient) => assert_eq!(after, before, "{toward:?} {bytes}"),
                Err(Class::Ambiguous) => assert!(after <= before + 1),
                Err(class) => panic!("{class:?}"),
            }
            // A success between failures: the breaker stays closed.
            until(async || redis.command("GET", None, vec!["n".into()]).await.ok()).await;
        }
    }
}

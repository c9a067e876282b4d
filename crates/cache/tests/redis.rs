//! The conformance suite on Redis, and what several processes promise each other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by the suites of all backends")]
mod conformance;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use conformance::{Opening, bytes, until};
use tidegate_cache::{Cache, Config, Invalidation, Keep, Raw};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Redis, acl_line};
use tidegate_test_redis::{Cluster, Server};
use tokio::sync::OnceCell;

/// A name nobody else has used on the servers of this run.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn open(url: &str, config: Config) -> Cache<Bytes> {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    // A test that is slow is not a Redis that is away.
    let redis_timeout = std::time::Duration::from_secs(5);
    Cache::connect(&redis, Raw, Config { redis_timeout, ..config }, &registry).await.unwrap()
}

fn one_server(config: Config) -> Opening {
    Box::pin(async move {
        let url = tidegate_test_redis::shared().await.url();
        open(&url, Config { name: name().into(), ..config }).await
    })
}

fn cluster(config: Config) -> Opening {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    Box::pin(async move {
        let url = CLUSTER.get_or_init(Cluster::start).await.url();
        open(&url, Config { name: name().into(), ..config }).await
    })
}

/// TLS, and a user who may do no more than `acl_line` grants.
fn least_user_over_tls(config: Config) -> Opening {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let start = async || {
        let line = acl_line("app", "tidegate:", "tidegate:");
        let user = line.strip_prefix("ACL SETUSER ").expect("an ACL line").to_owned();
        Server::builder().tls().acl(user).start().await
    };
    Box::pin(async move {
        let server = SERVER.get_or_init(start).await;
        let url = format!("{}?ca={}", server.url_as("app", "password"), server.ca().display());
        open(&url, Config { name: name().into(), ..config }).await
    })
}

mod on_one_server {
    crate::conformance! { crate::one_server }
}

mod on_a_cluster {
    crate::conformance! { crate::cluster }
}

mod as_the_least_user_over_tls {
    crate::conformance! { crate::least_user_over_tls }
}

/// Several processes with the same cache.
async fn processes(count: usize) -> Vec<Cache<Bytes>> {
    let url = tidegate_test_redis::shared().await.url();
    let name = name();
    let mut caches = Vec::new();
    for _ in 0..count {
        caches.push(open(&url, Config { name: name.as_str().into(), ..Config::default() }).await);
    }
    caches
}

/// Until its memory has the value and may give it.
async fn near(cache: &Cache<Bytes>, key: &str) {
    until(async || {
        cache.get(key).await.unwrap();
        cache.peek(key).is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_changes_the_others_forget() {
    let caches = processes(3).await;
    let keep = || Keep::new().tag("all");
    let changes: [(&str, Option<Invalidation>); 5] = [
        ("k", None),
        ("k", Some(Invalidation::key("k"))),
        ("k", Some(Invalidation::tag("all"))),
        ("k", Some(Invalidation::prefix("k"))),
        ("k", Some(Invalidation::All)),
    ];
    for (key, change) in changes {
        caches[0].set(key, bytes("old"), keep()).await.unwrap();
        for cache in &caches {
            until(async || {
                cache.get(key).await.unwrap();
                cache.peek(key) == Some(bytes("old"))
            })
            .await;
        }
        let now = match change.clone() {
            None => {
                caches[0].set(key, bytes("new"), keep()).await.unwrap();
                Some(bytes("new"))
            }
            Some(what) => {
                caches[0].invalidate(what).await.unwrap();
                None
            }
        };
        for cache in &caches {
            until(async || cache.get(key).await.unwrap() == now).await;
            for _ in 0..3 {
                assert_eq!(cache.get(key).await.unwrap(), now, "{change:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_in_each_of_three_processes_share_one_load() {
    let caches = processes(3).await;
    let loads = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let mut callers = Vec::new();
    for cache in &caches {
        for _ in 0..1000 {
            let (cache, loads, gate) = (cache.clone(), loads.clone(), gate.clone());
            callers.push(tokio::spawn(async move {
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, std::io::Error>(Some(bytes("v")))
                };
                cache.get_or_load("cold", Keep::new(), load).await
            }));
        }
    }
    until(async || caches.iter().map(|cache| cache.stats().coalesced).sum::<u64>() == 2997).await;
    callers.iter().step_by(7).for_each(tokio::task::JoinHandle::abort);
    gate.add_permits(10);
    for (place, caller) in callers.into_iter().enumerate() {
        match caller.await {
            Ok(value) => assert_eq!(value.unwrap(), Some(bytes("v"))),
            Err(gone) => assert!(gone.is_cancelled() && place % 7 == 0),
        }
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_values_for_one_key_in_one_call_the_last_counts() {
    let caches = processes(2).await;
    for round in 0..20 {
        let entries = (0..50).map(|n| (format!("k{}", n % 5), bytes(&format!("{round}:{n}")), Keep::new())).collect();
        caches[0].set_many(entries).await.unwrap();
        for cache in &caches {
            until(async || cache.get("k4").await.unwrap() == Some(bytes(&format!("{round}:49")))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_writes_stays_near() {
    let [cache, other] = &processes(2).await[..] else { unreachable!() };
    let before = cache.stats().redis.unwrap();
    cache.set("a", bytes("set"), Keep::new().tag("t")).await.unwrap();
    let load = || std::future::ready(Ok::<_, std::io::Error>(Some(bytes("loaded"))));
    cache.get_or_load("b", Keep::new().tag("t"), load).await.unwrap();
    assert_eq!((cache.peek("a"), cache.peek("b")), (Some(bytes("set")), Some(bytes("loaded"))));
    assert_eq!(cache.stats().redis.unwrap().hits, before.hits);
    other.invalidate(Invalidation::tag("t")).await.unwrap();
    until(async || cache.get("a").await.unwrap().is_none() && cache.get("b").await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_left_leaves_nothing_old() {
    let [cache, other] = &processes(2).await[..] else { unreachable!() };
    for round in 0..200_u32 {
        cache.set("a", bytes("before"), Keep::new()).await.unwrap();
        let value = bytes(&round.to_string());
        // Polled once: on its way, perhaps.
        let leaving = Box::pin(cache.set("a", value.clone(), Keep::new()));
        futures_util::future::select(leaving, std::future::ready(())).await;
        let theirs = bytes(&format!("their {round}"));
        other.set("a", theirs.clone(), Keep::new()).await.unwrap();
        until(async || {
            let (here, there) = (cache.get("a").await.unwrap(), other.get("a").await.unwrap());
            here == there && (here.as_ref() == Some(&theirs) || here.as_ref() == Some(&value))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_died_while_loading_is_succeeded() {
    let caches = processes(2).await;
    let first = caches[0].clone();
    let never = || std::future::pending::<Result<Option<Bytes>, std::io::Error>>();
    let stuck = tokio::spawn(async move { first.get_or_load("a", Keep::new(), never).await });
    until(async || caches[0].stats().loads == 1).await;
    // As after `kill -9`: its lease is neither renewed nor given back, so it is closed without a connection.
    stuck.abort();
    let loaded = caches[1].get_or_load("a", Keep::new().hard_timeout(conformance::PATIENCE), || {
        std::future::ready(Ok::<_, std::io::Error>(Some(bytes("v"))))
    });
    let closing = caches[0].close();
    let (loaded, ()) = tokio::join!(loaded, closing);
    assert_eq!(loaded.unwrap(), Some(bytes("v")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_other_kinds_are_heard_as_well() {
    let server = Server::start().await;
    let cache = open(&server.url(), Config::default()).await;
    let key = "tidegate:cache:default:v:{a}";
    for words in
        [vec!["DEL", key], vec!["UNLINK", key], vec!["FLUSHALL"], vec!["PEXPIRE", key, "1"], vec!["SET", key, "x"]]
    {
        cache.set("a", bytes("v"), Keep::new()).await.unwrap();
        near(&cache, "a").await;
        server.cli(&words).await;
        until(async || cache.get("a").await.unwrap().is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_restarted_never_gives_back_what_was_invalidated() {
    let server = Server::builder().persistence(tidegate_test_redis::Persistence::None).start().await;
    let cache = open(&server.url(), Config::default()).await;
    cache.set("a", bytes("old"), Keep::new()).await.unwrap();
    near(&cache, "a").await;
    let record = server.command(&["DUMP", "tidegate:cache:default:v:{a}"]).await;
    let state = server.command(&["DUMP", "tidegate:cache:default:g"]).await;
    server.kill();
    server.restart().await;
    // As from a snapshot that was taken before the value was invalidated.
    for (key, dump) in [("tidegate:cache:default:v:{a}", record), ("tidegate:cache:default:g", state)] {
        let tidegate_test_redis::Reply::Text(dump) = dump else { panic!("{dump:?}") };
        server.command(&[b"RESTORE".as_slice(), key.as_bytes(), b"0", &dump, b"REPLACE"]).await;
    }
    until(async || cache.get("a").await.is_ok()).await;
    assert_eq!(cache.get("a").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_loads_go_on_and_reads_say_so() {
    let server = Server::start().await;
    let cache = open(&server.url(), Config::default()).await;
    cache.set("a", bytes("v"), Keep::new()).await.unwrap();
    near(&cache, "a").await;
    server.kill();
    until(async || cache.get("a").await.is_err()).await;
    assert!(cache.peek("a").is_none(), "nobody knows whether it was changed");
    let load = || std::future::ready(Ok::<_, std::io::Error>(Some(bytes("loaded"))));
    assert_eq!(cache.get_or_load("a", Keep::new(), load).await.unwrap(), Some(bytes("loaded")));
    assert_eq!(cache.peek("a"), Some(bytes("loaded")), "for as long as a change may take");
    assert!(cache.set("a", bytes("x"), Keep::new()).await.is_err());
    assert!(cache.invalidate(Invalidation::key("a")).await.is_err());
    assert!(cache.peek("a").is_none());
    server.restart().await;
    until(async || cache.set("a", bytes("back"), Keep::new()).await.is_ok()).await;
    assert_eq!(cache.get("a").await.unwrap(), Some(bytes("back")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hottest_keys_are_written_down_and_warmed() {
    let url = tidegate_test_redis::shared().await.url();
    let config = Config { name: name().into(), hottest_saved: 10, ..Config::default() };
    let first = open(&url, config.clone()).await;
    for key in ["hot", "cold"] {
        first.set(key, bytes(key), Keep::new()).await.unwrap();
    }
    near(&first, "hot").await;
    for _ in 0..1000 {
        first.get("hot").await.unwrap();
    }
    first.close().await;
    let second = open(&url, config).await;
    let saved = second.saved_hottest().await.unwrap();
    assert_eq!(saved.first().map(String::as_str), Some("hot"));
    let warmed = second.fetch(&saved, |_| {}).await;
    assert_eq!(warmed.failed, 0);
    until(async || second.get("hot").await.unwrap().is_some() && second.peek("hot").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_load_gives_its_lease_back_and_values_end_on_redis() {
    let server = Server::start().await;
    let cache = open(&server.url(), Config::default()).await;
    let fails = || std::future::ready(Err::<Option<Bytes>, _>(std::io::Error::other("down")));
    assert!(cache.get_or_load("a", Keep::new(), fails).await.is_err());
    let lease = ["EXISTS", "tidegate:cache:default:l:{a}"];
    let asked = std::time::Instant::now();
    until(async || server.command(&lease).await.int() == 0).await;
    assert!(asked.elapsed() < std::time::Duration::from_secs(2), "it was given back, it did not run out");
    cache.set("a", bytes("v"), Keep::new().ttl(std::time::Duration::from_secs(10))).await.unwrap();
    let left = server.command(&["PTTL", "tidegate:cache:default:v:{a}"]).await.int();
    assert!((5_000..=10_000).contains(&left), "{left}");
    // What somebody put there and never takes away keeps nobody from loading.
    server.command(&["SET", "tidegate:cache:default:l:{b}", "x"]).await;
    let load = || std::future::ready(Ok::<_, std::io::Error>(Some(bytes("v"))));
    assert_eq!(cache.get_or_load("b", Keep::new(), load).await.unwrap(), Some(bytes("v")));
    for garbage in
        [&["SET", "tidegate:cache:default:g", "x"][..], &["HSET", "tidegate:cache:default:g", "sequence", "x"]]
    {
        server.command(&["DEL", "tidegate:cache:default:g"]).await;
        server.command(garbage).await;
        until(async || cache.set("c", bytes("v"), Keep::new()).await.is_ok()).await;
        until(async || cache.get("c").await.is_ok_and(|value| value.is_some())).await;
        cache.invalidate(Invalidation::prefix("c")).await.unwrap();
        assert_eq!(cache.get("c").await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_loaded_while_redis_is_away_lives_no_longer_than_a_change_may_go_unheard() {
    let server = Server::start().await;
    let staleness_max = std::time::Duration::from_millis(300);
    let cache = open(&server.url(), Config { staleness_max, ..Config::default() }).await;
    server.kill();
    until(async || cache.get("a").await.is_err()).await;
    let load = || std::future::ready(Ok::<_, std::io::Error>(Some(bytes("v"))));
    assert_eq!(cache.get_or_load("a", Keep::new(), load).await.unwrap(), Some(bytes("v")));
    until(async || cache.peek("a").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_swept_from_redis_and_listed_no_more() {
    let server = Server::start().await;
    let cache = open(&server.url(), Config::default()).await;
    for key in ["p:1", "p:2", "q:1"] {
        cache.set(key, bytes("v"), Keep::new()).await.unwrap();
    }
    cache.invalidate(Invalidation::prefix("p:")).await.unwrap();
    cache.set("p:2", bytes("new"), Keep::new()).await.unwrap();
    let listed = ["HEXISTS", "tidegate:cache:default:g", "p:p:"];
    assert_eq!(server.command(&listed).await.int(), 1);
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while server.command(&listed).await.int() == 1 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is swept");
    let exists =
        async |key: &str| server.command(&["EXISTS", &format!("tidegate:cache:default:v:{{{key}}}")]).await.int();
    assert_eq!((exists("p:1").await, exists("p:2").await, exists("q:1").await), (0, 1, 1));
    assert_eq!(cache.get("p:2").await.unwrap(), Some(bytes("new")));
}

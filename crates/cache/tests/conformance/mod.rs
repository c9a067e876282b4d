//! What a cache promises to one process, once for every backend. `conformance!(open)` turns each case into a test of the
//! backend that `open` builds; a case never asks which one it is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate_cache::{Cache, Error, Invalidation, Keep};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub type Opening = Pin<Box<dyn Future<Output = Cache<Bytes>>>>;

/// Longer than anything takes that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Asks until it is so.
pub async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it came so");
}

async fn set(cache: &Cache<Bytes>, key: &str, value: &str) {
    cache.set(key, bytes(value), Keep::new()).await.unwrap();
}

async fn get(cache: &Cache<Bytes>, key: &str) -> Option<Bytes> {
    cache.get(key).await.unwrap()
}

type Loaded = Result<Option<Bytes>, io::Error>;

/// A loader that says so when it is called, waits until it may go on, and counts.
#[derive(Clone)]
struct Source {
    calls: Arc<AtomicUsize>,
    called: Arc<Notify>,
    go: Arc<Semaphore>,
}

impl Source {
    fn new() -> Self {
        Self { calls: Arc::default(), called: Arc::default(), go: Arc::new(Semaphore::new(0)) }
    }

    fn load(&self, brings: &'static str) -> impl FnOnce() -> Pin<Box<dyn Future<Output = Loaded> + Send>> + use<> {
        let source = self.clone();
        move || {
            Box::pin(async move {
                source.calls.fetch_add(1, Ordering::SeqCst);
                source.called.notify_one();
                source.go.acquire().await.unwrap().forget();
                Ok(Some(bytes(brings)))
            })
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// A loader that is quick.
fn brings(value: &'static str) -> impl FnOnce() -> std::future::Ready<Loaded> {
    move || std::future::ready(Ok(Some(bytes(value))))
}

fn fails() -> std::future::Ready<Loaded> {
    std::future::ready(Err(io::Error::other("the source is down")))
}

pub async fn what_is_set_is_got(cache: Cache<Bytes>) {
    assert_eq!(get(&cache, "a").await, None);
    set(&cache, "a", "1").await;
    assert_eq!(get(&cache, "a").await, Some(bytes("1")));
    set(&cache, "a", "2").await;
    assert_eq!(get(&cache, "a").await, Some(bytes("2")), "own writes show at once");
    assert_eq!(get(&cache, "a").await, Some(bytes("2")));
    assert_eq!(cache.peek("a"), Some(bytes("2")), "and stay near");
    assert!(cache.delete("a").await.unwrap() && !cache.delete("a").await.unwrap());
    assert_eq!(get(&cache, "a").await, None);
}

pub async fn values_and_keys_of_any_kind_come_back_byte_for_byte(cache: Cache<Bytes>) {
    let all: Vec<u8> = (0..=255).collect();
    let values = [Bytes::new(), all.clone().into(), all.repeat(700).into(), vec![b' '; 300_000].into()];
    for key in
        ["{", "}", "}{", "{}", "a{b}c", "*", "[a]\\", "\u{1}", "\u{1}}", "ä€😀", " ", "a:b/c?d", "-ERR x", "\r\n"]
    {
        for value in &values {
            cache.set(key, value.clone(), Keep::new()).await.unwrap();
            assert_eq!(cache.get(key).await.unwrap().as_ref(), Some(value), "{key:?}");
        }
        assert!(cache.delete(key).await.unwrap(), "{key:?}");
        assert_eq!(get(&cache, key).await, None, "{key:?}");
    }
}

pub async fn many_are_read_kept_and_deleted_at_once(cache: Cache<Bytes>) {
    let keys: Vec<String> = (0..2500).map(|n| format!("k{n}")).collect();
    let entries = keys.iter().map(|key| (key.clone(), bytes(key), Keep::new())).collect();
    cache.set_many(entries).await.unwrap();
    let mut asked = keys.clone();
    asked.insert(7, "absent".into());
    for _ in 0..2 {
        let values = cache.get_many(&asked).await.unwrap();
        for (key, value) in asked.iter().zip(values) {
            assert_eq!(value, (key != "absent").then(|| bytes(key)));
        }
    }
    assert_eq!(cache.delete_many(&asked).await.unwrap(), 2500);
    assert_eq!(cache.get_many(&asked).await.unwrap().iter().flatten().count(), 0);
    assert_eq!(cache.delete_many(&[""; 0]).await.unwrap(), 0);
}

pub async fn a_value_goes_when_its_time_is_over(cache: Cache<Bytes>) {
    cache.set("a", bytes("1"), Keep::new().ttl(Duration::from_millis(40))).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(bytes("1")));
    until(async || get(&cache, "a").await.is_none()).await;
    cache.set("b", bytes("1"), Keep::new().ttl(Duration::from_millis(1))).await.unwrap();
    until(async || get(&cache, "b").await.is_none()).await;
}

pub async fn a_tag_forgets_all_that_bear_it_and_nothing_else(cache: Cache<Bytes>) {
    let keep = |tags: &[&'static str]| Keep::new().tags(tags.iter().copied());
    cache.set("a", bytes("1"), keep(&["x"])).await.unwrap();
    cache.set("b", bytes("2"), keep(&["x", "y"])).await.unwrap();
    cache.set("c", bytes("3"), keep(&["y"])).await.unwrap();
    set(&cache, "d", "4").await;
    for key in ["a", "b", "c", "d"] {
        assert!(get(&cache, key).await.is_some(), "{key}");
        assert!(get(&cache, key).await.is_some(), "{key}");
    }
    cache.invalidate(Invalidation::tag("x")).await.unwrap();
    let found = cache.get_many(&["a", "b", "c", "d"]).await.unwrap();
    assert_eq!(found, [None, None, Some(bytes("3")), Some(bytes("4"))]);
    cache.set("a", bytes("5"), keep(&["x"])).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(bytes("5")), "a tag can be borne again");
    cache.invalidate(Invalidation::tag("never borne")).await.unwrap();
    assert_eq!(get(&cache, "a").await, Some(bytes("5")));
}

pub async fn a_prefix_forgets_all_that_begin_with_it_and_nothing_else(cache: Cache<Bytes>) {
    for key in ["user:1", "user:2", "user", "users", "u*er:1", "team:1"] {
        set(&cache, key, key).await;
        assert!(get(&cache, key).await.is_some());
    }
    cache.invalidate(Invalidation::prefix("user:")).await.unwrap();
    let found = cache.get_many(&["user:1", "user:2", "user", "users", "team:1"]).await.unwrap();
    assert_eq!(found, [None, None, Some(bytes("user")), Some(bytes("users")), Some(bytes("team:1"))]);
    set(&cache, "user:1", "new").await;
    assert_eq!(get(&cache, "user:1").await, Some(bytes("new")), "what is kept afterwards stays");
    assert_eq!(get(&cache, "user:1").await, Some(bytes("new")));
    cache.invalidate(Invalidation::prefix("u*")).await.unwrap();
    assert_eq!(get(&cache, "u*er:1").await, None);
    assert_eq!(get(&cache, "users").await, Some(bytes("users")), "a prefix is no pattern");
    cache.invalidate(Invalidation::All).await.unwrap();
    assert_eq!(get(&cache, "users").await, None);
    set(&cache, "users", "again").await;
    assert_eq!(get(&cache, "users").await, Some(bytes("again")));
}

pub async fn clearing_says_how_many_there_were(cache: Cache<Bytes>) {
    let keep = Keep::new;
    let entries = |range: std::ops::Range<usize>, prefix: &str| {
        range.map(|n| (format!("{prefix}:{n}"), bytes("v"), keep())).collect::<Vec<_>>()
    };
    cache.set_many(entries(0..1500, "a")).await.unwrap();
    cache.set_many(entries(0..700, "b")).await.unwrap();
    let cancel = CancellationToken::new();
    assert_eq!(cache.clear(Some("a:"), |_| {}, &cancel).await.unwrap(), 1500);
    assert_eq!(get(&cache, "a:7").await, None);
    assert_eq!(get(&cache, "b:7").await, Some(bytes("v")));
    assert_eq!(cache.clear(Some("a:"), |_| {}, &cancel).await.unwrap(), 0);
    assert_eq!(cache.clear(None, |_| {}, &cancel).await.unwrap(), 700);
    assert_eq!(get(&cache, "b:7").await, None);
}

pub async fn a_thousand_callers_share_one_load(cache: Cache<Bytes>) {
    let source = Source::new();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, load) = (cache.clone(), source.load("v"));
            tokio::spawn(async move { cache.get_or_load("a", Keep::new(), load).await })
        })
        .collect();
    source.called.notified().await;
    // Some leave: nobody else notices.
    callers.iter().step_by(3).for_each(tokio::task::JoinHandle::abort);
    source.go.add_permits(1000);
    for (place, caller) in callers.into_iter().enumerate() {
        match caller.await {
            Ok(value) => assert_eq!(value.unwrap(), Some(bytes("v"))),
            Err(gone) => assert!(gone.is_cancelled() && place % 3 == 0),
        }
    }
    assert_eq!(source.calls(), 1);
    assert_eq!(get(&cache, "a").await, Some(bytes("v")));
}

pub async fn a_load_goes_on_when_all_its_callers_left(cache: Cache<Bytes>) {
    let source = Source::new();
    let (one, load) = (cache.clone(), source.load("v"));
    let caller = tokio::spawn(async move { one.get_or_load("a", Keep::new(), load).await });
    source.called.notified().await;
    caller.abort();
    source.go.add_permits(1);
    until(async || get(&cache, "a").await.is_some()).await;
    assert_eq!(source.calls(), 1);
}

pub async fn what_is_invalidated_while_it_loads_is_not_kept(cache: Cache<Bytes>) {
    let by_key: [(&str, Invalidation); 4] = [
        ("k", Invalidation::key("k")),
        ("t", Invalidation::tag("tag")),
        ("p:1", Invalidation::prefix("p:")),
        ("z", Invalidation::All),
    ];
    for (key, what) in by_key {
        let source = Source::new();
        let (one, load, at) = (cache.clone(), source.load("old"), key.to_owned());
        let before = tokio::spawn(async move { one.get_or_load(&at, Keep::new().tag("tag"), load).await });
        source.called.notified().await;
        cache.invalidate(what).await.unwrap();
        // Who comes now does not wait for what began before.
        let after = cache.get_or_load(key, Keep::new().tag("tag"), brings("new")).await.unwrap();
        assert_eq!(after, Some(bytes("new")), "{key}");
        source.go.add_permits(1);
        assert_eq!(before.await.unwrap().unwrap(), Some(bytes("old")), "{key}: it asked before");
        for _ in 0..2 {
            assert_eq!(get(&cache, key).await, Some(bytes("new")), "{key}");
        }
    }
}

pub async fn what_was_invalidated_while_it_loaded_is_in_no_tier(cache: Cache<Bytes>) {
    let all = [Invalidation::key("a"), Invalidation::tag("tag"), Invalidation::prefix("a"), Invalidation::All];
    for what in all {
        let source = Source::new();
        let (one, load) = (cache.clone(), source.load("old"));
        let before = tokio::spawn(async move { one.get_or_load("a", Keep::new().tag("tag"), load).await });
        source.called.notified().await;
        cache.invalidate(what.clone()).await.unwrap();
        source.go.add_permits(1);
        assert_eq!(before.await.unwrap().unwrap(), Some(bytes("old")), "{what:?}");
        for _ in 0..3 {
            assert_eq!(get(&cache, "a").await, None, "{what:?}");
        }
    }
}

pub async fn what_is_set_while_it_loads_stays(cache: Cache<Bytes>) {
    let source = Source::new();
    let (one, load) = (cache.clone(), source.load("loaded"));
    let before = tokio::spawn(async move { one.get_or_load("a", Keep::new(), load).await });
    source.called.notified().await;
    set(&cache, "a", "set").await;
    source.go.add_permits(1);
    before.await.unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(get(&cache, "a").await, Some(bytes("set")));
    }
}

pub async fn a_failed_load_is_told_to_all_and_tried_again_by_the_next(cache: Cache<Bytes>) {
    let failed = cache.get_or_load("a", Keep::new(), fails).await;
    assert!(matches!(&failed, Err(Error::Load(error)) if error.to_string() == "the source is down"), "{failed:?}");
    let panicked = cache.get_or_load("a", Keep::new(), panics).await;
    assert!(matches!(panicked, Err(Error::LoadPanicked)), "{panicked:?}");
    let never = || std::future::pending::<Loaded>();
    let late = cache.get_or_load("a", Keep::new().hard_timeout(Duration::from_millis(30)), never).await;
    assert!(matches!(late, Err(Error::LoadTimeout(_))), "{late:?}");
    assert_eq!(cache.get_or_load("a", Keep::new(), brings("v")).await.unwrap(), Some(bytes("v")));
    assert_eq!(cache.stats().load_failures, 3);
}

async fn panics() -> Loaded {
    panic!("the loader has a bug");
}

pub async fn that_there_is_nothing_is_remembered(cache: Cache<Bytes>) {
    let nothing = || std::future::ready(Ok::<_, io::Error>(None));
    assert_eq!(cache.get_or_load("a", Keep::new(), nothing).await.unwrap(), None);
    assert_eq!(cache.get_or_load("a", Keep::new(), brings("v")).await.unwrap(), None);
    assert_eq!(get(&cache, "a").await, None);
    cache.invalidate(Invalidation::key("a")).await.unwrap();
    assert_eq!(cache.get_or_load("a", Keep::new(), brings("v")).await.unwrap(), Some(bytes("v")));
}

pub async fn a_value_past_its_time_is_given_while_it_is_renewed(cache: Cache<Bytes>) {
    let keep = || Keep::new().ttl(Duration::from_millis(20)).stale_while_revalidate(PATIENCE);
    cache.set("a", bytes("old"), keep()).await.unwrap();
    until(async || get(&cache, "a").await.is_none()).await;
    let source = Source::new();
    for _ in 0..3 {
        assert_eq!(cache.get_or_load("a", keep(), source.load("new")).await.unwrap(), Some(bytes("old")));
    }
    source.called.notified().await;
    source.go.add_permits(10);
    let renewed = Keep::new().ttl(PATIENCE).stale_while_revalidate(PATIENCE);
    until(async || cache.get_or_load("a", renewed.clone(), source.load("new")).await.unwrap() == Some(bytes("new")))
        .await;
    cache.invalidate(Invalidation::key("a")).await.unwrap();
    let source = Source::new();
    source.go.add_permits(1);
    let after = cache.get_or_load("a", keep(), source.load("newest")).await.unwrap();
    assert_eq!(after, Some(bytes("newest")), "past its TTL it may be given, past a change never");
}

pub async fn a_value_past_its_time_is_given_when_loading_fails(cache: Cache<Bytes>) {
    let keep = || Keep::new().ttl(Duration::from_millis(20)).stale_on_error(PATIENCE);
    cache.set("a", bytes("old"), keep()).await.unwrap();
    until(async || get(&cache, "a").await.is_none()).await;
    assert_eq!(cache.get_or_load("a", keep(), fails).await.unwrap(), Some(bytes("old")));
    let failed = cache.get_or_load("a", Keep::new(), fails).await;
    assert!(failed.is_err(), "who does not ask for stale values gets none");
    cache.invalidate(Invalidation::key("a")).await.unwrap();
    assert!(cache.get_or_load("a", keep(), fails).await.is_err());
}

pub async fn what_no_cache_can_keep_is_refused(cache: Cache<Bytes>) {
    let invalid = |result: Result<(), Error>, field: &str| {
        assert!(matches!(&result, Err(Error::Invalid { field: named, .. }) if *named == field), "{result:?}");
    };
    invalid(cache.set("", bytes("v"), Keep::new()).await, "key");
    invalid(cache.set(&"k".repeat(1025), bytes("v"), Keep::new()).await, "key");
    invalid(cache.get("").await.map(|_| ()), "key");
    invalid(cache.get_or_load("", Keep::new(), brings("v")).await.map(|_| ()), "key");
    invalid(cache.set("a", bytes("v"), Keep::new().tag("")).await, "tags");
    invalid(cache.set("a", bytes("v"), Keep::new().tags((0..17).map(|n| n.to_string()))).await, "tags");
    invalid(cache.invalidate(Invalidation::tag("t".repeat(257))).await, "tags");
    let large = cache.set("a", Bytes::from(vec![0; (1 << 20) + 1]), Keep::new()).await;
    assert!(matches!(large, Err(Error::TooLarge { bytes: 1_048_577, bytes_max: 1_048_576 })), "{large:?}");
    let loaded = cache
        .get_or_load("a", Keep::new(), || std::future::ready(Ok::<_, io::Error>(Some(Bytes::from(vec![0; 2 << 20])))))
        .await;
    assert_eq!(loaded.unwrap().map(|value| value.len()), Some(2 << 20), "it is given, and not kept");
    assert_eq!(get(&cache, "a").await, None);
}

pub async fn warming_loads_what_is_missing_and_tells_how_far_it_is(cache: Cache<Bytes>) {
    set(&cache, "k0", "there").await;
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let load = {
        let (running, most) = (running.clone(), most.clone());
        move |key: String| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                match &*key {
                    "k1" => Err(io::Error::other("broken")),
                    "k2" => Ok(None),
                    _ => Ok(Some(bytes(&key))),
                }
            }
        }
    };
    let mut told = Vec::new();
    let warmed = cache.warm(&keys, &Keep::new(), 4, load, |progress| told.push(progress.done)).await;
    assert_eq!((warmed.warmed, warmed.missing, warmed.failed), (48, 1, 1));
    assert_eq!(told, (1..=50).collect::<Vec<_>>());
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert_eq!(get(&cache, "k0").await, Some(bytes("there")));
    assert_eq!(get(&cache, "k49").await, Some(bytes("k49")));
}

pub async fn a_closed_cache_ends_loads_and_takes_no_more(cache: Cache<Bytes>) {
    let (one, source) = (cache.clone(), Source::new());
    let load = source.load("v");
    let caller = tokio::spawn(async move { one.get_or_load("a", Keep::new(), load).await });
    source.called.notified().await;
    tokio::time::timeout(PATIENCE, cache.close()).await.expect("closing ends");
    assert!(matches!(caller.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(cache.get_or_load("b", Keep::new(), brings("v")).await, Err(Error::Closed)));
}

/// Every case as a test of the backend that `$open` builds.
#[macro_export]
macro_rules! conformance {
    ($open:path) => {
        $crate::conformance! { $open =>
            what_is_set_is_got
            values_and_keys_of_any_kind_come_back_byte_for_byte
            many_are_read_kept_and_deleted_at_once
            a_value_goes_when_its_time_is_over
            a_tag_forgets_all_that_bear_it_and_nothing_else
            a_prefix_forgets_all_that_begin_with_it_and_nothing_else
            clearing_says_how_many_there_were
            a_thousand_callers_share_one_load
            a_load_goes_on_when_all_its_callers_left
            what_is_invalidated_while_it_loads_is_not_kept
            what_was_invalidated_while_it_loaded_is_in_no_tier
            what_is_set_while_it_loads_stays
            a_failed_load_is_told_to_all_and_tried_again_by_the_next
            that_there_is_nothing_is_remembered
            a_value_past_its_time_is_given_while_it_is_renewed
            a_value_past_its_time_is_given_when_loading_fails
            what_no_cache_can_keep_is_refused
            warming_loads_what_is_missing_and_tells_how_far_it_is
            a_closed_cache_ends_loads_and_takes_no_more
        }
    };
    ($open:path => $($case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case($open(tidegate_cache::Config::default()).await).await;
        })*
    };
}

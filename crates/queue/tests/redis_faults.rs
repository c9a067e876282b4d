//! What Redis or the way to it does to a queue must be visible only as waiting or as an error: no job lost, none twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{
    Claim, Config, Error, Finish, JobFilter, NewJob, Outcome, Queue, QueueConfig, QueueName, Queues, State, Worker,
};
use tidegate_redis_ops::{Class, Redis};
use tidegate_test_redis::{Proxy, Server, Toward};

async fn open(url: &str, config: Config) -> (Queues, Queue) {
    let registry = Registry::new();
    let redis = Redis::connect(tidegate_redis_ops::Config::parse(url).unwrap(), &registry).await.unwrap();
    let queues = Queues::connect(redis, config, &registry).await.unwrap();
    let queue = queues.queue(&QueueName::new("q").unwrap()).await.unwrap();
    (queues, queue)
}

/// A server, a proxy in front of it, and the same queue by way of the proxy and directly.
struct Place {
    server: Server,
    proxy: Proxy,
    through: Queue,
    direct: Queue,
    _queues: [Queues; 2],
}

impl Place {
    async fn new() -> Self {
        let server = Server::start().await;
        let proxy = Proxy::start(server.addr());
        let (a, through) = open(&server.url_through(&proxy), Config::default()).await;
        let (b, direct) = open(&server.url(), Config::default()).await;
        Self { server, proxy, through, direct, _queues: [a, b] }
    }

    /// Calls `act` once for every byte of its request and of its reply, each time with the connection cut there.
    async fn cut_everywhere(&self, mut act: impl AsyncFnMut(&Self)) {
        // So that every connection is there and the script is known.
        for _ in 0..4 {
            act(self).await;
        }
        let before = self.proxy.traffic();
        act(self).await;
        let after = self.proxy.traffic();
        let lengths = [
            (Toward::Server, after.to_server - before.to_server),
            (Toward::Client, after.to_client - before.to_client),
        ];
        for (toward, length) in lengths {
            for byte in 0..length {
                // One connection is always left to go on with, and none is cut so soon that it is dialled with a pause.
                while self.proxy.traffic().open < before.open {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(Duration::from_millis(21)).await;
                let cuts = self.proxy.traffic().cuts;
                self.proxy.cut_once(toward, byte);
                act(self).await;
                // The numbers in a request grow: the last bytes of the longest may be missing from a shorter one.
                assert!(self.proxy.traffic().cuts > cuts || byte + 8 > length, "byte {byte} of {length} was not cut");
            }
        }
    }
}

fn claim(limit: usize) -> Claim {
    Claim { worker: Worker::remote("w"), limit, wait: Duration::ZERO }
}

/// How often each kind is there, whatever its state.
async fn kinds(queue: &Queue) -> BTreeMap<String, u32> {
    let (mut kinds, mut after) = (BTreeMap::new(), None);
    loop {
        let page = queue.jobs(JobFilter { limit: 1000, after, ..JobFilter::default() }).await.unwrap();
        for job in page.jobs {
            *kinds.entry(job.kind.to_string()).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            return kinds;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_cut_at_any_byte_pushes_once() {
    let place = Place::new().await;
    let mut pushed = 0;
    place
        .cut_everywhere(async |place| {
            pushed += 1;
            place.through.push(NewJob::new(format!("job-{pushed:06}"), "{}")).await.unwrap();
        })
        .await;
    let kinds = kinds(&place.direct).await;
    assert_eq!(kinds.len(), pushed, "none was lost");
    assert!(kinds.values().all(|times| *times == 1), "none was pushed twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_cut_at_any_byte_ends_and_claims_once() {
    let place = Place::new().await;
    place.direct.push(NewJob::new("first", "{}")).await.unwrap();
    let mut running = place.through.claim(claim(1)).await.unwrap();
    place
        .cut_everywhere(async |place| {
            let next = place.direct.push(NewJob::new("next", "{}")).await.unwrap();
            let lease = running.pop().unwrap().lease;
            let finish = Finish::Complete { lease, result: None };
            let (outcomes, claimed) = place.through.step(vec![finish], claim(1)).await.unwrap();
            assert_eq!(outcomes, [Outcome::Ok]);
            assert_eq!((&claimed[0].id, claimed[0].attempt, claimed.len()), (&next.id, 1, 1));
            running = claimed;
        })
        .await;
    let counts = place.direct.stats().await.unwrap().counts;
    assert_eq!((counts.of(State::Running), counts.live()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_cut_at_any_byte_keeps_its_leases() {
    let place = Place::new().await;
    place.direct.push(NewJob::new("k", "{}")).await.unwrap();
    let lease = place.direct.claim(claim(1)).await.unwrap()[0].lease;
    place
        .cut_everywhere(async |place| {
            let beat = place.through.beat(&Worker::remote("w"), &[lease]).await.unwrap();
            assert!(beat.stale.is_empty() && beat.cancelled.is_empty());
        })
        .await;
    let finish = Finish::Complete { lease, result: None };
    assert_eq!(place.through.finish(vec![finish]).await.unwrap(), [Outcome::Ok]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_killed_without_end_neither_lose_nor_double_a_job() {
    kill_connections_for(Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn connections_killed_for_a_minute_neither_lose_nor_double_a_job() {
    kill_connections_for(Duration::from_secs(60)).await;
}

/// Every 50 ms, while eight callers push.
async fn kill_connections_for(time: Duration) {
    let place = Arc::new(Place::new().await);
    let over = Arc::new(AtomicBool::new(false));
    let pushers: Vec<_> = (0..8)
        .map(|pusher| {
            let (queue, over) = (place.through.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
                for job in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let kind = format!("{pusher}-{job}");
                    match queue.push(NewJob::new(kind.as_str(), "{}")).await {
                        Ok(_) => acknowledged.push(kind),
                        Err(Error::Redis(error)) if error.class() == Class::Ambiguous => unknown.push(kind),
                        Err(Error::Redis(error)) if error.class() == Class::Transient => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                (acknowledged, unknown)
            })
        })
        .collect();
    let until = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        place.server.client_kill_all().await;
    }
    over.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for pusher in pushers {
        let (mine, mine_unknown) = pusher.await.unwrap();
        acknowledged.extend(mine);
        unknown.extend(mine_unknown);
    }
    let kinds = kinds(&place.direct).await;
    assert!(kinds.values().all(|times| *times == 1), "none twice");
    assert!(acknowledged.iter().all(|kind| kinds.contains_key(kind)), "none lost");
    assert!(kinds.len() <= acknowledged.len() + unknown.len(), "nothing that was refused is there");
    assert!(acknowledged.len() > 20, "{} acknowledged, {} unknown", acknowledged.len(), unknown.len());
    println!("{} acknowledged, {} unknown", acknowledged.len(), unknown.len());
}

#[tokio::test]
async fn a_full_redis_refuses_jobs_and_lets_running_ones_end() {
    let server = Server::start().await;
    let (_queues, queue) = open(&server.url(), Config::default()).await;
    for _ in 0..2 {
        queue.push(NewJob::new("k", "{}")).await.unwrap();
    }
    let lease = queue.claim(claim(1)).await.unwrap()[0].lease;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = queue.push(NewJob::new("k", "{}")).await;
    assert!(matches!(&refused, Err(Error::Redis(error)) if error.code() == "OOM"), "{refused:?}");
    assert!(refused.unwrap_err().is_retryable());
    assert!(queue.beat(&Worker::remote("w"), &[lease]).await.unwrap().stale.is_empty());
    let finish = Finish::Complete { lease, result: None };
    assert_eq!(queue.finish(vec![finish]).await.unwrap(), [Outcome::Ok]);
    let next = queue.claim(claim(1)).await.unwrap();
    assert_eq!(next.len(), 1, "what is there can be worked off");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(queue.stats().await.unwrap().counts.live(), 1, "nothing of the refused job is there");
    queue.push(NewJob::new("k", "{}")).await.unwrap();
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start().await;
    let (_queues, queue) = open(&server.url(), Config::default()).await;
    for _ in 0..3 {
        server.cli(&["SCRIPT", "FLUSH"]).await;
        queue.push(NewJob::new("k", "{}")).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]).await;
        let lease = queue.claim(claim(1)).await.unwrap()[0].lease;
        server.cli(&["SCRIPT", "FLUSH"]).await;
        let finish = Finish::Complete { lease, result: None };
        assert_eq!(queue.finish(vec![finish]).await.unwrap(), [Outcome::Ok]);
    }
    assert_eq!(queue.stats().await.unwrap().counts.of(State::Completed), 3);
}

#[tokio::test]
async fn no_key_is_left_of_a_queue_that_was_worked_off() {
    let server = Server::start().await;
    let config = QueueConfig { key_limit: Some(3), ..QueueConfig::default() };
    let (queues, queue) = open(&server.url(), Config { default: config, history_max: 0, ..Config::default() }).await;
    let large = "x".repeat(10_000);
    let jobs: Vec<NewJob> = (0..300)
        .map(|n| {
            let mut job = NewJob::new("k", if n % 7 == 0 { large.clone() } else { "{}".into() });
            job = job.retention(Duration::ZERO).priority(n as u8).expires_in(Duration::from_secs(60));
            if n % 2 == 0 { job.key(format!("key{}", n % 5)).dedup_key(format!("d{n}")) } else { job }
        })
        .collect();
    queue.push_many(jobs, None).await.unwrap();
    let mut ended = 0;
    while ended < 300 {
        let claimed = queue.claim(claim(50)).await.unwrap();
        let finishes = claimed.iter().map(|job| match ended % 3 {
            0 => Finish::Complete { lease: job.lease, result: Some(large.clone().into()) },
            _ => Finish::Complete { lease: job.lease, result: None },
        });
        ended += queue.finish(finishes.collect()).await.unwrap().len();
    }
    queues.close().await.unwrap();
    let mut left: Vec<String> = match server.command(&["SCAN", "0", "COUNT", "1000"]).await.items().last() {
        Some(keys) => keys.items().iter().map(|key| format!("{key:?}")).collect(),
        None => Vec::new(),
    };
    left.retain(|key| !(key.contains(":op:") || key.contains("meta") || key.contains(":queues")));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_record_somebody_spoiled_is_told_and_holds_up_nobody() {
    let server = Server::start().await;
    let (_queues, queue) = open(&server.url(), Config::default()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(queue.push(NewJob::new("k", "{}")).await.unwrap().id);
    }
    let fields = server.command(&["HKEYS", "tidegate:{q}:jobs"]).await;
    let name = |place: usize| match &fields.items()[place] {
        tidegate_test_redis::Reply::Text(name) => name.to_vec(),
        other => panic!("{other:?}"),
    };
    let jobs = b"tidegate:{q}:jobs".to_vec();
    server.command(&[b"HSET".to_vec(), jobs.clone(), name(0), b"short".to_vec()]).await;
    server.command(&[b"HSET".to_vec(), jobs.clone(), name(1), vec![0xff; 40]]).await;
    server.command(&[b"HDEL".to_vec(), jobs, name(2)]).await;
    let mut claimed = 0;
    for _ in 0..4 {
        claimed += queue.claim(claim(10)).await.unwrap().len();
    }
    assert_eq!(claimed, 1, "the one that can be read");
    let told = failures_of(&queue, &ids).await;
    assert_eq!(told.iter().filter(|error| matches!(error, Some(Error::Damaged { .. }))).count(), 2);
    assert_eq!(told.iter().filter(|error| matches!(error, Some(Error::JobNotFound { .. }))).count(), 1);
}

/// What looking at each of these jobs fails with.
async fn failures_of(queue: &Queue, ids: &[tidegate_queue::JobId]) -> Vec<Option<Error>> {
    let mut told = Vec::new();
    for id in ids {
        told.push(queue.look(id).await.err());
    }
    told
}

#[tokio::test]
async fn spoiled_records_do_not_take_others_with_them() {
    let server = Server::start().await;
    let config = Config { lease: Duration::from_millis(300), ..Config::default() };
    let (_queues, queue) = open(&server.url(), config).await;
    let spoil = async |id: &tidegate_queue::JobId, with: &[u8]| {
        let number = u64::from_str_radix(id.to_string().rsplit_once('-').unwrap().1, 16).unwrap();
        let field = number.to_be_bytes()[2..].to_vec();
        server.command(&[b"HSET".to_vec(), b"tidegate:{q}:jobs".to_vec(), field, with.to_vec()]).await;
    };
    // While they wait for their time, while they run, and when they end.
    let delayed = (0..10).map(|_| NewJob::new("k", "{}").delay(Duration::from_millis(50)).key("a")).collect();
    let pushed = queue.push_many(delayed, None).await.unwrap();
    spoil(&pushed[0].as_ref().unwrap().id, b"").await;
    spoil(&pushed[1].as_ref().unwrap().id, &[0xff; 30]).await;
    let all = async |count: usize| {
        let mut claimed = Vec::new();
        while claimed.len() < count {
            let claim = Claim { worker: Worker::remote("w"), limit: 10, wait: Duration::from_secs(10) };
            let some = queue.claim(claim).await.unwrap();
            assert!(!some.is_empty(), "{} of {count}", claimed.len());
            claimed.extend(some);
        }
        claimed
    };
    let running = all(8).await;
    spoil(&running[3].id, b"gone").await;
    // Their leases run out; the good ones come back.
    let again = all(7).await;
    assert!(again.iter().all(|job| job.attempt == 2));
    spoil(&again[0].id, b"gone").await;
    let finishes = again.iter().map(|job| Finish::Complete { lease: job.lease, result: None }).collect();
    let outcomes = queue.finish(finishes).await.unwrap();
    assert_eq!(outcomes, [Outcome::Ok; 7]);
    let counts = queue.stats().await.unwrap().counts;
    assert_eq!((counts.live(), counts.of(State::Running)), (0, 0));
}

#[tokio::test]
async fn who_waits_hears_of_a_push_after_redis_lost_everything() {
    let server = Server::start().await;
    let (_a, waiting) = open(&server.url(), Config::default()).await;
    let (_b, pushing) = open(&server.url(), Config::default()).await;
    let claim = Claim { worker: Worker::remote("w"), limit: 1, wait: Duration::from_secs(60) };
    let sleeper = tokio::spawn(async move { waiting.claim(claim).await });
    while !server.cli(&["HGET", "tidegate:{q}:meta", "waiting"]).await.contains('1') {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.cli(&["FLUSHALL"]).await;
    pushing.push(NewJob::new("k", "{}")).await.unwrap();
    let claimed = tokio::time::timeout(Duration::from_secs(20), sleeper).await.expect("woken").unwrap().unwrap();
    assert_eq!(claimed.len(), 1);
}

/// Two processes on one queue: the first waits for a job, then the second makes one claimable.
async fn woken_by<T>(config: QueueConfig, prepare: impl AsyncFnOnce(&Queue) -> T, act: impl AsyncFnOnce(&Queue, T)) {
    let server = Server::start().await;
    let config = Config { default: config, lease: Duration::from_secs(3600), ..Config::default() };
    let (_a, waiting) = open(&server.url(), config.clone()).await;
    let (_b, other) = open(&server.url(), config).await;
    let prepared = prepare(&other).await;
    let claim = Claim { worker: Worker::remote("w"), limit: 1, wait: Duration::from_secs(60) };
    let sleeper = tokio::spawn(async move { waiting.claim(claim).await });
    while !server.cli(&["HGET", "tidegate:{q}:meta", "waiting"]).await.contains('1') {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    act(&other, prepared).await;
    let claimed = tokio::time::timeout(Duration::from_secs(20), sleeper).await.expect("woken").unwrap().unwrap();
    assert_eq!(claimed.len(), 1);
}

async fn push(queue: &Queue, job: NewJob) -> tidegate_queue::JobId {
    queue.push(job).await.unwrap().id
}

async fn running(queue: &Queue) -> tidegate_queue::Lease {
    push(queue, NewJob::new("k", "{}")).await;
    queue.claim(claim(1)).await.unwrap()[0].lease
}

#[tokio::test]
async fn who_waits_hears_of_a_push_and_of_a_job_due_sooner() {
    let job = || NewJob::new("k", "{}");
    woken_by(QueueConfig::default(), async |_| {}, async |queue, ()| drop(push(queue, job()).await)).await;
    woken_by(
        QueueConfig::default(),
        async |_| {},
        async |queue, ()| {
            push(queue, job().delay(Duration::from_millis(100))).await;
        },
    )
    .await;
    // One with a key goes the long way.
    woken_by(QueueConfig::default(), async |_| {}, async |queue, ()| drop(push(queue, job().key("a")).await)).await;
}

#[tokio::test]
async fn who_waits_hears_of_what_comes_back() {
    woken_by(QueueConfig::default(), running, async |queue, lease| {
        queue.finish(vec![Finish::Release { lease }]).await.unwrap();
    })
    .await;
    woken_by(
        QueueConfig::default(),
        async |queue| {
            let id = push(queue, NewJob::new("k", "{}")).await;
            queue.cancel(&id).await.unwrap();
            id
        },
        async |queue, id| drop(queue.retry(&id).await.unwrap()),
    )
    .await;
}

#[tokio::test]
async fn who_waits_hears_of_room_and_of_the_end_of_a_pause() {
    let complete = async |queue: &Queue, lease| {
        queue.finish(vec![Finish::Complete { lease, result: None }]).await.unwrap();
    };
    let one = QueueConfig { running_limit: Some(1), ..QueueConfig::default() };
    let busy = async |queue: &Queue| {
        let lease = running(queue).await;
        push(queue, NewJob::new("next", "{}")).await;
        lease
    };
    woken_by(one, busy, complete).await;
    let one_per_key = QueueConfig { key_limit: Some(1), ..QueueConfig::default() };
    let busy_key = async |queue: &Queue| {
        push(queue, NewJob::new("k", "{}").key("a")).await;
        push(queue, NewJob::new("next", "{}").key("a")).await;
        queue.claim(claim(1)).await.unwrap()[0].lease
    };
    woken_by(one_per_key, busy_key, complete).await;
    let paused = async |queue: &Queue| {
        push(queue, NewJob::new("k", "{}")).await;
        queue.pause().await.unwrap();
    };
    woken_by(QueueConfig::default(), paused, async |queue, ()| queue.resume().await.unwrap()).await;
}

#[tokio::test]
async fn what_waits_for_a_redis_that_does_not_answer_is_bounded() {
    let server = Server::start().await;
    let (_queues, queue) = open(&server.url(), Config::default()).await;
    push(&queue, NewJob::new("k", "{}")).await;
    server.pause();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let queue = queue.clone();
        let jobs = (0..1000).map(|_| NewJob::new("k", "{}")).collect();
        callers.spawn(async move { queue.push_many(jobs, None).await });
    }
    let first = tokio::time::timeout(Duration::from_secs(4), callers.join_next()).await;
    server.resume();
    match first.expect("a hundred thousand jobs do not wait").unwrap().unwrap() {
        Err(Error::Redis(error)) => assert_eq!(error.code(), "BACKPRESSURE"),
        other => panic!("{other:?}"),
    }
}

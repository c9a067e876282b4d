//! What the way to Redis does to streams must be visible only as waiting or as an error: no event lost, none heard twice;
//! and whatever is live is heard, directly, by the bell or by the sweep.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by several test programs")]
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use faults::*;
use tidegate_events::{Bus, Claim, Config, Error, EventId, GapReason, GroupName, Heard};
use tidegate_metrics::Registry;
use tidegate_redis_ops::{Class, Redis};
use tidegate_test_redis::{Proxy, Server, Toward};
use tokio::time::{Instant, sleep};

/// A server, a proxy in front of it, and the same streams by way of the proxy and directly.
struct Place {
    proxy: Proxy,
    through: Bus,
    direct: Bus,
    _server: Server,
}

impl Place {
    async fn new() -> Self {
        let server = Server::start().await;
        let proxy = Proxy::start(server.addr());
        let through = open(&server.url_through(&proxy), Config::default()).await;
        Self { direct: on(&server).await, proxy, through, _server: server }
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
                eventually(async || self.proxy.traffic().open >= before.open).await;
                sleep(Duration::from_millis(21)).await;
                let cuts = self.proxy.traffic().cuts;
                self.proxy.cut_once(toward, byte);
                act(self).await;
                // The numbers in a request grow: the last bytes of the longest may be missing from a shorter one.
                assert!(self.proxy.traffic().cuts > cuts || byte + 8 > length, "byte {byte} of {length} was not cut");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_cut_at_any_byte_publishes_once() {
    let place = Place::new().await;
    let mut published = BTreeMap::new();
    place
        .cut_everywhere(async |place| {
            let text = format!("event-{:06}", published.len());
            let id = publish(&place.through, "s", &text).await.unwrap();
            published.insert(id, text);
        })
        .await;
    let kept = everything(&place.direct, "s").await;
    assert_eq!(kept.len(), published.len(), "none lost, none twice");
    assert!(kept.iter().all(|event| published[&event.id] == text(event)), "each under the id that was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_cut_at_any_byte_is_told_or_done() {
    let place = Place::new().await;
    let group = GroupName::new("g").unwrap();
    let (through, direct) = (place.through.group(&stream("s"), &group), place.direct.group(&stream("s"), &group));
    place
        .cut_everywhere(async |place| {
            publish(&place.direct, "s", "1").await.unwrap();
            let id = direct.claim(Claim::new("c")).await.unwrap()[0].event.id;
            match through.ack(&[id]).await {
                Ok(acknowledged) => assert_eq!(acknowledged, [true]),
                Err(Error::Redis(error)) => {
                    // So many cuts without a success between them may open the breaker: then it is certainly not done.
                    assert!(matches!(error.class(), Class::Ambiguous | Class::Transient), "{error}");
                    let done = direct.ack(&[id]).await.unwrap();
                    assert!(error.class() == Class::Ambiguous || done == [true], "{error}");
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(direct.pending(EventId::ZERO, 10).await.unwrap(), []);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_hear_every_event_once_while_connections_are_killed() {
    kill_connections_for(Duration::from_secs(3), Config::default()).await;
    kill_connections_for(Duration::from_secs(3), Config { direct_streams_max: 1, ..Config::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn listeners_hear_every_event_once_while_connections_are_killed_for_a_minute() {
    kill_connections_for(Duration::from_secs(60), Config::default()).await;
}

/// Every 50 ms, while eight callers publish to two streams.
async fn kill_connections_for(time: Duration, config: Config) {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, open(&server.url(), config).await);
    let mut listener = listen(&there, &["s0", "s1"], None).await;
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let publishers: Vec<_> = (0..8)
        .map(|publisher| {
            let (bus, over, acknowledged) = (here.clone(), Arc::clone(&over), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let (mut known, mut unknown) = (Vec::new(), Vec::new());
                for turn in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let text = format!("{publisher}-{turn}");
                    match publish(&bus, &format!("s{}", publisher % 2), &text).await {
                        Ok(_) => known.push(text),
                        Err(Error::Redis(error)) if error.class() == Class::Ambiguous => unknown.push(text),
                        Err(Error::Redis(error)) if error.class() == Class::Transient => {}
                        Err(error) => panic!("{error}"),
                    }
                    acknowledged.store(known.len(), Ordering::Relaxed);
                }
                (known, unknown)
            })
        })
        .collect();
    let until = Instant::now() + time;
    while Instant::now() < until {
        sleep(Duration::from_millis(50)).await;
        server.client_kill_all().await;
    }
    over.store(true, Ordering::SeqCst);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for publisher in publishers {
        let (mine, mine_unknown) = publisher.await.unwrap();
        known.extend(mine);
        unknown.extend(mine_unknown);
    }
    publish_surely(&here, "s0", "end").await;
    publish_surely(&here, "s1", "end").await;
    let (mut heard, mut ends) = (Vec::new(), 0);
    while ends < 2 {
        match next(&mut listener).await {
            Heard::Event(_, event) if event.data == "end" => ends += 1,
            Heard::Event(_, event) => heard.push(event),
            Heard::Gap(stream, gap) => panic!("a gap in {stream}: {gap:?}"),
        }
    }
    let heard = counted(&heard);
    assert!(heard.values().all(|times| *times == 1), "none twice");
    assert!(known.iter().all(|text| heard.contains_key(text)), "none lost");
    assert!(heard.len() <= known.len() + unknown.len(), "nothing that was refused is heard");
    assert!(known.len() > 20, "{} acknowledged, {} unknown", known.len(), unknown.len());
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start().await;
    let bus = on(&server).await;
    let group = bus.group(&stream("s"), &GroupName::new("g").unwrap());
    for turn in 1..=3 {
        server.cli(&["SCRIPT", "FLUSH"]).await;
        publish(&bus, "s", "1").await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(everything(&bus, "s").await.len(), turn);
        server.cli(&["SCRIPT", "FLUSH"]).await;
        let claimed = group.claim(Claim::new("c")).await.unwrap();
        server.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(group.ack(&[claimed[0].event.id]).await.unwrap(), [true]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_blocked_read_are_heard_by_the_bell_and_foreign_writers_are_found() {
    let server = Server::start().await;
    let here = on(&server).await;
    let there = open(&server.url(), Config { direct_streams_max: 10, ..Config::default() }).await;
    let names: Vec<String> = (0..300).map(|no| format!("live-{no:03}")).collect();
    let mut listeners = Vec::new();
    for name in &names {
        listeners.push(listen(&there, &[name], None).await);
    }
    for round in 0..3 {
        for name in &names {
            publish(&here, name, &round.to_string()).await.unwrap();
        }
        for listener in &mut listeners {
            assert_eq!(next_text(listener).await, round.to_string());
        }
    }
    // Nobody rings for what others write; who is found writing once is read directly from then on.
    for round in 0..3 {
        for no in [5, 150, 299] {
            server.cli(&["XADD", &names[no], "*", "round", &round.to_string()]).await;
        }
        for no in [5, 150, 299] {
            assert_eq!(next_text(&mut listeners[no]).await, format!(r#"{{"round":"{round}"}}"#));
        }
    }
    // What all of them together hold open: two general connections, the subscriber, one blocked read; and the other bus's.
    let clients = server.cli(&["CLIENT", "LIST"]).await.lines().count();
    assert!(clients <= 2 + 4 + 1, "{clients} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_others_made_is_found_by_those_who_follow_its_pattern() {
    let server = Server::start().await;
    let registry = Registry::new();
    let mut config = tidegate_redis_ops::Config::parse(&server.url()).unwrap();
    config.registry.refresh_interval = Duration::from_millis(100);
    config.registry.cache_expiry = Duration::from_millis(200);
    let redis = Redis::connect(config, &registry).await.unwrap();
    let bus = Bus::connect(redis, Config::default(), &registry).await.unwrap();
    let mut listener = listen(&bus, &["order.*"], None).await;
    server.cli(&["XADD", "order.made", "*", "no", "1"]).await;
    server.cli(&["XADD", "other", "*", "no", "1"]).await;
    assert_eq!(next_text(&mut listener).await, r#"{"no":"1"}"#);
    // Made by another process of ours, it is known at once.
    let other = on(&server).await;
    publish(&other, "order.paid", "2").await.unwrap();
    assert_eq!(next_text(&mut listener).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_somebody_waits_for_already_is_new_to_those_who_follow_patterns() {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, on(&server).await);
    let mut named = listen(&there, &["between"], None).await;
    let mut pattern = listen(&there, &["*"], None).await;
    // Until the bell is heard, new streams are met when the list of streams is renewed.
    let mut no = 0;
    let is_heard = async |listener: &mut tidegate_events::Listener| {
        tokio::time::timeout(Duration::from_millis(200), listener.next()).await.is_ok()
    };
    while !is_heard(&mut pattern).await {
        no += 1;
        publish(&here, &format!("early-{no}"), "1").await.unwrap();
    }
    publish(&here, "between", "2").await.unwrap();
    assert_eq!(next_text(&mut named).await, "2");
    // Sooner than the list of streams is renewed (30 s).
    let heard = tokio::time::timeout(Duration::from_secs(15), next_text(&mut pattern)).await;
    assert_eq!(heard.unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_comes_while_events_come_misses_none() {
    for direct_streams_max in [100, 1] {
        let server = Server::start().await;
        let here = on(&server).await;
        let there = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let over = Arc::new(AtomicBool::new(false));
        let publisher = tokio::spawn({
            let (bus, over) = (here.clone(), Arc::clone(&over));
            async move {
                let mut turn = 0;
                while !over.load(Ordering::SeqCst) {
                    publish(&bus, &format!("s{}", turn % 3), &(turn / 3).to_string()).await.unwrap();
                    turn += 1;
                }
            }
        });
        for turn in 0..60 {
            let mut listener = listen(&there, &[["s0", "s1", "s2"][turn % 3]], None).await;
            let first: u64 = next_text(&mut listener).await.parse().unwrap();
            for further in 1..=20 {
                assert_eq!(next_text(&mut listener).await, (first + further).to_string());
            }
        }
        over.store(true, Ordering::SeqCst);
        publisher.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_stream_spoils_nothing_for_others() {
    let server = Server::start().await;
    server.cli(&["SET", "text", "1"]).await;
    for direct_streams_max in [100, 1] {
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut good = Vec::new();
        for no in 0..5 {
            good.push(listen(&bus, &[&format!("good{no}")], None).await);
        }
        let _bad = listen(&bus, &["text"], None).await;
        for no in 5..10 {
            good.push(listen(&bus, &[&format!("good{no}")], None).await);
        }
        for (no, listener) in good.iter_mut().enumerate() {
            publish(&bus, &format!("good{no}"), "1").await.unwrap();
            assert_eq!(next_text(listener).await, "1");
        }
        let refused = publish(&bus, "text", "1").await;
        assert!(matches!(refused, Err(Error::NotAStream { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_by_another_process_is_told_at_once() {
    let server = Server::start().await;
    let here = on(&server).await;
    let there = open(&server.url(), Config { direct_streams_max: 1, ..Config::default() }).await;
    let (mut one, mut other) = (listen(&there, &["s"], None).await, listen(&there, &["t"], None).await);
    for name in ["s", "t"] {
        publish(&here, name, "1").await.unwrap();
    }
    assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("1".into(), "1".into()));
    assert_eq!(here.delete(&[stream("s"), stream("t")]).await.unwrap(), [true, true]);
    for listener in [&mut one, &mut other] {
        let gap = next_gap(listener).await;
        assert!(matches!(gap.reason, GapReason::Deleted | GapReason::Rewound), "{gap:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_claim_hears_of_deliveries_given_back_elsewhere() {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, on(&server).await);
    let name = GroupName::new("g").unwrap();
    let (mine, theirs) = (here.group(&stream("s"), &name), there.group(&stream("s"), &name));
    publish(&here, "s", "1").await.unwrap();
    let id = mine.claim(Claim::new("a")).await.unwrap()[0].event.id;
    let waiting =
        tokio::spawn(
            async move { theirs.claim(Claim { wait: Duration::from_secs(25), ..Claim::new("b") }).await.unwrap() },
        );
    eventually(async || server.cli(&["PUBSUB", "NUMSUB", "tidegate:bell"]).await.ends_with('1')).await;
    sleep(Duration::from_millis(100)).await;
    mine.fail(&[id], "not today").await.unwrap();
    let began = Instant::now();
    let claimed = waiting.await.unwrap();
    assert_eq!((claimed[0].event.id, claimed[0].deliveries), (id, 2));
    assert!(began.elapsed() < Duration::from_secs(20), "it did not wait to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_group_begins_again_before_what_was_not_acknowledged() {
    let server = Server::start().await;
    let (here, there) = (on(&server).await, on(&server).await);
    let name = GroupName::new("g").unwrap();
    let (mine, theirs) = (here.group(&stream("s"), &name), there.group(&stream("s"), &name));
    for turn in 0..10 {
        publish(&here, "s", &turn.to_string()).await.unwrap();
    }
    let claim = |limit| Claim { limit, ..Claim::new("c") };
    let first = mine.claim(claim(4)).await.unwrap();
    let second = theirs.claim(claim(3)).await.unwrap();
    let ids = |claimed: &[tidegate_events::Delivery]| -> Vec<EventId> {
        claimed.iter().map(|delivery| delivery.event.id).collect()
    };
    mine.ack(&ids(&first)[..2]).await.unwrap();
    theirs.ack(&ids(&second)[2..]).await.unwrap();
    server.cli(&["XGROUP", "DESTROY", "s", "g"]).await;
    // Who comes first does not know what the others hold: theirs begin with the fifth, mine go back to the third.
    let texts = |claimed: Vec<tidegate_events::Delivery>| -> Vec<String> {
        claimed.iter().map(|delivery| text(&delivery.event)).collect()
    };
    assert_eq!(texts(theirs.claim(claim(1)).await.unwrap()), ["4"]);
    assert_eq!(texts(mine.claim(claim(100)).await.unwrap()), ["2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn what_others_wrote_is_read_as_objects() {
    let server = Server::start().await;
    let bus = on(&server).await;
    server.cli(&["XADD", "s", "5-1", "type", "made", "order", "7", "order", "8"]).await;
    server.cli(&["XADD", "s", "5-2", "a", "x\"y"]).await;
    let events = everything(&bus, "s").await;
    assert_eq!(events[0].kind.as_deref(), Some(&b"made"[..]));
    assert_eq!(
        events.iter().map(text).collect::<Vec<_>>(),
        [r#"{"order":["7","8"],"type":"made"}"#, r#"{"a":"x\"y"}"#]
    );
    assert_eq!(publish(&bus, "s", "1").await.unwrap(), everything(&bus, "s").await[2].id);
}

#[tokio::test]
async fn listing_asks_redis_once_for_many_callers() {
    let server = Server::start().await;
    let bus = on(&server).await;
    for no in 0..20 {
        publish(&bus, &format!("s{no:02}"), "1").await.unwrap();
    }
    bus.list("", None, 10).await.unwrap();
    let before = server.commands_by_name().await;
    let pages = futures_util::future::join_all((0..500).map(|_| bus.list("s", None, 10))).await;
    assert!(pages.iter().all(|page| page.as_ref().unwrap().streams.len() == 10));
    let after = server.commands_by_name().await;
    let grown = |name: &str| after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    assert_eq!(grown("scan"), 0, "the list is known");
    assert!(grown("xinfo|stream") <= 20, "one page, twice at most: {}", grown("xinfo|stream"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_while_nobody_listens() {
    let server = Server::start().await;
    let bus = on(&server).await;
    publish(&bus, "s", "1").await.unwrap();
    drop(listen(&bus, &["s"], None).await);
    eventually(async || server.cli(&["PUBSUB", "CHANNELS"]).await.is_empty()).await;
    sleep(Duration::from_millis(200)).await;
    let before = server.commands_processed().await;
    sleep(Duration::from_secs(3)).await;
    assert!(server.commands_processed().await <= before + 1, "keep-alives at most");
}

//! What a Redis forgot in a restart, a failover or by hand is told as a gap, and nothing is told that did not happen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, dead_code, reason = "shared by several test programs")]
mod faults;

use std::time::Duration;

use faults::*;
use tidegate_events::{Config, Cursor, GapReason, Heard};
use tidegate_test_redis::{Cluster, Fsync, Persistence, Sentinel, Server};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_syncs_every_write_loses_nothing_and_no_gap_is_told() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
        let here = on(&server).await;
        let there = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut listener = listen(&there, &["a", "b"], None).await;
        let publishing = async {
            for turn in 0..300 {
                publish_surely(&here, ["a", "b"][turn % 2], &turn.to_string()).await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        let killing = async {
            for _ in 0..3 {
                sleep(Duration::from_millis(400)).await;
                server.kill();
                server.restart().await;
            }
        };
        let hearing = async {
            let mut heard = Vec::new();
            for _ in 0..300 {
                heard.push(next_text(&mut listener).await.parse::<usize>().unwrap());
            }
            heard
        };
        let ((), (), mut heard) = tokio::join!(publishing, killing, hearing);
        heard.sort_unstable();
        assert!(heard.into_iter().eq(0..300), "each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_forgot_in_a_restart_is_told_as_a_gap() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
        let config = Config { direct_streams_max, ..Config::default() };
        let bus = open(&server.url(), config).await;
        let (mut one, mut other) = (listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await);
        for turn in 0..10 {
            publish(&bus, "s", &turn.to_string()).await.unwrap();
            publish(&bus, "t", &turn.to_string()).await.unwrap();
            assert_eq!(next_text(&mut one).await, turn.to_string());
            assert_eq!(next_text(&mut other).await, turn.to_string());
        }
        server.kill();
        truncate_aof(&server, 600);
        server.restart().await;
        publish_surely(&bus, "s", "after").await;
        publish_surely(&bus, "t", "after").await;
        // The end that was heard is gone, and the restart itself is told unless both are the same.
        for listener in [&mut one, &mut other] {
            let mut reasons = Vec::new();
            let event = loop {
                match next(listener).await {
                    Heard::Gap(_, gap) => reasons.push(gap.reason),
                    Heard::Event(_, event) => break event,
                }
            };
            assert_eq!(text(&event), "after");
            assert!(!reasons.is_empty(), "a loss is told");
        }
    }
}

/// Cuts the last bytes off the file that is appended to.
fn truncate_aof(server: &Server, bytes: u64) {
    let folder = server.folder().join("appendonlydir");
    let files = std::fs::read_dir(&folder).or_else(|_| std::fs::read_dir(server.folder())).unwrap();
    let last = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".aof") && !path.to_string_lossy().contains("base"))
        .max();
    let file = std::fs::File::options().write(true).open(last.expect("an append-only file")).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_to_listeners_before_what_came_after_it() {
    for direct_streams_max in [100, 1] {
        let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
        let writer = on(&server).await;
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let mut listeners = [listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await];
        for turn in 0..5 {
            for name in ["s", "t"] {
                publish_surely(&writer, name, &format!("{turn} before")).await;
            }
            for listener in &mut listeners {
                assert_eq!(next_text(listener).await, format!("{turn} before"));
            }
            server.restart().await;
            for name in ["s", "t"] {
                publish_surely(&writer, name, &format!("{turn} after")).await;
            }
            for listener in &mut listeners {
                assert_eq!(next_gap(listener).await.reason, GapReason::Restarted);
                assert_eq!(next_text(listener).await, format!("{turn} after"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_told_to_listeners_that_come_back_elsewhere_later() {
    let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
    let bus = on(&server).await;
    let before = publish(&bus, "s", "before").await.unwrap();
    // Durable before the kill, so that only the restart itself tells of what may be missing.
    server.stop().await;
    server.restart().await;
    // The restart happened in the second Redis says, so what comes next must come after that second.
    sleep(Duration::from_millis(1100)).await;
    publish_surely(&bus, "s", "after").await;
    bus.close().await.unwrap();
    for _ in 0..2 {
        let later = on(&server).await;
        let mut listener = listen(&later, &["s"], Some(Cursor::at(before))).await;
        assert_eq!(next_gap(&mut listener).await.reason, GapReason::Restarted);
        assert_eq!(next_text(&mut listener).await, "after");
        later.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_nobody_saw_is_noticed_by_who_comes_next() {
    let server = Server::builder().persistence(Persistence::Aof(Fsync::EverySecond)).start().await;
    let bus = on(&server).await;
    let before = publish(&bus, "s", "before").await.unwrap();
    bus.close().await.unwrap();
    drop(bus);
    server.restart().await;
    sleep(Duration::from_millis(1100)).await;
    let later = on(&server).await;
    publish(&later, "s", "after").await.unwrap();
    let mut listener = listen(&later, &["s"], Some(Cursor::at(before))).await;
    assert_eq!(next_gap(&mut listener).await.reason, GapReason::Restarted);
    assert_eq!(next_text(&mut listener).await, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_told_as_a_gap() {
    let sentinel = Sentinel::start().await;
    let bus = open(&sentinel.url(), Config::default()).await;
    let mut listener = listen(&bus, &["s"], None).await;
    for turn in 0..5 {
        publish(&bus, "s", &turn.to_string()).await.unwrap();
        assert_eq!(next_text(&mut listener).await, turn.to_string());
    }
    let former = sentinel.kill_primary().await;
    sentinel.wait_for_promotion(former).await;
    publish_surely(&bus, "s", "after").await;
    let gap = next_gap(&mut listener).await;
    assert!(matches!(gap.reason, GapReason::Restarted | GapReason::Rewound), "{gap:?}");
    loop {
        match next(&mut listener).await {
            Heard::Event(_, event) => {
                assert_eq!(text(&event), "after");
                break;
            }
            Heard::Gap(_, gap) => assert_ne!(gap.reason, GapReason::Trimmed),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_on_a_cluster_go_on_after_a_failover() {
    let cluster = Cluster::start().await;
    let bus = open(&cluster.url(), Config::default()).await;
    let names = ["a", "b", "c", "d"];
    let mut listeners = Vec::new();
    for name in names {
        listeners.push(listen(&bus, &[name], None).await);
        publish(&bus, name, "before").await.unwrap();
    }
    for listener in &mut listeners {
        assert_eq!(next_text(listener).await, "before");
    }
    cluster.kill_primary_of("a").await;
    cluster.wait_for_failover("a").await;
    for (name, listener) in names.iter().zip(&mut listeners) {
        publish_surely(&bus, name, "after").await;
        loop {
            match next(listener).await {
                Heard::Event(_, event) => {
                    assert_eq!(text(&event), "after", "none twice");
                    break;
                }
                // What the replica did not have yet.
                Heard::Gap(_, gap) => assert_eq!(gap.reason, GapReason::Rewound),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_redis_is_told_as_a_gap() {
    for direct_streams_max in [100, 1] {
        let server = Server::start().await;
        let bus = open(&server.url(), Config { direct_streams_max, ..Config::default() }).await;
        let (mut one, mut other) = (listen(&bus, &["s"], None).await, listen(&bus, &["t"], None).await);
        for name in ["s", "t"] {
            publish(&bus, name, "before").await.unwrap();
        }
        assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("before".into(), "before".into()));
        server.cli(&["FLUSHALL"]).await;
        assert_eq!(next_gap(&mut one).await.reason, GapReason::Rewound);
        assert_eq!(next_gap(&mut other).await.reason, GapReason::Rewound);
        for name in ["s", "t"] {
            publish(&bus, name, "after").await.unwrap();
        }
        assert_eq!((next_text(&mut one).await, next_text(&mut other).await), ("after".into(), "after".into()));
    }
}

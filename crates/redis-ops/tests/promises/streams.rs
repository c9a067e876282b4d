//! Questions about streams: one and many, and what is no stream.

use std::ops::Bound;

use bytes::Bytes;
use tidegate_redis_ops::{AutoClaimed, Order, Redis, StreamEntry, StreamId};
use tidegate_test_redis::{Cluster, Server};

use crate::{command, connect};

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn keys(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| key(name)).collect()
}

async fn add(redis: &Redis, stream: &str, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        command(redis, &["XADD", stream, &format!("{id}-0"), "n", &id.to_string(), "n", "again"]).await.unwrap();
    }
}

/// A stream of three, an emptied one, and keys that are no streams.
async fn fill(redis: &Redis) {
    add(redis, "s:three", 1..=3).await;
    add(redis, "s:emptied", 1..=2).await;
    command(redis, &["XTRIM", "s:emptied", "MAXLEN", "0"]).await.unwrap();
    command(redis, &["XGROUP", "CREATE", "s:unborn", "g", "$", "MKSTREAM"]).await.unwrap();
    command(redis, &["SET", "s:text", "x"]).await.unwrap();
    command(redis, &["HSET", "s:hash", "a", "b"]).await.unwrap();
}

const ASKED: [&str; 6] = ["s:three", "s:absent", "s:emptied", "s:text", "s:unborn", "s:hash"];

fn id(ms: u64) -> StreamId {
    StreamId::new(ms, 0)
}

async fn all_questions_are_answered(redis: &Redis) {
    fill(redis).await;
    let infos = redis.stream_infos(&keys(&ASKED)).await.unwrap();
    let three = infos[0].unwrap();
    assert_eq!((three.length, three.first, three.last), (3, Some(id(1)), Some(id(3))));
    assert_eq!((three.last_generated, three.max_deleted, three.entries_added), (id(3), None, Some(3)));
    let emptied = infos[2].unwrap();
    assert_eq!((emptied.length, emptied.first, emptied.last), (0, None, None));
    assert_eq!((emptied.last_generated, emptied.entries_added), (id(2), Some(2)));
    let unborn = infos[4].unwrap();
    assert_eq!((unborn.length, unborn.last_generated, unborn.first), (0, StreamId::MIN, None));
    assert_eq!([infos[1], infos[3], infos[5]], [None; 3], "absent, and of another type");

    // The same from a script.
    for (name, info) in ASKED.iter().zip(&infos) {
        assert_eq!(redis.stream_info(&key(name)).await.unwrap(), *info, "{name}");
    }
    assert_eq!(redis.exists_many(&keys(&ASKED)).await.unwrap(), [true, false, true, false, true, false]);

    ranges_are_read(redis).await;

    assert_eq!(redis.delete_many(&keys(&ASKED)).await.unwrap(), [true, false, true, false, true, false]);
    assert_eq!(redis.exists_many(&keys(&ASKED)).await.unwrap(), [false; 6]);
    assert_eq!(command(redis, &["GET", "s:text"]).await.unwrap().as_str().unwrap(), "x", "no stream, not deleted");
    assert_eq!(redis.delete_many(&keys(&ASKED)).await.unwrap(), [false; 6]);
    for empty in [redis.stream_infos(&[]).await.unwrap().len(), redis.delete_many(&[]).await.unwrap().len()] {
        assert_eq!(empty, 0);
    }
}

async fn ranges_are_read(redis: &Redis) {
    let three = key("s:three");
    let ids = |entries: Option<Vec<StreamEntry>>| -> Vec<u64> {
        entries.expect("there is a stream").iter().map(|entry| entry.id.ms).collect()
    };
    let entries = redis.stream_range(&three, .., 10, Order::OldestFirst).await.unwrap();
    let fields = entries.as_ref().unwrap()[1].fields.clone();
    assert_eq!(fields, [("n", "2"), ("n", "again")].map(|(name, value)| (key(name), key(value))));
    assert_eq!(ids(entries), [1, 2, 3]);
    let after_first = (Bound::Excluded(id(1)), Bound::Unbounded);
    for (count, order, expected) in [
        (10, Order::OldestFirst, &[2, 3][..]),
        (10, Order::NewestFirst, &[3, 2]),
        (1, Order::OldestFirst, &[2]),
        (1, Order::NewestFirst, &[3]),
        (0, Order::OldestFirst, &[]),
    ] {
        assert_eq!(ids(redis.stream_range(&three, after_first, count, order).await.unwrap()), expected, "{order:?}");
    }
    assert_eq!(ids(redis.stream_range(&three, id(2)..=id(2), 10, Order::NewestFirst).await.unwrap()), [2]);
    assert_eq!(ids(redis.stream_range(&three, id(1)..id(3), 10, Order::OldestFirst).await.unwrap()), [1, 2]);
    let empty = redis.stream_range(&key("s:emptied"), .., 10, Order::OldestFirst).await.unwrap();
    assert_eq!(empty, Some(Vec::new()), "empty is not absent");
    for name in ["s:absent", "s:text"] {
        assert_eq!(redis.stream_range(&key(name), .., 10, Order::OldestFirst).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn on_one_server() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    all_questions_are_answered(&redis).await;
}

#[tokio::test]
async fn in_a_cluster() {
    let cluster = Cluster::start().await;
    let redis = connect(&cluster.url()).await;
    all_questions_are_answered(&redis).await;

    let many: Vec<Bytes> = (0..350).map(|number| format!("many:{number}").into()).collect();
    for name in &many {
        redis
            .command("XADD", Some(name.clone()), vec![name.clone(), "1-0".into(), "a".into(), name.clone()])
            .await
            .unwrap();
    }
    let infos = redis.stream_infos(&many).await.unwrap();
    assert!(infos.len() == 350 && infos.iter().all(|info| info.is_some_and(|info| info.length == 1)));
    assert_eq!(redis.delete_many(&many).await.unwrap(), [true; 350]);
}

#[tokio::test]
async fn as_a_user_of_the_acl_line_over_tls() {
    let line = tidegate_redis_ops::acl_line("app", "t:", "s:").replace(">password", ">secret");
    let server = Server::builder().tls().acl(line.trim_start_matches("ACL SETUSER ")).start().await;
    let redis = connect(&format!("{}?ca={}", server.url_as("app", "secret"), server.ca().display())).await;
    all_questions_are_answered(&redis).await;
    assert_eq!(command(&redis, &["XADD", "other", "*", "a", "b"]).await.unwrap_err().code(), "NOPERM");

    let everywhere = tidegate_redis_ops::acl_line("all", "t:", "").replace(">password", ">secret");
    let words: Vec<&str> = everywhere.split(' ').collect();
    server.cli(&words).await;
    let redis = connect(&format!("{}?ca={}", server.url_as("all", "secret"), server.ca().display())).await;
    command(&redis, &["XADD", "other", "*", "a", "b"]).await.unwrap();
    assert_eq!(command(&redis, &["PUBLISH", "other", "x"]).await.unwrap_err().code(), "NOPERM");
}

#[tokio::test]
async fn scripts_are_found_again_after_they_were_forgotten() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    add(&redis, "s", 1..=2).await;
    for _ in 0..2 {
        server.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(redis.stream_info(&key("s")).await.unwrap().unwrap().length, 2);
        assert!(redis.stream_range(&key("s"), .., 1, Order::OldestFirst).await.unwrap().is_some());
        assert_eq!(redis.delete_many(&[key("none")]).await.unwrap(), [false]);
    }
}

#[tokio::test]
async fn a_thousand_streams_are_answered_in_the_order_asked() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    let names: Vec<Bytes> = (0..1000).map(|number| format!("s:{number}").into()).collect();
    for (number, name) in names.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
        let id = Bytes::from(format!("{}-0", number + 1));
        redis.command("XADD", Some(name.clone()), vec![name.clone(), id, "a".into(), "b".into()]).await.unwrap();
    }
    let infos = redis.stream_infos(&names).await.unwrap();
    for (number, info) in infos.iter().enumerate() {
        let last = info.and_then(|info| info.last).map(|id| id.ms);
        assert_eq!(last, (number % 3 != 0).then_some(number as u64 + 1));
    }
    assert_eq!(server.commands_by_name().await["xinfo|stream"], 1000, "one question per stream");
    let exist: Vec<bool> = (0..1000).map(|number| number % 3 != 0).collect();
    assert_eq!(redis.exists_many(&names).await.unwrap(), exist);
    assert_eq!(redis.delete_many(&names).await.unwrap(), exist);
}

#[tokio::test]
async fn pending_entries_that_were_deleted_keep_their_place() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    add(&redis, "s", 1..=3).await;
    command(&redis, &["XGROUP", "CREATE", "s", "g", "0"]).await.unwrap();
    command(&redis, &["XGROUP", "CREATECONSUMER", "s", "g", "c"]).await.unwrap();
    let read = async |from| {
        let args = ["GROUP", "g", "c", "STREAMS", "s", from].map(key).to_vec();
        redis.command("XREADGROUP", Some(key("s")), args).await.unwrap()
    };
    read(">").await;
    command(&redis, &["XDEL", "s", "2-0"]).await.unwrap();
    let entries = StreamEntry::by_stream(read("0").await).unwrap().remove(0).1;
    let deleted: Vec<bool> = entries.iter().map(StreamEntry::is_deleted).collect();
    assert_eq!(deleted, [false, true, false]);
    let claimed = AutoClaimed::read(command(&redis, &["XAUTOCLAIM", "s", "g", "d", "0", "0"]).await.unwrap()).unwrap();
    assert_eq!((claimed.next, claimed.entries.len(), claimed.deleted), (StreamId::MIN, 2, vec![id(2)]));
}

#[tokio::test]
async fn a_lost_link_is_an_error_not_an_absent_stream() {
    let server = Server::start().await;
    let redis = connect(&server.url()).await;
    add(&redis, "s", 1..=1).await;
    server.kill();
    assert!(redis.stream_infos(&[key("s")]).await.is_err());
    assert!(redis.stream_info(&key("s")).await.is_err());
    assert!(redis.exists_many(&[key("s")]).await.is_err());
}

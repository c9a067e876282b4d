//! Streams on Redis: what others write, several servers on one Redis, and a Redis that goes away.

use serde_json::{Value, json};
use tidegate_test_redis::{Fsync, Persistence, Server as Redis};
use tidegate_tests::{Server, eventually, place, stream_path};

use super::{PATIENCE, on, ready_is};

fn number(data: &str) -> u64 {
    serde_json::from_str::<Value>(data).ok().and_then(|data| data["n"].as_u64()).expect("a numbered event")
}

#[tokio::test]
async fn entries_written_by_others_are_events_whose_data_are_the_object_of_their_fields() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    let mut present = client.listen("foreign", "").await;
    let add = ["XADD", "foreign", "*", "name", "Ada", "note", "a \"quote\"\nand ü", "n", "7"];
    let first = redis.cli(&add).await;
    let heard = present.one().await;
    let object = json!({"name": "Ada", "note": "a \"quote\"\nand ü", "n": "7"});
    assert_eq!((heard.id.as_str(), serde_json::from_str::<Value>(&heard.data).ok()), (&*first, Some(object.clone())));
    // Bytes that are no text, a field twice, and an id far ahead of the clock.
    let words: [&[u8]; 7] = [b"XADD", b"foreign", b"99999999999999-5", b"raw", b"\xff\xfe", b"twice", b"1"];
    redis.command(&words).await;
    let heard = present.one().await;
    assert_eq!(heard.id, "99999999999999-5");
    assert!(serde_json::from_str::<Value>(&heard.data).is_ok_and(|data| data.is_object()), "{heard:?}");
    // Ours go on from there.
    let ours = client.publish("foreign", json!({"n": 1})).await;
    assert!(place(&ours) > (99_999_999_999_999, 5), "{ours}");
    let all = client.read("foreign", "after=0").await;
    assert_eq!(all.len(), 3);
    assert_eq!(serde_json::from_str::<Value>(all[0].data.get()).expect("JSON"), object);
    assert_eq!(all[2].data.get(), "{\"n\":1}");
    let claimed = client.group_claim("foreign", "g", json!({"consumer": "c", "limit": 10})).await;
    assert_eq!(claimed.len(), 3);
    assert_eq!(claimed[0].event.data, object);
}

#[tokio::test]
async fn a_stream_made_by_others_is_found_without_waiting_for_the_list() {
    let redis = Redis::start().await;
    redis.cli(&["XADD", "old", "1-1", "n", "1"]).await;
    redis.cli(&["SET", "text", "no stream"]).await;
    let server = on(&redis).start().await;
    let client = server.client();
    assert_eq!(client.streams("").await.streams.iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["old"]);
    redis.cli(&["XADD", "new", "1-1", "n", "1"]).await;
    assert_eq!(client.stream("new").await.length, 1);
    assert_eq!(client.read("new", "after=0").await[0].id, "1-1");
    let mut listener = client.listen("new", "after=0").await;
    assert_eq!(listener.one().await.id, "1-1");
    // What is no stream is left alone.
    for reply in [
        client.get(&stream_path("text", "")).await,
        client.publish_reply("text", json!({"data": 1})).await,
        client.delete(&stream_path("text", "")).await,
    ] {
        assert!((400..500).contains(&reply.status), "{}", reply.text());
    }
    assert_eq!(redis.cli(&["GET", "text"]).await, "no stream");
}

#[tokio::test]
async fn the_keys_of_the_server_itself_are_no_streams() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    client.enqueue("default", "a", json!(1)).await;
    client.publish_event("s", json!({"data": 1, "id": "x"})).await;
    assert_eq!(client.streams("").await.streams.iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["s"]);
    for reply in [
        client.publish_reply("tidegate:s", json!({"data": 1})).await,
        client.delete("/api/streams/tidegate:s").await,
        client.get("/api/streams/tidegate:s/sse").await,
    ] {
        let _ = reply.problem_in(&[400, 403, 404, 422]);
    }
}

#[tokio::test]
async fn what_is_published_at_one_server_is_heard_and_claimed_at_another() {
    let redis = Redis::start().await;
    let (one, two) = (on(&redis).start().await, on(&redis).start().await);
    let (at_one, at_two) = (one.client(), two.client());
    let mut listener = at_two.listen("between", "").await;
    let mut pattern = at_two.events("/api/events?streams=across.*").await;
    let waiting = tokio::spawn({
        let client = two.client();
        async move { client.group_claim("between", "g", json!({"consumer": "two", "limit": 1, "waitMs": 30_000})).await }
    });
    at_one.publish_numbers("between", 0..3).await;
    assert_eq!(listener.numbers_until(2).await, [0, 1, 2]);
    at_one.publish_numbers("across.servers", 0..3).await;
    assert_eq!(pattern.numbers_until(2).await, [0, 1, 2]);
    let claimed = waiting.await.expect("the claim is fine");
    assert_eq!(claimed.len(), 1);
    let rest = at_one.group_claim("between", "g", json!({"consumer": "one", "limit": 10})).await;
    assert_eq!(rest.len(), 2, "no event goes to both");
    assert_eq!(at_one.ack("between", "g", &[&claimed[0].event.id]).await, ["ok"]);
}

#[tokio::test]
async fn the_same_id_published_at_two_servers_is_one_event() {
    let redis = Redis::start().await;
    let (one, two) = (on(&redis).start().await, on(&redis).start().await);
    for n in 0..20 {
        let event = json!({"data": n, "id": format!("event-{n}")});
        let (first, second) = (one.client(), two.client());
        let (first, second) =
            tokio::join!(first.publish_event("same", event.clone()), second.publish_event("same", event.clone()));
        assert_eq!(first, second);
    }
    assert_eq!(one.client().stream("same").await.length, 20);
}

#[tokio::test]
async fn listeners_go_on_after_redis_was_killed_and_miss_nothing() {
    let redis = Redis::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    let mut listeners = Vec::new();
    for _ in 0..10 {
        listeners.push(client.listen("outage", "").await);
    }
    let mut several = client.events("/api/events?streams=outage,other.*").await;
    let mut next = 0_u64;
    for _ in 0..3 {
        publish_through(&server, next).await;
        redis.kill();
        redis.restart().await;
        ready_is(&server, 200).await;
        publish_through(&server, next + 1).await;
        next += 2;
    }
    for listener in listeners.iter_mut().chain([&mut several]) {
        assert_eq!(listener.numbers_until(next - 1).await, (0..next).collect::<Vec<_>>());
    }
}

/// Publishes one event, again under its id as long as nobody knows whether it was.
async fn publish_through(server: &Server, n: u64) {
    let client = server.client();
    eventually("the event is published", PATIENCE, || async {
        let event = json!({"data": {"n": n}, "id": format!("event-{n}")});
        let reply = client.publish_reply("outage", event).await;
        (reply.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_redis_is_gone_callers_are_told_and_listeners_stay() {
    let redis = Redis::builder().persistence(Persistence::Aof(Fsync::Always)).start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    client.publish_numbers("gone", 0..3).await;
    let mut listener = client.listen("gone", "after=0").await;
    assert_eq!(listener.numbers_until(2).await, [0, 1, 2]);
    redis.kill();
    ready_is(&server, 503).await;
    for reply in [
        client.publish_reply("gone", json!({"data": 1})).await,
        client.get(&stream_path("gone", "")).await,
        client.read_reply("gone", "after=0").await,
        client.group_reply("gone", "g", "claim", json!({"consumer": "c"})).await,
    ] {
        assert_eq!(reply.problem(503)["code"], "redis_unavailable");
    }
    redis.restart().await;
    ready_is(&server, 200).await;
    client.publish_numbers("gone", 3..5).await;
    assert_eq!(listener.numbers_until(4).await, [3, 4]);
}

#[tokio::test]
async fn what_redis_forgot_is_told_as_a_gap() {
    // Keeps nothing: a restart is the greatest loss there is.
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    client.publish_numbers("lost", 0..5).await;
    let mut listener = client.listen("lost", "after=0").await;
    let last = listener.take(5).await.pop().expect("five");
    redis.kill();
    redis.restart().await;
    ready_is(&server, 200).await;
    client.publish_numbers("lost", 5..8).await;
    let event = listener.one().await;
    assert_eq!(event.event, "gap", "the listener that stayed is told: {event:?}");
    assert_eq!(listener.numbers_until(7).await, [5, 6, 7]);
    let mut returning = client.listen_after("lost", &last.id).await;
    let events = returning.take(4).await;
    assert_eq!(events[0].event, "gap", "the listener that comes back is told: {events:?}");
    assert_eq!(events[1..].iter().map(|event| number(&event.data)).collect::<Vec<_>>(), [5, 6, 7]);
}

#[tokio::test]
async fn a_group_that_redis_forgot_is_made_again_and_events_are_handed_out() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    client.publish_numbers("group", 0..3).await;
    assert_eq!(client.group_claim("group", "g", json!({"consumer": "c", "limit": 3})).await.len(), 3);
    redis.cli(&["FLUSHALL"]).await;
    client.publish_numbers("group", 3..5).await;
    let again = client.group_claim("group", "g", json!({"consumer": "c", "limit": 10, "waitMs": 10_000})).await;
    assert_eq!(again.iter().filter_map(|delivered| delivered.event.data["n"].as_u64()).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn thousands_of_listeners_need_no_more_connections_to_redis() {
    let redis = Redis::start().await;
    let server = on(&redis).start().await;
    let client = server.client();
    client.publish("many-0", json!({"n": 0})).await;
    let mut listeners = Vec::new();
    // More streams than one blocked read takes.
    for n in 0..300 {
        listeners.push(client.listen(&format!("many-{}", n % 150), "").await);
    }
    for stream in 0..150 {
        client.publish(&format!("many-{stream}"), json!({"n": stream})).await;
    }
    for (n, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(listener.one().await.number(), n as u64 % 150);
    }
    let clients = redis.cli(&["CLIENT", "LIST"]).await;
    // The harness's own, which asks, is among them. 5 for streams; the queue has two more, for wake-ups and beats.
    let count = clients.lines().filter(|line| line.contains("id=")).count();
    assert!(count <= 8, "{count} connections:\n{clients}");
}

//! Consumer groups: every event handled by one consumer, again when that one does not say so, and put aside in the end.

use std::collections::HashSet;

use serde_json::{Value, json};
use tidegate_tests::{Client, Delivered, eventually, stream_path};

use super::{PATIENCE, start};

fn ids(deliveries: &[Delivered]) -> Vec<&str> {
    deliveries.iter().map(|delivered| delivered.event.id.as_str()).collect()
}

async fn claim(client: &Client, stream: &str, consumer: &str, limit: usize) -> Vec<Delivered> {
    client.group_claim(stream, "g", json!({"consumer": consumer, "limit": limit, "waitMs": 0})).await
}

/// Acknowledges all of these.
async fn ack(client: &Client, stream: &str, deliveries: &[Delivered]) {
    let outcomes = client.ack(stream, "g", &ids(deliveries)).await;
    assert!(outcomes.iter().all(|outcome| outcome == "ok"), "{outcomes:?}");
}

#[tokio::test]
async fn consumers_share_the_events_of_a_stream_each_is_handed_out_once() {
    let server = start().await;
    let client = server.client();
    let published = client.publish_numbers("shared", 0..100).await;
    let consumers: Vec<_> = (0..4)
        .map(|consumer| {
            let client = server.client();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let claimed = claim(&client, "shared", &format!("c{consumer}"), 7).await;
                    if claimed.is_empty() {
                        return mine;
                    }
                    ack(&client, "shared", &claimed).await;
                    mine.extend(claimed.into_iter().map(|delivered| delivered.event.id));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await.expect("a consumer is fine"));
    }
    assert_eq!(all.len(), 100, "each once");
    assert_eq!(all.into_iter().collect::<HashSet<_>>(), published.into_iter().collect::<HashSet<_>>());
    assert!(client.group_pending("shared", "g").await.is_empty());
}

#[tokio::test]
async fn a_group_begins_with_the_oldest_event_and_delivers_type_data_and_count() {
    let server = start().await;
    let client = server.client();
    let id = client.publish_event("first", json!({"type": "t", "data": {"n": 1.5}})).await;
    client.publish("first", json!(2)).await;
    let claimed = claim(&client, "first", "c", 1).await;
    let [delivered] = &claimed[..] else { panic!("one was asked for: {claimed:?}") };
    assert_eq!(
        (delivered.event.id.as_str(), delivered.event.kind.as_deref(), delivered.deliveries),
        (&*id, Some("t"), 1)
    );
    assert_eq!(delivered.event.data, json!({"n": 1.5}));
    // Another group has it all to itself.
    let other = client.group_claim("first", "other", json!({"consumer": "c", "limit": 10})).await;
    assert_eq!(other.len(), 2);
    let groups = client.get(&stream_path("first", "/groups")).await.expect(200).value();
    let names: HashSet<&str> =
        groups["groups"].as_array().expect("groups").iter().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!(names, HashSet::from(["g", "other"]), "{groups}");
    let pending = client.group_pending("first", "g").await;
    assert_eq!(
        (pending.len(), pending[0].id.as_str(), pending[0].consumer.as_str(), pending[0].deliveries),
        (1, &*id, "c", 1)
    );
}

#[tokio::test]
async fn what_is_acknowledged_is_not_delivered_again_and_a_second_acknowledgement_is_stale() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("acked", 0..3).await;
    let claimed = claim(&client, "acked", "c", 3).await;
    assert_eq!(client.ack("acked", "g", &ids(&claimed)[..2]).await, ["ok", "ok"]);
    let outcomes = client.ack("acked", "g", &ids(&claimed)).await;
    assert_eq!(outcomes, ["stale", "stale", "ok"]);
    let server = server.kill().await.start().await;
    let client = server.client();
    let again = json!({"consumer": "c2", "limit": 10, "minIdleMs": 0});
    assert!(client.group_claim("acked", "g", again).await.is_empty(), "acknowledged for good");
}

#[tokio::test]
async fn what_a_dead_consumer_held_goes_to_another_after_its_idle_time() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("held", 0..2).await;
    let first = claim(&client, "held", "dead", 2).await;
    assert!(claim(&client, "held", "alive", 2).await.is_empty(), "not idle for long enough");
    let patient = json!({"consumer": "alive", "limit": 10, "minIdleMs": 300, "waitMs": 20_000});
    let second = client.group_claim("held", "g", patient).await;
    assert_eq!(ids(&second), ids(&first));
    assert!(second.iter().all(|delivered| delivered.deliveries == 2), "{second:?}");
    let pending = client.group_pending("held", "g").await;
    assert!(pending.iter().all(|pending| pending.consumer == "alive"), "{pending:?}");
    ack(&client, "held", &second).await;
    assert_eq!(client.ack("held", "g", &ids(&first)).await, ["stale", "stale"], "acknowledged once");
}

#[tokio::test]
async fn what_was_pending_is_pending_after_a_kill() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("kept", 0..4).await;
    let claimed = claim(&client, "kept", "c", 3).await;
    ack(&client, "kept", &claimed[..1]).await;
    let server = server.kill().await.start().await;
    let client = server.client();
    let mut left = HashSet::new();
    // What was handed out may be handed out again; nothing is forgotten.
    while left.len() < 3 {
        let again = json!({"consumer": "c2", "limit": 10, "minIdleMs": 0, "waitMs": 20_000});
        left.extend(
            client
                .group_claim("kept", "g", again)
                .await
                .into_iter()
                .map(|delivered| delivered.event.data["n"].as_u64()),
        );
    }
    assert_eq!(left, HashSet::from([Some(1), Some(2), Some(3)]));
}

#[tokio::test]
async fn a_failed_event_comes_again_at_once_and_in_the_end_lies_among_the_dead_letters() {
    let server = start().await;
    let client = server.client();
    let poison = client.publish_event("bad", json!({"type": "t", "data": {"poison": 1.0}, "key": "k"})).await;
    let mut deliveries = 0;
    loop {
        let claimed = claim(&client, "bad", "c", 10).await;
        let [delivered] = &claimed[..] else { break };
        deliveries += 1;
        assert_eq!((delivered.event.id.as_str(), delivered.deliveries), (&*poison, deliveries));
        let outcomes = client.group_fail("bad", "g", &[&poison], "cannot be swallowed").await;
        assert_eq!(outcomes.len(), 1);
        assert!(deliveries < 50, "it comes for ever");
    }
    assert!(deliveries > 1, "one try is not enough");
    assert!(client.group_pending("bad", "g").await.is_empty());
    let dead = client.read("bad.dead.g", "after=0").await;
    assert_eq!(dead.len(), 1);
    let letter: Value = serde_json::from_str(dead[0].data.get()).expect("JSON");
    assert!(dead[0].data.get().contains("{\"poison\":1.0}"), "byte for byte: {}", dead[0].data.get());
    assert_eq!((&letter["id"], &letter["error"]), (&json!(poison), &json!("cannot be swallowed")), "{letter}");
    assert_eq!((dead[0].kind.as_deref(), dead[0].key.as_deref()), (Some("dead"), Some("k")));
    assert_eq!(client.group_fail("bad", "g", &[&poison], "again").await, ["stale"]);
    assert_eq!(client.stream("bad.dead.g").await.length, 1, "put aside once");
}

#[tokio::test]
async fn an_event_nobody_ever_acknowledges_is_put_aside_too() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("never", 0..1).await;
    eventually("it lies among the dead letters", PATIENCE, || async {
        client.group_claim("never", "g", json!({"consumer": "c", "limit": 1, "minIdleMs": 0})).await;
        (client.get(&stream_path("never.dead.g", "")).await.status == 200).then_some(())
    })
    .await;
    assert!(client.group_pending("never", "g").await.is_empty());
    assert_eq!(client.stream("never.dead.g").await.length, 1);
}

#[tokio::test]
async fn a_waiting_claim_is_woken_by_the_next_event() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("wake", 0..1).await;
    let claimed = claim(&client, "wake", "c", 1).await;
    ack(&client, "wake", &claimed).await;
    let waiting: Vec<_> = ["wake", "unborn"]
        .into_iter()
        .map(|stream| {
            let client = server.client();
            let long = json!({"consumer": "c", "limit": 10, "waitMs": 30_000});
            tokio::spawn(async move { client.group_claim(stream, "g", long).await })
        })
        .collect();
    for stream in ["wake", "unborn"] {
        client.publish(stream, json!({"n": 1})).await;
    }
    for waiting in waiting {
        let woken = waiting.await.expect("the claim is fine");
        assert_eq!(woken.len(), 1, "{woken:?}");
    }
}

#[tokio::test]
async fn trimmed_events_are_not_delivered_and_the_group_goes_on() {
    let server = start().await;
    let client = server.client();
    client.publish_numbers("trimmed", 0..10).await;
    assert_eq!(claim(&client, "trimmed", "c", 2).await.len(), 2);
    client.trim("trimmed", json!({"maxLength": 4})).await;
    let rest = claim(&client, "trimmed", "c", 10).await;
    let numbers: Vec<u64> = rest.iter().filter_map(|delivered| delivered.event.data["n"].as_u64()).collect();
    assert_eq!(numbers, [6, 7, 8, 9]);
    ack(&client, "trimmed", &rest).await;
}

//! Deleting, invalidating at once and by the queue, clearing.

use serde_json::{Value, json};
use tidegate_tests::{Client, eventually};

use super::{CACHE, PATIENCE, builder, key_at, post, set, set_tagged, start, text_of, there};

async fn queue_stats(client: &Client) -> Value {
    client.get(&format!("{CACHE}/stats")).await.expect(200).value()["queue"].clone()
}

async fn clear(client: &Client, query: &str) -> Value {
    client.delete(&format!("{CACHE}/clear{query}")).await.expect(200).value()["deleted"].clone()
}

#[tokio::test]
async fn deleting_tells_whether_there_was_a_value() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    assert_eq!(client.delete(&key_at("k")).await.expect(200).value(), json!({"deleted": 1}));
    assert_eq!(client.delete(&key_at("k")).await.expect(200).value(), json!({"deleted": 0}));
    assert_eq!(text_of(&client, "k").await, None);
}

#[tokio::test]
async fn what_is_invalidated_is_gone_when_the_call_returns_and_nothing_else_is() {
    let server = start().await;
    let client = server.client();
    let all = ["a", "b", "u:1", "u:2", "t1", "t2", "stays", "u"];
    let fill = async || {
        for key in ["a", "b", "u:1", "u:2", "u"] {
            set(&client, key, json!(1)).await;
        }
        set_tagged(&client, "t1", &["red", "green"]).await;
        set_tagged(&client, "t2", &["green"]).await;
        set_tagged(&client, "stays", &["blue"]).await;
    };
    let cases = [
        (json!({"keys": ["a"]}), 1, vec!["b", "u:1", "u:2", "t1", "t2", "stays", "u"]),
        (json!({"keys": ["a", "b", "absent"]}), 3, vec!["u:1", "u:2", "t1", "t2", "stays", "u"]),
        (json!({"tags": ["red"]}), 1, vec!["a", "b", "u:1", "u:2", "t2", "stays", "u"]),
        (json!({"tags": ["green", "none"]}), 2, vec!["a", "b", "u:1", "u:2", "stays", "u"]),
        (json!({"prefix": "u:"}), 1, vec!["a", "b", "t1", "t2", "stays", "u"]),
        (json!({"keys": ["a"], "tags": ["red"], "prefix": "u"}), 3, vec!["b", "t2", "stays"]),
    ];
    for (what, count, left) in cases {
        fill().await;
        assert_eq!(there(&client, &all).await, all, "everything is there again");
        let reply = post(&client, "invalidate", what.clone()).await.expect(200);
        assert_eq!(reply.value(), json!({"invalidated": count}), "{what}");
        assert_eq!(there(&client, &all).await, left, "{what}");
    }
}

#[tokio::test]
async fn a_value_set_after_an_invalidation_is_not_covered_by_it() {
    let server = start().await;
    let client = server.client();
    for what in [json!({"tags": ["t"]}), json!({"prefix": "k"}), json!({"keys": ["k1"]})] {
        set_tagged(&client, "k1", &["t"]).await;
        post(&client, "invalidate", what.clone()).await.expect(200);
        assert_eq!(text_of(&client, "k1").await, None, "{what}");
        set_tagged(&client, "k1", &["t"]).await;
        assert!(text_of(&client, "k1").await.is_some(), "{what}");
    }
    clear(&client, "").await;
    set(&client, "k1", json!(2)).await;
    assert_eq!(text_of(&client, "k1").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn clearing_tells_how_many_values_were_deleted() {
    let server = start().await;
    let client = server.client();
    let entries: Vec<_> = (0..250).map(|n| json!({"key": format!("u:{n}"), "value": n})).collect();
    post(&client, "set-many", json!({"entries": entries})).await.expect(200);
    for key in ["v:1", "v:2", "*", "u", "[u]:1"] {
        set(&client, key, json!(1)).await;
    }
    assert_eq!(clear(&client, "?prefix=u%3A").await, 250);
    assert_eq!(clear(&client, "?prefix=u%3A").await, 0);
    assert_eq!(clear(&client, "?prefix=%5Bu%5D").await, 1, "a prefix is no pattern");
    assert_eq!(clear(&client, "?prefix=*").await, 1, "a prefix is no pattern");
    assert_eq!(there(&client, &["u:1", "v:1", "v:2", "u"]).await, ["v:1", "v:2", "u"]);
    assert_eq!(clear(&client, "").await, 3);
    assert_eq!(clear(&client, "").await, 0);
    assert_eq!(there(&client, &["v:1", "v:2", "u"]).await, [""; 0]);
}

#[tokio::test]
async fn clearing_the_cache_touches_no_job_and_no_event() {
    let server = start().await;
    let client = server.client();
    let job = client.enqueue("default", "a", json!(1)).await;
    client.publish("s", json!(1)).await;
    set(&client, "k", json!(1)).await;
    assert_eq!(clear(&client, "").await, 1);
    assert_eq!(client.job(&job.job_id).await.status, "queued");
    assert_eq!(client.stream("s").await.length, 1);
    assert_eq!(client.claim_one("default", "w").await.job_id, job.job_id);
}

#[tokio::test]
async fn a_queued_invalidation_is_answered_at_once_and_applied_soon() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    set_tagged(&client, "t", &["red"]).await;
    set(&client, "u:1", json!(1)).await;
    let what = json!({"keys": ["k"], "tags": ["red"], "prefix": "u:", "queued": true});
    let reply = post(&client, "invalidate", what).await.expect(202);
    assert_eq!((&reply.value()["queued"], &reply.value()["dropped"]), (&json!(3), &json!(0)));
    eventually("the queue is applied", PATIENCE, || async {
        there(&client, &["k", "t", "u:1"]).await.is_empty().then_some(())
    })
    .await;
    let stats = eventually("the queue is empty", PATIENCE, || async {
        Some(queue_stats(&client).await).filter(|stats| stats["applied"] == 3)
    })
    .await;
    let told = json!({"queued": 3, "waiting": 0, "applied": 3, "dropped": 0, "coarsened": 0, "maxQueueSize": 10_000,
        "queueDropPolicy": "oldest", "autoInvalidate": true});
    assert_eq!(stats, told);
}

#[tokio::test]
async fn without_auto_invalidate_the_queue_waits_until_somebody_applies_it() {
    let server = builder().await.env("TIDEGATE_CACHE_AUTO_INVALIDATE", "false").start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    let reply = post(&client, "invalidate", json!({"keys": ["k"], "queued": true})).await.expect(202);
    assert_eq!(reply.value(), json!({"queued": 1, "dropped": 0, "waiting": 1}));
    assert!(text_of(&client, "k").await.is_some());
    let reply = post(&client, "invalidate/apply", json!({})).await.expect(200);
    assert_eq!((&reply.value()["applied"], &reply.value()["waiting"]), (&json!(1), &json!(0)));
    assert_eq!(text_of(&client, "k").await, None);
}

#[tokio::test]
async fn a_hundredfold_overflow_leaves_no_stale_value_and_exact_counts() {
    for (policy, told_dropped) in [("oldest", 0), ("newest", 990)] {
        let builder = builder().await.env("TIDEGATE_CACHE_AUTO_INVALIDATE", "false");
        let builder = builder.env("TIDEGATE_CACHE_QUEUE_DROP", policy).env("TIDEGATE_CACHE_QUEUE_MAX", "10");
        let server = builder.start().await;
        let client = server.client();
        let keys: Vec<_> = (0..1000).map(|n| format!("k{n}")).collect();
        let entries: Vec<_> = keys.iter().map(|key| json!({"key": key, "value": 1})).collect();
        post(&client, "set-many", json!({"entries": entries})).await.expect(200);
        let reply = post(&client, "invalidate", json!({"keys": keys, "queued": true})).await.expect(202);
        assert_eq!(reply.value(), json!({"queued": 1000, "dropped": told_dropped, "waiting": 10}));
        let stats = post(&client, "invalidate/apply", json!({})).await.expect(200).value();
        let told = json!({"queued": 1000, "waiting": 0, "applied": 10, "dropped": 990, "coarsened": 1, "maxQueueSize": 10,
            "queueDropPolicy": policy, "autoInvalidate": false});
        assert_eq!(stats, told);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(there(&client, &keys).await, [""; 0]);
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_is_applied_before_the_server_ends() {
    let server = builder().await.env("TIDEGATE_CACHE_AUTO_INVALIDATE", "false").start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    post(&client, "invalidate", json!({"keys": ["k"], "queued": true})).await.expect(202);
    let server = server.stop().await.start().await;
    assert_eq!(text_of(&server.client(), "k").await, None);
}

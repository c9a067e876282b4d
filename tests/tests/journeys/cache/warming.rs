//! Filling the cache before anybody asks.

use serde_json::json;

use super::{CACHE, post, set, start, text_of};

#[tokio::test]
async fn entries_given_are_there_for_the_next_who_asks() {
    let server = start().await;
    let client = server.client();
    let entries = json!({"entries": [{"key": "a", "value": 1}, {"key": "b", "value": {"x": 1.0}, "tags": ["t"]}]});
    let reply = post(&client, "warm", entries).await.expect(200);
    assert_eq!(reply.value(), json!({"warmed": 2, "missing": 0, "failed": 0}));
    assert_eq!(text_of(&client, "b").await.as_deref(), Some(r#"{"x":1.0}"#));
}

#[tokio::test]
async fn keys_are_told_apart_by_whether_there_is_a_value() {
    let server = start().await;
    let client = server.client();
    for n in 0..150 {
        set(&client, &format!("k{n}"), json!(n)).await;
    }
    let keys: Vec<_> = (0..200).map(|n| format!("k{n}")).collect();
    let reply = post(&client, "warm", json!({"keys": keys})).await.expect(200);
    assert_eq!(reply.value(), json!({"warmed": 150, "missing": 50, "failed": 0}));
    let reply = post(&client, "warm", json!({"keys": []})).await.expect(200);
    assert_eq!(reply.value(), json!({"warmed": 0, "missing": 0, "failed": 0}));
}

#[tokio::test]
async fn hottest_keys_that_nobody_wrote_down_are_none() {
    let server = start().await;
    let client = server.client();
    let reply = post(&client, "warm", json!({"hottest": 100})).await.expect(200);
    assert_eq!(reply.value(), json!({"warmed": 0, "missing": 0, "failed": 0}));
    client.get(&format!("{CACHE}/stats")).await.expect(200);
}

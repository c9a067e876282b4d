//! The cache over HTTP: what those who set, read and forget values may rely on.

mod forgetting;
mod hostile;
mod scopes;
mod stats;
mod values;
mod warming;

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{Client, Reply, eventually};

use super::{auth, builder, start};

const CACHE: &str = "/api/performance/cache";

/// Far above anything that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key as a part of a path, every byte of it encoded: whatever it is, it names no other resource.
fn encoded(key: &str) -> String {
    key.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Where a value is read.
fn value_at(key: &str) -> String {
    format!("{CACHE}/get/{}", encoded(key))
}

/// Where a value is deleted.
fn key_at(key: &str) -> String {
    format!("{CACHE}/{}", encoded(key))
}

async fn post(client: &Client, resource: &str, body: Value) -> Reply {
    client.post(&format!("{CACHE}/{resource}"), body).await
}

async fn set(client: &Client, key: &str, value: Value) {
    post(client, "set", json!({"key": key, "value": value})).await.expect(200);
}

async fn set_tagged(client: &Client, key: &str, tags: &[&str]) {
    post(client, "set", json!({"key": key, "value": 1, "tags": tags})).await.expect(200);
}

/// The text of a value as it came, if there is one.
async fn text_of(client: &Client, key: &str) -> Option<String> {
    let reply = client.get(&value_at(key)).await;
    if reply.status == 404 {
        assert_eq!(reply.problem(404)["code"], "cache_miss");
        return None;
    }
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text().strip_prefix(r#"{"success":true,"data":"#).and_then(|text| text.strip_suffix('}'));
    Some(text.unwrap_or_else(|| panic!("no envelope: {:.200}", reply.text())).to_owned())
}

async fn stats(client: &Client) -> Value {
    client.get(&format!("{CACHE}/stats")).await.expect(200).value()
}

/// Waits until what is set stays in memory: on Redis, until the link that brings changes is up. Sets the key `first`.
async fn settled(client: &Client) {
    eventually("values stay in memory", PATIENCE, || async {
        set(client, "first", json!(1)).await;
        let before = stats(client).await["tiers"]["memory"]["hits"].clone();
        let is_there = text_of(client, "first").await.is_some();
        (is_there && stats(client).await["tiers"]["memory"]["hits"] != before).then_some(())
    })
    .await;
}

/// Which of these keys have a value.
async fn there(client: &Client, keys: &[&str]) -> Vec<String> {
    let found = post(client, "get-many", json!({"keys": keys})).await.expect(200).value();
    let values = found["values"].as_array().expect("a list").iter();
    values.filter(|one| one["found"] == true).map(|one| one["key"].as_str().expect("a key").to_owned()).collect()
}

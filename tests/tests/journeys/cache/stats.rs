//! What is counted.

use serde_json::json;

use super::{CACHE, builder, post, set, start, text_of};

#[tokio::test]
async fn the_figures_are_exact() {
    let server = builder().await.env("TIDEGATE_CACHE_ENTRIES_MAX", "100").start().await;
    let client = server.client();
    let stats = async || client.get(&format!("{CACHE}/stats")).await.expect(200).value();
    let empty = stats().await;
    for (name, value) in [("hits", 0), ("misses", 0), ("size", 0), ("maxSize", 100), ("memoryUsage", 0)] {
        assert_eq!(empty[name], value, "{name}: {empty}");
    }
    assert_eq!((&empty["hitRate"], &empty["utilization"]), (&json!(0.0), &json!(0.0)), "{empty}");

    for n in 0..5 {
        set(&client, &format!("k{n}"), json!(n)).await;
    }
    for _ in 0..2 {
        assert!(text_of(&client, "k1").await.is_some());
    }
    assert!(text_of(&client, "absent").await.is_none());
    post(&client, "get-many", json!({"keys": ["k2", "k3", "k4", "other", "k2"]})).await.expect(200);
    let told = stats().await;
    for (name, value) in
        [("hits", 6), ("misses", 2), ("size", 5), ("evictions", 0), ("loads", 0), ("maxMemory", 256 << 20)]
    {
        assert_eq!(told[name], value, "{name}: {told}");
    }
    assert_eq!((&told["hitRate"], &told["utilization"]), (&json!(0.75), &json!(0.05)), "{told}");
    assert!(told["memoryUsage"].as_u64().is_some_and(|bytes| bytes > 0), "{told}");
    let memory = &told["tiers"]["memory"];
    assert_eq!((&memory["hits"], &memory["misses"]), (&json!(6), &json!(2)), "{told}");
    match told["tiers"].get("redis") {
        Some(redis) => assert_eq!((&redis["hits"], &redis["misses"]), (&json!(0), &json!(2)), "{told}"),
        None => assert!(server.banner().contains("(embedded"), "on Redis there is a second tier: {told}"),
    }
}

#[tokio::test]
async fn the_metrics_tell_the_same() {
    let server = start().await;
    let client = server.client();
    set(&client, "k", json!(1)).await;
    text_of(&client, "k").await;
    text_of(&client, "absent").await;
    let metrics = client.get("/metrics").await.expect(200);
    for line in [
        "tidegate_cache_entries{cache=\"api\"} 1",
        "tidegate_cache_reads_total{cache=\"api\",result=\"hit\",tier=\"memory\"} 1",
        "tidegate_cache_reads_total{cache=\"api\",result=\"miss\",tier=\"memory\"} 1",
        "tidegate_cache_queue_waiting{cache=\"api\"} 0",
    ] {
        assert!(metrics.text().lines().any(|told| told == line), "{line} is missing");
    }
    let bytes = metrics.text().lines().find_map(|line| line.strip_prefix("tidegate_cache_bytes{cache=\"api\"} "));
    assert!(bytes.is_some_and(|bytes| bytes.parse::<f64>().is_ok_and(|bytes| bytes > 0.0)), "{bytes:?}");
}

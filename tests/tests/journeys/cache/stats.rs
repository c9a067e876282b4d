//! What is counted.

use serde_json::{Value, json};

use super::{builder, post, set, settled, start, stats, text_of};

/// By how much a figure grew.
fn grown(before: &Value, after: &Value, path: &str) -> u64 {
    let number = |stats: &Value| stats.pointer(path).and_then(Value::as_u64);
    number(after).zip(number(before)).map_or_else(|| panic!("no {path} in {after}"), |(after, before)| after - before)
}

#[tokio::test]
async fn the_figures_are_exact() {
    let server = builder().await.env("TIDEGATE_CACHE_ENTRIES_MAX", "100").start().await;
    let client = server.client();
    let empty = stats(&client).await;
    for (name, value) in [("hits", 0), ("misses", 0), ("size", 0), ("maxSize", 100), ("memoryUsage", 0)] {
        assert_eq!(empty[name], value, "{name}: {empty}");
    }
    assert_eq!((&empty["hitRate"], &empty["utilization"]), (&json!(0.0), &json!(0.0)), "{empty}");

    settled(&client).await;
    let before = stats(&client).await;
    for n in 1..5 {
        set(&client, &format!("k{n}"), json!(n)).await;
    }
    for _ in 0..2 {
        assert!(text_of(&client, "k1").await.is_some());
    }
    assert!(text_of(&client, "absent").await.is_none());
    post(&client, "get-many", json!({"keys": ["k2", "k3", "k4", "other", "k2"]})).await.expect(200);
    let after = stats(&client).await;
    for (path, by) in
        [("/hits", 6), ("/misses", 2), ("/evictions", 0), ("/tiers/memory/hits", 6), ("/tiers/memory/misses", 2)]
    {
        assert_eq!(grown(&before, &after, path), by, "{path}: {after}");
    }
    for (name, value) in [("size", 5), ("loads", 0), ("flushes", 0), ("maxMemory", 256 << 20)] {
        assert_eq!(after[name], value, "{name}: {after}");
    }
    let rate = |stats: &Value| stats["hitRate"].as_f64().expect("a number");
    let (hits, misses) = (grown(&json!({"hits": 0}), &after, "/hits"), grown(&json!({"misses": 0}), &after, "/misses"));
    assert!((rate(&after) - hits as f64 / (hits + misses) as f64).abs() < 1e-9, "{after}");
    assert_eq!(after["utilization"], 0.05, "{after}");
    assert!(after["memoryUsage"].as_u64().is_some_and(|bytes| (10..10_000).contains(&bytes)), "{after}");
    match after["tiers"].get("redis") {
        Some(_) => {
            assert_eq!(grown(&before, &after, "/tiers/redis/hits"), 0, "{after}");
            assert_eq!(grown(&before, &after, "/tiers/redis/misses"), 2, "{after}");
        }
        None => assert!(server.banner().contains("(embedded"), "on Redis there is a second tier: {after}"),
    }
}

#[tokio::test]
async fn the_metrics_tell_the_same() {
    let server = start().await;
    let client = server.client();
    settled(&client).await;
    set(&client, "k", json!(1)).await;
    text_of(&client, "k").await;
    text_of(&client, "absent").await;
    let told = stats(&client).await;
    let metrics = client.get("/metrics").await.expect(200);
    let memory = &told["tiers"]["memory"];
    for line in [
        "tidegate_cache_entries{cache=\"api\"} 2".to_owned(),
        format!("tidegate_cache_bytes{{cache=\"api\"}} {}", told["memoryUsage"]),
        format!("tidegate_cache_reads_total{{cache=\"api\",result=\"hit\",tier=\"memory\"}} {}", memory["hits"]),
        format!("tidegate_cache_reads_total{{cache=\"api\",result=\"miss\",tier=\"memory\"}} {}", memory["misses"]),
        "tidegate_cache_queue_waiting{cache=\"api\"} 0".to_owned(),
    ] {
        assert!(metrics.text().lines().any(|told| told == line), "{line} is missing");
    }
    let page = client.get("/").await.expect(200);
    assert!(page.text().contains("Cache: 2 of 10000 values in memory"), "{}", page.text());
}

//! What is kept is what is asked for, and what is counted is what happened.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tidegate_cache::{Cache, Config, Keep, Raw, Stats, TierStats};
use tidegate_metrics::Registry;

const KEYS: usize = 20_000;
const READS: usize = 400_000;

fn cache(config: Config) -> Cache<Bytes> {
    Cache::memory(Raw, config, &Registry::new()).unwrap()
}

/// Ranks as zipf has them with a skew of 0.99: rank `r` in proportion to `1 / (r + 1)^0.99`.
fn ranks() -> impl Iterator<Item = usize> {
    let mut sum = 0.0;
    let mut add = |rank: usize| {
        sum += 1.0 / ((rank + 1) as f64).powf(0.99);
        sum
    };
    let sums: Vec<f64> = (0..KEYS).map(&mut add).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..READS).map(move |_| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let unit = (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64;
        sums.partition_point(|sum| *sum < unit * sum_of(&sums)).min(KEYS - 1)
    })
}

fn sum_of(sums: &[f64]) -> f64 {
    sums[KEYS - 1]
}

#[tokio::test]
async fn nine_of_ten_reads_of_the_hottest_tenth_are_hits_with_room_for_a_tenth() {
    let cache = cache(Config { entries_max: KEYS / 10, ..Config::default() });
    let (mut hits, mut reads) = (0_u32, 0_u32);
    for rank in ranks() {
        let key = format!("key:{rank}");
        let is_hit = cache.get(&key).await.unwrap().is_some();
        if !is_hit {
            cache.set(&key, Bytes::from_static(b"value"), Keep::new()).await.unwrap();
        }
        if rank < KEYS / 10 {
            reads += 1;
            hits += u32::from(is_hit);
        }
        assert!(cache.stats().size <= KEYS as u64 / 10, "{}", cache.stats().size);
    }
    let share = f64::from(hits) / f64::from(reads);
    assert!(share >= 0.9, "{share:.3} of {reads}");
    cache.close().await;
}

#[tokio::test]
async fn stats_are_exact() {
    let cache = cache(Config { entries_max: 8, bytes_max: 1 << 20, ..Config::default() });
    assert_eq!(cache.stats(), Stats { size_max: 8, bytes_max: 1 << 20, ..Stats::default() });
    assert_eq!((cache.stats().hit_rate(), cache.stats().utilization()), (0.0, 0.0));

    for key in ["one", "two"] {
        cache.set(key, Bytes::from_static(b"0123456789"), Keep::new()).await.unwrap();
    }
    for (key, is_there) in [("one", true), ("two", true), ("one", true), ("three", false)] {
        assert_eq!(cache.get(key).await.unwrap().is_some(), is_there, "{key}");
    }
    let told = cache.stats();
    let bytes = told.bytes;
    let reads = TierStats { hits: 3, misses: 1 };
    let exact = Stats {
        hits: 3,
        misses: 1,
        memory: reads,
        size: 2,
        size_max: 8,
        bytes,
        bytes_max: 1 << 20,
        ..Stats::default()
    };
    assert_eq!(told, exact);
    assert_eq!((told.hit_rate(), told.memory.hit_rate(), told.utilization()), (0.75, 0.75, 0.25));
    // Two entries of three and ten bytes, and what keeping them takes.
    assert!((26..=26 + 2 * 256).contains(&bytes), "{bytes}");

    // Replaced by ten bytes more, then gone: the bytes follow exactly.
    cache.set("one", Bytes::from_static(b"01234567890123456789"), Keep::new()).await.unwrap();
    assert_eq!(cache.stats().bytes, bytes + 10);
    assert!(cache.delete("one").await.unwrap());
    assert!(cache.delete("two").await.unwrap());
    let told = cache.stats();
    assert_eq!((told.size, told.bytes, told.evictions), (0, 0, 0));
    cache.close().await;
}

#[tokio::test]
async fn as_many_are_evicted_as_do_not_fit() {
    let cache = cache(Config { entries_max: 100, ..Config::default() });
    for number in 0..1000 {
        cache.set(&format!("key:{number}"), Bytes::from_static(b"value"), Keep::new()).await.unwrap();
    }
    let told = cache.stats();
    assert_eq!(told.size + told.evictions, 1000, "{told:?}");
    assert!(told.size > 90 && told.size <= 100, "{told:?}");
    cache.close().await;
}

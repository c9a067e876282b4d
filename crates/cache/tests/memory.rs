//! A cache takes what it may take and hardly more, as the kernel sees it. A process of its own, so that nobody else's
//! memory is counted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tidegate_cache::{Cache, Config, Keep, Raw};
use tidegate_metrics::Registry;

const BYTES_MAX: u64 = 64 << 20;
/// The bench `cache` does ten million; these turn the whole cache over some forty times.
const INSERTS: usize = 1_500_000;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// 16 bytes to 16 KiB, small ones more often.
fn size(number: usize) -> usize {
    let spread = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let (power, rest) = ((spread % 10) as u32, spread / 10);
    (16 << power) + rest as usize % (16 << power)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_of_mixed_sizes_keep_memory_within_the_bound_and_a_fifth() {
    let config = Config { entries_max: 1 << 17, bytes_max: BYTES_MAX, ..Config::default() };
    let cache = Cache::memory(Raw, config, &Registry::new()).unwrap();
    let before = resident();
    let writers = [0, 1].map(|writer| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let mut most = 0;
            for number in (writer..INSERTS).step_by(2) {
                let value = Bytes::from(vec![b'x'; size(number)]);
                cache.set(&format!("key:{}", number % 400_000), value, Keep::new()).await.unwrap();
                if number % 1000 == writer {
                    most = most.max(resident());
                    let told = cache.stats();
                    assert!(told.bytes <= told.bytes_max, "{told:?}");
                }
            }
            most
        })
    });
    for writer in writers {
        let grown = writer.await.unwrap().saturating_sub(before);
        assert!(grown <= BYTES_MAX / 5 * 6, "{} KiB where {} may be taken", grown >> 10, BYTES_MAX >> 10);
    }
    // It is used, too.
    let told = cache.stats();
    assert!(told.bytes > BYTES_MAX / 10 * 9, "{told:?}");
    assert!(told.evictions > 0, "{told:?}");
    cache.close().await;
}

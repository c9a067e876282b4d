//! One process of the freshness checker: uses a cache on a shared Redis, as a seed says, and tells what it did.
//!
//! The checker (`tests/tests/freshness.rs`) starts several of these, breaks the network and Redis between them, and judges
//! what they told; it knows the cache only by this. Arguments are `name=value`, see `Settings`. It says `ready`, begins
//! at `go` on its input, ends at `stop` or at the end of its input, and says `end`. Between, one line for each thing that
//! happened, words apart by spaces, times in nanoseconds of the machine's monotonic clock:
//!
//! | line | |
//! |---|---|
//! | `v ID KEY TAGS START END` | a value was set; END is `-` when nobody knows whether |
//! | `l ID KEY TAGS AT`, `a ID KEY TAGS AT` | a loader read a value, or that there is none, at its source |
//! | `r KEY START END ID` | a call was given this value |
//! | `n KEY START END` | a call was told that there is no such thing |
//! | `c KIND WHAT START END` | a change (`key`, `tag`, `prefix`, `all`) was acknowledged |
//! | `x KEY ID` | a call was given bytes that nobody wrote |
//! | `s NAME NUMBER` | a counter, at the end |
//!
//! TAGS and WHAT are `-` where there is none; several tags are apart by commas.

mod acts;
mod record;
mod settings;

use std::io::BufRead;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_cache::{BoxError, Cache, Raw};
use tidegate_metrics::Registry;
use tidegate_redis_ops::Redis;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use acts::Actor;
use record::Record;
use settings::Settings;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), BoxError> {
    let settings = Arc::new(Settings::parse(std::env::args().skip(1))?);
    let mut input = input();
    let registry = Registry::new();
    // One that takes the place of another comes back when Redis is there.
    let Ok(redis) = Redis::connect(settings.redis()?, &registry).await else { return Ok(()) };
    let cache: Cache<Bytes> = Cache::connect(&redis, Raw, settings.cache(), &registry).await?;
    let record = Arc::new(Record::default());
    record.say(format_args!("ready"));
    if input.recv().await.as_deref() != Some("go") {
        return Ok(());
    }
    let stop = watch::Sender::new(false);
    let mut actors = JoinSet::new();
    for number in 0..settings.actors {
        let actor = Actor::new(number, settings.clone(), cache.clone(), record.clone());
        actors.spawn(actor.run(stop.subscribe()));
    }
    // Whatever comes next is `stop`, or the checker is gone.
    input.recv().await;
    stop.send_replace(true);
    while actors.join_next().await.is_some() {}
    told(&cache, &record);
    record.say(format_args!("end"));
    cache.close().await;
    Ok(())
}

/// Lines of the input. Its thread ends with the process.
fn input() -> UnboundedReceiver<String> {
    let (lines, inbox) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    inbox
}

/// The counters that show that something was tried.
fn told(cache: &Cache<Bytes>, record: &Record) {
    let stats = cache.stats();
    let redis = stats.redis.unwrap_or_default();
    let counters = [
        ("memory_hits", stats.memory.hits),
        ("memory_misses", stats.memory.misses),
        ("redis_hits", redis.hits),
        ("loads", stats.loads),
        ("load_failures", stats.load_failures),
        ("coalesced", stats.coalesced),
        ("stale_served", stats.stale_served),
        ("raced", stats.raced),
        ("invalidations", stats.invalidations),
        ("flushes", stats.flushes),
        ("bypassed", stats.bypassed),
        ("unreadable", stats.unreadable),
    ];
    for (name, number) in counters {
        record.tell(format_args!("s {name} {number}"));
    }
}

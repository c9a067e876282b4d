//! Stores a test can look into, kill and damage.

use std::path::Path;

use tempfile::TempDir;
use tidegate_events::{
    Bus, Clock, Config, Cursor, EventId, Listen, Listener, ManualClock, NewEvent, Published, Read, Source,
};
use tidegate_metrics::Registry;
use tidegate_store::{Batch, Durability, Store, Table};

use crate::conformance::{stream, texts};

pub const STREAMS: Table = Table(0);
pub const EVENTS: Table = Table(1);
pub const NOW: u64 = 1_700_000_000_000;

pub fn manual(start_ms: u64) -> (ManualClock, Config) {
    let clock = ManualClock::new(start_ms);
    (clock.clone(), Config { clock: Clock::Manual(clock), ..Config::default() })
}

pub async fn bus(store: &Store, config: Config) -> Bus {
    Bus::open(store.clone(), 0, config, &Registry::new()).await.unwrap()
}

pub fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn store_at(path: &Path, tables: &[&str], durability: Durability) -> Store {
    let config = tidegate_store::Config { durability, reserve_bytes: 0, ..tidegate_store::Config::new(path) };
    Store::open(config, tables, &Registry::new()).unwrap()
}

/// What is in the folder now, as a killed process would leave it.
pub fn as_killed(path: &Path) -> TempDir {
    let copy = folder();
    copy_all(path, copy.path());
    copy
}

pub fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub async fn publish(bus: &Bus, name: &str, events: Vec<NewEvent>) -> Vec<Published> {
    bus.publish(&stream(name), events).await.unwrap()
}

pub async fn publish_numbers(bus: &Bus, name: &str, range: std::ops::Range<usize>) -> Vec<EventId> {
    let events = range.map(|no| NewEvent::new(no.to_string())).collect();
    publish(bus, name, events).await.iter().map(|published| published.id).collect()
}

pub async fn all(bus: &Bus, name: &str) -> Vec<String> {
    texts(&bus.read(&stream(name), Read { limit: 1000, ..Read::default() }).await.unwrap().events)
}

pub async fn listen(bus: &Bus, name: &str, from: EventId) -> Listener {
    let sources = vec![Source::Stream(stream(name))];
    bus.listen(Listen { from: Some(Cursor::at(from)), ..Listen::to(sources) }).await.unwrap()
}

/// Keys in a table.
pub fn keys(store: &Store, table: u8) -> usize {
    let mut count = 0;
    let each = |_: &[u8], _: &[u8]| {
        count += 1;
        Ok::<_, tidegate_store::Error>(true)
    };
    store.scan(Table(table), b"", each).unwrap();
    count
}

pub async fn write(store: &Store, change: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    change(&mut batch);
    store.submit(batch).await.unwrap();
}

pub fn value_of(registry: &Registry, metric: &str) -> f64 {
    let text = registry.render_prometheus();
    let line = text.lines().find(|line| line.starts_with(&format!("{metric} "))).unwrap_or_else(|| panic!("{metric}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

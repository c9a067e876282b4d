//! What a caller does: reads, loads, and changes now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate_cache::{Cache, Invalidation, Keep};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::record::{Record, now};
use crate::settings::Settings;

/// Keys begin with one of these; the second covers the first as a prefix.
const FAMILIES: [&str; 3] = ["ab:", "a", "b:"];
const TAGS: [&str; 3] = ["red", "green", "blue"];
/// Ids of values: the process, then a number.
const NODE_SHIFT: u32 = 40;

static VALUES: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Actor {
    random: Random,
    settings: Arc<Settings>,
    cache: Cache<Bytes>,
    record: Arc<Record>,
}

impl Actor {
    pub(crate) fn new(number: u64, settings: Arc<Settings>, cache: Cache<Bytes>, record: Arc<Record>) -> Self {
        let random = Random(settings.seed ^ (settings.node << 32) ^ (number << 48));
        Self { random, settings, cache, record }
    }

    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            self.act().await;
            let pause = Duration::from_micros(self.random.below(2 * self.settings.pause_us + 1));
            if tokio::time::timeout(pause, stop.changed()).await.is_ok_and(|told| told.is_err()) {
                return;
            }
        }
    }

    async fn act(&mut self) {
        let (changes, wide) = (self.settings.changes, self.settings.wide);
        match self.random.below(1000) {
            dice if dice < changes => self.change().await,
            dice if dice < changes + wide => self.change_much().await,
            _ => self.read().await,
        }
    }

    async fn read(&mut self) {
        let key = self.key();
        match self.random.below(10) {
            0..=3 => self.get(&key).await,
            4..=7 => self.get_or_load(key).await,
            8 => self.peek(&key),
            _ => self.get_many().await,
        }
    }

    async fn get(&self, key: &str) {
        let start = now();
        let got = self.cache.get(key).await;
        if let Ok(Some(value)) = got {
            self.given(key, start, &value);
        }
    }

    fn peek(&self, key: &str) {
        let start = now();
        if let Some(value) = self.cache.peek(key) {
            self.given(key, start, &value);
        }
    }

    async fn get_many(&mut self) {
        let keys: Vec<String> = (0..2 + self.random.below(4)).map(|_| self.key()).collect();
        let start = now();
        let Ok(values) = self.cache.get_many(&keys).await else { return };
        for (key, value) in keys.iter().zip(values) {
            if let Some(value) = value {
                self.given(key, start, &value);
            }
        }
    }

    async fn get_or_load(&mut self, key: String) {
        let (keep, tags) = self.keep();
        let (record, loaded, what, source) = (self.record.clone(), next_id(&self.settings), key.clone(), self.source());
        let load = move || async move {
            tokio::time::sleep(source.before).await;
            let kind = if source.finds { 'l' } else { 'a' };
            // At once: others may hand it on after this process was killed.
            record.say(format_args!("{kind} {loaded} {what} {tags} {}", now()));
            tokio::time::sleep(source.after).await;
            match source.fails {
                true => Err("the source is away"),
                false => Ok(source.finds.then(|| value(loaded, &what))),
            }
        };
        let patience = self.patience();
        let start = now();
        match timeout(patience, self.cache.get_or_load(&key, keep, load)).await {
            Ok(Ok(Some(value))) => self.given(&key, start, &value),
            Ok(Ok(None)) => self.record.tell(format_args!("n {key} {start} {}", now())),
            Ok(Err(_)) | Err(_) => {}
        }
    }

    fn given(&self, key: &str, start: u64, value: &Bytes) {
        let end = now();
        let id = std::str::from_utf8(value).ok().and_then(|text| text.split('|').next()?.parse().ok());
        match id {
            Some(id) if *value == self::value(id, key) => self.record.tell(format_args!("r {key} {start} {end} {id}")),
            _ => self.record.tell(format_args!("x {key} {}", id.unwrap_or_default())),
        }
    }

    async fn change(&mut self) {
        match self.random.below(10) {
            0..=4 => self.set().await,
            5 | 6 => {
                let keys: Vec<String> = (0..1 + self.random.below(3)).map(|_| self.key()).collect();
                let (patience, start) = (self.patience(), now());
                if matches!(timeout(patience, self.cache.delete_many(&keys)).await, Ok(Ok(_))) {
                    keys.iter().for_each(|key| self.changed("key", key, start));
                }
            }
            _ => {
                let key = self.key();
                self.invalidate(&[("key", &key, Invalidation::key(key.as_str()))]).await;
            }
        }
    }

    async fn set(&mut self) {
        let mut entries = Vec::new();
        let mut told = Vec::new();
        for _ in 0..1 + self.random.below(8) / 6 {
            let (key, (keep, tags), id) = (self.key(), self.keep(), next_id(&self.settings));
            // Of two values for one key in a call nobody says which is kept.
            if told.iter().all(|(_, known, _)| *known != key) {
                entries.push((key.clone(), value(id, &key), keep));
                told.push((id, key, tags));
            }
        }
        let (patience, start) = (self.patience(), now());
        let is_done = matches!(timeout(patience, self.cache.set_many(entries)).await, Ok(Ok(())));
        let end = if is_done { now().to_string() } else { "-".to_owned() };
        for (id, key, tags) in told {
            self.record.tell(format_args!("v {id} {key} {tags} {start} {end}"));
            if is_done {
                self.changed("key", &key, start);
            }
        }
    }

    async fn change_much(&mut self) {
        let prefix = || ["a", "ab:", "b:", "ab:1", "b:2"];
        match self.random.below(10) {
            0..=3 => {
                let tag = self.random.of(&TAGS);
                self.invalidate(&[("tag", tag, Invalidation::tag(tag))]).await;
            }
            4..=6 => {
                let prefix = self.random.of(&prefix());
                self.invalidate(&[("prefix", prefix, Invalidation::prefix(prefix))]).await;
            }
            7 => {
                let (tag, prefix) = (self.random.of(&TAGS), self.random.of(&prefix()));
                let both = [("tag", tag, Invalidation::tag(tag)), ("prefix", prefix, Invalidation::prefix(prefix))];
                self.invalidate(&both).await;
            }
            8 => self.invalidate(&[("all", "-", Invalidation::All)]).await,
            _ => {
                let prefix = self.random.of(&prefix());
                let (never, start) = (CancellationToken::new(), now());
                if self.cache.clear(Some(prefix), |_| {}, &never).await.is_ok() {
                    self.changed("prefix", prefix, start);
                }
            }
        }
    }

    /// Each by its kind and what is told of it.
    async fn invalidate(&mut self, what: &[(&str, &str, Invalidation)]) {
        let all: Vec<Invalidation> = what.iter().map(|(.., one)| one.clone()).collect();
        let (patience, start) = (self.patience(), now());
        if matches!(timeout(patience, self.cache.invalidate_all(&all)).await, Ok(Ok(()))) {
            what.iter().for_each(|(kind, name, _)| self.changed(kind, name, start));
        }
    }

    fn changed(&self, kind: &str, what: &str, start: u64) {
        self.record.tell(format_args!("c {kind} {what} {start} {}", now()));
    }

    /// How long a call is waited for: now and then so shortly that it is dropped half way.
    fn patience(&mut self) -> Duration {
        match self.random.below(25) {
            0 => Duration::from_micros(self.random.below(3000)),
            _ => Duration::from_secs(60),
        }
    }

    fn key(&mut self) -> String {
        let number = self.random.below(self.settings.keys);
        format!("{}{number}", FAMILIES[(number % 3) as usize])
    }

    /// How a value is kept, and its tags as they are told.
    fn keep(&mut self) -> (Keep, String) {
        let tags: Vec<&str> = match self.random.below(4) {
            0 => Vec::new(),
            1 => TAGS[..2].to_vec(),
            _ => vec![self.random.of(&TAGS)],
        };
        let keep = match self.random.below(4) {
            _ if self.settings.is_calm => Keep::new(),
            0 => Keep::new()
                .ttl(Duration::from_millis(50 + self.random.below(200)))
                .stale_while_revalidate(Duration::from_millis(self.random.below(800))),
            1 => Keep::new().ttl(Duration::from_millis(100 + self.random.below(1000))),
            _ => Keep::new(),
        };
        let told = if tags.is_empty() { "-".to_owned() } else { tags.join(",") };
        (keep.tags(tags), told)
    }

    fn source(&mut self) -> Source {
        let millis = Duration::from_millis;
        let slowest = self.settings.load_ms_max();
        let after = match self.random.below(1000) {
            dice if dice < self.settings.slow_loads => slowest / 3 + self.random.below(slowest * 2 / 3),
            dice if dice < 300 => self.random.below(40),
            dice if dice < 400 => self.random.below(slowest / 3),
            _ => 0,
        };
        Source {
            before: millis(self.random.below(4)),
            after: millis(after),
            finds: self.random.below(12) > 0 || self.settings.is_calm,
            fails: self.random.below(20) == 0 && !self.settings.is_calm,
        }
    }
}

/// What a loader will do.
struct Source {
    before: Duration,
    after: Duration,
    finds: bool,
    fails: bool,
}

fn next_id(settings: &Settings) -> u64 {
    (settings.node << NODE_SHIFT) + VALUES.fetch_add(1, Ordering::Relaxed)
}

/// The bytes of a value: its id and key, so that mixed-up ones are seen, and what makes some long, with or without a
/// pattern.
fn value(id: u64, key: &str) -> Bytes {
    let mut text = format!("{id}|{key}|");
    let mut random = Random(id);
    match id % 8 {
        0 => text.extend(std::iter::repeat_n('x', 3000)),
        1 => text.extend((0..700).map(|_| char::from(b'!' + (random.below(90) as u8)))),
        _ => {}
    }
    text.into()
}

/// splitmix64: small, seeded, good enough to vary a test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.next() % all.len() as u64) as usize]
    }
}

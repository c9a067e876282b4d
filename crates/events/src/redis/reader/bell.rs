//! Live streams that are not in the blocked read: read when rung for, when the bell may not have been heard, and once a
//! second in case others wrote to them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tidegate_redis_ops::{Error as RedisError, Signal, StreamId, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::assign::Assigned;
use super::news::News;
use super::take::{CHUNK, Taken};
use super::{Reader, stay};
use crate::hub::Live;
use crate::redis::restarts::Restarts;
use crate::{EventId, StreamName};

/// A pass over all streams takes at least so long.
const PASS: Duration = Duration::from_secs(1);
/// Between two pieces of a pass at least. 5 ms; a cluster reads each stream by a command of its own, so 100 ms there.
const PIECE: Duration = Duration::from_millis(5);
const PIECE_CLUSTER: Duration = Duration::from_millis(100);
/// Every so many passes the ends of the streams are checked, too.
const CHECKED_PASSES: u64 = 10;
/// Streams read in one go; more wait for the next.
const READ_AT_ONCE: usize = 1000;

type Work = BoxFuture<'static, (Vec<Arc<Live>>, Result<Taken, RedisError>)>;

/// The ear of the process.
struct Bell {
    reader: Arc<Reader>,
    assigned: Assigned,
    direct: HashSet<StreamName>,
    subscription: Option<Subscription>,
    /// Redis has confirmed the subscription, and nothing was missed since.
    hears: bool,
    /// To be read.
    pending: HashMap<StreamName, Arc<Live>>,
    /// The read under way; over when there is none.
    reading: Option<Work>,
    sweep: Sweep,
    news: News,
    /// Streams that were rung for since the bell is heard: those who follow patterns know of them.
    known: HashSet<StreamName>,
}

/// A pass over the streams, piece by piece.
struct Sweep {
    next_at: Instant,
    place: usize,
    passes: u64,
    work: Option<Work>,
}

pub(super) async fn run(reader: Arc<Reader>, mut assigned: watch::Receiver<Assigned>) {
    let mut reconnects = reader.shared.redis.reconnects();
    let mut bell = Bell {
        news: News::default(),
        known: HashSet::new(),
        assigned: Assigned::default(),
        direct: HashSet::new(),
        subscription: None,
        hears: false,
        pending: HashMap::new(),
        reading: None,
        sweep: Sweep { next_at: Instant::now(), place: 0, passes: 0, work: None },
        reader,
    };
    loop {
        bell.begin_reading();
        let has_rung = !bell.assigned.rung.is_empty();
        let follows_patterns = bell.assigned.follows_patterns;
        tokio::select! {
            changed = assigned.changed() => match changed {
                Ok(()) => {
                    let next = assigned.borrow_and_update().clone();
                    bell.assign(next);
                }
                Err(_) => return,
            },
            signal = next_signal(&mut bell.subscription) => bell.hear(signal),
            (streams, taken) = under_way(&mut bell.reading) => bell.was_read(streams, taken),
            (_, taken) = under_way(&mut bell.sweep.work) => bell.was_swept(taken),
            _ = reconnects.changed() => bell.reconnected(),
            () = sleep_until(bell.sweep.next_at), if has_rung && bell.sweep.work.is_none() => bell.begin_piece(),
            () = bell.news.wait(&bell.reader.shared.registry), if follows_patterns => bell.news.tell(&bell.reader.shared),
        }
    }
}

async fn next_signal(subscription: &mut Option<Subscription>) -> Signal {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

/// Its outcome, after which there is none.
async fn under_way(work: &mut Option<Work>) -> (Vec<Arc<Live>>, Result<Taken, RedisError>) {
    let Some(running) = work else { return std::future::pending().await };
    let outcome = running.await;
    *work = None;
    outcome
}

impl Bell {
    /// Streams that come in are read once, so that what came before the first bell is not missed.
    fn assign(&mut self, next: Assigned) {
        let before: HashSet<usize> = self.assigned.rung.iter().map(stay).collect();
        let new: Vec<Arc<Live>> = next.rung.iter().filter(|live| !before.contains(&stay(live))).cloned().collect();
        self.direct = next.direct.iter().map(|live| live.name().clone()).collect();
        self.assigned = next;
        match (self.assigned.listens, self.subscription.is_some()) {
            (true, false) => self.subscription = Some(self.subscribe()),
            (false, true) => {
                self.subscription = None;
                self.set_hears(false);
            }
            _ => {}
        }
        if !self.assigned.listens {
            self.pending.clear();
        }
        if !self.assigned.follows_patterns {
            self.news = News::default();
        }
        if self.hears {
            self.want(new);
        }
    }

    fn set_hears(&mut self, hears: bool) {
        self.hears = hears;
        if !hears {
            self.known.clear();
        }
        self.reader.hears.store(hears, Ordering::Relaxed);
    }

    fn subscribe(&self) -> Subscription {
        let shared = &self.reader.shared;
        shared.redis.subscribe(shared.keys.bell.clone())
    }

    fn want(&mut self, streams: impl IntoIterator<Item = Arc<Live>>) {
        self.pending.extend(streams.into_iter().map(|live| (live.name().clone(), live)));
    }

    fn hear(&mut self, signal: Signal) {
        match signal {
            Signal::Lost => self.set_hears(false),
            Signal::Subscribed | Signal::Missed => {
                self.set_hears(true);
                self.want(self.assigned.rung.to_vec());
                // Of streams that were made before, nobody has rung here.
                self.reader.shared.registry.doubt();
                // Whatever was said meanwhile: deliveries may have been given back.
                self.reader.shared.hub.live().iter().for_each(|live| live.wake());
            }
            Signal::Message(message) => self.message(&message),
        }
    }

    /// See `keys.rs`.
    fn message(&mut self, message: &[u8]) {
        let (shared, space) = (&self.reader.shared, |text: &[u8]| text.iter().position(|byte| *byte == b' '));
        match message.split_first() {
            Some((b'?', key)) => {
                if let Some(name) = shared.keys.name(key) {
                    shared.hub.poke(&name);
                }
            }
            Some((b'!', who)) => {
                let mut words = who.splitn(3, |byte| *byte == b' ');
                let (Some(process), Some(end), Some(key)) = (words.next(), words.next(), words.next()) else { return };
                let end = StreamId::from_bytes(end).map(EventId::from);
                let name = shared.keys.name(key);
                if let Some(name) = &name {
                    self.known.remove(name);
                }
                if let (Some(name), Some(end)) = (name, end)
                    && process != shared.process.as_bytes()
                {
                    shared.registry.deleted(key);
                    shared.hub.deleted(&name, end);
                }
            }
            Some(_) => {
                let Some((id, key)) = space(message).map(|at| (&message[..at], &message[at + 1..])) else { return };
                if let (Some(id), Some(name)) = (StreamId::from_bytes(id), shared.keys.name(key)) {
                    self.rung(&name, id.into());
                }
            }
            // The bus was opened somewhere.
            None => {}
        }
    }

    /// A stream may be new to those who follow patterns also where somebody waits for it already.
    fn meet(&mut self, name: &StreamName) {
        let shared = &self.reader.shared;
        if self.known.contains(name) {
            return;
        }
        if self.known.len() >= shared.config.streams_max {
            self.known.clear();
        }
        self.known.insert(name.clone());
        shared.registry.created(&shared.keys.stream(name));
        shared.hub.created(name);
    }

    fn rung(&mut self, name: &StreamName, id: EventId) {
        self.meet(name);
        let shared = &self.reader.shared;
        match shared.hub.find(name) {
            None => {}
            Some(_) if self.direct.contains(name) => {}
            // Known already, or not yet wanted.
            Some(live) if live.tail().is_none_or(|tail| tail >= id) => {}
            Some(live) => self.want([live]),
        }
    }

    fn begin_reading(&mut self) {
        if self.reading.is_some() || self.pending.is_empty() {
            return;
        }
        let streams: Vec<Arc<Live>> = if self.pending.len() <= READ_AT_ONCE {
            self.pending.drain().map(|(_, live)| live).collect()
        } else {
            let names: Vec<StreamName> = self.pending.keys().take(READ_AT_ONCE).cloned().collect();
            names.iter().filter_map(|name| self.pending.remove(name)).collect()
        };
        let reader = Arc::clone(&self.reader);
        reader.counters.rung.inc();
        self.reading = Some(
            async move {
                let taken = reader.take(&streams).await;
                if let Err(error) = &taken {
                    tracing::debug!(%error, "live streams could not be read");
                    sleep(Restarts::PAUSE).await;
                }
                (streams, taken)
            }
            .boxed(),
        );
    }

    fn was_read(&mut self, streams: Vec<Arc<Live>>, taken: Result<Taken, RedisError>) {
        match taken {
            Ok(taken) => self.want(taken.again),
            Err(_) => self.want(streams),
        }
    }

    /// Another Redis may be there: it may have less than was heard.
    fn reconnected(&mut self) {
        let streams = self.assigned.rung.to_vec();
        if streams.is_empty() {
            return;
        }
        self.want(streams);
        // The next piece begins with a pass that checks all ends.
        self.sweep.passes = 0;
        self.sweep.place = 0;
    }

    fn begin_piece(&mut self) {
        let rung = &self.assigned.rung;
        if self.sweep.place >= rung.len() {
            self.sweep.place = 0;
            self.sweep.passes += 1;
        }
        let until = rung.len().min(self.sweep.place + CHUNK);
        let streams = rung[self.sweep.place..until].to_vec();
        self.sweep.place = until;
        let pieces = u32::try_from(rung.len().div_ceil(CHUNK)).unwrap_or(u32::MAX);
        let shared = &self.reader.shared;
        let least = if shared.is_cluster() { PIECE_CLUSTER } else { PIECE };
        self.sweep.next_at = Instant::now() + (PASS / pieces.max(1)).max(least);
        if !shared.redis.is_ready() {
            return;
        }
        let is_checked = self.sweep.passes.is_multiple_of(CHECKED_PASSES);
        let reader = Arc::clone(&self.reader);
        reader.counters.sweep.inc();
        self.sweep.work = Some(
            async move {
                let taken = match is_checked {
                    true => reader.check_ends(&streams).await,
                    false => Ok(()),
                };
                let taken = match taken {
                    Ok(()) => reader.take(&streams).await,
                    Err(error) => Err(error),
                };
                (streams, taken)
            }
            .boxed(),
        );
    }

    fn was_swept(&mut self, taken: Result<Taken, RedisError>) {
        match taken {
            Ok(taken) => self.want(taken.again),
            Err(error) => tracing::debug!(%error, "live streams could not be swept"),
        }
    }
}

//! [`Listener`]: a cursor over one or more live streams.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::Write;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::listen::{Gap, GapReason, Heard, Listen, Slow, Source};
use super::live::CaughtUp;
use super::log::{Chunk, Item, Next, Turn};
use super::seat::{Bits, Seat};
use super::{Live, Shared};
use crate::backend::Backend;
use crate::frame::{HEARTBEAT, put_data};
use crate::{Clock, Cursor, Error, EventId, Pattern, StreamName};

/// A listener that has not come back for more after so long is stalled, not merely late.
const STALLED: Duration = Duration::from_secs(1);
/// Streams of a pattern that have been silent for so long are not named in cursors: whatever is published to them later has
/// a later id. A minute: more than clocks of machines differ.
const SILENT_MS: u64 = 60_000;
/// Between two tries to read the log.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// Bodies from here on are shared, smaller ones copied next to their ids.
const SHARED_BYTES: usize = 1024;

/// A cursor over streams: hears every event after its place once and in order per stream, or is told of a gap. Dropping it
/// is leaving.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tidegate_events::{Bus, Config, Heard, Listen, NewEvent, Source, StreamName, TABLES};
///
/// let store = tidegate_store::Store::memory(TABLES);
/// let bus = Bus::open(store, 0, Config::default(), &tidegate_metrics::Registry::new()).await?;
/// let mut listener = bus.listen(Listen::to(vec![Source::parse("order.*")?])).await?;
/// bus.publish(&StreamName::new("order.created")?, vec![NewEvent::new("7")]).await?;
/// let Some(Heard::Event(stream, event)) = listener.next().await else { panic!("an event") };
/// assert_eq!((stream.as_str(), &event.data[..]), ("order.created", &b"7"[..]));
/// # Ok(()) }
/// ```
pub struct Listener {
    hub: Arc<Shared>,
    backend: Backend,
    seat: Arc<Seat>,
    sources: Vec<Following>,
    /// Where streams begin that are made later; also decides how ids are written.
    from: Cursor,
    has_patterns: bool,
    /// It began with what comes next, not at a place somebody had come to.
    is_new: bool,
    slow: Slow,
    /// Sources that may have something.
    todo: Bits,
    /// Sources that must read the log, and the one that does.
    behind: VecDeque<u32>,
    catching_up: Option<(u32, AbortOnDropHandle<CaughtUp>)>,
    /// When it was last given something, until it asked in vain.
    given_at: Option<Instant>,
    /// A chunk of which `next` has given a part.
    rest: Option<(usize, Arc<Chunk>, EventId)>,
    /// Its place has been written before the first frame.
    is_announced: bool,
    has_ended: bool,
}

/// One stream of a listener.
struct Following {
    live: Arc<Live>,
    place: usize,
    /// It was asked for by its name.
    is_named: bool,
    /// Where it begins is a guess at what is before its first event: nobody has heard anything yet that could be missing.
    is_assumed: bool,
    /// How far it has come.
    at: EventId,
    /// Where it goes on in the shared log; `None`: to be found.
    turn: Option<Turn>,
    /// What comes before that, last first.
    own: Vec<Item>,
}

/// What there is for a listener.
enum Told {
    /// The events of a chunk after a place.
    Chunk(usize, Arc<Chunk>, EventId),
    Gap(usize, Gap),
    Silence,
}

/// What one source has.
enum Step {
    Told(Told),
    Nothing,
    Behind,
    /// The listener is closed.
    End,
}

impl Listener {
    pub(crate) async fn open(hub: &Arc<Shared>, backend: &Backend, listen: Listen) -> Result<Self, Error> {
        let Listen { sources, from, slow } = listen;
        if hub.draining.is_cancelled() {
            return Err(Error::Draining);
        }
        if sources.is_empty() {
            return Err(Error::Invalid { field: "streams", reason: "at least one".into() });
        }
        let patterns: Vec<Pattern> = sources
            .iter()
            .filter_map(|source| match source {
                Source::Pattern(pattern) => Some(pattern.clone()),
                Source::Stream(_) => None,
            })
            .collect();
        let is_new = from.is_none();
        let mut from = from.unwrap_or_default();
        if !patterns.is_empty() && from.base.is_none() {
            from.base = Some(silent_before(Clock::System.now_ms()));
        }
        let mut listener = Self {
            hub: Arc::clone(hub),
            backend: backend.clone(),
            seat: Arc::new(Seat::default()),
            sources: Vec::new(),
            from,
            has_patterns: !patterns.is_empty(),
            is_new,
            slow,
            todo: Bits::default(),
            behind: VecDeque::new(),
            catching_up: None,
            given_at: None,
            rest: None,
            is_announced: false,
            has_ended: false,
        };
        hub.metrics.listeners.add(1.0);
        if !patterns.is_empty() {
            hub.follow_patterns(&listener.seat, patterns.clone());
        }
        for source in &sources {
            if let Some(stream) = source.stream() {
                listener.follow(stream, true)?;
            }
        }
        for pattern in &patterns {
            for stream in backend.matching(pattern, hub.config.sources_max + 1).await? {
                listener.follow(&stream, false)?;
            }
        }
        listener.start().await?;
        listener.seat.sent(hub.wheel.now());
        hub.wheel.add(Arc::downgrade(&listener.seat));
        hub.first.notify_one();
        Ok(listener)
    }

    /// Learns where the streams end, and begins there what has no other place to begin.
    async fn start(&mut self) -> Result<(), Error> {
        try_join_all(self.sources.iter().map(|following| following.live.start(&self.backend))).await?;
        for (source, following) in self.sources.iter_mut().enumerate() {
            let place = match self.is_new {
                true => None,
                false => self.from.of(following.live.name()),
            };
            match (place, following.live.end()) {
                (Some(at), _) => following.at = at,
                (None, Some((at, turn))) => (following.at, following.turn) = (at, Some(turn)),
                (None, None) => {}
            }
            following.is_assumed &= !self.is_new && self.has_patterns;
            set(&mut self.todo, source as u32);
        }
        Ok(())
    }

    /// Also follows a stream, from the place the cursor has for it.
    fn follow(&mut self, stream: &StreamName, is_named: bool) -> Result<(), Error> {
        if self.sources.iter().any(|following| following.live.name() == stream) {
            return Ok(());
        }
        let capacity = self.hub.config.sources_max;
        if self.sources.len() >= capacity {
            return Err(Error::TooMany { what: "streams for one listener", capacity });
        }
        let source = self.sources.len() as u32;
        let (live, place) = self.hub.sit(stream, &self.seat, source);
        let at = self.from.of(stream).unwrap_or_default();
        let is_assumed = self.is_new || !self.from.places.contains_key(stream);
        self.sources.push(Following { live, place, is_named, is_assumed, at, turn: None, own: Vec::new() });
        set(&mut self.todo, source);
        Ok(())
    }

    /// The next event or gap; `None` at the end: the bus drains, or it was closed for being slow. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.next_of_rest() {
                return Some(heard);
            }
            match poll_fn(|cx| self.poll_told(cx)).await? {
                Told::Chunk(source, chunk, after) => self.rest = Some((source, chunk, after)),
                Told::Gap(source, gap) => return Some(Heard::Gap(self.name(source).clone(), gap)),
                Told::Silence => {}
            }
        }
    }

    fn next_of_rest(&mut self) -> Option<Heard> {
        let (source, chunk, after) = self.rest.as_mut()?;
        let (source, next) = (*source, chunk.after(*after).first().cloned());
        match next {
            Some(event) => {
                *after = event.id;
                self.hub.metrics.delivered.inc();
                Some(Heard::Event(self.name(source).clone(), event))
            }
            None => {
                self.rest = None;
                None
            }
        }
    }

    /// Appends frames of server-sent events that are ready, up to about `bytes_max`, in few shared pieces: events, gaps,
    /// and a comment after silence. `Ready(false)` at the end: the bus drains, or it was closed for being slow.
    ///
    /// Of one named stream the `id` of a frame is that of its event; of several it is a [`Cursor`] that begins with the event's
    /// own stream. The first frame is an `id` without data, so that who is cut off before the first event comes back to
    /// where it began.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>, frames: &mut Vec<Bytes>, bytes_max: usize) -> Poll<bool> {
        let mut bytes = 0;
        if !self.is_announced && !self.hub.draining.is_cancelled() {
            self.is_announced = true;
            let place = self.frame_place();
            bytes = place.len();
            frames.push(place);
        }
        while bytes < bytes_max {
            match self.poll_told(cx) {
                Poll::Ready(Some(told)) => bytes += self.frame(&told, frames),
                Poll::Ready(None) if bytes == 0 => return Poll::Ready(false),
                Poll::Pending if bytes == 0 => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        // Until it asks again, it is busy with these.
        self.given_at = Some(Instant::now());
        Poll::Ready(true)
    }

    /// How far it has come.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let places = self.sources.iter().enumerate().map(|(source, following)| {
            let at = match &self.rest {
                Some((of, _, after)) if *of == source => *after,
                _ => following.at,
            };
            (following.live.name().clone(), at)
        });
        Cursor { base: self.has_patterns.then(|| self.base()), places: places.collect() }
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        self.seat.register(cx.waker());
        if self.has_ended || self.hub.draining.is_cancelled() {
            return Poll::Ready(None);
        }
        for (todo, ready) in self.todo.iter_mut().zip(self.seat.take_ready()) {
            *todo |= ready;
        }
        if self.has_patterns && !self.follow_made() {
            self.has_ended = true;
            return Poll::Ready(None);
        }
        let told = self.poll_sources(cx);
        match &told {
            Poll::Ready(_) => {
                self.given_at = Some(Instant::now());
                self.seat.sent(self.hub.wheel.now());
            }
            Poll::Pending => self.given_at = None,
        }
        told
    }

    /// Follows streams made since. `false`: there are more than one listener may follow; it is closed, and told so when it
    /// comes back.
    fn follow_made(&mut self) -> bool {
        self.seat.take_made().iter().all(|stream| self.follow(stream, false).is_ok())
    }

    fn poll_sources(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        loop {
            while let Some(source) = first(&self.todo) {
                match self.step(source as usize) {
                    Step::Told(told) => return Poll::Ready(Some(told)),
                    Step::Nothing => clear(&mut self.todo, source),
                    Step::Behind => {
                        clear(&mut self.todo, source);
                        if !self.behind.contains(&source) {
                            self.behind.push_back(source);
                        }
                    }
                    Step::End => {
                        self.has_ended = true;
                        self.hub.metrics.slow_closed.inc();
                        return Poll::Ready(None);
                    }
                }
            }
            if self.poll_catch_up(cx).is_pending() {
                return if self.seat.take_beat() { Poll::Ready(Some(Told::Silence)) } else { Poll::Pending };
            }
        }
    }

    /// Ready when a source has come further; pending also when none is behind.
    fn poll_catch_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.catching_up.is_none()
            && let Some(source) = self.behind.pop_front()
        {
            let following = &self.sources[source as usize];
            let reading =
                catch_up(Arc::clone(&self.hub), Arc::clone(&following.live), self.backend.clone(), following.at);
            // A task: it holds what others wait for, and this listener may not come back for a long time.
            self.catching_up = Some((source, AbortOnDropHandle::new(self.hub.tasks.spawn(reading))));
        }
        let Some((source, reading)) = self.catching_up.as_mut() else { return Poll::Pending };
        let (source, caught_up) = (*source, ready!(reading.poll_unpin(cx)));
        self.catching_up = None;
        // It ends early with the runtime only.
        let Ok(caught_up) = caught_up else { return Poll::Pending };
        let following = &mut self.sources[source as usize];
        match caught_up {
            CaughtUp::InLog => following.find(),
            CaughtUp::Nothing(until) => {
                following.at = following.at.max(until);
                following.find();
            }
            CaughtUp::Items(items) => {
                following.own = items;
                following.own.reverse();
            }
        }
        set(&mut self.todo, source);
        Poll::Ready(())
    }

    fn step(&mut self, source: usize) -> Step {
        // What is being read follows on where it is now.
        if self.is_catching_up(source) {
            return Step::Nothing;
        }
        let is_stalled = self.given_at.is_some_and(|at| at.elapsed() > STALLED);
        let following = &mut self.sources[source];
        loop {
            let item = match following.own.pop() {
                Some(item) => item,
                None => {
                    let Some(turn) = following.turn.or_else(|| following.live.turn_at(following.at)) else {
                        return Step::Behind;
                    };
                    following.turn = Some(turn);
                    match following.live.next(turn, following.at) {
                        Next::Item(item) => {
                            following.turn = Some(turn + 1);
                            item
                        }
                        Next::End => return Step::Nothing,
                        Next::Gone => match following.fall_behind(is_stalled, self.slow) {
                            Some(item) => item,
                            None if is_stalled && self.slow == Slow::Close => return Step::End,
                            None => return Step::Behind,
                        },
                    }
                }
            };
            if let Some(told) = following.hear(source, item, self.is_new) {
                if let Told::Gap(_, gap) = &told {
                    self.hub.metrics.gap(gap.reason);
                }
                return Step::Told(told);
            }
        }
    }

    fn is_catching_up(&self, source: usize) -> bool {
        self.catching_up.as_ref().is_some_and(|(other, _)| *other as usize == source)
    }

    fn name(&self, source: usize) -> &StreamName {
        self.sources[source].live.name()
    }

    /// Appends the frames of what was told and says how many bytes they have.
    fn frame(&mut self, told: &Told, frames: &mut Vec<Bytes>) -> usize {
        let before = frames.len();
        match told {
            Told::Chunk(source, chunk, after) => {
                self.hub.metrics.delivered.add(chunk.after(*after).len() as u64);
                if self.is_plain() {
                    frames.push(chunk.frames_after(*after));
                } else {
                    self.frame_each(*source, chunk, *after, frames);
                }
            }
            Told::Gap(source, gap) => frames.push(self.frame_gap(*source, gap)),
            Told::Silence if self.has_patterns => {
                // Its cursor moves on with time.
                frames.push(Bytes::from_static(b":\n"));
                frames.push(self.frame_place());
            }
            Told::Silence => frames.push(Bytes::from_static(HEARTBEAT)),
        }
        frames[before..].iter().map(Bytes::len).sum()
    }

    /// One stream, asked for by name: the ids of its events are its cursor.
    fn is_plain(&self) -> bool {
        !self.has_patterns && self.sources.len() == 1
    }

    /// Frames with a cursor each.
    fn frame_each(&self, source: usize, chunk: &Chunk, after: EventId, frames: &mut Vec<Bytes>) {
        let mut small = Vec::new();
        for (id, body) in chunk.bodies_after(after) {
            self.put_id(&mut small, Some((source, id)));
            if body.len() < SHARED_BYTES {
                small.extend_from_slice(&body);
            } else {
                frames.push(std::mem::take(&mut small).into());
                frames.push(body);
            }
        }
        if !small.is_empty() {
            frames.push(small.into());
        }
    }

    fn frame_gap(&self, source: usize, gap: &Gap) -> Bytes {
        let mut frame = Vec::new();
        self.put_id(&mut frame, Some((source, gap.to)));
        frame.extend_from_slice(b"event: gap\n");
        let (stream, reason) = (self.name(source), gap.reason.as_str());
        // Names and ids need no escaping.
        let data = format!(r#"{{"stream":"{stream}","from":"{}","to":"{}","reason":"{reason}"}}"#, gap.from, gap.to);
        put_data(&mut frame, data.as_bytes());
        frame.push(b'\n');
        frame.into()
    }

    /// A frame that says how far this has come and nothing else.
    fn frame_place(&self) -> Bytes {
        let mut frame = Vec::new();
        self.put_id(&mut frame, None);
        frame.push(b'\n');
        frame.into()
    }

    /// The line `id` of a frame: where this has come with it, the stream it is of first.
    fn put_id(&self, frame: &mut Vec<u8>, of: Option<(usize, EventId)>) {
        // Writing to a vector cannot fail.
        if let (true, Some(only)) = (self.is_plain(), self.sources.first()) {
            let _ = writeln!(frame, "id: {}", of.map_or(only.at, |(_, id)| id));
            return;
        }
        let base = self.has_patterns.then(|| self.base());
        let mut separator = "id: ";
        let mut put = |name: &StreamName, id: EventId| {
            let _ = write!(frame, "{separator}{name}={id}");
            separator = ";";
        };
        if let Some((source, id)) = of {
            put(self.name(source), id);
        }
        for (other, following) in self.sources.iter().enumerate() {
            let is_own = of.is_some_and(|(source, _)| source == other);
            if !is_own && (following.is_named || base.is_none_or(|base| self.is_listed(other, base))) {
                put(following.live.name(), following.at);
            }
        }
        let _ = match base {
            Some(base) => writeln!(frame, "{separator}~={base}"),
            None => writeln!(frame),
        };
    }

    /// What may be said of all streams that are not named in a cursor.
    fn base(&self) -> EventId {
        self.from.base.unwrap_or_default().max(silent_before(self.backend.proven_ms(&self.hub)))
    }

    /// Whether a stream must be named: it has spoken since, or has still to be heard.
    fn is_listed(&self, source: usize, base: EventId) -> bool {
        let source_no = source as u32;
        self.sources[source].at > base
            || is_set(&self.todo, source_no)
            || self.behind.contains(&source_no)
            || self.is_catching_up(source)
    }
}

impl Following {
    /// Finds its place in the shared log, unless it has fallen out of it again. One that is ahead, as another process has
    /// seen it, waits for the log to come by.
    fn find(&mut self) {
        let ahead = || self.live.end().filter(|(tail, _)| *tail < self.at).map(|(_, turn)| turn);
        self.turn = self.live.turn_after(self.at).or_else(ahead);
    }

    /// What it tells; nothing when all of it was heard before.
    fn hear(&mut self, source: usize, item: Item, is_new: bool) -> Option<Told> {
        let from = self.at;
        let goes_back = matches!(&item, Item::Gap { reason: GapReason::Rewound | GapReason::Deleted, .. });
        if item.to() <= from && !goes_back {
            return None;
        }
        self.at = item.to();
        let is_assumed = std::mem::take(&mut self.is_assumed);
        // Of one that begins now nothing is missing. One that comes back has heard nothing of a stream its cursor does not
        // name, so that this ends before the time of the cursor is as it should be.
        let is_told = match &item {
            Item::Gap { reason, .. } if is_assumed => !is_new && *reason != GapReason::Rewound,
            _ => true,
        };
        if !is_told {
            return None;
        }
        Some(match (item.gap(from), item) {
            (None, Item::Chunk(chunk)) => Told::Chunk(source, chunk, from),
            (Some(gap), _) => Told::Gap(source, gap),
            (None, Item::Gap { .. }) => return None,
        })
    }

    /// Its place is no longer in the shared log: a stalled one skips as it asked; one that is merely late reads on.
    fn fall_behind(&mut self, is_stalled: bool, slow: Slow) -> Option<Item> {
        self.turn = None;
        let (to, turn) = match slow {
            _ if !is_stalled => return None,
            Slow::Close => return None,
            Slow::Skip => self.live.oldest()?,
            Slow::Latest => self.live.end()?,
        };
        self.turn = Some(turn);
        Some(Item::Gap { to, reason: GapReason::Slow })
    }
}

/// Reads the log, again and again while it cannot be read.
async fn catch_up(hub: Arc<Shared>, live: Arc<Live>, backend: Backend, at: EventId) -> CaughtUp {
    let mut pauses = PAUSES.iter();
    let mut pause = PAUSES[0];
    loop {
        match live.catch_up(&backend, at).await {
            Ok(caught_up) => return caught_up,
            Err(error) => tracing::debug!(stream = %live.name(), %error, "the log cannot be read, trying again"),
        }
        pause = *pauses.next().unwrap_or(&pause);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Its listener has ended.
            () = hub.draining.cancelled() => return CaughtUp::InLog,
        }
    }
}

/// Streams that were silent since then need no place of their own.
fn silent_before(now_ms: u64) -> EventId {
    EventId::before_time(now_ms.saturating_sub(SILENT_MS))
}

fn set(bits: &mut Bits, source: u32) {
    bits[source as usize / 64] |= 1 << (source % 64);
}

fn clear(bits: &mut Bits, source: u32) {
    bits[source as usize / 64] &= !(1 << (source % 64));
}

fn is_set(bits: &Bits, source: u32) -> bool {
    bits[source as usize / 64] & (1 << (source % 64)) != 0
}

fn first(bits: &Bits) -> Option<u32> {
    let word = bits.iter().position(|word| *word != 0)?;
    Some(word as u32 * 64 + bits[word].trailing_zeros())
}

impl Drop for Listener {
    fn drop(&mut self) {
        for following in &self.sources {
            self.hub.leave(&following.live, following.place);
        }
        if self.has_patterns {
            self.hub.leave_patterns(&self.seat);
        }
        self.hub.metrics.listeners.sub(1.0);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("cursor", &self.cursor().to_string()).finish_non_exhaustive()
    }
}

//! One thread of a crowd: an event loop over its share of the listeners.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use super::crowd::{Counts, CrowdPlan, Outcome, Record, Shared};
use super::event_id::EventId;
use super::histogram::Histogram;
use super::listener::{Listener, Phase, connect, source};
use super::order::Heard;
use super::reading::{Broken, Frame, Mark};

/// 256 connections under way at once: enough to keep a server busy, and below any accept queue.
const OPENING_MAX: usize = 256;

/// 10 s: a server that sends no head by then will not.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Of those that leave, one in eight stays away for a while, so that it misses what happens then: a restart, a loss.
const AWAY_EVERY: u32 = 8;
const AWAY: Duration = Duration::from_millis(1500);

/// 20 ms: how soon what the owner of the crowd wants is seen.
const TICK: Duration = Duration::from_millis(20);

/// 256 KiB: several bursts in one read.
const BUFFER: usize = 256 << 10;

/// 100 million events of one stream: a number beyond was not published by us.
const NUMBER_MAX: u64 = 100_000_000;

/// The share of one thread.
pub(super) struct Attendance {
    plan: CrowdPlan,
    shared: Arc<Shared>,
    poll: Poll,
    listeners: Vec<Listener>,
    /// Who waits for its turn to connect.
    queue: VecDeque<usize>,
    opening: usize,
    open: usize,
    timers: BinaryHeap<Reverse<Timer>>,
    buffer: Box<[u8]>,
    found: Found,
    number: usize,
    random: u64,
    is_stalling: bool,
    is_complete: bool,
}

/// What is counted while events come.
struct Found {
    latency: Histogram,
    counts: Counts,
    /// The ids heard first for each number, by stream: every listener must hear the same.
    ids: Vec<Vec<EventId>>,
    renamed: Vec<(usize, u64)>,
    delivered: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    due: Instant,
    listener: usize,
    generation: u32,
    what: Due,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// No head has come.
    GiveUp,
    /// It has listened long enough.
    Leave,
    /// It may try again.
    Return,
}

impl Attendance {
    pub(super) fn new(plan: CrowdPlan, number: usize, shared: Arc<Shared>) -> Result<Self> {
        let threads = plan.threads.max(1);
        let listener = |index: usize| {
            let stream = index % plan.streams.len();
            let source = &plan.streams[stream];
            Listener::new(stream, index < plan.slow, Heard::after(source.after, source.next))
        };
        let listeners: Vec<Listener> = (number..plan.listeners).step_by(threads).map(listener).collect();
        let found = Found {
            latency: Histogram::default(),
            counts: Counts::default(),
            ids: vec![Vec::new(); plan.streams.len()],
            renamed: Vec::new(),
            delivered: 0,
        };
        Ok(Self {
            shared,
            poll: Poll::new()?,
            queue: (0..listeners.len()).collect(),
            listeners,
            opening: 0,
            open: 0,
            timers: BinaryHeap::new(),
            buffer: vec![0; BUFFER].into(),
            found,
            number,
            random: 0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1),
            plan,
            is_stalling: false,
            is_complete: false,
        })
    }

    pub(super) fn run(mut self) -> Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        let mut looked = Instant::now();
        while !self.shared.is_over.load(Ordering::Acquire) {
            self.connect_next();
            let next = self.timers.peek().map(|Reverse(timer)| timer.due.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, Some(next.map_or(TICK, |next| next.min(TICK)))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            for event in &events {
                self.ready(event.token().0, event.is_read_closed() || event.is_error());
            }
            self.fire();
            self.shared.delivered.fetch_add(std::mem::take(&mut self.found.delivered), Ordering::AcqRel);
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look();
            }
        }
        Ok(self.close())
    }

    fn close(self) -> Outcome {
        let record =
            |listener: Listener| Record { stream: listener.stream, is_slow: listener.is_slow, heard: listener.heard };
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        Outcome {
            listeners: self.listeners.into_iter().map(record).collect(),
            latency: self.found.latency,
            ids: self.found.ids,
            renamed: self.found.renamed,
            counts: self.found.counts,
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
        }
    }

    /// What the owner wants, and what it wants to know.
    fn look(&mut self) {
        let is_stalling = self.shared.is_stalling.load(Ordering::Acquire);
        if std::mem::replace(&mut self.is_stalling, is_stalling) && !is_stalling {
            for at in 0..self.listeners.len() {
                if std::mem::take(&mut self.listeners[at].is_unread) {
                    self.read(at, true);
                }
            }
        }
        let ends = self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(ends) = ends.filter(|ends| !ends.is_empty()) {
            // Each thread tells once, when all of its own are there.
            let is_complete = self.listeners.iter().all(|listener| listener.heard.next() >= ends[listener.stream]);
            if is_complete && !std::mem::replace(&mut self.is_complete, true) {
                self.shared.complete.fetch_add(self.listeners.len(), Ordering::AcqRel);
            }
        }
    }

    fn connect_next(&mut self) {
        while self.opening < OPENING_MAX {
            let Some(at) = self.queue.pop_front() else { return };
            let index = self.number + at * self.plan.threads.max(1);
            let listener = &mut self.listeners[at];
            listener.generation += 1;
            listener.reading = Default::default();
            let from = source(self.plan.target, index, self.plan.sources);
            self.found.counts.connections += 1;
            match connect(self.plan.target, from, listener.is_slow) {
                Ok(mut socket) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = self.poll.registry().register(&mut socket, Token(at), interest) {
                        self.found.counts.error(format!("register: {error}"));
                    }
                    listener.socket = Some(socket);
                    listener.phase = Phase::Connecting;
                    self.opening += 1;
                    self.after(at, HEAD_MAX, Due::GiveUp);
                }
                Err(error) => {
                    self.found.counts.error(format!("connect: {}", error.kind()));
                    self.come_back_later(at);
                }
            }
        }
    }

    fn ready(&mut self, at: usize, is_closed: bool) {
        if self.listeners[at].phase == Phase::Connecting && !self.ask(at) {
            return;
        }
        let listener = &mut self.listeners[at];
        if listener.is_slow && self.is_stalling {
            listener.is_unread = true;
        } else if matches!(listener.phase, Phase::Asking | Phase::Listening) {
            self.read(at, is_closed);
        }
    }

    /// Sends the request when the connection is there.
    fn ask(&mut self, at: usize) -> bool {
        let listener = &mut self.listeners[at];
        let Some(socket) = &mut listener.socket else { return false };
        if let Ok(Some(error)) | Err(error) = socket.take_error() {
            self.gone(at, &format!("connect: {}", error.kind()));
            return false;
        }
        if socket.peer_addr().is_err() {
            return false;
        }
        let source = &self.plan.streams[listener.stream];
        let resume = listener.heard.last().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let token = self.plan.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{resume}{}\r\n",
            source.path,
            self.plan.target,
            token.unwrap_or_default()
        );
        // A fresh socket's buffer takes a request whole.
        match socket.write_all(request.as_bytes()) {
            Ok(()) => {
                listener.phase = Phase::Asking;
                true
            }
            Err(error) => {
                self.gone(at, &format!("request: {}", error.kind()));
                false
            }
        }
    }

    /// Reads what is there. Ready is told once, so it has to be all; a read that does not fill the buffer was all, unless
    /// the end may be behind it.
    fn read(&mut self, at: usize, to_the_end: bool) {
        loop {
            let Some(socket) = &mut self.listeners[at].socket else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.gone(at, "ended before its head"),
                Ok(bytes) => {
                    if let Err(Broken(what)) = self.take_in(at, bytes) {
                        return self.gone(at, what);
                    }
                    let is_all = bytes < self.buffer.len() && !to_the_end;
                    if !self.settle(at) || is_all {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.gone(at, &format!("read: {}", error.kind())),
            }
        }
    }

    fn take_in(&mut self, at: usize, bytes: usize) -> Result<(), Broken> {
        let now = self.plan.epoch.elapsed().as_micros() as u64;
        let listener = &mut self.listeners[at];
        let (heard, stream, is_slow) = (&mut listener.heard, listener.stream, listener.is_slow);
        let found = &mut self.found;
        found.counts.reads += 1;
        found.counts.bytes += bytes as u64;
        let has_ids = self.plan.has_ids;
        listener.reading.feed(&self.buffer[..bytes], &mut |frame| match frame {
            Frame::Event { id, mark: Some(mark) } if mark.n < NUMBER_MAX => {
                heard.event(id, mark, has_ids);
                found.note(stream, id, mark);
                if !is_slow {
                    found.latency.record(now.saturating_sub(mark.at));
                }
            }
            Frame::Event { .. } => heard.unreadable(),
            Frame::Gap { range } => {
                found.counts.gaps += 1;
                heard.gap(range);
            }
            Frame::Place(id) => heard.place(id),
            Frame::Comment => found.counts.comments += 1,
            Frame::Retry(_) => found.counts.retries += 1,
        })
    }

    /// Looks at the head, once it is here; `false` when the listener is gone.
    fn settle(&mut self, at: usize) -> bool {
        let listener = &mut self.listeners[at];
        if listener.phase != Phase::Asking {
            return true;
        }
        match listener.reading.status() {
            None => true,
            Some(200) => {
                listener.phase = Phase::Listening;
                self.opening -= 1;
                self.open += 1;
                self.shared.open.fetch_add(1, Ordering::AcqRel);
                if let Some(after) = self.plan.leaves_after {
                    // The first time sooner, so that they do not all leave at once.
                    let is_first = listener.generation == 1;
                    let after = if is_first { after.mul_f64(self.random()) } else { after };
                    self.after(at, after, Due::Leave);
                }
                true
            }
            Some(status) => {
                self.gone(at, &status.to_string());
                false
            }
        }
    }

    /// The connection ended or could not be used. An open one is only cut; anything before is an error of the name given.
    fn gone(&mut self, at: usize, what: &str) {
        match self.listeners[at].phase {
            Phase::Listening => self.found.counts.cut += 1,
            _ => self.found.counts.error(what),
        }
        self.hang_up(at);
        self.come_back_later(at);
    }

    fn hang_up(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        if listener.phase == Phase::Listening {
            self.open -= 1;
            self.shared.open.fetch_sub(1, Ordering::AcqRel);
        }
        self.opening -= usize::from(listener.is_opening());
        listener.leave();
    }

    /// 50 to 250 ms: soon, but not all in one moment.
    fn come_back_later(&mut self, at: usize) {
        self.listeners[at].phase = Phase::Away;
        let pause = Duration::from_millis(50).mul_f64(1.0 + 4.0 * self.random());
        self.after(at, pause, Due::Return);
    }

    fn after(&mut self, at: usize, pause: Duration, what: Due) {
        let generation = self.listeners[at].generation;
        self.timers.push(Reverse(Timer { due: Instant::now() + pause, listener: at, generation, what }));
    }

    fn fire(&mut self) {
        while let Some(Reverse(timer)) = self.timers.peek() {
            if timer.due > Instant::now() {
                return;
            }
            let Timer { listener: at, generation, what, .. } = *timer;
            self.timers.pop();
            let listener = &self.listeners[at];
            if listener.generation != generation {
                continue;
            }
            match (what, listener.phase) {
                (Due::GiveUp, Phase::Connecting | Phase::Asking) => self.gone(at, "no head in 10 s"),
                (Due::Leave, Phase::Listening) => {
                    self.hang_up(at);
                    if generation % AWAY_EVERY == 0 {
                        self.after(at, AWAY, Due::Return);
                    } else {
                        self.queue_up(at);
                    }
                }
                (Due::Return, Phase::Away) => self.queue_up(at),
                _ => {}
            }
        }
    }

    fn queue_up(&mut self, at: usize) {
        self.listeners[at].phase = Phase::Queued;
        self.queue.push_back(at);
    }

    /// From 0 to 1, by xorshift.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Found {
    /// Counts an event and compares its id with the one others heard for its number. After a loss an event may be
    /// published again under another id, which is then the one to be heard.
    fn note(&mut self, stream: usize, id: Option<EventId>, mark: Mark) {
        self.counts.events += 1;
        self.delivered += 1;
        let Some(id) = id else { return };
        let ids = &mut self.ids[stream];
        let at = mark.n as usize;
        if ids.len() <= at {
            ids.resize(at + 1, EventId::default());
        }
        let known = std::mem::replace(&mut ids[at], id);
        if known != id && known != EventId::default() {
            self.renamed.push((stream, mark.n));
        }
    }
}

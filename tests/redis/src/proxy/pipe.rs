//! One direction of one connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use super::fault::{Ending, Plan, Toward, Way};

/// Bytes on the way in a delayed pipe; a sender of more waits, as with any full pipe.
const QUEUED_MAX: usize = 4 * 1024 * 1024;

const READ_SIZE: usize = 64 * 1024;

/// A throttled pipe writes this often per second: smooth, and above the timer's resolution.
const SLICES_PER_SECOND: u64 = 100;

/// How a pipe ended.
#[derive(Debug)]
pub(super) enum End {
    /// The sender closed its side, and the receiver was told.
    Finished,
    /// The whole connection is to end.
    Cut(Ending),
}

pub(super) struct Pipe {
    toward: Toward,
    shared: Arc<Shared>,
    plan: watch::Receiver<Plan>,
    mark: u64,
    /// Bytes passed since the mark.
    passed: u64,
    has_lost: bool,
    is_shut: bool,
    queue: VecDeque<(Instant, Bytes)>,
    queued: usize,
    /// When a throttled pipe may write again.
    next_write: Instant,
}

impl Pipe {
    pub(super) fn new(toward: Toward, shared: &Arc<Shared>) -> Self {
        let plan = shared.plan.subscribe();
        let mark = plan.borrow().mark;
        Self {
            toward,
            shared: Arc::clone(shared),
            plan,
            mark,
            passed: 0,
            has_lost: false,
            is_shut: false,
            queue: VecDeque::new(),
            queued: 0,
            next_write: Instant::now(),
        }
    }

    /// Moves bytes until one side ends; a broken side ends the connection.
    pub(super) async fn run(mut self, source: ReadHalf<'_>, sink: WriteHalf<'_>) -> End {
        self.moved(source, sink).await.unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => End::Cut(Ending::Reset),
            _ => End::Cut(Ending::Close),
        })
    }

    async fn moved(&mut self, mut source: ReadHalf<'_>, mut sink: WriteHalf<'_>) -> io::Result<End> {
        let mut buffer = BytesMut::new();
        let mut is_at_end = false;
        loop {
            let way = self.look();
            if self.has_lost && !way.swallows() {
                return Ok(End::Cut(Ending::Close));
            }
            if way.is_half_closed && !self.is_shut {
                sink.shutdown().await?;
                self.is_shut = true;
            }
            if let Some(ending) = self.forward(&way, &mut sink).await? {
                return Ok(End::Cut(ending));
            }
            if is_at_end && self.queue.is_empty() && !way.is_blackhole && !way.is_stalled {
                sink.shutdown().await?;
                return Ok(End::Finished);
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                changed = self.plan.changed() => if changed.is_err() {
                    return Ok(End::Cut(Ending::Close));
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !way.is_stalled => {}
                read = read(&mut source, &mut buffer), if !is_at_end && !way.is_stalled && self.queued < QUEUED_MAX => {
                    is_at_end = read? == 0;
                    self.take_in(buffer.split().freeze());
                }
            }
        }
    }

    /// The faults in force now.
    fn look(&mut self) -> Way {
        let plan = self.plan.borrow_and_update();
        if plan.mark != self.mark {
            self.mark = plan.mark;
            self.passed = 0;
        }
        plan.way(self.toward).clone()
    }

    fn take_in(&mut self, bytes: Bytes) {
        let way = self.look();
        if bytes.is_empty() {
        } else if way.swallows() {
            self.has_lost = true;
        } else {
            self.queued += bytes.len();
            self.queue.push_back((Instant::now() + way.delay, bytes));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| (*due).max(self.next_write))
    }

    /// Writes what is due; answers how to end the connection when a byte is reached that must not pass.
    async fn forward(&mut self, way: &Way, sink: &mut WriteHalf<'_>) -> io::Result<Option<Ending>> {
        while !way.is_stalled && self.next_due().is_some_and(|due| due <= Instant::now()) {
            let mut slice = self.pop(way);
            if way.swallows() {
                self.has_lost = true;
                continue;
            }
            let ending = self.limited(way, &mut slice);
            // Counted first, so that whoever has received a byte finds it counted.
            self.count(slice.len());
            sink.write_all(&slice).await?;
            if ending.is_some() {
                return Ok(ending);
            }
        }
        Ok(None)
    }

    /// The next bytes: all of the first piece, or as many as a throttled line takes at once.
    fn pop(&mut self, way: &Way) -> Bytes {
        let Some((due, mut bytes)) = self.queue.pop_front() else { return Bytes::new() };
        if let Some(rate) = way.bytes_per_second {
            let slice = usize::try_from((rate / SLICES_PER_SECOND).max(1)).unwrap_or(usize::MAX);
            if bytes.len() > slice {
                self.queue.push_front((due, bytes.split_off(slice)));
            }
            let pause = Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
            self.next_write = self.next_write.max(Instant::now()) + pause;
        }
        self.queued -= bytes.len();
        bytes
    }

    /// Shortens `slice` to what may pass, and answers how to end the connection if that is not all.
    fn limited(&self, way: &Way, slice: &mut Bytes) -> Option<Ending> {
        let all = self.passed + slice.len() as u64;
        let once = way.once.filter(|limit| all > *limit);
        let each = way.cut.filter(|(limit, _)| all > *limit);
        let (limit, ending) = match (once, each) {
            (Some(limit), each) if each.is_none_or(|(other, _)| limit <= other) && self.take_once() => {
                (limit, Ending::Close)
            }
            (_, each) => each?,
        };
        let allowed = usize::try_from(limit.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        slice.truncate(allowed);
        self.shared.traffic.cuts.fetch_add(1, Ordering::Relaxed);
        Some(ending)
    }

    /// Only the first connection to ask gets it.
    fn take_once(&self) -> bool {
        self.shared.plan.send_if_modified(|plan| plan.way_mut(self.toward).once.take().is_some())
    }

    fn count(&mut self, bytes: usize) {
        self.passed += bytes as u64;
        let counter = match self.toward {
            Toward::Server => &self.shared.traffic.to_server,
            Toward::Client => &self.shared.traffic.to_client,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

async fn read(source: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_SIZE);
    source.read_buf(buffer).await
}

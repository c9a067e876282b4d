//! One connection shared by all callers: requests go out in the order they come, replies come back in that order.
//!
//! When it ends, everybody waiting learns exactly what is known: a request whose bytes were never given to the socket
//! was *not sent*; any other unanswered one is *lost*, executed or not.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::dial::Opened;
use super::resp::{Message, Parser, encode};
use super::stream::Stream;
use crate::error::Error;
use crate::tracking::{Bond, Ears};
use crate::value::Value;

/// Bytes that may wait for the socket; beyond it callers are refused. 64 MiB: one batch of the largest jobs.
const OUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;

type Answer = Result<Value, Error>;

/// A request as its parts lie around: nothing is copied but into the socket's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: &'a [&'a [u8]],
    pub(crate) keys: &'a [Bytes],
    pub(crate) args: &'a [Bytes],
}

impl<'a> Request<'a> {
    /// Words alone.
    pub(crate) const fn bare(head: &'a [&'a [u8]]) -> Self {
        Self { head, keys: &[], args: &[] }
    }

    pub(super) fn parts(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        let rest = self.keys.iter().chain(self.args).map(|bytes| &bytes[..]);
        self.head.iter().copied().chain(rest)
    }
}

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Of a tracked connection. First, so that it is dropped before those who wait.
    bond: Option<Bond>,
    /// Held to append a request or take answers out, never across I/O.
    state: Mutex<State>,
    /// As many as wait in `state`, to be read without its lock.
    load: AtomicUsize,
    /// Rung when the first request comes to an idle connection.
    busy: Notify,
    waiting_max: usize,
}

#[derive(Debug)]
struct State {
    /// Bytes not yet given to the writer, of the last `staged` of `waiting`.
    out: BytesMut,
    staged: usize,
    waiting: VecDeque<Waiting>,
    /// When the last bytes came.
    heard: Instant,
    answered: bool,
    writer: Option<Waker>,
    ended: Option<Box<str>>,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: nobody reads the reply (any more).
    caller: Option<oneshot::Sender<Answer>>,
    since: Instant,
}

impl Connection {
    /// A connection over what was opened, and the work that moves its bytes until it ends; the work's result says why.
    /// `ears` hear of it before this returns, and before anything is sent or heard over it.
    pub(crate) fn new(
        opened: Opened,
        waiting_max: usize,
        ears: Option<Arc<Ears>>,
    ) -> (Self, impl Future<Output = Box<str>> + Send) {
        let state = State {
            out: BytesMut::new(),
            staged: 0,
            waiting: VecDeque::new(),
            heard: Instant::now(),
            answered: false,
            writer: None,
            ended: None,
        };
        let connection = Self(Arc::new(Shared {
            bond: ears.map(Bond::new),
            state: Mutex::new(state),
            load: AtomicUsize::new(0),
            busy: Notify::new(),
            waiting_max,
        }));
        let work = drive(connection.clone(), opened);
        (connection, work)
    }

    /// Puts a request in line. Errors: [`Error::NotSent`] when the connection ended or too much waits already.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<oneshot::Receiver<Answer>, Error> {
        let (caller, answer) = oneshot::channel();
        self.stage([(request, Some(caller))])?;
        Ok(answer)
    }

    /// As [`send`](Self::send), with `ASKING` right before it.
    pub(crate) fn send_asking(&self, request: Request<'_>) -> Result<oneshot::Receiver<Answer>, Error> {
        let (caller, answer) = oneshot::channel();
        self.stage([(Request::bare(&[b"ASKING"]), None), (request, Some(caller))])?;
        Ok(answer)
    }

    /// As [`send`](Self::send): two commands between `MULTI` and `EXEC`. What Redis says to the first when it is queued, and
    /// what it says to `EXEC`.
    pub(crate) fn send_together(&self, commands: [Request<'_>; 2]) -> Result<[oneshot::Receiver<Answer>; 2], Error> {
        let ((queued, queueing), (executed, executing)) = (oneshot::channel(), oneshot::channel());
        let [first, second] = commands;
        let multi = (Request::bare(&[b"MULTI"]), None);
        self.stage([multi, (first, Some(queued)), (second, None), (Request::bare(&[b"EXEC"]), Some(executed))])?;
        Ok([queueing, executing])
    }

    /// Puts requests in line, nothing between them.
    fn stage<const N: usize>(
        &self,
        requests: [(Request<'_>, Option<oneshot::Sender<Answer>>); N],
    ) -> Result<(), Error> {
        let since = Instant::now();
        let mut state = self.0.state.lock();
        if let Some(why) = &state.ended {
            return Err(Error::not_connected(why.clone()));
        }
        if state.waiting.len() >= self.0.waiting_max || state.out.len() > OUT_BYTES_MAX {
            return Err(Error::backpressure(state.waiting.len()));
        }
        let is_first = state.waiting.is_empty();
        for (request, caller) in requests {
            encode(&mut state.out, request.parts());
            state.waiting.push_back(Waiting { caller, since });
            state.staged += 1;
        }
        self.0.load.store(state.waiting.len(), Ordering::Relaxed);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        if is_first {
            self.0.busy.notify_one();
        }
        Ok(())
    }

    /// Tells those who wait longer than `patience` that their reply is lost; their turn in line stays. Says how long
    /// the first in line has waited with nothing at all heard meanwhile.
    pub(crate) fn expire(&self, patience: Duration, now: Instant) -> Duration {
        let mut late = Vec::new();
        let silence = {
            let mut state = self.0.state.lock();
            for waiting in &mut state.waiting {
                if now.saturating_duration_since(waiting.since) < patience {
                    break;
                }
                late.extend(waiting.caller.take());
            }
            let first = state.waiting.front().map_or(now, |waiting| waiting.since.max(state.heard));
            now.saturating_duration_since(first)
        };
        for caller in late {
            let _ = caller.send(Err(Error::timeout(patience)));
        }
        silence
    }

    /// How long the first in line has waited, and for how much of that nothing at all has come.
    pub(crate) fn longest_wait(&self, now: Instant) -> (Duration, Duration) {
        let state = self.0.state.lock();
        state.waiting.front().map_or((Duration::ZERO, Duration::ZERO), |waiting| {
            let silent_since = waiting.since.max(state.heard);
            (now.saturating_duration_since(waiting.since), now.saturating_duration_since(silent_since))
        })
    }

    /// Whether nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load.load(Ordering::Relaxed) == 0
    }

    /// Until somebody waits.
    pub(crate) async fn busy(&self) {
        while self.is_idle() {
            self.0.busy.notified().await;
        }
    }

    /// Whether any request was answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.state.lock().answered
    }

    /// Who watches over it learns that it is no more; nobody else does yet.
    pub(crate) fn give_up(&self) {
        if let Some(bond) = &self.0.bond {
            bond.lost();
        }
    }

    /// Ends it: who watches over it hears first, then those who wait learn what is known; the work ends.
    pub(crate) fn end(&self, why: &str) {
        self.give_up();
        let (waiting, staged, writer) = {
            let mut state = self.0.state.lock();
            state.ended.get_or_insert_with(|| why.into());
            let staged = std::mem::take(&mut state.staged);
            state.out = BytesMut::new();
            self.0.load.store(0, Ordering::Relaxed);
            (std::mem::take(&mut state.waiting), staged, state.writer.take())
        };
        let sent = waiting.len() - staged;
        for (turn, waiting) in waiting.into_iter().enumerate() {
            let Some(caller) = waiting.caller else { continue };
            let error = if turn < sent { Error::lost(why) } else { Error::not_connected(why) };
            let _ = caller.send(Err(error));
        }
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

async fn drive(connection: Connection, opened: Opened) -> Box<str> {
    let Opened { stream, unread } = opened;
    let mut pump = Pump {
        stream,
        writing: BytesMut::new(),
        reading: unread,
        parser: Parser::default(),
        has_moved: false,
        is_full: false,
    };
    let why = match pump.answer(&connection.0) {
        Ok(()) => poll_fn(|cx| pump.poll(cx, &connection.0)).await,
        Err(error) => error.to_string().into(),
    };
    connection.end(&why);
    why
}

struct Pump {
    stream: Stream,
    writing: BytesMut,
    reading: BytesMut,
    parser: Parser,
    /// Some of what fills the socket was taken by the other side: a sign of life, as bytes from there are.
    has_moved: bool,
    /// The socket took no more.
    is_full: bool,
}

impl Pump {
    /// Moves what can be moved. Ready only when the connection ended.
    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Box<str>> {
        loop {
            if let Some(why) = self.take_requests(cx, shared) {
                return Poll::Ready(why);
            }
            if let Err(error) = self.write(cx).and_then(|()| self.read(cx, shared)) {
                return Poll::Ready(error.to_string().into());
            }
            // Answers wake callers, and their next requests may be here already.
            if !self.writing.is_empty() || shared.state.lock().staged == 0 {
                return Poll::Pending;
            }
        }
    }

    fn take_requests(&mut self, cx: &Context<'_>, shared: &Shared) -> Option<Box<str>> {
        let mut state = shared.state.lock();
        if std::mem::take(&mut self.has_moved) {
            state.heard = Instant::now();
        }
        if self.writing.is_empty() {
            if self.writing.capacity() > KEEP_BYTES {
                self.writing = BytesMut::new();
            }
            self.writing.clear();
            std::mem::swap(&mut self.writing, &mut state.out);
            state.staged = 0;
        }
        match &mut state.writer {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        state.ended.clone()
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let was_full = std::mem::take(&mut self.is_full);
        while !self.writing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.writing) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.writing.advance(written);
                    // What fits at once says nothing of the other side.
                    self.has_moved |= was_full;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.is_full = true;
                    return Ok(());
                }
            }
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> io::Result<()> {
        loop {
            self.reading.reserve(READ_BYTES / 4);
            let read = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(&mut self.stream, &mut self.reading));
            match read.poll(cx) {
                Poll::Ready(Ok(0)) => return Err(io::Error::other("Redis closed the connection")),
                Poll::Ready(Ok(_)) => self.answer(shared)?,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Gives every whole reply to whom it belongs and every push to who watches, in the order in which they came.
    fn answer(&mut self, shared: &Shared) -> io::Result<()> {
        let mut replies = Vec::new();
        loop {
            match (self.parser.next_message(&mut self.reading), &shared.bond) {
                (Ok(Some(Message::Reply(reply))), _) => replies.push(reply),
                (Ok(Some(Message::Push(push))), Some(bond)) => {
                    deliver(std::mem::take(&mut replies), shared)?;
                    bond.hear(push);
                }
                (Ok(None), _) => return deliver(replies, shared),
                (Ok(Some(Message::Push(_))), None) | (Err(_), _) => {
                    deliver(replies, shared)?;
                    return Err(garbage());
                }
            }
        }
    }
}

/// Wakes those whose turn it is.
fn deliver(replies: Vec<Answer>, shared: &Shared) -> io::Result<()> {
    let mut callers = Vec::with_capacity(replies.len());
    {
        let mut state = shared.state.lock();
        state.heard = Instant::now();
        state.answered |= !replies.is_empty();
        let sent = state.waiting.len() - state.staged;
        let due = replies.len().min(sent);
        callers.extend(state.waiting.drain(..due));
        shared.load.store(state.waiting.len(), Ordering::Relaxed);
    }
    let unasked = replies.len() > callers.len();
    for (waiting, reply) in callers.into_iter().zip(replies) {
        if let Some(caller) = waiting.caller {
            let _ = caller.send(reply);
        }
    }
    match unasked {
        true => Err(garbage()),
        false => Ok(()),
    }
}

fn garbage() -> io::Error {
    io::Error::other("what Redis sent is no reply to what was asked")
}

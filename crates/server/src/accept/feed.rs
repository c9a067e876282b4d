//! A connection after hyper: a small task that writes a head and then frames, until either side is done.
//!
//! Idle, it holds the socket, a box of frames and the place it takes; it runs no timer. It ends when the frames do, when
//! the peer closes, when the peer takes nothing for too long, or in the drain, with a word about when to come back.

use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use jiff::fmt::rfc2822::DateTimePrinter;
use tidegate_metrics::{Counter, Gauge};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::io::{Traffic, shutdown};
use super::limits::Fed;
use super::takeover::{Frames, Outgoing, Taken};
use super::{Bounds, Counters};

/// 10 slices: in the drain listeners leave one slice after the other, so that they do not all come back at once.
const SLICES: usize = 10;
/// Fewer listeners than this leave together: their return costs nothing.
const FEW: usize = 256;
/// 1 s: what a listener gets for the last frames in the drain.
const FAREWELL: Duration = Duration::from_secs(1);
/// 1 to 5 s: when a listener should come back, spread so that they do not come all at once.
const RETRY_MS: std::ops::Range<u64> = 1000..5000;
/// 64 KiB: a peer has nothing to say after its request; one that goes on is cut.
const UNASKED_BYTES_MAX: u32 = 64 * 1024;
/// 250 ms: several times what a peer may wait before it acknowledges (40 ms), much less than it takes to call it stalled.
const EAGER: Duration = Duration::from_millis(250);
/// 8: 128 KiB by default.
const EAGER_FACTOR: usize = 8;
/// 16 writes: then other tasks get their turn.
const WRITES_PER_TURN: usize = 16;

/// What all feeds share.
pub(crate) struct Feeds {
    /// Bytes the kernel may hold for one peer; it doubles the number for its own needs.
    send_buffer: usize,
    stall_timeout: Duration,
    open: AtomicUsize,
    started: AtomicUsize,
    /// Cancelled one after the other in the drain; children of `cut`.
    slices: [CancellationToken; SLICES],
    cut: CancellationToken,
    traffic: Traffic,
    stalled: Counter,
    /// Open connections, those that are fed among them.
    connections: Gauge,
}

impl Feeds {
    pub(crate) fn new(bounds: &Bounds, cut: &CancellationToken, counters: &Counters) -> Self {
        Self {
            send_buffer: bounds.feed_buffer,
            stall_timeout: bounds.feed_stall_timeout,
            open: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            slices: std::array::from_fn(|_| cut.child_token()),
            cut: cut.clone(),
            traffic: counters.traffic.clone(),
            stalled: counters.closed_feed.clone(),
            connections: counters.open.clone(),
        }
    }

    /// Sends all listeners away, spread over `window` when they are many.
    pub(crate) async fn release(&self, window: Duration) {
        for slice in &self.slices {
            slice.cancel();
            if self.open.load(Ordering::Relaxed) >= FEW {
                sleep(window / SLICES as u32).await;
            }
        }
    }
}

/// One connection that is fed. Its size is what ten thousand idle listeners cost: the task around it should fit into 256
/// bytes.
pub(crate) struct Feed {
    stream: TcpStream,
    frames: Box<dyn Frames>,
    out: Outgoing,
    phase: Phase,
    /// Its slice of the drain.
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Runs only while the peer takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes the peer sent after its request.
    unasked: u32,
    /// Its buffer was enlarged.
    is_eager: bool,
    feeds: Arc<Feeds>,
    _fed: Fed,
}

/// How far a feed has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Frames come.
    Open,
    /// The last frame is in `out`.
    Ended,
    /// The drain has told it to go.
    Leaving,
}

impl Feed {
    pub(crate) fn new(stream: TcpStream, taken: Taken, feeds: Arc<Feeds>, fed: Fed) -> Self {
        // A listener that stops reading would keep megabytes in the kernel.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, feeds.send_buffer);
        feeds.open.fetch_add(1, Ordering::Relaxed);
        feeds.connections.add(1.0);
        let slice = feeds.started.fetch_add(1, Ordering::Relaxed) % SLICES;
        let leave = Box::pin(feeds.slices[slice].clone().cancelled_owned());
        let mut out = Outgoing::default();
        out.push(head(&taken.head));
        let frames = taken.frames;
        Self {
            stream,
            frames,
            out,
            phase: Phase::Open,
            leave,
            stall: None,
            unasked: 0,
            is_eager: false,
            feeds,
            _fed: fed,
        }
    }

    /// Says goodbye after what is on its way.
    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        let span = RETRY_MS.end - RETRY_MS.start;
        let random = getrandom::u64().unwrap_or_default() % span;
        self.out.push(format!("retry: {}\n\n", RETRY_MS.start + random).into());
        self.stall = Some(Box::pin(sleep(FAREWELL)));
    }

    /// Takes frames when all before have been written. `Ready(false)` when there is nothing more to write.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.out.is_empty() && self.phase == Phase::Open && self.frames.poll_frames(cx, &mut self.out).is_ready() {
            self.phase = Phase::Ended;
        }
        match (self.out.is_empty(), self.phase) {
            (false, _) => Poll::Ready(true),
            (true, Phase::Open) => Poll::Pending,
            (true, _) => Poll::Ready(false),
        }
    }

    /// One write. `Pending` while the peer takes nothing.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.out.write(|slices| self.stream.try_write_vectored(slices)) {
                Ok(written) => {
                    self.feeds.traffic.sent.add(written as u64);
                    if self.phase != Phase::Leaving
                        && let Some(stall) = self.stall.take()
                    {
                        self.took_more(stall.deadline());
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The peer has taken more before it would have counted as stalled. If at once, it reads as fast as it gets: a buffer that
    /// is smaller than what its machine acknowledges at a time (64 KiB on loopback) would make it wait for each piece.
    fn took_more(&mut self, stalled_at: Instant) {
        let waited = self.feeds.stall_timeout.saturating_sub(stalled_at.saturating_duration_since(Instant::now()));
        if !self.is_eager && waited < EAGER {
            self.is_eager = true;
            let larger = self.feeds.send_buffer.saturating_mul(EAGER_FACTOR);
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&self.stream, larger);
        }
    }

    /// Ready when the peer has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.feeds.stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stall.as_mut().poll(cx));
        if self.phase != Phase::Leaving {
            self.feeds.stalled.inc();
            tracing::debug!("closed an event stream whose peer stopped reading");
        }
        Poll::Ready(())
    }

    /// Ready when the peer is gone, or says what nobody asked for.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; 512];
        while ready!(self.stream.poll_read_ready(cx)).is_ok() {
            match self.stream.try_read(&mut sink) {
                Ok(0) => break,
                Ok(read) => {
                    self.feeds.traffic.received.add(read as u64);
                    self.unasked += read as u32;
                    if self.unasked > UNASKED_BYTES_MAX {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl Future for Feed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.phase != Phase::Leaving && this.leave.as_mut().poll(cx).is_ready() {
            this.leave();
        }
        if this.feeds.cut.is_cancelled() || this.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        for _ in 0..WRITES_PER_TURN {
            if !ready!(this.poll_more(cx)) {
                let _ = shutdown(&this.stream);
                return Poll::Ready(());
            }
            match this.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return this.poll_stalled(cx),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.feeds.open.fetch_sub(1, Ordering::Relaxed);
        self.feeds.connections.add(-1.0);
    }
}

/// A response's head as it goes over the wire; its body ends with the connection.
fn head(parts: &http::response::Parts) -> Bytes {
    const UNSENT: [http::HeaderName; 4] =
        [http::header::CONNECTION, http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING, http::header::DATE];
    let mut head = Vec::with_capacity(320);
    let reason = parts.status.canonical_reason().unwrap_or_default();
    // Writing to a vector cannot fail.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", parts.status.as_u16());
    for (name, value) in parts.headers.iter().filter(|(name, _)| !UNSENT.contains(name)) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now()) {
        let _ = write!(head, "date: {date}\r\n");
    }
    head.extend_from_slice(b"connection: close\r\n\r\n");
    head.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime adds 104 bytes and rounds up to 128; the tracker adds 8.
    #[test]
    fn a_feed_and_its_task_fit_into_256_bytes() {
        assert!(size_of::<Feed>() <= 256 - 104 - 8, "{} bytes", size_of::<Feed>());
    }

    #[test]
    fn the_head_says_that_the_connection_ends_the_body() {
        let response = http::Response::builder()
            .header("content-type", "text/event-stream")
            .header("content-length", "0")
            .header("connection", "keep-alive");
        let (parts, ()) = response.body(()).unwrap().into_parts();
        let head = String::from_utf8(head(&parts).to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ndate: "), "{head}");
        assert!(head.ends_with(" GMT\r\nconnection: close\r\n\r\n"), "{head}");
        assert!(!head.contains("length") && !head.contains("keep-alive"), "{head}");
    }
}

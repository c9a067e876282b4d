//! The bytes of one connection: a shared socket that tells the watch what moves.
//!
//! It also rewrites the one thing hyper says without asking us: its bare `400`, `414` and `431` for heads it cannot
//! parse. Those get the same problem body as every other error.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::net::Shutdown;
use tidegate_metrics::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::refuse;
use super::watch::Watch;

/// Bytes over all connections.
#[derive(Clone)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// A socket that can outlive hyper's use of it, so that a last word can still be said.
pub(crate) struct Io {
    stream: Arc<TcpStream>,
    watch: Arc<Watch>,
    traffic: Traffic,
    /// A rewritten response on its way out.
    instead: Bytes,
}

impl Io {
    pub(crate) fn new(stream: Arc<TcpStream>, watch: Arc<Watch>, traffic: Traffic) -> Self {
        Self { stream, watch, traffic, instead: Bytes::new() }
    }

    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => {
                    self.watch.write_blocked(Instant::now());
                    return Poll::Pending;
                }
                Poll::Ready(ready) => ready?,
            }
            match self.stream.try_write_vectored(slices) {
                Ok(written) => {
                    self.watch.bytes_written();
                    self.traffic.sent.add(written as u64);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn write_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            let bytes = self.instead.clone();
            let written = ready!(self.write(cx, &[IoSlice::new(&bytes)]))?;
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            match this.stream.try_read_buf(buffer) {
                Ok(read) => {
                    if read > 0 {
                        this.watch.bytes_read(Instant::now());
                        this.traffic.received.add(read as u64);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.write_instead(cx))?;
        if let Some(first) = slices.first().filter(|_| this.watch.is_between_requests())
            && let Some(instead) = refuse::unparsable(first)
        {
            this.instead = instead;
            let taken = slices.iter().map(|slice| slice.len()).sum();
            return Poll::Ready(Ok(taken));
        }
        this.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_instead(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write_instead(cx))?;
        Poll::Ready(shutdown(&this.stream))
    }
}

/// Says that we send no more. A peer that is gone already is no error.
pub(crate) fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(stream, Shutdown::Write) {
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

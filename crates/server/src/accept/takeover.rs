//! What a handler returns whose answer goes on for as long as the peer listens: a response marked with a [`Takeover`].
//!
//! hyper keeps some 19 KB for a connection whose body never ends. Such a connection is taken back from it: the driver in
//! [`super::connection`] finds the mark, hyper and its buffers go, and a small task ([`super::feed`]) writes the head and
//! then the frames itself. The body ends with the connection.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::Stream;

/// 64 KiB: several times what the socket's buffer takes, so that a burst is written in few calls, and little enough to be
/// held for a peer that has stopped reading.
const ROOM_BYTES: usize = 64 * 1024;
/// 128 pieces: what one write takes; the kernel's bound is 1024.
const SLICES_MAX: usize = 128;

/// Where a connection's frames come from.
pub trait Frames: Send + 'static {
    /// Appends what is ready to `out`, while [`Outgoing::has_room`]. Only whole frames: the connection may end after any.
    ///
    /// `Ready` when there will be nothing more. `Pending` otherwise: when nothing was appended, `cx` is woken as soon as
    /// something can be; when something was, the call comes again after it has been written.
    fn poll_frames(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<()>;
}

impl Frames for Pin<Box<dyn Stream<Item = Bytes> + Send>> {
    fn poll_frames(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<()> {
        while out.has_room() {
            match self.as_mut().poll_next(cx) {
                Poll::Ready(Some(frame)) => out.push(frame),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}

/// Bytes on their way to a peer. Empty, it holds no memory of its own.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: Vec<Bytes>,
    /// How many of the pieces are written.
    written: usize,
    /// Bytes that are not.
    bytes: usize,
}

impl Outgoing {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Lets `fill` append pieces, of about as many bytes as it is told.
    pub fn fill<R>(&mut self, fill: impl FnOnce(&mut Vec<Bytes>, usize) -> R) -> R {
        let before = self.pieces.len();
        let filled = fill(&mut self.pieces, ROOM_BYTES.saturating_sub(self.bytes));
        self.bytes += self.pieces[before..].iter().map(Bytes::len).sum::<usize>();
        filled
    }

    /// Whether more should be appended before what is here has been written.
    pub fn has_room(&self) -> bool {
        self.bytes < ROOM_BYTES
    }

    /// Whether everything has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Hands the first pieces to `write`, and forgets as much of them as it says to have written.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces[self.written..]) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let written = write(&slices[..count])?;
        self.advance(written);
        Ok(written)
    }

    fn advance(&mut self, written: usize) {
        self.bytes -= written;
        let mut left = written;
        for piece in &mut self.pieces[self.written..] {
            if left < piece.len() {
                piece.advance(left);
                break;
            }
            left -= piece.len();
            // Frees what is written even while the rest waits.
            *piece = Bytes::new();
            self.written += 1;
        }
        if self.bytes == 0 {
            *self = Self::default();
        }
    }
}

/// Marks a response, among its extensions, whose frames follow its head. The response's own body is not sent.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<Box<dyn Frames>>>>);

impl Takeover {
    /// A mark for a response that is followed by these frames.
    pub fn new(frames: impl Frames) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(frames)))))
    }

    /// The frames; `None` for all but the first caller.
    pub(crate) fn take(&self) -> Option<Box<dyn Frames>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A marked response on its way from the service, which hyper polls, to the driver, which polls hyper.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Option<Taken>>);

/// A response that is not hyper's to send.
pub(crate) struct Taken {
    pub(crate) head: http::response::Parts,
    pub(crate) frames: Box<dyn Frames>,
}

impl Slot {
    pub(crate) fn fill(&self, taken: Taken) {
        *self.lock() = Some(taken);
    }

    pub(crate) fn take(&self) -> Option<Taken> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `most` bytes.
    fn take(out: &mut Outgoing, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        out.write(|slices| {
            taken = slices.iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
            Ok(taken.len())
        })
        .unwrap();
        taken
    }

    #[test]
    fn a_partial_write_keeps_its_place() {
        let mut out = Outgoing::default();
        for piece in ["abc", "", "de", "f"] {
            out.push(piece.into());
        }
        assert_eq!(take(&mut out, 4), b"abcd");
        assert_eq!(take(&mut out, 1), b"e");
        assert!(!out.is_empty());
        assert_eq!(take(&mut out, 99), b"f");
        assert!(out.is_empty() && out.bytes == 0 && out.pieces.capacity() == 0);
    }

    #[test]
    fn there_is_room_until_the_bound_is_reached_and_again_after_writing() {
        let mut out = Outgoing::default();
        out.push(vec![b'x'; ROOM_BYTES].into());
        assert!(!out.has_room());
        take(&mut out, 1);
        assert!(out.has_room());
    }

    #[test]
    fn more_pieces_than_one_write_takes_go_out_in_order() {
        let mut out = Outgoing::default();
        let pieces: Vec<_> = (0..SLICES_MAX * 2 + 1).map(|n| format!("{n};")).collect();
        pieces.iter().for_each(|piece| out.push(piece.clone().into()));
        let mut taken = Vec::new();
        while !out.is_empty() {
            taken.extend(take(&mut out, usize::MAX));
        }
        assert_eq!(taken, pieces.concat().as_bytes());
    }
}

//! A connection with one user at a time: a request, then its reply. What commands that block want.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::Request;
use super::resp::{Parser, encode};
use super::stream::Stream;
use crate::error::Error;
use crate::value::Value;

/// Room for one read. 16 KiB: a burst of a hundred small entries in one.
const READ_BYTES: usize = 16 * 1024;
/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BYTES: usize = 256 * 1024;

/// One connection. Dropping a future of its methods leaves it in a state that it knows: see [`is_sound`](Self::is_sound)
/// and [`owes`](Self::owes).
#[derive(Debug)]
pub(crate) struct Single {
    stream: Stream,
    out: BytesMut,
    input: BytesMut,
    parser: Parser,
    /// A reply is still to come.
    owes: bool,
    /// A request was cut off half way, or what came is no reply to it.
    broken: bool,
}

impl Single {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            out: BytesMut::new(),
            input: BytesMut::new(),
            parser: Parser::default(),
            owes: false,
            broken: false,
        }
    }

    /// A request and its reply. Nothing may be owed.
    ///
    /// Errors: what Redis answered; [`Error::Lost`] when the connection broke.
    pub(crate) async fn call(&mut self, request: Request<'_>) -> Result<Value, Error> {
        // Until all of it is written: whoever drops this future half way leaves half a request.
        self.broken = true;
        self.out.clear();
        encode(&mut self.out, request.parts());
        let written = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        written.await.map_err(|error| Error::lost(&error.to_string()))?;
        if self.out.capacity() > KEEP_BYTES {
            self.out = BytesMut::new();
        }
        (self.broken, self.owes) = (false, true);
        self.reply().await
    }

    /// The reply that is owed. Cancel-safe: asked again, it goes on.
    pub(crate) async fn reply(&mut self) -> Result<Value, Error> {
        let reply = self.read().await;
        match &reply {
            // More than was asked for is no answer to it.
            Ok(_) | Err(Error::Answer { .. }) => {
                self.owes = false;
                self.broken |= !self.input.is_empty();
            }
            Err(_) => self.broken = true,
        }
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES {
            self.input = BytesMut::new();
        }
        reply
    }

    async fn read(&mut self) -> Result<Value, Error> {
        loop {
            match self.parser.next(&mut self.input) {
                Ok(Some(reply)) => return reply,
                Ok(None) => {}
                Err(_) => return Err(Error::lost("what Redis sent is no reply to what was asked")),
            }
            self.input.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(Error::lost("Redis closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(Error::lost(&error.to_string())),
            }
        }
    }

    /// Whether a reply is still to come, of a call whose future was dropped.
    pub(crate) fn owes(&self) -> bool {
        self.owes
    }

    /// Whether it can be used again, once nothing is owed.
    pub(crate) fn is_sound(&self) -> bool {
        !self.broken
    }

    /// It is of no use any more.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
    }

    /// Whether nothing has come over it, not even its end. Without waiting; costs no system call while nothing happened.
    pub(crate) fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }
}

//! A small client of our own, so that what is tested is not what tests: one command, one reply (RESP2).

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, ToSocketAddrs, UnixStream};

/// 30 s: far above any command a test sends, so running into it means a server that stands still.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What Redis answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// There is no such value.
    Nil,
    /// A number.
    Int(i64),
    /// A status like `OK`, or a value.
    Text(Bytes),
    /// Several replies.
    List(Vec<Reply>),
    /// Refused, like `WRONGTYPE Operation against …`.
    Error(String),
}

impl Reply {
    /// The number, also where it arrived as text.
    ///
    /// # Panics
    /// When this is no number.
    #[must_use]
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => other.to_string().parse().unwrap_or_else(|_| panic!("{other:?} is no number")),
        }
    }

    /// The replies of a list; nothing of anything else.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// Whether the command was refused with an error that begins with `code`, like `OOM`; `""` is any.
    #[must_use]
    pub fn is_error(&self, code: &str) -> bool {
        matches!(self, Self::Error(error) if error.starts_with(code))
    }
}

/// Values as they are, lists one item per line, nothing for nil; bytes that are no UTF-8 are replaced.
impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nil => Ok(()),
            Self::Int(number) => number.fmt(f),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).fmt(f),
            Self::Error(error) => error.fmt(f),
            Self::List(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(at, item)| write!(f, "{}{item}", if at > 0 { "\n" } else { "" })),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A plain connection, for commands in sequence.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects over TCP, for example through a [`Proxy`](crate::Proxy).
    ///
    /// # Errors
    /// Whatever the network says.
    pub async fn tcp(addr: impl ToSocketAddrs) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn unix(path: &Path) -> Result<Self> {
        Ok(Self { stream: BufReader::new(Box::new(UnixStream::connect(path).await?)) })
    }

    /// Sends one command and waits for its reply, at most 30 s. A refusal is a [`Reply::Error`]. When the future is
    /// dropped, the command may be on its way: drop the connection too.
    ///
    /// # Errors
    /// The connection broke, the time is over (`TimedOut`), or what arrived is no reply (`InvalidData`).
    pub async fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Reply> {
        let exchange = async {
            self.send(words).await?;
            self.reply().await
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    /// Sends one command without waiting for its reply.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<()> {
        self.stream.get_mut().write_all(&encoded(words)).await
    }

    /// Waits for the next reply (or pub/sub message), without a limit of its own.
    ///
    /// # Errors
    /// The connection broke or what arrived is no reply.
    pub async fn reply(&mut self) -> Result<Reply> {
        self.parsed().await
    }

    fn parsed(&mut self) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send + '_>> {
        Box::pin(async move {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let Some(line) = line.strip_suffix("\r\n") else { return Err(ErrorKind::UnexpectedEof.into()) };
            let (kind, rest) = line.split_at_checked(1).ok_or_else(|| no_reply(line))?;
            match kind {
                "+" => Ok(Reply::Text(Bytes::copy_from_slice(rest.as_bytes()))),
                "-" => Ok(Reply::Error(rest.to_owned())),
                ":" => Ok(Reply::Int(number(rest)?)),
                "$" => self.bulk(number(rest)?).await,
                "*" => self.list(number(rest)?).await,
                _ => Err(no_reply(line)),
            }
        })
    }

    async fn bulk(&mut self, length: i64) -> Result<Reply> {
        let Ok(length) = usize::try_from(length) else { return Ok(Reply::Nil) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        Ok(Reply::Text(bytes.into()))
    }

    async fn list(&mut self, length: i64) -> Result<Reply> {
        if length < 0 {
            return Ok(Reply::Nil);
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(self.parsed().await?);
        }
        Ok(Reply::List(items))
    }
}

fn encoded<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| no_reply(text))
}

fn no_reply(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{line:?} is no reply of Redis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Reply> {
        let (mut far, near) = tokio::io::duplex(1024);
        far.write_all(bytes).await.unwrap();
        drop(far);
        Connection { stream: BufReader::new(Box::new(near)) }.reply().await
    }

    #[tokio::test]
    async fn every_kind_of_reply_is_read() {
        let reply = read(b"*5\r\n+OK\r\n:-7\r\n$2\r\n\r\n\r\n$-1\r\n-ERR no\r\n").await.unwrap();
        let text = |text: &'static str| Reply::Text(Bytes::from_static(text.as_bytes()));
        let error = Reply::Error("ERR no".to_owned());
        assert_eq!(reply.items(), [text("OK"), Reply::Int(-7), text("\r\n"), Reply::Nil, error]);
    }

    #[tokio::test]
    async fn a_reply_cut_anywhere_is_an_error() {
        let whole = b"*2\r\n$5\r\nhello\r\n:12\r\n";
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof, "cut at {cut}");
        }
        assert!(read(whole).await.is_ok());
    }
}

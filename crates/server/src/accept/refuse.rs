//! Saying no below HTTP: canned responses for peers that never become a request, and a close that lets them read it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::net::TcpStream;

use super::io::shutdown;
use super::limits::Refused;
use crate::error::{Code, Problem};

/// 1 s: a peer on the other side of the world has read our last word by then.
const LINGER: Duration = Duration::from_secs(1);
/// 5 s: connections are usually freed by an idle deadline, so an earlier retry would meet the same limit.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Tells a connection over a limit that it is not let in.
pub(crate) async fn connection(stream: TcpStream, refused: Refused) {
    let detail = match refused {
        Refused::Total { limit } => format!("The server already has {limit} connections open, its limit."),
        Refused::Address { limit } => {
            format!("Your address already has {limit} connections open, the limit for one address.")
        }
    };
    last_word(&stream, &raw(&Problem::new(Code::TooManyConnections, detail).retry_after(RETRY_AFTER))).await;
}

/// Tells a peer that its head took too long.
pub(crate) async fn slow_head(stream: &TcpStream, timeout: Duration) {
    let detail = format!("The request's head did not arrive within {} ms.", timeout.as_millis());
    last_word(stream, &raw(&Problem::new(Code::RequestTimeout, detail))).await;
}

/// Tells a peer that speaks HTTP/2 what is spoken here.
pub(crate) async fn version(stream: &TcpStream) {
    let detail = "Only HTTP/1.1 is spoken here; the bytes received begin an HTTP/2 connection.";
    last_word(stream, &raw(&Problem::new(Code::VersionNotSupported, detail))).await;
}

/// Our own words for a response that hyper made up because it could not parse a head; `None` for any other bytes.
///
/// hyper's own are recognised by their empty body, which none of ours has.
pub(crate) fn unparsable(head: &[u8]) -> Option<Bytes> {
    let status = head.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    let is_bare = head[..end].windows(19).any(|line| line == b"\r\ncontent-length: 0");
    let (code, detail) = match status {
        b"00" => (Code::BadRequest, "The bytes received are not an HTTP request."),
        b"14" => (Code::UriTooLong, "The request's URI is too long."),
        b"31" => (Code::HeadersTooLarge, "The request's head is too large."),
        _ => return None,
    };
    is_bare.then(|| raw(&Problem::new(code, detail)))
}

/// Writes what fits into the socket's buffer, then closes so that the peer can read it: a socket closed with unread
/// bytes in it answers with a reset, which throws our response away on the other side.
async fn last_word(stream: &TcpStream, bytes: &[u8]) {
    if stream.try_write(bytes).is_ok() && shutdown(stream).is_ok() {
        linger(stream).await;
    }
}

/// Throws away what the peer still sends, until it closes or [`LINGER`] is over.
pub(crate) async fn linger(stream: &TcpStream) {
    let drained = async {
        while stream.readable().await.is_ok() {
            // Not held while waiting: every connection's task would be as large.
            match stream.try_read(&mut [0_u8; 4096]) {
                Ok(0) => return,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

fn raw(problem: &Problem) -> Bytes {
    let status = problem.status();
    let body = problem.body();
    let retry = problem.retry_after_seconds().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n",
        status.as_u16(),
        reason(status),
        body.len(),
    );
    [head.as_bytes(), &body].concat().into()
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_error_of_the_parser_gets_a_body() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let ours = unparsable(bare).unwrap();
        let text = std::str::from_utf8(&ours).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
        assert!(text.contains("\"code\":\"headers_too_large\""), "{text}");
    }

    #[test]
    fn responses_of_ours_pass_untouched() {
        assert_eq!(unparsable(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), None);
        assert_eq!(unparsable(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n{}"), None);
    }
}

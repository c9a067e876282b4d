//! What stands between a browser and a server: shows the browser a page, hears what the page reports, and passes
//! everything else on, so that page and server are one origin. It can cut what it passes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::wait::within;

const HEAD_MAX: usize = 64 * 1024;

/// A page and its way to a server. Ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    page: String,
    server: Mutex<SocketAddr>,
    reports: mpsc::UnboundedSender<String>,
    /// Counts the cuts; each ends everything that is passed on at that moment.
    cuts: watch::Sender<u64>,
    passed: watch::Sender<u64>,
    /// Frames of event streams given to the browser.
    frames: watch::Sender<u64>,
}

impl Gateway {
    /// Shows `page` (HTML) at `/page`; what the page posts to `/report` is a report; the rest goes to `server`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(page: &str, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (sender, reports) = mpsc::unbounded_channel();
        let shared = Shared {
            page: page.to_owned(),
            server: Mutex::new(server),
            reports: sender,
            cuts: watch::Sender::default(),
            passed: watch::Sender::default(),
            frames: watch::Sender::default(),
        };
        let shared = Arc::new(shared);
        let task = tokio::spawn(Arc::clone(&shared).accept(listener));
        Self { address, shared, reports, task }
    }

    /// Where the browser finds the page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/page", self.address)
    }

    /// Passes on to this server from now on.
    ///
    /// # Panics
    /// When a task of this gateway panicked.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.shared.server.lock().expect("never poisoned") = server;
    }

    /// Ends all connections that are passed on.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections have been passed on to a server that took them.
    #[must_use]
    pub fn passed(&self) -> u64 {
        *self.shared.passed.borrow()
    }

    /// Waits until more than this many have been passed on.
    ///
    /// # Panics
    /// When there are not within `limit`.
    pub async fn passed_more_than(&self, count: u64, limit: Duration) {
        let mut passed = self.shared.passed.subscribe();
        let more = within("the browser comes back", limit, passed.wait_for(|passed| *passed > count)).await;
        more.expect("the gateway lives");
    }

    /// How many frames of event streams, comments included, have been given to the browser.
    #[must_use]
    pub fn frames(&self) -> u64 {
        *self.shared.frames.borrow()
    }

    /// Waits until more than this many have been.
    ///
    /// # Panics
    /// When there are not within `limit`.
    pub async fn frames_more_than(&self, count: u64, limit: Duration) {
        let mut frames = self.shared.frames.subscribe();
        let more = within("the browser is given a frame", limit, frames.wait_for(|frames| *frames > count)).await;
        more.expect("the gateway lives");
    }

    /// The next report of the page.
    ///
    /// # Panics
    /// When none comes within `limit`.
    pub async fn report(&mut self, limit: Duration) -> String {
        within("the page reports", limit, self.reports.recv()).await.expect("the gateway lives")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((browser, _)) = listener.accept().await {
            let shared = Arc::clone(&self);
            connections.spawn(async move {
                // Broken connections are what this is about.
                let _ = shared.serve(browser).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }

    /// One request per connection, so that each finds its own way.
    async fn serve(&self, mut browser: TcpStream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if bytes.len() > HEAD_MAX || browser.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let answer = match target {
            "/page" => answer("200 OK", &self.page),
            "/favicon.ico" => answer("404 Not Found", ""),
            "/report" => {
                let length = content_length(&head);
                while bytes.len() < end + length {
                    if browser.read_buf(&mut bytes).await? == 0 {
                        return Ok(());
                    }
                }
                let _ = self.reports.send(String::from_utf8_lossy(&bytes[end..end + length]).into_owned());
                answer("200 OK", "")
            }
            _ => return self.pass_on(browser, &head, &bytes[end..]).await,
        };
        browser.write_all(answer.as_bytes()).await?;
        browser.shutdown().await
    }

    async fn pass_on(&self, browser: TcpStream, head: &str, rest: &[u8]) -> std::io::Result<()> {
        let mut cuts = self.cuts.subscribe();
        let address = *self.server.lock().expect("never poisoned");
        let mut server = TcpStream::connect(address).await?;
        self.passed.send_modify(|passed| *passed += 1);
        server.write_all(closing(head).as_bytes()).await?;
        server.write_all(rest).await?;
        let (mut from_browser, to_browser) = browser.into_split();
        let (from_server, mut to_server) = server.into_split();
        tokio::select! {
            ended = self.answer(from_server, to_browser) => ended,
            ended = copy(&mut from_browser, &mut to_server) => ended.map(|_| ()),
            _ = cuts.changed() => Ok(()),
        }
    }

    async fn answer(&self, mut server: OwnedReadHalf, mut browser: OwnedWriteHalf) -> std::io::Result<()> {
        let (mut part, mut last) = ([0; 8192], 0);
        loop {
            let count = server.read(&mut part).await?;
            if count == 0 {
                return browser.shutdown().await;
            }
            browser.write_all(&part[..count]).await?;
            let ends =
                part[..count].iter().filter(|byte| std::mem::replace(&mut last, **byte) == b'\n' && **byte == b'\n');
            let ends = ends.count() as u64;
            self.frames.send_modify(|frames| *frames += ends);
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

fn content_length(head: &str) -> usize {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    };
    head.lines().find_map(header).unwrap_or(0)
}

/// The head of a request after which the connection is not used again.
fn closing(head: &str) -> String {
    let lines = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let lines: Vec<&str> = lines.chain(["Connection: close"]).collect();
    format!("{}\r\n\r\n", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_on_request_asks_for_the_end_of_its_connection() {
        let head = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nLast-Event-ID: 7-1\r\n\r\n";
        let wanted = "GET /x HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 7-1\r\nConnection: close\r\n\r\n";
        assert_eq!(closing(head), wanted);
        assert_eq!(content_length("POST / HTTP/1.1\r\nContent-LENGTH: 12\r\n\r\n"), 12);
    }
}

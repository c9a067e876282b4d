//! Bytes on a socket, for traffic that no HTTP library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// A TCP connection without manners.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    /// Connects.
    ///
    /// # Panics
    /// When nobody accepts.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server accepts connections");
        let _ = stream.set_nodelay(true);
        Self { stream }
    }

    /// Writes; `false` when the server has closed the connection.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Says that nothing more will be written.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads until the server closes, at most for `limit`; a reset counts as closed.
    ///
    /// # Panics
    /// When the server keeps the connection open.
    pub async fn read_to_close(&mut self, limit: Duration) -> String {
        let mut all = Vec::new();
        let mut part = [0; 8192];
        within("the server closes the connection", limit, async {
            while let Ok(count @ 1..) = self.stream.read(&mut part).await {
                all.extend_from_slice(&part[..count]);
            }
        })
        .await;
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads until `text` has come or the server closes, at most for `limit`.
    ///
    /// # Panics
    /// When neither happens.
    pub async fn read_until(&mut self, text: &str, limit: Duration) -> String {
        let mut all = String::new();
        let mut part = [0; 8192];
        within(&format!("{text:?} comes"), limit, async {
            while !all.contains(text) {
                match self.stream.read(&mut part).await {
                    Ok(count @ 1..) => all.push_str(&String::from_utf8_lossy(&part[..count])),
                    _ => break,
                }
            }
        })
        .await;
        all
    }
}

//! A small keep-alive HTTP client which says whether a failed request can have reached the server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::reply::Reply;
use crate::sse::SseReader;

/// 60 s: twice the longest wait the interface offers (`waitMs` 30 000).
const PATIENCE: Duration = Duration::from_secs(60);

/// Talks to one server; clones share the idle connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    token: Option<String>,
    /// Locked for a push or a pop.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Failure {
    /// The request cannot have reached the server.
    NotSent(String),
    /// The server may or may not have acted on it.
    Unknown(String),
}

/// A request body: JSON text as it is, or a value to be written as JSON.
#[derive(Clone, Debug, Default)]
pub struct Payload(pub Bytes);

/// A request being put together.
#[derive(Debug)]
pub struct Call<'a> {
    client: &'a Client,
    request: http::request::Builder,
    body: Bytes,
}

impl Client {
    /// A client for the server at `address`; connects when first used.
    #[must_use]
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self { shared: Arc::new(Shared { address, token: token.map(str::to_owned), idle: Mutex::default() }) }
    }

    /// Begins a request; `Host` and `Authorization` are set unless given.
    #[must_use]
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(token) = &self.shared.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Call { client: self, request, body: Bytes::new() }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path).send().await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: impl Into<Payload>) -> Reply {
        self.call("POST", path).json(body).send().await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path).send().await
    }

    /// Opens an event stream.
    ///
    /// # Panics
    /// When the answer is not an event stream.
    pub async fn events(&self, path: &str) -> SseReader {
        self.events_after(path, "").await
    }

    /// Opens an event stream as a browser does that comes back: with the last id it has seen, if any.
    ///
    /// # Panics
    /// When the answer is not an event stream.
    pub async fn events_after(&self, path: &str, last_event_id: &str) -> SseReader {
        let call = self.call("GET", path).header("accept", "text/event-stream");
        let call = if last_event_id.is_empty() { call } else { call.header("last-event-id", last_event_id) };
        let request = call.request();
        let mut sender = self.connect().await.unwrap_or_else(|error| panic!("GET {path}: {error:?}"));
        let response = sender.send_request(request).await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        SseReader::new(response, sender)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let not_sent = |error: &dyn std::error::Error| Failure::NotSent(error.to_string());
        let stream = TcpStream::connect(self.shared.address).await.map_err(|error| not_sent(&error))?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| not_sent(&error))?;
        // Ends with the sender: the connection closes when its last handle is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let mut request = request;
        loop {
            let idle = self.shared.idle.lock().expect("never poisoned").pop();
            let mut sender = match idle {
                Some(sender) if sender.is_ready() => sender,
                Some(_) => continue,
                None => self.connect().await?,
            };
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    // The idle connection had died and nothing was written.
                    Some(unsent) => {
                        request = unsent;
                        continue;
                    }
                    None => return Err(Failure::Unknown(error.into_error().to_string())),
                },
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| Failure::Unknown(error.to_string()))?.to_bytes();
            self.shared.idle.lock().expect("never poisoned").push(sender);
            return Ok(Reply::new(head.status.as_u16(), head.headers, body));
        }
    }
}

impl Call<'_> {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sets a JSON body and its content type.
    #[must_use]
    pub fn json(self, body: impl Into<Payload>) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    /// Sets a body without a content type.
    #[must_use]
    pub fn body(mut self, body: impl Into<Payload>) -> Self {
        self.body = body.into().0;
        self
    }

    /// Sends and waits for the whole reply.
    ///
    /// # Panics
    /// When there is none.
    pub async fn send(self) -> Reply {
        let name = format!("{:?} {:?}", self.request.method_ref(), self.request.uri_ref());
        self.attempt().await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"))
    }

    /// Sends and waits for the whole reply, at most 60 s.
    pub async fn attempt(self) -> Result<Reply, Failure> {
        let client = self.client;
        let exchange = client.exchange(self.request());
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(Failure::Unknown("no reply".to_owned())))
    }

    fn request(self) -> http::Request<Full<Bytes>> {
        let has_host = self.request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
        let host = self.client.shared.address.to_string();
        let request = if has_host { self.request } else { self.request.header("host", host) };
        request.body(Full::new(self.body)).expect("the test writes valid requests")
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<serde_json::Value> for Payload {
    fn from(value: serde_json::Value) -> Self {
        value.to_string().into()
    }
}

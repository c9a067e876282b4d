//! Opening a connection: find the server, open the stream, say who we are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::resp::{Parser, encode};
use super::sentinel;
use super::stream::{Stream, Tls};
use crate::config::{Address, Config, Password, Topology};
use crate::error::Error;
use crate::value::Value;

/// Opens connections as the configuration says. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) config: Arc<Config>,
    tls: Option<Tls>,
}

/// A stream that is logged in, and what came over it that nobody read yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) unread: BytesMut,
}

impl From<Stream> for Opened {
    fn from(stream: Stream) -> Self {
        Self { stream, unread: BytesMut::new() }
    }
}

/// Whom to dial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a Password>,
    pub(crate) database: u32,
}

impl Dialer {
    /// Errors: [`Error::Unusable`] when no trust can be set up.
    pub(crate) fn new(config: Arc<Config>) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(|tls| Tls::new(tls.ca.as_deref())).transpose()?;
        Ok(Self { config, tls })
    }

    /// The same whom to trust, other settings.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        Self { config, tls: self.tls.clone() }
    }

    /// A stream to the server (the primary that Sentinels name; of a cluster the first seed that answers), logged in.
    pub(crate) async fn dial(&self) -> Result<Stream, Error> {
        match &self.config.topology {
            Topology::Standalone { address } => self.dial_address(address).await,
            Topology::Unix { path } => {
                let opening = async {
                    let what = path.display().to_string();
                    let stream = Stream::unix(path).await.map_err(|error| refused(&what, &error))?;
                    self.log_in(stream, self.login()).await
                };
                self.in_time(&path.display().to_string(), opening).await
            }
            Topology::Sentinel { .. } => {
                let primary = sentinel::find_primary(self).await?;
                let mut stream = self.dial_address(&primary).await?;
                sentinel::check_primary(&mut stream, &primary).await?;
                Ok(stream)
            }
            Topology::Cluster { addresses } => self.dial_any(addresses).await.map(|(stream, _)| stream),
        }
    }

    /// A stream to the first of `addresses` that answers, and which that is.
    pub(crate) async fn dial_any(&self, addresses: &[Address]) -> Result<(Stream, Address), Error> {
        let mut failure = Error::not_connected("no address to try");
        for address in addresses {
            match self.dial_address(address).await {
                Ok(stream) => return Ok((stream, address.clone())),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A stream to one server, logged in.
    pub(crate) async fn dial_address(&self, address: &Address) -> Result<Stream, Error> {
        self.dial_with(address, self.login()).await
    }

    pub(crate) async fn dial_with(&self, address: &Address, login: Login<'_>) -> Result<Stream, Error> {
        let what = address.to_string();
        let opening = async {
            let name = self.tls_name(address);
            let stream = Stream::tcp(address, self.tls.as_ref().map(|tls| (tls, name)))
                .await
                .map_err(|error| refused(&what, &error))?;
            self.log_in(stream, login).await
        };
        self.in_time(&what, opening).await
    }

    /// Has Redis tell, over this very stream, what others do to keys that begin with one of `prefixes`.
    pub(crate) async fn track(&self, mut stream: Stream, prefixes: &[Bytes]) -> Result<Opened, Error> {
        let mut request: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"NOLOOP"];
        for prefix in prefixes {
            request.extend([&b"PREFIX"[..], prefix]);
        }
        let turning_on = async {
            let hello: [&[u8]; 4] = [b"HELLO", b"3", b"SETNAME", b"tidegate-tracked"];
            exchange(&mut stream, &hello).await?;
            let mut unread = BytesMut::new();
            exchange_with(&mut stream, &request, &mut unread).await?;
            Ok(unread)
        };
        let unread = self.in_time("Redis", turning_on).await.map_err(|error| match error {
            Error::Answer { message, .. } => {
                Error::Unusable(format!("it does not track keys for us: {message}").into())
            }
            other => other,
        })?;
        Ok(Opened { stream, unread })
    }

    /// The name a certificate must bear. Nodes of a cluster go by their IP; where the URL gave a name, that counts.
    fn tls_name<'a>(&'a self, address: &'a Address) -> &'a str {
        let is_ip = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
        match &self.config.topology {
            Topology::Cluster { addresses } if is_ip(&address.host) => {
                addresses.iter().map(|seed| seed.host.as_str()).find(|host| !is_ip(host)).unwrap_or(&address.host)
            }
            _ => &address.host,
        }
    }

    fn login(&self) -> Login<'_> {
        Login {
            username: self.config.username.as_deref(),
            password: self.config.password.as_ref(),
            database: self.config.database,
        }
    }

    async fn in_time<T>(&self, what: &str, opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = self.config.connect_timeout;
        timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(Error::not_connected(format!("{what} did not answer within {limit:?}"))))
    }

    /// Password, database, name; then a `PING`, so that a server that is loading or wants a password is told apart from
    /// one that works.
    async fn log_in(&self, mut stream: Stream, login: Login<'_>) -> Result<Stream, Error> {
        if let Some(password) = login.password {
            let mut request: Vec<&[u8]> = vec![b"AUTH"];
            request.extend(login.username.map(str::as_bytes));
            request.push(password.reveal().as_bytes());
            exchange(&mut stream, &request).await?;
        }
        if login.database != 0 {
            exchange(&mut stream, &[b"SELECT", login.database.to_string().as_bytes()]).await?;
        }
        exchange(&mut stream, &[b"PING"]).await?;
        // A name for `CLIENT LIST`; a server that forbids it works as well.
        match exchange(&mut stream, &[b"CLIENT", b"SETNAME", b"tidegate"]).await {
            Err(lost @ Error::NotSent { .. }) => Err(lost),
            _ => Ok(stream),
        }
    }
}

/// One request and its reply on a stream that nobody else uses. Whatever goes wrong here, nothing of a caller was sent.
pub(crate) async fn exchange(stream: &mut Stream, request: &[&[u8]]) -> Result<Value, Error> {
    exchange_with(stream, request, &mut BytesMut::new()).await
}

/// As [`exchange`]; what came after the reply stays in `input`.
async fn exchange_with(stream: &mut Stream, request: &[&[u8]], input: &mut BytesMut) -> Result<Value, Error> {
    let mut out = BytesMut::new();
    encode(&mut out, request.iter().copied());
    stream.write_all(&out).await.map_err(|error| refused("Redis", &error))?;
    stream.flush().await.map_err(|error| refused("Redis", &error))?;
    let mut parser = Parser::default();
    loop {
        match parser.next(input) {
            Ok(Some(reply)) => return reply,
            Ok(None) => {}
            Err(_) => return Err(Error::not_connected("what answers there is not Redis")),
        }
        if stream.read_buf(input).await.map_err(|error| refused("Redis", &error))? == 0 {
            return Err(Error::not_connected("the connection was closed while it was being opened"));
        }
    }
}

fn refused(what: &str, error: &std::io::Error) -> Error {
    Error::not_connected(format!("{what}: {error}"))
}

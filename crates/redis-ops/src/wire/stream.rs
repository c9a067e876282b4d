//! A byte stream to Redis: TCP, unix socket, or TLS over TCP.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Address;
use crate::error::Error;

/// Trust for TLS connections.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Trusts the certificates of `ca`, or those of the system. Errors: [`Error::Unusable`] when there are none.
    pub(crate) fn new(ca: Option<&Path>) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        match ca {
            Some(path) => {
                let unusable = |error| Error::Unusable(format!("the CA file {}: {error}", path.display()).into());
                for certificate in CertificateDer::pem_file_iter(path).map_err(unusable)? {
                    roots
                        .add(certificate.map_err(unusable)?)
                        .map_err(|error| Error::Unusable(format!("the CA file {}: {error}", path.display()).into()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(Error::Unusable("no trusted certificates; name a CA file with ?ca=/path".into()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Unusable(error.to_string().into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn wrap(&self, stream: TcpStream, name: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(self.0.connect(name, stream).await?)))
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Opens a TCP stream; TLS is checked against `tls_name`.
    pub(crate) async fn tcp(address: &Address, tls: Option<(&Tls, &str)>) -> io::Result<Self> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        match tls {
            Some((tls, name)) => tls.wrap(stream, name).await,
            None => Ok(Self::Tcp(stream)),
        }
    }

    /// Opens a unix socket.
    pub(crate) async fn unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::Unix)
    }

    /// Whether nothing has come that was not read, not even the end. Where something has, a byte of it may be eaten: such
    /// a stream must be asked for a sign of life before it is used.
    pub(crate) fn is_quiet(&self) -> bool {
        let nothing = |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        match self {
            Self::Tcp(stream) => nothing(stream.try_read(&mut [0])),
            Self::Unix(stream) => nothing(stream.try_read(&mut [0])),
            // What comes over TLS unasked may be meant for TLS.
            Self::Tls(stream) => stream.get_ref().0.readable().now_or_never().is_none(),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

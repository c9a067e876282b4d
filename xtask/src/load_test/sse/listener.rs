//! One listener: its connection, what it reads, what it has heard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::order::Heard;
use super::reading::Reading;

/// 16 KiB: a listener that will stall takes little in before its server feels it, like a telephone that has lost its network.
const SLOW_RECEIVE_BUFFER: usize = 16 << 10;

/// A listener and where it is in its life.
pub(super) struct Listener {
    pub(super) stream: usize,
    /// Stops reading while the crowd stalls.
    pub(super) is_slow: bool,
    pub(super) phase: Phase,
    /// Counts connections, so that a timer of an earlier one is not taken for one of this.
    pub(super) generation: u32,
    pub(super) socket: Option<TcpStream>,
    pub(super) reading: Reading,
    pub(super) heard: Heard,
    /// Readable, but not read because it stalls.
    pub(super) is_unread: bool,
}

/// Where a listener is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection; one may be due later.
    Away,
    /// Waits for its turn to connect.
    Queued,
    Connecting,
    /// The request is sent, the head has not come.
    Asking,
    Listening,
}

impl Listener {
    pub(super) fn new(stream: usize, is_slow: bool, heard: Heard) -> Self {
        Self {
            stream,
            is_slow,
            phase: Phase::Queued,
            generation: 0,
            socket: None,
            reading: Reading::default(),
            heard,
            is_unread: false,
        }
    }

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Asking)
    }

    /// Leaves; in one of four cases without saying goodbye, as when a cable is pulled.
    pub(super) fn leave(&mut self) {
        if let Some(socket) = self.socket.take()
            && self.generation.is_multiple_of(4)
        {
            let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        }
        self.phase = Phase::Away;
        self.is_unread = false;
    }
}

/// The address to come from: several loopback addresses have several times the ports, and are several peers to the server.
pub(super) fn source(target: SocketAddr, number: usize, sources: usize) -> Option<Ipv4Addr> {
    let is_loopback = matches!(target.ip(), IpAddr::V4(address) if address.is_loopback());
    // Only Linux answers to all of 127.0.0.0/8 without being told to.
    let has_many = cfg!(target_os = "linux") && is_loopback && sources > 1;
    has_many.then(|| Ipv4Addr::new(127, 0, 1, 1 + (number % sources) as u8))
}

/// Begins to connect.
pub(super) fn connect(target: SocketAddr, source: Option<Ipv4Addr>, is_slow: bool) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    if is_slow {
        sockopt::set_socket_recv_buffer_size(&socket, SLOW_RECEIVE_BUFFER)?;
    }
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from_std(socket.into())),
        Err(error) => Err(error.into()),
    }
}

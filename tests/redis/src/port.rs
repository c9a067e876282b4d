//! Ports that stay ours, also while the server behind one is down.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems hand out to outgoing connections (from 32768 on Linux), the cluster bus at +10000
/// included, so that no client takes a port while its server restarts.
const FIRST: u16 = 12_000;
const COUNT: u16 = 10_000;

/// How far a cluster node's bus is from its port; Redis before 7.0 knows no other.
const BUS: u16 = 10_000;

/// A port of 127.0.0.1 that no other program using this harness takes, until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Its lock is the reservation; the kernel lets go of it when we die.
    _lock: Option<File>,
}

impl Port {
    /// Takes a port nobody listens on, whose bus port is free as well.
    ///
    /// # Panics
    /// When none is left.
    pub(crate) fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Programs started together begin at different places.
        let start = u16::try_from(std::process::id().wrapping_mul(613) % u32::from(COUNT)).unwrap_or_default();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            if let Some(port) = Self::taken(FIRST + (start + step) % COUNT) {
                return port;
            }
        }
        panic!("no port of 127.0.0.1 from {FIRST} on is free");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    fn taken(number: u16) -> Option<Self> {
        let lock = lock_file(number);
        if lock.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            return None;
        }
        [number, number + BUS].into_iter().all(is_free).then_some(Self { number, _lock: lock })
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// One folder per user, or the first user's files would be closed to the next. Where it cannot be written, ports are
/// only looked at; a server that then loses the race takes another.
fn lock_file(port: u16) -> Option<File> {
    let user = rustix::process::getuid().as_raw();
    let folder: PathBuf = std::env::temp_dir().join(format!("tidegate-test-ports-{user}"));
    std::fs::create_dir_all(&folder).ok()?;
    OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(port.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice_until_it_is_dropped() {
        let first = Port::reserve();
        assert!(Port::taken(first.number()).is_none());
        let number = first.number();
        drop(first);
        assert!(Port::taken(number).is_some());
    }

    #[test]
    fn a_port_somebody_listens_on_is_passed_over() {
        let number = Port::reserve().number();
        let _listener = TcpListener::bind(("127.0.0.1", number)).unwrap();
        assert!(Port::taken(number).is_none());
    }
}

//! How many connections are open, in all and per address. A [`Permit`] gives its place back on drop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// 64: connections that are being told "no" at once; beyond that they are closed without a word.
const LINGERING_MAX: usize = 64;

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The server is at its limit.
    Total {
        /// Connections allowed at once.
        limit: usize,
    },
    /// This address is at its limit.
    Address {
        /// Connections allowed at once from one address.
        limit: usize,
    },
}

/// Counts of open connections.
#[derive(Debug)]
pub(crate) struct Limits {
    total_max: usize,
    per_address_max: usize,
    lingering: AtomicUsize,
    /// Locked for one hash lookup at accept and at close; never across an await.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Bounded by `total_max`: an address leaves with its last connection.
    by_address: HashMap<IpAddr, usize>,
}

impl Limits {
    pub(crate) fn new(total_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_address_max, lingering: AtomicUsize::new(0), counts: Mutex::default() })
    }

    /// Lets a connection from `address` in, or says which limit it met.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        let address = group(address);
        let mut counts = self.lock();
        if counts.total >= self.total_max {
            return Err(Refused::Total { limit: self.total_max });
        }
        let of_address = counts.by_address.entry(address).or_insert(0);
        if *of_address >= self.per_address_max {
            return Err(Refused::Address { limit: self.per_address_max });
        }
        *of_address += 1;
        counts.total += 1;
        Ok(Permit { limits: Arc::clone(self), address })
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.lock().total
    }

    /// A place among those being refused politely, if one is free.
    pub(crate) fn place_to_linger(self: &Arc<Self>) -> Option<Lingering> {
        let taken = self.lingering.fetch_add(1, Ordering::Relaxed);
        let place = Lingering(Arc::clone(self));
        (taken < LINGERING_MAX).then_some(place)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of one connection to be open.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: Arc<Limits>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limits.lock();
        counts.total -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// A place among the connections that are being refused.
#[derive(Debug)]
pub(crate) struct Lingering(Arc<Limits>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One household is one address: IPv6 hands a /64 to each, so its low half says nothing.
pub(crate) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_closed_connection_makes_room_for_the_next() {
        let limits = Limits::new(2, 2);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        let _second = limits.admit(address("10.0.0.2")).unwrap();
        assert_eq!(limits.admit(address("10.0.0.3")).unwrap_err(), Refused::Total { limit: 2 });
        drop(first);
        assert!(limits.admit(address("10.0.0.3")).is_ok());
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let limits = Limits::new(10, 2);
        let _held: Vec<_> = (0..2).map(|_| limits.admit(address("2001:db8::1")).unwrap()).collect();
        assert_eq!(limits.admit(address("2001:db8::2")).unwrap_err(), Refused::Address { limit: 2 }, "same /64");
        assert!(limits.admit(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn an_address_without_connections_leaves_the_map() {
        let limits = Limits::new(10, 2);
        drop(limits.admit(address("10.0.0.1")).unwrap());
        assert!(limits.lock().by_address.is_empty());
        assert_eq!(limits.open(), 0);
    }
}

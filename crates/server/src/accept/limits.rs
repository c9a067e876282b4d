//! How many connections are open, in all and per address. A [`Permit`] gives its place back on drop.
//!
//! Those that are fed count apart: they cost a fortieth of the others, and are bounded where they are let in
//! (`crate::listeners`). What both need is a descriptor.

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
    descriptors_max: usize,
    total_max: usize,
    per_address_max: usize,
    lingering: AtomicUsize,
    /// Locked for one hash lookup at accept and at close; never across an await.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Not among the total.
    fed: usize,
    /// Bounded by `total_max`: an address leaves with its last connection.
    by_address: HashMap<IpAddr, usize>,
}

impl Limits {
    pub(crate) fn new(descriptors_max: usize, total_max: usize, per_address_max: usize) -> Arc<Self> {
        let (lingering, counts) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { descriptors_max, total_max, per_address_max, lingering, counts })
    }

    /// Lets a connection from `address` in, or says which limit it met.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        let address = group(address);
        let mut counts = self.lock();
        if counts.total >= self.total_max {
            return Err(Refused::Total { limit: self.total_max });
        }
        if counts.total + counts.fed >= self.descriptors_max {
            return Err(Refused::Total { limit: self.descriptors_max });
        }
        let of_address = counts.by_address.entry(address).or_insert(0);
        if *of_address >= self.per_address_max {
            return Err(Refused::Address { limit: self.per_address_max });
        }
        *of_address += 1;
        counts.total += 1;
        Ok(Permit { limits: Arc::clone(self), address })
    }

    /// Connections open now, with those that are fed.
    pub(crate) fn open(&self) -> usize {
        let counts = self.lock();
        counts.total + counts.fed
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

/// The right of one connection to be fed: all that is left of its [`Permit`] is the descriptor. As small as can be.
#[derive(Debug)]
pub(crate) struct Fed(Arc<Limits>);

impl Permit {
    /// Frees the place among the connections; keeps the descriptor.
    pub(crate) fn begin_feed(self) -> Fed {
        self.limits.lock().fed += 1;
        Fed(Arc::clone(&self.limits))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limits.lock().leave(self.address);
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.0.lock().fed -= 1;
    }
}

impl Counts {
    fn leave(&mut self, address: IpAddr) {
        self.total -= 1;
        if let Some(of_address) = self.by_address.get_mut(&address) {
            *of_address -= 1;
            if *of_address == 0 {
                self.by_address.remove(&address);
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
        let limits = Limits::new(9, 2, 2);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        let _second = limits.admit(address("10.0.0.2")).unwrap();
        assert_eq!(limits.admit(address("10.0.0.3")).unwrap_err(), Refused::Total { limit: 2 });
        drop(first);
        assert!(limits.admit(address("10.0.0.3")).is_ok());
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let limits = Limits::new(10, 10, 2);
        let _held: Vec<_> = (0..2).map(|_| limits.admit(address("2001:db8::1")).unwrap()).collect();
        assert_eq!(limits.admit(address("2001:db8::2")).unwrap_err(), Refused::Address { limit: 2 }, "same /64");
        assert!(limits.admit(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_connection_that_is_fed_frees_its_place_but_not_its_descriptor() {
        let limits = Limits::new(2, 1, 1);
        let first = limits.admit(address("10.0.0.1")).unwrap();
        assert!(limits.admit(address("10.0.0.1")).is_err());
        let first = first.begin_feed();
        let other = limits.admit(address("10.0.0.1")).unwrap();
        assert_eq!(limits.open(), 2);
        drop(other);
        let second = limits.admit(address("10.0.0.1")).unwrap().begin_feed();
        assert_eq!(limits.admit(address("10.0.0.1")).unwrap_err(), Refused::Total { limit: 2 });
        drop((first, second));
        assert_eq!(limits.open(), 0);
    }

    #[test]
    fn an_address_without_connections_leaves_the_map() {
        let limits = Limits::new(10, 10, 2);
        drop(limits.admit(address("10.0.0.1")).unwrap());
        assert!(limits.lock().by_address.is_empty());
        assert_eq!(limits.open(), 0);
    }
}

//! Places for those who listen to events: bounded in all, per token and per address, so that one caller cannot take
//! every place.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::accept::group;
use crate::auth::TokenId;
use crate::error::{Code, Problem};

/// 5 s: a place is freed when a page is closed, not from one moment to the next.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How many may listen at once. For the parts, 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) all_max: usize,
    pub(crate) per_token_max: usize,
    pub(crate) per_address_max: usize,
}

/// Who wants to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) token: Option<TokenId>,
    pub(crate) address: Option<IpAddr>,
}

/// Those who listen now.
#[derive(Debug)]
pub(crate) struct Listeners {
    bounds: Bounds,
    /// Locked for two hash lookups when a listener comes and when it goes.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Both bounded by `all_max`: who has no listener is not in them.
    by_token: HashMap<TokenId, usize>,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; given back on drop.
#[derive(Debug)]
pub(crate) struct Listening {
    listeners: Arc<Listeners>,
    caller: Caller,
}

impl Listeners {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, counts: Mutex::default() })
    }

    /// How many listen now.
    pub(crate) fn open(&self) -> usize {
        self.lock().all
    }

    /// A place for `caller`.
    ///
    /// # Errors
    /// `overloaded` when all places are taken, `too_many_listeners` when the caller's are.
    pub(crate) fn admit(self: &Arc<Self>, caller: Caller) -> Result<Listening, Problem> {
        let caller = Caller { address: caller.address.map(group), ..caller };
        let Bounds { all_max, per_token_max, per_address_max } = self.bounds;
        let mut counts = self.lock();
        if counts.all >= all_max {
            let detail = format!("The server already has {all_max} event streams open, its limit.");
            return Err(Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER));
        }
        let too_many = |whose: &str, limit: usize| {
            let detail = format!("Your {whose} already has {limit} event streams open, the limit for one {whose}.");
            Err(Problem::new(Code::TooManyListeners, detail).retry_after(RETRY_AFTER))
        };
        if is_at(&counts.by_token, caller.token, per_token_max) {
            return too_many("token", per_token_max);
        }
        if is_at(&counts.by_address, caller.address, per_address_max) {
            return too_many("address", per_address_max);
        }
        counts.all += 1;
        add(&mut counts.by_token, caller.token);
        add(&mut counts.by_address, caller.address);
        Ok(Listening { listeners: Arc::clone(self), caller })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut counts = self.listeners.lock();
        counts.all -= 1;
        subtract(&mut counts.by_token, self.caller.token);
        subtract(&mut counts.by_address, self.caller.address);
    }
}

fn is_at<K: Hash + Eq>(counts: &HashMap<K, usize>, key: Option<K>, limit: usize) -> bool {
    limit > 0 && key.and_then(|key| counts.get(&key)).is_some_and(|count| *count >= limit)
}

fn add<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: Option<K>) {
    if let Some(key) = key {
        *counts.entry(key).or_insert(0) += 1;
    }
}

fn subtract<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: Option<K>) {
    let Some(key) = key else { return };
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(token: u32, address: &str) -> Caller {
        Caller { token: Some(TokenId(token)), address: Some(address.parse().unwrap()) }
    }

    fn listeners(all_max: usize, per_token_max: usize, per_address_max: usize) -> Arc<Listeners> {
        Listeners::new(Bounds { all_max, per_token_max, per_address_max })
    }

    #[test]
    fn one_token_or_address_cannot_take_every_place() {
        let listeners = listeners(10, 2, 3);
        let _first = listeners.admit(caller(1, "10.0.0.1")).unwrap();
        let second = listeners.admit(caller(1, "10.0.0.2")).unwrap();
        let refused = listeners.admit(caller(1, "10.0.0.3")).unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_seconds()), (Code::TooManyListeners, Some(5)));
        drop(second);
        assert!(listeners.admit(caller(1, "10.0.0.3")).is_ok());

        let _held: Vec<_> = (2..5).map(|token| listeners.admit(caller(token, "2001:db8::1")).unwrap()).collect();
        let refused = listeners.admit(caller(9, "2001:db8::2")).unwrap_err();
        assert!(refused.detail().contains("Your address"), "same /64: {}", refused.detail());
    }

    #[test]
    fn a_full_server_refuses_everybody_until_a_place_is_free() {
        let listeners = listeners(1, 0, 0);
        let only = listeners.admit(Caller::default()).unwrap();
        assert_eq!(listeners.admit(caller(1, "10.0.0.1")).unwrap_err().code(), Code::Overloaded);
        drop(only);
        assert!(listeners.admit(caller(1, "10.0.0.1")).is_ok());
    }

    #[test]
    fn who_has_left_is_not_remembered() {
        let listeners = listeners(9, 0, 0);
        drop([listeners.admit(caller(1, "10.0.0.1")).unwrap(), listeners.admit(caller(1, "10.0.0.2")).unwrap()]);
        let counts = listeners.lock();
        assert!(counts.all == 0 && counts.by_token.is_empty() && counts.by_address.is_empty());
    }
}

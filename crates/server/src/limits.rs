//! What the operating system lets this process hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: store files, runtime, log, some slack.
const RESERVED: u64 = 256;

/// Raises the limit on open descriptors as far as allowed and returns how many sockets fit for `connections` and
/// `listeners`.
pub(crate) fn sockets_that_fit(connections: usize, listeners: usize) -> usize {
    let wanted = connections + listeners;
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + RESERVED;
    let ceiling = limit.maximum.unwrap_or(u64::MAX);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = needed.min(ceiling);
    let fits = if current >= raised {
        current
    } else {
        let asked = Rlimit { current: Some(raised), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, asked).is_ok() { raised } else { current }
    };
    let sockets = usize::try_from(fits.saturating_sub(RESERVED)).unwrap_or(usize::MAX).clamp(1, wanted);
    let told = "fewer connections and event streams than configured fit into the limit on open files";
    if sockets < connections {
        tracing::warn!(connections, listeners, sockets, descriptors = fits, "{told}");
    } else if sockets < wanted {
        tracing::info!(connections, listeners, sockets, descriptors = fits, "{told}");
    }
    sockets
}

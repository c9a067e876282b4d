//! One general connection that is always being kept up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::chance;
use crate::config::Address;
use crate::core::Core;
use crate::error::Error;
use crate::wire::{Connection, Opened, Request, Stream};

/// Beyond the command timeout, a connection from which nothing at all was heard for this long is given up.
const SILENCE: Duration = Duration::from_secs(1);
/// A reply over a tracked connection may take so many times its patience while bytes keep coming.
const ARRIVING: u32 = 20;
/// How long requests in flight may finish on a server that turned out to be a replica.
const FINISH: Duration = Duration::from_millis(100);

/// A place for one connection.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Held to copy or replace the handle.
    current: RwLock<Option<Connection>>,
    /// The server is no primary (any more): find the new one.
    read_only: Notify,
}

enum End {
    Lost(Box<str>),
    ReadOnly,
    Closing,
}

impl Lane {
    /// The connection, if it is up.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.current.read().clone()
    }

    /// The server refused a write as a replica does.
    pub(crate) fn is_read_only(&self) {
        self.read_only.notify_one();
    }

    /// Keeps a connection to `address` (or whatever the configuration names) up until `stop`.
    pub(crate) async fn keep_up(
        self: Arc<Self>,
        core: Arc<Core>,
        address: Option<Address>,
        mut first: Option<Stream>,
        stop: CancellationToken,
    ) {
        let mut backoff = Backoff::new(core.config.reconnect_min, core.config.reconnect_max);
        let mut again = false;
        loop {
            let opened = match first.take() {
                Some(stream) => stream.into(),
                None => tokio::select! {
                    opened = dial(&core, address.as_ref(), &mut backoff) => opened,
                    () = stop.cancelled() => return,
                },
            };
            let since = Instant::now();
            let (end, was_of_use) = self.use_up(&core, opened, &stop, again).await;
            again = true;
            match end {
                End::Closing => return,
                // Reconnecting at once to a server that closes at once would be a hot loop.
                End::Lost(_) if was_of_use || since.elapsed() > core.config.reconnect_min => backoff.reset(),
                End::Lost(_) | End::ReadOnly => {}
            }
        }
    }

    /// Also says whether any request was answered.
    async fn use_up(&self, core: &Arc<Core>, opened: Opened, stop: &CancellationToken, again: bool) -> (End, bool) {
        let (connection, work) = Connection::new(opened, core.config.commands_max, core.ears.clone());
        let mut work = core.tasks.spawn(work);
        if again {
            core.reconnected();
        }
        *self.current.write() = Some(connection.clone());
        core.up(again);
        let end = tokio::select! {
            why = &mut work => End::Lost(why.unwrap_or_else(|_| "the connection's task failed".into())),
            why = watch(&connection, core) => End::Lost(why),
            () = self.read_only.notified() => End::ReadOnly,
            () = stop.cancelled() => End::Closing,
        };
        connection.give_up();
        *self.current.write() = None;
        let why = match &end {
            End::Lost(why) => why,
            End::ReadOnly => {
                finish(&connection).await;
                "the server is a replica; looking for the primary"
            }
            End::Closing => "the client was closed",
        };
        connection.end(why);
        core.down(why);
        (end, connection.has_answered())
    }
}

/// Dials until it works.
async fn dial(core: &Core, address: Option<&Address>, backoff: &mut Backoff) -> Opened {
    loop {
        sleep(backoff.next(chance::unit())).await;
        match open(core, address).await {
            Ok(opened) => return opened,
            Err(error) => core.failed(&error.to_string()),
        }
    }
}

async fn open(core: &Core, address: Option<&Address>) -> Result<Opened, Error> {
    let stream = match address {
        Some(address) => core.dialer.dial_address(address).await?,
        None => core.dialer.dial().await?,
    };
    match &core.ears {
        Some(ears) => core.dialer.track(stream, &ears.prefixes).await,
        None => Ok(stream.into()),
    }
}

/// Ends the waits of those whose reply is late, and returns when the connection seems dead. While nobody waits there is no
/// timer but that of the next keep-alive.
async fn watch(connection: &Connection, core: &Core) -> Box<str> {
    let patience = core.config.command_timeout;
    let tick = (patience / 20).clamp(Duration::from_millis(10), Duration::from_millis(250));
    let mut keep_alive = Instant::now() + core.config.health_check_interval;
    loop {
        tokio::select! {
            () = connection.busy() => {}
            () = sleep_until(keep_alive) => {
                // Its reply, or the silence, is noticed below.
                let _ = connection.send(Request { head: &[b"PING"], keys: &[], args: &[] });
            }
        }
        sleep(tick).await;
        let now = Instant::now();
        if core.ears.is_some() {
            // A late reply and late pushes are the same event, so the link ends before anybody is told that a reply is late.
            // One that is arriving, behind others that are large, is not late.
            let (waited, silent) = connection.longest_wait(now);
            if silent > patience || waited > patience * ARRIVING {
                return format!("no reply over the tracked link within {patience:?}").into();
            }
            keep_alive = now + core.config.health_check_interval;
            continue;
        }
        let silence = connection.expire(patience, now);
        if silence > patience + SILENCE {
            return format!("Redis has not said anything for {silence:?}").into();
        }
        keep_alive = now + core.config.health_check_interval;
    }
}

async fn finish(connection: &Connection) {
    let until = Instant::now() + FINISH;
    while !connection.is_idle() && Instant::now() < until {
        sleep(FINISH / 10).await;
    }
}

/// Whether the answer means that the server is no primary.
pub(crate) fn is_read_only(error: &Error) -> bool {
    matches!(error, Error::Answer { code, .. } if &**code == "READONLY")
}

//! The one subscriber connection of the process: who listens to what, and the task that keeps it so.
//!
//! `Subscribed` is said only after Redis confirmed the latest `SUBSCRIBE` of a channel, so that messages published after
//! it are heard for certain. A link from which nothing came for two keep-alives is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::backoff::Backoff;
use crate::chance;
use crate::error::Error;
use crate::link::Link;
use crate::subscription::{Inbox, Signal};
use crate::value::Value;
use crate::wire::{Parser, Stream, encode};

/// Who listens, and what Redis knows of it.
#[derive(Debug)]
pub(crate) struct Hub {
    link: Arc<Link>,
    /// Held to join, leave, or hand out one signal.
    state: Mutex<State>,
    changed: Notify,
    started: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<Bytes, Vec<Arc<Inbox>>>,
    /// What was said to Redis over the present connection.
    said: HashMap<Bytes, Said>,
}

/// What was said to Redis about one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// `SUBSCRIBE`s that Redis has not confirmed yet.
    outstanding: u32,
    /// Whether the last word was `SUBSCRIBE`.
    on: bool,
}

impl Said {
    fn confirmed(self) -> bool {
        self.on && self.outstanding == 0
    }
}

impl Hub {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, state: Mutex::default(), changed: Notify::new(), started: AtomicBool::new(false) })
    }

    /// Starts to listen.
    pub(crate) fn join(self: &Arc<Self>, channel: &Bytes) -> Arc<Inbox> {
        let core = &self.link.core;
        let inbox = Arc::new(Inbox::new(core.config.messages_max));
        {
            let mut state = self.state.lock();
            state.listeners.entry(channel.clone()).or_default().push(inbox.clone());
            if state.said.get(channel).is_some_and(|said| said.confirmed()) {
                inbox.news(Signal::Subscribed);
            }
        }
        core.stats.subscriptions.add(1.0);
        self.changed.notify_one();
        if !self.started.swap(true, Ordering::AcqRel) && !core.closing.is_cancelled() {
            core.tasks.spawn(self.clone().run());
        }
        inbox
    }

    /// Listens no more.
    pub(crate) fn leave(&self, channel: &Bytes, inbox: &Arc<Inbox>) {
        let mut state = self.state.lock();
        if let Some(inboxes) = state.listeners.get_mut(channel) {
            inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
            if inboxes.is_empty() {
                state.listeners.remove(channel);
            }
        }
        drop(state);
        self.link.core.stats.subscriptions.sub(1.0);
        self.changed.notify_one();
    }

    /// Keeps a connection up while anybody listens.
    async fn run(self: Arc<Self>) {
        let core = self.link.core.clone();
        let mut backoff = Backoff::new(core.config.reconnect_min, core.config.reconnect_max);
        loop {
            let one_life = async {
                while self.state.lock().listeners.is_empty() {
                    self.changed.notified().await;
                }
                sleep(backoff.next(chance::unit())).await;
                let stream = self.dial().await?;
                let since = Instant::now();
                let end = self.listen(stream).await;
                if since.elapsed() > core.config.reconnect_min {
                    backoff.reset();
                }
                end
            };
            let end = tokio::select! {
                end = one_life => end,
                () = core.closing.cancelled() => {
                    self.lost();
                    return;
                }
            };
            self.lost();
            if let Err(error) = end {
                core.failed(&error.to_string());
            }
        }
    }

    async fn dial(&self) -> Result<Stream, Error> {
        let dialer = &self.link.core.dialer;
        match self.link.is_cluster() {
            // Any node of a cluster passes on what is published at any other.
            true => dialer.dial_any(&self.link.addresses()).await.map(|(stream, _)| stream),
            false => dialer.dial().await,
        }
    }

    /// Until the link is lost, or nobody listens any more.
    async fn listen(&self, mut stream: Stream) -> Result<(), Error> {
        let keep_alive = self.link.core.config.subscriber_keep_alive;
        let mut ticks = interval(keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut parser, mut input, mut heard) = (Parser::default(), BytesMut::new(), Instant::now());
        loop {
            let mut out = BytesMut::new();
            if !self.say_changes(&mut out) {
                return Ok(());
            }
            tokio::select! {
                read = stream.read_buf(&mut input), if out.is_empty() => {
                    if read.map_err(|error| Error::lost(&error.to_string()))? == 0 {
                        return Err(Error::lost("Redis closed the subscriber connection"));
                    }
                    heard = Instant::now();
                    while let Some(reply) = parser.next(&mut input).map_err(|_| Error::lost("no reply of Redis"))? {
                        self.hear(reply?)?;
                    }
                }
                () = self.changed.notified(), if out.is_empty() => {}
                now = ticks.tick(), if out.is_empty() => {
                    let silence = now.saturating_duration_since(heard);
                    if silence >= keep_alive * 2 {
                        return Err(Error::lost("the subscriber connection went silent"));
                    }
                    if silence >= keep_alive / 2 {
                        encode(&mut out, [&b"PING"[..]].into_iter());
                    }
                }
                () = std::future::ready(()), if !out.is_empty() => {}
            }
            if !out.is_empty() {
                let writing = timeout(keep_alive * 2, async {
                    stream.write_all(&out).await?;
                    stream.flush().await
                });
                let written = writing.await.map_err(|_| Error::lost("the subscriber connection is stuck"))?;
                written.map_err(|error| Error::lost(&error.to_string()))?;
            }
        }
    }

    /// Appends what Redis must be told so that it sends what is listened to. `false`: nobody listens.
    fn say_changes(&self, out: &mut BytesMut) -> bool {
        let mut state = self.state.lock();
        let State { listeners, said } = &mut *state;
        let new: Vec<Bytes> =
            listeners.keys().filter(|channel| !said.get(*channel).is_some_and(|said| said.on)).cloned().collect();
        let gone: HashSet<Bytes> = said
            .iter()
            .filter(|(channel, said)| said.on && !listeners.contains_key(*channel))
            .map(|(channel, _)| channel.clone())
            .collect();
        let words = |verb: &'static [u8], channels: &[Bytes], out: &mut BytesMut| {
            if !channels.is_empty() {
                encode(out, std::iter::once(verb).chain(channels.iter().map(|channel| &channel[..])));
            }
        };
        words(b"SUBSCRIBE", &new, out);
        for channel in new {
            let said = said.entry(channel).or_default();
            said.outstanding += 1;
            said.on = true;
        }
        let gone: Vec<Bytes> = gone.into_iter().collect();
        words(b"UNSUBSCRIBE", &gone, out);
        for channel in &gone {
            match said.get_mut(channel) {
                Some(said) if said.outstanding > 0 => said.on = false,
                _ => {
                    said.remove(channel);
                }
            }
        }
        !listeners.is_empty()
    }

    /// `[message, channel, payload]`, `[subscribe, channel, count]`, `[unsubscribe, …]`, `[pong, …]`.
    fn hear(&self, push: Value) -> Result<(), Error> {
        let mut parts = push.into_array()?.into_iter();
        let mut part = || parts.next().unwrap_or(Value::Nil);
        let verb = part().into_bytes()?;
        match &verb[..] {
            b"message" => self.message(&part().into_bytes()?, &part().into_bytes()?),
            b"subscribe" => self.confirmed(&part().into_bytes()?),
            _ => {}
        }
        Ok(())
    }

    fn message(&self, channel: &Bytes, payload: &Bytes) {
        let state = self.state.lock();
        for inbox in state.listeners.get(channel).into_iter().flatten() {
            if !inbox.message(payload.clone()) {
                self.link.core.stats.messages_missed.inc();
            }
        }
    }

    fn confirmed(&self, channel: &Bytes) {
        let mut state = self.state.lock();
        let State { listeners, said } = &mut *state;
        let Some(known) = said.get_mut(channel) else { return };
        known.outstanding = known.outstanding.saturating_sub(1);
        if known.confirmed() {
            listeners.get(channel).into_iter().flatten().for_each(|inbox| inbox.news(Signal::Subscribed));
        } else if known.outstanding == 0 {
            said.remove(channel);
        }
    }

    /// The connection is gone: who was sure to hear everything is so no more.
    fn lost(&self) {
        let mut state = self.state.lock();
        let State { listeners, said } = &mut *state;
        for (channel, _) in said.drain().filter(|(_, said)| said.confirmed()) {
            listeners.get(&channel).into_iter().flatten().for_each(|inbox| inbox.news(Signal::Lost));
        }
    }
}

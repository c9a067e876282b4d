//! The publisher: numbers its events, keeps the ledger, sends again only what was refused or went unanswered.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::event_id::EventId;
use super::histogram::Histogram;
use super::ledger::Ledger;
use super::nchan::Pipe;
use crate::load_test::client::Client;
use crate::load_test::pace::{Schedule, wait_until};

/// Between two attempts, so that a dead server is not asked a thousand times a second.
const PAUSE: Duration = Duration::from_millis(20);

/// 100 events that have become due go in one request.
const TOGETHER_MAX: usize = 100;

/// Where events go.
pub(super) enum Poster {
    Tidegate(Client),
    /// Has no ids of the kind we check.
    Nchan(Pipe),
}

/// Publishes to a number of streams.
pub(super) struct Publisher {
    poster: Poster,
    pub(super) names: Vec<String>,
    pub(super) ledger: Ledger,
    /// From the moment an event was due to its acknowledgement.
    pub(super) latency: Histogram,
    pub(super) errors: BTreeMap<String, u64>,
    /// With it, events carry idempotence ids and are sent again until acknowledged.
    run: Option<String>,
    /// What makes an event as large as asked for.
    padding: String,
    epoch: Instant,
}

/// Why events are not known to be published.
enum Failed {
    /// Refused for now, or nobody knows.
    Maybe(String),
    /// Wrong, and would be again.
    Wrong(String),
}

impl Publisher {
    /// `bytes`: size of an event's data, at least. `run`: names this run in idempotence ids.
    pub(super) fn new(poster: Poster, names: Vec<String>, bytes: usize, run: Option<String>, epoch: Instant) -> Self {
        Self {
            poster,
            ledger: Ledger::new(names.len()),
            names,
            latency: Histogram::default(),
            errors: BTreeMap::new(),
            run,
            // `{"n":123456,"at":1234567890,"p":""}`
            padding: "x".repeat(bytes.saturating_sub(36)),
            epoch,
        }
    }

    /// Publishes the next events of a stream, of which each was due at its moment, in one request; `false` when they are
    /// not acknowledged. With idempotence ids it goes on trying for `patience`.
    pub(super) fn publish(&mut self, stream: usize, due: &[Instant], patience: Duration) -> Result<bool> {
        let (first, start) = (self.ledger.published(stream), Instant::now());
        let numbers = first..first + due.len() as u64;
        let events: Vec<_> = numbers.clone().zip(due).map(|(n, due)| self.event(stream, n, *due)).collect();
        loop {
            numbers.clone().for_each(|n| self.ledger.tried(stream, n));
            match self.poster.send(&self.names[stream], &events) {
                Ok(ids) => {
                    numbers.zip(ids).for_each(|(n, id)| self.ledger.acknowledge(stream, n, id));
                    due.iter().for_each(|due| self.latency.record(due.elapsed().as_micros() as u64));
                    return Ok(true);
                }
                Err(Failed::Wrong(what)) => bail!("publishing to {} failed: {what}", self.names[stream]),
                Err(Failed::Maybe(what)) => *self.errors.entry(what).or_default() += 1,
            }
            if self.run.is_none() || start.elapsed() > patience {
                return Ok(false);
            }
            wait_until(Instant::now() + PAUSE);
        }
    }

    /// At a fixed rate for a time, to the stream that `choose` names for each. One request is under way at a time, so that
    /// numbers come in order; what became due meanwhile for the same stream goes with the next.
    pub(super) fn pour(
        &mut self,
        rate: f64,
        time: Duration,
        patience: Duration,
        choose: impl Fn(u64) -> usize,
    ) -> Result<()> {
        let total = (rate * time.as_secs_f64()).ceil() as u64;
        let schedule = Schedule::new(Instant::now() + Duration::from_millis(50), rate, total);
        let mut taken = schedule.take();
        while let Some((number, due)) = taken {
            wait_until(due);
            let (stream, mut all) = (choose(number), vec![due]);
            let (now, is_more) = (Instant::now(), |all: &Vec<Instant>| all.len() < TOGETHER_MAX);
            taken = schedule.take();
            while let Some((_, due)) = taken.filter(|(number, due)| *due <= now && choose(*number) == stream)
                && is_more(&all)
            {
                all.push(due);
                taken = schedule.take();
            }
            self.publish(stream, &all, patience)?;
        }
        Ok(())
    }

    /// The number that comes next in a stream and the id before it.
    pub(super) fn end(&self, stream: usize) -> (u64, Option<EventId>) {
        let next = self.ledger.published(stream);
        (next, next.checked_sub(1).and_then(|last| self.ledger.acknowledged(stream, last)))
    }

    fn event(&self, stream: usize, n: u64, due: Instant) -> String {
        let at = due.saturating_duration_since(self.epoch).as_micros();
        let data = format!(r#"{{"n":{n},"at":{at},"p":"{}"}}"#, self.padding);
        match (&self.poster, &self.run) {
            (Poster::Nchan(_), _) => data,
            (Poster::Tidegate(_), None) => format!(r#"{{"data":{data}}}"#),
            (Poster::Tidegate(_), Some(run)) => format!(r#"{{"data":{data},"id":"{run}-{stream}-{n}"}}"#),
        }
    }
}

impl Poster {
    fn send(&mut self, stream: &str, events: &[String]) -> Result<Vec<EventId>, Failed> {
        match self {
            Self::Nchan(pipe) => match pipe.post(stream, events) {
                // Its ids are not looked at; these only mark the events as acknowledged.
                Ok(()) => Ok(vec![EventId::default(); events.len()]),
                Err(error) => Err(Failed::Maybe(error.to_string())),
            },
            Self::Tidegate(client) => send(client, stream, events),
        }
    }
}

fn send(client: &mut Client, stream: &str, events: &[String]) -> Result<Vec<EventId>, Failed> {
    let path = format!("/api/streams/{stream}/events");
    let mut body = String::new();
    match events {
        [event] => body.push_str(event),
        // Writing to a String cannot fail.
        _ => drop(write!(body, r#"{{"events":[{}]}}"#, events.join(","))),
    }
    let answer = client.post_text(&path, &body).map_err(|error| Failed::Maybe(error.kind().to_string()))?;
    match answer.status {
        202 => ids(&answer.data()["ids"], events.len()).ok_or_else(|| Failed::Wrong(answer.text())),
        408 | 429 | 500.. => Err(Failed::Maybe(answer.status.to_string())),
        status => Err(Failed::Wrong(format!("{status} {}", answer.text()))),
    }
}

fn ids(ids: &Value, count: usize) -> Option<Vec<EventId>> {
    let ids = ids.as_array()?.iter().map(|id| EventId::parse(id.as_str()?.as_bytes())).collect::<Option<Vec<_>>>()?;
    (ids.len() == count).then_some(ids)
}

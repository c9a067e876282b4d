//! A client that claims, beats and finishes: most jobs at once, some late, some never, some as a failure.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Actor, Phase, queue};
use crate::api::{Claimed, Claims};
use crate::client::{Client, Failure};
use crate::history::{Answer, Event, Finish, Stamp};
use crate::reply::Reply;

/// 200 ms: five to ten beats per lease of 1–2 s, as the soak sets it.
const BEAT: Duration = Duration::from_millis(200);

/// A lease kept for later.
struct Held {
    queue: String,
    lease: String,
    /// When it is to be completed.
    due: Stamp,
    /// Whether it is kept alive by beats; an abandoned one is completed late, to be refused.
    beats: bool,
}

#[derive(Deserialize)]
struct Data {
    op: u64,
}

/// Ends of leases whose answer was lost: told again, at whichever server is up.
struct Untold {
    queue: String,
    verb: &'static str,
    ends: Vec<(String, Finish)>,
}

struct Worker {
    actor: Actor,
    held: Vec<Held>,
    untold: Vec<Untold>,
    beaten: Stamp,
}

pub(super) async fn run(actor: Actor) {
    let mut worker = Worker { actor, held: Vec::new(), untold: Vec::new(), beaten: Stamp::ZERO };
    loop {
        let (round, client, phase) = worker.actor.up().await;
        if phase == Phase::Done && worker.untold.is_empty() {
            return;
        }
        let boot = if worker.actor.leases_outlive_servers { 0 } else { round };
        let queue = worker.choose(round, phase);
        worker.beat(&client).await;
        worker.tell_again(&client).await;
        worker.late(&client).await;
        let jobs = worker.claim(&client, boot, &queue).await;
        worker.work(&client, boot, &queue, jobs, phase).await;
    }
}

impl Worker {
    fn name(&self) -> String {
        format!("worker-{}", self.actor.number)
    }

    /// Mostly the queue of this round, but older ones are not forgotten.
    fn choose(&mut self, round: u32, phase: Phase) -> String {
        let newest = phase == Phase::Load && self.actor.random.below(10) < 7;
        let chosen =
            if newest { round } else { u32::try_from(self.actor.random.below(u64::from(round) + 1)).unwrap_or(0) };
        queue(chosen)
    }

    async fn claim(&mut self, client: &Client, boot: u32, queue: &str) -> Vec<Claimed> {
        let limit = 1 + self.actor.random.below(50);
        let wait_ms = self.actor.random.below(2) * 100;
        let sent = self.actor.recorder.now();
        let body = json!({"worker": self.name(), "limit": limit, "waitMs": wait_ms});
        let reply = client.call("POST", &format!("/api/queues/{queue}/claim")).json(body).attempt().await;
        match good(reply) {
            Some(reply) => self.received(boot, queue, sent, reply.data()),
            None => {
                self.actor.down().await;
                Vec::new()
            }
        }
    }

    fn received(&self, boot: u32, queue: &str, sent: Stamp, claims: Claims) -> Vec<Claimed> {
        for job in &claims.jobs {
            let data: Data = serde_json::from_str(job.data.get()).expect("data come back as they were sent");
            self.actor.recorder.record(Event::Claimed {
                boot,
                sent,
                lease_ms: claims.lease_ms,
                lease: named(queue, &job.lease),
                job: job.job_id.clone(),
                op: data.op,
            });
        }
        claims.jobs
    }

    /// Decides each job's fate and carries it out.
    async fn work(&mut self, client: &Client, boot: u32, queue: &str, jobs: Vec<Claimed>, phase: Phase) {
        let mut jobs = jobs;
        while !jobs.is_empty() {
            let (mut complete, mut fail, mut release) = (Vec::new(), Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                let due = self.actor.recorder.now() + Duration::from_millis(100 + self.actor.random.below(2000));
                let kept = |beats, due| Held { queue: queue.to_owned(), lease: job.lease.clone(), due, beats };
                match self.actor.random.below(100) {
                    0..3 if phase == Phase::Load => self.held.push(kept(true, due)),
                    3..5 if phase == Phase::Load => self.held.push(kept(false, due + Duration::from_millis(500))),
                    5..12 if phase == Phase::Load => fail.push((job.lease, Finish::Retry)),
                    12..14 => fail.push((job.lease, Finish::Discard)),
                    14..17 if phase == Phase::Load => release.push((job.lease, Finish::Release)),
                    _ => {
                        let result = json!({"by": self.name(), "lease": job.lease}).to_string();
                        complete.push((job.lease, Finish::Complete(result)));
                    }
                }
            }
            self.finish(client, queue, "fail", fail, None).await;
            self.finish(client, queue, "release", release, None).await;
            let more = (self.actor.random.below(3) == 0).then(|| 1 + self.actor.random.below(20));
            let sent = self.actor.recorder.now();
            if let Some(reply) = self.finish(client, queue, "complete", complete, more).await
                && more.is_some()
            {
                jobs = self.received(boot, queue, sent, reply.data());
            }
        }
    }

    /// Sends ends of leases and records their answers; the reply when there is one.
    async fn finish(
        &mut self,
        client: &Client,
        queue: &str,
        verb: &'static str,
        ends: Vec<(String, Finish)>,
        claim: Option<u64>,
    ) -> Option<Reply> {
        if ends.is_empty() {
            return None;
        }
        let items: Vec<Value> = ends.iter().map(|(lease, finish)| item(lease, finish)).collect();
        let list = match verb {
            "complete" => "results",
            "fail" => "failures",
            _ => "leases",
        };
        let mut body = json!({list: items});
        if let Some(limit) = claim {
            body["claim"] = json!({"limit": limit, "waitMs": 0});
        }
        for (lease, finish) in &ends {
            let (lease, finish) = (named(queue, lease), finish.clone());
            self.actor.recorder.record(Event::FinishSent { lease, finish });
        }
        let reply = client.call("POST", &format!("/api/queues/{queue}/{verb}")).json(body).attempt().await;
        let reply = good(reply);
        let outcomes: Vec<String> = match &reply {
            Some(reply) => serde_json::from_value(reply.value()["outcomes"].clone()).expect("outcomes are texts"),
            None => Vec::new(),
        };
        assert!(reply.is_none() || outcomes.len() == ends.len(), "one outcome per item");
        for (index, (lease, _)) in ends.iter().enumerate() {
            let answer = match outcomes.get(index).map(String::as_str) {
                Some("ok") => Answer::Accepted,
                Some("stale") => Answer::Stale,
                Some(other) => panic!("an outcome nobody expects here: {other}"),
                None => Answer::Unknown,
            };
            self.actor.recorder.record(Event::FinishAnswered { lease: named(queue, lease), answer });
        }
        if reply.is_none() {
            self.untold.push(Untold { queue: queue.to_owned(), verb, ends });
            self.actor.down().await;
        }
        reply
    }

    /// Repeats what was not answered, until it is.
    async fn tell_again(&mut self, client: &Client) {
        for untold in std::mem::take(&mut self.untold) {
            match self.untold.is_empty() {
                true => _ = self.finish(client, &untold.queue, untold.verb, untold.ends, None).await,
                // The first was not answered: the others will not be either.
                false => self.untold.push(untold),
            }
        }
    }

    /// Completes what is due, whoever owns it by now.
    async fn late(&mut self, client: &Client) {
        let now = self.actor.recorder.now();
        let (due, kept) = std::mem::take(&mut self.held).into_iter().partition(|held: &Held| held.due <= now);
        self.held = kept;
        for held in due {
            let result = json!({"by": self.name(), "late": held.lease}).to_string();
            self.finish(client, &held.queue, "complete", vec![(held.lease, Finish::Complete(result))], None).await;
        }
    }

    async fn beat(&mut self, client: &Client) {
        let sent = self.actor.recorder.now();
        if sent < self.beaten + BEAT {
            return;
        }
        self.beaten = sent;
        let queues: HashSet<String> = self.held.iter().map(|held| held.queue.clone()).collect();
        for queue in queues {
            let held = self.held.iter().filter(|held| held.beats && held.queue == queue);
            let leases: Vec<String> = held.map(|held| held.lease.clone()).collect();
            if leases.is_empty() {
                continue;
            }
            let sent = self.actor.recorder.now();
            let body = json!({"worker": self.name(), "leases": leases});
            let reply = client.call("POST", &format!("/api/queues/{queue}/beat")).json(body).attempt().await;
            let Some(reply) = good(reply) else { continue };
            let stale: Vec<String> = serde_json::from_value(reply.value()["stale"].clone()).expect("stale is a list");
            for lease in leases.into_iter().filter(|lease| !stale.contains(lease)) {
                self.actor.recorder.record(Event::Renewed { lease: named(&queue, &lease), sent });
            }
        }
    }
}

/// A lease as the history knows it: a queue gives them, so two queues may give the same.
fn named(queue: &str, lease: &str) -> String {
    format!("{queue}/{lease}")
}

fn item(lease: &str, finish: &Finish) -> Value {
    match finish {
        Finish::Complete(result) => {
            let result: Value = serde_json::from_str(result).expect("results are JSON");
            json!({"lease": lease, "result": result})
        }
        Finish::Retry => json!({"lease": lease, "error": "try again", "retryIn": 20}),
        Finish::Discard => json!({"lease": lease, "error": "hopeless", "retry": false}),
        Finish::Release => json!(lease),
    }
}

/// A reply to a call that is right: it may be lost or put off, never refused.
fn good(reply: Result<Reply, Failure>) -> Option<Reply> {
    match reply {
        Ok(reply) if reply.status == 200 => Some(reply),
        Ok(reply) if reply.status == 429 || reply.status == 503 => None,
        Ok(reply) => panic!("a good call was answered {}: {}", reply.status, reply.text()),
        Err(_) => None,
    }
}

//! A client that submits single jobs and batches, and asks again under the same idempotency key when an answer was lost.

use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Actor, Phase, queue};
use crate::client::{Client, Failure};
use crate::history::Event;
use crate::reply::Reply;

/// Dedup keys are few, so that they meet; they count per queue, and each round has its own.
const DEDUP_KEYS: u64 = 40;

/// One request: a single job or a batch.
struct Parcel {
    ops: Vec<(u64, Option<String>)>,
    queue: String,
    /// Present on half of them; these are sent again when the answer was lost.
    idempotency: Option<String>,
    is_batch: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    job_id: Option<String>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Value,
}

pub(super) async fn run(mut actor: Actor) {
    let mut serial = 0_u64;
    let mut again: Option<Parcel> = None;
    loop {
        let (round, client, phase) = actor.up().await;
        if phase != Phase::Load && again.is_none() {
            return;
        }
        if again.is_none() && actor.sent.load(Ordering::Relaxed) >= actor.jobs_per_round {
            // Enough for this round: wait for the next one.
            let next = actor.stage.wait_for(|stage| stage.round > round || stage.phase != Phase::Load).await;
            next.expect("the run outlives its clients");
            continue;
        }
        let parcel = again.take().unwrap_or_else(|| actor.parcel(round, &mut serial));
        again = actor.send(&client, parcel).await;
    }
}

impl Actor {
    fn parcel(&mut self, round: u32, serial: &mut u64) -> Parcel {
        let is_batch = self.random.below(4) == 0;
        let count = if is_batch { 1 + self.random.below(20) } else { 1 };
        let ops = (0..count).map(|_| {
            *serial += 1;
            let dedup = (self.random.below(5) == 0).then(|| format!("{round}-{}", self.random.below(DEDUP_KEYS)));
            (u64::from(self.number) << 40 | *serial, dedup)
        });
        let ops: Vec<_> = ops.collect();
        let idempotency = (self.random.below(2) == 0).then(|| format!("parcel-{}-{serial}", self.number));
        self.sent.fetch_add(count, Ordering::Relaxed);
        Parcel { ops, queue: queue(round), idempotency, is_batch }
    }

    /// Sends a parcel; gives it back when it is to be sent again.
    async fn send(&mut self, client: &Client, parcel: Parcel) -> Option<Parcel> {
        for (op, dedup) in &parcel.ops {
            self.recorder.record(Event::SubmitSent { op: *op, dedup: dedup.clone() });
        }
        let path = if parcel.is_batch { "/api/performance/async/jobs" } else { "/api/performance/async/job" };
        let mut call = client.call("POST", path);
        if let Some(key) = &parcel.idempotency {
            call = call.header("idempotency-key", key);
        }
        match call.json(parcel.body()).attempt().await {
            Ok(reply) => self.answered(parcel, &reply).await,
            Err(Failure::NotSent(_)) if parcel.idempotency.is_none() => {
                self.all(&parcel, |op| Event::SubmitRefused { op });
                self.down().await;
                None
            }
            Err(_) => {
                self.all(&parcel, |op| Event::SubmitUnknown { op });
                self.down().await;
                parcel.idempotency.is_some().then_some(parcel)
            }
        }
    }

    async fn answered(&mut self, parcel: Parcel, reply: &Reply) -> Option<Parcel> {
        let items: Vec<Item> = match (reply.status, parcel.is_batch) {
            (200 | 202, false) => vec![reply.data()],
            (200 | 202, true) => {
                let batch: Value = reply.data();
                serde_json::from_value(batch["jobs"].clone()).expect("a batch is answered item by item")
            }
            (429 | 503, _) => {
                match is_unknown(&reply.problem_in(&[429, 503])) {
                    true => self.all(&parcel, |op| Event::SubmitUnknown { op }),
                    false => self.all(&parcel, |op| Event::SubmitRefused { op }),
                }
                // Asked to come back later.
                self.down().await;
                return (reply.status == 503 && parcel.idempotency.is_some()).then_some(parcel);
            }
            _ => panic!("a good submission was answered {}: {}", reply.status, reply.text()),
        };
        assert_eq!(items.len(), parcel.ops.len(), "one answer per job");
        for ((op, _), item) in parcel.ops.iter().zip(items) {
            self.recorder.record(match item.job_id {
                Some(job) => Event::SubmitAccepted { op: *op, job, duplicate: item.duplicate },
                None if is_unknown(&item.error) => Event::SubmitUnknown { op: *op },
                None => Event::SubmitRefused { op: *op },
            });
        }
        None
    }

    fn all(&self, parcel: &Parcel, event: impl Fn(u64) -> Event) {
        for (op, _) in &parcel.ops {
            self.recorder.record(event(*op));
        }
    }
}

/// Whether this error leaves open what became of the jobs.
fn is_unknown(error: &Value) -> bool {
    error["code"] == "redis_outcome_unknown"
}

impl Parcel {
    fn body(&self) -> Value {
        let jobs: Vec<Value> = self
            .ops
            .iter()
            .map(|(op, dedup)| {
                let mut options = json!({"queue": self.queue, "maxAttempts": 100, "backoff": {"base": 10, "cap": 50}});
                if let Some(dedup) = dedup {
                    options["dedupKey"] = dedup.as_str().into();
                    options["dedupWindow"] = 3_600_000.into();
                }
                if op % 7 == 0 {
                    options["delay"] = (op % 300).into();
                }
                options["priority"] = (op % 200).into();
                json!({"jobType": "soak", "data": {"op": op}, "options": options})
            })
            .collect();
        if self.is_batch { json!({"jobs": jobs}) } else { jobs.into_iter().next().unwrap_or_default() }
    }
}

//! The jobs and workers part of the HTTP interface in the words of its documentation, for journeys that are about
//! something else than its wire format.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::{Client, Payload};
use crate::reply::Reply;
use crate::wait::eventually;

const ASYNC: &str = "/api/performance/async";

/// Answer to one submission.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The id by which the job is asked for.
    pub job_id: String,
    /// `queued` or `scheduled`.
    pub status: String,
    /// Whether a live job with the same dedup key was found instead.
    #[serde(default)]
    pub duplicate: bool,
}

/// A job as `GET job/:id` shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct JobView {
    pub job_id: String,
    pub job_type: String,
    pub queue: String,
    pub status: String,
    pub priority: u64,
    pub attempt: u64,
    pub max_attempts: u64,
    pub progress: Option<f64>,
    pub progress_note: Option<String>,
    pub result: Option<Box<RawValue>>,
    pub error: Option<Value>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub durability: Option<String>,
}

/// A page of jobs.
#[derive(Clone, Debug, Deserialize)]
pub struct JobList {
    /// The jobs of this page.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` on the last one.
    pub cursor: Option<String>,
}

/// A job handed to a worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of the interface, documented there")]
pub struct Claimed {
    pub lease: String,
    pub job_id: String,
    pub job_type: String,
    pub data: Box<RawValue>,
    pub attempt: u64,
    pub max_attempts: u64,
    pub key: Option<String>,
    pub deadline_at: String,
}

/// Answer to a claim.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// What to work on; empty after the wait.
    pub jobs: Vec<Claimed>,
    /// How long the leases last without a beat.
    pub lease_ms: u64,
}

/// Answer to `complete`, `fail`, `progress` and `release`.
#[derive(Clone, Debug, Deserialize)]
pub struct Worked {
    /// One per item, in order: `ok`, `stale`, ….
    pub outcomes: Vec<String>,
    /// What a `claim` in the same call brought.
    #[serde(default)]
    pub jobs: Vec<Claimed>,
}

/// Five thousand million pairs: does not end while a test looks at it, in any build.
#[must_use]
pub fn endless_job() -> Value {
    comparing_job(100_000)
}

/// A built-in job that compares all pairs of so many entities.
#[must_use]
pub fn comparing_job(entities: u32) -> Value {
    let entities: Vec<Value> =
        (0..entities).map(|n| json!({"id": n.to_string(), "values": [n % 997, n % 89, n % 7]})).collect();
    json!({"jobType": "similarity_calculation", "data": {"entities": entities, "algorithm": "pearson"}})
}

impl Client {
    /// `POST job`, accepted with 202.
    pub async fn submit(&self, job: impl Into<Payload>) -> Submitted {
        self.post(&format!("{ASYNC}/job"), job).await.expect(202).data()
    }

    /// `POST job` for a job of `kind` in `queue` with these data.
    pub async fn enqueue(&self, queue: &str, kind: &str, data: Value) -> Submitted {
        self.submit(json!({"jobType": kind, "data": data, "options": {"queue": queue}})).await
    }

    /// `POST job`, whatever the answer.
    pub async fn try_submit(&self, job: impl Into<Payload>) -> Reply {
        self.post(&format!("{ASYNC}/job"), job).await
    }

    /// `POST jobs`; every item must be accepted.
    pub async fn submit_all(&self, jobs: &[Value]) -> Vec<Submitted> {
        #[derive(Deserialize)]
        struct Batch {
            jobs: Vec<Submitted>,
        }
        let batch: Batch = self.post(&format!("{ASYNC}/jobs"), json!({"jobs": jobs})).await.expect(202).data();
        assert_eq!(batch.jobs.len(), jobs.len(), "one answer per job");
        batch.jobs
    }

    /// `GET job/:id`.
    pub async fn job(&self, id: &str) -> JobView {
        self.get(&format!("{ASYNC}/job/{id}")).await.expect(200).data()
    }

    /// `GET job/:id`, whatever the answer.
    pub async fn job_reply(&self, id: &str) -> Reply {
        self.get(&format!("{ASYNC}/job/{id}")).await
    }

    /// `DELETE job/:id`; the status it answers.
    pub async fn cancel(&self, id: &str) -> String {
        let answer: Submitted = self.delete(&format!("{ASYNC}/job/{id}")).await.data();
        assert_eq!(answer.job_id, id);
        answer.status
    }

    /// `POST job/:id/retry`.
    pub async fn retry(&self, id: &str) -> Reply {
        self.post(&format!("{ASYNC}/job/{id}/retry"), json!({})).await
    }

    /// Waits until the job has one of these statuses.
    ///
    /// # Panics
    /// When it has not within 60 s.
    pub async fn job_in(&self, id: &str, statuses: &[&str]) -> JobView {
        eventually(&format!("job {id} is one of {statuses:?}"), Duration::from_secs(60), || async {
            let job = self.job(id).await;
            statuses.contains(&job.status.as_str()).then_some(job)
        })
        .await
    }

    /// Waits until the handler of a built-in job has told progress, or the job has ended. `running` alone is not enough:
    /// it is shown as soon as the job is being handed out.
    ///
    /// # Panics
    /// When neither happens within 60 s.
    pub async fn job_at_work(&self, id: &str) -> JobView {
        eventually(&format!("job {id} is at work"), Duration::from_secs(60), || async {
            let job = self.job(id).await;
            let at_work = job.status == "running" && job.progress.is_some_and(|progress| progress > 0.0);
            (at_work || job.finished_at.is_some()).then_some(job)
        })
        .await
    }

    /// `GET jobs?…`.
    pub async fn jobs(&self, query: &str) -> JobList {
        self.get(&format!("{ASYNC}/jobs?{query}")).await.expect(200).data()
    }

    /// All pages of `GET jobs?…`, with `limit` per page.
    pub async fn all_jobs(&self, query: &str, limit: usize) -> Vec<JobView> {
        let mut page = self.jobs(&format!("{query}&limit={limit}")).await;
        let mut all = std::mem::take(&mut page.jobs);
        while let Some(cursor) = page.cursor.take() {
            page = self.jobs(&format!("{query}&limit={limit}&cursor={cursor}")).await;
            all.append(&mut page.jobs);
        }
        all
    }

    /// `POST claim`.
    pub async fn claim(&self, queue: &str, worker: &str, limit: usize, wait_ms: u64) -> Claims {
        let body = json!({"worker": worker, "limit": limit, "waitMs": wait_ms});
        self.post(&format!("/api/queues/{queue}/claim"), body).await.expect(200).data()
    }

    /// `POST claim` of one job without waiting, whatever the answer.
    pub async fn claim_reply(&self, queue: &str) -> Reply {
        self.post(&format!("/api/queues/{queue}/claim"), json!({"worker": "w", "limit": 1, "waitMs": 0})).await
    }

    /// `POST claim` for exactly one job.
    ///
    /// # Panics
    /// When none comes within 20 s.
    pub async fn claim_one(&self, queue: &str, worker: &str) -> Claimed {
        self.claim(queue, worker, 1, 20_000).await.jobs.pop().expect("a job was waiting")
    }

    /// `POST beat`: the answer with `leaseMs`, `cancelled`, `stale`, `paused`.
    pub async fn beat(&self, queue: &str, worker: &str, leases: &[&str]) -> Value {
        let body = json!({"worker": worker, "leases": leases});
        self.post(&format!("/api/queues/{queue}/beat"), body).await.expect(200).value()
    }

    /// `POST complete` for one lease; the outcome.
    pub async fn complete(&self, queue: &str, lease: &str, result: &str) -> String {
        let lease = Value::from(lease);
        self.finish(queue, "complete", format!(r#"{{"results":[{{"lease":{lease},"result":{result}}}]}}"#)).await
    }

    /// `POST fail` for one lease; `more` adds members such as `retry`.
    pub async fn fail(&self, queue: &str, lease: &str, error: &str, more: Value) -> String {
        let mut failure = json!({"lease": lease, "error": error});
        if let (Some(failure), Value::Object(more)) = (failure.as_object_mut(), more) {
            failure.extend(more);
        }
        self.finish(queue, "fail", json!({"failures": [failure]})).await
    }

    /// `POST release` for one lease; the outcome.
    pub async fn release(&self, queue: &str, lease: &str) -> String {
        self.finish(queue, "release", json!({"leases": [lease]})).await
    }

    /// `POST progress` for one lease; the outcome.
    pub async fn progress(&self, queue: &str, lease: &str, progress: f64, note: Option<&str>) -> String {
        let mut update = json!({"lease": lease, "progress": progress});
        if let Some(note) = note {
            update["note"] = note.into();
        }
        self.finish(queue, "progress", json!({"updates": [update]})).await
    }

    async fn finish(&self, queue: &str, verb: &str, body: impl Into<Payload>) -> String {
        let mut worked: Worked = self.post(&format!("/api/queues/{queue}/{verb}"), body).await.expect(200).data();
        assert_eq!(worked.outcomes.len(), 1, "one outcome per item");
        worked.outcomes.remove(0)
    }
}

//! The load: submitters send no-op jobs on schedule, workers claim and complete them, a ledger knows every job.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Plan;
use super::client::Client;
use super::pace::{Schedule, wait_until};
use super::report::{Errors, Report};
use crate::stamp;

const QUEUE: &str = "load-test";

/// How long a claim waits for jobs, ms. Short, because a worker learns only between claims that the test is over.
const WAIT_MS: u64 = 500;

/// Patience after the last submission: for submissions that are late, and again for jobs not yet completed.
const GRACE: Duration = Duration::from_secs(30);

/// A pause after an error, so that a dead server is not asked a thousand times a second.
const PAUSE: Duration = Duration::from_millis(100);

const ACKNOWLEDGED: u8 = 1;
const CLAIMED: u8 = 2;
const COMPLETED: u8 = 4;

/// Runs the plan to its end: all jobs sent, all acknowledged ones completed or given up on.
pub(super) fn run(plan: &Plan) -> Report {
    run_with_patience(plan, GRACE)
}

fn run_with_patience(plan: &Plan, grace: Duration) -> Report {
    let test = Test::new(plan, grace);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.workers)
            .map(|number| {
                let test = &test;
                scope.spawn(move || worker(test, number))
            })
            .collect();
        let submitters: Vec<_> = (0..plan.connections).map(|_| scope.spawn(|| submitter(&test))).collect();
        let submitted: Vec<Submitted> = submitters.into_iter().filter_map(|thread| thread.join().ok()).collect();
        test.wait_for_completions();
        test.over.store(true, Ordering::Release);
        let worked: Vec<Worked> = workers.into_iter().filter_map(|thread| thread.join().ok()).collect();
        test.report(submitted, worked)
    })
}

/// What all threads share.
struct Test<'a> {
    plan: &'a Plan,
    grace: Duration,
    start: Instant,
    schedule: Schedule,
    /// Marks jobs of this run, so that leftovers of another are completed but not counted.
    run: String,
    /// One cell of flags for each job.
    ledger: Vec<AtomicU8>,
    settled: AtomicU64,
    over: AtomicBool,
}

#[derive(Default)]
struct Submitted {
    latencies: Vec<Duration>,
    last: Duration,
    errors: Errors,
}

#[derive(Default)]
struct Worked {
    latencies: Vec<Duration>,
    last: Duration,
    repeated: u64,
    stale: u64,
    errors: Errors,
}

impl<'a> Test<'a> {
    fn new(plan: &'a Plan, grace: Duration) -> Self {
        let total = plan.jobs();
        // A moment for the threads to start, so that the first requests are not late by our own doing.
        let start = Instant::now() + Duration::from_millis(200);
        Self {
            plan,
            grace,
            start,
            schedule: Schedule::new(start, plan.rate, total),
            run: format!("{}-{}", stamp::now(), std::process::id()),
            ledger: (0..total).map(|_| AtomicU8::new(0)).collect(),
            settled: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Sets a flag of job `number`; tells the flags before. A number that is not ours counts as seen.
    fn mark(&self, number: u64, flag: u8) -> u8 {
        let cell = usize::try_from(number).ok().and_then(|at| self.ledger.get(at));
        let before = cell.map_or(u8::MAX, |cell| cell.fetch_or(flag, Ordering::AcqRel));
        let both = ACKNOWLEDGED | COMPLETED;
        if before & both != both && (before | flag) & both == both {
            self.settled.fetch_add(1, Ordering::AcqRel);
        }
        before
    }

    fn count(&self, flags: u8) -> u64 {
        self.ledger.iter().filter(|cell| cell.load(Ordering::Acquire) & flags == flags).count() as u64
    }

    fn wait_for_completions(&self) {
        let acknowledged = self.count(ACKNOWLEDGED);
        let deadline = Instant::now() + self.grace;
        while self.settled.load(Ordering::Acquire) < acknowledged && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn report(&self, submitted: Vec<Submitted>, worked: Vec<Worked>) -> Report {
        let mut report = Report {
            planned: self.ledger.len() as u64,
            acknowledged: self.count(ACKNOWLEDGED),
            completed: self.count(ACKNOWLEDGED | COMPLETED),
            ..Report::default()
        };
        for part in submitted {
            report.submit.extend(part.latencies);
            report.submitting = report.submitting.max(part.last);
            add(&mut report.submit_errors, part.errors);
        }
        for part in worked {
            report.claim.extend(part.latencies);
            report.completing = report.completing.max(part.last);
            report.repeated += part.repeated;
            report.stale += part.stale;
            add(&mut report.worker_errors, part.errors);
        }
        report
    }
}

fn add(sum: &mut Errors, part: Errors) {
    part.into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
}

fn submitter(test: &Test<'_>) -> Submitted {
    let mut client = test.plan.client();
    let mut found = Submitted::default();
    let give_up = test.start + test.plan.duration + test.grace;
    while let Some((number, due)) = test.schedule.take() {
        if Instant::now() > give_up {
            *found.errors.entry("not sent in time".to_owned()).or_default() += 1;
            continue;
        }
        wait_until(due);
        let job = json!({
            "jobType": "load-test.noop",
            "data": { "run": test.run, "n": number },
            "options": { "queue": QUEUE },
        });
        match answered(client.post("/api/performance/async/job", &job), 202) {
            Ok(_) => {
                found.latencies.push(due.elapsed());
                found.last = test.start.elapsed();
                test.mark(number, ACKNOWLEDGED);
            }
            Err(what) => *found.errors.entry(what).or_default() += 1,
        }
    }
    found
}

/// A job as a worker holds it; without a number where it belongs to another run.
struct Held {
    lease: String,
    number: Option<u64>,
}

fn worker(test: &Test<'_>, number: usize) -> Worked {
    let mut client = test.plan.client();
    let mut found = Worked::default();
    let name = format!("load-test-{}-{number}", test.run);
    let mut held: Vec<Held> = Vec::new();
    loop {
        let over = test.over.load(Ordering::Acquire);
        if over && held.is_empty() {
            return found;
        }
        match step(test, &mut client, &name, &held, over) {
            Ok(data) => {
                settle(test, &mut found, &held, &data["outcomes"]);
                held = arrive(test, &mut found, &data["jobs"]);
            }
            Err(what) => {
                *found.errors.entry(what).or_default() += 1;
                // What was held is not known to be completed; its lease runs out and it comes again.
                held.clear();
                wait_until(Instant::now() + PAUSE);
            }
        }
    }
}

/// Completes what is held and claims the next in the same call; at the end it only completes.
fn step(test: &Test<'_>, client: &mut Client, name: &str, held: &[Held], over: bool) -> Result<Value, String> {
    let limit = test.plan.batch;
    if held.is_empty() {
        let claim = json!({ "worker": name, "limit": limit, "waitMs": WAIT_MS });
        return answered(client.post(&format!("/api/queues/{QUEUE}/claim"), &claim), 200);
    }
    let results: Vec<Value> = held.iter().map(|job| json!({ "lease": job.lease })).collect();
    let mut body = json!({ "results": results });
    if !over {
        body["claim"] = json!({ "limit": limit, "waitMs": WAIT_MS });
    }
    answered(client.post(&format!("/api/queues/{QUEUE}/complete"), &body), 200)
}

fn settle(test: &Test<'_>, found: &mut Worked, held: &[Held], outcomes: &Value) {
    for (at, job) in held.iter().enumerate() {
        if outcomes[at] != "ok" {
            found.stale += 1;
        } else if let Some(number) = job.number {
            test.mark(number, COMPLETED);
            found.last = test.start.elapsed();
        }
    }
}

fn arrive(test: &Test<'_>, found: &mut Worked, jobs: &Value) -> Vec<Held> {
    let mut held = Vec::new();
    for job in jobs.as_array().into_iter().flatten() {
        let is_ours = job["data"]["run"] == test.run.as_str();
        let number = job["data"]["n"].as_u64().filter(|_| is_ours);
        if let Some(number) = number {
            if test.mark(number, CLAIMED) & CLAIMED == 0 {
                found.latencies.push(test.schedule.due(number).elapsed());
            } else {
                found.repeated += 1;
            }
        }
        held.push(Held { lease: job["lease"].as_str().unwrap_or_default().to_owned(), number });
    }
    held
}

/// The data of an answer with the expected status; else what to count it as.
fn answered(answer: std::io::Result<super::client::Answer>, expected: u16) -> Result<Value, String> {
    match answer {
        Ok(answer) if answer.status == expected => Ok(answer.data()),
        Ok(answer) => Err(answer.status.to_string()),
        Err(error) => Err(error.kind().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Fault};
    use super::*;

    /// 400 jobs in a fifth of a second through a server that behaves as `fault` says.
    fn report(fault: Fault) -> Report {
        let server = Fake::start(fault);
        let plan = Plan {
            address: server.address.clone(),
            token: None,
            rate: 2000.0,
            duration: Duration::from_millis(200),
            connections: 4,
            workers: 2,
            batch: 16,
        };
        run_with_patience(&plan, Duration::from_millis(500))
    }

    #[test]
    fn every_job_is_submitted_claimed_and_completed_once() {
        let report = report(Fault::None);
        assert!(report.kept_its_word(), "{}", report.text());
        assert_eq!((report.planned, report.acknowledged, report.completed), (400, 400, 400));
        assert_eq!((report.submit.len(), report.claim.len()), (400, 400));
        assert_eq!((report.repeated, report.stale), (0, 0));
        assert!(report.submit_errors.is_empty() && report.worker_errors.is_empty(), "{}", report.text());
    }

    #[test]
    fn a_server_that_loses_an_acknowledged_job_is_caught() {
        let report = report(Fault::LosesEveryTenth);
        assert!(!report.kept_its_word());
        assert_eq!((report.acknowledged, report.completed), (400, 360), "{}", report.text());
    }

    #[test]
    fn refusals_are_counted_by_status_and_are_not_losses() {
        let report = report(Fault::RefusesEveryTenth);
        assert!(report.kept_its_word(), "{}", report.text());
        assert_eq!(report.acknowledged, 360);
        assert_eq!(report.submit_errors, Errors::from([("429".to_owned(), 40)]));
    }

    #[test]
    fn a_job_handed_out_twice_is_counted_and_its_stale_completion_too() {
        let report = report(Fault::HandsOutTwiceEveryTenth);
        assert!(report.kept_its_word(), "{}", report.text());
        assert_eq!((report.repeated, report.stale), (40, 40), "{}", report.text());
    }
}

//! Judges a history against the promises; pure, so that it can be fed histories with a planted bug.
//!
//! I1 no acknowledged job is lost, I2 no second end is accepted, I3 no two leases are valid at once, I4 one live job per
//! dedup key. Answers that were lost prove nothing and are given the benefit of the doubt.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use crate::history::{Answer, Event, Finish, History, Stamp};

/// 1 ms: lifetimes are told in milliseconds, and clocks that count them cut off what is less.
const TICK: Duration = Duration::from_millis(1);

/// A broken promise, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// I1: acknowledged, and gone.
    Lost {
        /// The job.
        job: String,
    },
    /// I1: acknowledged, and neither completed nor failed after everything was drained.
    NotEnded {
        /// The job.
        job: String,
        /// Where it stands.
        status: String,
    },
    /// I1: it did not end as its worker was told it did.
    WrongEnd {
        /// The job.
        job: String,
        /// What the last word of a worker was.
        told: String,
        /// What the server shows.
        shown: String,
    },
    /// I1: one submission became two jobs.
    Doubled {
        /// The submission.
        op: u64,
        /// The two jobs.
        jobs: [String; 2],
    },
    /// One id was given to two submissions.
    Reused {
        /// The job.
        job: String,
        /// The two submissions.
        ops: [u64; 2],
    },
    /// One lease was handed out twice.
    LeaseTwice {
        /// The job it was handed out for the second time.
        job: String,
        /// The lease.
        lease: String,
    },
    /// A submission that was refused exists.
    RefusedButThere {
        /// The submission.
        op: u64,
        /// The job.
        job: String,
    },
    /// I2: a second end was accepted.
    EndedTwice {
        /// The job.
        job: String,
        /// The two leases, which may be the same.
        leases: [String; 2],
    },
    /// I2: handed out although its end had been accepted before the claim was sent.
    ClaimedAfterEnd {
        /// The job.
        job: String,
        /// The lease handed out.
        lease: String,
    },
    /// I3: a call with the older lease was accepted after the newer one had been handed out.
    StaleAccepted {
        /// The job.
        job: String,
        /// The older and the newer lease.
        leases: [String; 2],
    },
    /// I3: the second lease was handed out while the first was valid.
    TwoLeases {
        /// The job.
        job: String,
        /// The two leases.
        leases: [String; 2],
    },
    /// I4: both jobs were alive under the same dedup key.
    TwoLive {
        /// The dedup key.
        dedup: String,
        /// The two jobs.
        jobs: [String; 2],
    },
}

impl Violation {
    /// The jobs it is about.
    #[must_use]
    pub fn jobs(&self) -> Vec<&str> {
        match self {
            Self::Lost { job }
            | Self::NotEnded { job, .. }
            | Self::WrongEnd { job, .. }
            | Self::RefusedButThere { job, .. }
            | Self::Reused { job, .. }
            | Self::LeaseTwice { job, .. }
            | Self::EndedTwice { job, .. }
            | Self::ClaimedAfterEnd { job, .. }
            | Self::StaleAccepted { job, .. }
            | Self::TwoLeases { job, .. } => vec![job],
            Self::Doubled { jobs, .. } | Self::TwoLive { jobs, .. } => jobs.iter().map(String::as_str).collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

/// All broken promises of a history, at most one of a kind per job.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let ledger = Ledger::read(history);
    let mut found = Vec::new();
    for (job, life) in &ledger.lives {
        found.extend(life.lost(job));
        found.extend(life.ended_twice(job));
        found.extend(life.claimed_after_end(job));
        found.extend(life.stale_accepted(job));
        found.extend(life.two_leases(job, &ledger.kills));
    }
    found.extend(ledger.doubled());
    found.extend(ledger.names_given_twice());
    found.extend(ledger.two_live());
    found
}

/// A history with failovers, judged: a replica knows nothing of what its primary had acknowledged a moment before.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Broken promises about jobs of which something was acknowledged after the last moment known to be on the replica:
    /// what asynchronous replication may forget.
    pub forgotten: Vec<Violation>,
    /// The others, which nothing excuses; numbers and leases that were given twice are always here.
    pub violations: Vec<Violation>,
    /// Submissions acknowledged after the last moment known to be on the replica and before its primary was killed.
    pub at_risk: u64,
    /// How long before the kill the earliest of the lost ones had been acknowledged.
    pub lost_before: Duration,
}

/// Judges a history in which primaries were killed and their replicas took over.
#[must_use]
pub fn check_failovers(history: &History) -> Judged {
    let ledger = Ledger::read(history);
    let spans = spans(history);
    let risky = |at: Stamp| spans.iter().any(|span| span.since <= at && at < span.back);
    let excusable = |violation: &Violation| {
        let is_name = matches!(violation, Violation::Reused { .. } | Violation::LeaseTwice { .. });
        let touched = |job: &&str| ledger.lives.get(*job).is_some_and(|life| life.acknowledged().any(risky));
        !is_name && violation.jobs().iter().any(touched)
    };
    let mut judged = Judged::default();
    for violation in check(history) {
        if let Violation::Lost { job } = &violation
            && let Some(accepted) = ledger.lives.get(job).and_then(|life| life.accepted)
            && let Some(span) = spans.iter().find(|span| span.since <= accepted && accepted < span.back)
        {
            judged.lost_before = judged.lost_before.max(span.killed.saturating_sub(accepted));
        }
        match excusable(&violation) {
            true => judged.forgotten.push(violation),
            false => judged.violations.push(violation),
        }
    }
    let accepted = ledger.lives.values().filter_map(|life| life.accepted);
    let at_risk = |at: &Stamp| spans.iter().any(|span| span.since <= *at && *at < span.killed);
    judged.at_risk = accepted.filter(at_risk).count() as u64;
    judged
}

/// From the last moment known to be on the replica to its being the primary.
struct Span {
    since: Stamp,
    killed: Stamp,
    back: Stamp,
}

fn spans(history: &History) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut replicated = Stamp::ZERO;
    for (at, event) in &history.events {
        match event {
            Event::Replicated { since } => replicated = *since,
            Event::RedisKilled => spans.push(Span { since: replicated, killed: *at, back: Stamp::MAX }),
            Event::RedisBack => spans.iter_mut().for_each(|span| span.back = span.back.min(*at)),
            _ => {}
        }
    }
    spans
}

/// The history sorted by job.
#[derive(Default)]
struct Ledger {
    lives: BTreeMap<String, Life>,
    kills: HashMap<u32, Stamp>,
    jobs_of_op: BTreeMap<u64, Vec<String>>,
    ops_of_job: BTreeMap<String, Vec<u64>>,
    leases_twice: Vec<(String, String)>,
    refused: BTreeSet<u64>,
    unknown: HashSet<u64>,
    dedup_of_op: HashMap<u64, String>,
}

#[derive(Default)]
struct Life {
    accepted: Option<Stamp>,
    dedup: Option<String>,
    /// In the order in which they were handed out: by boot, then by arrival.
    leases: Vec<Lease>,
    status: Option<(String, Option<String>)>,
}

struct Lease {
    name: String,
    boot: u32,
    sent: Stamp,
    arrived: Stamp,
    lifetime: Duration,
    /// Sending times of beats that were answered well.
    renewed: Vec<Stamp>,
    finishes: Vec<Finished>,
}

struct Finished {
    sent: Stamp,
    finish: Finish,
    answer: Answer,
    answered: Stamp,
}

impl Ledger {
    fn read(history: &History) -> Self {
        let mut ledger = Self::default();
        let mut job_of_lease: HashMap<&str, &str> = HashMap::new();
        for (at, event) in &history.events {
            match event {
                Event::Claimed { lease, job, .. } => {
                    if job_of_lease.insert(lease, job).is_some() {
                        ledger.leases_twice.push((job.clone(), lease.clone()));
                    } else {
                        ledger.claimed(*at, event);
                    }
                }
                Event::Renewed { lease, .. }
                | Event::FinishSent { lease, .. }
                | Event::FinishAnswered { lease, .. } => {
                    let job = job_of_lease.get(lease.as_str()).expect("a lease is used after it was claimed");
                    let life = ledger.lives.get_mut(*job).expect("a claimed job has a life");
                    life.used(*at, lease, event);
                }
                _ => ledger.other(*at, event),
            }
        }
        for life in ledger.lives.values_mut() {
            life.leases.sort_by_key(|lease| (lease.boot, lease.arrived));
        }
        ledger
    }

    fn claimed(&mut self, at: Stamp, event: &Event) {
        let Event::Claimed { boot, sent, lease_ms, lease, job, op } = event else { return };
        let lifetime = Duration::from_millis(*lease_ms);
        let lease = Lease {
            name: lease.clone(),
            boot: *boot,
            sent: *sent,
            arrived: at,
            lifetime,
            renewed: Vec::new(),
            finishes: Vec::new(),
        };
        self.lives.entry(job.clone()).or_default().leases.push(lease);
        self.belongs(*op, job);
    }

    fn other(&mut self, at: Stamp, event: &Event) {
        match event {
            Event::SubmitSent { op, dedup } => {
                self.refused.remove(op);
                if let Some(dedup) = dedup {
                    self.dedup_of_op.insert(*op, dedup.clone());
                }
            }
            Event::SubmitUnknown { op } => _ = self.unknown.insert(*op),
            Event::SubmitAccepted { op, job, duplicate } => {
                let life = self.lives.entry(job.clone()).or_default();
                life.accepted.get_or_insert(at);
                if let Some(dedup) = self.dedup_of_op.get(op) {
                    life.dedup = Some(dedup.clone());
                }
                if !duplicate {
                    self.belongs(*op, job);
                }
            }
            // Refused now; an earlier attempt whose answer was lost may have been carried out.
            Event::SubmitRefused { op } if !self.unknown.contains(op) => _ = self.refused.insert(*op),
            Event::Killed { boot } => {
                self.kills.insert(*boot, at);
            }
            Event::Final { job, status, result } => {
                self.lives.entry(job.clone()).or_default().status = Some((status.clone(), result.clone()));
            }
            _ => {}
        }
    }

    fn belongs(&mut self, op: u64, job: &str) {
        let jobs = self.jobs_of_op.entry(op).or_default();
        if !jobs.iter().any(|known| known == job) {
            jobs.push(job.to_owned());
        }
        let ops = self.ops_of_job.entry(job.to_owned()).or_default();
        if !ops.contains(&op) {
            ops.push(op);
        }
    }

    fn names_given_twice(&self) -> Vec<Violation> {
        let reused = self.ops_of_job.iter().filter_map(|(job, ops)| match ops[..] {
            [first, second, ..] => Some(Violation::Reused { job: job.clone(), ops: [first, second] }),
            _ => None,
        });
        let leases = self.leases_twice.iter();
        let leases = leases.map(|(job, lease)| Violation::LeaseTwice { job: job.clone(), lease: lease.clone() });
        reused.chain(leases).collect()
    }

    fn doubled(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (op, jobs) in &self.jobs_of_op {
            // A job may be handed out before its submission is durable, and be gone with the server that did so; when
            // it is submitted again under its idempotency key it is another job. Only one of them may come to stay. On
            // Redis a job that can be claimed is there, and its server's death changes nothing about that.
            let nothing_vanishes = self.kills.is_empty();
            let there = |job: &&String| nothing_vanishes || self.lives.get(*job).is_some_and(Life::stayed);
            let mut stayed = jobs.iter().filter(there);
            if let (Some(first), Some(second)) = (stayed.next(), stayed.next()) {
                found.push(Violation::Doubled { op: *op, jobs: [first.clone(), second.clone()] });
            }
        }
        for op in &self.refused {
            if let Some(job) = self.jobs_of_op.get(op).and_then(|jobs| jobs.first()) {
                found.push(Violation::RefusedButThere { op: *op, job: job.clone() });
            }
        }
        found
    }

    fn two_live(&self) -> Vec<Violation> {
        let mut by_key: BTreeMap<&str, Vec<(Stamp, Stamp, &str)>> = BTreeMap::new();
        for (job, life) in &self.lives {
            if let (Some(dedup), Some(accepted)) = (&life.dedup, life.accepted)
                // A job may be done before its submitter hears of it; then there is no moment at which it surely lived.
                && accepted < life.alive_until()
            {
                by_key.entry(dedup).or_default().push((accepted, life.alive_until(), job));
            }
        }
        let mut found = Vec::new();
        for (dedup, mut spans) in by_key {
            spans.sort_unstable();
            for pair in spans.windows(2) {
                let [(_, first_until, first), (second_from, _, second)] = pair else { continue };
                if second_from < first_until {
                    let jobs = [(*first).to_owned(), (*second).to_owned()];
                    found.push(Violation::TwoLive { dedup: dedup.to_owned(), jobs });
                }
            }
        }
        found
    }
}

impl Life {
    fn used(&mut self, at: Stamp, name: &str, event: &Event) {
        let lease = self.leases.iter_mut().find(|lease| lease.name == name).expect("the lease belongs to this job");
        match event {
            Event::Renewed { sent, .. } => lease.renewed.push(*sent),
            Event::FinishSent { finish, .. } => {
                let finish = finish.clone();
                lease.finishes.push(Finished { sent: at, finish, answer: Answer::Unknown, answered: Stamp::MAX });
            }
            Event::FinishAnswered { answer, .. } => {
                let finish = lease.finishes.last_mut().expect("an answer follows a request");
                (finish.answer, finish.answered) = (*answer, at);
            }
            _ => {}
        }
    }

    /// When something about it was acknowledged to somebody.
    fn acknowledged(&self) -> impl Iterator<Item = Stamp> {
        let leases = self.leases.iter().flat_map(|lease| lease.renewed.iter().copied().chain([lease.arrived]));
        let finishes = self.accepted_finishes().map(|(_, finish)| finish.answered);
        self.accepted.into_iter().chain(leases).chain(finishes)
    }

    /// Whether anything about it was acknowledged, or it is still there.
    fn stayed(&self) -> bool {
        self.accepted.is_some() || self.status.is_some() || self.accepted_finishes().next().is_some()
    }

    fn accepted_finishes(&self) -> impl Iterator<Item = (&Lease, &Finished)> {
        let all = self.leases.iter().flat_map(|lease| lease.finishes.iter().map(move |finish| (lease, finish)));
        all.filter(|(_, finish)| finish.answer == Answer::Accepted)
    }

    /// The earliest moment at which it may have ended.
    fn alive_until(&self) -> Stamp {
        let finishes = self.leases.iter().flat_map(|lease| &lease.finishes);
        finishes.filter(|finish| finish.finish.is_end()).map(|finish| finish.sent).min().unwrap_or(Stamp::MAX)
    }

    fn lost(&self, job: &str) -> Option<Violation> {
        let job = job.to_owned();
        let ends: Vec<&Finished> =
            self.accepted_finishes().map(|(_, finish)| finish).filter(|finish| finish.finish.is_end()).collect();
        if self.accepted.is_none() && ends.is_empty() {
            return None;
        }
        let Some((status, result)) = &self.status else { return Some(Violation::Lost { job }) };
        if status != "completed" && status != "failed" {
            return Some(Violation::NotEnded { job, status: status.clone() });
        }
        let tried = self.leases.iter().flat_map(|lease| &lease.finishes).map(|finish| &finish.finish);
        let fits = |finish: &Finish| match finish {
            Finish::Complete(told) => status == "completed" && result.as_ref() == Some(told),
            Finish::Discard => status == "failed",
            Finish::Retry | Finish::Release => false,
        };
        let ok = if ends.is_empty() { tried.clone().any(fits) } else { ends.iter().any(|end| fits(&end.finish)) };
        let told = format!("{:?}", ends.first().map(|end| &end.finish));
        (!ok).then(|| Violation::WrongEnd { job, told, shown: format!("{status} {result:?}") })
    }

    fn ended_twice(&self, job: &str) -> Option<Violation> {
        let mut ends = self.accepted_finishes().filter(|(_, finish)| finish.finish.is_end());
        let (first, _) = ends.next()?;
        let (second, _) = ends.next()?;
        Some(Violation::EndedTwice { job: job.to_owned(), leases: [first.name.clone(), second.name.clone()] })
    }

    fn claimed_after_end(&self, job: &str) -> Option<Violation> {
        let ends = self.accepted_finishes().filter(|(_, finish)| finish.finish.is_end());
        let ended = ends.map(|(_, finish)| finish.answered).min()?;
        let late = self.leases.iter().find(|lease| lease.sent > ended)?;
        Some(Violation::ClaimedAfterEnd { job: job.to_owned(), lease: late.name.clone() })
    }

    fn stale_accepted(&self, job: &str) -> Option<Violation> {
        for (index, older) in self.leases.iter().enumerate() {
            let later = self.leases[index + 1..].iter().filter(|lease| lease.is_newer_than(older));
            let Some(newer) = later.min_by_key(|lease| lease.arrived) else { continue };
            let finishes = older.finishes.iter().filter(|finish| finish.answer == Answer::Accepted);
            let mut accepted = finishes.map(|finish| finish.sent).chain(older.renewed.iter().copied());
            if accepted.any(|sent| sent > newer.arrived) {
                let leases = [older.name.clone(), newer.name.clone()];
                return Some(Violation::StaleAccepted { job: job.to_owned(), leases });
            }
        }
        None
    }

    fn two_leases(&self, job: &str, kills: &HashMap<u32, Stamp>) -> Option<Violation> {
        self.leases.windows(2).find_map(|pair| {
            let [first, second] = pair else { return None };
            let overlap = second.arrived < first.valid_until(kills).min(second.valid_until(kills));
            let leases = [first.name.clone(), second.name.clone()];
            overlap.then(|| Violation::TwoLeases { job: job.to_owned(), leases })
        })
    }
}

impl Lease {
    /// Whether it was certainly handed out after one that arrived before it. An answer that was longer on its way than the
    /// lease lasts may have been overtaken.
    fn is_newer_than(&self, older: &Self) -> bool {
        self.boot > older.boot || self.sent > older.arrived || self.arrived.saturating_sub(self.sent) < self.lifetime
    }

    /// Until when it was certainly valid: not finished, its server not killed, its last good beat not older than its
    /// lifetime.
    fn valid_until(&self, kills: &HashMap<u32, Stamp>) -> Stamp {
        let renewed = self.renewed.iter().copied().max().unwrap_or(self.sent).max(self.sent);
        let finished = self.finishes.iter().map(|finish| finish.sent).min().unwrap_or(Stamp::MAX);
        let killed = kills.get(&self.boot).copied().unwrap_or(Stamp::MAX);
        (renewed + self.lifetime).saturating_sub(TICK).min(finished).min(killed)
    }
}

//! A run in numbers, counted from what its clients saw.

use std::collections::HashSet;
use std::time::Duration;

use crate::history::{Answer, Event, History, Stamp};

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Servers killed.
    pub kills: u64,
    /// Redis servers killed.
    pub redis_kills: u64,
    /// Kills, of either, with submissions on their way.
    pub kills_amid_submissions: u64,
    /// Kills, of either, with ends of leases on their way.
    pub kills_amid_finishes: u64,
    /// Submissions acknowledged.
    pub acknowledged: u64,
    /// Submissions whose answer was lost, repetitions included.
    pub submits_unknown: u64,
    /// Submissions refused for the time being, repetitions included.
    pub submits_refused: u64,
    /// Jobs handed out.
    pub claims: u64,
    /// Finishes accepted.
    pub accepted: u64,
    /// Finishes refused as stale.
    pub stale: u64,
    /// Finishes whose answer was lost, repetitions included.
    pub finishes_unknown: u64,
    /// Longest time from the `kill -9` of a server to its listening again, in ms.
    pub restart_ms_max: u64,
    /// Longest time from the `kill -9` of a Redis to its answering again, or its replica as primary, in ms.
    pub redis_away_ms_max: u64,
    /// Longest time from there to the first submission, claim or end that was accepted, in ms.
    pub resumed_ms_max: u64,
    /// The whole run, in ms.
    pub total_ms: u64,
}

impl Figures {
    pub(super) fn count(history: &History) -> Self {
        let mut figures = Self::default();
        let mut submitting: HashSet<u64> = HashSet::new();
        let mut finishing: HashSet<&str> = HashSet::new();
        let (mut redis_killed, mut redis_back): (Option<Stamp>, Option<Stamp>) = (None, None);
        for (at, event) in &history.events {
            match event {
                Event::SubmitSent { op, .. } => _ = submitting.insert(*op),
                Event::SubmitAccepted { op, .. } => {
                    submitting.remove(op);
                    figures.acknowledged += 1;
                }
                Event::SubmitUnknown { op } => {
                    submitting.remove(op);
                    figures.submits_unknown += 1;
                }
                Event::SubmitRefused { op } => {
                    submitting.remove(op);
                    figures.submits_refused += 1;
                }
                Event::Claimed { .. } => figures.claims += 1,
                Event::FinishSent { lease, .. } => _ = finishing.insert(lease),
                Event::FinishAnswered { lease, answer } => {
                    finishing.remove(lease.as_str());
                    match answer {
                        Answer::Accepted => figures.accepted += 1,
                        Answer::Stale => figures.stale += 1,
                        Answer::Unknown => figures.finishes_unknown += 1,
                    }
                }
                Event::Killed { .. } | Event::ServerKilled { .. } | Event::RedisKilled => {
                    figures.kills_amid_submissions += u64::from(!submitting.is_empty());
                    figures.kills_amid_finishes += u64::from(!finishing.is_empty());
                    match event {
                        Event::RedisKilled => {
                            figures.redis_kills += 1;
                            redis_killed = Some(*at);
                        }
                        _ => figures.kills += 1,
                    }
                }
                Event::RedisBack => {
                    let away = redis_killed.take().map_or(Duration::ZERO, |killed| *at - killed);
                    figures.redis_away_ms_max = figures.redis_away_ms_max.max(ms(away));
                    redis_back = Some(*at);
                }
                Event::Renewed { .. } | Event::Replicated { .. } | Event::Final { .. } => {}
            }
            if is_progress(event)
                && let Some(back) = redis_back.take()
            {
                figures.resumed_ms_max = figures.resumed_ms_max.max(ms(*at - back));
            }
        }
        figures
    }
}

fn is_progress(event: &Event) -> bool {
    matches!(
        event,
        Event::SubmitAccepted { .. } | Event::Claimed { .. } | Event::FinishAnswered { answer: Answer::Accepted, .. }
    )
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

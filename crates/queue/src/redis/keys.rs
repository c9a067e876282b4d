//! The keys of a queue on Redis. All of one queue share a hash tag, its name, so they live in one slot of a cluster and a
//! script may use them together. Whatever is listed here is also what `docs/redis.md` shows.

use bytes::Bytes;

use crate::QueueName;

/// A key of a queue: the end of its name, its type, and what it holds and for how long.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) holds: &'static str,
}

const fn key(name: &'static str, kind: &'static str, holds: &'static str) -> Key {
    Key { name, kind, holds }
}

/// Every key of a queue, in the order in which the scripts take them.
pub(crate) const KEYS: [Key; 23] = [
    key(
        "meta",
        "hash",
        "the queue's numbers: last number, grant and turn, live jobs and bytes, paused, when something is due",
    ),
    key("jobs", "hash", "id → record: the job as submitted, until it is forgotten"),
    key("line", "zset", "ids that can be claimed, by priority · 2^44 + turn"),
    key("due", "zset", "ids that wait for their time (scheduled, or retried after a failure), by that time"),
    key("running", "hash", "id → attempt, grant, expiry of the lease, timeout, place in the line"),
    key("expiries", "zset", "grants with jobs still running, by when the first of their leases may run out"),
    key("granted", "hash", "grant → the ids handed out together"),
    key(
        "notes",
        "hash",
        "`t` id → what earlier attempts left; `c` id → asked to cancel; `r` id → progress of the running attempt",
    ),
    key("lanes", "hash", "fairness key → turn, running jobs, the id that stands in the line"),
    key("waiting", "zset", "available jobs with a fairness key, in lexical order of key, priority, id"),
    key("dedup", "hash", "dedup key → id of the live job and the end of its window"),
    key("expiring", "zset", "ids that expire unless they start, by when"),
    key("ends", "hash", "id → how a finished job ended, until its retention is over"),
    key("completed", "zset", "ids of completed jobs, by the end of their retention"),
    key("cancelled", "zset", "ids of cancelled jobs, likewise"),
    key("discarded", "zset", "the dead letter set, likewise"),
    key("large", "hash", "`d` id → payload, `r` id → result above 4 KiB"),
    key("blocks", "zset", "stretches of 256 ids with at least one job, in order, for lists"),
    key("counts", "hash", "stretch → how many of its jobs are kept"),
    key("log", "stream", "what happened, in stretches, bounded by `history_max`; read with `Queue::history`"),
    key("idempotency", "hash", "idempotency key → fingerprint, when, answers"),
    key("ages", "zset", "idempotency keys by when they were used first"),
    key("op", "string", "`op:` process `:` p or s → its last push or step and the answer; expires 10 minutes after"),
];

/// The names of one queue's keys as the scripts take them, the last (`op`) left to the caller.
pub(crate) struct Keys {
    base: String,
    names: Vec<Bytes>,
}

impl Keys {
    pub(crate) fn new(prefix: &str, queue: &QueueName) -> Self {
        let base = format!("{prefix}:{{{queue}}}:");
        let names = KEYS.iter().map(|key| Bytes::from(format!("{base}{}", key.name))).collect();
        Self { base, names }
    }

    /// The keys with `op` as the last one.
    pub(crate) fn all(&self, op: Option<&Bytes>) -> Vec<Bytes> {
        let mut names = self.names.clone();
        if let (Some(op), Some(last)) = (op, names.last_mut()) {
            *last = op.clone();
        }
        names
    }

    /// Where a process keeps its last operation of a kind, `p` or `s`.
    pub(crate) fn operation(&self, process: &str, kind: char) -> Bytes {
        Bytes::from(format!("{}op:{process}:{kind}", self.base))
    }

    /// Wake-ups and cancels: `w` when there is something to claim, `c` id when a running job should stop.
    pub(crate) fn wake(&self) -> Bytes {
        Bytes::from(format!("{}wake", self.base))
    }

    /// What happened, as it happens.
    pub(crate) fn events(&self) -> Bytes {
        Bytes::from(format!("{}events", self.base))
    }

    pub(crate) fn of(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.base))
    }
}

/// The hash of all queues.
pub(crate) fn queues(prefix: &str) -> Bytes {
    Bytes::from(format!("{prefix}:queues"))
}

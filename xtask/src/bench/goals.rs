//! The figures we set out to reach, each tied to a row by area and name. A missed goal is shown; it fails nothing, for
//! figures depend on the machine. Prefer ratios: they hold on any.

use super::row::Row;
use crate::table::{aligned, number};

/// A bound for the value of a row, or for its ratio to the baseline.
pub(super) struct Goal {
    area: &'static str,
    name: &'static str,
    of: Of,
    bound: Bound,
    /// Where the bound comes from.
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Of {
    Value(&'static str),
    Ratio(&'static str),
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Of::{Ratio, Value};

const CACHE: &str = "cache";
const REDIS_QUEUE: &str = "redis_queue";
const REDIS_OPS: &str = "redis_ops";
/// Why no script may take longer.
const SCRIPT: &str = "Redis serves nobody else while a script runs";

const GOALS: &[Goal] = &[
    goal("metrics", "record, 1 thread(s), one series", Value("ns"), AtMost(5.0), "an atomic H2 histogram: 5 ns"),
    goal("metrics", "record, 2 thread(s), one series", Value("ns"), AtMost(6.0), "no growth; the atomic one: 9.9 ns"),
    goal("metrics", "p50 p90 p95 p99 of 1 M, exact", Value("ms"), AtMost(8.0), "a full sort: 13–24 ms"),
    goal("metrics", "scrape 10 k histogram series", Value("ms"), AtMost(12.0), "prometheus-client: 12.3 ms"),
    goal("metrics", "series with three windows", Value("KB"), AtMost(20.0), "HdrHistogram with 3 digits: 147 KB"),
    goal("compute", "matrix product 1024, 1 thread", Ratio("faer Par::Seq"), AtLeast(0.9), "tiles may cost a tenth"),
    goal("compute", "matrix product 1024, 2 threads", Ratio("faer Par::rayon"), AtLeast(0.9), "tiles may cost a tenth"),
    goal("compute", "matrix product 64, 2 threads", Ratio("faer Par::Seq"), AtLeast(0.9), "no collapse at small sizes"),
    goal("compute", "pearson 2000 × 500, best 100 000", Value("ms"), AtMost(16.0), "numpy.corrcoef: 24–26 ms"),
    goal("compute", "sparse cosine 20k × 2k at 1 %, top 20", Value("ms"), AtMost(212.0), "a quarter of scipy: 848 ms"),
    goal("compute", "normalized power, 10 M samples", Ratio("running sum"), AtMost(0.33), "a third of the plain loop"),
    goal(
        "compute",
        "cancel of pearson 6000 × 2000",
        Value("ms"),
        AtMost(2.0),
        "a cancelled task frees its threads at once",
    ),
    goal(
        "compute",
        "cancel of sparse pearson 20k × 2k",
        Value("ms"),
        AtMost(2.0),
        "a cancelled task frees its threads at once",
    ),
    goal(
        "compute",
        "cancel of a matrix product 3000",
        Value("ms"),
        AtMost(2.0),
        "a cancelled task frees its threads at once",
    ),
    goal(
        "queue",
        "durable enqueue, 64 callers",
        Value("jobs/s"),
        AtLeast(100_000.0),
        "SQLite WAL: 62 k; the log itself: 198 k",
    ),
    goal("queue", "durable enqueue, 1 caller", Ratio("fdatasync"), AtLeast(0.9), "one caller waits for one sync"),
    goal("queue", "claim cycle, 10 k waiting", Value("jobs/s"), AtLeast(300_000.0), "SQLite: 160 k"),
    goal(
        "queue",
        "claim cycle, 1 M waiting",
        Ratio("10 k waiting"),
        AtLeast(0.8),
        "flat within a fifth from 10 k to 1 M",
    ),
    goal("queue", "restart with 1 M waiting", Value("s"), AtMost(2.0), "Redis AOF: 0.9 s; a scan of the store: 1.3 s"),
    goal(
        REDIS_QUEUE,
        "drain, 100 in flight",
        Value("jobs/s"),
        AtLeast(300_000.0),
        "BullMQ: 27.6 k; ChasquiMQ tuned: 293 k",
    ),
    goal(
        REDIS_QUEUE,
        "drain by 100 handlers",
        Value("jobs/s"),
        AtLeast(300_000.0),
        "the same with the scheduler between",
    ),
    goal(REDIS_QUEUE, "bulk enqueue, chunks of 50", Value("jobs/s"), AtLeast(400_000.0), "ChasquiMQ: 170 k"),
    goal(REDIS_QUEUE, "bulk enqueue, chunks of 50, 4 callers", Value("jobs/s"), AtLeast(400_000.0), "ChasquiMQ: 170 k"),
    goal(REDIS_QUEUE, "bulk enqueue, chunks of 1000", Value("jobs/s"), AtLeast(400_000.0), "ChasquiMQ: 190 k"),
    goal(
        REDIS_QUEUE,
        "bulk enqueue, chunks of 1000, 4 callers",
        Value("jobs/s"),
        AtLeast(400_000.0),
        "ChasquiMQ: 190 k",
    ),
    goal(REDIS_QUEUE, "enqueue, 64 callers", Value("jobs/s"), AtLeast(250_000.0), "ChasquiMQ: 133 k; Asynq: 68 k"),
    goal(REDIS_QUEUE, "enqueue, 1 caller", Ratio("fred PING"), AtLeast(0.95), "one caller waits for one round trip"),
    goal(
        REDIS_QUEUE,
        "enqueue to handler at 500/s, same process, p50",
        Value("µs"),
        AtMost(120.0),
        "ChasquiMQ: 164; BullMQ: 373 µs",
    ),
    goal(
        REDIS_QUEUE,
        "enqueue to handler at 500/s, same process, p99",
        Value("µs"),
        AtMost(400.0),
        "ChasquiMQ: 469; BullMQ: 2689 µs",
    ),
    goal(
        REDIS_QUEUE,
        "enqueue to handler at 500/s, another process, p50",
        Value("µs"),
        AtMost(120.0),
        "ChasquiMQ: 164; BullMQ: 373 µs",
    ),
    goal(
        REDIS_QUEUE,
        "enqueue to handler at 500/s, another process, p99",
        Value("µs"),
        AtMost(400.0),
        "ChasquiMQ: 469; BullMQ: 2689 µs",
    ),
    goal(
        REDIS_QUEUE,
        "cancel to handler in another process, p99",
        Value("ms"),
        AtMost(20.0),
        "a message, not the next beat; BullMQ cannot",
    ),
    goal(
        REDIS_QUEUE,
        "Redis memory per waiting job, 1 M",
        Value("bytes"),
        AtMost(200.0),
        "BullMQ: 293; apalis: 452; Asynq: 560",
    ),
    goal(
        REDIS_QUEUE,
        "1 M delayed jobs due at once, promoted",
        Value("jobs/s"),
        AtLeast(200_000.0),
        "apalis dies at 8000",
    ),
    goal(REDIS_QUEUE, "longest script: 1 M delayed jobs due at once", Value("ms"), AtMost(5.0), SCRIPT),
    goal(REDIS_QUEUE, "longest script: drain, 100 in flight", Value("ms"), AtMost(5.0), SCRIPT),
    goal(REDIS_QUEUE, "longest script: drain, batches of 1000", Value("ms"), AtMost(5.0), SCRIPT),
    goal(REDIS_QUEUE, "longest script: bulk enqueue, chunks of 1000", Value("ms"), AtMost(5.0), SCRIPT),
    goal(REDIS_QUEUE, "longest script: enqueue, 64 callers", Value("ms"), AtMost(5.0), SCRIPT),
    goal(REDIS_OPS, "GET, 64 tasks", Ratio("fred"), AtLeast(0.95), "our surface costs a twentieth at most"),
    goal(REDIS_OPS, "delete 1 M matching keys", Ratio("DEL of KEYS"), AtMost(1.1), "no longer than at one go"),
    goal(
        REDIS_OPS,
        "worst PING while 1 M keys are deleted",
        Ratio("DEL of KEYS"),
        AtMost(0.02),
        "others hardly notice",
    ),
    goal(CACHE, "hit, get, 1 thread", Ratio("quick_cache"), AtMost(1.3), "expiry, epochs and stats included"),
    goal(CACHE, "hit, get, 2 threads", Ratio("quick_cache"), AtMost(1.3), "expiry, epochs and stats included"),
    goal(CACHE, "hit, get, 1 thread", Ratio("moka"), AtMost(0.15), "moka: 158–257 ns"),
    goal(
        CACHE,
        "hit, get, two tiers, 1 thread",
        Value("ns"),
        AtMost(100.0),
        "multi-tier-cache: 305; BentoCache: 4571 ns",
    ),
    goal(CACHE, "insert, 1 thread", Ratio("moka"), AtMost(0.15), "moka: 424 ns; quick_cache: 30"),
    goal(CACHE, "invalidate, one by one", Ratio("moka"), AtMost(0.05), "moka: 1060 ns; quick_cache: 24"),
    goal(CACHE, "hits: most behind the best", Value("points"), AtMost(1.0), "of LRU, moka, quick_cache on every trace"),
    goal(CACHE, "hits: least ahead of LRU, without drift", Value("points"), AtLeast(0.0), "drift is what LRU is for"),
    goal(
        CACHE,
        "memory per entry beyond key and value",
        Value("bytes"),
        AtMost(90.0),
        "moka: 217; foyer: 98; quick_cache: 36",
    ),
    goal(
        CACHE,
        "peak of 10 M inserts of mixed sizes",
        Value("budgets"),
        AtMost(1.05),
        "a burst takes no more than it may",
    ),
    goal(CACHE, "stale for good after 1 M racing fills", Ratio("moka get_with"), AtMost(0.0), "none, ever"),
    goal(
        CACHE,
        "get_many(100) from Redis",
        Ratio("MGET of 100"),
        AtLeast(0.9),
        "what a value depends on costs a tenth",
    ),
    goal(CACHE, "misses of 64 callers, from Redis", Ratio("fred GET"), AtLeast(1.3), "callers share round trips"),
];

const fn goal(area: &'static str, name: &'static str, of: Of, bound: Bound, why: &'static str) -> Goal {
    Goal { area, name, of, bound, why }
}

/// The goal of this row, if it has one.
pub(super) fn of(row: &Row) -> Option<&'static Goal> {
    GOALS.iter().find(|goal| goal.is_about(row))
}

/// Goals of areas that were run whose row nobody printed: a renamed row would else lose its goal unseen.
pub(super) fn unmeasured(rows: &[Row]) -> Vec<String> {
    let ran = |goal: &&Goal| rows.iter().any(|row| row.area == goal.area);
    let measured = |goal: &&Goal| rows.iter().any(|row| goal.is_about(row));
    let silent = GOALS.iter().filter(ran).filter(|goal| !measured(goal));
    silent.map(|goal| format!("{} / {}: {}", goal.area, goal.name, goal.asked())).collect()
}

/// All goals with their reasons.
pub(super) fn listing() -> String {
    let mut lines = vec![["area", "what", "goal", "why"].map(str::to_owned).to_vec()];
    lines.extend(GOALS.iter().map(|goal| vec![goal.area.into(), goal.name.into(), goal.asked(), goal.why.into()]));
    aligned(&lines, &[])
}

impl Goal {
    /// A row may be printed once for each of its baselines; a goal for a ratio is about one of them.
    fn is_about(&self, row: &Row) -> bool {
        let against = |name| row.baseline.as_ref().is_some_and(|baseline| baseline.name == name);
        let same_baseline = match self.of {
            Value(_) => true,
            Ratio(name) => against(name),
        };
        self.area == row.area && self.name == row.name && same_baseline
    }

    /// `met (≥ 100 000)`, `missed (≥ 100 000)`, or what keeps it from being judged.
    pub(super) fn verdict(&self, row: &Row) -> String {
        let asked = self.asked();
        match self.measured(row).map(|measured| self.bound.holds(measured)) {
            Some(true) => format!("met ({asked})"),
            Some(false) => format!("MISSED ({asked})"),
            None => format!("not comparable ({asked})"),
        }
    }

    /// The figure the bound is about; `None` where the row has another unit.
    fn measured(&self, row: &Row) -> Option<f64> {
        match self.of {
            Value(unit) => (row.unit == unit).then_some(row.value),
            Ratio(name) => {
                row.baseline.as_ref().filter(|baseline| baseline.name == name).map(|baseline| baseline.ratio)
            }
        }
    }

    fn asked(&self) -> String {
        let (sign, bound) = match self.bound {
            AtLeast(bound) => ("≥", bound),
            AtMost(bound) => ("≤", bound),
        };
        match self.of {
            Value(unit) => format!("{sign} {} {unit}", number(bound)),
            Ratio(name) => format!("{sign} {bound} × {name}"),
        }
    }
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            AtLeast(bound) => measured >= bound,
            AtMost(bound) => measured <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::parse;
    use super::*;

    fn verdict(line: &str) -> String {
        let row = parse(&line.replace(';', "\t")).unwrap().unwrap();
        of(&row).map(|goal| goal.verdict(&row)).unwrap_or_default()
    }

    #[test]
    fn a_goal_is_met_missed_or_not_comparable() {
        assert_eq!(verdict("ROW;metrics;record, 1 thread(s), one series;4.9;ns"), "met (≤ 5.00 ns)");
        assert_eq!(verdict("ROW;metrics;record, 1 thread(s), one series;5.1;ns"), "MISSED (≤ 5.00 ns)");
        assert_eq!(verdict("ROW;metrics;record, 1 thread(s), one series;0.005;µs"), "not comparable (≤ 5.00 ns)");
        assert_eq!(verdict("ROW;queue;durable enqueue, 1 caller;9;jobs/s;fdatasync;10;0.9"), "met (≥ 0.9 × fdatasync)");
        assert_eq!(verdict("ROW;queue;durable enqueue, 1 caller;9;jobs/s;SQLite;1;9"), "");
        assert_eq!(verdict("ROW;queue;something else;9;jobs/s"), "");
    }

    #[test]
    fn a_goal_whose_row_is_gone_is_told_where_its_area_was_run() {
        let row = parse("ROW\tmetrics\trecord, 1 thread(s), one series\t4\tns").unwrap().unwrap();
        let silent = unmeasured(&[row]);
        assert!(silent.iter().any(|goal| goal.starts_with("metrics / record, 2 thread(s)")), "{silent:?}");
        assert!(silent.iter().all(|goal| goal.starts_with("metrics")), "{silent:?}");
    }
}

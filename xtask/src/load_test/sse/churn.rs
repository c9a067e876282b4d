//! `churn`: listeners leave every second and come back with `Last-Event-ID` while events are published, and Redis or the
//! server is killed and started again. In the end every acknowledged event was heard exactly once, or its loss was told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::crowd::Outcome;
use super::event_id::EventId;
use super::ground::{Ground, open};
use super::judgement::judge;
use super::plan::{Plan, Victim};
use super::publisher::Publisher;
use super::sheet::{PERCENTILES, Sheet, connections, percentiles};
use crate::load_test::pace::wait_until;
use crate::load_test::redis::Redis;
use crate::load_test::resp::Connection;
use crate::load_test::server::Server;

/// How long a listener stays.
const STAYS: Duration = Duration::from_secs(1);

/// How long the victim is down before it is started again.
const DOWN: Duration = Duration::from_millis(500);

/// What a power cut takes of a log that is synced every second.
const UNSYNCED: Duration = Duration::from_secs(1);

/// For an event to be acknowledged, and for listeners to catch up in the end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(plan: &Plan) -> Result<bool> {
    let mut ground = Ground::lay(plan, plan.listeners)?;
    println!("load-test sse churn: {}, {}", headline(plan), ground.described());
    let mut publisher = ground.publisher(plan, vec![format!("load-churn-{}", ground.run)], true)?;
    let mut crowd_plan = ground.crowd(plan, &publisher, "");
    crowd_plan.leaves_after = Some(STAYS);
    let crowd = open(&crowd_plan)?;
    let is_over = AtomicBool::new(false);
    let kills = thread::scope(|scope| {
        let (server, redis) = (&mut ground.server, &mut ground.redis);
        let killer = plan.kill.map(|victim| {
            let is_over = &is_over;
            scope.spawn(move || kill_again_and_again(plan, victim, server.as_mut(), redis.as_mut(), is_over))
        });
        let poured = publisher.pour(plan.rate, plan.time, PATIENCE, |_| 0);
        is_over.store(true, Ordering::Release);
        let kills = killer.map(|killer| killer.join().map_err(|_| anyhow!("the killer panicked"))?).transpose();
        poured.and(kills)
    })?;
    // Nothing is killed any more: who has heard this one has heard all it will hear.
    ensure!(publisher.publish(0, &[Instant::now()], PATIENCE)?, "the last event was refused: {:?}", publisher.errors);
    let outcome = crowd.finish(&publisher.ledger.ends(), PATIENCE)?;
    let survivors = ground.redis.as_ref().map(|redis| survivors(redis, &publisher.names[0])).transpose()?;
    report(plan, &publisher, &outcome, &kills.unwrap_or_default(), survivors.as_ref())
}

fn headline(plan: &Plan) -> String {
    let time = plan.time.as_secs_f64();
    let load = format!("{} listeners, each reconnecting every second, {}/s for {time} s", plan.listeners, plan.rate);
    match plan.kill {
        None => load,
        Some(victim) => {
            let torn = if plan.truncate { ", its log cut by a second" } else { "" };
            let every = plan.every.as_secs_f64();
            format!("{load}, {} killed every {every} s{torn}", format!("{victim:?}").to_lowercase())
        }
    }
}

/// What the killer did.
#[derive(Default)]
struct Kills {
    count: u64,
    bytes_cut: u64,
    slowest: Duration,
}

fn kill_again_and_again(
    plan: &Plan,
    victim: Victim,
    mut server: Option<&mut Server>,
    mut redis: Option<&mut Redis>,
    is_over: &AtomicBool,
) -> Result<Kills> {
    let mut kills = Kills::default();
    loop {
        let due = Instant::now() + plan.every;
        if !wait_unless(is_over, due - UNSYNCED.min(plan.every)) {
            return Ok(kills);
        }
        let synced = match (&redis, plan.truncate) {
            (Some(redis), true) => Some(redis.log_length()?),
            _ => None,
        };
        if !wait_unless(is_over, due) {
            return Ok(kills);
        }
        kills.count += 1;
        if let (Victim::Server | Victim::Both, Some(server)) = (victim, &mut server) {
            server.kill()?;
        }
        if let (Victim::Redis | Victim::Both, Some(redis)) = (victim, &mut redis) {
            redis.kill()?;
        }
        wait_until(Instant::now() + DOWN);
        if let (Some(redis), Some(synced)) = (&redis, synced) {
            kills.bytes_cut += redis.truncate(synced)?;
        }
        let start = Instant::now();
        if let (Victim::Redis | Victim::Both, Some(redis)) = (victim, &mut redis) {
            redis.restart()?;
        }
        if let (Victim::Server | Victim::Both, Some(server)) = (victim, &mut server) {
            server.restart()?;
        }
        kills.slowest = kills.slowest.max(start.elapsed());
    }
}

/// `false` when it is over before.
fn wait_unless(is_over: &AtomicBool, moment: Instant) -> bool {
    while Instant::now() < moment {
        if is_over.load(Ordering::Acquire) {
            return false;
        }
        wait_until(moment.min(Instant::now() + Duration::from_millis(50)));
    }
    true
}

/// Ids of the events that Redis holds in the end.
fn survivors(redis: &Redis, stream: &str) -> Result<HashSet<(u64, u64)>> {
    let mut connection: Connection = redis.connect()?;
    let (mut ids, mut from) = (HashSet::new(), "-".to_owned());
    loop {
        let page = connection.ask(&["XRANGE", stream, &from, "+", "COUNT", "1000"])?;
        let found: Vec<EventId> = page.lines().filter_map(|line| EventId::parse(line.as_bytes())).collect();
        let Some(last) = found.iter().max() else { return Ok(ids) };
        from = format!("({last}");
        ids.extend(found.iter().map(|id| (id.ms, id.seq)));
    }
}

fn report(
    plan: &Plan,
    publisher: &Publisher,
    outcome: &Outcome,
    kills: &Kills,
    survivors: Option<&HashSet<(u64, u64)>>,
) -> Result<bool> {
    let (tried, acknowledged, again) = publisher.ledger.counts();
    let mut columns = vec!["ms"];
    columns.extend(PERCENTILES);
    let mut sheet = Sheet::new(&columns);
    for (name, histogram) in [("publish", &publisher.latency), ("publish → listener", &outcome.latency)] {
        sheet.row([vec![name.to_owned()], percentiles(histogram)].concat());
    }
    sheet.print();
    println!("published {tried}, acknowledged {acknowledged}, sent again {again}; errors {:?}", publisher.errors);
    println!(
        "killed {} times, back after {:.0} ms at most, {} bytes of its log cut",
        kills.count,
        kills.slowest.as_secs_f64() * 1e3,
        kills.bytes_cut
    );
    println!("{}", connections(outcome));
    let judgement = judge(outcome, &publisher.ledger);
    if let Some(survivors) = survivors {
        let numbers = 0..publisher.ledger.published(0);
        let acknowledged = numbers.filter_map(|n| publisher.ledger.acknowledged(0, n));
        let lost = acknowledged.filter(|id| !survivors.contains(&(id.ms, id.seq))).count();
        println!("acknowledged events that Redis lost: {lost}");
    }
    println!("{}", judgement.text());
    // Where nothing may be lost, telling a loss is wrong, too.
    let may_lose = plan.truncate;
    let is_silent = judgement.gaps == 0 || may_lose;
    if !is_silent {
        println!("FAILED: {} gaps were told although nothing may be lost", judgement.gaps);
    }
    Ok(judgement.is_exact() && is_silent)
}

//! `idle`: what listeners cost that only wait: memory of the server and the kernel, connections to Redis, and what an
//! `XADD` costs beside them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::crowd::{Crowd, until};
use super::event_id::EventId;
use super::ground::{Ground, open};
use super::judgement::judge;
use super::memory::{self, Memory};
use super::plan::Plan;
use super::publisher::Publisher;
use super::sheet::{Sheet, connections, kilobytes, microseconds, percentiles, ratio};
use crate::load_test::pace::wait_until;
use crate::load_test::redis::Redis;
use crate::load_test::resp::{Connection, field};

/// Listeners that come and go before anything is measured, so that what is made once is made.
const WARM_UP: usize = 100;

/// 3 s: what is freed late has been, and nothing moves any more.
const SETTLE: Duration = Duration::from_secs(3);

/// Measured `XADD`s, and the pause between two: each finds the machine at rest.
const ADDS: usize = 200;
const PAUSE: Duration = Duration::from_millis(20);

/// One for shared commands, one more of those, one for messages, one that waits for events, one for workers' beats.
const CONNECTIONS_MAX: usize = 5;

/// What a moment looks like.
struct Look {
    memory: Option<Memory>,
    of_kernel: Option<u64>,
}

pub(super) fn run(plan: &Plan) -> Result<bool> {
    let ground = Ground::lay(plan, plan.listeners)?;
    println!("load-test sse idle: {} listeners, {}", plan.listeners, ground.described());
    let mut publisher = ground.publisher(plan, vec![format!("load-idle-{}", ground.run)], false)?;
    warm_up(plan, &ground, &mut publisher)?;
    let mut adder = ground.redis.as_ref().map(Redis::connect).transpose()?;
    let none = added(adder.as_mut(), &ground, &mut publisher, None)?;
    let one = with_one(plan, &ground, adder.as_mut(), &mut publisher)?;
    let before = Look::settled(&ground);
    let crowd = open(&ground.crowd(plan, &publisher, ""))?;
    let after = Look::settled(&ground);
    let clients = adder.as_mut().map(clients).transpose()?;
    let with = added(adder.as_mut(), &ground, &mut publisher, Some((&crowd, plan.listeners)))?;
    publisher.pour(plan.rate, plan.time, Duration::ZERO, |_| 0)?;
    let outcome = crowd.finish(&publisher.ledger.ends(), Duration::from_secs(30))?;
    let judgement = judge(&outcome, &publisher.ledger);
    let again = added(adder.as_mut(), &ground, &mut publisher, None)?;

    let mut sheet = Sheet::facts();
    memory_facts(&mut sheet, plan, &before, &after);
    let total = clients.as_ref().map(|clients| clients.values().sum::<usize>());
    let mut notes = String::new();
    if let (Some(clients), Some(total)) = (&clients, total) {
        sheet.fact("connections to Redis", total.to_string(), "≤ 5");
        notes = format!("connections to Redis, by name and last command: {clients:?}\n");
    }
    let heard = percentiles(&outcome.latency);
    sheet.fact("publish → listener, p50 and p99, ms", format!("{} {}", heard[0], heard[2]), "");
    sheet.print();
    if let (Some(none), Some(one), Some(with), Some(again)) = (none, one, with, again) {
        print_adds(plan, [none, one, with, again]);
    }
    println!("{notes}{}", connections(&outcome));
    println!("{}", judgement.text());
    let is_few = total.is_none_or(|total| total <= CONNECTIONS_MAX);
    if !is_few {
        println!("FAILED: more than {CONNECTIONS_MAX} connections to Redis");
    }
    Ok(judgement.is_exact() && is_few)
}

fn warm_up(plan: &Plan, ground: &Ground, publisher: &mut Publisher) -> Result<()> {
    let mut few = ground.crowd(plan, publisher, "");
    few.listeners = WARM_UP.min(plan.listeners);
    let crowd = open(&few)?;
    publisher.pour(100.0, Duration::from_secs(1), Duration::ZERO, |_| 0)?;
    crowd.finish(&publisher.ledger.ends(), Duration::from_secs(10))?;
    Ok(())
}

fn with_one(
    plan: &Plan,
    ground: &Ground,
    adder: Option<&mut Connection>,
    publisher: &mut Publisher,
) -> Result<Option<Add>> {
    if adder.is_none() {
        return Ok(None);
    }
    let mut one = ground.crowd(plan, publisher, "");
    one.listeners = 1;
    let crowd = open(&one)?;
    let add = added(adder, ground, publisher, Some((&crowd, 1)))?;
    crowd.finish(&publisher.ledger.ends(), Duration::from_secs(10))?;
    Ok(add)
}

impl Look {
    fn settled(ground: &Ground) -> Self {
        wait_until(Instant::now() + SETTLE);
        Self { memory: ground.pid().and_then(Memory::of), of_kernel: memory::of_kernel() }
    }
}

fn memory_facts(sheet: &mut Sheet, plan: &Plan, before: &Look, after: &Look) {
    let each = |bytes: u64| kilobytes(bytes as f64 / plan.listeners as f64);
    if let (Some(before), Some(after)) = (before.memory, after.memory) {
        let grown = after.since(before);
        sheet.fact("user memory per listener, private dirty", each(grown.private), "≤ 10 KB, then ≤ 1 KB");
        sheet.fact("user memory per listener, resident", each(grown.resident), "");
        sheet.fact("server, resident, with all listeners", kilobytes(after.resident as f64), "");
    }
    if let (Some(before), Some(after)) = (before.of_kernel, after.of_kernel) {
        sheet.fact("kernel memory per listener, both ends of its connection", each(after.saturating_sub(before)), "");
    }
}

/// What one `XADD` takes.
#[derive(Clone, Copy)]
struct Add {
    /// Median from the command to its reply, as our connection sees it.
    round_trip: Duration,
    /// Mean inside Redis, as its command statistics say.
    inside: Duration,
}

/// Adds without listeners, with one, with all, and without again.
fn print_adds(plan: &Plan, adds: [Add; 4]) {
    let all = format!("{} listeners", plan.listeners);
    let names = ["no listener", "1 listener", &all, "no listener again"];
    let mut sheet = Sheet::new(&["XADD", "inside Redis, mean", "round trip, p50"]);
    for (name, add) in names.iter().zip(adds) {
        sheet.row(vec![(*name).to_owned(), microseconds(Some(add.inside)), microseconds(Some(add.round_trip))]);
    }
    let [none, one, with, again] = adds;
    let against = |bare: fn(Add) -> Duration, others: &[Add]| {
        let mean = others.iter().map(|add| bare(*add).as_secs_f64()).sum::<f64>() / others.len() as f64;
        ratio(bare(with).as_secs_f64(), mean)
    };
    for (name, others) in [("none", &[none, again][..]), ("one", &[one])] {
        let (inside, trip) = (against(|add| add.inside, others), against(|add| add.round_trip, others));
        sheet.row(vec![format!("{all} / {name}"), inside, trip]);
    }
    sheet.print();
    println!("goal: ≤ 1.05 × of none; where cores are few, the reply waits behind those who hear of the event");
}

/// The median time of an `XADD` from a connection of our own, on the stream that is listened to. Between two, the crowd
/// hears what came and is at rest again. The events count as published.
fn added(
    adder: Option<&mut Connection>,
    ground: &Ground,
    publisher: &mut Publisher,
    crowd: Option<(&Crowd, usize)>,
) -> Result<Option<Add>> {
    let Some(adder) = adder else { return Ok(None) };
    let mut times = Vec::with_capacity(ADDS);
    adder.ask(&["CONFIG", "RESETSTAT"])?;
    for _ in 0..ADDS {
        let heard = crowd.map(|(crowd, _)| crowd.delivered());
        let (number, _) = publisher.end(0);
        let (n, at) = (number.to_string(), ground.epoch.elapsed().as_micros().to_string());
        let start = Instant::now();
        let id = adder.ask(&["XADD", &publisher.names[0], "*", "n", &n, "at", &at])?;
        times.push(start.elapsed());
        publisher.ledger.tried(0, number);
        let id = EventId::parse(id.as_bytes()).with_context(|| format!("XADD answered {id}"))?;
        publisher.ledger.acknowledge(0, number, id);
        if let (Some((crowd, listeners)), Some(heard)) = (crowd, heard) {
            until(Duration::from_secs(5), || crowd.delivered() >= heard + listeners as u64);
        }
        wait_until(Instant::now() + PAUSE);
    }
    times.sort_unstable();
    let statistics = adder.ask(&["INFO", "commandstats"])?;
    let inside = field(&statistics, "cmdstat_xadd")
        .and_then(|line| line.split(',').find_map(|part| part.strip_prefix("usec_per_call="))?.parse::<f64>().ok());
    let inside = Duration::from_secs_f64(inside.context("Redis keeps no statistics of XADD")? / 1e6);
    Ok(Some(Add { round_trip: times[times.len() / 2], inside }))
}

/// Connections by name, without our own.
fn clients(redis: &mut Connection) -> Result<BTreeMap<String, usize>> {
    let own = format!("id={} ", redis.ask(&["CLIENT", "ID"])?);
    let mut clients = BTreeMap::new();
    for line in redis.ask(&["CLIENT", "LIST"])?.lines().filter(|line| !line.starts_with(&own)) {
        let field =
            |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)).filter(|value| !value.is_empty());
        let name = field("name=").unwrap_or("unnamed");
        *clients.entry(format!("{name} {}", field("cmd=").unwrap_or("-"))).or_default() += 1;
    }
    Ok(clients)
}

//! `many`: one listener for each of many streams. Does an event cost more when more streams are listened to?

use std::time::{Duration, Instant};

use anyhow::Result;

use super::ground::{Ground, open};
use super::judgement::judge;
use super::memory;
use super::plan::Plan;
use super::sheet::{PERCENTILES, Sheet, connections, core, microseconds, percentiles};
use crate::load_test::pace::wait_until;
use crate::load_test::redis::Redis;
use crate::load_test::resp::{Connection, field};

/// For the last events to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// 2 s: twenty of the rounds that Redis makes by itself.
const REST: Duration = Duration::from_secs(2);

pub(super) fn run(plan: &Plan) -> Result<bool> {
    let most = plan.streams.iter().copied().max().unwrap_or_default();
    let ground = Ground::lay(plan, most)?;
    let time = plan.time.as_secs_f64();
    let counts = &plan.streams;
    println!("load-test sse many: {counts:?} streams, {}/s for {time} s, {}", plan.rate, ground.described());
    let mut columns = vec!["streams, a listener each"];
    columns.extend(PERCENTILES);
    columns.extend(["Redis CPU per event", "server CPU", "client CPU"]);
    let (mut sheet, mut notes, mut is_right) = (Sheet::new(&columns), Vec::new(), true);
    let mut redis = ground.redis.as_ref().map(Redis::connect).transpose()?;
    for count in plan.streams.iter().copied() {
        let names = (0..count).map(|stream| format!("load-many-{count}-{stream}-{}", ground.run)).collect();
        let mut publisher = ground.publisher(plan, names, false)?;
        let mut crowd_plan = ground.crowd(plan, &publisher, "");
        crowd_plan.listeners = count;
        let crowd = open(&crowd_plan)?;
        let cpu = || ground.pid().and_then(memory::cpu).unwrap_or_default();
        let rest = redis.as_mut().map(resting).transpose()?;
        let (worked, of_redis, start) = (cpu(), redis.as_mut().map(used).transpose()?, Instant::now());
        // A prime step visits the streams in no order a cache would like.
        publisher.pour(plan.rate, plan.time, Duration::ZERO, |number| (number as usize * 7919) % count)?;
        let (time, worked) = (start.elapsed(), cpu().saturating_sub(worked));
        let of_redis = redis.as_mut().map(used).transpose()?.zip(of_redis);
        let events = (plan.rate * plan.time.as_secs_f64()).ceil();
        let outcome = crowd.finish(&publisher.ledger.ends(), PATIENCE)?;
        let each = of_redis.zip(rest).map(|((after, before), rest)| {
            after.saturating_sub(before).saturating_sub(time.mul_f64(rest)).div_f64(events)
        });
        let mut row = vec![count.to_string()];
        row.extend(percentiles(&outcome.latency));
        row.extend([microseconds(each), core(worked, time), core(outcome.cpu, time)]);
        sheet.row(row);
        let judgement = judge(&outcome, &publisher.ledger);
        is_right &= judgement.is_exact() && judgement.gaps == 0;
        notes.push(format!("{count}: {}\n{}", connections(&outcome), judgement.text()));
    }
    sheet.print();
    println!("goals: p50 ≤ 0.4 ms with 10 000 streams, Redis CPU per event does not grow");
    notes.iter().for_each(|note| println!("{note}"));
    Ok(is_right)
}

/// The share of a core Redis takes when nothing is published.
fn resting(redis: &mut Connection) -> Result<f64> {
    let (before, start) = (used(redis)?, Instant::now());
    wait_until(start + REST);
    Ok(used(redis)?.saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64())
}

/// Time Redis has spent on a core.
fn used(redis: &mut Connection) -> Result<Duration> {
    let info = redis.ask(&["INFO", "cpu"])?;
    let of = |name| field(&info, name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    Ok(Duration::from_secs_f64(of("used_cpu_sys") + of("used_cpu_user")))
}

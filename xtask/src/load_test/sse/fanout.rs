//! `fanout`: one stream, many listeners. At a fixed rate it measures how late events come; in bursts, how many a second.
//! With `--peers`, Nchan does the same work in the same run.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::crowd::{Crowd, CrowdPlan, Source};
use super::ground::{Ground, open};
use super::judgement::{Judgement, judge};
use super::memory;
use super::nchan::{Nchan, Pipe};
use super::plan::Plan;
use super::publisher::{Poster, Publisher};
use super::sheet::{PERCENTILES, Sheet, connections, core, percentiles};
use crate::load_test::pace::wait_until;
use crate::load_test::redis::Redis;
use crate::table::number;

/// 4 bursts may be under way: the publisher is never what is waited for, and nobody falls behind what a server holds.
const WINDOW: u64 = 4;

/// For the last events to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one server did.
struct Measured {
    name: String,
    percentiles: Vec<String>,
    per_second: f64,
    acknowledged: Vec<String>,
    server_cpu: String,
    client_cpu: String,
    connections: String,
    judgement: Judgement,
}

pub(super) fn run(plan: &Plan) -> Result<bool> {
    let how = match plan.burst {
        1 => format!("{}/s", plan.rate),
        burst => format!("bursts of {burst}, as fast as they are heard"),
    };
    println!("load-test sse fanout: {} listeners, {how} for {} s", plan.listeners, plan.time.as_secs_f64());
    let mut all = vec![ours(plan)?];
    if plan.peers {
        for workers in [1, 2] {
            all.push(nchan(plan, workers)?);
        }
    }
    let mut columns = vec!["publish → listener"];
    columns.extend(PERCENTILES);
    columns.extend(["deliveries/s", "publish p50", "p99", "server CPU", "client CPU"]);
    let mut sheet = Sheet::new(&columns);
    for measured in &all {
        let mut row = vec![measured.name.clone()];
        row.extend(measured.percentiles.clone());
        row.push(number(measured.per_second));
        row.extend(measured.acknowledged.clone());
        row.extend([measured.server_cpu.clone(), measured.client_cpu.clone()]);
        sheet.row(row);
    }
    sheet.print();
    for measured in &all {
        println!("{}: {}", measured.name, measured.connections);
    }
    for peer in &all[1..] {
        println!("deliveries, ours / {}: {:.2} ×", peer.name, all[0].per_second / peer.per_second);
        println!("p50 and p99, ours / {}: {}", peer.name, compared(&all[0].percentiles, &peer.percentiles));
        if !peer.judgement.is_exact() {
            println!("{}: {}", peer.name, peer.judgement.text());
        }
    }
    println!("{}", all[0].judgement.text());
    Ok(all[0].judgement.is_exact())
}

fn compared(ours: &[String], theirs: &[String]) -> String {
    let ratio = |at: usize| Some(ours[at].parse::<f64>().ok()? / theirs[at].parse::<f64>().ok()?);
    let text = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2} ×"));
    format!("{}, {}", text(ratio(0)), text(ratio(2)))
}

fn ours(plan: &Plan) -> Result<Measured> {
    let ground = Ground::lay(plan, plan.listeners)?;
    let publisher = ground.publisher(plan, vec![format!("load-fanout-{}", ground.run)], false)?;
    let crowd = ground.crowd(plan, &publisher, "");
    let mut pids: Vec<u32> = ground.pid().into_iter().collect();
    pids.extend(ground.redis.as_ref().map(Redis::pid));
    measure(plan, format!("Tidegate ({})", ground.described()), &crowd, publisher, &pids)
}

fn nchan(plan: &Plan, workers: usize) -> Result<Measured> {
    let nchan = Nchan::start(workers)?;
    let name = "load".to_owned();
    let crowd = CrowdPlan {
        target: ([127, 0, 0, 1], nchan.port).into(),
        token: None,
        streams: vec![Source { path: format!("/sub/{name}"), after: None, next: 0 }],
        listeners: plan.listeners,
        slow: 0,
        threads: plan.threads,
        sources: plan.sources,
        leaves_after: None,
        has_ids: false,
        epoch: Instant::now(),
    };
    let poster = Poster::Nchan(Pipe::open(nchan.port)?);
    let publisher = Publisher::new(poster, vec![name], plan.bytes, None, crowd.epoch);
    let workers = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    measure(plan, format!("Nchan {} ({workers})", Nchan::version()), &crowd, publisher, &nchan.processes())
}

fn measure(
    plan: &Plan,
    name: String,
    crowd_plan: &CrowdPlan,
    mut publisher: Publisher,
    pids: &[u32],
) -> Result<Measured> {
    let crowd = open(crowd_plan)?;
    let cpu = || pids.iter().filter_map(|pid| memory::cpu(*pid)).sum::<Duration>();
    let (worked, start) = (cpu(), Instant::now());
    let delivered = pour(plan, &crowd, &mut publisher)?;
    let time = start.elapsed();
    let worked = cpu().saturating_sub(worked);
    let outcome = crowd.finish(&publisher.ledger.ends(), PATIENCE)?;
    let of_publisher = percentiles(&publisher.latency);
    Ok(Measured {
        name,
        percentiles: percentiles(&outcome.latency),
        per_second: delivered as f64 / time.as_secs_f64(),
        acknowledged: vec![of_publisher[0].clone(), of_publisher[2].clone()],
        server_cpu: core(worked, time),
        client_cpu: core(outcome.cpu, time),
        connections: format!("{}; publish errors {:?}", connections(&outcome), publisher.errors),
        judgement: judge(&outcome, &publisher.ledger),
    })
}

/// Publishes for the time asked for; tells how many events were delivered in it.
fn pour(plan: &Plan, crowd: &Crowd, publisher: &mut Publisher) -> Result<u64> {
    if plan.burst == 1 {
        publisher.pour(plan.rate, plan.time, Duration::ZERO, |_| 0)?;
        return Ok(crowd.delivered());
    }
    let listeners = plan.listeners as u64;
    let first = publisher.ledger.published(0);
    let end = Instant::now() + plan.time;
    while Instant::now() < end {
        let asked = (publisher.ledger.published(0) - first) * listeners;
        if asked.saturating_sub(crowd.delivered()) > WINDOW * plan.burst as u64 * listeners {
            wait_until(Instant::now() + Duration::from_micros(100));
        } else {
            publisher.publish(0, &vec![Instant::now(); plan.burst], Duration::ZERO)?;
        }
    }
    Ok(crowd.delivered())
}

//! `stalled`: one listener in ten stops reading for a while. What does it cost the server and the kernel, do the others
//! notice, and what do the stalled ones hear when they come back?

use std::time::{Duration, Instant};

use anyhow::Result;

use super::crowd::Outcome;
use super::ground::{Ground, open};
use super::judgement::judge;
use super::memory::{self, Memory};
use super::plan::Plan;
use super::publisher::Publisher;
use super::sheet::{Sheet, connections, core, kilobytes, milliseconds, ratio};
use crate::load_test::pace::wait_until;

/// For the stalled ones to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the stalled connections are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// 2 MiB: twice what a server holds of a stream by default. Who has missed so much cannot go on as if nothing had been.
const HELD_MAX: f64 = 2.0 * 1024.0 * 1024.0;

/// One run.
struct Measured {
    outcome: Outcome,
    before: Option<Memory>,
    most: Option<Memory>,
    /// The most the kernel held on the server's side for one connection, and for all that stalled.
    of_one: u64,
    of_stalled: u64,
    cpu: String,
}

pub(super) fn run(plan: &Plan) -> Result<bool> {
    let slow = plan.listeners.div_ceil(10);
    println!(
        "load-test sse stalled: {} listeners, {slow} of them stop reading for {} s, {}/s of {} bytes",
        plan.listeners,
        plan.time.as_secs_f64(),
        plan.rate,
        plan.bytes
    );
    let mut sheet = Sheet::new(&[
        "slow listeners are",
        "others p50 ms",
        "p99",
        "p99 / without",
        "server grew",
        "kernel, worst",
        "kernel, mean of stalled",
        "server CPU",
        "cut",
        "gaps",
    ]);
    let mut is_right = true;
    let mut without: Option<Duration> = None;
    let mut notes = Vec::new();
    let policies = std::iter::once("none").chain(plan.slow.iter().map(String::as_str));
    for policy in policies {
        let is_bare = policy == "none";
        let may_skip = matches!(policy, "skip" | "latest");
        let mut plan = plan.clone();
        if may_skip {
            // Longer than the stall: else the server closes them before the policy has its say.
            let patience = plan.time.as_secs() * 2 + 60;
            plan.flags.extend(["--sse-stall-timeout".to_owned(), format!("{patience}s")]);
        }
        // A server of its own for each, so that none inherits what another has made grow.
        let ground = Ground::lay(&plan, plan.listeners)?;
        let name = format!("load-stalled-{policy}-{}", ground.run);
        let mut publisher = ground.publisher(&plan, vec![name], false)?;
        let measured = measure(&plan, &ground, &mut publisher, policy, if is_bare { 0 } else { slow })?;
        let outcome = &measured.outcome;
        let p99 = outcome.latency.at(0.99).unwrap_or_default();
        without = without.or(Some(p99));
        let grown = measured.most.zip(measured.before).map(|(most, before)| most.since(before).resident);
        sheet.row(vec![
            if is_bare { "(none)".to_owned() } else { policy.to_owned() },
            outcome.latency.at(0.5).map_or("-".to_owned(), milliseconds),
            milliseconds(p99),
            ratio(p99.as_secs_f64(), without.unwrap_or_default().as_secs_f64()),
            grown.map_or("-".to_owned(), |bytes| kilobytes(bytes as f64)),
            kilobytes(measured.of_one as f64),
            kilobytes(measured.of_stalled as f64 / slow as f64),
            measured.cpu.clone(),
            outcome.counts.cut.to_string(),
            outcome.counts.gaps.to_string(),
        ]);
        let judgement = judge(outcome, &publisher.ledger);
        notes.push(format!("{policy}: {}\n{}", connections(outcome), judgement.text()));
        let is_told_right = if may_skip { judgement.told_in_time == 0 } else { judgement.gaps == 0 };
        let missed = plan.rate * plan.time.as_secs_f64() * plan.bytes as f64;
        let has_acted = if may_skip { judgement.gaps > 0 } else { outcome.counts.cut > 0 };
        let should_act = !is_bare && plan.url.is_none() && missed > HELD_MAX;
        if should_act && !has_acted {
            notes.push(format!("FAILED: `{policy}` did nothing, although {} went by", kilobytes(missed)));
        }
        is_right &= judgement.is_exact() && is_told_right && (has_acted || !should_act);
        if !is_told_right {
            let told = judgement.told_in_time;
            notes.push(format!("FAILED: a gap was told to {told} that read in time, or although the log has all"));
        }
    }
    sheet.print();
    println!("goals: kernel ≤ 64 KB for each, p99 of the others ≤ 1.1 ×");
    notes.iter().for_each(|note| println!("{note}"));
    Ok(is_right)
}

fn measure(plan: &Plan, ground: &Ground, publisher: &mut Publisher, policy: &str, slow: usize) -> Result<Measured> {
    let query = if slow == 0 { String::new() } else { format!("?slow={policy}") };
    let mut crowd_plan = ground.crowd(plan, publisher, &query);
    crowd_plan.slow = slow;
    let crowd = open(&crowd_plan)?;
    // Both ways alike: some seconds at full number, then the time that is measured.
    publisher.pour(plan.rate, Duration::from_secs(2), Duration::ZERO, |_| 0)?;
    let before = ground.pid().and_then(Memory::of);
    let cpu = || ground.pid().and_then(memory::cpu).unwrap_or_default();
    let (worked, start) = (cpu(), Instant::now());
    crowd.stall(true);
    let (mut most, mut of_one, mut of_stalled) = (before, 0, 0);
    while start.elapsed() < plan.time {
        publisher.pour(plan.rate, LOOK.min(plan.time), Duration::ZERO, |_| 0)?;
        most = ground.pid().and_then(Memory::of).max_by_resident(most);
        if let Some(all) = memory::of_connections(ground.port()) {
            of_one = of_one.max(all.first().copied().unwrap_or_default());
            of_stalled = of_stalled.max(all.iter().take(slow).sum());
        }
    }
    let cpu = core(cpu().saturating_sub(worked), start.elapsed());
    crowd.stall(false);
    wait_until(Instant::now() + Duration::from_millis(100));
    publisher.publish(0, &[Instant::now()], Duration::ZERO)?;
    let outcome = crowd.finish(&publisher.ledger.ends(), PATIENCE)?;
    Ok(Measured { outcome, before, most, of_one, of_stalled, cpu })
}

trait MaxByResident {
    fn max_by_resident(self, other: Self) -> Self;
}

impl MaxByResident for Option<Memory> {
    fn max_by_resident(self, other: Self) -> Self {
        self.into_iter().chain(other).max_by_key(|memory| memory.resident)
    }
}

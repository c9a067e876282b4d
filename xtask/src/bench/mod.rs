//! `cargo xtask bench`: runs the bench targets of `benches/`, gathers their rows into one table with ratios and goals,
//! keeps the run as JSON and compares it with an earlier one.
//!
//! A bench prints its results as lines of eight columns between tabs; see [`row`]. All else it prints is shown as is.

mod goals;
mod history;
mod machine;
mod peers;
mod row;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::history::Run;
use self::machine::Machine;
use self::row::Row;
use crate::arguments::Arguments;
use crate::table::{aligned, number};
use crate::workspace::Workspace;
use crate::{needs, shell, stamp};

const PACKAGE: &str = "tidegate-benches";

pub(crate) fn usage() -> String {
    "cargo xtask bench [area…] [--peers] [--compare <file|last>] [--goals] [-- arguments of the bench programs]\n\n\
     Builds in release mode and runs all bench areas, or those named; prints one table: value, baseline of the same\n\
     run, ratio (value / baseline) and goal. Results are kept in target/bench/<time>.json.\n\
     --peers    run other queues (BullMQ from npm, apalis from crates.io) and caches (BentoCache from npm) beside ours, on\n\
                the same Redis in the same run\n\
     --compare  also print the difference with an earlier run, marking changes above 10 %\n\
     --goals    only print the goals\n\
     A missed goal is shown and does not fail the command; a bench that fails does."
        .to_owned()
}

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    if arguments.flag("--goals") {
        println!("{}", goals::listing());
        return Ok(ExitCode::SUCCESS);
    }
    let compare: Option<String> = arguments.value("--compare")?;
    let with_peers = arguments.flag("--peers");
    let (names, mut passed_on) = arguments.rest();
    let workspace = Workspace::members()?;
    let areas = chosen(&bench_targets(&workspace), &names)?;
    let on_redis = ["cache", "events", "redis_ops", "redis_queue"];
    if areas.iter().any(|area| on_redis.contains(&area.as_str())) {
        needs::ensure(&[needs::REDIS])?;
    }
    if with_peers {
        passed_on.extend(peers::ready(&workspace.target, &areas)?);
    }
    let folder = workspace.target.join("bench");
    // Before running, so that `last` is not the run we are about to make.
    let earlier = compare.map(|which| history::load(&folder, &which)).transpose()?;

    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for area in &areas {
        println!("bench: {area}");
        let (found, success) = measure(area, &passed_on)?;
        rows.extend(found);
        broken.extend((!success).then_some(area.as_str()));
    }
    let run = Run { at: stamp::now(), machine: Machine::here(&workspace.target), rows };
    println!("\n{}\n{}", run.machine.summary(), table(&run.rows));
    goals::unmeasured(&run.rows).iter().for_each(|goal| println!("goal without a row: {goal}"));
    if let Some(earlier) = earlier {
        println!("\n{}", history::difference(&earlier, &run));
    }
    println!("kept as {}", history::save(&folder, &run)?.display());
    if broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {}", broken.join(", "));
    Ok(ExitCode::FAILURE)
}

fn bench_targets(workspace: &Workspace) -> Vec<String> {
    let benches = workspace.packages.iter().filter(|package| package.name == PACKAGE);
    let targets = benches.flat_map(|package| &package.targets).filter(|target| target.kind == "bench");
    targets.map(|target| target.name.clone()).collect()
}

/// The areas to run: all, or those named, each of which has to exist.
fn chosen(all: &[String], names: &[String]) -> Result<Vec<String>> {
    if let Some(flag) = names.iter().find(|name| name.starts_with('-')) {
        bail!("unknown flag {flag}");
    }
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("no bench is called {unknown}; there are: {}", all.join(", "));
    }
    if all.is_empty() {
        bail!("{PACKAGE} has no bench targets");
    }
    Ok(if names.is_empty() { all.to_vec() } else { names.to_vec() })
}

/// Runs one bench target and reads its rows.
fn measure(area: &str, passed_on: &[String]) -> Result<(Vec<Row>, bool)> {
    let mut words = vec!["bench", "--locked", "--quiet", "--package", PACKAGE, "--bench", area, "--"];
    words.extend(passed_on.iter().map(String::as_str));
    let mut rows = Vec::new();
    let mut unreadable = 0;
    let success = shell::each_line(shell::cargo(&words), |line| match row::parse(line) {
        None => println!("  {line}"),
        Some(Ok(row)) => {
            println!("  {}: {} {}", row.name, number(row.value), row.unit);
            rows.push(row);
        }
        Some(Err(error)) => {
            println!("  {error}: {line}");
            unreadable += 1;
        }
    })?;
    Ok((rows, success && unreadable == 0))
}

fn table(rows: &[Row]) -> String {
    let head = ["area", "what", "value", "unit", "baseline", "value", "ratio", "goal"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let (name, value, ratio) = match &row.baseline {
            Some(baseline) => (baseline.name.clone(), number(baseline.value), format!("{:.2}", baseline.ratio)),
            None => Default::default(),
        };
        let goal = goals::of(row).map(|goal| goal.verdict(row)).unwrap_or_default();
        lines.push(vec![
            row.area.clone(),
            row.name.clone(),
            number(row.value),
            row.unit.clone(),
            name,
            value,
            ratio,
            goal,
        ]);
    }
    aligned(&lines, &[2, 5, 6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_all_or_those_named_and_have_to_exist() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let all = words("metrics queue");
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &words("queue")).unwrap(), words("queue"));
        assert!(chosen(&all, &words("queues")).is_err());
        assert!(chosen(&all, &words("--fast")).is_err());
        assert!(chosen(&[], &[]).is_err());
    }

    #[test]
    fn the_table_shows_value_baseline_ratio_and_goal() {
        let line = "ROW\tqueue\tenqueue, 64 callers\t120000\tjobs/s\tSQLite WAL\t60000\t2";
        let shown = table(&[row::parse(line).unwrap().unwrap()]);
        let second = shown.lines().nth(1).unwrap();
        for part in ["queue", "enqueue, 64 callers", "120 000", "jobs/s", "SQLite WAL", "60 000", "2.00"] {
            assert!(second.contains(part), "{part} is missing in {second}");
        }
    }
}

//! Runs kept as `target/bench/<time>.json`, and what changed between two of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::machine::Machine;
use super::row::Row;
use crate::table::{aligned, number};

/// Changes up to here are the noise of a shared machine.
const NOISE: f64 = 0.10;

/// All rows of one `cargo xtask bench`.
pub(super) struct Run {
    /// UTC, as `20250131T235959Z`.
    pub(super) at: String,
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
}

/// Keeps the run and tells where.
pub(super) fn save(folder: &Path, run: &Run) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{}.json", run.at));
    let rows: Vec<Value> = run.rows.iter().map(Row::to_json).collect();
    let value = json!({ "at": run.at, "machine": run.machine.to_json(), "rows": rows });
    std::fs::write(&path, format!("{value:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A kept run by path, by its name in `folder`, or `last`.
pub(super) fn load(folder: &Path, which: &str) -> Result<Run> {
    let path = match which {
        "last" => newest(folder)?,
        name if Path::new(name).exists() => PathBuf::from(name),
        name => folder.join(name).with_extension("json"),
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a kept run", path.display()))
}

fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // Names are moments, so the greatest is the newest.
    let newest = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).max();
    newest.with_context(|| format!("no earlier run in {}", folder.display()))
}

fn parse(text: &str) -> Result<Run> {
    let value: Value = serde_json::from_str(text)?;
    let Some(rows) = value["rows"].as_array() else { bail!("no rows") };
    Ok(Run {
        at: value["at"].as_str().unwrap_or_default().to_owned(),
        machine: Machine::from_json(&value["machine"]),
        rows: rows.iter().map(Row::from_json).collect::<Result<_>>()?,
    })
}

/// Row by row, what became better or worse.
pub(super) fn difference(earlier: &Run, now: &Run) -> String {
    let mut lines = vec![["area", "what", "then", "now", "unit", "change", ""].map(str::to_owned).to_vec()];
    for (at, row) in now.rows.iter().enumerate() {
        if now.rows[..at].iter().any(|shown| shown.measures_the_same_as(row)) {
            continue;
        }
        let then = earlier.rows.iter().find(|then| then.measures_the_same_as(row));
        let (before, change, verdict) = match then {
            Some(then) if then.unit == row.unit => {
                let change = change(then.value, row.value);
                (number(then.value), format!("{:+.1} %", change * 100.0), verdict(row, change))
            }
            Some(then) => (format!("{} {}", number(then.value), then.unit), String::new(), "other unit"),
            None => (String::new(), String::new(), "new"),
        };
        let (area, name, unit) = (row.area.clone(), row.name.clone(), row.unit.clone());
        lines.push(vec![area, name, before, number(row.value), unit, change, verdict.to_owned()]);
    }
    let other_machine = if earlier.machine.compares_to(&now.machine) {
        String::new()
    } else {
        format!("\nanother machine or compiler then: {}", earlier.machine.summary())
    };
    let head = format!("compared with {} (commit {}){other_machine}", earlier.at, earlier.machine.commit);
    format!("{head}\n{}", aligned(&lines, &[2, 3, 5]))
}

fn change(then: f64, now: f64) -> f64 {
    if then == 0.0 && now == 0.0 { 0.0 } else { (now - then) / then }
}

fn verdict(row: &Row, change: f64) -> &'static str {
    match change {
        change if change.abs() <= NOISE => "",
        change if (change > 0.0) == row.more_is_better() => "BETTER",
        _ => "WORSE",
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::parse as row;
    use super::*;

    fn run(lines: &[&str]) -> Run {
        let rows = lines.iter().map(|line| row(&line.replace(' ', "\t")).unwrap().unwrap()).collect();
        Run { at: "20250131T235959Z".into(), machine: Machine::from_json(&Value::Null), rows }
    }

    #[test]
    fn changes_above_the_noise_are_marked_by_the_sense_of_their_unit() {
        let earlier = run(&["ROW q rate 100 jobs/s", "ROW q time 100 ms", "ROW q calm 100 ms", "ROW q size 1 s"]);
        let now = run(&[
            "ROW q rate 120 jobs/s",
            "ROW q time 120 ms",
            "ROW q calm 109 ms",
            "ROW q size 1 ms",
            "ROW q new 1 ms",
            "ROW q new 1 ms peer 2 0.5",
        ]);
        let shown = difference(&earlier, &now);
        assert_eq!(shown.matches(" new ").count(), 1, "once, though set against two: {shown}");
        let line = |name: &str| shown.lines().find(|line| line.contains(&format!(" {name} "))).unwrap().to_owned();
        assert!(line("rate").ends_with("+20.0 %  BETTER"), "{shown}");
        assert!(line("time").ends_with("+20.0 %  WORSE"), "{shown}");
        assert!(line("calm").ends_with("+9.0 %"), "{shown}");
        assert!(line("size").ends_with("other unit"), "{shown}");
        assert!(line("new").ends_with("new"), "{shown}");
    }

    #[test]
    fn a_kept_run_is_found_as_last_by_name_and_by_path() {
        let folder = std::env::temp_dir().join(format!("tidegate-xtask-history-{}", std::process::id()));
        assert!(load(&folder, "last").is_err());
        let mut kept = run(&["ROW q rate 100 jobs/s SQLite 50 2"]);
        save(&folder, &kept).unwrap();
        kept.at = "20250201T000000Z".into();
        let path = save(&folder, &kept).unwrap();
        for which in ["last", "20250201T000000Z", &path.to_string_lossy()] {
            let loaded = load(&folder, which).unwrap();
            assert_eq!((loaded.at, loaded.rows), (kept.at.clone(), kept.rows.clone()));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! `--peers`: other queues and caches, made ready under `target/peers` and named to the benches in lists there. They are
//! programs of their own (`benches/peers`) and no part of the product; the benches describe how they are asked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{needs, shell};

/// Where the peers' sources are.
const SOURCES: &str = "benches/peers";
/// The versions measured; they also stand in `package.json` and `Cargo.toml` of the folders there.
const BULLMQ: &str = "BullMQ 6.7.0";
const APALIS: &str = "apalis-redis 1.0.0";
const BENTOCACHE: &str = "BentoCache 1.6.1";
/// Older ones lack the stream commands that ChasquiMQ 1 calls.
const CHASQUIMQ_WANTS: (u32, u32) = (8, 6);

/// Makes the peers of these areas ready; the arguments that tell the benches where they are listed: name, program and
/// arguments, with tabs between.
pub(super) fn ready(target: &Path, areas: &[String]) -> Result<Vec<String>> {
    needs::ensure(&[needs::REDIS, needs::NODE])?;
    let folder = target.join("peers");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut arguments = Vec::new();
    if areas.iter().any(|area| area == "redis_queue") {
        let queues = [(BULLMQ, npm(&folder, "bullmq", BULLMQ)?), (APALIS, apalis(&folder)?)];
        println!("{}", chasquimq());
        arguments.push(format!("--peers={}", listed(&folder, "queues.tsv", &queues)?.display()));
    }
    if areas.iter().any(|area| area == "cache") {
        let caches = [(BENTOCACHE, npm(&folder, "bentocache", BENTOCACHE)?)];
        arguments.push(format!("--cache-peers={}", listed(&folder, "caches.tsv", &caches)?.display()));
    }
    Ok(arguments)
}

fn listed(folder: &Path, file: &str, peers: &[(&str, Vec<String>)]) -> Result<PathBuf> {
    let mut list = String::new();
    for (name, command) in peers {
        writeln!(list, "{name}\t{}", command.join("\t"))?;
    }
    let path = folder.join(file);
    std::fs::write(&path, list).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A program of Node with what it names in its `package.json`.
fn npm(folder: &Path, name: &str, peer: &str) -> Result<Vec<String>> {
    if shell::line_of("npm", &["--version"]).is_none() {
        bail!("npm is missing (it fetches {peer}); please install it and run this again");
    }
    let home = folder.join(name);
    std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    for file in ["package.json", "peer.mjs"] {
        let source = shell::root().join(SOURCES).join(name).join(file);
        std::fs::copy(&source, home.join(file)).with_context(|| format!("cannot copy {}", source.display()))?;
    }
    println!("peers: {peer} with npm, into {}", home.display());
    let words = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    let mut npm = shell::command("npm", &words);
    npm.current_dir(&home);
    made(npm, peer)?;
    let node = needs::path_of(&needs::NODE).context("node is gone")?;
    Ok(vec![node, home.join("peer.mjs").to_string_lossy().into_owned()])
}

fn apalis(folder: &Path) -> Result<Vec<String>> {
    let home = folder.join("apalis");
    println!("peers: {APALIS} with cargo, into {}", home.display());
    let manifest = shell::root().join(SOURCES).join("apalis/Cargo.toml");
    let (manifest, place) = (manifest.to_string_lossy(), home.to_string_lossy());
    let words = ["build", "--release", "--locked", "--quiet", "--manifest-path", &manifest, "--target-dir", &place];
    made(shell::cargo(&words), APALIS)?;
    Ok(vec![home.join("release/tidegate-peer-apalis").to_string_lossy().into_owned()])
}

fn made(command: std::process::Command, what: &str) -> Result<()> {
    let line = shell::described(&command);
    if !shell::show(command)? {
        bail!("{what} could not be made ready: `{line}` failed");
    }
    Ok(())
}

/// Why ChasquiMQ is not among them.
fn chasquimq() -> String {
    let (major, minor) = CHASQUIMQ_WANTS;
    let said = needs::path_of(&needs::REDIS).and_then(|redis| shell::line_of(&redis, &["--version"]));
    match said.as_deref().and_then(version) {
        Some(here) if here >= CHASQUIMQ_WANTS => {
            format!("peers: ChasquiMQ is left out, for no program in {SOURCES} speaks its interface yet")
        }
        Some((here, patch)) => {
            format!("peers: ChasquiMQ is left out: it needs Redis {major}.{minor}, and this is {here}.{patch}")
        }
        None => format!(
            "peers: ChasquiMQ is left out: it needs Redis {major}.{minor}, and this one does not say what it is"
        ),
    }
}

/// Of `Redis server v=7.0.15 sha=…`: 7 and 0.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("v=")?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_redis_decides_by_number_and_not_by_letter() {
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"), Some((7, 0)));
        assert!(version("Redis server v=10.1.0").is_some_and(|here| here >= CHASQUIMQ_WANTS));
        assert!(version("Redis server v=8.4.0").is_some_and(|here| here < CHASQUIMQ_WANTS));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn the_names_shown_are_those_of_the_versions_pinned() {
        let source = |file: &str| std::fs::read_to_string(shell::root().join(SOURCES).join(file)).unwrap();
        let number = |name: &str| name.rsplit_once(' ').unwrap().1.to_owned();
        assert!(source("bullmq/package.json").contains(&format!(r#""bullmq": "{}""#, number(BULLMQ))));
        assert!(source("bentocache/package.json").contains(&format!(r#""bentocache": "{}""#, number(BENTOCACHE))));
        assert!(source("apalis/Cargo.toml").contains(&format!(r#"apalis-redis = "={}""#, number(APALIS))));
    }
}

//! Arrows point down and are exactly those drawn in ARCHITECTURE.md.
//!
//! The drawing is a fenced block of lines like `queue → store metrics`; several arrows may share a line, words in
//! parentheses are for people. It counts when its fence is opened as ```` ```arrows ````, or else when it is the first
//! block whose every line holds an arrow. Normal and build dependencies are arrows; a dev-dependency needs no arrow,
//! but may not point up.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::{Verdict, homes};
use crate::shell;
use crate::workspace::{Package, Workspace, folder_of};

const DRAWING: &str = "ARCHITECTURE.md";
const ARROW: &str = "→";

pub(super) fn gate() -> Result<Verdict> {
    let workspace = Workspace::members()?;
    let built = Arrows::built_by(&workspace);
    let mut findings = match drawn() {
        Ok(drawn) => drawn.compared_with(&built, &workspace),
        Err(error) => vec![format!("{error:#}")],
    };
    findings.extend(upward_dev_dependencies(&workspace));
    findings.extend(tools_that_know_the_product(&workspace));
    findings.extend(homes::strays(&workspace));
    Ok(Verdict::of(&findings, format!("{} arrows, {} homes", built.0.len(), homes::HOMES.len())))
}

fn drawn() -> Result<Arrows> {
    let text =
        std::fs::read_to_string(shell::root().join(DRAWING)).with_context(|| format!("cannot read {DRAWING}"))?;
    Arrows::drawn_in(&text)
}

/// Pairs of folder names: the first depends on the second.
#[derive(Debug, PartialEq)]
struct Arrows(BTreeSet<(String, String)>);

impl Arrows {
    fn drawn_in(markdown: &str) -> Result<Self> {
        let blocks = fenced_blocks(markdown);
        let marked = blocks.iter().find(|(info, _)| *info == "arrows");
        let all_arrows = |lines: &[&str]| !lines.is_empty() && lines.iter().all(|line| line.contains(ARROW));
        let (_, lines) = marked
            .or_else(|| blocks.iter().find(|(_, lines)| all_arrows(lines)))
            .with_context(|| format!("{DRAWING} holds no fenced block of lines `crate {ARROW} crate …`"))?;
        Ok(Self(lines.iter().flat_map(|line| arrows_of(line)).collect()))
    }

    fn built_by(workspace: &Workspace) -> Self {
        let edges = workspace.crates().flat_map(|package| {
            let below = inner(package, workspace).filter(|(_, is_dev)| !is_dev);
            below.map(|(name, _)| (package.folder().to_owned(), folder_of(name).to_owned()))
        });
        Self(edges.collect())
    }

    fn compared_with(&self, built: &Self, workspace: &Workspace) -> Vec<String> {
        let exists = |folder: &str| workspace.crates().any(|package| package.folder() == folder);
        let missing =
            self.0.difference(&built.0).map(|(from, to)| match [from, to].into_iter().find(|folder| !exists(folder)) {
                Some(absent) => format!("{from} {ARROW} {to}: drawn in {DRAWING}, but there is no crates/{absent}"),
                None => {
                    format!("{from} {ARROW} {to}: drawn in {DRAWING}, but not a dependency in crates/{from}/Cargo.toml")
                }
            });
        let extra = built.0.difference(&self.0).map(|(from, to)| {
            format!("{from} {ARROW} {to}: a dependency in crates/{from}/Cargo.toml, but not drawn in {DRAWING}")
        });
        missing.chain(extra).collect()
    }
}

/// Each fenced block: its info string and its lines that are not empty.
fn fenced_blocks(markdown: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut open = false;
    for line in markdown.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            open = !open;
            if open {
                blocks.push((info.trim(), Vec::new()));
            }
        } else if let Some((_, lines)) = blocks.last_mut().filter(|_| open && !line.trim().is_empty()) {
            lines.push(line);
        }
    }
    blocks
}

/// The arrows of one line: a word followed by an arrow points at the words up to the next such word.
fn arrows_of(line: &str) -> Vec<(String, String)> {
    let spaced = without_parentheses(line).replace(ARROW, " → ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut arrows = Vec::new();
    let mut from = None;
    for (at, word) in words.iter().enumerate() {
        if words.get(at + 1) == Some(&ARROW) {
            from = Some(*word);
        } else if let Some(from) = from.filter(|_| *word != ARROW) {
            arrows.push((from.to_owned(), (*word).to_owned()));
        }
    }
    arrows
}

fn without_parentheses(line: &str) -> String {
    let mut depth = 0_usize;
    let keep = |letter: &char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    line.chars().filter(keep).collect()
}

/// Dependencies on other members: name and whether only tests need it.
fn inner<'a>(package: &'a Package, workspace: &'a Workspace) -> impl Iterator<Item = (&'a str, bool)> {
    let ours = |name: &str| workspace.packages.iter().any(|member| member.name == name);
    let dependencies = package.dependencies.iter().filter(move |each| ours(&each.name) && each.name != package.name);
    dependencies.map(|each| (each.name.as_str(), each.is_dev))
}

fn upward_dev_dependencies(workspace: &Workspace) -> Vec<String> {
    let below: BTreeMap<&str, Vec<&str>> = workspace
        .packages
        .iter()
        .map(|package| {
            let normal = inner(package, workspace).filter(|(_, is_dev)| !is_dev);
            (package.name.as_str(), normal.map(|(name, _)| name).collect())
        })
        .collect();
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(name) = open.pop() {
            if name == to {
                return true;
            }
            if seen.insert(name) {
                open.extend(below.get(name).into_iter().flatten());
            }
        }
        false
    };
    let mut findings = Vec::new();
    for package in workspace.crates() {
        for (above, _) in inner(package, workspace).filter(|(name, is_dev)| *is_dev && reaches(name, &package.name)) {
            let (from, to) = (package.folder(), folder_of(above));
            findings.push(format!(
                "{from} {ARROW} {to}: a dev-dependency in crates/{from}/Cargo.toml that points up; see {DRAWING}"
            ));
        }
    }
    findings
}

/// Tools that name no crate of ours: xtask judges the tree, so it may not need the tree to compile; the Redis harness
/// is a dev-dependency of any crate, so each arrow from it would point up.
const TOOLS: &[(&str, &str)] = &[("xtask", "xtask"), ("tidegate-test-redis", "tests/redis")];

fn tools_that_know_the_product(workspace: &Workspace) -> Vec<String> {
    let folder = |name: &str| TOOLS.iter().find(|(tool, _)| *tool == name).map(|(_, folder)| *folder);
    let tools = workspace.packages.iter().filter_map(|package| Some((package, folder(&package.name)?)));
    tools
        .flat_map(|(package, folder)| inner(package, workspace).map(move |(name, _)| (folder, name)))
        .map(|(folder, name)| {
            format!("{folder} {ARROW} {name}: {folder}/Cargo.toml may name no product crate; see {DRAWING}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::sample;

    const DRAWN: &str = "\
# Map
```
crates/  queue/ store/     (a tree → not arrows)
xtask/
```
```
server → queue store metrics      (builds store and registry → hands them down)
queue  → store metrics        store→metrics
```
";

    fn pairs(pairs: &[(&str, &str)]) -> Arrows {
        Arrows(pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect())
    }

    #[test]
    fn arrows_are_read_from_the_first_block_made_of_arrows() {
        let drawn = Arrows::drawn_in(DRAWN).unwrap();
        let expected = [
            ("server", "queue"),
            ("server", "store"),
            ("server", "metrics"),
            ("queue", "store"),
            ("queue", "metrics"),
            ("store", "metrics"),
        ];
        assert_eq!(drawn, pairs(&expected));
    }

    #[test]
    fn a_marked_block_goes_first_and_no_block_is_an_error() {
        let drawn = Arrows::drawn_in("```\na → b\n```\n```arrows\nqueue → store\n\n```\n").unwrap();
        assert_eq!(drawn, pairs(&[("queue", "store")]));
        assert!(Arrows::drawn_in("queue → store, in plain text").is_err());
    }

    #[test]
    fn every_missing_and_extra_arrow_is_told_with_both_files() {
        let workspace = sample(
            &["tidegate-queue", "tidegate-store", "tidegate-metrics", "serde"],
            &[("tidegate-queue", '>', "tidegate-store"), ("tidegate-queue", '>', "serde")],
        );
        let drawn = pairs(&[("queue", "metrics"), ("queue", "cache")]);
        let findings = drawn.compared_with(&Arrows::built_by(&workspace), &workspace);
        assert_eq!(
            findings,
            [
                "queue → cache: drawn in ARCHITECTURE.md, but there is no crates/cache",
                "queue → metrics: drawn in ARCHITECTURE.md, but not a dependency in crates/queue/Cargo.toml",
                "queue → serde: a dependency in crates/queue/Cargo.toml, but not drawn in ARCHITECTURE.md",
                "queue → store: a dependency in crates/queue/Cargo.toml, but not drawn in ARCHITECTURE.md",
            ]
        );
    }

    #[test]
    fn a_dev_dependency_needs_no_arrow_but_may_not_point_up() {
        let names = ["tidegate-queue", "tidegate-store", "tidegate-metrics"];
        let down = sample(&names, &[("tidegate-queue", '~', "tidegate-store")]);
        assert_eq!(Arrows::built_by(&down), pairs(&[]));
        assert!(upward_dev_dependencies(&down).is_empty());

        let edges = [
            ("tidegate-queue", '>', "tidegate-store"),
            ("tidegate-store", '>', "tidegate-metrics"),
            ("tidegate-metrics", '~', "tidegate-queue"),
        ];
        let findings = upward_dev_dependencies(&sample(&names, &edges));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("metrics → queue: a dev-dependency"), "{findings:?}");
    }

    #[test]
    fn xtask_may_name_no_product_crate() {
        let good = sample(&["xtask", "tidegate-queue"], &[("xtask", '>', "anyhow")]);
        assert!(tools_that_know_the_product(&good).is_empty());
        let bad = sample(&["xtask", "tidegate-queue"], &[("xtask", '~', "tidegate-queue")]);
        assert_eq!(tools_that_know_the_product(&bad).len(), 1);
    }

    #[test]
    fn any_crate_may_test_with_the_redis_harness_which_knows_none() {
        let names = ["tidegate-queue", "tidegate-metrics", "tidegate-test-redis"];
        let tested = sample(&names, &[("tidegate-queue", '~', "tidegate-test-redis")]);
        assert_eq!(Arrows::built_by(&tested), pairs(&[]));
        assert!(upward_dev_dependencies(&tested).is_empty() && tools_that_know_the_product(&tested).is_empty());

        let shipped = sample(&names, &[("tidegate-queue", '>', "tidegate-test-redis")]);
        assert_eq!(pairs(&[]).compared_with(&Arrows::built_by(&shipped), &shipped).len(), 1);
        let knowing = sample(&names, &[("tidegate-test-redis", '~', "tidegate-metrics")]);
        assert!(tools_that_know_the_product(&knowing)[0].starts_with("tests/redis → tidegate-metrics"));
    }
}

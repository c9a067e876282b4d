//! How files are written: rules about the text of every file that git tracks, each with its reason.

mod links;
mod rust;
mod text;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::Verdict;
use crate::shell;

/// A tracked text file.
struct File {
    /// From the root of the checkout, with `/`.
    path: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, own)| own == extension)
    }

    /// Lines with their numbers, the first being 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

/// Everything a rule may look at.
struct Tree {
    files: Vec<File>,
    /// All tracked paths, folders and files that are not text included.
    paths: BTreeSet<String>,
}

/// What is wrong with one line.
#[derive(Debug, PartialEq)]
struct Finding {
    line: usize,
    message: String,
}

/// A rule looks at one file at a time.
type Rule = fn(&File, &Tree) -> Vec<Finding>;

const RULES: &[Rule] = &[
    rust::opens_with_its_purpose,
    rust::is_of_one_thought,
    rust::reads_no_environment,
    rust::sends_no_unbounded_command,
    rust::ignores_no_test_without_a_reason,
    text::ends_lines_cleanly,
    text::leaves_nothing_undone,
    text::names_no_machine,
    links::lead_somewhere,
];

pub(super) fn gate() -> Result<Verdict> {
    let tree = Tree::tracked()?;
    let mut findings = Vec::new();
    for file in &tree.files {
        let found = RULES.iter().flat_map(|rule| rule(file, &tree));
        findings.extend(found.map(|finding| format!("{}:{}: {}", file.path, finding.line, finding.message)));
    }
    Ok(Verdict::of(&findings, format!("{} rules, {} files", RULES.len(), tree.files.len())))
}

impl Tree {
    /// The files git tracks, as they are on disk. Those that are not UTF-8 text count as paths only.
    fn tracked() -> Result<Self> {
        // Automation often runs as another user than the one who owns the checkout, which git else refuses.
        let listing = shell::finish(shell::command("git", &["-c", "safe.directory=*", "ls-files", "-z"]))?;
        if !listing.success {
            bail!("tidy looks at the files git tracks, but git says: {}", listing.said());
        }
        let names: Vec<&str> = listing.stdout.split('\0').filter(|name| !name.is_empty()).collect();
        let read = |name: &&str| {
            let text = std::fs::read_to_string(shell::root().join(name)).ok()?;
            Some(File { path: (*name).to_owned(), text }).filter(|file| !file.text.contains('\0'))
        };
        let files = names.iter().filter_map(read).collect();
        Ok(Self { files, paths: with_folders(names) })
    }
}

fn with_folders<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut paths = BTreeSet::from([String::new()]);
    for name in names {
        paths.insert(name.to_owned());
        paths.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
    }
    paths
}

/// What `rule` says about a tree of this one file.
#[cfg(test)]
fn told(rule: Rule, path: &str, text: &str) -> Vec<(usize, String)> {
    let tree = Tree { files: Vec::new(), paths: with_folders(["README.md", "docs/queue.md", path]) };
    let file = File { path: path.to_owned(), text: text.to_owned() };
    rule(&file, &tree).into_iter().map(|finding| (finding.line, finding.message)).collect()
}

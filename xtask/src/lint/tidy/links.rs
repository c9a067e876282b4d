//! Links in Markdown that point into this repository lead to a tracked file or folder.

use super::{File, Finding, Tree};

pub(super) fn lead_somewhere(file: &File, tree: &Tree) -> Vec<Finding> {
    if !file.is("md") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut in_code = false;
    for (line, text) in file.lines() {
        if text.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        for target in targets(text).into_iter().filter(|_| !in_code) {
            let Some(path) = local(&target) else { continue };
            if !tree.paths.contains(&resolved(&file.path, path)) {
                findings.push(Finding { line, message: format!("the link to {target} leads nowhere") });
            }
        }
    }
    findings
}

/// What `[text](target)`, `![text](target)` and `[name]: target` point at; `` `code` `` is not looked into.
fn targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let definition = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    let first_word = |target: &str| target.split_whitespace().next().map(str::to_owned);
    inline.chain(definition).filter_map(first_word).collect()
}

/// The path within the repository, without its `#anchor`; `None` for an address or a place on the same page.
fn local(target: &str) -> Option<&str> {
    let path = target.split('#').next().unwrap_or_default();
    let elsewhere = path.is_empty() || target.contains("://") || target.starts_with("mailto:");
    (!elsewhere).then_some(path)
}

/// `path` as seen from the folder of `from`, from the root of the repository.
fn resolved(from: &str, path: &str) -> String {
    let mut folders: Vec<&str> = from.split('/').collect();
    folders.pop();
    if path.starts_with('/') {
        folders.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if folders.pop().is_none() => return format!("outside of the repository: {path}"),
            ".." => {}
            name => folders.push(name),
        }
    }
    folders.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;

    /// The tree of these tests holds README.md, docs/queue.md and the file itself.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        told(lead_somewhere, path, text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_link_to_nowhere_is_told() {
        assert_eq!(lines("docs/store.md", "fine\n[gone](gone.md) and ![gone](../img/a.png)\n"), [2, 2]);
        assert_eq!(lines("docs/store.md", "[gone]: ../gone.md \"title\"\n"), [1]);
        assert_eq!(lines("docs/store.md", "[up](../../README.md)\n"), [1]);
        assert_eq!(lines("README.md", "[queue.md](queue.md#leases)\n"), [1]);
    }

    #[test]
    fn links_that_lead_somewhere_and_links_to_elsewhere_are_fine() {
        let text = "[a](queue.md#leases) [b](../README.md) [c](/docs/) [d](https://example.com/x.md) [e](#here) [f](mailto:a@b)\n";
        assert!(lines("docs/store.md", text).is_empty());
        let code = "`[a](gone.md)`\n```\n[a](gone.md)\n```\n[a]: queue.md\n";
        assert!(lines("docs/store.md", code).is_empty());
    }
}

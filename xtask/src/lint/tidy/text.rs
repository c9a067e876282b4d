//! Rules about every text file we write.

use super::{File, Finding, Tree};

/// What we write; data, licences and lock files are as they came.
const WRITTEN: &[&str] =
    &["rs", "md", "toml", "lua", "py", "js", "mjs", "ts", "html", "css", "json", "sh", "yml", "yaml", "run", "service"];

/// Notes to ourselves: an open end belongs into an issue. In two parts, as this file is checked as well.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders of somebody's machine; a path in the tree is relative or a parameter.
const MACHINES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

fn is_written(file: &File) -> bool {
    WRITTEN.iter().any(|extension| file.is(extension)) || file.path.ends_with("/run")
}

pub(super) fn ends_lines_cleanly(file: &File, _: &Tree) -> Vec<Finding> {
    if !is_written(file) {
        return Vec::new();
    }
    let wrong = |line: &str| match line {
        _ if line.contains('\t') => Some("a tab; indent with spaces"),
        _ if line.ends_with([' ', '\r']) => Some("white space at the end of the line"),
        _ => None,
    };
    let raw = file.text.split('\n').enumerate();
    let found = raw.filter_map(|(at, line)| Some(Finding { line: at + 1, message: wrong(line)?.to_owned() }));
    let unfinished = !file.text.is_empty() && !file.text.ends_with('\n');
    let last = Finding { line: file.text.lines().count(), message: "no newline at the end of the file".to_owned() };
    found.chain(unfinished.then_some(last)).collect()
}

pub(super) fn leaves_nothing_undone(file: &File, _: &Tree) -> Vec<Finding> {
    told_words(file, NOTES, |note| format!("{note}: finish it or open an issue"))
}

pub(super) fn names_no_machine(file: &File, _: &Tree) -> Vec<Finding> {
    told_words(file, MACHINES, |folder| format!("{folder} exists on one machine only; use a relative path"))
}

/// One finding for each line that holds one of `words` as a word of its own.
fn told_words(file: &File, words: &[&str], message: impl Fn(&str) -> String) -> Vec<Finding> {
    if !is_written(file) {
        return Vec::new();
    }
    let found = file.lines().filter_map(|(line, text)| {
        let word = words.iter().find(|word| holds(text, word))?;
        Some(Finding { line, message: message(word) })
    });
    found.collect()
}

/// Is `word` in `line` with no letter, digit or path before it and, unless it is a folder, no letter or digit after it?
fn holds(line: &str, word: &str) -> bool {
    let joins = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
    let leads = |letter: char| joins(letter) || matches!(letter, '.' | '}' | '~' | '$');
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(leads) && (word.ends_with('/') || !after.starts_with(joins))
    })
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;

    #[test]
    fn tabs_and_trailing_white_space_are_told_with_their_line() {
        let rule = ends_lines_cleanly;
        let lines = |text: &str| told(rule, "a.rs", text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines("fine\nnot \n\tnot\nfine\n"), [2, 3]);
        assert_eq!(lines("windows\r\n"), [1]);
        assert_eq!(lines("fine\nunfinished"), [2]);
        assert_eq!(told(rule, "data/ride.csv", "a\tb \n"), []);
        assert_eq!(told(rule, ".ci/run", "true \n").len(), 1);
    }

    #[test]
    fn notes_to_ourselves_are_told() {
        let rule = leaves_nothing_undone;
        for note in NOTES {
            assert_eq!(told(rule, "a.py", &format!("one\n# {note}: later\n"))[0].0, 2);
        }
        assert_eq!(told(rule, "a.py", "mktemp -t run.XXXXXX, 5XXX, todo\n"), []);
    }

    #[test]
    fn paths_of_a_machine_are_told() {
        let rule = names_no_machine;
        for folder in MACHINES {
            assert_eq!(told(rule, "README.md", &format!("cd `{folder}me/tidegate`\n")).len(), 1);
            assert_eq!(told(rule, "a.rs", &format!("open(\"{folder}x\")\nfile://{folder}me\n")).len(), 2);
            let fine = format!("https://example.com{folder}x ../..{folder}x {}\n", folder.replace('/', ""));
            assert_eq!(told(rule, "README.md", &fine), []);
        }
        assert_eq!(told(rule, "a.rs", concat!("get(\"/ho", "me.css\")\n")), []);
    }
}

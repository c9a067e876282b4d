//! The words after `cargo xtask <command>`: flags, values and the rest, in any order.
//!
//! Words after `--` are never looked at; they are handed to the program below.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Words not yet asked for. Each question removes what it answers, so what is left over is a mistake.
pub(crate) struct Arguments {
    words: Vec<String>,
    passed_on: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        let mut words: Vec<String> = words.into_iter().collect();
        let split = words.iter().position(|word| word == "--");
        let passed_on = split.map(|at| words.split_off(at).split_off(1)).unwrap_or_default();
        Self { words, passed_on }
    }

    /// Was `name` given?
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// The value of `--name value` or `--name=value`, if given.
    pub(crate) fn value<T>(&mut self, name: &str) -> Result<Option<T>>
    where
        T: FromStr<Err: Display>,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(error) => bail!("{name} {text}: {error}"),
        }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        let joined = format!("{name}=");
        let Some(at) = self.words.iter().position(|word| word == name || word.starts_with(&joined)) else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        if let Some(value) = word.strip_prefix(&joined) {
            return Ok(Some(value.to_owned()));
        }
        let value = self.words.get(at).filter(|value| !value.starts_with("--"));
        value.with_context(|| format!("{name} wants a value"))?;
        Ok(Some(self.words.remove(at)))
    }

    /// The plain words that are left; an unknown flag is an error.
    pub(crate) fn names(self) -> Result<Vec<String>> {
        if let Some(flag) = self.words.iter().find(|word| word.starts_with('-')) {
            bail!("unknown flag {flag}");
        }
        if let Some(word) = self.passed_on.first() {
            bail!("nothing here takes `-- {word}`");
        }
        Ok(self.words)
    }

    /// What is left, for the program below: `(words, words after --)`.
    pub(crate) fn rest(self) -> (Vec<String>, Vec<String>) {
        (self.words, self.passed_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_values_are_found_in_any_order() {
        let mut given = arguments("fmt --rate 500 --advisories tidy --seconds=7");
        assert_eq!(given.value::<u64>("--rate").unwrap(), Some(500));
        assert_eq!(given.value::<u64>("--seconds").unwrap(), Some(7));
        assert_eq!(given.value::<u64>("--workers").unwrap(), None);
        assert!(given.flag("--advisories"));
        assert_eq!(given.names().unwrap(), ["fmt", "tidy"]);
    }

    #[test]
    fn a_misspelt_flag_is_an_error_and_not_ignored() {
        assert!(arguments("--advisory").names().is_err());
        assert!(arguments("-- --advisory").names().is_err());
    }

    #[test]
    fn a_value_that_is_missing_or_of_the_wrong_type_is_an_error() {
        assert!(arguments("--rate").value::<u64>("--rate").is_err());
        assert!(arguments("--rate --seconds").value::<u64>("--rate").is_err());
        let error = arguments("--rate many").value::<u64>("--rate").unwrap_err();
        assert!(error.to_string().starts_with("--rate many:"), "{error}");
    }

    #[test]
    fn words_after_two_dashes_are_passed_on_unread() {
        let mut given = arguments("--release name -- --release");
        assert!(given.flag("--release"));
        let (words, passed_on) = given.rest();
        assert_eq!((words, passed_on), (vec!["name".to_owned()], vec!["--release".to_owned()]));
    }
}

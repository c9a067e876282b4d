//! The only place that reads the process environment. Everything else is handed what it needs.

use std::collections::BTreeMap;

/// A snapshot of the variables that could be meant for us: `TIDEGATE_*`, `REDIS_*` and `BLOCKING_POOL_*`.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the environment of this process. Values that are not Unicode are kept with their odd bytes replaced, so
    /// that they are refused by name rather than overlooked.
    pub fn read() -> Self {
        let ours = |name: &str| ["TIDEGATE_", "REDIS_", "BLOCKING_POOL_"].iter().any(|prefix| name.starts_with(prefix));
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| ours(name))
            .collect()
    }

    /// The configuration file named by `TIDEGATE_CONFIG`.
    pub fn config_file(&self) -> Option<std::path::PathBuf> {
        self.get("TIDEGATE_CONFIG").filter(|path| !path.is_empty()).map(Into::into)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

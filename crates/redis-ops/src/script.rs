//! A Lua script and its name under which Redis keeps it.

use std::fmt::Write as _;
use std::sync::Arc;

use sha1::{Digest, Sha1};

/// A script: cheap to clone, its SHA computed once.
///
/// ```
/// let script = tidegate_redis_ops::Script::new("touch", "return redis.call('SET', KEYS[1], ARGV[1])");
/// assert_eq!(script.sha().len(), 40);
/// ```
#[derive(Clone)]
pub struct Script(Arc<Parts>);

struct Parts {
    name: &'static str,
    source: Arc<str>,
    sha: Box<str>,
}

impl Script {
    /// `name` is for logs and metrics; `source` is Lua.
    pub fn new(name: &'static str, source: impl Into<Arc<str>>) -> Self {
        let source = source.into();
        let sha = hex(&Sha1::digest(source.as_bytes()));
        Self(Arc::new(Parts { name, source, sha: sha.into() }))
    }

    /// What logs and metrics call it.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The Lua text.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Forty hexadecimal digits.
    pub fn sha(&self) -> &str {
        &self.0.sha
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("name", &self.0.name).field("sha", &self.0.sha).finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha_is_the_one_redis_computes() {
        // `SCRIPT LOAD "return 1"` answers this.
        assert_eq!(Script::new("one", "return 1").sha(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}

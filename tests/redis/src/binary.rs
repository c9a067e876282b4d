//! Which program is tested: `TIDEGATE_TEST_REDIS`, else `redis-server` or `valkey-server` on the `PATH`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// The server program.
///
/// # Panics
/// When there is none: a test that needs Redis is never skipped silently.
pub(crate) fn redis() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| found(outer("TIDEGATE_TEST_REDIS"), outer("PATH")).unwrap_or_else(|error| panic!("{error}")))
}

fn found(chosen: Option<OsString>, path: Option<OsString>) -> Result<PathBuf, String> {
    if let Some(chosen) = chosen.map(PathBuf::from) {
        // It is started in another folder.
        let chosen = std::path::absolute(&chosen).unwrap_or(chosen);
        let is_here = chosen.is_file();
        return is_here
            .then_some(chosen.clone())
            .ok_or_else(|| format!("TIDEGATE_TEST_REDIS names {}, but there is no such file", chosen.display()));
    }
    let path = path.unwrap_or_default();
    let candidates = || NAMES.iter().flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
    candidates().find(|candidate| candidate.is_file()).ok_or_else(|| {
        format!(
            "neither {} nor {} is on the PATH, and this test needs a real Redis: `cargo xtask test` installs it; \
             or set TIDEGATE_TEST_REDIS to the path of a server binary",
            NAMES[0], NAMES[1]
        )
    })
}

fn outer(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_redis_is_an_error_that_says_how_to_get_it() {
        let error = found(None, Some("/no-such-folder".into())).unwrap_err();
        assert!(error.contains("cargo xtask test") && error.contains("TIDEGATE_TEST_REDIS"), "{error}");
        let error = found(Some("/no-such-folder/redis".into()), outer("PATH")).unwrap_err();
        assert!(error.contains("/no-such-folder/redis"), "{error}");
    }

    #[test]
    fn valkey_on_the_path_serves_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let valkey = folder.path().join("valkey-server");
        std::fs::write(&valkey, "").unwrap();
        assert_eq!(found(None, Some(folder.path().into())).unwrap(), valkey);
        let redis = folder.path().join("redis-server");
        std::fs::write(&redis, "").unwrap();
        assert_eq!(found(None, Some(folder.path().into())).unwrap(), redis);
    }
}

//! A real Chromium without a window, from the system's packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::binary::clean;
use crate::process::Process;

/// Names under which it is installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// 2 s in all for the folder of a browser that ends.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A browser that shows one page. Its processes end when it is dropped.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    profile: TempDir,
}

impl Browser {
    /// Opens a page in a browser of its own.
    ///
    /// # Panics
    /// When there is no browser to be found, or it does not start.
    #[must_use]
    pub fn open(url: &str) -> Self {
        let browser = found(outer("TIDEGATE_TEST_CHROMIUM"), outer("PATH")).unwrap_or_else(|error| panic!("{error}"));
        let profile = TempDir::with_prefix("tidegate-browser-").expect("a temporary folder can be made");
        let mut command = clean(browser.as_os_str());
        // Without a sandbox, which needs rights that root in a container does not have: the only page is ours.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        // Nothing but the page is to be loaded, from nowhere but this machine.
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--no-proxy-server", "--disable-extensions", "--no-default-browser-check", "--log-level=3"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        command.env("TMPDIR", profile.path()).arg(url);
        Self { process: Process::start(command), profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.signal(Signal::KILL);
        // Its helpers see that it is gone and end by themselves; until then they write files.
        for _ in 0..TRIES {
            if std::fs::remove_dir_all(self.profile.path()).is_ok() {
                return;
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}

fn found(chosen: Option<OsString>, path: Option<OsString>) -> Result<PathBuf, String> {
    if let Some(chosen) = chosen {
        let chosen = PathBuf::from(chosen);
        let missing = || format!("TIDEGATE_TEST_CHROMIUM names {}, but there is no such file", chosen.display());
        return if chosen.is_file() { Ok(chosen) } else { Err(missing()) };
    }
    let path = path.unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut candidates = candidates.chain([Path::new("/Applications/Chromium.app/Contents/MacOS/Chromium").into()]);
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| {
        format!(
            "none of {} is on the PATH, and this test needs a real browser: `cargo xtask test` installs one; or set \
             TIDEGATE_TEST_CHROMIUM to the path of one",
            NAMES.join(", ")
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
    fn a_missing_browser_is_an_error_that_says_how_to_get_one() {
        let error = found(Some("/no-such-folder/chromium".into()), outer("PATH")).unwrap_err();
        assert!(error.contains("/no-such-folder/chromium"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let browser = folder.path().join("chromium-browser");
        std::fs::write(&browser, "").unwrap();
        assert_eq!(found(None, Some(folder.path().into())).unwrap(), browser);
    }
}

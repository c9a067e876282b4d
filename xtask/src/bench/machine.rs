//! What a figure depends on beside the code: the machine, the disk, the compiler, the commit.

use std::path::Path;

use serde_json::{Value, json};

use crate::shell;

/// Facts that make two runs comparable, or not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Machine {
    pub(super) cores: u64,
    pub(super) cpu: String,
    pub(super) kernel: String,
    /// File system of the target folder, where benches keep their data.
    pub(super) file_system: String,
    pub(super) rustc: String,
    /// Commit, with `+` where the tree differs from it.
    pub(super) commit: String,
}

impl Machine {
    pub(super) fn here(target: &Path) -> Self {
        let said = |program: &str, arguments: &[&str]| shell::line_of(program, arguments).unwrap_or_default();
        let dirty = !said("git", &["-c", "safe.directory=*", "status", "--porcelain"]).is_empty();
        let commit = said("git", &["-c", "safe.directory=*", "rev-parse", "--short", "HEAD"]);
        Self {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            cpu: cpu_model().unwrap_or_default(),
            kernel: said("uname", &["-sr"]),
            file_system: said("stat", &["--file-system", "--format=%T", &target.to_string_lossy()]),
            rustc: said("rustc", &["--version"]),
            commit: if dirty { format!("{commit}+") } else { commit },
        }
    }

    pub(super) fn summary(&self) -> String {
        let Self { cores, cpu, kernel, file_system, rustc, commit } = self;
        format!("{cores} cores, {cpu}, {kernel}, {file_system}, {rustc}, commit {commit}")
    }

    /// Can figures of the two be set side by side? The commit is what a comparison is about, so it may differ.
    pub(super) fn compares_to(&self, other: &Self) -> bool {
        Self { commit: String::new(), ..self.clone() } == Self { commit: String::new(), ..other.clone() }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "cores": self.cores,
            "cpu": self.cpu,
            "kernel": self.kernel,
            "fileSystem": self.file_system,
            "rustc": self.rustc,
            "commit": self.commit,
        })
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self {
            cores: value["cores"].as_u64().unwrap_or_default(),
            cpu: text("cpu"),
            kernel: text("kernel"),
            file_system: text("fileSystem"),
            rustc: text("rustc"),
            commit: text("commit"),
        }
    }
}

fn cpu_model() -> Option<String> {
    let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") else {
        return shell::line_of("sysctl", &["-n", "machdep.cpu.brand_string"]);
    };
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_back_the_same_and_only_the_commit_may_differ() {
        let here = Machine::here(shell::root());
        assert!(here.cores > 0 && here.rustc.starts_with("rustc"), "{here:?}");
        assert_eq!(Machine::from_json(&here.to_json()), here);
        assert!(here.compares_to(&Machine { commit: "other".into(), ..here.clone() }));
        assert!(!here.compares_to(&Machine { cpu: "other".into(), ..here.clone() }));
    }
}

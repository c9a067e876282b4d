//! What `cargo metadata` knows: packages, their dependencies and targets, the target folder.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// Packages as cargo sees them.
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) target: PathBuf,
}

/// One package: ours, or with [`Workspace::with_dependencies`] anybody's.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Path of its `Cargo.toml`.
    pub(crate) manifest: String,
    pub(crate) rust_version: Option<RustVersion>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// One line of a `[dependencies]` section.
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) is_dev: bool,
}

/// One thing cargo can build of a package.
pub(crate) struct Target {
    pub(crate) name: String,
    /// `lib`, `bin`, `bench`, …
    pub(crate) kind: String,
}

/// A release of Rust: `1.90` and `1.90.0` are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RustVersion(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Workspace {
    /// Our own packages only; needs no network and no lock file.
    pub(crate) fn members() -> Result<Self> {
        Self::asked(&["metadata", "--format-version=1", "--no-deps"])
    }

    /// Every package of the locked dependency tree.
    pub(crate) fn with_dependencies() -> Result<Self> {
        Self::asked(&["metadata", "--format-version=1", "--locked"])
    }

    fn asked(arguments: &[&str]) -> Result<Self> {
        let finished = shell::finish(shell::command("cargo", arguments))?;
        if !finished.success {
            bail!("cargo {}:\n{}", arguments.join(" "), finished.stderr);
        }
        finished.stdout.parse()
    }

    /// Members that live under `crates/`: the product.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.manifest.contains("/crates/"))
    }
}

impl Package {
    /// The name of its folder: `queue` for `tidegate-queue`, `tidegate` for the binary.
    pub(crate) fn folder(&self) -> &str {
        folder_of(&self.name)
    }
}

/// The folder of one of our packages by its name.
pub(crate) fn folder_of(package: &str) -> &str {
    package.strip_prefix("tidegate-").unwrap_or(package)
}

impl FromStr for Workspace {
    type Err = anyhow::Error;

    fn from_str(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json).context("cargo metadata is not JSON")?;
        let target = value["target_directory"].as_str().context("cargo metadata names no target_directory")?;
        let packages = list(&value["packages"]).map(package).collect::<Result<_>>()?;
        Ok(Self { packages, target: PathBuf::from(target) })
    }
}

fn package(value: &Value) -> Result<Package> {
    let rust_version = value["rust_version"].as_str().map(str::parse).transpose()?;
    Ok(Package {
        name: text(&value["name"]),
        version: text(&value["version"]),
        manifest: text(&value["manifest_path"]).replace('\\', "/"),
        rust_version,
        dependencies: list(&value["dependencies"]).map(dependency).collect(),
        targets: list(&value["targets"]).map(target).collect(),
    })
}

fn dependency(value: &Value) -> Dependency {
    Dependency { name: text(&value["name"]), is_dev: value["kind"] == "dev" }
}

fn target(value: &Value) -> Target {
    Target { name: text(&value["name"]), kind: text(&value["kind"][0]) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl FromStr for RustVersion {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let mut next = |default| numbers.next().unwrap_or(default);
        match (next(Ok(0)), next(Ok(0)), next(Ok(0))) {
            (Ok(major), Ok(minor), Ok(patch)) => Ok(Self(major, minor, patch)),
            _ => bail!("{text} is not a Rust version"),
        }
    }
}

/// A workspace for tests: each package with `name>dependency` (normal) and `name~dependency` (dev) edges.
#[cfg(test)]
pub(crate) fn sample(packages: &[&str], edges: &[(&str, char, &str)]) -> Workspace {
    let packages = packages.iter().map(|&name| {
        let own = edges.iter().filter(|(from, ..)| *from == name);
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            manifest: format!("/checkout/crates/{}/Cargo.toml", folder_of(name)),
            rust_version: None,
            dependencies: own
                .map(|(_, kind, to)| Dependency { name: (*to).to_owned(), is_dev: *kind == '~' })
                .collect(),
            targets: Vec::new(),
        }
    });
    Workspace { packages: packages.collect(), target: PathBuf::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_of_cargo_is_understood() {
        let workspace: Workspace = r#"{"target_directory":"/t","packages":[{
            "name":"tidegate-queue","version":"0.1.0","manifest_path":"/c/crates/queue/Cargo.toml","rust_version":"1.90",
            "dependencies":[{"name":"bytes","kind":null},{"name":"proptest","kind":"dev"}],
            "targets":[{"name":"claim","kind":["bench"]}]}]}"#
            .parse()
            .unwrap();
        let package = &workspace.packages[0];
        assert_eq!(package.folder(), "queue");
        assert_eq!(package.rust_version, Some(RustVersion(1, 90, 0)));
        assert_eq!(package.dependencies.iter().map(|each| each.is_dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!(package.targets[0].kind, "bench");
        assert_eq!(workspace.crates().count(), 1);
    }

    #[test]
    fn rust_versions_compare_by_number() {
        let version = |text: &str| text.parse::<RustVersion>().unwrap();
        assert!(version("1.9") < version("1.90"));
        assert_eq!(version("1.90"), version("1.90.0"));
        assert!("nightly".parse::<RustVersion>().is_err());
    }
}

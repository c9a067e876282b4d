//! One home per heavy dependency: it is named in one crate, so replacing it touches one crate.

use crate::workspace::Workspace;

/// A dependency and the packages that may name it.
pub(super) struct Home {
    dependency: &'static str,
    packages: &'static [&'static str],
    /// May tests, benches and examples of other packages name it as well?
    dev_anywhere: bool,
    why: &'static str,
}

pub(super) const HOMES: &[Home] = &[
    home("fjall", &["tidegate-store"], "the embedded disk is reached through store"),
    home("fred", &["tidegate-redis-ops"], "Redis is reached through redis-ops"),
    home("moka", &["tidegate-cache"], "entries live in cache"),
    home("quick_cache", &["tidegate-cache"], "entries live in cache"),
    home("axum", &["tidegate-server"], "HTTP is served by server"),
    home("faer", &["tidegate-compute"], "numeric work is done by compute"),
    home("hdrhistogram", &["tidegate-metrics", "tidegate-tests"], "latencies are recorded through metrics"),
    home("rayon", &["tidegate-compute", "tidegate-scheduler"], "the CPU pool belongs to scheduler"),
    home("rusqlite", &[], "a baseline, never a part of the product"),
    home("prometheus-client", &[], "a baseline, never a part of the product"),
    Home {
        dependency: "anyhow",
        packages: &["tidegate", "tidegate-tests", "xtask"],
        dev_anywhere: true,
        why: "libraries have their own Error; anyhow is for the edges",
    },
];

/// Benches measure against the bare dependency, so they may name any.
const BENCHES: &str = "tidegate-benches";

const fn home(dependency: &'static str, packages: &'static [&'static str], why: &'static str) -> Home {
    Home { dependency, packages, dev_anywhere: false, why }
}

/// Each heavy dependency named outside its home.
pub(super) fn strays(workspace: &Workspace) -> Vec<String> {
    let mut findings = Vec::new();
    for package in workspace.packages.iter().filter(|package| package.name != BENCHES) {
        for dependency in &package.dependencies {
            let Some(home) = HOMES.iter().find(|home| home.dependency == dependency.name) else { continue };
            let may_name = home.packages.contains(&package.name.as_str()) || (home.dev_anywhere && dependency.is_dev);
            if !may_name {
                findings.push(format!("{} names {}: {}", package.name, home.dependency, home.why));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::sample;

    #[test]
    fn a_heavy_dependency_outside_its_home_is_told_even_in_tests() {
        let names = ["tidegate-queue", "tidegate-store", "tidegate-benches"];
        let edges = [
            ("tidegate-store", '>', "fjall"),
            ("tidegate-benches", '>', "fjall"),
            ("tidegate-queue", '~', "fjall"),
            ("tidegate-queue", '>', "anyhow"),
            ("tidegate-store", '~', "anyhow"),
        ];
        assert_eq!(
            strays(&sample(&names, &edges)),
            [
                "tidegate-queue names fjall: the embedded disk is reached through store",
                "tidegate-queue names anyhow: libraries have their own Error; anyhow is for the edges",
            ]
        );
    }
}

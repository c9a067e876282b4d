//! Programs from outside the Rust world that a command needs: looked for, installed where that is possible, said
//! either way. Nothing is skipped because a program is missing.

use anyhow::{Result, bail};

use crate::shell;

/// A program, why it is needed and what its package is called.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    why: &'static str,
    packages: Packages,
}

struct Packages {
    apt: &'static str,
    dnf: &'static str,
    apk: &'static str,
    brew: &'static str,
}

/// Runs the example worker written in Python.
pub(crate) const PYTHON: Program = Program {
    name: "python3",
    why: "the Python example worker is tested with it",
    packages: Packages { apt: "python3", dnf: "python3", apk: "python3", brew: "python" },
};

/// Runs the example worker written in JavaScript.
pub(crate) const NODE: Program = Program {
    name: "node",
    why: "the JavaScript example worker is tested with it",
    packages: Packages { apt: "nodejs", dnf: "nodejs", apk: "nodejs", brew: "node" },
};

/// One way to install a package.
struct Installer {
    name: &'static str,
    commands: &'static [&'static str],
    /// Homebrew refuses to run as root; the others need it.
    wants_root: bool,
    package: fn(&Packages) -> &'static str,
}

const INSTALLERS: &[Installer] = &[
    Installer {
        name: "apt-get",
        commands: &["apt-get update --quiet", "apt-get install --yes --no-install-recommends"],
        wants_root: true,
        package: |packages| packages.apt,
    },
    Installer {
        name: "dnf",
        commands: &["dnf install --assumeyes"],
        wants_root: true,
        package: |packages| packages.dnf,
    },
    Installer { name: "apk", commands: &["apk add"], wants_root: true, package: |packages| packages.apk },
    Installer { name: "brew", commands: &["brew install"], wants_root: false, package: |packages| packages.brew },
];

/// Makes sure that every program runs here; installs what is missing after saying so.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
    programs.iter().filter(|program| !runs(program.name)).try_for_each(install)
}

fn runs(program: &str) -> bool {
    shell::line_of(program, &["--version"]).is_some()
}

fn install(program: &Program) -> Result<()> {
    let Some(installer) = INSTALLERS.iter().find(|installer| runs(installer.name)) else {
        bail!("{} is missing ({}); please install it and run this again", program.name, program.why);
    };
    let package = (installer.package)(&program.packages);
    let Some(prefix) = prefix(installer) else {
        bail!(
            "{} is missing ({}); please run `sudo {} {package}` and then this again",
            program.name,
            program.why,
            installer.commands.last().copied().unwrap_or_default(),
        );
    };
    println!("{} is missing ({}): installing {package} with {}", program.name, program.why, installer.name);
    for line in lines(installer, prefix, package) {
        println!("  {line}");
        let mut command = shell::command("sh", &["-c", &line]);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        if !shell::show(command)? {
            bail!("`{line}` failed; please install {} by hand and run this again", program.name);
        }
    }
    if !runs(program.name) {
        bail!("{package} is installed, but {} still does not run", program.name);
    }
    Ok(())
}

/// What to put before the installer's commands here; `None` where it may not be run without asking somebody.
fn prefix(installer: &Installer) -> Option<&'static str> {
    let is_root = shell::line_of("id", &["-u"]).as_deref() == Some("0");
    match (installer.wants_root, is_root) {
        (true, true) | (false, false) => Some(""),
        (true, false) => shell::line_of("sudo", &["-n", "true"]).map(|_| "sudo -n "),
        (false, true) => None,
    }
}

/// The shell lines that install `package`: the last of the commands takes its name.
fn lines(installer: &Installer, prefix: &str, package: &str) -> Vec<String> {
    let last = installer.commands.len() - 1;
    let line = |(at, command): (usize, &&str)| {
        if at == last { format!("{prefix}{command} {package}") } else { format!("{prefix}{command}") }
    };
    installer.commands.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_refreshes_its_lists_before_it_installs() {
        let shown = lines(&INSTALLERS[0], "sudo -n ", "nodejs");
        assert_eq!(
            shown,
            ["sudo -n apt-get update --quiet", "sudo -n apt-get install --yes --no-install-recommends nodejs"]
        );
    }

    #[test]
    fn a_program_that_is_here_needs_nothing() {
        let shell = Program { name: "bash", why: "-", packages: PYTHON.packages };
        assert!(ensure(&[shell]).is_ok());
        assert!(!runs("no-such-program"));
    }
}

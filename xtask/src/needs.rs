//! Programs from outside the Rust world that a command needs: looked for, installed where that is possible, said
//! either way. Nothing is skipped because a program is missing.

use anyhow::{Result, bail};

use crate::shell;

/// A program, why it is needed and what its package is called.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Names of programs that serve as well.
    others: &'static [&'static str],
    /// The environment variable that names a program to use instead.
    pub(crate) variable: Option<&'static str>,
    why: &'static str,
    packages: Packages,
}

struct Packages {
    apt: &'static str,
    dnf: &'static str,
    apk: &'static str,
    brew: &'static str,
}

/// A shell line to be run after apt has installed a package, and why.
struct Aftermath {
    package: &'static str,
    why: &'static str,
    line: &'static str,
}

/// Where systemd does not run, as in most containers, nothing was started.
const AFTER_APT: &[Aftermath] = &[Aftermath {
    package: "redis-server",
    why: "Debian's package starts a service on port 6379, which no test wants (they start their own on free ports)",
    line: "if [ -d /run/systemd/system ]; then systemctl disable --now redis-server; fi",
}];

/// Runs the example worker written in Python.
pub(crate) const PYTHON: Program = Program {
    name: "python3",
    others: &[],
    variable: None,
    why: "the Python example worker is tested with it",
    packages: Packages { apt: "python3", dnf: "python3", apk: "python3", brew: "python" },
};

/// Runs the example worker written in JavaScript.
pub(crate) const NODE: Program = Program {
    name: "node",
    others: &[],
    variable: None,
    why: "the JavaScript example worker is tested with it",
    packages: Packages { apt: "nodejs", dnf: "nodejs", apk: "nodejs", brew: "node" },
};

/// The Redis of all tests that need one; each starts its own, on free ports.
pub(crate) const REDIS: Program = Program {
    name: "redis-server",
    others: &["valkey-server"],
    variable: Some("TIDEGATE_TEST_REDIS"),
    why: "what runs on Redis is tested against a real one",
    packages: Packages { apt: "redis-server", dnf: "redis", apk: "redis", brew: "redis" },
};

/// Shows the pages that tests look at with the eyes of a browser.
pub(crate) const CHROMIUM: Program = Program {
    name: "chromium",
    others: &["chromium-browser", "google-chrome", "google-chrome-stable"],
    variable: Some("TIDEGATE_TEST_CHROMIUM"),
    why: "what browsers receive is tested in a real one, without a window",
    packages: Packages { apt: "chromium", dnf: "chromium", apk: "chromium", brew: "--cask chromium" },
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
    for program in programs {
        if let (Some(variable), Some(chosen)) = (program.variable, chosen(program)) {
            if !runs(&chosen) {
                bail!("{variable} names {chosen}, which does not run; correct or unset it and run this again");
            }
        } else if !program.names().any(runs) {
            install(program)?;
        }
    }
    Ok(())
}

/// Path of the program, whatever its name is here.
pub(crate) fn path_of(program: &Program) -> Option<String> {
    chosen(program).or_else(|| {
        let running = program.names().find(|name| runs(name))?;
        shell::line_of("sh", &["-c", &format!("command -v {running}")])
    })
}

/// What the user chose, as an absolute path, since we and the tests work in other folders.
fn chosen(program: &Program) -> Option<String> {
    let path = std::env::var_os(program.variable?)?;
    Some(std::path::absolute(path).ok()?.to_string_lossy().into_owned())
}

impl Program {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.others.iter().copied())
    }
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
        if !shows(&line)? {
            bail!("`{line}` failed; please install {} by hand and run this again", program.name);
        }
    }
    for after in AFTER_APT.iter().filter(|after| installer.name == "apt-get" && after.package == package) {
        println!("{}:\n  {}", after.why, after.line);
        if !shows(&format!("{prefix}sh -c '{}'", after.line))? {
            bail!("`{}` failed; please run it by hand as root and then this again", after.line);
        }
    }
    if !program.names().any(runs) {
        bail!("{package} is installed, but {} still does not run", program.name);
    }
    Ok(())
}

fn shows(line: &str) -> Result<bool> {
    let mut command = shell::command("sh", &["-c", line]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    shell::show(command)
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
        let shell = Program { name: "bash", ..PYTHON };
        assert!(ensure(&[shell]).is_ok());
        assert!(!runs("no-such-program"));
    }

    #[test]
    fn a_program_under_another_name_serves_as_well() {
        let shell = Program { name: "no-such-program", others: &["bash"], ..PYTHON };
        assert!(path_of(&shell).is_some_and(|path| path.ends_with("/bash")));
        assert!(ensure(&[shell]).is_ok());
    }

    #[test]
    fn a_chosen_program_that_does_not_run_is_told_and_not_replaced() {
        // Always set by cargo, and no program.
        let chosen = Program { variable: Some("CARGO_MANIFEST_DIR"), ..PYTHON };
        let error = ensure(&[chosen]).unwrap_err().to_string();
        assert!(error.starts_with("CARGO_MANIFEST_DIR names /"), "{error}");
    }
}

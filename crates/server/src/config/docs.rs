//! What the table says, as a reference for people and as a file to start from.

use std::fmt::Write as _;

use super::{Resolved, SETTINGS, Value as _};

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Made by `tidegate config docs`; a test keeps it current. -->\n\n\
         A flag wins over the environment, the environment over the file (`--config FILE` or `TIDEGATE_CONFIG`), the file over the default.\n\
         `tidegate config check` says everything that is wrong with a configuration, `tidegate config print --origin` what applies and why.\n\
         The file is TOML, with the keys below at its top level. A key the file does not know stops the start.\n\n\
         A queue gets limits of its own in a table with its name, the keys being those below without `queue_`:\n\n\
         ```toml\n[queues.mail]\nkey_limit = 2\njobs_max = 50000\n```\n\n\
         So do streams, in a table with a name or a pattern (`*` for one segment between dots, `**` for any number), the keys being \
         `length_max` and `age_max`; of several that match a stream, the longest pattern (in characters) counts:\n\n\
         ```toml\n[streams.\"audit.**\"]\nlength_max = 0\nage_max = \"365d\"\n```\n\n\
         Exit codes: 0 drained and stopped, 2 wrong usage, 69 something needed at the start is not available (data folder, Redis, address), 78 wrong configuration.\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        if setting.section != section {
            section = setting.section;
            let _ = write!(
                page,
                "\n## {section}\n\n| key | flag | environment | default | accepted | meaning |\n|---|---|---|---|---|---|\n"
            );
        }
        let default = if setting.default.is_empty() { "—".to_owned() } else { format!("`{}`", setting.default) };
        let accepts = (setting.accepts)(setting.bounds);
        let alias = setting.env_alias().map(|alias| format!(" or `{alias}`")).unwrap_or_default();
        let _ = writeln!(
            page,
            "| `{}` | `--{}` | `{}`{alias} | {default} | {accepts} | {} |",
            setting.key,
            setting.flag(),
            setting.env,
            setting.help
        );
    }
    page
}

/// The configuration in force as a file, secrets redacted; with `origins`, each line says where its value came from.
pub fn toml(resolved: &Resolved, origins: bool) -> String {
    let mut file = String::new();
    for setting in SETTINGS {
        let shown = resolved.config.shown(setting.key);
        let value = if shown == "true"
            || shown == "false"
            || (!shown.is_empty() && shown.bytes().all(|byte| byte.is_ascii_digit()))
        {
            shown
        } else {
            ::toml::Value::String(shown).to_string()
        };
        let _ = write!(file, "{} = {value}", setting.key);
        if let Some(origin) = resolved.origins.get(setting.key).filter(|_| origins) {
            let _ = write!(file, "  # {origin}");
        }
        file.push('\n');
    }
    for (name, limits) in &resolved.config.queues {
        let _ = write!(
            file,
            "\n[queues.{:?}]\njobs_max = {}\nbytes_max = {:?}\noverflow = {:?}\nfinished_max = {}\nkey_limit = {}\nrunning_limit = {}\n",
            name.as_str(),
            limits.jobs_max,
            limits.bytes_max.show(),
            limits.overflow.show(),
            limits.finished_max,
            limits.key_limit,
            limits.running_limit,
        );
    }
    for (pattern, limits) in &resolved.config.streams {
        let (length, age) = (limits.length_max, limits.age_max.show());
        let _ = write!(file, "\n[streams.{:?}]\nlength_max = {length}\nage_max = {age:?}\n", pattern.as_str());
    }
    file
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(page, super::markdown(), "run `cargo run -- config docs > docs/configuration.md`");
    }
}

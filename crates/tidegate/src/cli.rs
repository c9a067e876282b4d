//! The command line. Flags of settings come from the table in `tidegate_server::config`, so none can be forgotten.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tidegate_server::auth::Scope;
use tidegate_server::config::{Flags, SETTINGS, Setting};

/// What the user asked for.
pub(crate) struct Arguments {
    pub(crate) action: Action,
    pub(crate) flags: Flags,
    pub(crate) file: Option<PathBuf>,
}

pub(crate) enum Action {
    Serve,
    ConfigCheck,
    ConfigPrint { origins: bool },
    ConfigDocs,
    TokenCreate { scope: Scope, note: String },
    RedisAcl { user: String, prefix: Option<String> },
    OpenApi,
}

/// Parses the arguments of this process. Wrong usage ends it with code 2, `--help` and `--version` with 0.
pub(crate) fn arguments() -> Arguments {
    parsed(&command().get_matches())
}

fn command() -> Command {
    let config = Command::new("config")
        .about("Checks and shows the configuration")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("check").about("Says everything that is wrong with the configuration; exit 78 if anything is"),
        )
        .subcommand(
            Command::new("print").about("Prints the configuration in force, secrets redacted").arg(
                Arg::new("origin").long("origin").action(ArgAction::SetTrue).help("Say where each value came from"),
            ),
        )
        .subcommand(Command::new("docs").about("Prints docs/configuration.md").hide(true));
    let create = Command::new("create")
        .about("Makes a token: prints it once, and its line for the token file (or adds that line to --token-file)")
        .arg(
            Arg::new("scope")
                .long("scope")
                .value_parser(["read", "submit", "admin"])
                .action(ArgAction::Append)
                .help("What it allows; admin includes submit, submit includes read [default: submit]"),
        )
        .arg(Arg::new("note").long("note").default_value("").help("A remark for the token file, such as who it is for"))
        .args(flags_showing(&["token_file"]));
    let token = Command::new("token")
        .about("Makes tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(create);
    let acl = Command::new("acl")
        .about("Prints the ACL line for a Redis user that may do what the server needs, and nothing else")
        .arg(
            Arg::new("user")
                .long("user")
                .value_name("NAME")
                .required(true)
                .value_parser(acl_user)
                .help("The user's name"),
        )
        .arg(
            Arg::new("prefix")
                .long("prefix")
                .value_name("PREFIX")
                .help("What the names of its keys begin with [default: that of the configuration, redis_prefix]"),
        )
        .args(flags_showing(&["redis_prefix", "redis_stream_prefix"]));
    let redis = Command::new("redis")
        .about("Helps to set up Redis")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(acl);
    Command::new("tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "Durable background jobs, queues, event streams, a cache and metrics in one binary.\n\nWithout a command it serves.",
        )
        .after_help(
            "Every flag also has an environment name and a key in the configuration file: see docs/configuration.md.",
        )
        .subcommand(
            Command::new("serve")
                .about("Serves until SIGTERM or SIGINT, then drains; a second signal stops at once [default]"),
        )
        .subcommand(config)
        .subcommand(token)
        .subcommand(redis)
        .subcommand(Command::new("openapi").about("Prints the OpenAPI document").hide(true))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .global(true)
                .help("Configuration file [env: TIDEGATE_CONFIG]"),
        )
        .args(SETTINGS.iter().map(flag))
}

/// The flag of a setting, for every command.
fn flag(setting: &Setting) -> Arg {
    let arg = Arg::new(setting.key).long(setting.flag()).global(true).help_heading(setting.section);
    let arg = arg.aliases(setting.old_key().map(|key| key.replace('_', "-")));
    let default = if setting.default.is_empty() || setting.is_switch {
        String::new()
    } else {
        format!(" [default: {}]", setting.default)
    };
    let help = without_links(setting.help);
    let arg = arg.help(format!("{help}{default} [env: {}]", setting.env)).value_name(setting.key.to_uppercase());
    if setting.is_switch { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

/// All flags, of which the help shows those that matter to a command.
fn flags_showing(keys: &'static [&'static str]) -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(|setting| flag(setting).hide(!keys.contains(&setting.key)))
}

/// `[several servers](servers.md)` as `docs/servers.md`: a terminal shows no links.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((page, after)) = link.split_once("](").and_then(|(_, target)| target.split_once(')')) else { break };
        plain.push_str(&format!("{before}docs/{page}"));
        rest = after;
    }
    plain + rest
}

fn parsed(matches: &ArgMatches) -> Arguments {
    let mut deepest = matches;
    let mut path = Vec::new();
    while let Some((name, inner)) = deepest.subcommand() {
        path.push(name);
        deepest = inner;
    }
    let action = match path.as_slice() {
        ["config", "check"] => Action::ConfigCheck,
        ["config", "print"] => Action::ConfigPrint { origins: deepest.get_flag("origin") },
        ["config", "docs"] => Action::ConfigDocs,
        ["token", "create"] => token_create(deepest),
        ["redis", "acl"] => Action::RedisAcl {
            user: deepest.get_one::<String>("user").cloned().unwrap_or_default(),
            prefix: deepest.get_one::<String>("prefix").cloned(),
        },
        ["openapi"] => Action::OpenApi,
        _ => Action::Serve,
    };
    let given = |key: &str| deepest.get_one::<String>(key).cloned();
    let flags = SETTINGS.iter().filter_map(|setting| Some((setting.key, given(setting.key)?))).collect();
    Arguments { action, flags, file: given("config").map(PathBuf::from) }
}

/// Redis takes a line apart at white space, and its rules begin with signs.
fn acl_user(name: &str) -> Result<String, &'static str> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    match (1..=128).contains(&name.len()) && name.bytes().all(is_legal) {
        true => Ok(name.to_owned()),
        false => Err("1 to 128 characters of A-Z a-z 0-9 - _ . @"),
    }
}

fn token_create(matches: &ArgMatches) -> Action {
    let scopes = matches.get_many::<String>("scope").into_iter().flatten();
    let scope = scopes.filter_map(|name| Scope::parse(name)).max().unwrap_or(Scope::Submit);
    let note = matches.get_one::<String>("note").cloned().unwrap_or_default();
    Action::TokenCreate { scope, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        parsed(&command().try_get_matches_from(line.split(' ')).unwrap())
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn serve_is_what_happens_without_a_command() {
        assert!(matches!(parse("tidegate").action, Action::Serve));
        let arguments = parse("tidegate --listen 127.0.0.1:0 --insecure-public");
        assert!(matches!(arguments.action, Action::Serve));
        assert_eq!(arguments.flags["listen"], "127.0.0.1:0");
        assert_eq!(arguments.flags["insecure_public"], "true");
    }

    #[test]
    fn flags_count_before_and_after_a_command() {
        for line in ["tidegate --data x serve", "tidegate serve --data x", "tidegate config print --data x --origin"] {
            assert_eq!(parse(line).flags["data"], "x", "{line}");
        }
    }

    #[test]
    fn the_acl_line_is_for_the_user_and_prefix_given() {
        let Action::RedisAcl { user, prefix } = parse("tidegate redis acl --user shop --prefix a:b").action else {
            panic!("another action")
        };
        assert_eq!((user.as_str(), prefix.as_deref()), ("shop", Some("a:b")));
        assert!(command().try_get_matches_from(["tidegate", "redis", "acl"]).is_err());
        assert!(command().try_get_matches_from(["tidegate", "redis", "acl", "--user", "a +@all"]).is_err());
    }

    #[test]
    fn help_is_plain_text_and_that_of_a_tool_says_only_what_matters_to_it() {
        let help = command().render_long_help().to_string();
        assert!(help.contains("see docs/servers.md.") && !help.contains("]("), "{help}");
        let mut command = command();
        command.build();
        let acl = command.find_subcommand_mut("redis").unwrap().find_subcommand_mut("acl").unwrap();
        let help = acl.render_long_help().to_string();
        assert!(help.contains("--redis-stream-prefix") && !help.contains("--sse-max"), "{help}");
        for line in [
            "tidegate --redis-stream-prefix ev: redis acl --user a",
            "tidegate redis acl --user a --redis-stream-prefix ev:",
        ] {
            assert_eq!(parse(line).flags["redis_stream_prefix"], "ev:", "{line}");
        }
    }

    #[test]
    fn a_renamed_flag_is_known_by_its_old_name() {
        assert_eq!(parse("tidegate --followers-max 5").flags["sse_max"], "5");
    }

    #[test]
    fn a_switch_can_be_turned_off() {
        assert_eq!(parse("tidegate --repair=false").flags["repair"], "false");
    }
}

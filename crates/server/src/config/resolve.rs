//! From flags, environment and file to a [`Config`], or to everything that is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::value::{Value, redact_url};
use tidegate_events::Pattern;
use tidegate_queue::QueueName;

use super::{Config, PER_QUEUE, PER_STREAM, QueueLimits, SETTINGS, Setting, StreamLimits};
use crate::env::Environment;

/// Flags as given, by the setting's key.
pub type Flags = BTreeMap<&'static str, String>;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(String),
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// One thing that is wrong, as a sentence that names it, its value and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// A configuration and where each value came from.
#[derive(Debug)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// The origin of each, by key.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What looks like a mistake but stops nothing.
    pub warnings: Vec<String>,
}

/// Reads values for [`Config::build`], collecting what is wrong.
pub(super) struct Reader<'a> {
    texts: &'a BTreeMap<&'static str, (String, Origin)>,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    pub(super) fn value<V: Value>(&mut self, key: &str) -> Option<V> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
        let (text, origin) = self.texts.get(setting.key)?;
        V::parse(text, setting.bounds).or_else(|| {
            let (shown, refusal) = (shown(setting, text), (setting.refusal)(text, setting.bounds));
            self.errors.push(ConfigError(format!("{origin}: `{shown}` is not accepted for {key}; {refusal}")));
            // The default stands in, so that what is wrong with the other settings is found as well.
            V::parse(setting.default, setting.bounds)
        })
    }
}

/// Resolves the configuration; `file` is the path given by `--config` or `TIDEGATE_CONFIG`.
///
/// # Errors
/// Everything that is wrong, all at once. Secrets in values are redacted.
pub fn resolve(flags: &Flags, environment: &Environment, file: Option<&Path>) -> Result<Resolved, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let FileValues { top: file_values, queues, streams } =
        file.map(|path| read_file(path, &mut errors)).unwrap_or_default();
    let path = file.map(|path| path.display().to_string()).unwrap_or_default();

    let mut texts = BTreeMap::new();
    for setting in SETTINGS {
        let given = if let Some(text) = flags.get(setting.key) {
            (text.clone(), Origin::Flag(setting.flag()))
        } else if let Some((name, text)) = variable(environment, setting) {
            (text.to_owned(), Origin::Environment(name))
        } else if let Some(text) = file_values.get(setting.key) {
            (text.clone(), Origin::File(path.clone()))
        } else {
            (setting.default.to_owned(), Origin::Default)
        };
        texts.insert(setting.key, given);
    }

    let mut reader = Reader { texts: &texts, errors };
    let config = Config::build(&mut reader);
    let mut errors = reader.errors;
    let queues = own_limits(queues, "queues", PER_QUEUE, &texts, &path, &mut errors, QueueLimits::build);
    let mut streams = own_limits(streams, "streams", PER_STREAM, &texts, &path, &mut errors, StreamLimits::build);
    // The longest pattern says most about a stream.
    streams.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.as_str().len()));
    let origins: BTreeMap<_, _> = texts.iter().map(|(key, (_, origin))| (*key, origin.clone())).collect();
    let Some(config) = config else { return Err(errors) };
    let config = Config { queues: queues.into_iter().collect(), streams, ..config };
    check_together(&config, &origins, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut warnings = unknown_variables(environment);
    warnings.extend(without_effect(&config, &origins));
    Ok(Resolved { config, origins, warnings })
}

/// What the environment says about a setting, and under which of its names.
fn variable<'a>(environment: &'a Environment, setting: &Setting) -> Option<(&'static str, &'a str)> {
    let names = std::iter::once(setting.env).chain(setting.env_alias());
    names.into_iter().find_map(|name| Some((name, environment.get(name)?)))
}

/// Settings somebody made that change nothing where the jobs are kept.
fn without_effect(config: &Config, origins: &BTreeMap<&'static str, Origin>) -> Vec<String> {
    const EMBEDDED: [&str; 5] = ["data", "durability", "disk_reserve", "repair", "streams_bytes_max"];
    const REDIS: [&str; 6] = [
        "events_batch_wait",
        "events_direct_streams_max",
        "cache_staleness_max",
        "cache_redis_timeout",
        "cache_compress_from",
        "cache_hottest_saved",
    ];
    let is_redis = config.redis.get().is_some();
    let has_any_redis = is_redis || config.cache_redis.get().is_some();
    let reason = |key: &str| match key {
        key if EMBEDDED.contains(&key) && is_redis => {
            Some("jobs and events are kept in Redis, not in the embedded store")
        }
        key if !key.starts_with("redis_") && !REDIS.contains(&key) => None,
        key if key.starts_with("cache_") && has_any_redis => None,
        "redis_prefix" if has_any_redis => None,
        _ if !is_redis => Some("no Redis is configured, jobs and events are kept in the embedded store"),
        "redis_pool_idle_timeout" => Some("the connections to Redis are shared by all calls and stay open"),
        _ => None,
    };
    let made = origins.iter().filter(|(_, origin)| **origin != Origin::Default);
    made.filter_map(|(key, origin)| Some(format!("{origin}: {key} has no effect: {}", reason(key)?))).collect()
}

/// The limits of the queues or streams the file names: what it says, over what holds for all.
fn own_limits<N: fmt::Display, L>(
    named: Vec<(N, Texts)>,
    table: &str,
    prefix: &str,
    texts: &BTreeMap<&'static str, (String, Origin)>,
    path: &str,
    errors: &mut Vec<ConfigError>,
    build: impl Fn(&mut Reader<'_>) -> Option<L>,
) -> Vec<(N, L)> {
    let mut limits = Vec::new();
    for (name, own) in named {
        let mut texts = texts.clone();
        let origin = Origin::File(format!("{path}, [{table}.{name}]"));
        texts.extend(own.into_iter().map(|(key, text)| (key, (text, origin.clone()))));
        // What is wrong for all has been said already.
        texts.retain(|key, (_, from)| key.starts_with(prefix) && (*from == origin || errors.is_empty()));
        let mut reader = Reader { texts: &texts, errors: Vec::new() };
        let built = build(&mut reader);
        errors.append(&mut reader.errors);
        limits.extend(built.map(|built| (name, built)));
    }
    limits
}

/// Rules that concern more than one setting.
fn check_together(config: &Config, origins: &BTreeMap<&'static str, Origin>, errors: &mut Vec<ConfigError>) {
    let origin = |key| origins.get(key).unwrap_or(&Origin::Default);
    let mut at_least = |key, value: String, low_key, low: String, is_less: bool| {
        if is_less {
            let (from, low_from) = (origin(key), origin(low_key));
            errors.push(ConfigError(format!(
                "{from}: `{value}` for {key} is less than {low_key} ({low}, {low_from}); accepted: at least that"
            )));
        }
    };
    macro_rules! at_least {
        ($key:ident, $low:ident) => {
            at_least(
                stringify!($key),
                config.$key.show(),
                stringify!($low),
                config.$low.show(),
                config.$key < config.$low,
            )
        };
    }
    at_least!(redis_pool_max, redis_pool_min);
    at_least!(redis_blocking_pool_max, redis_blocking_pool_min);
    at_least!(redis_registry_cache_expiry, redis_registry_refresh_interval);
    at_least!(cache_ttl_max, cache_ttl);
    let listen = config.listen_address();
    if !listen.ip().is_loopback() && config.token_file.is_none() && !config.insecure_public {
        errors.push(ConfigError(format!(
            "{}: `{listen}` can be reached from other machines, and no token file is set; create one with `tidegate token create` and pass --token-file FILE, listen on 127.0.0.1, or accept the risk with --insecure-public",
            origin("listen"),
        )));
    }
    if config.waiting_claims_max >= config.requests_max {
        errors.push(ConfigError(format!(
            "{}: `{}` for waiting_claims_max leaves no room for other requests ({} for requests_max, {}); accepted: less than that",
            origin("waiting_claims_max"),
            config.waiting_claims_max,
            config.requests_max,
            origin("requests_max"),
        )));
    }
    if config.body_bytes_max.0 > config.bodies_bytes_max.0 {
        errors.push(ConfigError(format!(
            "{}: `{}` for body_bytes_max is larger than bodies_bytes_max ({}, {}); accepted: at most that",
            origin("body_bytes_max"),
            config.body_bytes_max.show(),
            config.bodies_bytes_max.show(),
            origin("bodies_bytes_max"),
        )));
    }
}

type Texts = BTreeMap<&'static str, String>;

/// What a file says: settings by key, and by queue.
#[derive(Default)]
struct FileValues {
    top: Texts,
    queues: Vec<(QueueName, Texts)>,
    streams: Vec<(Pattern, Texts)>,
}

/// Values of the file by key; what is wrong with the file goes to `errors`.
fn read_file(path: &Path, errors: &mut Vec<ConfigError>) -> FileValues {
    let shown_path = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            errors.push(ConfigError(format!("file {shown_path}: failed to read it: {error}")));
            return FileValues::default();
        }
    };
    let mut table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            // Only the message: the library's rendering quotes the line, which may hold a secret.
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            errors.push(ConfigError(format!("file {shown_path}, line {line}: not valid TOML: {}", error.message())));
            return FileValues::default();
        }
    };
    let place = format!("file {shown_path}");
    let queues = read_named(&mut table, "queues", PER_QUEUE, "mail", &place, errors, |name| {
        QueueName::new(name).map_err(|error| error.to_string())
    });
    let streams = read_named(&mut table, "streams", PER_STREAM, "orders", &place, errors, |name| {
        Pattern::new(name).map_err(|error| error.to_string())
    });
    FileValues { top: read_table(table, "", &place, errors), queues, streams }
}

/// The tables `[queues.NAME]` and `[streams.NAME]`.
fn read_named<N>(
    file: &mut toml::Table,
    key: &str,
    prefix: &str,
    example: &str,
    place: &str,
    errors: &mut Vec<ConfigError>,
    parse: impl Fn(&str) -> Result<N, String>,
) -> Vec<(N, Texts)> {
    let named = match file.remove(key) {
        None => return Vec::new(),
        Some(toml::Value::Table(named)) => named,
        Some(_) => {
            errors.push(ConfigError(format!("{place}: `{key}` must hold tables, as `[{key}.{example}]`")));
            return Vec::new();
        }
    };
    let mut read = Vec::new();
    for (name, table) in named {
        let place = format!("{place}, [{key}.{name}]");
        match (parse(&name), table) {
            (Ok(name), toml::Value::Table(table)) => read.push((name, read_table(table, prefix, &place, errors))),
            (Ok(_), _) => errors.push(ConfigError(format!("{place}: must be a table of limits"))),
            (Err(error), _) => errors.push(ConfigError(format!("{place}: {error}"))),
        }
    }
    read
}

/// The settings in a table whose keys lack `prefix`.
fn read_table(table: toml::Table, prefix: &str, place: &str, errors: &mut Vec<ConfigError>) -> Texts {
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == full || setting.old_key() == Some(&*full))
        else {
            let known = nearest(&full).and_then(|known| known.strip_prefix(prefix));
            let hint = known.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
            errors.push(ConfigError(format!("{place}: `{key}` is not a setting{hint}")));
            continue;
        };
        match as_text(&value) {
            Some(text) => {
                values.insert(setting.key, text);
            }
            None => errors.push(ConfigError(format!(
                "{place}: {key} must be a string, a number, true, false or a list of strings"
            ))),
        }
    }
    values
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

/// Names that look like ours but are not. Only a warning: orchestrators set `TIDEGATE_PORT` and the like by themselves.
fn unknown_variables(environment: &Environment) -> Vec<String> {
    let is_known = |name: &str| {
        name == "TIDEGATE_CONFIG"
            || SETTINGS.iter().any(|setting| setting.env == name || setting.env_alias() == Some(name))
    };
    let is_ours = |name: &str| OURS.iter().any(|prefix| name.starts_with(prefix));
    environment
        .names()
        .filter(|name| is_ours(name) && !is_known(name))
        .map(|name| {
            let key = name.trim_start_matches("TIDEGATE_").to_ascii_lowercase();
            let known = nearest(&key).and_then(|known| SETTINGS.iter().find(|setting| setting.key == known));
            let hint = known.map(|known| format!("; did you mean {}?", known.env)).unwrap_or_default();
            format!("environment variable {name} is not a setting and is ignored{hint}")
        })
        .collect()
}

/// What our names begin with. Not `REDIS_`: others have names like that, and orchestrators set `REDIS_PORT`.
const OURS: [&str; 5] = ["TIDEGATE_", "REDIS_POOL_", "REDIS_BLOCKING_POOL_", "REDIS_REGISTRY_", "BLOCKING_POOL_"];

/// The setting whose name is at most two typing errors away.
fn nearest(key: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| (distance(key, setting.key), setting.key))
        .filter(|(errors, _)| *errors <= 2)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein distance, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn shown(setting: &Setting, text: &str) -> String {
    if matches!(setting.key, "redis" | "cache_redis") { redact_url(text) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn errors(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: Option<&Path>) -> Vec<String> {
        let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        resolve(&flags, &environment(variables), file).unwrap_err().iter().map(ToString::to_string).collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidegate.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_queue_can_have_limits_of_its_own() {
        let (_folder, path) = file("queue_jobs_max = 50\n[queues.mail]\nkey_limit = 2\noverflow = \"drop_oldest\"\n");
        let config = resolve(&Flags::new(), &environment(&[]), Some(&path)).unwrap().config;
        let mail = &config.queues[&QueueName::new("mail").unwrap()];
        assert_eq!((mail.jobs_max, mail.key_limit, mail.overflow), (50, 2, super::super::Overflow::DropOldest));
        assert_eq!(config.queue_key_limit, 0);

        let (_folder, path) =
            file("[queues.mail]\nkey_limt = 2\njobs_max = 0\n[queues.\"a b\"]\n[queues]\nplain = 1\n");
        let errors = errors(&[], &[], Some(&path)).join("\n");
        assert!(errors.contains("not valid TOML") || errors.contains("key_limt"), "{errors}");

        let (_folder, path) = file("[queues]\nplain = 1\nmail = { key_limt = 2, jobs_max = 0 }\n\"a b\" = {}\n");
        let errors = super::tests::errors(&[], &[], Some(&path)).join("\n");
        for wanted in [
            "[queues.plain]: must be a table",
            "`key_limt` is not a setting; did you mean `key_limit`?",
            "`0` is not accepted",
            "bad queue name",
        ] {
            assert!(errors.contains(wanted), "{wanted}: {errors}");
        }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let (_folder, path) = file("lease = \"3s\"\nworkers = 3\ndata = \"from-file\"\n");
        let flags = Flags::from([("lease", "1s".to_owned())]);
        let variables = environment(&[("TIDEGATE_LEASE", "2s"), ("TIDEGATE_WORKERS", "2")]);
        let resolved = resolve(&flags, &variables, Some(&path)).unwrap();
        assert_eq!(resolved.config.lease.as_secs(), 1);
        assert_eq!(resolved.config.workers, 2);
        assert_eq!(resolved.config.data, Path::new("from-file"));
        assert_eq!(resolved.origins["lease"], Origin::Flag("lease".into()));
        assert_eq!(resolved.origins["workers"], Origin::Environment("TIDEGATE_WORKERS"));
        assert_eq!(resolved.origins["durability"], Origin::Default);
    }

    #[test]
    fn streams_can_have_limits_of_their_own_and_the_longest_pattern_counts() {
        let text =
            "stream_length_max = 50\n[streams.\"a.**\"]\nage_max = \"1h\"\n[streams.\"a.long.*\"]\nlength_max = 0\n";
        let (_folder, path) = file(text);
        let config = resolve(&Flags::new(), &environment(&[]), Some(&path)).unwrap().config;
        let told: Vec<_> = config
            .streams
            .iter()
            .map(|(pattern, limits)| (pattern.as_str(), limits.length_max, limits.age_max.as_secs()))
            .collect();
        assert_eq!(told, [("a.long.*", 0, 7 * 86_400), ("a.**", 50, 3600)]);

        let (_folder, path) = file("[streams.\"a*\"]\nage_max = \"1h\"\n[streams.b]\nlength = 1\n");
        let errors = errors(&[], &[], Some(&path)).join("\n");
        assert!(errors.contains("bad pattern \"a*\"") && errors.contains("`length` is not a setting"), "{errors}");
    }

    #[test]
    fn a_setting_that_was_renamed_is_read_by_its_old_name() {
        let (_folder, path) = file("followers_max = 3\n");
        assert_eq!(resolve(&Flags::new(), &environment(&[]), Some(&path)).unwrap().config.sse_max, 3);
        let resolved = resolve(&Flags::new(), &environment(&[("TIDEGATE_FOLLOWERS_MAX", "2")]), Some(&path)).unwrap();
        assert_eq!((resolved.config.sse_max, resolved.warnings), (2, Vec::new()));
        let variables = environment(&[("TIDEGATE_FOLLOWERS_MAX", "2"), ("TIDEGATE_SSE_MAX", "1")]);
        assert_eq!(resolve(&Flags::new(), &variables, Some(&path)).unwrap().config.sse_max, 1);
    }

    #[test]
    fn waiting_claims_may_not_use_up_the_requests() {
        let errors = errors(&[("requests_max", "1000")], &[], None);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains("waiting_claims_max") && errors[0].contains("flag --requests-max"), "{errors:#?}");
        let flags = Flags::from([("requests_max", "1000".to_owned()), ("waiting_claims_max", "999".to_owned())]);
        assert!(resolve(&flags, &environment(&[]), None).is_ok());
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_source_value_and_what_is_accepted() {
        let (_folder, path) = file("durabilty = \"sync\"\nworkers = 0\n");
        let errors =
            errors(&[("lease", "soon"), ("listen", "0.0.0.0:1")], &[("TIDEGATE_DURABILITY", "never")], Some(&path));
        assert_eq!(errors.len(), 5, "{errors:#?}");
        let all = errors.join("\n");
        for part in [
            "did you mean `durability`?",
            "`0` is not accepted for workers; accepted: a whole number from 1 to 10000",
            "flag --lease: `soon` is not accepted",
            "environment variable TIDEGATE_DURABILITY: `never` is not accepted for durability; accepted: `sync`, `everysec`, `memory`",
            "flag --listen: `0.0.0.0:1` can be reached from other machines",
        ] {
            assert!(all.contains(part), "{part}\n---\n{all}");
        }
    }

    #[test]
    fn a_redis_url_is_understood_and_a_wrong_one_refused_without_its_password() {
        let resolved = |variables: &[(&str, &str)]| resolve(&Flags::new(), &environment(variables), None).unwrap();
        assert!(resolved(&[]).config.redis_config().is_none());
        assert!(resolved(&[("REDIS_URL", "")]).config.redis_config().is_none());
        let config = resolved(&[("REDIS_URL", "redis://me:hunter2@cache:6380/2")]).config;
        assert_eq!(config.redis_config().unwrap().to_string(), "redis://<redacted>@cache:6380/2");
        assert_eq!(config.shown("redis"), "redis://<redacted>@cache:6380/2");

        let errors = errors(&[], &[("REDIS_URL", "redis://me:hunter2@cache:6379/x")], None);
        assert_eq!(errors.len(), 1);
        for part in ["REDIS_URL", "the database is no number", "redis[s]://"] {
            assert!(errors[0].contains(part), "{errors:?}");
        }
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
        let errors = super::tests::errors(&[], &[("TIDEGATE_CACHE_REDIS", "redis://me:hunter2@cache:6379/x")], None);
        assert!(errors[0].contains("redis://***") && !errors[0].contains("hunter2"), "{errors:?}");
    }

    #[test]
    fn the_usual_names_and_defaults_of_redis_settings_are_honoured() {
        let url = ("REDIS_URL", "redis://cache");
        let config = |variables: &[(&str, &str)]| {
            let resolved = resolve(&Flags::new(), &environment(variables), None).unwrap();
            resolved.config.redis_config().unwrap()
        };
        let usual = config(&[url]);
        let ms = |duration: std::time::Duration| duration.as_millis();
        assert_eq!((usual.pool_min, usual.pool_max, ms(usual.command_timeout)), (2, 10, 5000));
        assert_eq!(ms(usual.health_check_interval), 15_000);
        let pool = &usual.blocking_pool;
        assert_eq!((pool.min, pool.max, ms(pool.acquire_timeout), ms(pool.idle_timeout)), (5, 50, 5000, 60_000));
        assert_eq!((ms(usual.registry.refresh_interval), ms(usual.registry.cache_expiry)), (30_000, 60_000));

        let set = config(&[
            url,
            ("REDIS_POOL_MIN", "3"),
            ("REDIS_POOL_ACQUIRE_TIMEOUT", "700"),
            ("BLOCKING_POOL_MIN", "1"),
            ("BLOCKING_POOL_MAX", "6"),
            ("REDIS_BLOCKING_POOL_MAX", "7"),
            ("REDIS_REGISTRY_CACHE_EXPIRY", "40s"),
        ]);
        assert_eq!((set.pool_min, ms(set.command_timeout)), (3, 700));
        assert_eq!((set.blocking_pool.min, set.blocking_pool.max), (1, 7), "the name with REDIS_ wins");
        assert_eq!(ms(set.registry.cache_expiry), 40_000);

        let errors = errors(&[], &[url, ("REDIS_POOL_MIN", "11"), ("BLOCKING_POOL_MAX", "many")], None);
        let all = errors.join("\n");
        assert_eq!(errors.len(), 2, "{errors:#?}");
        assert!(all.contains("redis_pool_max is less than redis_pool_min (11,"), "{all}");
        assert!(all.contains("environment variable BLOCKING_POOL_MAX: `many`"), "{all}");
    }

    #[test]
    fn settings_of_the_other_backend_are_not_ignored_in_silence() {
        let warnings = |variables: &[(&str, &str)]| {
            resolve(&Flags::new(), &environment(variables), None).unwrap().warnings.join("\n")
        };
        let url = ("REDIS_URL", "redis://cache");
        let told = warnings(&[url, ("TIDEGATE_DURABILITY", "sync"), ("TIDEGATE_REDIS_PREFIX", "shop")]);
        assert!(told.contains("TIDEGATE_DURABILITY: durability has no effect"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let told = warnings(&[("REDIS_POOL_MAX", "20"), ("REDIS_PORT", "tcp://1.2.3.4")]);
        assert!(told.contains("REDIS_POOL_MAX: redis_pool_max has no effect: no Redis is configured"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let told = warnings(&[url, ("REDIS_POOL_MAXX", "20"), ("REDIS_POOL_IDLE_TIMEOUT", "1000")]);
        assert!(told.contains("did you mean REDIS_POOL_MAX?") && told.contains("stay open"), "{told}");
        assert_eq!(warnings(&[url]), "");
        let told = warnings(&[("TIDEGATE_CACHE_HOTTEST_SAVED", "5")]);
        assert!(told.contains("cache_hottest_saved has no effect"), "{told}");
        let own = ("TIDEGATE_CACHE_REDIS", "redis://cache");
        assert_eq!(warnings(&[own, ("TIDEGATE_CACHE_HOTTEST_SAVED", "5"), ("TIDEGATE_REDIS_PREFIX", "shop")]), "");
    }

    #[test]
    fn a_broken_file_is_told_by_line_without_quoting_it() {
        let (_folder, path) = file("lease = \"1s\"\nredis = \"redis://:hunter2@x\n");
        let errors = errors(&[], &[], Some(&path)).join("");
        assert!(errors.contains("line 2") && !errors.contains("hunter2"), "{errors}");
        assert!(super::tests::errors(&[], &[], Some(Path::new("/does/not/exist")))[0].contains("/does/not/exist"));
    }

    #[test]
    fn a_misspelt_variable_is_warned_about() {
        let resolved =
            resolve(&Flags::new(), &environment(&[("TIDEGATE_DURABILTY", "sync"), ("TIDEGATE_PORT", "tcp://x")]), None)
                .unwrap();
        assert_eq!(resolved.warnings.len(), 2);
        assert!(resolved.warnings[0].contains("did you mean TIDEGATE_DURABILITY?"), "{:?}", resolved.warnings);
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let printed = super::super::to_toml(&resolve(&Flags::new(), &Environment::default(), None).unwrap(), true);
        let (_folder, path) = file(&printed);
        let again = resolve(&Flags::new(), &Environment::default(), Some(&path)).unwrap();
        let without_origins =
            |text: &str| text.lines().map(|line| line.split("  #").next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(without_origins(&super::super::to_toml(&again, true)), without_origins(&printed));
    }
}

//! Redis URLs, read by hand because those of Sentinels and clusters name several hosts.

use std::path::PathBuf;

use crate::config::{Address, Config, ConfigError, Password, TlsConfig, Topology};

type Parsed<T> = Result<T, ConfigError>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Standalone,
    Unix,
    Sentinel,
    Cluster,
}

/// `scheme`, kind, TLS.
const SCHEMES: [(&str, Kind, bool); 9] = [
    ("redis", Kind::Standalone, false),
    ("rediss", Kind::Standalone, true),
    ("valkey", Kind::Standalone, false),
    ("unix", Kind::Unix, false),
    ("redis+unix", Kind::Unix, false),
    ("redis-sentinel", Kind::Sentinel, false),
    ("rediss-sentinel", Kind::Sentinel, true),
    ("redis-cluster", Kind::Cluster, false),
    ("rediss-cluster", Kind::Cluster, true),
];

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

pub(crate) fn parse(url: &str) -> Parsed<Config> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(ConfigError("it has no scheme"))?;
    let known = SCHEMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(scheme));
    let &(_, kind, secure) = known.ok_or(ConfigError("its scheme is unknown"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if kind != Kind::Unix && path.contains('@') || kind == Kind::Unix && !hosts.is_empty() {
        return Err(ConfigError("a password with / in it must be percent-encoded"));
    }
    let parameters = Parameters::read(query)?;

    let mut config = Config::new(topology(kind, hosts, path, &parameters)?);
    (config.username, config.password) = credentials(login)?;
    config.database = database(kind, path, &parameters)?;
    config.tls = secure.then(|| TlsConfig { ca: parameters.ca.clone().map(PathBuf::from) });
    parameters.fit(kind, secure)?;
    Ok(config)
}

fn topology(kind: Kind, hosts: &str, path: &str, parameters: &Parameters) -> Parsed<Topology> {
    Ok(match kind {
        Kind::Standalone => Topology::Standalone { address: one(addresses(hosts, REDIS_PORT)?)? },
        Kind::Unix if path.is_empty() => return Err(ConfigError("it names no socket")),
        Kind::Unix => Topology::Unix { path: PathBuf::from(format!("/{}", decode(path)?)) },
        Kind::Cluster => Topology::Cluster { addresses: all_addresses(hosts, parameters, REDIS_PORT)? },
        Kind::Sentinel => {
            let (service, _) = service_and_database(path, parameters)?;
            Topology::Sentinel {
                addresses: all_addresses(hosts, parameters, SENTINEL_PORT)?,
                service,
                username: parameters.sentinel_username.clone(),
                password: parameters.sentinel_password.clone().map(Password::new),
            }
        }
    })
}

/// `/service/database`, or `/database?sentinelServiceName=service`.
fn service_and_database<'a>(path: &'a str, parameters: &Parameters) -> Parsed<(String, &'a str)> {
    if let Some(service) = &parameters.service {
        return Ok((service.clone(), path));
    }
    let (service, database) = path.split_once('/').unwrap_or((path, ""));
    match service.is_empty() {
        true => Err(ConfigError("it names no Sentinel service")),
        false => Ok((decode(service)?, database)),
    }
}

fn all_addresses(hosts: &str, parameters: &Parameters, default_port: u16) -> Parsed<Vec<Address>> {
    let mut all = addresses(hosts, default_port)?;
    for node in &parameters.nodes {
        all.push(address(node, default_port)?);
    }
    Ok(all)
}

fn one(mut addresses: Vec<Address>) -> Parsed<Address> {
    match addresses.len() {
        1 => Ok(addresses.remove(0)),
        _ => Err(ConfigError("several hosts need a sentinel or cluster scheme")),
    }
}

fn addresses(hosts: &str, default_port: u16) -> Parsed<Vec<Address>> {
    hosts.split(',').map(|host| address(host.trim(), default_port)).collect()
}

fn address(text: &str, default_port: u16) -> Parsed<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(ConfigError("an IPv6 address lacks its bracket"))?;
            (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")))
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    let port = match port.ok_or(ConfigError("something follows the IPv6 address"))? {
        "" => default_port,
        port => {
            port.parse().ok().filter(|&port| port != 0).ok_or(ConfigError("a port is no number from 1 to 65535"))?
        }
    };
    match host.is_empty() || host.contains(char::is_whitespace) {
        true => Err(ConfigError("a host is missing")),
        false => Ok(Address { host: host.to_owned(), port }),
    }
}

fn credentials(login: &str) -> Parsed<(Option<String>, Option<Password>)> {
    if login.is_empty() {
        return Ok((None, None));
    }
    let (user, password) = login.split_once(':').ok_or(ConfigError("there is a user but no password"))?;
    let (user, password) = (decode(user)?, decode(password)?);
    match (user.is_empty(), password.is_empty()) {
        (_, false) => Ok(((!user.is_empty()).then_some(user), Some(Password::new(password)))),
        (true, true) => Ok((None, None)),
        (false, true) => Err(ConfigError("there is a user but no password")),
    }
}

fn database(kind: Kind, path: &str, parameters: &Parameters) -> Parsed<u32> {
    let text = match kind {
        Kind::Standalone | Kind::Cluster => path,
        Kind::Sentinel => service_and_database(path, parameters)?.1,
        Kind::Unix => "",
    };
    let text = match (text.trim_end_matches('/'), &parameters.db) {
        ("", Some(db)) => db.as_str(),
        (text, None) => text,
        _ => return Err(ConfigError("the database is given twice")),
    };
    let database = match text {
        "" => 0,
        text => text.parse().map_err(|_| ConfigError("the database is no number"))?,
    };
    match kind == Kind::Cluster && database != 0 {
        true => Err(ConfigError("a cluster has only database 0")),
        false => Ok(database),
    }
}

#[derive(Default)]
struct Parameters {
    db: Option<String>,
    ca: Option<String>,
    /// More hosts and the service, as some clients write them.
    nodes: Vec<String>,
    service: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Parsed<Self> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(ConfigError("a parameter has no value"))?;
            if name == "node" {
                parameters.nodes.push(decode(value)?);
                continue;
            }
            let place = match name {
                "sentinelServiceName" => &mut parameters.service,
                "db" => &mut parameters.db,
                "ca" => &mut parameters.ca,
                "sentinelUsername" => &mut parameters.sentinel_username,
                "sentinelPassword" => &mut parameters.sentinel_password,
                _ => {
                    return Err(ConfigError(
                        "a parameter is unknown (there are db, ca, node, sentinelServiceName, sentinelUsername and \
                         sentinelPassword; certificates are always checked)",
                    ));
                }
            };
            *place = Some(decode(value)?);
        }
        Ok(parameters)
    }

    /// A parameter that means nothing here is a mistake, not a wish to ignore.
    fn fit(&self, kind: Kind, secure: bool) -> Parsed<()> {
        if matches!(kind, Kind::Standalone | Kind::Unix) && !self.nodes.is_empty() {
            return Err(ConfigError("node= needs a sentinel or cluster scheme"));
        }
        if self.ca.is_some() && !secure {
            return Err(ConfigError("ca= needs a rediss scheme"));
        }
        let of_sentinels = [&self.service, &self.sentinel_username, &self.sentinel_password];
        if kind != Kind::Sentinel && of_sentinels.iter().any(|parameter| parameter.is_some()) {
            return Err(ConfigError("sentinel parameters need a sentinel scheme"));
        }
        Ok(())
    }
}

/// Undoes percent-encoding. What is no valid escape stays as it is: passwords are often pasted unencoded.
fn decode(text: &str) -> Parsed<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let byte = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).map_err(|_| ConfigError("an escape is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn each_form_is_read() {
        let config = parse("redis://localhost").unwrap();
        assert_eq!(config.topology, Topology::Standalone { address: at("localhost", 6379) });
        assert_eq!((config.database, config.tls), (0, None));

        let config = parse("rediss://app:p%40ss%2Fword@[::1]:7000/3?ca=%2Fetc%2Fca.pem").unwrap();
        assert_eq!(config.topology, Topology::Standalone { address: at("::1", 7000) });
        assert_eq!(config.password, Some(Password::new("p@ss/word")));
        assert_eq!((config.username.as_deref(), config.database), (Some("app"), 3));
        assert_eq!(config.tls, Some(TlsConfig { ca: Some("/etc/ca.pem".into()) }));

        let config = parse("redis+unix:///run/redis.sock?db=2").unwrap();
        assert_eq!((config.topology, config.database), (Topology::Unix { path: "/run/redis.sock".into() }, 2));
        assert_eq!(parse("unix:///a").unwrap().topology, Topology::Unix { path: "/a".into() });

        let config = parse("redis-sentinel://:pw@a,b:1/main/4?sentinelPassword=x").unwrap();
        assert_eq!(
            config.topology,
            Topology::Sentinel {
                addresses: vec![at("a", 26379), at("b", 1)],
                service: "main".into(),
                username: None,
                password: Some(Password::new("x")),
            }
        );
        assert_eq!((config.database, config.password), (4, Some(Password::new("pw"))));

        for url in ["rediss-cluster://a:1,b:2", "rediss-cluster://a:1?node=b:2"] {
            let config = parse(url).unwrap();
            assert_eq!(config.topology, Topology::Cluster { addresses: vec![at("a", 1), at("b", 2)] });
        }
        let config = parse("redis-sentinel://a:1/4?node=b:2&sentinelServiceName=main").unwrap();
        let Topology::Sentinel { addresses, service, .. } = config.topology else { panic!("no Sentinel") };
        assert_eq!((addresses, service.as_str(), config.database), (vec![at("a", 1), at("b", 2)], "main", 4));
    }

    #[test]
    fn a_wrong_url_is_refused_with_what_is_accepted() {
        let wrong = [
            "",
            "localhost:6379",
            "http://a",
            "redis://",
            "redis://a:0",
            "redis://a:99999",
            "redis://a,b",
            "redis://user@a",
            "redis://a/x",
            "redis-cluster://a/1",
            "redis-sentinel://a",
            "unix://",
            "redis://a?insecure=1",
            "redis://a?ca=/x",
            "redis://a?sentinelPassword=x",
            "redis://[::1",
            "redis://[::1]x",
            "redis://:1/2@a",
        ];
        for url in wrong {
            let text = parse(url).expect_err(url).to_string();
            assert!(text.contains("redis-sentinel") || text.contains("redis[s]-sentinel"), "{text}");
        }
    }

    #[test]
    fn an_unencoded_at_sign_belongs_to_the_password() {
        assert_eq!(parse("redis://:a@b@host").unwrap().password, Some(Password::new("a@b")));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(url in ".{0,60}") {
            let _ = parse(&url);
            let _ = parse(&format!("redis://{url}"));
            let _ = parse(&format!("redis-sentinel://{url}"));
        }

        #[test]
        fn passwords_are_never_shown(secret in "[a-z0-9#?%:/,\\[\\]]{1,12}", tail in "[a-z:@/?=&,0-9]{0,20}") {
            let secret = format!("qZ{secret}Zq");
            for scheme in ["redis", "rediss-cluster", "redis-sentinel", "unix", "nonsense"] {
                for url in [
                    format!("{scheme}://user:{secret}@host{tail}"),
                    format!("{scheme}://{secret}{}", tail.replace('@', "")),
                    format!("{scheme}://user:1/{secret}@host{tail}"),
                    format!("{scheme}://host/main?sentinelPassword={secret}"),
                    format!("{secret}@host"),
                ] {
                    let shown = match parse(&url) {
                        // A text without `@` is a host, not a secret.
                        Ok(config) if url.contains('@') || url.contains("sentinelPassword") => {
                            format!("{config:?} {config}")
                        }
                        Ok(_) => String::new(),
                        Err(error) => format!("{error:?} {error}"),
                    };
                    prop_assert!(!shown.contains("qZ"), "{url}: {shown}");
                }
            }
        }
    }
}

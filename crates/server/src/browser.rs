//! Guards against web pages: a browser on this machine can reach a loopback port on behalf of any page it shows.
//!
//! * The `Host` must be a name of ours: a page that rebinds its own name to 127.0.0.1 is refused (421).
//! * A request that a page of another site caused is refused (403), by `Sec-Fetch-Site`, or by `Origin` where a browser
//!   sends only that. A plain navigation (a link to our page) is allowed to read.
//!
//! There are no CORS headers: no page of another origin is ever given an answer to read.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Request, Version, header};

use crate::error::{Code, Problem};

/// The host names this server answers for.
#[derive(Debug)]
pub(crate) struct Hosts {
    listen: SocketAddr,
    names: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(listen: SocketAddr, names: &[String]) -> Self {
        Self { listen, names: names.to_vec() }
    }

    /// Lets a request through that names a host of ours and was not caused by another site's page.
    pub(crate) fn allow<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let headers = request.headers();
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let host = authority.or_else(|| text(headers, header::HOST.as_str()));
        match host {
            Some(host) if self.is_ours(host) => {}
            Some(host) => {
                let host: String = host.chars().take(100).collect();
                let detail =
                    format!("The host `{host}` is not one of this server's; add it with --hosts if it should be.");
                return Err(Problem::new(Code::HostNotAllowed, detail));
            }
            // HTTP/1.0 has no Host; old health probes speak it, browsers do not.
            None if request.version() == Version::HTTP_10 => {}
            None => return Err(Problem::new(Code::BadRequest, "The request names no host.")),
        }
        if self.is_cross_site(request.method(), headers) {
            let detail = "The request was caused by a page of another site; docs/security.md says how pages get here.";
            return Err(Problem::new(Code::CrossSiteRequest, detail));
        }
        Ok(())
    }

    fn is_cross_site(&self, method: &Method, headers: &HeaderMap) -> bool {
        let is_navigation = text(headers, "sec-fetch-mode") == Some("navigate");
        let may_navigate = is_navigation && (method == Method::GET || method == Method::HEAD);
        match text(headers, "sec-fetch-site") {
            Some("same-origin" | "none") => false,
            Some(_) => !may_navigate,
            None => match text(headers, header::ORIGIN.as_str()) {
                Some(origin) => !self.is_our_origin(origin, headers),
                None => headers.contains_key(header::ORIGIN),
            },
        }
    }

    /// The page's own origin: the very host it asks, on plain HTTP or behind a proxy that speaks TLS.
    fn is_our_origin(&self, origin: &str, headers: &HeaderMap) -> bool {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        self.is_ours(authority)
            && text(headers, header::HOST.as_str()).is_none_or(|host| host.eq_ignore_ascii_case(authority))
    }

    fn is_ours(&self, authority: &str) -> bool {
        let name = without_port(authority);
        if name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name) || ours.eq_ignore_ascii_case(authority))
        {
            return true;
        }
        let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() else { return false };
        // Rebinding needs a name; an address can only be typed. Bound to every address, each of ours is meant.
        address.is_loopback() || address == self.listen.ip() || self.listen.ip().is_unspecified()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str) -> Hosts {
        Hosts::new(listen.parse().unwrap(), &["tide.example.org".into()])
    }

    fn refused(method: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let mut request = Request::builder().method(method).uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        hosts("127.0.0.1:7700").allow(&request.body(()).unwrap()).err().map(|problem| problem.code())
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:7700",
            "127.0.0.1:7700",
            "127.9.9.9",
            "[::1]:7700",
            "tide.example.org",
            "tide.example.org:443",
        ] {
            assert_eq!(refused("GET", &[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7700", "10.0.0.7", "", "[::1].evil"]
        {
            assert_eq!(refused("GET", &[("host", host)]), Some(Code::HostNotAllowed), "{host}");
        }
        assert_eq!(refused("GET", &[]), Some(Code::BadRequest));
    }

    #[test]
    fn bound_to_every_address_any_address_is_ours_but_no_foreign_name() {
        let every = hosts("0.0.0.0:7700");
        assert!(every.is_ours("192.168.1.7:7700"));
        assert!(!every.is_ours("evil.example:7700"));
    }

    #[test]
    fn pages_of_other_sites_may_not_change_or_read() {
        let host = ("host", "127.0.0.1:7700");
        for site in ["cross-site", "same-site"] {
            assert_eq!(refused("POST", &[host, ("sec-fetch-site", site)]), Some(Code::CrossSiteRequest));
            assert_eq!(
                refused("GET", &[host, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")]),
                Some(Code::CrossSiteRequest)
            );
            assert_eq!(
                refused("POST", &[host, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")]),
                Some(Code::CrossSiteRequest)
            );
        }
        for origin in ["https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:7700"] {
            assert_eq!(refused("POST", &[host, ("origin", origin)]), Some(Code::CrossSiteRequest), "{origin}");
        }
    }

    #[test]
    fn our_own_page_a_typed_address_and_programs_pass() {
        let host = ("host", "127.0.0.1:7700");
        assert_eq!(
            refused("POST", &[host, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:7700")]),
            None
        );
        assert_eq!(refused("POST", &[host, ("origin", "http://127.0.0.1:7700")]), None);
        assert_eq!(refused("GET", &[host, ("sec-fetch-site", "none")]), None);
        assert_eq!(refused("GET", &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), None);
        assert_eq!(refused("POST", &[host]), None);
    }
}

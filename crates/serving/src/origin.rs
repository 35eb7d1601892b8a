//! Rejects requests that a web page of somebody else may have caused.
//!
//! The browser of an operator is inside the trusted network, and any page can make it send requests
//! here: a form needs no script, and a host name that the page controls may resolve to a daemon (DNS
//! rebinding). A browser reveals such a request by its headers:
//!
//! - `Host`: a name that is not ours. Addresses are accepted: a page cannot make a browser name one
//!   without being loaded from there.
//! - `Origin`, `Sec-Fetch-Site`: the request comes from a page of another site.
//! - `Content-Type` of a write: the types that a browser sends to other sites without asking first.
//!
//! A request without these headers comes from a program, and is accepted: this is no authentication.

use std::{collections::BTreeSet, net::IpAddr};

use axum::http::{
    HeaderMap, HeaderName, Method, Uri,
    header::{CONTENT_TYPE, HOST, ORIGIN},
    uri::Authority,
};

use crate::error::Rejection;
use stormkeeper_api_types::message::Code;
use stormkeeper_model::id::quoted;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Content types that a page may send to another site without the consent of that site.
const TYPES_OF_FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Header by which a page says that it sends a write on purpose: a form cannot send it.
pub const ON_PURPOSE: &str = "x-stormkeeper-request";

/// Paths that a load balancer asks, under a name of its own or, with HTTP/1.0, under none. They say
/// nothing that a page may not read.
const PROBES: [&str; 2] = ["/live", "/ready"];

/// Host of a request or of a page, without its port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Address(IpAddr),
    /// In lower case, without the dot at the end.
    Name(String),
}

impl Host {
    /// Reads `host` or `host:port`; an IPv6 address has brackets.
    fn of_authority(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
        Some(Self::of(authority.host()))
    }

    fn of(host: &str) -> Self {
        let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match plain.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        }
    }
}

/// Kind of daemon that is addressed, for the texts of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonKind {
    /// A nimbus, with its API.
    Nimbus,
    /// A supervisor, with its agent.
    Supervisor,
}

impl DaemonKind {
    fn unknown_name(self, name: &str) -> Rejection {
        let (owner, hint) = match self {
            Self::Nimbus => (
                "nimbus",
                "use its address; or add the name to `ui.allowed.hosts` or `nimbus.seeds` in the storm.yaml of \
                 each nimbus, and restart them one after the other",
            ),
            Self::Supervisor => (
                "supervisor",
                "use its address; or add the name to `ui.allowed.hosts` in the storm.yaml of the supervisor, and \
                 restart it",
            ),
        };
        let message = format!("{} is not a name of this {owner}", quoted(name));
        Rejection::new(Code::ForeignRequest, message, Some(hint))
    }
}

/// Names under which a daemon may be addressed, besides addresses.
#[derive(Debug, Clone)]
pub struct OwnNames {
    hosts: BTreeSet<Host>,
    daemon: DaemonKind,
    /// Path of the one route that takes a body in parts.
    parts_at: Option<&'static str>,
}

impl OwnNames {
    /// Names with or without ports, as in the configuration; `localhost` is always one of them.
    pub fn new<'a>(daemon: DaemonKind, names: impl IntoIterator<Item = &'a str>) -> Self {
        let host = |name: &str| Host::of_authority(name).unwrap_or_else(|| Host::of(name));
        Self { hosts: names.into_iter().chain(["localhost"]).map(host).collect(), daemon, parts_at: None }
    }

    /// Accepts bodies in parts (`multipart/form-data`) at this path, of programs and of pages that send
    /// [`ON_PURPOSE`].
    #[must_use]
    pub fn accepting_parts_at(mut self, path: &'static str) -> Self {
        self.parts_at = Some(path);
        self
    }

    fn accepts(&self, host: &Host) -> bool {
        matches!(host, Host::Address(_)) || self.hosts.contains(host)
    }
}

/// Checks that no web page of somebody else has caused a request.
///
/// # Errors
/// The response to the request otherwise.
pub fn check(names: &OwnNames, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
    if PROBES.contains(&uri.path()) && (*method == Method::GET || *method == Method::HEAD) {
        return Ok(());
    }
    let host = requested_host(names, uri, headers)?;
    let is_own = |origin: &str| is_own_page(names, &host, origin);
    let mut origins = headers.get_all(ORIGIN).iter();
    if let Some(origin) = origins.find(|origin| !origin.to_str().is_ok_and(is_own)) {
        let origin = quoted(&String::from_utf8_lossy(origin.as_bytes()));
        return Err(foreign_page(&format!("the header Origin names another site, {origin}")));
    }
    let is_from_own_page = headers.contains_key(ORIGIN);
    for site in headers.get_all(SEC_FETCH_SITE) {
        match site.as_bytes() {
            b"same-origin" | b"none" => {}
            // Another port of the same host; its origin was compared above.
            b"same-site" if is_from_own_page => {}
            site => {
                let site = quoted(&String::from_utf8_lossy(site));
                return Err(foreign_page(&format!("the header Sec-Fetch-Site is {site}")));
            }
        }
    }
    match names.parts_at == Some(uri.path()) && are_parts_on_purpose(headers) {
        true => Ok(()),
        false => check_content_type(method, headers),
    }
}

/// Checks only that a request names a host of this daemon.
///
/// # Errors
/// The response to the request otherwise.
pub fn check_host(names: &OwnNames, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
    requested_host(names, uri, headers).map(drop)
}

/// True for a body in parts of a program, or of a page that says so in a header which no form can send. Old
/// browsers send forms to other sites without a header of their own; their
/// cross-site forms have an origin all the same.
fn are_parts_on_purpose(headers: &HeaderMap) -> bool {
    let is_parts = |value: &axum::http::HeaderValue| {
        let plain = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        plain.trim().eq_ignore_ascii_case("multipart/form-data")
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_only_parts = types.next().is_some_and(is_parts) && types.next().is_none();
    let is_of_page = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    is_only_parts && (!is_of_page || headers.contains_key(ON_PURPOSE))
}

/// Returns the host that a request names, if it is one of this daemon.
fn requested_host(names: &OwnNames, uri: &Uri, headers: &HeaderMap) -> Result<Host, Rejection> {
    let malformed = |what: &str| Rejection::new(Code::InvalidRequest, what, Some("send one header Host"));
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        let what = match headers.contains_key(HOST) {
            true => "the request has two headers Host",
            false => "the request has no header Host",
        };
        return Err(malformed(what));
    };
    let named = host.to_str().ok().and_then(Host::of_authority);
    let named = named.ok_or_else(|| malformed("the header Host is not a host with or without a port"))?;
    // The target of a request to a proxy names the host too, and counts more.
    let target = uri.authority().map(|authority| Host::of(authority.host()));
    for host in [&named].into_iter().chain(&target) {
        if let (false, Host::Name(name)) = (names.accepts(host), host) {
            return Err(names.daemon.unknown_name(name));
        }
    }
    Ok(target.unwrap_or(named))
}

/// Returns whether a page is ours: from the requested host, or from a name of ours. Any page on the
/// Internet may be from an address.
fn is_own_page(names: &OwnNames, host: &Host, origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some(page) = authority.and_then(Host::of_authority) else { return false };
    page == *host || page != Host::of("localhost") && names.hosts.contains(&page)
}

fn foreign_page(what: &str) -> Rejection {
    Rejection::new(
        Code::ForeignRequest,
        format!("a web page of another site seems to have sent this request: {what}"),
        Some(
            "send requests from a program without this header; to serve pages of another host, add it to `ui.allowed.hosts`",
        ),
    )
}

/// Checks that a write has no type that a page may send to another site.
fn check_content_type(method: &Method, headers: &HeaderMap) -> Result<(), Rejection> {
    if method.is_safe() {
        return Ok(());
    }
    for value in headers.get_all(CONTENT_TYPE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let plain = text.split([';', ',']).next().unwrap_or_default().trim().to_ascii_lowercase();
        if TYPES_OF_FORMS.contains(&plain.as_str()) {
            return Err(Rejection::new(
                Code::WrongContentType,
                format!("a write does not take a body of the type {}", quoted(&plain)),
                Some(
                    "send JSON as application/json: with curl, add -H 'Content-Type: application/json'; \
                     the parts of a submit are multipart/form-data, with -F; a request without a body needs no type",
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::{
        http::{HeaderValue, StatusCode},
        response::IntoResponse as _,
    };

    use super::*;

    /// Path that takes a body in parts.
    const SUBMIT: &str = "/api/v1/topology";

    /// Checks a request with these headers, and returns the status of the rejection.
    fn rejection(method: &Method, target: &str, headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        let names = OwnNames::new(
            DaemonKind::Nimbus,
            ["n1.example.com", "N2:8080", "[fd00::5]:8080", "ui.example.com."],
        )
        .accepting_parts_at(SUBMIT);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let uri = target.parse().expect("a target");
        check(&names, method, &uri, &map).err().map(|error| error.into_response().status())
    }

    fn get(headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        rejection(&Method::GET, "/", headers)
    }

    fn post(headers: &[(&'static str, &str)]) -> Option<StatusCode> {
        rejection(&Method::POST, "/", headers)
    }

    #[test]
    fn probe_is_answered_under_every_name_and_without_one() {
        for path in PROBES {
            for headers in [&[][..], &[("host", "a.load.balancer")]] {
                assert_eq!(rejection(&Method::GET, path, headers), None, "{path} {headers:?}");
                assert_eq!(rejection(&Method::HEAD, path, headers), None, "{path} {headers:?}");
                assert!(rejection(&Method::POST, path, headers).is_some(), "{path} {headers:?}");
            }
        }
        assert!(get(&[]).is_some() && get(&[("host", "a.load.balancer")]).is_some());
    }

    #[test]
    fn hosts_are_addresses_and_own_names_with_any_port() {
        for own in [
            "n1.example.com",
            "N1.Example.COM.:9000",
            "n2",
            "localhost:1",
            "LOCALHOST",
            "ui.example.com",
            "127.0.0.1:8080",
            "203.0.113.7",
            "[::1]",
            "[fd00::9]:8080",
        ] {
            assert_eq!(get(&[("host", own)]), None, "{own}");
        }
        let (forbidden, bad) = (Some(StatusCode::FORBIDDEN), Some(StatusCode::BAD_REQUEST));
        for foreign in ["evil.example:8080", "n1", "n1.example.com.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(get(&[("host", foreign)]), forbidden, "{foreign}");
        }
        for malformed in ["", "n2@evil.example", "a b", "http://n2/", "[::1", "n2:8080:9"] {
            assert_eq!(get(&[("host", malformed)]), bad, "{malformed}");
        }
        assert_eq!(get(&[]), bad);
        assert_eq!(get(&[("host", "n2"), ("host", "n2")]), bad);
        assert_eq!(rejection(&Method::GET, "http://evil.example/", &[("host", "n2")]), forbidden);
        assert_eq!(rejection(&Method::GET, "http://n2:80/", &[("host", "n2")]), None);
    }

    #[test]
    fn pages_of_other_sites_are_rejected() {
        let forbidden = Some(StatusCode::FORBIDDEN);
        for own in
            ["http://10.0.0.1:9999", "https://10.0.0.1", "http://n1.example.com", "https://ui.example.com"]
        {
            assert_eq!(post(&[("host", "10.0.0.1:8080"), ("origin", own)]), None, "{own}");
        }
        for foreign in [
            "https://evil.example",
            "null",
            "",
            "http://203.0.113.7",
            "http://localhost:3000",
            "file://10.0.0.1",
            "http://evil.example@10.0.0.1",
        ] {
            let headers = [("host", "10.0.0.1:8080"), ("origin", foreign)];
            assert_eq!(post(&headers), forbidden, "{foreign}");
            assert_eq!(get(&headers), forbidden, "{foreign}");
        }
        assert_eq!(
            post(&[("host", "n2"), ("origin", "http://n2"), ("origin", "http://e.example")]),
            forbidden
        );
        for (site, expected) in [
            ("same-origin", None),
            ("none", None),
            ("cross-site", forbidden),
            ("same-site", forbidden),
            ("", forbidden),
            ("else", forbidden),
        ] {
            assert_eq!(get(&[("host", "n2"), ("sec-fetch-site", site)]), expected, "{site}");
        }
        let same_site = [("host", "n2"), ("origin", "http://n2:3000"), ("sec-fetch-site", "same-site")];
        assert_eq!(post(&same_site), None);
    }

    #[test]
    fn writes_do_not_take_the_types_of_forms() {
        let unsupported = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        for (kind, expected) in [
            ("application/json", None),
            ("application/json; charset=utf-8", None),
            ("application/octet-stream", None),
            ("application/x-www-form-urlencoded", unsupported),
            ("Multipart/Form-Data; boundary=x", unsupported),
            ("TEXT/PLAIN;charset=UTF-8", unsupported),
            (" text/plain , application/json", unsupported),
        ] {
            assert_eq!(post(&[("host", "n2"), ("content-type", kind)]), expected, "{kind}");
            assert_eq!(get(&[("host", "n2"), ("content-type", kind)]), None, "{kind}");
        }
        assert_eq!(post(&[("host", "n2")]), None, "a program without a body");
    }

    #[test]
    fn topology_in_parts_is_taken_from_programs_and_pages_that_mean_it() {
        let submit = |headers: &[(&'static str, &str)]| {
            let parts = [("host", "n2"), ("content-type", "multipart/form-data; boundary=x")];
            rejection(&Method::POST, SUBMIT, &[&parts, headers].concat())
        };
        assert_eq!(submit(&[]), None);
        let unsupported = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(submit(&[("origin", "http://n2")]), unsupported);
        assert_eq!(submit(&[("sec-fetch-site", "same-origin")]), unsupported);
        assert_eq!(submit(&[("origin", "http://n2"), (ON_PURPOSE, "1")]), None);
        assert_eq!(
            submit(&[("origin", "http://evil.example"), (ON_PURPOSE, "1")]),
            Some(StatusCode::FORBIDDEN)
        );
        assert_eq!(submit(&[("content-type", "text/plain")]), unsupported);
        let other = [("host", "n2"), ("content-type", "multipart/form-data; boundary=x")];
        assert_eq!(rejection(&Method::POST, "/api/v1/topology/x/kill/0", &other), unsupported);
    }
}

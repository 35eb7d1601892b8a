//! Addresses as people type them and as programs need them: `host:port`, with brackets around IPv6.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// Joins host and port; an IPv6 address is put in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// A host, with or without a port: `zk1`, `zk1:2181`, `10.0.0.1:2181`, `fd00::1`, `[fd00::1]:2181`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAndPort {
    /// Name or address, without brackets.
    pub host: String,
    /// The port, if one is given; never 0.
    pub port: Option<u16>,
}

/// Cause why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// There is no host.
    #[error("{0:?} has no host")]
    NoHost(String),
    /// The part after the last colon is no port.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    /// Brackets are for IPv6 addresses.
    #[error("{0:?} is not an IPv6 address")]
    Brackets(String),
    /// A character that no host has.
    #[error("{0:?} contains {1:?}, which no host has")]
    Character(String, char),
    /// A port where only a host belongs.
    #[error("{0:?} has a port, and must be a host only")]
    HasPort(String),
    /// The address of no particular host.
    #[error("{0:?} stands for any address, so other hosts cannot reach this one by it")]
    Unspecified(String),
    /// A name that no resolver takes.
    #[error("{0:?} is not a host name: a name has at most 253 characters, and each part at most 63")]
    Name(String),
}

/// Reads the name or address of one host, by which others reach it. Returns it without brackets.
///
/// # Errors
/// [`InvalidAddress`] if it has a port, is no host, or is the address of every host.
pub fn host_of(text: &str) -> Result<String, InvalidAddress> {
    const NAME_CHARS: usize = 253;
    const PART_CHARS: usize = 63;
    let HostAndPort { host, port } = text.parse().map_err(|error| match error {
        // Of a host alone, nothing after a colon is a port.
        InvalidAddress::Port(_) => InvalidAddress::HasPort(text.to_owned()),
        error => error,
    })?;
    if port.is_some() {
        return Err(InvalidAddress::HasPort(text.to_owned()));
    }
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(InvalidAddress::Unspecified(text.to_owned())),
        Ok(_) => Ok(host),
        Err(_) => {
            let odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if let Some(c) = host.chars().find(odd) {
                return Err(InvalidAddress::Character(text.to_owned(), c));
            }
            let is_part = |part: &str| (1..=PART_CHARS).contains(&part.len()) && !part.starts_with('-');
            let name = host.strip_suffix('.').unwrap_or(&host);
            match name.len() <= NAME_CHARS && name.split('.').all(is_part) {
                true => Ok(host),
                false => Err(InvalidAddress::Name(text.to_owned())),
            }
        }
    }
}

impl FromStr for HostAndPort {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let odd = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/' | '@' | '?' | '#');
        if let Some(c) = text.chars().find(odd) {
            return Err(InvalidAddress::Character(text.to_owned(), c));
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        if let Some((address, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            let host = address.parse::<Ipv6Addr>();
            let host = host.map_err(|_| InvalidAddress::Brackets(address.to_owned()))?.to_string();
            return match rest.strip_prefix(':') {
                None if rest.is_empty() => Ok(Self { host, port: None }),
                None => Err(InvalidAddress::Port(rest.to_owned())),
                Some(digits) => Ok(Self { host, port: Some(port(digits)?) }),
            };
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, digits)) => (host, Some(port(digits)?)),
        };
        match host.is_empty() {
            true => Err(InvalidAddress::NoHost(text.to_owned())),
            false => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

fn port(digits: &str) -> Result<u16, InvalidAddress> {
    let port = digits.parse().ok().filter(|&port| port > 0 && digits.bytes().all(|b| b.is_ascii_digit()));
    port.ok_or_else(|| InvalidAddress::Port(digits.to_owned()))
}

impl HostAndPort {
    /// Returns `host:port`, with `default` as the port unless one is given.
    pub fn with_default(&self, default: u16) -> String {
        host_port(&self.host, self.port.unwrap_or(default))
    }
}

impl fmt::Display for HostAndPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.write_str(&host_port(&self.host, port)),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_type_them() {
        let cases = [
            ("zk1", "zk1:2181"),
            ("zk1:2182", "zk1:2182"),
            ("10.0.0.1", "10.0.0.1:2181"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("fd00::1", "[fd00::1]:2181"),
            ("::1", "[::1]:2181"),
            ("[fd00::1]", "[fd00::1]:2181"),
            ("[fd00::1]:8080", "[fd00::1]:8080"),
            ("FD00:0::1", "[fd00::1]:2181"),
        ];
        for (typed, expected) in cases {
            let address: HostAndPort = typed.parse().expect(typed);
            assert_eq!(address.with_default(2181), expected, "{typed}");
        }
    }

    #[test]
    fn host_of_a_daemon_is_one_host_without_a_port() {
        let cases = [
            ("node-3", "node-3"),
            ("n_1.example.com.", "n_1.example.com."),
            ("10.0.0.3", "10.0.0.3"),
            ("fd00::3", "fd00::3"),
            ("[fd00::3]", "fd00::3"),
        ];
        for (typed, expected) in cases {
            assert_eq!(host_of(typed).expect(typed), expected);
        }
        let long = "a".repeat(64);
        let cases = [
            ("a b", "contains ' '"),
            ("http://foo", "contains '/'"),
            ("foo:80", "has a port"),
            ("foo:", "has a port"),
            ("[fd00::1]:80", "has a port"),
            ("0.0.0.0", "any address"),
            ("::", "any address"),
            ("\u{1f600}", "which no host has"),
            ("", "has no host"),
            ("a..b", "is not a host name"),
            ("-a", "is not a host name"),
            (&long, "at most 63"),
        ];
        for (typed, reason) in cases {
            let error = host_of(typed).expect_err(typed).to_string();
            assert!(error.contains(reason), "{typed}: {error}");
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_are_rejected_with_the_reason() {
        let cases = [
            ("", "has no host"),
            (":8080", "has no host"),
            ("zk:99999", "\"99999\" is not a port from 1 to 65535"),
            ("zk:0", "\"0\" is not a port"),
            ("zk:", "\"\" is not a port"),
            ("zk:+80", "\"+80\" is not a port"),
            ("a:b:c", "\"b:c\" is not a port"),
            ("fd00::1:x", "\":1:x\" is not a port"),
            ("[fd00::1", "is not a port"),
            ("[fd00::1]8080", "\"8080\" is not a port"),
            ("[zk1]:1", "\"zk1\" is not an IPv6 address"),
            ("zk1/chroot", "contains '/'"),
            ("a b", "contains ' '"),
            ("zk1,zk2", "contains ','"),
            ("user@zk1", "contains '@'"),
        ];
        for (typed, reason) in cases {
            let error = typed.parse::<HostAndPort>().expect_err(typed).to_string();
            assert!(error.contains(reason), "{typed}: {error}");
        }
    }
}

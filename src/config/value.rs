//! Kinds of values, and the values themselves.

use std::{fmt, net::IpAddr, time::Duration};

use stormkeeper_coordination::tree::TreePath;
use stormkeeper_model::{
    Port,
    address::{HostAndPort, host_of},
};
use stormkeeper_topology_package::yaml;

/// Kind of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string that is not empty.
    Text,
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// The name or the address of one host, without a port.
    Host,
    /// A list of hosts, each with or without a port.
    Hosts,
    /// A list of names of environment variables, which may be patterns.
    Variables,
    /// An address on which to listen.
    Address,
    /// A port.
    Port,
    /// A list of ports without duplicates.
    Ports,
    /// A path of the ZooKeeper tree.
    TreePath,
    /// A whole number in a range, both ends included.
    Whole(u64, u64),
    /// A share, from 0 for nothing to 1 for everything.
    Share,
    /// A time in a range of seconds, both ends included; a plain number counts seconds.
    Secs(u64, u64),
    /// A time in a range of milliseconds, both ends included; a plain number counts milliseconds.
    Millis(u64, u64),
    /// An amount of memory in a range of bytes, both ends included; a plain number counts
    /// bytes.
    Bytes(u64, u64),
}

/// A valid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The key is not set; its description says what applies then.
    Unset,
    /// For [`Kind::Text`], [`Kind::Choice`] and [`Kind::Host`].
    Text(String),
    /// For [`Kind::Flag`].
    Flag(bool),
    /// For [`Kind::Hosts`].
    Hosts(Vec<String>),
    /// For [`Kind::Variables`].
    Variables(Vec<String>),
    /// For [`Kind::Address`].
    Address(IpAddr),
    /// For [`Kind::Ports`].
    Ports(Vec<Port>),
    /// For [`Kind::TreePath`].
    TreePath(TreePath),
    /// For [`Kind::Whole`], [`Kind::Port`], [`Kind::Bytes`], and in millionths for [`Kind::Share`].
    Whole(u64),
    /// For [`Kind::Secs`] and [`Kind::Millis`].
    Duration(Duration),
}

/// Maximum number of slots of one supervisor; each slot is a task, a directory and a process.
const MAX_PORTS: usize = 1000;

/// Maximum number of names and patterns of variables.
const MAX_VARIABLES: usize = 100;

/// Maximum number of servers or seeds in a list; a client may contact all of them in turn.
const MAX_HOSTS: usize = 100;

const TIME_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a string"),
            Self::Flag => f.write_str("true or false"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Host => f.write_str("the name or the address of this host, without a port"),
            Self::Hosts => write!(
                f,
                "a list of 1 to {MAX_HOSTS} hosts, each `host` or `host:port`, with a port from 1 to 65535"
            ),
            Self::Variables => write!(
                f,
                "a list of 1 to {MAX_VARIABLES} names of environment variables, in which `*` matches any characters"
            ),
            Self::Address => f.write_str("an IP address or `localhost`"),
            Self::Port => f.write_str("a port from 0 to 65535"),
            Self::Ports => write!(f, "a list of 1 to {MAX_PORTS} different ports from 1 to 65535"),
            Self::TreePath => f.write_str("a path such as /stormkeeper"),
            Self::Share => f.write_str("a number from 0 to 1"),
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Secs(min, max) => {
                let (min, max) = (time(min * 1000), time(max * 1000));
                write!(f, "a time from {min} to {max}, as seconds or with a unit (\"30s\", \"5m\")")
            }
            Self::Millis(min, max) => {
                let (min, max) = (time(*min), time(*max));
                write!(f, "a time from {min} to {max}, as milliseconds or with a unit (\"30s\", \"5m\")")
            }
            Self::Bytes(min, max) => {
                let (min, max) = (size(*min), size(*max));
                write!(f, "a size from {min} to {max}, as bytes or with a unit (\"64MiB\")")
            }
        }
    }
}

/// Formats a number in the largest unit that divides it.
fn in_units(n: u64, units: &[(&str, u64)]) -> String {
    let fits = |&&(_, scale): &&(&str, u64)| n > 0 && n.is_multiple_of(scale);
    match units.iter().rev().find(fits).or(units.first()) {
        Some((unit, scale)) => format!("{}{unit}", n / scale),
        None => n.to_string(),
    }
}

fn time(millis: u64) -> String {
    in_units(millis, TIME_UNITS)
}

fn size(bytes: u64) -> String {
    in_units(bytes, SIZE_UNITS)
}

impl Kind {
    /// Returns what exactly is wrong with `given`, where the kind alone does not say it.
    pub fn fault(self, given: &yaml::Value) -> Option<String> {
        match self {
            Self::Hosts => {
                let hosts = items(given).into_iter().filter_map(text_of);
                hosts.into_iter().find_map(|host| host.parse::<HostAndPort>().err()).map(|e| e.to_string())
            }
            Self::Host => host_of(&text_of(given)?).err().map(|error| error.to_string()),
            _ => None,
        }
    }

    /// Reads the value that `given` denotes; `None` if it is not a valid value of this kind.
    pub fn read(self, given: &yaml::Value) -> Option<Value> {
        let within = |n: u64, min, max| (min..=max).contains(&n).then_some(n);
        match self {
            Self::Text => text_of(given).map(Value::Text),
            Self::Flag => match given {
                yaml::Value::Flag(flag) => Some(Value::Flag(*flag)),
                _ => None,
            },
            Self::Choice(words) => {
                text_of(given).filter(|text| words.contains(&text.as_str())).map(Value::Text)
            }
            Self::Host => host_of(&text_of(given)?).ok().map(Value::Text),
            Self::Hosts => hosts(given).map(Value::Hosts),
            Self::Variables => variables(given).map(Value::Variables),
            Self::Address => match text_of(given)?.as_str() {
                "localhost" => Some(Value::Address(IpAddr::from([127, 0, 0, 1]))),
                text => text.parse().ok().map(Value::Address),
            },
            Self::Port => whole(given).and_then(|n| within(n, 0, 65_535)).map(Value::Whole),
            Self::Ports => ports(given).map(Value::Ports),
            Self::TreePath => text_of(given)?.parse().ok().map(Value::TreePath),
            Self::Share => share(given).map(Value::Whole),
            Self::Whole(min, max) => whole(given).and_then(|n| within(n, min, max)).map(Value::Whole),
            Self::Secs(min, max) => {
                let millis = amount(given, TIME_UNITS, 1000)?;
                within(millis, min * 1000, max * 1000).map(|n| Value::Duration(Duration::from_millis(n)))
            }
            Self::Millis(min, max) => {
                let millis = amount(given, TIME_UNITS, 1)?;
                within(millis, min, max).map(|n| Value::Duration(Duration::from_millis(n)))
            }
            Self::Bytes(min, max) => {
                amount(given, SIZE_UNITS, 1).and_then(|n| within(n, min, max)).map(Value::Whole)
            }
        }
    }
}

fn text_of(given: &yaml::Value) -> Option<String> {
    match given {
        yaml::Value::Text(text) if !text.is_empty() => Some(text.to_string()),
        // A host or a directory may have the name 10.
        yaml::Value::Whole(n) => Some(n.to_string()),
        yaml::Value::Null
        | yaml::Value::Flag(_)
        | yaml::Value::Number(_)
        | yaml::Value::Text(_)
        | yaml::Value::List(_)
        | yaml::Value::Map(_) => None,
    }
}

fn whole(given: &yaml::Value) -> Option<u64> {
    let yaml::Value::Whole(n) = given else { return None };
    u64::try_from(*n).ok()
}

/// Reads a number from 0 to 1, and returns it in millionths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and a million")]
fn share(given: &yaml::Value) -> Option<u64> {
    if let Some(n) = whole(given) {
        return (n <= 1).then_some(n * 1_000_000);
    }
    let yaml::Value::Number(share) = given else { return None };
    (0.0..=1.0).contains(share).then(|| (share * 1e6).round() as u64)
}

/// Items of a list; a single item counts as a list of one.
fn items(given: &yaml::Value) -> Vec<&yaml::Value> {
    match given {
        yaml::Value::List(items) => items.iter().map(|node| &node.value).collect(),
        one => vec![one],
    }
}

fn hosts(given: &yaml::Value) -> Option<Vec<String>> {
    let hosts: Vec<String> = items(given).into_iter().map(text_of).collect::<Option<_>>()?;
    let valid = |host: &String| host.parse::<HostAndPort>().is_ok();
    ((1..=MAX_HOSTS).contains(&hosts.len()) && hosts.iter().all(valid)).then_some(hosts)
}

fn variables(given: &yaml::Value) -> Option<Vec<String>> {
    let names: Vec<String> = items(given).into_iter().map(text_of).collect::<Option<_>>()?;
    let plain = |name: &String| !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=');
    ((1..=MAX_VARIABLES).contains(&names.len()) && names.iter().all(plain)).then_some(names)
}

fn ports(given: &yaml::Value) -> Option<Vec<Port>> {
    let port = |item| whole(item).and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0).map(Port);
    let mut ports: Vec<Port> = items(given).into_iter().map(port).collect::<Option<_>>()?;
    let n = ports.len();
    ports.sort();
    ports.dedup();
    (ports.len() == n && (1..=MAX_PORTS).contains(&n)).then_some(ports)
}

/// Reads a number with one of `units`, or a plain number in units of `plain`.
fn amount(given: &yaml::Value, units: &[(&str, u64)], plain: u64) -> Option<u64> {
    match given {
        yaml::Value::Whole(n) => u64::try_from(*n).ok()?.checked_mul(plain),
        yaml::Value::Text(text) => {
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            let (number, unit) = text.split_at(digits);
            let scale = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, scale)| *scale)?;
            number.parse::<u64>().ok()?.checked_mul(scale)
        }
        yaml::Value::Null
        | yaml::Value::Flag(_)
        | yaml::Value::Number(_)
        | yaml::Value::List(_)
        | yaml::Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, text: &str) -> Option<Value> {
        kind.read(&yaml::parse(text).expect("YAML").value)
    }

    #[test]
    fn times_and_sizes_are_read_with_and_without_units() {
        let secs = Kind::Secs(1, 3600);
        let time = |millis| Some(Value::Duration(Duration::from_millis(millis)));
        assert_eq!(read(secs, "30"), time(30_000));
        assert_eq!(read(secs, "30s"), time(30_000));
        assert_eq!(read(secs, "1500 ms"), time(1500));
        assert_eq!(read(secs, "5m"), time(300_000));
        assert_eq!(read(Kind::Millis(1, 90_000), "30"), time(30));
        assert_eq!(read(Kind::Bytes(0, 1 << 40), "64MiB"), Some(Value::Whole(64 << 20)));
        for bad in
            ["0", "-3", "3601", "2h", "s", "30 bananas", "1.5", "true", "[30]", "99999999999999999999s"]
        {
            assert_eq!(read(secs, bad), None, "{bad}");
        }
        assert_eq!(read(Kind::Bytes(0, 1 << 40), "64MB"), None);
    }

    #[test]
    fn shares_are_read_in_millionths() {
        for (text, millionths) in
            [("0", 0), ("1", 1_000_000), ("0.5", 500_000), ("0.333", 333_000), ("1.0", 1_000_000)]
        {
            assert_eq!(read(Kind::Share, text), Some(Value::Whole(millionths)), "{text}");
        }
        for bad in ["-0.1", "1.1", "2", "-1", "50%", "half", "[0.5]", "~"] {
            assert_eq!(read(Kind::Share, bad), None, "{bad}");
        }
    }

    #[test]
    fn single_items_count_as_lists_of_one() {
        assert_eq!(read(Kind::Hosts, "zk1"), Some(Value::Hosts(vec!["zk1".to_owned()])));
        assert_eq!(read(Kind::Ports, "[6701, 6700]"), Some(Value::Ports(vec![Port(6700), Port(6701)])));
        for bad in ["[]", "[6700, 6700]", "[0]", "[65536]", "[a]", "{}"] {
            assert_eq!(read(Kind::Ports, bad), None, "{bad}");
        }
        for bad in ["[]", "[[a]]", "[\"\"]", "\"zk1,zk2\"", "[~]"] {
            assert_eq!(read(Kind::Hosts, bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_of_hosts_are_checked() {
        for host in
            ["zk", "zk:2181", "10.0.0.1", "10.0.0.1:1", "fd00::1", "[fd00::1]", "[fd00::1]:65535", "*.x"]
        {
            assert!(read(Kind::Hosts, &format!("{host:?}")).is_some(), "{host}");
        }
        for bad in [
            "zk:99999",
            "zk:65536",
            "zk:0",
            "zk:",
            "zk:port",
            "zk:-1",
            "zk:+1",
            ":2181",
            "[fd00::1]:0",
            "[zk]:1",
            "a:1:2",
        ] {
            assert_eq!(read(Kind::Hosts, &format!("{bad:?}")), None, "{bad}");
        }
    }

    #[test]
    fn host_of_a_daemon_is_checked() {
        for (host, expected) in [("node-3", "node-3"), ("10.0.0.1", "10.0.0.1"), ("[fd00::1]", "fd00::1")] {
            assert_eq!(read(Kind::Host, &format!("{host:?}")), Some(Value::Text(expected.to_owned())));
        }
        for bad in ["a b", "http://foo", "foo:80", "0.0.0.0", "\u{1f600}"] {
            assert_eq!(read(Kind::Host, &format!("{bad:?}")), None, "{bad}");
        }
    }

    #[test]
    fn invalid_addresses_and_paths_are_rejected() {
        assert!(read(Kind::Address, "localhost").is_some());
        assert!(read(Kind::Address, "\"::\"").is_some());
        assert!(read(Kind::Address, "not.an.address").is_none());
        assert!(read(Kind::TreePath, "/stormkeeper/a").is_some());
        assert!(read(Kind::TreePath, "stormkeeper").is_none());
    }

    #[test]
    fn limits_are_shown_in_the_largest_unit() {
        assert_eq!(
            Kind::Secs(1, 604_800).to_string(),
            "a time from 1s to 7d, as seconds or with a unit (\"30s\", \"5m\")"
        );
        assert_eq!(
            Kind::Bytes(1 << 10, 1 << 30).to_string(),
            "a size from 1KiB to 1GiB, as bytes or with a unit (\"64MiB\")"
        );
    }
}

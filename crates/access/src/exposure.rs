//! Exposure of a daemon: the addresses on which it listens, and whether it may listen there. Pure.
//!
//! | locks | loopback | another address |
//! | --- | --- | --- |
//! | a proof is required | allowed | allowed |
//! | a proof is optional | allowed | allowed, and said |
//! | none | allowed | refused; allowed and said with `storm.insecure` |
//!
//! A listener without an address in the configuration gets the loopback, unless a proof is required or
//! the configuration names other hosts. Those hosts could not reach the loopback, so that a cluster of
//! several hosts gets the refusal in place of a silent loss.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use crate::locks::{Mode, Settings};
use stormkeeper_model::address::HostAndPort;

/// Locks in front of the listeners of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// Everybody may use them.
    Open,
    /// A proof is checked, and none is required.
    Optional,
    /// A proof is required.
    Locked,
}

impl Settings {
    /// Returns the locks of a nimbus.
    pub fn doors_of_nimbus(&self) -> Doors {
        match (self.mode, self.tokens.is_some() && self.secret.is_some()) {
            (Some(Mode::Open), _) | (_, false) => Doors::Open,
            (Some(Mode::Optional), true) => Doors::Optional,
            (Some(Mode::Required) | None, true) => Doors::Locked,
        }
    }

    /// Returns the locks of a supervisor, which needs no tokens.
    pub fn doors_of_supervisor(&self) -> Doors {
        match (self.of_supervisor(), self.secret.is_some()) {
            (Mode::Open, _) | (_, false) => Doors::Open,
            (Mode::Optional, true) => Doors::Optional,
            (Mode::Required, true) => Doors::Locked,
        }
    }
}

/// Callers of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Daemons and workers of all hosts.
    AllHosts,
    /// People and monitors; a cluster works without them.
    Monitors,
}

/// A listener of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Name for people.
    pub what: &'static str,
    /// Key of the address.
    pub key: &'static str,
    /// Address in the configuration.
    pub address: Option<IpAddr>,
    /// Callers.
    pub callers: Callers,
}

/// Setting that names another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherHost {
    /// Key of the setting.
    pub key: &'static str,
    /// The host.
    pub host: String,
}

impl OtherHost {
    /// Returns the first host in the value of a key that is not this host by its name alone.
    pub fn find<'a>(key: &'static str, mut hosts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let host = hosts.find(|host| !is_this_host(host))?.to_owned();
        Some(Self { key, host })
    }
}

/// Configuration of a daemon, as far as it decides about the exposure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Locks of the daemon.
    pub doors: Doors,
    /// True with `storm.insecure`.
    pub is_insecure: bool,
    /// `storm.local.hostname`, where it is an address.
    pub own_address: Option<IpAddr>,
    /// Another host, if the configuration names one.
    pub other_host: Option<OtherHost>,
}

/// Error of listeners that everybody could use: the daemon must not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    exposed: Vec<(Listener, IpAddr)>,
    other_host: Option<OtherHost>,
}

impl Situation {
    /// Returns the address on which `listener` listens.
    pub fn address_of(&self, listener: &Listener) -> IpAddr {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        if let Some(address) = listener.address {
            return address;
        }
        if self.doors == Doors::Locked {
            return any;
        }
        match self.own_address {
            // The host is announced at this address.
            Some(address) if is_loopback(address) => address,
            _ if self.other_host.is_some() && listener.callers == Callers::AllHosts => any,
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Decides whether the daemon may start. Returns what must be said about its listeners.
    ///
    /// # Errors
    /// [`Refused`] if everybody who reaches this host could use them, and nobody has allowed that.
    pub fn decide(&self, listeners: &[Listener]) -> Result<Option<String>, Refused> {
        let addresses = listeners.iter().map(|listener| (*listener, self.address_of(listener)));
        let exposed: Vec<_> = addresses.filter(|(_, address)| !is_loopback(*address)).collect();
        let cause = match self.doors {
            _ if exposed.is_empty() => return Ok(None),
            Doors::Locked => return Ok(None),
            Doors::Optional => "storm.access: optional",
            Doors::Open if self.is_insecure => "storm.insecure",
            // Only a listener without an address follows the other hosts.
            Doors::Open => {
                let is_chosen = exposed.iter().all(|(listener, _)| listener.address.is_some());
                let other_host = self.other_host.clone().filter(|_| !is_chosen);
                return Err(Refused { exposed, other_host });
            }
        };
        Ok(Some(format!(
            "everybody who reaches this host may use {} without a proof (`{cause}`); docs/security.md says how to lock \
             a cluster",
            named(&exposed)
        )))
    }
}

/// Returns whether an address is reached from this host only.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns whether `host` or `host:port` is this host on every host.
fn is_this_host(host: &str) -> bool {
    let name = host.parse::<HostAndPort>().map_or_else(|_| host.to_owned(), |parsed| parsed.host);
    match name.parse() {
        Ok(address) => is_loopback(address),
        Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    }
}

/// Returns the listeners with their addresses.
fn named(exposed: &[(Listener, IpAddr)]) -> String {
    let text = |(listener, address): &(Listener, IpAddr)| format!("{} on {address}", listener.what);
    exposed.iter().map(text).collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = named(&self.exposed);
        write!(f, "nothing is locked, and everybody who reaches this host could use {what}")?;
        match &self.other_host {
            Some(OtherHost { key, host }) => write!(f, ", as `{key}` names another host, {host:?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// Returns the ways to start the daemon.
    pub fn ways(&self) -> String {
        let keys: Vec<String> =
            self.exposed.iter().map(|(listener, _)| format!("`{}: 127.0.0.1`", listener.key)).collect();
        format!(
            "lock the cluster with `ui.tokens.file` and `storm.cluster.secret.file` (docs/security.md has the steps); \
             or, in a cluster on this host alone, set {}; or, in a network that you trust, set `storm.insecure: true` \
             or pass --insecure",
            keys.join(" and ")
        )
    }
}

#[cfg(test)]
mod tests;

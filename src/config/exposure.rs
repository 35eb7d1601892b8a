//! Addresses on which the daemons of this host listen, and their name for other hosts.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, value::Value};
use stormkeeper_access::exposure::{Callers, Doors, Listener, OtherHost, Refused, Situation, is_loopback};
use stormkeeper_runtime::net::ListenOn;

/// Port of an agent, unless one is set or another program has it: the port of Storm's logviewer.
const AGENT_PORT: u16 = 8000;

impl Config {
    /// Decides whether a nimbus may start. Returns what must be said about its listener.
    ///
    /// # Errors
    /// [`Refused`] if everybody could use it.
    pub fn exposure_of_nimbus(&self, is_insecure: bool) -> Result<Option<String>, Refused> {
        self.nimbus_situation(is_insecure).decide(&[self.api_listener()])
    }

    /// Decides whether a supervisor may start. Returns what must be said about its listeners.
    ///
    /// # Errors
    /// [`Refused`] if everybody could use them.
    pub fn exposure_of_supervisor(&self, is_insecure: bool) -> Result<Option<String>, Refused> {
        let listeners = [self.workers_listener(), self.agent_listener()];
        self.supervisor_situation(is_insecure).decide(&listeners)
    }

    /// Address of the API of a nimbus.
    pub(super) fn api_address(&self) -> SocketAddr {
        let address = self.nimbus_situation(false).address_of(&self.api_listener());
        SocketAddr::new(address, self.narrow("ui.port"))
    }

    /// Address of the agent of a supervisor, and whether any free port will do.
    pub(super) fn agent_address(&self) -> (SocketAddr, bool) {
        let address = self.supervisor_situation(false).address_of(&self.agent_listener());
        let port = self.port_if_set("supervisor.agent.port");
        (SocketAddr::new(address, port.unwrap_or(AGENT_PORT)), port.is_none())
    }

    /// Addresses on which workers listen.
    pub fn workers_listen_on(&self) -> ListenOn {
        let listener = self.workers_listener();
        match self.supervisor_situation(false).address_of(&listener) {
            address if is_loopback(address) => ListenOn::Address(address),
            address if listener.address.is_some() => match address.is_unspecified() && address.is_ipv6() {
                true => ListenOn::All,
                false => ListenOn::Address(address),
            },
            _ => self.own_address().map_or(ListenOn::All, ListenOn::Preferred),
        }
    }

    /// Name under which other daemons reach the nimbus of this host.
    pub fn nimbus_host(&self) -> String {
        self.host_at(self.api_address().ip())
    }

    /// Name under which other daemons reach the workers of this host.
    pub fn supervisor_host(&self) -> String {
        match self.workers_listen_on() {
            ListenOn::Address(address) => self.host_at(address),
            ListenOn::All | ListenOn::Preferred(_) => self.host_name(),
        }
    }

    /// Returns the name of what listens at `address`: on loopback the name of the system leads nowhere.
    fn host_at(&self, address: IpAddr) -> String {
        match (self.value("storm.local.hostname"), is_loopback(address)) {
            (Value::Unset, true) => address.to_string(),
            _ => self.host_name(),
        }
    }

    /// Name of this host for other daemons.
    pub(super) fn host_name(&self) -> String {
        let Value::Text(name) = self.value("storm.local.hostname") else { return self.hostname.clone() };
        name.clone()
    }

    fn nimbus_situation(&self, is_insecure: bool) -> Situation {
        self.situation(self.access_settings().doors_of_nimbus(), is_insecure)
    }

    fn supervisor_situation(&self, is_insecure: bool) -> Situation {
        self.situation(self.access_settings().doors_of_supervisor(), is_insecure)
    }

    fn situation(&self, doors: Doors, is_insecure: bool) -> Situation {
        let own_name = match self.value("storm.local.hostname") {
            Value::Text(name) => Some(name.as_str()),
            _ => None,
        };
        let other_host = OtherHost::find("nimbus.seeds", self.hosts("nimbus.seeds"))
            .or_else(|| OtherHost::find("storm.zookeeper.servers", self.hosts("storm.zookeeper.servers")))
            .or_else(|| OtherHost::find("storm.local.hostname", own_name.into_iter()));
        let is_insecure = is_insecure || self.flag("storm.insecure");
        Situation { doors, is_insecure, own_address: self.own_address(), other_host }
    }

    /// `storm.local.hostname`, where it is an address.
    fn own_address(&self) -> Option<IpAddr> {
        let Value::Text(name) = self.value("storm.local.hostname") else { return None };
        name.parse().ok()
    }

    fn api_listener(&self) -> Listener {
        let address = self.address_if_set("ui.host");
        Listener { what: "its API", key: "ui.host", address, callers: Callers::AllHosts }
    }

    fn workers_listener(&self) -> Listener {
        let key = "supervisor.worker.host";
        Listener { what: "its workers", key, address: self.address_if_set(key), callers: Callers::AllHosts }
    }

    fn agent_listener(&self) -> Listener {
        let key = "supervisor.agent.host";
        Listener { what: "its agent", key, address: self.address_if_set(key), callers: Callers::Monitors }
    }

    fn address_if_set(&self, key: &str) -> Option<IpAddr> {
        match self.value(key) {
            Value::Address(address) => Some(*address),
            _ => None,
        }
    }
}

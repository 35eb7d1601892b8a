//! Slots whose port another program uses.
//!
//! Such a slot is not offered to the leader, which places tasks in other slots, and is offered again
//! once the port is free. Only ports of slots without a process are checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{agent::Event, process::Processes};
use stormkeeper_model::Port;

/// Period of checking the ports: a check of a port is one system call, and an operator who has freed
/// a port is still watching.
const CHECK_PERIOD: Duration = Duration::from_secs(2);

/// Ports that no worker can listen on, with the reason.
#[derive(Debug, Default)]
pub(super) struct TakenPorts(BTreeMap<Port, Arc<str>>);

/// Result of a check: every checked port, with the reason why no worker can listen on it.
pub(super) type Checked = BTreeMap<Port, Option<Arc<str>>>;

/// The ports to check, and whether a result is awaited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ToCheck {
    ports: BTreeSet<Port>,
    some_are_taken: bool,
}

impl ToCheck {
    /// Sets both; returns whether that is a change.
    pub(super) fn set(&mut self, ports: BTreeSet<Port>, some_are_taken: bool) -> bool {
        let next = Self { ports, some_are_taken };
        let has_changed = *self != next;
        *self = next;
        has_changed
    }
}

impl TakenPorts {
    /// Adds a port, found taken by a launch.
    pub(super) fn add(&mut self, port: Port, reason: &str) {
        self.0.insert(port, reason.into());
    }

    /// Records a check, and returns the ports that have become free. A port that a worker of ours
    /// has by now, according to `is_occupied`, is not taken.
    pub(super) fn update(&mut self, checked: Checked, is_occupied: impl Fn(Port) -> bool) -> Vec<Port> {
        let mut freed = Vec::new();
        for (port, reason) in checked {
            match reason.filter(|_| !is_occupied(port)) {
                Some(reason) => {
                    if self.0.insert(port, Arc::clone(&reason)).is_none() {
                        warn!(%port, %reason, "a slot is not offered until its port is free");
                    }
                }
                None => {
                    if self.0.remove(&port).is_some() {
                        info!(%port, "the port of a slot is free again; offering the slot");
                        freed.push(port);
                    }
                }
            }
        }
        freed
    }

    pub(super) fn is_taken(&self, port: Port) -> bool {
        self.0.contains_key(&port)
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Port, &str)> {
        self.0.iter().map(|(port, reason)| (*port, &**reason))
    }
}

/// Checks `ports` once.
pub(super) async fn check(processes: &dyn Processes, ports: BTreeSet<Port>) -> Checked {
    let mut checked = Checked::new();
    for port in ports {
        checked.insert(port, processes.port_obstacle(port).await.map(Into::into));
    }
    checked
}

/// Checks the ports as long as the agent runs. A check is reported if a port is taken, or was.
pub(super) async fn run(
    processes: Arc<dyn Processes>,
    to_check: watch::Receiver<ToCheck>,
    events: mpsc::Sender<Event>,
) {
    loop {
        tokio::time::sleep(CHECK_PERIOD).await;
        let (ports, some_were_taken) = {
            let to_check = to_check.borrow();
            (to_check.ports.clone(), to_check.some_are_taken)
        };
        let checked = check(&*processes, ports).await;
        if !some_were_taken && checked.values().all(Option::is_none) {
            continue;
        }
        if events.send(Event::PortsChecked(checked)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_taken_until_a_check_finds_it_free_or_a_worker_has_it() {
        let (a, b) = (Port(1), Port(2));
        let checked = |a_reason: Option<&str>, b_reason: Option<&str>| {
            Checked::from([(a, a_reason.map(Into::into)), (b, b_reason.map(Into::into))])
        };
        let mut taken = TakenPorts::default();
        assert_eq!(taken.update(checked(Some("why"), None), |_| false), []);
        assert_eq!(taken.iter().collect::<Vec<_>>(), [(a, "why")]);
        assert_eq!(taken.update(checked(Some("why"), Some("why")), |port| port == a), [a]);
        assert_eq!(taken.iter().collect::<Vec<_>>(), [(b, "why")]);
        assert_eq!(taken.update(checked(None, None), |_| false), [b]);
        assert!(!taken.any());
    }
}

//! The topology masters of the fake workers, and the connections to them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;

use crate::network::LATENCY;
use stormkeeper_model::{Slot, TopologyId};
use stormkeeper_runtime::tasks::Tasks;
use stormkeeper_worker::{
    MasterAddress, MasterEnd, MasterLink, fake_worker::MasterPort, transport::Identity,
};

/// The topology masters of all workers. A worker that has ended accepts no connection.
#[derive(Debug, Default)]
pub(super) struct Masters {
    // Guards the last worker of each topology in each slot; held for a few instructions.
    ports: Mutex<BTreeMap<(TopologyId, Slot), MasterPort>>,
}

impl Masters {
    pub(super) fn add(&self, worker: Identity, port: MasterPort) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.insert((worker.topology, worker.slot), port);
    }
}

#[async_trait]
impl MasterLink for Masters {
    async fn connect(
        &self,
        me: &Identity,
        to: MasterAddress<'_>,
        end: MasterEnd,
        _tasks: &Tasks,
    ) -> io::Result<()> {
        tokio::time::sleep(LATENCY).await;
        let worker = (me.topology.clone(), to.slot.clone());
        let port = self.ports.lock().unwrap_or_else(PoisonError::into_inner).get(&worker).cloned();
        match port.is_some_and(|port| port.connect(end)) {
            true => Ok(()),
            false => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

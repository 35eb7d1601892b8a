//! Writes that clients request, each executed by the leader task between two rounds.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::info;

use super::LeaderLoop;
use crate::{
    change::{self, Change},
    credentials,
    drain::{self, DrainChange},
    quota,
    refusal::Refusal,
    submit::{self, PreparedTopology},
};
use stormkeeper_access::{file::WatchedFile, quota::Quotas};
use stormkeeper_coordination::cluster::{layout, record::TopologyRecord, view::ClusterView};
use stormkeeper_model::{HostName, Timestamp, TopologyId};

/// A write requested by a client.
#[derive(Debug)]
pub(crate) enum Command {
    Submit {
        prepared: Box<PreparedTopology>,
        by: Option<String>,
        reply: oneshot::Sender<Result<(TopologyId, TopologyRecord), Refusal>>,
    },
    Change {
        topology: String,
        change: Change,
        by: Option<String>,
        reply: oneshot::Sender<Result<(TopologyId, TopologyRecord), Refusal>>,
    },
    Drain {
        host: HostName,
        change: DrainChange,
        by: Option<String>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Makes the leader task panic.
    #[cfg(test)]
    Panic,
}

impl Command {
    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Submit { reply, .. } | Self::Change { reply, .. } => {
                // The caller may have gone.
                let _gone = reply.send(Err(refusal));
            }
            Self::Drain { reply, .. } => {
                let _gone = reply.send(Err(refusal));
            }
            #[cfg(test)]
            Self::Panic => {}
        }
    }
}

impl LeaderLoop {
    pub(super) async fn execute(&mut self, command: Command) {
        let now = self.context.clock.now();
        let term = self.writer.term();
        // A command sees the writes of the last one, and every topology: the previous leader may
        // have added one a moment ago.
        let view = match self.context.observer.read_written(Vec::new()).await {
            Ok(view) => view,
            Err(error) => return command.refuse(error.into()),
        };
        let (result, reply, verb, by) = match command {
            Command::Submit { prepared, by, reply } => {
                let result = self.submit((&prepared, &by), now, &view).await;
                (result, reply, "submit", by)
            }
            Command::Change { topology, change, by, reply } => {
                let result = self.change(&topology, (&change, &by), now, &view).await;
                (result, reply, change.verb(), by)
            }
            Command::Drain { host, change, by, reply } => {
                let result = drain::execute(&host, (change, &by), now, &view, &self.writer).await;
                match &result {
                    Ok(()) => info!(%term, %host, by, "{}", change.verb()),
                    Err(refusal) => info!(%term, %host, %refusal, "{} was rejected", change.verb()),
                }
                self.read_written(vec![layout::drain(&host)]).await;
                // The caller may have gone; the change stands.
                let _gone = reply.send(result);
                return;
            }
            #[cfg(test)]
            Command::Panic => panic!("a test asked for this panic"),
        };
        match &result {
            Ok((id, topology_record)) => {
                info!(%term, topology = %id, status = %topology_record.status, by, "{verb}")
            }
            Err(refusal) => info!(%term, %refusal, by, "{verb} was rejected"),
        }
        // The next round must decide on the state after this write.
        if let Ok((id, _)) = &result {
            self.read_written(layout::records_of(id)).await;
        }
        // The caller may have gone; the change stands.
        let _gone = reply.send(result);
    }

    async fn submit(
        &mut self,
        (prepared, by): (&PreparedTopology, &Option<String>),
        now: Timestamp,
        view: &ClusterView,
    ) -> Result<(TopologyId, TopologyRecord), Refusal> {
        quota::check_submit(view, self.quotas().as_deref(), prepared)?;
        let store = &self.context.store;
        submit::execute((prepared, by), &mut self.ids, now, view, store, &self.writer).await
    }

    async fn change(
        &self,
        topology: &str,
        (change, by): (&Change, &Option<String>),
        now: Timestamp,
        view: &ClusterView,
    ) -> Result<(TopologyId, TopologyRecord), Refusal> {
        let id = change::find(view, topology)?;
        let topology_record = match change {
            Change::Credentials(request) => {
                let secrets = self.secrets();
                let known = (view, secrets.as_deref());
                let writes = (&self.context.store, &self.writer);
                credentials::execute(&id, (request, by), now, known, writes).await?
            }
            Change::Rebalance(request) => {
                quota::check_rebalance(view, self.quotas().as_deref(), &id, request)?;
                change::execute(&id, (change, by), now, &self.context.store, &self.writer).await?
            }
            Change::Update(package) => {
                quota::check_update(view, self.quotas().as_deref(), &id, package)?;
                change::execute(&id, (change, by), now, &self.context.store, &self.writer).await?
            }
            _ => change::execute(&id, (change, by), now, &self.context.store, &self.writer).await?,
        };
        Ok((id, topology_record))
    }

    /// The quotas of owners, as last read.
    fn quotas(&self) -> Option<Arc<Quotas>> {
        self.context.options.quotas.as_ref().map(WatchedFile::get)
    }
}

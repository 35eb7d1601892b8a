//! Connection of a worker to the topology master in another process.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use tokio::{net::TcpStream, time::timeout};
use tracing::debug;

use super::messages::{self, Duplex, MAGIC, MasterReply, VERSION, WorkerMessage};
use crate::transport::{Identity, PeerKeys, PeerStream, greet, wire::Hello};
use stormkeeper_model::Slot;
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Time limit for connecting to the master, including the handshake.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The master's end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub struct MasterEnd(pub(crate) Duplex<MasterReply, WorkerMessage>);

/// Address of a topology master in another process.
#[derive(Debug, Clone, Copy)]
pub struct MasterAddress<'a> {
    /// Slot of the master's worker.
    pub slot: &'a Slot,
    /// Host of the master's worker.
    pub host: &'a str,
}

/// Connections to topology masters in other processes.
#[async_trait]
pub trait MasterLink: fmt::Debug + Send + Sync {
    /// Connects `end` to the master, for the worker `me`. Tasks that serve the connection run in
    /// `tasks`. The connection may be closed at any time.
    ///
    /// # Errors
    /// If there is no connection. The caller tries again.
    async fn connect(
        &self,
        me: &Identity,
        to: MasterAddress<'_>,
        end: MasterEnd,
        tasks: &Tasks,
    ) -> io::Result<()>;
}

/// Connections over TCP, to the ports for tuples.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpMasterLink {
    /// Keys with which the worker proves that it is one of its topology, and its TLS.
    pub(crate) keys: PeerKeys,
}

#[async_trait]
impl MasterLink for TcpMasterLink {
    async fn connect(
        &self,
        me: &Identity,
        to: MasterAddress<'_>,
        end: MasterEnd,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let opened = timeout(CONNECT_DEADLINE, open_connection(me, to, &self.keys)).await;
        let stream = opened.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
        tasks.start("metric reports to the topology master", OnExit::Ignore, async move {
            let error = messages::run_connection(stream, end.0, None).await;
            debug!(%error, "the connection to the topology master ended");
        });
        Ok(())
    }
}

/// Connects to the master's worker and performs the handshake for reports.
async fn open_connection(me: &Identity, to: MasterAddress<'_>, keys: &PeerKeys) -> io::Result<PeerStream> {
    let hello = Hello { topology: me.topology.clone(), to: to.slot.clone(), from: me.slot.clone() };
    let stream = TcpStream::connect((to.host, to.slot.port.0)).await?;
    let mut stream = PeerStream::connect(stream, keys).await?;
    greet(&mut stream, (MAGIC, VERSION), &hello, keys).await.map_err(io::Error::other)?;
    Ok(stream)
}

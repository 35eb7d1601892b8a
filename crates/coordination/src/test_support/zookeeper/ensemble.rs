//! Servers of one ZooKeeper.

use tokio::sync::{Mutex, MutexGuard};

use super::{
    Error, ZooKeeperServer, free_ports, options,
    setup::{PRODUCTION_SETUP, Setup, TEST_SETUP},
};
use crate::tree::{TreePath, options::Options};

/// The servers of one ZooKeeper: a single server, or three or more that elect a leader among
/// themselves.
#[derive(Debug)]
pub struct Ensemble {
    /// Its servers.
    pub servers: Vec<ZooKeeperServer>,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Held by the one test that runs several servers: on two cores, two ensembles at the same time
/// only slow each other down.
static ENSEMBLE_TURN: Mutex<()> = Mutex::const_new(());

impl Ensemble {
    /// Starts `n` servers and waits until all of them serve. With more than one, only one
    /// ensemble runs at a time.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn start(n: usize) -> Result<Self, Error> {
        Self::start_with(TEST_SETUP, n).await
    }

    /// As [`Ensemble::start`], with the settings of servers in production, for measurements.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn start_as_deployed(n: usize) -> Result<Self, Error> {
        Self::start_with(PRODUCTION_SETUP, n).await
    }

    async fn start_with(setup: Setup, n: usize) -> Result<Self, Error> {
        let turn = if n > 1 { Some(ENSEMBLE_TURN.lock().await) } else { None };
        let ports = free_ports(3 * n)?;
        let (clients, peers) = ports.split_at(n);
        let peers = peers.chunks(2).enumerate().filter(|_| n > 1);
        let members: String = peers
            .map(|(i, ports)| format!("server.{}=127.0.0.1:{}:{}\n", i + 1, ports[0], ports[1]))
            .collect();
        let servers = clients.iter().enumerate();
        let servers = servers.map(|(i, &port)| ZooKeeperServer::create(setup, i + 1, port, &members));
        let mut ensemble = Self { servers: servers.collect::<Result<_, _>>()?, _turn: turn };
        ensemble.restart().await?;
        Ok(ensemble)
    }

    /// Starts all servers again, on their data, and waits until all of them serve.
    ///
    /// # Errors
    /// As [`ZooKeeperServer::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill9();
        for server in &mut self.servers {
            server.launch()?;
        }
        // No server responds before most of the servers are up.
        for server in &mut self.servers {
            server.wait_until_serving().await?;
        }
        Ok(())
    }

    /// Kills all servers. Their data stays.
    pub fn kill9(&mut self) {
        for server in &mut self.servers {
            server.kill9();
        }
    }

    /// Index of the server that leads the ensemble; `None` during an election, or for a single
    /// server.
    pub async fn leading(&self) -> Option<usize> {
        for (i, server) in self.servers.iter().enumerate() {
            // A server that does not respond is not the leader.
            if server.ask("srvr").await.is_ok_and(|response| response.contains("Mode: leader")) {
                return Some(i);
            }
        }
        None
    }

    /// Options to connect to the ensemble, at `root`.
    pub fn options(&self, root: TreePath) -> Options {
        options(self.servers.iter().map(ZooKeeperServer::address).collect(), root)
    }
}

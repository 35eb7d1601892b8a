//! Another process with the id of this nimbus, as after a copy of its data directory.
//!
//! The lock on a data directory does not cover its copies. Two processes with one id would take each
//! other's `/leader` for a leftover of their own former session, and replace it for ever. So a nimbus
//! neither registers nor campaigns before it has asked the address in the registration of its id: a
//! dead former session does not answer, a twin does. The process that started later ends, with an error
//! that names its directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::{debug, error};

use stormkeeper_api_types::leader_clock::{NimbusTime, ProcessName};
use stormkeeper_coordination::{
    cluster::{
        record::NimbusRecord,
        store::{self, Store},
    },
    tree,
};
use stormkeeper_model::{NimbusId, Timestamp, backoff::Delays};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Pause between two checks of a nimbus that runs: two processes may start at the same moment.
const PERIOD: Duration = Duration::from_secs(10);

/// Bounds of the pause after a failed read.
const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(2));

/// Another live process with the id of this nimbus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another nimbus with the id {id} runs at {api}: {} is a copy of its data directory, or the other way round. This \
     nimbus ends and has changed nothing; give it another storm.local.dir, or delete the file nimbus-id in {}, so that \
     it gets an id of its own", dir.display(), dir.display()
)]
pub struct Twin {
    /// The common id.
    pub id: NimbusId,
    /// Address of the other process.
    pub api: String,
    /// Data directory of this process.
    pub dir: PathBuf,
}

/// Search for a twin of this process.
#[derive(Debug)]
struct TwinSearch {
    me: NimbusId,
    api: String,
    start: Timestamp,
    dir: PathBuf,
    store: Store,
    nimbuses: Arc<dyn NimbusTime>,
    /// The twin for which this process ends.
    found: Arc<OnceLock<Twin>>,
}

/// Starts the search for a twin of the process with this id, registration and data directory; without a
/// client there is none. Returns the twin for which this process ends, once it is found, and whether
/// this process may register and campaign.
pub(super) fn search(
    nimbuses: Option<Arc<dyn NimbusTime>>,
    (me, own, dir): (&NimbusId, &NimbusRecord, &Path),
    store: &Store,
    tasks: &Tasks,
) -> (Arc<OnceLock<Twin>>, watch::Receiver<bool>) {
    let found: Arc<OnceLock<Twin>> = Arc::default();
    let (is_alone, alone) = watch::channel(nimbuses.is_none());
    if let Some(nimbuses) = nimbuses {
        let search = TwinSearch {
            me: me.clone(),
            api: own.api.clone(),
            start: own.start,
            dir: std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()),
            store: store.clone(),
            nimbuses,
            found: Arc::clone(&found),
        };
        tasks.start("search for a twin", OnExit::StopOwner, search.run(is_alone));
    }
    (found, alone)
}

impl TwinSearch {
    /// Runs until this process must end for a twin. Sets `is_alone` once this process may register and
    /// campaign.
    async fn run(self, is_alone: watch::Sender<bool>) {
        let mut backoff = RETRY.backoff();
        loop {
            let pause = match self.twins().await {
                Ok(twins) => {
                    backoff.reset();
                    let is_first = !*is_alone.borrow();
                    // A process that has registered gives way only to one that started before.
                    let twin = twins.into_iter().find(|(_, other)| is_first || self.is_later_than(other));
                    if let Some((api, _)) = twin {
                        let twin = Twin { id: self.me.clone(), api, dir: self.dir.clone() };
                        error!(%twin, "this nimbus ends");
                        let _first = self.found.set(twin);
                        return;
                    }
                    is_alone.send_replace(true);
                    PERIOD
                }
                Err(error) => {
                    debug!(%error, "cannot read whether another process has the id of this nimbus; retrying");
                    backoff.next_delay()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns the live processes with the id of this nimbus, with their addresses.
    async fn twins(&self) -> Result<Vec<(String, ProcessName)>, tree::Error> {
        let registered = match self.store.nimbus(&self.me).await {
            Ok(registered) => registered,
            Err(store::Error::Tree(error)) if error.root().is_retryable() => return Err(error),
            // A record that cannot be read must not keep this nimbus from registering.
            Err(_) => None,
        };
        let leader = self.store.leader().await.unwrap_or_default().filter(|leader| leader.nimbus == self.me);
        let addresses = addresses(registered.as_ref(), leader.map(|leader| leader.api));
        let mut twins = Vec::new();
        // The own port is bound by this process, so nobody else answers there.
        for api in addresses.into_iter().filter(|api| *api != self.api) {
            let answer = self.nimbuses.ask(&api).await.ok().and_then(|answer| answer.process);
            // This process may be reached at its former address too.
            twins.extend(
                answer.filter(|other| other.is_of(&self.me) && other.start != self.start).map(|it| (api, it)),
            );
        }
        Ok(twins)
    }

    fn is_later_than(&self, other: &ProcessName) -> bool {
        self.start > other.start
    }
}

fn addresses(registered: Option<&NimbusRecord>, leader: Option<String>) -> BTreeSet<String> {
    registered.map(|record| record.api.clone()).into_iter().chain(leader).collect()
}

//! Credentials of topologies, for the workers that run here.
//!
//! The tree has them encrypted ([`stormkeeper_access::sealed`]). The supervisor opens them with the
//! cluster secret, and writes them into the directory of each worker of the topology, where components
//! find them. When they change, the files are replaced within seconds, and no worker restarts.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::{run_as::FilesPlace, status::Status};
use stormkeeper_access::{locks::Locks, sealed::Sealed, secret::Secrets};
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::CredentialsRecord,
        store::{self, Store},
    },
    tree::Scope,
};
use stormkeeper_model::{TopologyId, WorkerId};
use stormkeeper_runtime::{blocking, watch};
use stormkeeper_topology_package::launch::CREDENTIALS_FILE;

/// Period of reading everything again, in case an event was lost.
const PERIOD: Duration = Duration::from_secs(30);

/// Time after which the credentials are read again if that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Maximum wait for the credentials of a worker that is launched. Afterwards it gets those that are
/// known, and the others as soon as they are read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Content of the file without credentials.
const NONE: &str = "{}\n";

/// Credentials of the topologies that run here, encrypted as last read. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownCredentials(
    // Held for a look-up or an exchange; has an entry for each topology in a slot.
    Arc<Mutex<BTreeMap<TopologyId, Option<CredentialsRecord>>>>,
);

impl KnownCredentials {
    fn get(&self, topology: &TopologyId) -> Option<Option<CredentialsRecord>> {
        self.0.lock().expect("nobody panics while holding the credentials").get(topology).cloned()
    }

    /// Replaces those of a topology. Returns whether they differ.
    fn set(&self, topology: &TopologyId, record: Option<CredentialsRecord>) -> bool {
        let mut known = self.0.lock().expect("nobody panics while holding the credentials");
        let before = known.insert(topology.clone(), record.clone());
        before != Some(record)
    }

    fn retain(&self, is_here: impl Fn(&TopologyId) -> bool) {
        let mut known = self.0.lock().expect("nobody panics while holding the credentials");
        known.retain(|topology, _| is_here(topology));
    }

    /// Reads the credentials of a topology whose worker is launched.
    pub(super) async fn read_for_launch(&self, topology: &TopologyId, store: &Store) {
        let read = tokio::time::timeout(READ_TIMEOUT, store.credentials(topology)).await;
        match read {
            Ok(Ok(record)) => _ = self.set(topology, record.map(|stored| stored.value)),
            Ok(Err(error)) => {
                warn!(%topology, %error, "cannot read the credentials of a topology; its worker starts")
            }
            Err(_too_long) => warn!(%topology, "no credentials of a topology in time; its worker starts"),
        }
    }

    /// Writes the credentials of a topology into the directory of one of its workers, as far as they are
    /// known. What cannot be opened leaves the file as it is. Blocks.
    ///
    /// # Errors
    /// If the file cannot be written; the one before is still there then.
    pub(super) fn put(&self, place: &FilesPlace, topology: &TopologyId, locks: &Locks) -> io::Result<()> {
        let (Some(secrets), Some(record)) = (locks.secrets(), self.get(topology)) else { return Ok(()) };
        let Some(text) = text(topology, record.as_ref(), &secrets.get()) else { return Ok(()) };
        place.replace_secret(CREDENTIALS_FILE, &text)
    }
}

/// Returns the content of the file; `None` if the credentials cannot be opened.
fn text(topology: &TopologyId, record: Option<&CredentialsRecord>, secrets: &Secrets) -> Option<String> {
    let Some(record) = record else { return Some(NONE.to_owned()) };
    let sealed = Sealed { key: record.key.clone(), data: record.sealed.clone() };
    match secrets.open(topology, record.number, &sealed) {
        Ok(values) => String::from_utf8(values).ok().map(|text| text + "\n"),
        Err(error) => {
            warn!(%topology, %error, "cannot open the credentials of a topology; its workers keep those that they have");
            None
        }
    }
}

/// Reads the credentials of the topologies that run here, and writes the files of their workers.
#[derive(Debug)]
pub(super) struct CredentialsReader {
    pub(super) store: Store,
    pub(super) known: KnownCredentials,
    pub(super) locks: Locks,
    pub(super) local_dir: PathBuf,
    /// The status of the supervisor, which names the workers that run here.
    pub(super) status: watch::Receiver<Status>,
}

impl CredentialsReader {
    /// Serves until it is dropped.
    pub(super) async fn run(mut self) {
        let mut watcher = self.store.tree().watch(&layout::credentials_parent(), Scope::Subtree);
        let mut pass = tokio::time::interval(PERIOD);
        pass.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_behind = false;
        loop {
            tokio::select! {
                // Cancel-safe: a tick that is not returned is still due.
                _tick = pass.tick() => {}
                // Cancel-safe: a change that is not returned stays pending.
                _changes = watcher.changed() => {}
                // Cancel-safe: a sleep has no state.
                () = tokio::time::sleep(RETRY), if is_behind => {}
            }
            is_behind = match self.pass().await {
                Ok(()) => false,
                Err(error) => {
                    debug!(%error, "cannot read the credentials of topologies; trying again");
                    true
                }
            };
        }
    }

    async fn pass(&mut self) -> Result<(), store::Error> {
        let here: Vec<(TopologyId, Option<WorkerId>)> = {
            let status = self.status.borrow_and_update();
            let slots = status.slots.values();
            slots.filter_map(|slot| Some((slot.topology.clone()?, slot.worker.clone()))).collect()
        };
        self.known.retain(|topology| here.iter().any(|(id, _)| id == topology));
        let mut changed = BTreeMap::new();
        for (topology, _) in &here {
            if !changed.contains_key(topology) {
                let record = self.store.credentials(topology).await?.map(|stored| stored.value);
                changed.insert(topology.clone(), self.known.set(topology, record));
            }
        }
        for (topology, worker) in here {
            let Some(worker) = worker.filter(|_| changed.get(&topology) == Some(&true)) else { continue };
            self.write(topology, &worker).await;
        }
        Ok(())
    }

    async fn write(&self, topology: TopologyId, worker: &WorkerId) {
        let (known, locks) = (self.known.clone(), self.locks.clone());
        let (local_dir, id) = (self.local_dir.clone(), worker.clone());
        let write = move || known.put(&FilesPlace::of_worker(&local_dir, &id)?, &topology, &locks);
        let written = blocking::run(write).await;
        match written {
            Ok(()) => info!(%worker, "wrote the credentials of a worker"),
            Err(error) => {
                warn!(%worker, %error, "cannot write the credentials of a worker; trying again in 10 s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use stormkeeper_access::{file::create_secret, locks::Settings};
    use stormkeeper_coordination::cluster::record::UnknownFields;

    #[test]
    fn file_of_a_worker_has_the_values_of_its_topology_and_keeps_them_when_others_cannot_be_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = dir.path().join("secret");
        create_secret(&secret, &"a".repeat(32)).expect("written");
        let settings = Settings { secret: Some(secret), ..Settings::default() };
        let locks = Locks::of_supervisor(&settings).expect("valid");
        let (wc, known): (TopologyId, _) = ("wc-1-1".parse().expect("valid"), KnownCredentials::default());
        let path = dir.path().join(CREDENTIALS_FILE);
        known.put(&FilesPlace::plain(dir.path()), &wc, &locks).expect("nothing is known");
        assert!(!path.exists());
        known.set(&wc, None);
        known.put(&FilesPlace::plain(dir.path()), &wc, &Locks::open()).expect("no secret");
        assert!(!path.exists());
        known.put(&FilesPlace::plain(dir.path()), &wc, &locks).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "{}\n");

        let sealed = locks.secrets().expect("there").get().seal(&wc, 3, b"{\"db\":\"s3cr3t\"}");
        let Sealed { key, data } = sealed.expect("sealed");
        let record = CredentialsRecord {
            number: 3,
            entries: BTreeMap::new(),
            key,
            sealed: data,
            unknown_fields: UnknownFields::new(),
        };
        assert!(known.set(&wc, Some(record.clone())), "they differ");
        assert!(!known.set(&wc, Some(record.clone())), "they are the same");
        known.put(&FilesPlace::plain(dir.path()), &wc, &locks).expect("written");
        let expected = "{\"db\":\"s3cr3t\"}\n";
        assert_eq!(fs::read_to_string(&path).expect("there"), expected);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        known.set(&wc, Some(CredentialsRecord { number: 4, ..record.clone() }));
        known.put(&FilesPlace::plain(dir.path()), &wc, &locks).expect("nothing is written");
        assert_eq!(fs::read_to_string(&path).expect("there"), expected);
        // A record that was copied to another topology does not open there.
        let other: TopologyId = "other-1-1".parse().expect("valid");
        let foreign = tempfile::tempdir().expect("a directory");
        known.set(&other, Some(record));
        known.put(&FilesPlace::plain(foreign.path()), &other, &locks).expect("nothing is written");
        assert!(!foreign.path().join(CREDENTIALS_FILE).exists());
    }
}

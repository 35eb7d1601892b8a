//! Users of the tree, and which znodes each of them may write.
//!
//! | user | may write |
//! | --- | --- |
//! | nimbus | everything |
//! | supervisor | `/supervisors`, `/stopped-supervisors`, and the errors of tasks |
//! | worker of a topology | the heartbeats and the errors of its topology |
//! | anyone | nothing; everybody may read, except the credentials of topologies |
//!
//! Each znode gets the whole list when it is created, also those that supervisors and workers create,
//! so every process knows the ids of the others. The password of a worker is derived from a key and
//! the topology's id: a nimbus computes its id without a message, and no worker can act for another
//! topology.

mod file;
mod files;
mod held;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

pub use self::{
    file::InvalidFile,
    files::{Mismatch, UserFiles, UserKind},
    held::{HeldUsers, Lack, LiveDaemon},
};
use crate::{
    cluster::layout::{self, OtherWriters},
    tree::{
        TreePath,
        access::{AccessRules, Acl, Credential, DigestId, Rights, SaslUser, Who},
    },
};
use stormkeeper_model::TopologyId;

/// Bytes of a [`WorkerKey`].
const KEY_BYTES: usize = 32;

/// Name of the user of every worker. The digests of two topologies differ.
const WORKER: &str = "worker";

/// Key from which the passwords of workers are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerKey([u8; KEY_BYTES]);

impl WorkerKey {
    /// Returns the user of the workers of a topology.
    pub fn user_of(&self, id: &TopologyId) -> Credential {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"stormkeeper: worker at ZooKeeper\0");
        mac.update(id.as_str().as_bytes());
        let password: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Credential::new(WORKER, &password).expect("64 hex digits are a password")
    }
}

impl std::fmt::Debug for WorkerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkerKey(…)")
    }
}

/// Reason why a process does not go on with the users of a changed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSuccessor {
    /// They are those of another kind of daemon.
    #[error("it is the file of a {is} now, and this is a {wanted}")]
    Kind {
        /// Kind of the file.
        is: &'static str,
        /// Kind of the daemon.
        wanted: &'static str,
    },
    /// No password is the same.
    #[error(
        "none of its own passwords is one of those in force: it may be the file of another cluster; a password is \
         replaced by `zookeeper users --add` and `--remove-old`, and if the file is right, restart the daemon"
    )]
    Strange,
}

/// Users of the tree, as one process knows them. While a password is replaced there are several users
/// of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    own: Vec<Credential>,
    nimbuses: Vec<DigestId>,
    supervisors: Vec<DigestId>,
    /// Keys of the workers of every topology; a worker has none.
    worker_keys: Vec<WorkerKey>,
    /// Users of the topology of a worker; only a worker has them.
    workers: Vec<DigestId>,
    /// True while a cluster gets users: what is created stays open to anyone.
    open: bool,
    /// User by whom this process opens sessions.
    sasl: Option<SaslUser>,
    /// User by whom workers open sessions; a worker has it as its own.
    sasl_of_workers: Option<SaslUser>,
}

impl Users {
    /// Returns the users of this process, at least one.
    pub fn own(&self) -> &[Credential] {
        &self.own
    }

    /// Returns what a worker of the topology may know: its own users, and the ids of the others.
    pub fn of_worker(&self, id: &TopologyId) -> Self {
        let own: Vec<Credential> = self.worker_keys.iter().map(|key| key.user_of(id)).collect();
        Self {
            workers: own.iter().map(Credential::id).collect(),
            own,
            nimbuses: self.nimbuses.clone(),
            supervisors: self.supervisors.clone(),
            worker_keys: Vec::new(),
            open: self.open,
            sasl: self.sasl_of_workers.clone(),
            sasl_of_workers: None,
        }
    }

    /// Returns the user by whom this process opens sessions, where the servers demand SASL.
    pub fn sasl(&self) -> Option<&SaslUser> {
        self.sasl.as_ref()
    }

    /// True if this process has a user by whom sessions are opened, and its workers have none.
    pub fn lacks_sasl_of_workers(&self) -> bool {
        self.sasl.is_some() && self.sasl_of_workers.is_none()
    }

    /// True if what this process creates stays open to anyone.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Checks that a process with these users can go on with others: that they are of the same kind of
    /// daemon, and that a password is the same, as after each step of a replacement.
    ///
    /// # Errors
    /// [`NoSuccessor`].
    pub fn check_successor(&self, next: &Self) -> Result<(), NoSuccessor> {
        match (self.is_nimbus(), next.is_nimbus()) {
            (true, false) => return Err(NoSuccessor::Kind { is: "supervisor", wanted: "nimbus" }),
            (false, true) => return Err(NoSuccessor::Kind { is: "nimbus", wanted: "supervisor" }),
            (true, true) | (false, false) => {}
        }
        match self.own.iter().any(|own| next.own.contains(own)) {
            true => Ok(()),
            false => Err(NoSuccessor::Strange),
        }
    }

    /// True if one of this process's users is a nimbus's.
    pub fn is_nimbus(&self) -> bool {
        self.own.iter().any(|credential| self.nimbuses.contains(&credential.id()))
    }

    fn workers_of(&self, id: &str) -> Vec<DigestId> {
        let derived = id.parse().ok().into_iter().flat_map(|id: TopologyId| {
            self.worker_keys.iter().map(move |key| key.user_of(&id).id()).collect::<Vec<_>>()
        });
        self.workers.iter().cloned().chain(derived).collect()
    }
}

impl AccessRules for Users {
    fn acl_of(&self, path: &TreePath) -> Vec<Acl> {
        let supervisors = |rights| (self.supervisors.clone(), rights);
        let workers = |id, rights| (self.workers_of(id), rights);
        let others = match layout::other_writers(path) {
            OtherWriters::None => Vec::new(),
            OtherWriters::NoneAndSupervisorsRead => vec![supervisors(Rights::Read)],
            OtherWriters::SupervisorsBelow => vec![supervisors(Rights::ReadAndChildren)],
            OtherWriters::Supervisors => vec![supervisors(Rights::ReadAndWrite)],
            OtherWriters::WorkersBelow(id) => vec![workers(id, Rights::ReadAndChildren)],
            OtherWriters::Workers(id) => vec![workers(id, Rights::ReadAndWrite)],
            OtherWriters::WorkersAndSupervisors(id) => {
                vec![workers(id, Rights::ReadAndWrite), supervisors(Rights::ReadAndWrite)]
            }
        };
        let nimbuses = (self.nimbuses.clone(), Rights::All);
        let users = [nimbuses].into_iter().chain(others);
        let entries = users.flat_map(|(ids, rights)| ids.into_iter().map(move |id| (Who::User(id), rights)));
        let is_secret = layout::other_writers(path) == OtherWriters::NoneAndSupervisorsRead;
        entries.chain((!is_secret).then_some((Who::Anyone, Rights::Read))).collect()
    }
}

#[cfg(test)]
mod tests;

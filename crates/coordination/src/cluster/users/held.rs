//! Users that each live daemon has, as its record says, and the daemons that a change of the lists would
//! lock out.
//!
//! A record is readable for everybody, and ZooKeeper shows the ids in its lists to nimbuses only, as an
//! id lets others try passwords. So a record has neither ids nor passwords: it has a keyed hash of each
//! id, with the key of the workers, which only daemons have. Equal hashes mean the same user and the
//! same key.

use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{UserKind, Users, WorkerKey};
use crate::tree::access::{Credential, DigestId};
use stormkeeper_runtime::watch;

/// Hashes in a record: a file has one user and one key, and two of a kind while one is replaced.
const HASHES_MAX: usize = 16;

/// Bytes of a hash.
const HASH_BYTES: usize = 16;

/// Users that a daemon has, in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUsers {
    /// Hash of each of its users with each of its keys of workers; none if the daemon has no users.
    #[serde(default)]
    pub hashes: Vec<String>,
    /// True if what the daemon creates stays open to everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

impl HeldUsers {
    /// Returns the users of a daemon that has none, and never gets any.
    pub fn none() -> watch::Receiver<Self> {
        watch::channel(Self::default()).1
    }
}

/// A daemon that is registered in the tree, or a worker whose supervisor is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveDaemon {
    /// Kind of the daemon: a nimbus or a supervisor. Workers get their users from their supervisor, so of
    /// workers only those count that have none.
    pub kind: UserKind,
    /// Kind, id and host, for people.
    pub name: String,
    /// Its users; `None` if its build does not say them, or its record cannot be read.
    pub users: Option<HeldUsers>,
}

/// Reason why a daemon cannot go on in a tree that is protected by some users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// It is a worker, and its supervisor, which would give it other users, does not run.
    #[error("keeps the users that it has, as its supervisor does not run: start that, or stop the worker")]
    NoSupervisor,
    /// Its record does not say which users it has.
    #[error("does not say which users it has (an older build, or a record that cannot be read)")]
    Unknown,
    /// It runs without users.
    #[error("has no users: set storm.zookeeper.users.file there and restart it")]
    NoUsers,
    /// None of its users, or none of its keys, is that of the lists.
    #[error("has other users than this file: copy its file there, and wait until it has read it")]
    OtherUsers,
    /// It creates znodes that are open to everybody.
    #[error(
        "has a file with the line `open`, so what it creates would not be protected: copy its file there, and wait \
         until it has read it"
    )]
    Open,
}

impl Lack {
    /// True if nobody knows whether the daemon lacks anything.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown | Self::NoSupervisor)
    }
}

impl Users {
    /// Returns the users of this process, as its record says them.
    pub fn held(&self) -> HeldUsers {
        let own: Vec<DigestId> = self.own.iter().map(Credential::id).collect();
        HeldUsers { hashes: self.hashes(&own).take(HASHES_MAX).collect(), open: self.open }
    }

    /// Returns why `daemon` would be locked out, or would not protect what it creates, if these users
    /// were those of all lists.
    pub fn lack_of(&self, daemon: &LiveDaemon) -> Option<Lack> {
        if daemon.kind == UserKind::Workers {
            return Some(Lack::NoSupervisor);
        }
        let Some(held) = &daemon.users else { return Some(Lack::Unknown) };
        let ids = match daemon.kind {
            UserKind::Supervisor => &self.supervisors,
            UserKind::Nimbus | UserKind::Workers => &self.nimbuses,
        };
        if held.hashes.is_empty() {
            Some(Lack::NoUsers)
        } else if !self.hashes(ids).any(|hash| held.hashes.contains(&hash)) {
            Some(Lack::OtherUsers)
        } else {
            (held.open && !self.open).then_some(Lack::Open)
        }
    }

    fn hashes(&self, ids: &[DigestId]) -> impl Iterator<Item = String> {
        self.worker_keys.iter().flat_map(move |key| ids.iter().map(move |id| hash(key, id)))
    }
}

fn hash(WorkerKey(key): &WorkerKey, id: &DigestId) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"stormkeeper: user of a daemon\0");
    mac.update(id.as_str().as_bytes());
    mac.finalize().into_bytes().iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::users::UserFiles;

    fn files() -> UserFiles {
        UserFiles::generate([1, 2, 3].map(|byte| [byte; 32]))
    }

    fn daemon(kind: UserKind, users: Option<HeldUsers>) -> LiveDaemon {
        LiveDaemon { kind, name: "daemon d".to_owned(), users }
    }

    /// What a nimbus and a supervisor with `held` lack in a tree of `wanted`.
    fn lacks(wanted: &UserFiles, held: &UserFiles) -> [Option<Lack>; 2] {
        let nimbus = daemon(UserKind::Nimbus, Some(held.nimbus.held()));
        let supervisor = daemon(UserKind::Supervisor, Some(held.supervisor.held()));
        [&nimbus, &supervisor].map(|daemon| wanted.nimbus.lack_of(daemon))
    }

    #[test]
    fn daemons_with_the_users_of_the_lists_lack_nothing() {
        assert_eq!(lacks(&files(), &files()), [None, None]);
    }

    #[test]
    fn daemon_without_users_and_one_that_does_not_say_them_are_told_apart() {
        for kind in [UserKind::Nimbus, UserKind::Supervisor] {
            let lack = |users| files().nimbus.lack_of(&daemon(kind, users));
            assert_eq!(lack(None), Some(Lack::Unknown));
            assert_eq!(lack(Some(HeldUsers::default())), Some(Lack::NoUsers));
        }
    }

    #[test]
    fn users_of_the_other_kind_of_daemon_are_other_users() {
        let files = files();
        let swapped = [
            daemon(UserKind::Nimbus, Some(files.supervisor.held())),
            daemon(UserKind::Supervisor, Some(files.nimbus.held())),
        ];
        assert_eq!(swapped.map(|daemon| files.nimbus.lack_of(&daemon)), [Some(Lack::OtherUsers); 2]);
    }

    #[test]
    fn password_that_a_daemon_does_not_know_yet_is_lacking_once_it_is_the_only_one() {
        for kind in [UserKind::Nimbus, UserKind::Supervisor, UserKind::Workers] {
            let before = files();
            let mut both = before.clone();
            both.add(kind, [9; 32]);
            let mut after = both.clone();
            after.remove_old(kind);
            assert_eq!(lacks(&both, &before), [None, None], "{kind:?}: both are in force");
            assert_eq!(lacks(&both, &after), [None, None], "{kind:?}");
            assert_eq!(lacks(&after, &both), [None, None], "{kind:?}");
            let concerned = lacks(&after, &before);
            let wanted = match kind {
                UserKind::Nimbus => [Some(Lack::OtherUsers), None],
                UserKind::Supervisor => [None, Some(Lack::OtherUsers)],
                UserKind::Workers => [Some(Lack::OtherUsers); 2],
            };
            assert_eq!(concerned, wanted, "{kind:?}");
        }
    }

    #[test]
    fn daemon_that_leaves_what_it_creates_open_is_named_unless_the_tree_stays_open() {
        let (closed, mut open) = (files(), files());
        open.set_open(true);
        assert_eq!(lacks(&closed, &open), [Some(Lack::Open); 2]);
        assert_eq!(lacks(&open, &open), [None, None]);
    }

    #[test]
    fn record_has_neither_passwords_nor_ids_and_is_bounded() {
        let mut files = files();
        for byte in 10..20 {
            files.add(UserKind::Nimbus, [byte; 32]);
            files.add(UserKind::Workers, [byte; 32]);
        }
        let held = serde_json::to_string(&files.nimbus.held()).expect("JSON");
        for own in files.nimbus.own() {
            let (id, revealed) = (own.id(), own.reveal());
            let parts = [id.as_str().split_once(':'), revealed.split_once(':')];
            assert!(parts.iter().flatten().all(|(_, secret)| !held.contains(secret)), "{held}");
        }
        assert_eq!(files.nimbus.held().hashes.len(), HASHES_MAX);
    }
}

//! The files of users of a whole cluster, and the replacement of one password after the other.
//!
//! A password is replaced in three steps, each followed by a restart of the daemons one after the
//! other: a new one is added, the access control lists are set again, the old one is removed.

use super::{KEY_BYTES, Users, WorkerKey};
use crate::tree::access::{Credential, DigestId};

/// Kind of user whose password is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    /// The nimbuses.
    Nimbus,
    /// The supervisors.
    Supervisor,
    /// The workers of all topologies.
    Workers,
}

/// Reason why two files are not those of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The first file has no password of a nimbus.
    #[error("the first is not the file of a nimbus")]
    NoNimbus,
    /// The second file has no password of a supervisor.
    #[error("the second is not the file of a supervisor")]
    NoSupervisor,
    /// They have no user and no key in common.
    #[error("they are the files of different clusters: no user of one is in the other")]
    Clusters,
    /// They have some users in common.
    #[error("they differ in the lines `{0}`: one was changed and the other was not")]
    Lines(&'static str),
}

/// Contents of the two files of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFiles {
    /// File of every nimbus.
    pub nimbus: Users,
    /// File of every supervisor.
    pub supervisor: Users,
}

impl UserFiles {
    /// Returns new files, of random bytes that nobody can guess, for each kind of user.
    pub fn generate([nimbus, supervisor, workers]: [[u8; KEY_BYTES]; 3]) -> Self {
        let mut files = Self { nimbus: Users::default(), supervisor: Users::default() };
        files.add(UserKind::Nimbus, nimbus);
        files.add(UserKind::Supervisor, supervisor);
        files.add(UserKind::Workers, workers);
        files
    }

    /// Checks that the two files belong to one cluster: a change of others would lock out whoever gets them.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn check(&self) -> Result<(), Mismatch> {
        let Self { nimbus, supervisor } = self;
        let ids = |users: &Users| users.own.iter().map(Credential::id).collect::<Vec<DigestId>>();
        let (of_nimbus, of_supervisor) = (ids(nimbus), ids(supervisor));
        if !nimbus.is_nimbus() {
            return Err(Mismatch::NoNimbus);
        }
        if !of_supervisor.iter().any(|id| supervisor.supervisors.contains(id)) {
            return Err(Mismatch::NoSupervisor);
        }
        let has_common = nimbus.nimbuses.iter().any(|id| supervisor.nimbuses.contains(id))
            || nimbus.supervisors.iter().any(|id| supervisor.supervisors.contains(id))
            || nimbus.worker_keys.iter().any(|key| supervisor.worker_keys.contains(key));
        // The newest is the first, so the order counts.
        let all_equal = |lists: [&[DigestId]; 3]| lists.iter().all(|list| *list == lists[0]);
        if !has_common {
            Err(Mismatch::Clusters)
        } else if !all_equal([&nimbus.nimbuses, &supervisor.nimbuses, &of_nimbus]) {
            Err(Mismatch::Lines("nimbus"))
        } else if !all_equal([&nimbus.supervisors, &supervisor.supervisors, &of_supervisor]) {
            Err(Mismatch::Lines("supervisor"))
        } else if nimbus.worker_keys != supervisor.worker_keys {
            Err(Mismatch::Lines("workers"))
        } else {
            Ok(())
        }
    }

    /// Sets whether what the daemons and workers create stays open to anyone.
    pub fn set_open(&mut self, open: bool) {
        (self.nimbus.open, self.supervisor.open) = (open, open);
    }

    /// Adds a user of this kind, made of random bytes, before those that are there.
    pub fn add(&mut self, kind: UserKind, random: [u8; KEY_BYTES]) {
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let credential = |name| Credential::new(name, &password).expect("64 hex digits are a password");
        for users in [&mut self.nimbus, &mut self.supervisor] {
            match kind {
                UserKind::Nimbus => users.nimbuses.insert(0, credential("nimbus").id()),
                UserKind::Supervisor => users.supervisors.insert(0, credential("supervisor").id()),
                UserKind::Workers => users.worker_keys.insert(0, WorkerKey(random)),
            }
        }
        match kind {
            UserKind::Nimbus => self.nimbus.own.insert(0, credential("nimbus")),
            UserKind::Supervisor => self.supervisor.own.insert(0, credential("supervisor")),
            UserKind::Workers => {}
        }
    }

    /// Number of passwords of this kind: two while one is replaced.
    pub fn n_of(&self, kind: UserKind) -> usize {
        match kind {
            UserKind::Nimbus => self.nimbus.nimbuses.len(),
            UserKind::Supervisor => self.nimbus.supervisors.len(),
            UserKind::Workers => self.nimbus.worker_keys.len(),
        }
    }

    /// Removes all users of this kind but the newest, and returns whether there were others.
    pub fn remove_old(&mut self, kind: UserKind) -> bool {
        let mut has_removed = false;
        let mut newest = |n: usize| {
            has_removed |= n > 1;
            1
        };
        for users in [&mut self.nimbus, &mut self.supervisor] {
            match kind {
                UserKind::Nimbus => users.nimbuses.truncate(newest(users.nimbuses.len())),
                UserKind::Supervisor => users.supervisors.truncate(newest(users.supervisors.len())),
                UserKind::Workers => users.worker_keys.truncate(newest(users.worker_keys.len())),
            }
        }
        match kind {
            UserKind::Nimbus => self.nimbus.own.truncate(1),
            UserKind::Supervisor => self.supervisor.own.truncate(1),
            UserKind::Workers => {}
        }
        has_removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> UserFiles {
        UserFiles::generate([1, 2, 3].map(|byte| [byte; KEY_BYTES]))
    }

    #[test]
    fn each_file_has_its_own_password_and_the_ids_of_both() {
        let files = generated();
        let (nimbus, supervisor) = (files.nimbus.to_string(), files.supervisor.to_string());
        assert_eq!(Users::parse(&nimbus), Ok(files.nimbus.clone()));
        assert_eq!(Users::parse(&supervisor), Ok(files.supervisor.clone()));
        assert!(files.nimbus.is_nimbus() && !files.supervisor.is_nimbus());
        let secret = files.nimbus.own()[0].reveal();
        assert!(nimbus.contains(&secret) && !supervisor.contains(&secret));
    }

    #[test]
    fn cluster_that_gets_users_is_open_until_it_is_closed() {
        let mut files = generated();
        assert!(!files.nimbus.is_open());
        files.set_open(true);
        let worker = files.supervisor.of_worker(&"t-1-1".parse().expect("valid id"));
        for users in [&files.nimbus, &files.supervisor, &worker] {
            assert!(users.is_open());
            assert_eq!(Users::parse(&users.to_string()).as_ref(), Ok(users));
        }
        files.set_open(false);
        assert_eq!(files, generated());
    }

    #[test]
    fn files_of_two_clusters_or_of_two_states_of_one_are_told_apart_and_refused() {
        let files = generated();
        let other = UserFiles::generate([4, 5, 6].map(|byte| [byte; KEY_BYTES]));
        let both = |nimbus: &UserFiles, supervisor: &UserFiles| {
            UserFiles { nimbus: nimbus.nimbus.clone(), supervisor: supervisor.supervisor.clone() }.check()
        };
        assert_eq!(both(&files, &files), Ok(()));
        assert_eq!(both(&files, &other), Err(Mismatch::Clusters));
        let swapped = UserFiles { nimbus: files.supervisor.clone(), supervisor: files.nimbus.clone() };
        assert_eq!(swapped.check(), Err(Mismatch::NoNimbus));
        let twice = UserFiles { nimbus: files.nimbus.clone(), supervisor: files.nimbus.clone() };
        assert_eq!(twice.check(), Err(Mismatch::NoSupervisor));
        for (kind, lines) in [
            (UserKind::Nimbus, "nimbus"),
            (UserKind::Supervisor, "supervisor"),
            (UserKind::Workers, "workers"),
        ] {
            let mut changed = files.clone();
            changed.add(kind, [9; KEY_BYTES]);
            assert_eq!(both(&changed, &changed), Ok(()));
            for refused in [both(&changed, &files), both(&files, &changed)] {
                assert_eq!(refused, Err(Mismatch::Lines(lines)));
            }
            let mut open = changed.clone();
            open.set_open(true);
            assert_eq!(both(&open, &changed), Ok(()), "--open and --close mend this");
        }
    }

    #[test]
    fn replaced_password_is_the_only_one_after_the_old_one_is_removed() {
        for kind in [UserKind::Nimbus, UserKind::Supervisor, UserKind::Workers] {
            let before = generated();
            let mut files = before.clone();
            assert!(!files.remove_old(kind), "there is one only");
            assert_eq!(files, before);
            assert_eq!(files.n_of(kind), 1);
            files.add(kind, [9; KEY_BYTES]);
            assert_eq!(files.n_of(kind), 2);
            assert_eq!(Users::parse(&files.nimbus.to_string()), Ok(files.nimbus.clone()));
            assert!(files.remove_old(kind), "{kind:?}");
            assert_ne!(files, before, "{kind:?}");
            let old_lines = |old: &Users, new: &Users| {
                let new = new.to_string();
                old.to_string().lines().filter(|line| !new.contains(line)).count()
            };
            let n_replaced = old_lines(&before.nimbus, &files.nimbus);
            assert_eq!(n_replaced, if kind == UserKind::Nimbus { 2 } else { 1 }, "{kind:?}");
        }
    }
}

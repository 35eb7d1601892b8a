//! The files of users of a whole cluster, and the replacement of one password after the other.
//!
//! A password is replaced in three steps, each followed by a restart of the daemons one after the
//! other: a new one is added, the access control lists are set again, the old one is removed.

use super::{KEY_BYTES, Users, WorkerKey};
use crate::tree::access::Credential;

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

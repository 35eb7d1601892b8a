//! Access control lists in the types of the client crate.

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
};

use tracing::warn;
use zookeeper_client as zk;

use super::{ZooKeeperTree, errors::error_at};
use crate::tree::{
    CreateMode, Error, ReadTree as _, TreePath,
    access::{Access, AccessRules, Acl, Credential, Rights, Who},
};

/// Scheme of the users.
pub(super) const SCHEME: &str = "digest";

/// Users and rules in force, which may be replaced.
#[derive(Debug, Clone)]
pub(super) struct CurrentAccess(Arc<RwLock<Option<Access>>>);

impl CurrentAccess {
    pub(super) fn new(access: Option<Access>) -> Self {
        Self(Arc::new(RwLock::new(access)))
    }

    /// Returns the proofs of the users, for a session.
    pub(super) fn payloads(&self) -> Vec<Vec<u8>> {
        let access = self.get();
        access.iter().flat_map(|access| &access.credentials).map(Credential::payload).collect()
    }

    /// Returns the user by whom a session is opened, where the servers demand one.
    pub(super) fn sasl(&self) -> Option<zk::SaslOptions> {
        let user = self.get()?.sasl?;
        let (name, password) = user.into_parts();
        Some(zk::SaslOptions::digest_md5(name, password).into())
    }

    /// Returns why the servers have refused a session because of SASL, and the remedy.
    pub(super) fn sasl_refusal(&self) -> String {
        match self.get() {
            Some(Access { sasl: Some(_), sasl_line, .. }) => format!(
                "the servers refuse the user of the line {sasl_line}: its name and password must be those of a line \
                 `user_NAME=\"PASSWORD\"` in their JAAS file"
            ),
            Some(Access { sasl_line, .. }) => format!(
                "the servers demand SASL, and there is no user for it: add the line {sasl_line}, as in a line \
                 `user_NAME=\"PASSWORD\"` of their JAAS file"
            ),
            None => "the servers demand SASL: set storm.zookeeper.users.file, and add the line `sasl NAME:PASSWORD` \
                     to that file"
                .to_owned(),
        }
    }

    /// Returns the access control list of a znode that is created at `path`.
    pub(super) fn acls(&self, path: &TreePath) -> Vec<zk::Acl> {
        acls(self.get().as_ref().and_then(|access| access.rules.as_deref()), path)
    }

    fn get(&self) -> Option<Access> {
        self.0.read().expect("nobody panics while holding the users").clone()
    }
}

fn acls(rules: Option<&dyn AccessRules>, path: &TreePath) -> Vec<zk::Acl> {
    match rules {
        Some(rules) => rules.acl_of(path).iter().map(of_client).collect(),
        None => vec![zk::Acl::new(zk::Permission::ALL, zk::AuthId::anyone())],
    }
}

/// Returns the options of a creation.
pub(super) fn options(mode: CreateMode, acls: &[zk::Acl]) -> zk::CreateOptions<'_> {
    let mode = match mode {
        CreateMode::Persistent => zk::CreateMode::Persistent,
        CreateMode::PersistentSequential => zk::CreateMode::PersistentSequential,
        CreateMode::Ephemeral => zk::CreateMode::Ephemeral,
        CreateMode::EphemeralSequential => zk::CreateMode::EphemeralSequential,
    };
    mode.with_acls(zk::Acls::new(acls))
}

fn of_client((who, rights): &Acl) -> zk::Acl {
    use zk::Permission as P;
    let permission = match rights {
        Rights::Read => P::READ,
        Rights::ReadAndChildren => P::READ | P::CREATE | P::DELETE,
        Rights::ReadAndWrite => P::READ | P::WRITE | P::CREATE | P::DELETE,
        Rights::All => P::ALL,
    };
    let id = match who {
        Who::Anyone => zk::AuthId::anyone(),
        Who::User(id) => zk::AuthId::new(SCHEME, id.as_str()),
    };
    zk::Acl::new(permission, id)
}

/// Result of [`ZooKeeperTree::protect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    /// Number of znodes whose list was another one.
    pub n_changed: usize,
    /// Znodes whose list this user may not change, or whose children it could not see, which the next call
    /// may.
    pub denied: BTreeSet<TreePath>,
}

/// Paths of a tree.
struct AllPaths {
    /// All paths that this user may see, each after its parent.
    found: Vec<TreePath>,
    /// Paths among them whose children it may not see.
    denied: BTreeSet<TreePath>,
}

impl ZooKeeperTree {
    /// Replaces the users and the rules of this process, in the running session as well. The users before
    /// keep their rights until that session ends.
    pub async fn replace_access(&self, access: Option<Access>) {
        *self.access.0.write().expect("nobody panics while holding the users") = access;
        for payload in self.access.payloads() {
            let added = self.link.request(async |client: zk::Client| client.auth(SCHEME, &payload).await);
            // Without a session now, the next one has the users from its begin.
            if let Ok(Err(error)) = added.await {
                warn!(%error, "the running session did not take a user; the next one will have it");
            }
        }
    }

    /// Sets the access control list of every znode of this tree by `rules`, or opens all of them to
    /// anyone without; each znode after its children. Znodes whose list this user may not change are left
    /// as they are. An interrupted call is completed by the next one.
    ///
    /// # Errors
    /// Errors of the tree, except denials, which are in [`Protected`].
    pub async fn protect(&self, rules: Option<&Arc<dyn AccessRules>>) -> Result<Protected, Error> {
        let AllPaths { found, mut denied } = self.all_paths().await?;
        let mut n_changed = 0;
        for path in found.iter().rev() {
            match self.set_acl(path, &acls(rules.map(|rules| &**rules), path)).await {
                Ok(is_changed) => n_changed += usize::from(is_changed),
                Err(error) if error.is_denial() => drop(denied.insert(path.clone())),
                Err(error) => return Err(error),
            }
        }
        Ok(Protected { n_changed, denied })
    }

    /// Returns the znodes whose access control list is not that of `rules`, except those whose list this
    /// user may not read.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn with_other_lists(&self, rules: &Arc<dyn AccessRules>) -> Result<Vec<TreePath>, Error> {
        let mut others = Vec::new();
        for path in self.all_paths().await?.found {
            let current = self.link.request(async |client: zk::Client| client.get_acl(path.as_str()).await);
            match current.await? {
                Ok((current, _)) if is_same(&current, &acls(Some(&**rules), &path)) => {}
                Ok(_) => others.push(path),
                Err(zk::Error::NoNode | zk::Error::NoAuth) => {}
                Err(error) => return Err(error_at(&path, error)),
            }
        }
        Ok(others)
    }

    /// Returns the paths of all znodes, each after its parent, except those below one that this user may not
    /// read.
    async fn all_paths(&self) -> Result<AllPaths, Error> {
        let (mut found, mut denied) = (vec![TreePath::root()], BTreeSet::new());
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let children = match self.children(&path).await {
                Err(error) if error.is_denial() => {
                    denied.insert(path.clone());
                    None
                }
                children => children?,
            };
            for child in children.unwrap_or_default() {
                found.push(path.child(&child).map_err(Error::InvalidPath)?);
            }
        }
        Ok(AllPaths { found, denied })
    }

    /// Sets the access control list of a znode, and returns whether it was another one. A znode that
    /// is gone needs none.
    async fn set_acl(&self, path: &TreePath, wanted: &[zk::Acl]) -> Result<bool, Error> {
        let current = self.link.request(async |client: zk::Client| client.get_acl(path.as_str()).await);
        match current.await? {
            Ok((current, _)) if is_same(&current, wanted) => return Ok(false),
            Ok(_) => {}
            Err(zk::Error::NoNode) => return Ok(false),
            Err(error) => return Err(error_at(path, error)),
        }
        let answer =
            self.link.request(async |client: zk::Client| client.set_acl(path.as_str(), wanted, None).await);
        match answer.await? {
            Ok(_) => Ok(true),
            Err(zk::Error::NoNode) => Ok(false),
            Err(error) => Err(error_at(path, error)),
        }
    }
}

/// The server keeps an access control list as it was set, but an operator may have sorted it.
fn is_same(one: &[zk::Acl], other: &[zk::Acl]) -> bool {
    one.len() == other.len() && one.iter().all(|entry| other.contains(entry))
}

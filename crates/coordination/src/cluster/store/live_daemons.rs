//! Daemons that are registered, and the users that they have at ZooKeeper.

use super::{Error, Store};
use crate::{
    cluster::{
        layout,
        record::{self, NimbusRecord, SupervisorRecord},
        users::{HeldUsers, LiveDaemon, UserKind},
    },
    tree::{self, READ_BATCH, Readable, TreePath},
};

impl Store {
    /// Returns all registered nimbuses and supervisors. A daemon whose record cannot be read says nothing
    /// about its users.
    ///
    /// # Errors
    /// Errors of the tree.
    pub async fn live_daemons(&self) -> Result<Vec<LiveDaemon>, Error> {
        let of_nimbus = |path: &TreePath, data: &[u8]| {
            let record = record::decode::<NimbusRecord>(path, data).ok()?;
            Some((record.host, record.zookeeper_users))
        };
        let of_supervisor = |path: &TreePath, data: &[u8]| {
            let record = record::decode::<SupervisorRecord>(path, data).ok()?;
            Some((record.host, record.zookeeper_users))
        };
        let mut daemons = self.live(UserKind::Nimbus, &layout::nimbuses(), of_nimbus).await?;
        daemons.extend(self.live(UserKind::Supervisor, &layout::supervisors(), of_supervisor).await?);
        Ok(daemons)
    }

    async fn live(
        &self,
        kind: UserKind,
        parent: &TreePath,
        decode: impl Fn(&TreePath, &[u8]) -> Option<(String, Option<HeldUsers>)>,
    ) -> Result<Vec<LiveDaemon>, Error> {
        let names = self.tree.children(parent).await?.unwrap_or_default();
        let mut daemons = Vec::with_capacity(names.len());
        for batch in names.chunks(READ_BATCH) {
            let paths: Result<Vec<TreePath>, _> = batch.iter().map(|name| parent.child(name)).collect();
            let paths = paths.map_err(tree::Error::InvalidPath)?;
            for ((id, path), znode) in
                batch.iter().zip(&paths).zip(tree::read_allowed(&*self.tree, &paths).await?)
            {
                let said = match znode {
                    Readable::Found(znode) => decode(path, &znode.node.data),
                    Readable::Denied => None,
                    // It has ended meanwhile.
                    Readable::Missing => continue,
                };
                let word = if kind == UserKind::Nimbus { "nimbus" } else { "supervisor" };
                let (name, users) = match said {
                    Some((host, users)) => (format!("{word} {id} at {host}"), users),
                    None => (format!("{word} {id}"), None),
                };
                daemons.push(LiveDaemon { kind, name, users });
            }
        }
        Ok(daemons)
    }
}

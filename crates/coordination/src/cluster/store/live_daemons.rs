//! Daemons that are registered, and the users that they have at ZooKeeper.

use std::collections::BTreeSet;

use super::{Error, Store};
use crate::{
    cluster::{
        layout,
        record::{self, NimbusRecord, SupervisorRecord},
        users::{HeldUsers, LiveDaemon, UserKind},
    },
    tree::{self, READ_BATCH, Readable, TreePath},
};
use stormkeeper_model::{TaskId, TopologyId};

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
        daemons.extend(self.left_workers().await?);
        Ok(daemons)
    }

    /// Returns the workers with a heartbeat whose supervisor is not registered.
    async fn left_workers(&self) -> Result<Vec<LiveDaemon>, Error> {
        let supervisors = self.tree.children(&layout::supervisors()).await?.unwrap_or_default();
        let supervisors: BTreeSet<&str> = supervisors.iter().map(String::as_str).collect();
        let mut left = Vec::new();
        for id in self.tree.children(&layout::storms()).await?.unwrap_or_default() {
            let Ok(id) = id.parse::<TopologyId>() else { continue };
            let assigned = match self.assignment(&id).await {
                // Nobody knows the workers of a record that cannot be read; the problems name the record.
                Ok(None) | Err(Error::Unreadable(_)) => continue,
                Err(Error::Tree(error)) if error.is_denial() => continue,
                Ok(Some(assigned)) => assigned.value,
                Err(error) => return Err(error),
            };
            let mut workers = assigned.workers;
            workers.retain(|slot, _| !supervisors.contains(slot.supervisor.as_str()));
            if workers.is_empty() {
                continue;
            }
            let beats = self.children_allowed(&layout::taskbeats(&id)).await?;
            let beats: BTreeSet<TaskId> = beats.iter().filter_map(|name| name.parse().ok()).collect();
            workers.retain(|_, worker| worker.tasks.iter().any(|task| beats.contains(&task)));
            left.extend(workers.into_iter().map(|(slot, worker)| LiveDaemon {
                kind: UserKind::Workers,
                name: format!("worker of {id} at {}, port {}", worker.host, slot.port),
                users: None,
            }));
        }
        Ok(left)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{CreateMode, Tree as _, memory::MemoryTree};

    const ASSIGNMENT: &str = r#"{"v":1,"workers":[
        {"supervisor":"s1","port":6700,"host":"h1","tasks":"1-2","start_ms":1},
        {"supervisor":"s2","port":6701,"host":"h2","tasks":"3","start_ms":1}]}"#;

    #[tokio::test]
    async fn worker_counts_only_while_it_has_a_heartbeat_and_its_supervisor_is_not_registered() {
        let tree = MemoryTree::new().connect();
        let store = Store::new(tree.clone());
        store.ensure_layout().await.expect("made");
        let id: TopologyId = "wc-1-1".parse().expect("valid id");
        let make = async |path: &TreePath, text: &str| {
            tree.create(path, text.as_bytes(), CreateMode::Persistent).await.expect("created");
        };
        make(&layout::storm(&id), "{}").await;
        make(&layout::assignment(&id), ASSIGNMENT).await;
        make(&layout::taskbeats(&id), "").await;
        let left = async || {
            let daemons = store.live_daemons().await.expect("read");
            let workers = daemons.into_iter().filter(|daemon| daemon.kind == UserKind::Workers);
            workers.map(|daemon| daemon.name).collect::<Vec<_>>()
        };
        assert_eq!(left().await, [""; 0], "no worker runs");
        for task in [2, 3] {
            make(&layout::taskbeat(&id, TaskId(task)), "{}").await;
        }
        let names = ["worker of wc-1-1 at h1, port 6700", "worker of wc-1-1 at h2, port 6701"];
        assert_eq!(left().await, names);
        make(&layout::supervisor(&"s1".parse().expect("valid id")), "{}").await;
        assert_eq!(left().await, names[1..]);
        tree.set(&layout::assignment(&id), b"damaged", None).await.expect("written");
        assert_eq!(left().await, [""; 0], "the problems of the cluster name the record");
    }
}

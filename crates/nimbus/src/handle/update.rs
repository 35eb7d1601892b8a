//! Updates of running topologies.

use std::sync::Arc;

use super::Handle;
use crate::{
    change::{self, Change},
    refusal::Refusal,
    submit::PreparedTopology,
    update::{self, NewPackage},
    worker_program,
};
use stormkeeper_api_types::message::UpdateRequest;
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{BlobKey, TopologyId, topology::Topology};

impl Handle {
    /// Begins to run another package, whose blob is already stored, in a running topology.
    ///
    /// # Errors
    /// See [`Refusal`]; a rejected update changes nothing.
    pub async fn update(
        &self,
        topology: &str,
        request: UpdateRequest,
        by: Option<String>,
    ) -> Result<(TopologyId, TopologyRecord), Refusal> {
        self.commands()?;
        let UpdateRequest { blob, at_once } = request;
        let at_once = update::checked_at_once(at_once)?;
        let view = self.observation()?.view;
        let id = change::find(&view, topology)?;
        let unknown = || Refusal::UnknownTopology { topology: topology.to_owned() };
        let record = view.topologies.get(&id).ok_or_else(unknown)?.value.clone();
        let table = view.tasks.get(&id).map(|tasks| tasks.value.components.clone()).unwrap_or_default();
        let (old, _) = self.package_of(&record.blob).await?;
        let (new, bytes) = self.package_of(&blob).await?;
        update::check_fit(&old, &new, &table)?;
        worker_program::check(new.program.as_ref(), &view)?;
        let replication = self.options.replication.of(&new);
        let (name, owner, status) = (Some(record.name.clone()), record.owner.clone(), record.status);
        let (key, tracking) = ((blob.clone(), bytes), self.options.tracking);
        let turn = self.check_turns.next().await?;
        let prepare = move || PreparedTopology::new(&new, name, key, owner, status, tracking);
        let (turn, prepared) = turn.run(prepare).await;
        drop(turn);
        let package = NewPackage::of(&prepared?, record.blob, at_once);
        self.copies()?.ensure(&blob, replication).await?;
        self.blobs.touch(&blob);
        self.change(id.as_str(), Change::Update(Box::new(package)), by).await
    }

    /// Returns the topology of a package, and the bytes of its blob if they are known.
    async fn package_of(&self, blob: &BlobKey) -> Result<(Arc<Topology>, Option<u64>), Refusal> {
        self.obtain(blob, None).await?;
        self.blobs.touch(blob);
        let (turn, topology) = self.blobs.topology_in_turn(blob, self.check_turns.next().await?).await;
        drop(turn);
        let topology = topology.map_err(|reason| Refusal::InvalidPackage { key: blob.clone(), reason })?;
        let topology = topology.ok_or_else(|| Refusal::BlobMissing { key: blob.clone() })?;
        Ok((topology, self.blobs.file(blob).map(|(_, bytes)| bytes)))
    }
}

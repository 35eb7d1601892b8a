//! Access to the topologies that blobs hold.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stormkeeper_model::{BlobKey, topology::Topology};

/// Reads topologies by their blob.
#[async_trait]
pub trait TopologySource: fmt::Debug + Send + Sync {
    /// Returns the topology of a blob, or none if the blob is not on this host or not readable.
    async fn topology(&self, blob: &BlobKey) -> Option<Arc<Topology>>;
}

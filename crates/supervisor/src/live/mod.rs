//! Live numbers of the workers on this host, for those who look.
//!
//! For each topology that somebody reads there is one task, which connects to the workers that run it here
//! and keeps the last line of each. It ends when nobody reads any more.

mod socket;
#[cfg(test)]
mod tests;
mod topic;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as ticks};
use tokio_util::sync::CancellationToken;

use crate::status::Status;
use stormkeeper_model::{Port, TopologyId, WorkerId, clock::Clock};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};
use topic::Topic;

/// Maximum number of topologies that are read at the same time.
const TOPICS_MAX: usize = 32;

/// Maximum number of readers: nimbuses, one for each topology that is looked at.
const READERS_MAX: usize = 64;

/// Error: live numbers cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No slot runs or should run the topology.
    #[error("no worker of this topology runs here")]
    NoWorker,
    /// There are too many readers.
    #[error("{READERS_MAX} others read live numbers of {TOPICS_MAX} topologies at most")]
    Full,
}

/// Live numbers of the topologies that are read. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local_dir: PathBuf,
    status: watch::Receiver<Status>,
    clock: Clock,
    readers: Arc<Semaphore>,
    // Guards the topologies that are read; held for a few instructions.
    topics: Mutex<BTreeMap<TopologyId, Arc<Topic>>>,
    tasks: Tasks,
}

/// Lines that a reader has not got yet.
struct Reader {
    topic: Arc<Topic>,
    changes: ticks::Receiver<u64>,
    seen: u64,
    closing: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Creates it without readers. Its tasks end with those of `tasks`.
    pub(super) fn new(
        local_dir: &Path,
        status: watch::Receiver<Status>,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        Self(Arc::new(Inner {
            local_dir: local_dir.to_owned(),
            status,
            clock,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            topics: Mutex::default(),
            tasks: tasks.child(),
        }))
    }

    /// Returns lines about the workers that run `topology` here: the last ones at once, then each when it
    /// arrives, and an empty line at least every second. A reader that is slow misses lines.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn read(
        &self,
        topology: &TopologyId,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Refused> {
        let place = Arc::clone(&self.0.readers).try_acquire_owned().map_err(|_none| Refused::Full)?;
        if self.0.workers(topology).is_empty() {
            return Err(Refused::NoWorker);
        }
        let mut topics = self.0.topics();
        let is_full = topics.len() >= TOPICS_MAX;
        let topic = match topics.get(topology) {
            Some(topic) => Arc::clone(topic),
            None if is_full => return Err(Refused::Full),
            None => {
                let topic = Arc::new(Topic::new(self.0.clock.clone()));
                topics.insert(topology.clone(), Arc::clone(&topic));
                self.start(topology.clone(), &topic);
                topic
            }
        };
        // Under the lock, so that the task of the topic does not end now.
        let changes = topic.subscribe();
        drop(topics);
        let closing = self.0.tasks.cancelled();
        let reader = Reader { topic, changes, seen: 0, closing, _place: place };
        Ok(stream::unfold(reader, async |mut reader| {
            // Cancel-safe: both only wait.
            tokio::select! {
                () = reader.closing.cancelled() => return None,
                changed = reader.changes.changed() => changed.ok()?,
            }
            let lines = reader.topic.lines_since(&mut reader.seen);
            Some((Ok(lines), reader))
        }))
    }

    fn start(&self, topology: TopologyId, topic: &Arc<Topic>) {
        let (live, topic) = (self.clone(), Arc::clone(topic));
        let tasks = self.0.tasks.child();
        self.0.tasks.start("live numbers of a topology", OnExit::Ignore, async move {
            topic::follow(&topic, &live.0.local_dir, &tasks, || {
                let mut topics = live.0.topics();
                let goes_on = topic.is_read();
                if !goes_on {
                    topics.remove(&topology);
                }
                goes_on.then(|| live.0.workers(&topology))
            })
            .await;
        });
    }
}

impl Inner {
    /// Returns the launches whose process exists or may exist, with their ports.
    fn workers(&self, topology: &TopologyId) -> BTreeMap<WorkerId, Port> {
        let status = self.status.borrow();
        let of_topology = status.slots.iter().filter(|(_, slot)| slot.topology.as_ref() == Some(topology));
        of_topology.filter_map(|(port, slot)| Some((slot.worker.clone()?, *port))).collect()
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<TopologyId, Arc<Topic>>> {
        self.topics.lock().expect("no one panics while holding the topologies")
    }
}

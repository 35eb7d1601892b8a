//! The leader tells the archive, and uploaders, where tasks run and which topologies there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tracing::{debug, info};

use crate::{
    archive::{self, Archive},
    cluster::{layout, view::ClusterView},
    model::{Term, TopologyId, assignment::Assignment, topology::TaskTable},
    nimbus::{
        blobs::BlobStore,
        measure::{
            Measure, past,
            track::{Known, Seen, track},
            upload::Telling,
        },
        submit::sample_rate_of,
    },
    tree::Version,
};

/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The most events in one entry of the log.
const BATCH: usize = 1000;

/// The most topologies of the past that a new leader looks through for one whose end was not
/// told; older ones ended long ago.
const HISTORY_MAX: usize = 10_000;

/// The most places of one topology's tasks that are read back; about the tasks that there can
/// be in one topology.
const TRACK_MAX: usize = 100_000;

/// What decides whether a topology has to be looked at again.
type Versions = (Option<Version>, Option<Version>);

struct Teller {
    measure: Measure,
    archive: Archive,
    term: Term,
    blobs: BlobStore,
    telling: Telling,
    /// What the archive knows of each topology that is there.
    known: BTreeMap<TopologyId, (Known, Versions)>,
    /// Topologies that came and went, and that the archive knows by now. Those alone that the
    /// list of events still tells of, so as many as that is long.
    settled: BTreeSet<TopologyId>,
}

/// Tells what changed, for as long as the leadership lasts.
pub(super) async fn tell(measure: Measure, archive: Archive, term: Term, blobs: BlobStore, telling: Telling) {
    let mut observations = measure.shared.setup.observations.clone();
    let gather = measure.shared.options.pace.gather;
    let (known, settled) = (BTreeMap::new(), BTreeSet::new());
    let mut teller = Teller { measure, archive, term, blobs, telling, known, settled };
    while let Err(error) = teller.read_back().await {
        info!(%error, "the archive does not say which topologies it knows");
        tokio::time::sleep(RETRY).await;
    }
    loop {
        let observation = observations.borrow_and_update().clone();
        if observation.fresh
            && let Err(error) = teller.look(&observation.view).await
        {
            info!(%error, "could not tell the archive what happened to topologies");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        tokio::time::sleep(gather).await;
        if observations.changed().await.is_err() {
            // The observer ends with the whole nimbus.
            return;
        }
    }
}

impl Teller {
    /// Topologies whose end was not told. What is read of them stands as seen at no version.
    async fn read_back(&mut self) -> Result<(), archive::Error> {
        for entry in self.archive.history(None, HISTORY_MAX).await? {
            if entry.killed.is_none() {
                let track = self.archive.track(&entry.topology, None, TRACK_MAX).await?;
                let known = Known::of(Some(&entry), track);
                self.known.insert(entry.topology, (known, (None, None)));
            }
        }
        Ok(())
    }

    async fn look(&mut self, view: &ClusterView) -> Result<(), archive::Error> {
        let mut ids: Vec<TopologyId> = view.storms.keys().cloned().collect();
        ids.extend(self.known.keys().filter(|id| !view.storms.contains_key(*id)).cloned());
        for id in ids {
            let records = [layout::storm(&id), layout::tasks(&id), layout::assignment(&id)];
            if records.iter().any(|path| view.is_unreadable(path)) {
                // It is there, somehow.
                continue;
            }
            let storm = view.storms.get(&id);
            let versions: Versions =
                (storm.map(|storm| storm.version), view.assignments.get(&id).map(|stored| stored.version));
            let known = match self.known.get(&id) {
                Some((_, seen)) if *seen == versions && storm.is_some() => continue,
                Some((known, _)) => known.clone(),
                None => self.read_one(&id).await?,
            };
            let rate = match storm {
                Some(storm) => self.sample_rate(&storm.value).await,
                None => 0.0,
            };
            let nothing = (TaskTable::default(), Assignment::default());
            let seen = storm.map(|storm| Seen {
                storm: &storm.value,
                tasks: view.tasks.get(&id).map_or(&nothing.0, |tasks| &tasks.value),
                assignment: view.assignments.get(&id).map_or(&nothing.1, |assignment| &assignment.value),
                sample_rate: rate,
            });
            let (events, known) = track(&id, &known, seen, view, self.measure.shared.setup.clock.now());
            self.tell(&id, events).await?;
            match seen {
                Some(_) => drop(self.known.insert(id, (known, versions))),
                None => drop(self.known.remove(&id)),
            }
        }
        self.look_back(view).await
    }

    /// Topologies that came and went between two looks: what is known of them are events.
    async fn look_back(&mut self, view: &ClusterView) -> Result<(), archive::Error> {
        let shared = &self.measure.shared;
        let kept = Duration::from_secs(60) * shared.options.retention.longest_minutes();
        let gone = past::gone(view, shared.setup.clock.now(), kept);
        let rate = shared.options.sample_rate;
        self.settled.retain(|id| gone.contains_key(id));
        for (id, told) in gone {
            if self.settled.contains(id) {
                continue;
            }
            let known = self.archive.topology(id).await?;
            if known.is_none_or(|entry| entry.killed.is_none()) {
                let events = past::retell(id, &told, &view.supervisors, rate);
                self.tell(id, events).await?;
            }
            self.settled.insert(id.clone());
        }
        Ok(())
    }

    async fn tell(&self, id: &TopologyId, events: Vec<archive::Event>) -> Result<(), archive::Error> {
        for batch in events.chunks(BATCH) {
            self.archive.tell(self.term, batch.to_vec()).await?;
            debug!(topology = %id, n = batch.len(), "told the archive what happened");
            self.telling.tell(&self.measure, batch);
        }
        Ok(())
    }

    /// One that was killed and told so before this leader, and is still being removed; or one
    /// that nobody told of.
    async fn read_one(&self, id: &TopologyId) -> Result<Known, archive::Error> {
        let entry = self.archive.topology(id).await?;
        let track = match entry {
            Some(_) => self.archive.track(id, None, TRACK_MAX).await?,
            None => Vec::new(),
        };
        Ok(Known::of(entry.as_ref(), track))
    }

    /// The rate that its workers sample at.
    async fn sample_rate(&self, storm: &crate::cluster::record::Storm) -> f64 {
        if let Some(rate) = storm.metrics.as_ref().and_then(|control| control.sample_rate) {
            return rate;
        }
        let topology = self.blobs.topology(&storm.blob).await.ok().flatten();
        let set = topology.and_then(|topology| sample_rate_of(&topology));
        set.unwrap_or(self.measure.shared.options.sample_rate)
    }
}

//! The leader marks in the tree up to where the log is safe, before it tells that to anyone.
//!
//! The mark is written under the leader's term. So one that was deposed and does not know it
//! calls nothing safe, and the next leader reads a mark that nobody raises any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    archive::Archive,
    backoff::Backoff,
    cluster::{archive::ArchiveRecord, event::Told, layout, record, store, view::ClusterView},
    election::{FencedWriter, WriteError},
    model::{NimbusId, Position, Term},
    nimbus::measure::{
        Measure,
        safe::{self, PATIENCE},
    },
    rpc::client::chain,
    tree::{self, CreateMode, Op},
};

/// After a failure of the tree.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Another term has begun.
#[derive(Debug)]
pub(super) struct Deposed;

impl Measure {
    /// Reads the mark that the leaders before have left, however long the tree takes; none when
    /// there is none, and one that knows nothing when it makes no sense.
    pub(super) async fn read_mark(&self) -> Option<ArchiveRecord> {
        let mut backoff = self.backoff();
        loop {
            let error = match self.shared.setup.store.archive().await {
                Ok(record) => return record,
                Err(store::Error::Unreadable(error)) => {
                    warn!(%error, "it is not known which metrics are safe: what others have is kept");
                    return Some(ArchiveRecord::unknown());
                }
                Err(error) => error,
            };
            self.tree_fails(&error);
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Says why nothing is called safe for the moment.
    fn tree_fails(&self, error: &(dyn std::error::Error + 'static)) {
        let text = format!("up to where the metrics log is safe cannot be read or written: {}", chain(error));
        info!("{text}");
        self.progress().trouble = Some(text);
    }

    /// Writes `record`, with an event if there is something to tell, however long the tree
    /// takes.
    pub(super) async fn write_mark(
        &self,
        writer: &FencedWriter,
        record: ArchiveRecord,
        told: Option<Told>,
    ) -> Result<(), Deposed> {
        let (path, data) = (layout::archive(), record::encode(&record));
        let mut backoff = self.backoff();
        let mut is_new = false;
        loop {
            let op = match is_new {
                true => {
                    let (path, data) = (path.clone(), data.clone());
                    Op::Create { path, data, mode: CreateMode::Persistent }
                }
                false => Op::Set { path: path.clone(), data: data.clone(), version: None },
            };
            let written = match &told {
                Some(told) => writer.commit_and_tell(vec![op], told.clone()).await,
                None => writer.commit(vec![op]).await,
            };
            match written {
                Ok(_) => break,
                Err(WriteError::Deposed { .. }) => return Err(Deposed),
                Err(WriteError::Op { source: tree::Error::NoNode { .. }, .. }) if !is_new => is_new = true,
                Err(WriteError::Op { source: tree::Error::NodeExists { .. }, .. }) if is_new => {
                    is_new = false;
                }
                // Written twice it is the same, but for the event.
                Err(error) => {
                    self.tree_fails(&error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        *self.mark() = record;
        Ok(())
    }

    /// The mark as it should be, when that is another one.
    fn next_mark(
        &self,
        archive: &Archive,
        term: Term,
        late: &mut BTreeSet<NimbusId>,
    ) -> Option<ArchiveRecord> {
        let (view, fresh) = self.view();
        let live = view.nimbuses.keys().filter(|id| **id != self.shared.setup.me);
        let followers = self.acks().awaited(live, self.shared.setup.clock.monotonic());
        self.tell_who_is_late(&view, &followers, late);
        // One that does not see the cluster may have a follower without knowing it.
        let leader = (&self.shared.setup.me, term, archive.position());
        safe::raised(&self.mark(), leader, &followers).filter(|_| fresh)
    }

    /// Says who is not waited for any more, when it is news.
    fn tell_who_is_late(
        &self,
        view: &ClusterView,
        followers: &BTreeMap<NimbusId, Position>,
        late: &mut BTreeSet<NimbusId>,
    ) {
        let is_late = |id: &&NimbusId| **id != self.shared.setup.me && !followers.contains_key(*id);
        let now: BTreeSet<NimbusId> = view.nimbuses.keys().filter(is_late).cloned().collect();
        for nimbus in now.difference(late) {
            let patience = PATIENCE;
            warn!(%nimbus, ?patience, "does not follow the metrics: what is safe does not wait for it any more");
        }
        *late = now;
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order")
    }
}

/// Keeps the mark where the log is safe, for as long as the leadership lasts.
pub(super) async fn mark(measure: Measure, archive: Archive, writer: FencedWriter) {
    let mut observations = measure.shared.setup.observations.clone();
    let mut late = BTreeSet::new();
    loop {
        if let Some(record) = measure.next_mark(&archive, writer.term(), &mut late) {
            if let Err(Deposed) = measure.write_mark(&writer, record, None).await {
                return;
            }
            tokio::time::sleep(measure.shared.options.pace.mark).await;
            continue;
        }
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = measure.shared.stored.notified() => {}
            changed = observations.changed() => if changed.is_err() { return },
        }
    }
}

/// What is told of safe entries that the leader of `term` goes on without.
pub(super) fn given_up(term: Term, own: Position, record: &ArchiveRecord) -> String {
    if record.is_unknown() {
        return format!(
            "/archive does not say which metrics were safe: the leader of term {term} goes on with the log up to \
             entry {own}, and nimbuses that have others put them aside"
        );
    }
    let holders: Vec<String> = record.holders.iter().map(ToString::to_string).collect();
    format!(
        "the leader of term {term} goes on without metrics that were safe: it has the log up to entry {own}, and \
         up to {} it was safe; {} had them",
        record.safe,
        holders.join(", ")
    )
}

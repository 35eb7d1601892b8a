//! The leader marks in the tree up to where the log is safe, before it tells that to anyone.
//!
//! The mark is written under the leader's term. So one that was deposed and does not know it
//! calls nothing safe, and the next leader reads a mark that nobody raises any more.

use std::time::Duration;

use tracing::{info, warn};

use crate::{
    archive::Archive,
    backoff::Backoff,
    cluster::{archive::ArchiveRecord, event::Told, layout, record, store},
    election::{FencedWriter, WriteError},
    model::{Position, Term},
    nimbus::measure::{Measure, safe},
    tree::{self, CreateMode, Op},
};

/// After a failure of the tree.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Another term has begun.
#[derive(Debug)]
pub(super) struct Deposed;

impl Measure {
    /// Reads the mark that the leaders before have left, however long the tree takes. One that
    /// makes no sense says that anything may be safe, and that nobody is known to have it.
    pub(super) async fn read_mark(&self) -> ArchiveRecord {
        let mut backoff = self.backoff();
        loop {
            match self.shared.setup.store.archive().await {
                Ok(record) => return record.unwrap_or_default(),
                Err(store::Error::Unreadable(error)) => {
                    warn!(%error, "it is not known which metrics are safe: what others have is kept");
                    let safe = Position { term: i32::MAX, seq: u64::MAX };
                    return ArchiveRecord { safe, ..ArchiveRecord::default() };
                }
                Err(error) => {
                    info!(%error, "could not read up to where the metrics log is safe");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
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
                    info!(%error, "could not write up to where the metrics log is safe; it is tried again");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        *self.mark() = record;
        Ok(())
    }

    /// The mark as it should be, when that is another one.
    fn next_mark(&self, archive: &Archive) -> Option<ArchiveRecord> {
        let (_, fresh) = self.view();
        let followers = self.followers();
        let safe = safe::safe(&followers, archive.position());
        let before = self.mark();
        // One that does not see the cluster may have a follower without knowing it.
        if !fresh || safe <= before.safe {
            return None;
        }
        let holders = followers.into_iter().filter(|(_, has)| *has >= safe).map(|(id, _)| id);
        let holders = holders.chain([self.shared.setup.me.clone()]).collect();
        Some(ArchiveRecord { safe, holders, ..before.clone() })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order")
    }
}

/// Keeps the mark where the log is safe, for as long as the leadership lasts.
pub(super) async fn mark(measure: Measure, archive: Archive, writer: FencedWriter) {
    let mut observations = measure.shared.setup.observations.clone();
    loop {
        if let Some(record) = measure.next_mark(&archive) {
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
    let holders: Vec<String> = record.holders.iter().map(ToString::to_string).collect();
    let whose = match holders.is_empty() {
        true => "nobody is known to have them".to_owned(),
        false => format!("{} had them", holders.join(", ")),
    };
    format!(
        "the leader of term {term} goes on without metrics that were safe: it has the log up to entry {own}, \
         and up to {} it was safe; {whose}",
        record.safe
    )
}

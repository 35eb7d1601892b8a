//! Leadership: the term, the writes under it, and the detection of its end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    cluster::{
        event::{EventDraft, EventWriter},
        layout,
    },
    tree::{self, Op, OpResult, Scope, SessionId, SessionState, Tree, Version, Watcher, WriteOutcome},
};
use stormkeeper_model::{Term, event::EventKind};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

/// Interval of reads of `/leader` without a notification: a read may fail, and an event is reported
/// only once.
const REVIEW_PERIOD: Duration = Duration::from_secs(5);

/// The right to write the znodes that the leader owns, for one term.
///
/// There is no flag for "this nimbus leads": code with a `Leadership` may try to write, and the
/// tree decides.
#[derive(Debug)]
pub struct Leadership {
    tree: Arc<dyn Tree>,
    event_writer: EventWriter,
    session: SessionId,
    /// Content of `/leader`.
    record: Vec<u8>,
    watcher: tokio::sync::Mutex<Watcher>,
    deposed: CancellationToken,
}

/// Writer under one term. Every commit is one transaction that first checks `/term`.
#[derive(Debug, Clone)]
pub struct FencedWriter {
    tree: Arc<dyn Tree>,
    event_writer: EventWriter,
    deposed: CancellationToken,
}

/// Error of a fenced commit.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A later term has begun: no write of this leader takes effect any more.
    #[error("term {term} is over: a later term has begun")]
    Deposed {
        /// Term of the deposed leader.
        term: Term,
    },
    /// One operation was rejected, so none took effect: the state differs from the leader's view.
    #[error("operation {index} of a fenced write was rejected")]
    Op {
        /// Index of the operation in the requested operations, from 0.
        index: usize,
        /// Error of the operation.
        #[source]
        source: tree::Error,
    },
    /// The response was lost: read back before deciding anything.
    #[error("the outcome of a fenced write is unknown")]
    Unknown(#[source] tree::Error),
    /// The write was not sent or not applied: too large, no connection, or no access to `/term`.
    #[error("a fenced write was not sent")]
    NotSent(#[source] tree::Error),
}

impl Leadership {
    pub(super) fn new(
        tree: Arc<dyn Tree>,
        event_writer: EventWriter,
        session: SessionId,
        record: Vec<u8>,
    ) -> Self {
        let watcher = tokio::sync::Mutex::new(tree.watch(&layout::leader(), Scope::Node));
        Self { tree, event_writer, session, record, watcher, deposed: CancellationToken::new() }
    }

    /// Returns the term of this leadership.
    pub fn term(&self) -> Term {
        self.event_writer.term
    }

    /// Returns a writer under this term.
    pub fn writer(&self) -> FencedWriter {
        let (tree, event_writer) = (Arc::clone(&self.tree), self.event_writer.clone());
        FencedWriter { tree, event_writer, deposed: self.deposed.clone() }
    }

    /// Waits until this leadership has ended: the session is over, `/leader` is deleted or belongs
    /// to another session, or a fenced write found a later term.
    ///
    /// Meanwhile writes the content of `/leader` again if somebody else has changed it: nobody would
    /// find the leader.
    ///
    /// A lost connection alone does not end the leadership: the session and `/leader` may live on,
    /// and writes in between are rejected or checked.
    ///
    /// # Cancellation safety
    /// Safe: the state is read again in each call.
    pub async fn lost(&self) {
        let mut watcher = self.watcher.lock().await;
        let mut sessions = self.tree.session();
        loop {
            let state = *sessions.borrow_and_update();
            match state {
                SessionState::Closed => return,
                SessionState::Connecting => {
                    info!(term = %self.event_writer.term, "leadership ended: its session is over");
                    return;
                }
                SessionState::Connected(session) | SessionState::Disconnected(session)
                    if session != self.session =>
                {
                    info!(term = %self.event_writer.term, "leadership ended: its session is over");
                    return;
                }
                SessionState::Connected(_) => match self.tree.get(&layout::leader()).await {
                    Ok(Some(node)) if node.stat.owner == Some(self.session) => {
                        if *node.data != *self.record {
                            self.restore(node.stat.version).await;
                        }
                    }
                    Ok(_) => {
                        warn!(term = %self.event_writer.term, "leadership ended: /leader was deleted or belongs to another session");
                        return;
                    }
                    // Unknown; a session change, the watch or the next review retries.
                    Err(error) => info!(%error, "could not read /leader; retrying"),
                },
                SessionState::Disconnected(_) => {}
            }
            tokio::select! {
                // Whatever wakes the loop, all conditions are checked again.
                biased;
                // Cancel-safe: all arms only wait.
                () = self.deposed.cancelled() => return,
                _changes = watcher.changed() => {}
                changed = sessions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REVIEW_PERIOD) => {}
            }
        }
    }

    /// Writes the content of `/leader` again.
    async fn restore(&self, version: Version) {
        let (path, data) = (layout::leader(), self.record.clone());
        let written = self.writer().commit(vec![Op::Set { path, data, version: Some(version) }]).await;
        match written {
            Ok(_) => {
                warn!(term = %self.event_writer.term, "/leader was changed by hand; this leader has written it again");
            }
            // The review or the watch retries.
            Err(error) => {
                info!(term = %self.event_writer.term, %error, "could not write /leader again; retrying");
            }
        }
    }

    /// Deletes `/leader` at once, if it still belongs to this leadership, so that a successor does
    /// not wait for our session to end.
    pub async fn resign(self) {
        // Of any version: the content may have been written again. While the fence holds, no other
        // nimbus was elected, so `/leader` is not a successor's.
        let delete = Op::Delete { path: layout::leader(), version: None };
        let event = EventDraft::of_cluster(EventKind::Resigned, "the leader resigned voluntarily");
        match self.writer().commit_with_event(vec![delete], event).await {
            Ok(_) => info!(term = %self.event_writer.term, "resigned"),
            Err(error) => {
                info!(term = %self.event_writer.term, %error, "could not resign; leadership ends with the session")
            }
        }
    }
}

impl FencedWriter {
    /// Returns the term under which this writer writes.
    pub fn term(&self) -> Term {
        self.event_writer.term
    }

    /// Like [`FencedWriter::commit`], and appends an event to the list in the same transaction.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Cancellation safety
    /// If it is dropped half-way, the outcome is unknown.
    pub async fn commit_with_event(
        &self,
        ops: Vec<Op>,
        event: EventDraft,
    ) -> Result<Vec<OpResult>, WriteError> {
        let n_ops = ops.len();
        let ops: Vec<Op> = ops.into_iter().chain([self.event_writer.append(event)]).collect();
        let written = match self.commit(ops.clone()).await {
            // An operator has deleted the list. That must not prevent the leader from writing.
            Err(WriteError::Op { index, source: tree::Error::NoNode { .. } }) if index == n_ops => {
                self.tree.ensure(&layout::events()).await.map_err(WriteError::NotSent)?;
                self.commit(ops).await
            }
            written => written,
        };
        written.map(|mut results| {
            results.truncate(n_ops);
            results
        })
    }

    /// Applies all of `ops` if our term is still the latest term, or none of them. Returns one
    /// result per operation.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Cancellation safety
    /// If it is dropped half-way, the outcome is unknown.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, WriteError> {
        let mut fenced = Vec::with_capacity(ops.len() + 1);
        let version = Some(Version(self.event_writer.term.0));
        #[cfg(feature = "injected-bugs")]
        let version = version.filter(|_| !injected_bugs::is_injected(InjectedBug::UnfencedWrite));
        fenced.push(Op::Check { path: layout::term(), version });
        fenced.extend(ops);
        match self.tree.multi(fenced).await {
            Ok(mut results) => {
                results.remove(0);
                Ok(results)
            }
            // The fence was not checked: an access control list excludes this nimbus from `/term`.
            Err(tree::Error::Multi { index: 0, source })
                if matches!(*source, tree::Error::NotAuthorized { .. }) =>
            {
                Err(WriteError::NotSent(*source))
            }
            Err(tree::Error::Multi { index: 0, .. }) => {
                self.deposed.cancel();
                Err(WriteError::Deposed { term: self.event_writer.term })
            }
            Err(tree::Error::Multi { index, source }) => {
                Err(WriteError::Op { index: index - 1, source: *source })
            }
            Err(error) => Err(match error.outcome() {
                WriteOutcome::Unknown => WriteError::Unknown(error),
                WriteOutcome::NotApplied => WriteError::NotSent(error),
            }),
        }
    }
}

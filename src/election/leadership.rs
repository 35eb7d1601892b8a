//! Leading: the term, the writes under it, and noticing its end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

#[cfg(any(test, feature = "test-support"))]
use crate::test_support::sabotage::{self, Sabotage};
use crate::{
    cluster::{
        event::{Author, Told},
        layout,
    },
    model::{Term, event::EventKind},
    tree::{self, Op, OpResult, Outcome, Scope, SessionId, SessionState, Tree, Version, Watcher},
};

/// Looks at `/leader` this often without being woken, as a look may fail and an event is
/// told once.
const REVIEW_PERIOD: Duration = Duration::from_secs(5);

/// The right to write what the leader owns, for one term.
///
/// There is no flag that says "I lead": whoever holds this may try, and the tree decides.
#[derive(Debug)]
pub struct Leadership {
    tree: Arc<dyn Tree>,
    author: Author,
    session: SessionId,
    watcher: tokio::sync::Mutex<Watcher>,
    deposed: CancellationToken,
}

/// Writes under one term. Every commit is one transaction that first checks `/term`.
#[derive(Debug, Clone)]
pub struct FencedWriter {
    tree: Arc<dyn Tree>,
    author: Author,
    deposed: CancellationToken,
}

/// Why a fenced commit did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another term has begun: nothing of ours lands any more.
    #[error("term {term} is over")]
    Deposed {
        /// The term that is over.
        term: Term,
    },
    /// One operation was refused, so none took effect: the state is not what we thought.
    #[error("operation {index} of a fenced write was refused")]
    Op {
        /// Which one, from 0, of those that were asked for.
        index: usize,
        /// Why.
        #[source]
        source: tree::Error,
    },
    /// The answer was lost: read back before deciding anything.
    #[error("it is not known whether a fenced write took effect")]
    Unknown(#[source] tree::Error),
    /// It was not sent: too large, or no connection.
    #[error("a fenced write was not sent")]
    NotSent(#[source] tree::Error),
}

impl Leadership {
    pub(super) fn new(tree: Arc<dyn Tree>, author: Author, session: SessionId) -> Self {
        let watcher = tokio::sync::Mutex::new(tree.watch(&layout::leader(), Scope::Node));
        Self { tree, author, session, watcher, deposed: CancellationToken::new() }
    }

    /// The term that we lead in.
    pub fn term(&self) -> Term {
        self.author.term
    }

    /// What writes under this term.
    pub fn writer(&self) -> FencedWriter {
        let (tree, author) = (Arc::clone(&self.tree), self.author.clone());
        FencedWriter { tree, author, deposed: self.deposed.clone() }
    }

    /// Waits until we lead no longer: the session is over, `/leader` is gone or another's,
    /// or a fenced write found another term.
    ///
    /// A lost connection alone is not the end: the session and `/leader` may live on, and
    /// what is written meanwhile is refused or checked.
    ///
    /// # Cancellation safety
    /// Safe: it is found out anew each time.
    pub async fn lost(&self) {
        let mut watcher = self.watcher.lock().await;
        let mut sessions = self.tree.session();
        loop {
            let state = *sessions.borrow_and_update();
            match state {
                SessionState::Closed => return,
                SessionState::Connecting => {
                    info!(term = %self.author.term, "the session that led is over");
                    return;
                }
                SessionState::Connected(session) | SessionState::Disconnected(session)
                    if session != self.session =>
                {
                    info!(term = %self.author.term, "the session that led is over");
                    return;
                }
                SessionState::Connected(_) => match self.tree.get(&layout::leader()).await {
                    Ok(Some(node)) if node.stat.owner == Some(self.session) => {}
                    Ok(_) => {
                        warn!(term = %self.author.term, "/leader is no longer ours");
                        return;
                    }
                    // No news; the session, the watch or the next review wakes us again.
                    Err(error) => info!(%error, "could not look at /leader"),
                },
                SessionState::Disconnected(_) => {}
            }
            tokio::select! {
                // Whichever it is, all is looked at again.
                biased;
                // Cancel-safe: all of them only wait.
                () = self.deposed.cancelled() => return,
                _changes = watcher.changed() => {}
                changed = sessions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REVIEW_PERIOD) => {}
            }
        }
    }

    /// Gives up the leadership at once, so that a successor does not wait for our session
    /// to end. Only if it is still ours.
    pub async fn resign(self) {
        let delete = Op::Delete { path: layout::leader(), version: Some(Version::FIRST) };
        let told = Told::of_cluster(EventKind::Resigned, "it stops to lead of its own accord");
        match self.writer().commit_and_tell(vec![delete], told).await {
            Ok(_) => info!(term = %self.author.term, "resigned"),
            Err(error) => {
                info!(term = %self.author.term, %error, "could not resign; the session's end will do it")
            }
        }
    }
}

impl FencedWriter {
    /// The term that it writes under.
    pub fn term(&self) -> Term {
        self.author.term
    }

    /// As [`FencedWriter::commit`], and in the same transaction adds to the list of events.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Cancellation safety
    /// When dropped half-way the outcome is unknown.
    pub async fn commit_and_tell(&self, ops: Vec<Op>, told: Told) -> Result<Vec<OpResult>, WriteError> {
        let n_asked = ops.len();
        let ops: Vec<Op> = ops.into_iter().chain([self.author.tell(told)]).collect();
        let written = match self.commit(ops.clone()).await {
            // Someone deleted the list. That must not keep a leader from leading.
            Err(WriteError::Op { index, source: tree::Error::NoNode { .. } }) if index == n_asked => {
                self.tree.ensure(&layout::events()).await.map_err(WriteError::NotSent)?;
                self.commit(ops).await
            }
            written => written,
        };
        written.map(|mut results| {
            results.truncate(n_asked);
            results
        })
    }

    /// All of `ops` if our term is still the current one, or none of them. Answers one
    /// result per operation.
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// # Cancellation safety
    /// When dropped half-way the outcome is unknown.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, WriteError> {
        let mut fenced = Vec::with_capacity(ops.len() + 1);
        let version = Some(Version(self.author.term.0));
        #[cfg(any(test, feature = "test-support"))]
        let version = version.filter(|_| !sabotage::is_put_in(Sabotage::UnfencedWrite));
        fenced.push(Op::Check { path: layout::term(), version });
        fenced.extend(ops);
        match self.tree.multi(fenced).await {
            Ok(mut results) => {
                results.remove(0);
                Ok(results)
            }
            Err(tree::Error::Multi { index: 0, .. }) => {
                self.deposed.cancel();
                Err(WriteError::Deposed { term: self.author.term })
            }
            Err(tree::Error::Multi { index, source }) => {
                Err(WriteError::Op { index: index - 1, source: *source })
            }
            Err(error) => Err(match error.outcome() {
                Outcome::Unknown => WriteError::Unknown(error),
                Outcome::NotApplied => WriteError::NotSent(error),
            }),
        }
    }
}

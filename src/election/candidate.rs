//! Standing for leader.

use std::sync::Arc;

use tracing::info;

use crate::{
    cluster::{
        layout,
        record::{self, Election, Leader},
    },
    election::Leadership,
    model::{NimbusId, Term},
    tree::{CreateMode, Error, Node, Op, OpResult, Outcome, SessionId, Tree, Version},
};

/// A nimbus that may lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    tree: Arc<dyn Tree>,
    me: NimbusId,
    api: String,
}

/// How standing for leader ended.
#[derive(Debug)]
pub enum Campaign {
    /// We lead.
    Won(Leadership),
    /// Someone else leads, or won while we stood.
    Lost,
}

impl Candidate {
    /// A candidate that others will reach at `api`, `host:port`.
    ///
    /// Only one process may use the id `me` at a time (nimbus holds a lock on its
    /// directory): a `/leader` of ours from another session is taken for a leftover of our
    /// own former life and replaced.
    pub fn new(tree: Arc<dyn Tree>, me: NimbusId, api: String) -> Self {
        Self { tree, me, api }
    }

    /// Stands once.
    ///
    /// # Errors
    /// Those of the tree; when it is not known whether we won, that is found out by reading
    /// back, and an error means that could not be done either. Stand again.
    ///
    /// # Cancellation safety
    /// When dropped half-way we may lead without knowing; the next campaign of the same
    /// session finds out and wins again under a new term.
    pub async fn campaign(&self) -> Result<Campaign, Error> {
        let Some(session) = self.tree.session().borrow().connected() else { return Err(Error::Disconnected) };
        let mut ops = Vec::with_capacity(3);
        if let Some(node) = self.tree.get(&layout::leader()).await? {
            if !self.is_our_leftover(&node) {
                return Ok(Campaign::Lost);
            }
            info!(owner = ?node.stat.owner, "replacing the leadership of our own former session");
            ops.push(Op::Delete { path: layout::leader(), version: Some(node.stat.version) });
        }
        let (term, set_term) = self.next_term().await?;
        ops.push(Op::Create {
            path: layout::leader(),
            data: record::encode(&Leader { nimbus: self.me.clone(), api: self.api.clone(), term }),
            mode: CreateMode::Ephemeral,
        });
        ops.push(set_term);
        match self.tree.multi(ops).await {
            Ok(results) => {
                debug_assert!(matches!(
                    results.last(),
                    Some(OpResult::Set(Version(v)) ) if *v == term.0
                ));
                Ok(self.won(term, session))
            }
            Err(error) if error.outcome() == Outcome::Unknown => self.find_out(term, error).await,
            Err(error @ Error::Multi { .. }) => match error.root() {
                Error::NodeExists { .. } | Error::BadVersion { .. } | Error::NoNode { .. } => {
                    Ok(Campaign::Lost)
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn is_our_leftover(&self, node: &Node) -> bool {
        record::decode::<Leader>(&layout::leader(), &node.data).is_ok_and(|leader| leader.nimbus == self.me)
    }

    /// The term to come, and the operation that begins it.
    async fn next_term(&self) -> Result<(Term, Op), Error> {
        let path = layout::term();
        let version = match self.tree.get(&path).await? {
            Some(node) => node.stat.version,
            None => {
                // Made outside the election, so that every election is a set with a version.
                match self.tree.create(&path, b"", CreateMode::Persistent).await {
                    Ok(_) | Err(Error::NodeExists { .. }) => {}
                    Err(error) => return Err(error),
                }
                self.tree.get(&path).await?.map_or(Version::FIRST, |node| node.stat.version)
            }
        };
        let term = Term(version.next().0);
        let data = record::encode(&Election { term, nimbus: self.me.clone() });
        Ok((term, Op::Set { path, data, version: Some(version) }))
    }

    /// The answer to our transaction was lost: `/leader` says whether it took effect.
    async fn find_out(&self, term: Term, lost_answer: Error) -> Result<Campaign, Error> {
        let Some(session) = self.tree.session().borrow().connected() else { return Err(lost_answer) };
        let Some(node) = self.tree.get(&layout::leader()).await? else { return Ok(Campaign::Lost) };
        let leader = record::decode::<Leader>(&layout::leader(), &node.data);
        let ours = node.stat.owner == Some(session)
            && leader.is_ok_and(|leader| leader.nimbus == self.me && leader.term == term);
        Ok(if ours { self.won(term, session) } else { Campaign::Lost })
    }

    fn won(&self, term: Term, session: SessionId) -> Campaign {
        info!(%term, nimbus = %self.me, "won the election");
        Campaign::Won(Leadership::new(Arc::clone(&self.tree), term, session))
    }
}

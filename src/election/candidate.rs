//! Standing for leader.

use std::sync::Arc;

use tracing::info;

use crate::{
    clock::Clock,
    cluster::{
        event::{Author, Told},
        layout,
        record::{self, Election, Leader},
    },
    election::Leadership,
    model::{NimbusId, Term, event::EventKind},
    tree::{CreateMode, Error, Node, Op, OpResult, Outcome, SessionId, Tree, Version},
};

/// A nimbus that may lead.
#[derive(Debug, Clone)]
pub struct Candidate {
    tree: Arc<dyn Tree>,
    me: NimbusId,
    api: String,
    clock: Clock,
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
    pub fn new(tree: Arc<dyn Tree>, me: NimbusId, api: String, clock: Clock) -> Self {
        Self { tree, me, api, clock }
    }

    /// Deletes a `/leader` that our own former session left over, so that nobody takes it for
    /// a leader or waits for that session to end. Answers whether anyone else leads.
    ///
    /// # Errors
    /// Those of the tree; run it again.
    pub async fn is_led_by_another(&self) -> Result<bool, Error> {
        // Before `/leader`, so that an election in between shows: a `/leader` that was created
        // again has the version of the one that was read.
        let term = self.tree.get(&layout::term()).await?;
        let Some(node) = self.tree.get(&layout::leader()).await? else { return Ok(false) };
        if !self.is_our_leftover(&node) {
            return Ok(true);
        }
        info!(owner = ?node.stat.owner, "removing the leadership of our own former session");
        let check = Op::Check { path: layout::term(), version: term.map(|term| term.stat.version) };
        let delete = Op::Delete { path: layout::leader(), version: Some(node.stat.version) };
        match self.tree.multi(vec![check, delete]).await {
            Ok(_) => Ok(false),
            Err(error @ Error::Multi { .. }) => match error.root() {
                Error::NoNode { .. } => Ok(false),
                // Another was elected meanwhile.
                Error::BadVersion { .. } => Ok(true),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
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
        let mut ops = Vec::with_capacity(4);
        // Before `/leader`: if another is elected after this, our transaction fails, and does
        // not take its `/leader` for the one that is read below, which has the same version.
        let (term, set_term, reason) = self.next_term().await?;
        if let Some(node) = self.tree.get(&layout::leader()).await? {
            if !self.is_our_leftover(&node) {
                return Ok(Campaign::Lost);
            }
            info!(owner = ?node.stat.owner, "replacing the leadership of our own former session");
            ops.push(Op::Delete { path: layout::leader(), version: Some(node.stat.version) });
        }
        ops.push(Op::Create {
            path: layout::leader(),
            data: record::encode(&Leader { nimbus: self.me.clone(), api: self.api.clone(), term }),
            mode: CreateMode::Ephemeral,
        });
        ops.push(set_term);
        ops.push(self.author(term).tell(Told::of_cluster(EventKind::Elected, reason)));
        match self.tree.multi(ops).await {
            Ok(results) => {
                debug_assert!(results.contains(&OpResult::Set(Version(term.0))));
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

    fn author(&self, term: Term) -> Author {
        Author { nimbus: self.me.clone(), term, clock: self.clock.clone() }
    }

    /// The term to come, the operation that begins it, and whom it follows, in words.
    async fn next_term(&self) -> Result<(Term, Op, String), Error> {
        let path = layout::term();
        let node = match self.tree.get(&path).await? {
            Some(node) => Some(node),
            None => {
                // Made outside the election, so that every election is a set with a version.
                self.tree.ensure(&path).await?;
                self.tree.get(&path).await?
            }
        };
        // An election must not fail because someone deleted the list of events.
        self.tree.ensure(&layout::events()).await?;
        let version = node.as_ref().map_or(Version::FIRST, |node| node.stat.version);
        let last = node.and_then(|node| record::decode::<Election>(&path, &node.data).ok());
        let reason = match last {
            Some(Election { term, nimbus }) => format!("nobody led; the last was {nimbus} in term {term}"),
            None => "nobody had led before".to_owned(),
        };
        let term = Term(version.next().0);
        let data = record::encode(&Election { term, nimbus: self.me.clone() });
        Ok((term, Op::Set { path, data, version: Some(version) }, reason))
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
        Campaign::Won(Leadership::new(Arc::clone(&self.tree), self.author(term), session))
    }
}

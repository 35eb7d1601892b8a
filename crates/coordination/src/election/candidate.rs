//! Campaigning for leadership.

use std::sync::Arc;

use tracing::info;

use crate::{
    cluster::{
        event::{EventDraft, EventWriter},
        layout,
        record::{self, Election, Leader, UnknownFields},
    },
    election::Leadership,
    tree::{CreateMode, Error, Node, Op, OpResult, SessionId, Tree, Version, WriteOutcome},
};
use stormkeeper_model::{NimbusId, Term, clock::Clock, event::EventKind};

/// A nimbus that can campaign for leadership.
#[derive(Debug, Clone)]
pub struct Candidate {
    tree: Arc<dyn Tree>,
    me: NimbusId,
    api: String,
    clock: Clock,
}

/// Result of a campaign.
#[derive(Debug)]
pub enum CampaignOutcome {
    /// The candidate leads.
    Won(Leadership),
    /// Another nimbus leads, or won during the campaign.
    Lost,
}

impl Candidate {
    /// Creates a candidate whose API other nimbuses and clients reach at `api`, `host:port`.
    ///
    /// Only one process may use the id `me` at a time (nimbus locks its directory): a `/leader`
    /// with this id from another session is treated as a leftover of the former session of this
    /// nimbus, and replaced.
    pub fn new(tree: Arc<dyn Tree>, me: NimbusId, api: String, clock: Clock) -> Self {
        Self { tree, me, api, clock }
    }

    /// Deletes a `/leader` that the former session of this nimbus left behind, so that nobody takes
    /// it for a leader or waits for that session to end. Returns whether another nimbus leads.
    ///
    /// # Errors
    /// Errors of the tree; run it again.
    pub async fn remove_stale_leader(&self) -> Result<bool, Error> {
        // Read before `/leader`, so that the check of `/term` detects an election in between: a
        // `/leader` that was created again has the same version as the deleted `/leader`.
        let term = self.tree.get(&layout::term()).await?;
        let Some(node) = self.tree.get(&layout::leader()).await? else { return Ok(false) };
        if !self.names_this_nimbus(&node) {
            return Ok(true);
        }
        info!(owner = ?node.stat.owner, "deleting /leader of a former session of this nimbus");
        let check = Op::Check { path: layout::term(), version: term.map(|term| term.stat.version) };
        let delete = Op::Delete { path: layout::leader(), version: Some(node.stat.version) };
        match self.tree.multi(vec![check, delete]).await {
            Ok(_) => Ok(false),
            Err(error @ Error::Multi { .. }) => match error.root() {
                Error::NoNode { .. } => Ok(false),
                // Another nimbus was elected in between.
                Error::BadVersion { .. } => Ok(true),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Campaigns once.
    ///
    /// # Errors
    /// Errors of the tree. If the outcome of the transaction is unknown, the candidate reads
    /// `/leader` to determine it; an error then means that this read failed too. Campaign again.
    ///
    /// # Cancellation safety
    /// If the campaign is dropped half-way, this nimbus may lead without knowing; the next campaign
    /// of the same session detects that and wins again under a new term.
    pub async fn campaign(&self) -> Result<CampaignOutcome, Error> {
        let Some(session) = self.tree.session().borrow().connected() else { return Err(Error::Disconnected) };
        let mut ops = Vec::with_capacity(4);
        // Read before `/leader`: if another nimbus is elected after this read, our transaction
        // fails and does not replace the new `/leader`, which has the same version as the `/leader`
        // that is read below.
        let (term, set_term, reason) = self.next_term().await?;
        if let Some(node) = self.tree.get(&layout::leader()).await? {
            if !self.names_this_nimbus(&node) {
                return Ok(CampaignOutcome::Lost);
            }
            info!(owner = ?node.stat.owner, "replacing /leader that names this nimbus");
            ops.push(Op::Delete { path: layout::leader(), version: Some(node.stat.version) });
        }
        ops.push(Op::Create {
            path: layout::leader(),
            data: record::encode(&Leader {
                nimbus: self.me.clone(),
                api: self.api.clone(),
                term,
                unknown_fields: UnknownFields::new(),
            }),
            mode: CreateMode::Ephemeral,
        });
        ops.push(set_term);
        ops.push(self.event_writer(term).append(EventDraft::of_cluster(EventKind::Elected, reason)));
        match self.tree.multi(ops).await {
            Ok(results) => {
                debug_assert!(results.contains(&OpResult::Set(Version(term.0))));
                Ok(self.won(term, session))
            }
            Err(error) if error.outcome() == WriteOutcome::Unknown => {
                self.resolve_unknown_outcome(term, error).await
            }
            Err(error @ Error::Multi { .. }) => match error.root() {
                Error::NodeExists { .. } | Error::BadVersion { .. } | Error::NoNode { .. } => {
                    Ok(CampaignOutcome::Lost)
                }
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn names_this_nimbus(&self, node: &Node) -> bool {
        record::decode::<Leader>(&layout::leader(), &node.data).is_ok_and(|leader| leader.nimbus == self.me)
    }

    fn event_writer(&self, term: Term) -> EventWriter {
        EventWriter { nimbus: self.me.clone(), term, clock: self.clock.clone() }
    }

    /// Returns the next term, the operation that begins it, and a description of the last leader.
    async fn next_term(&self) -> Result<(Term, Op, String), Error> {
        let path = layout::term();
        let node = match self.tree.get(&path).await? {
            Some(node) => Some(node),
            None => {
                // Created outside the election, so that every election is a set with a version.
                self.tree.ensure(&path).await?;
                self.tree.get(&path).await?
            }
        };
        // An election must not fail because an operator has deleted the list of events.
        self.tree.ensure(&layout::events()).await?;
        let version = node.as_ref().map_or(Version::FIRST, |node| node.stat.version);
        let last = node.and_then(|node| record::decode::<Election>(&path, &node.data).ok());
        let reason = match &last {
            Some(Election { term, nimbus, .. }) => {
                format!("there was no leader; the last leader was {nimbus} in term {term}")
            }
            None => "first election: there was no leader before".to_owned(),
        };
        let term = Term(version.next().0);
        let unknown_fields = last.map(|last| last.unknown_fields).unwrap_or_default();
        let data = record::encode(&Election { term, nimbus: self.me.clone(), unknown_fields });
        Ok((term, Op::Set { path, data, version: Some(version) }, reason))
    }

    /// Determines from `/leader` whether our transaction took effect, after its response was lost.
    async fn resolve_unknown_outcome(
        &self,
        term: Term,
        lost_response: Error,
    ) -> Result<CampaignOutcome, Error> {
        let Some(session) = self.tree.session().borrow().connected() else { return Err(lost_response) };
        let Some(node) = self.tree.get(&layout::leader()).await? else { return Ok(CampaignOutcome::Lost) };
        let leader = record::decode::<Leader>(&layout::leader(), &node.data);
        let ours = node.stat.owner == Some(session)
            && leader.is_ok_and(|leader| leader.nimbus == self.me && leader.term == term);
        Ok(if ours { self.won(term, session) } else { CampaignOutcome::Lost })
    }

    fn won(&self, term: Term, session: SessionId) -> CampaignOutcome {
        info!(%term, nimbus = %self.me, "won the election");
        CampaignOutcome::Won(Leadership::new(Arc::clone(&self.tree), self.event_writer(term), session))
    }
}

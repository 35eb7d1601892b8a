//! Campaigning for leadership.

use std::sync::Arc;

use tracing::{info, warn};

use crate::{
    cluster::{
        event::{EventDraft, EventWriter},
        layout,
        record::{self, Election, Leader, UnknownFields},
        tree_id::{self, FoundTree, TreeMemory},
    },
    election::{Leadership, identity},
    tree::{CreateMode, Error, Node, Op, OpResult, SessionId, Tree, Version, WriteOutcome},
};
use stormkeeper_model::{NimbusId, Term, clock::Clock, event::EventKind};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

/// Maximum number of writes of `/term` in one transaction. A term that is further above the data
/// version of `/term` is reached in several transactions; see [`Candidate::raise_term`].
const RAISE_MAX: i32 = 8_000;

/// A nimbus that can campaign for leadership.
#[derive(Debug, Clone)]
pub struct Candidate {
    tree: Arc<dyn Tree>,
    me: NimbusId,
    api: String,
    memory: TreeMemory,
    clock: Clock,
}

/// Next term, and the operations that begin it.
struct NextTerm {
    term: Term,
    /// Operations on `/term`. They take effect together, so nobody sees a version in between.
    ops: Vec<Op>,
    /// Description of the last leader.
    reason: String,
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
    ///
    /// The terms of the candidate are above those in `memory`.
    pub fn new(tree: Arc<dyn Tree>, me: NimbusId, api: String, memory: TreeMemory, clock: Clock) -> Self {
        Self { tree, me, api, memory, clock }
    }

    /// Deletes a `/leader` that the former session of this nimbus left behind or that no session
    /// owns, so that nobody takes it for a leader or waits for that session to end. Returns whether
    /// another nimbus leads.
    ///
    /// # Errors
    /// Errors of the tree; run it again.
    pub async fn remove_stale_leader(&self) -> Result<bool, Error> {
        // Read before `/leader`, so that the check of `/term` detects an election in between: a
        // `/leader` that was created again has the same version as the deleted `/leader`.
        let term = self.tree.get(&layout::term()).await?;
        let Some(node) = self.tree.get(&layout::leader()).await? else { return Ok(false) };
        if !self.is_leftover(&node) {
            return Ok(true);
        }
        info!(owner = ?node.stat.owner, "deleting /leader: no other nimbus leads");
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

    /// Campaigns once. The term will be above `seen`, a term that the caller has seen.
    ///
    /// # Errors
    /// Errors of the tree; [`Error::Disconnected`] also if the tree is not the one that this nimbus
    /// remembers. If the outcome of the transaction is unknown, the candidate reads
    /// `/leader` to determine it; an error then means that this read failed too. Campaign again.
    ///
    /// # Cancellation safety
    /// If the campaign is dropped half-way, this nimbus may lead without knowing; the next campaign
    /// of the same session detects that and wins again under a new term.
    pub async fn campaign(&self, seen: Term) -> Result<CampaignOutcome, Error> {
        let Some(session) = self.tree.session().borrow().connected() else { return Err(Error::Disconnected) };
        let Some(found) = tree_id::identify(&*self.tree, &self.memory).await? else {
            return Err(Error::Disconnected);
        };
        let mut ops = Vec::with_capacity(5);
        // Read before `/leader`: if another nimbus is elected after this read, our transaction
        // fails and does not replace the new `/leader`, which has the same version as the `/leader`
        // that is read below.
        let NextTerm { term, ops: begin_term, reason } = self.next_term(seen, &found).await?;
        if let Some(node) = self.tree.get(&layout::leader()).await? {
            if !self.is_leftover(&node) {
                return Ok(CampaignOutcome::Lost);
            }
            info!(owner = ?node.stat.owner, "replacing /leader: no other nimbus leads");
            ops.push(Op::Delete { path: layout::leader(), version: Some(node.stat.version) });
        }
        let (path, data) = (layout::leader(), self.leader_record(term));
        ops.push(Op::Create { path, data, mode: CreateMode::Ephemeral });
        ops.extend(begin_term);
        ops.extend(identity::write(&found, &self.memory, term));
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

    fn leader_record(&self, term: Term) -> Vec<u8> {
        record::encode(&Leader {
            nimbus: self.me.clone(),
            api: self.api.clone(),
            term,
            unknown_fields: UnknownFields::new(),
        })
    }

    /// Returns true if no nimbus leads although `/leader` exists: it names this nimbus, or no session
    /// owns it, so that somebody has created it by hand and it would stay for ever.
    fn is_leftover(&self, node: &Node) -> bool {
        if node.stat.owner.is_none() {
            warn!("/leader was created by hand: no session owns it, so no nimbus leads; it is replaced");
            return true;
        }
        record::decode::<Leader>(&layout::leader(), &node.data).is_ok_and(|leader| leader.nimbus == self.me)
    }

    fn event_writer(&self, term: Term) -> EventWriter {
        EventWriter { nimbus: self.me.clone(), term, clock: self.clock.clone() }
    }

    /// Returns the latest term that an election can have had, of those that this nimbus knows of.
    ///
    /// Every election writes its term to `/term` and `/tree-id`, so a much later one in `/leader` or
    /// in the events was written by hand. It is ignored: reaching it would take thousands of writes.
    fn known_term(&self, seen: Term, found: &FoundTree) -> Term {
        let of_identity = found.identity.as_ref().map_or(Term(0), |identity| identity.term);
        let of_term = found.term.map_or(Term(0), |(version, _)| Term(version.0));
        let recorded = of_identity.max(of_term).max(self.memory.term());
        if seen.0.saturating_sub(recorded.0) >= RAISE_MAX {
            warn!(
                %seen, %recorded,
                "/leader or an event names a term that no election can have had; it is ignored"
            );
            return recorded;
        }
        seen.max(recorded)
    }

    /// Returns the next term.
    ///
    /// The term is above every term that this nimbus knows of: the data version of `/term`, the term
    /// in `/tree-id`, the remembered one, and `seen`; see [`Candidate::known_term`]. If `/term` was
    /// deleted, its data version begins at 0 again; the same transaction then writes `/term` as often
    /// as it takes. So no data version is ever the fence of two leaders.
    async fn next_term(&self, seen: Term, found: &FoundTree) -> Result<NextTerm, Error> {
        let path = layout::term();
        let above = self.known_term(seen, found);
        #[cfg(feature = "injected-bugs")]
        let above = match injected_bugs::is_injected(InjectedBug::TermBeginsAnew) {
            true => Term(0),
            false => above,
        };
        let mut node = self.tree.get(&path).await?;
        let version_of = |node: &Option<Node>| node.as_ref().map_or(0, |node| node.stat.version.0);
        while above.0 - version_of(&node) >= RAISE_MAX {
            self.raise_term(node.as_ref().map(|node| node.stat.version)).await?;
            node = self.tree.get(&path).await?;
        }
        // An election must not fail because an operator has deleted the list of events.
        self.tree.ensure(&layout::events()).await?;
        let version = version_of(&node);
        let term = Term(Version(version.max(above.0)).next().0);
        let last = node.as_ref().and_then(|node| record::decode::<Election>(&path, &node.data).ok());
        let reason = match &last {
            Some(Election { term, nimbus, .. }) => {
                format!("there was no leader; the last leader was {nimbus} in term {term}")
            }
            None if above > Term(0) => {
                format!(
                    "there was no leader; /term was deleted or holds no record, and goes on after term {above}"
                )
            }
            None => "first election: there was no leader before".to_owned(),
        };
        let unknown_fields = last.map(|last| last.unknown_fields).unwrap_or_default();
        let data = record::encode(&Election { term, nimbus: self.me.clone(), unknown_fields });
        let ops = raise_term(node.map(|node| node.stat.version), term, &data);
        Ok(NextTerm { term, ops, reason })
    }

    /// Raises the data version of `/term` by [`RAISE_MAX`] without beginning a term.
    ///
    /// Between two such transactions, the version is one that an earlier leader had as its term. To
    /// write then, that leader would have to be frozen since thousands of elections.
    async fn raise_term(&self, version: Option<Version>) -> Result<(), Error> {
        let from = version.map_or(0, |version| version.0);
        info!(from, "/term is behind the terms that were used before: raising its version");
        self.tree.multi(raise_term(version, Term(from.saturating_add(RAISE_MAX)), b"")).await?;
        Ok(())
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
        let (tree, record) = (Arc::clone(&self.tree), self.leader_record(term));
        CampaignOutcome::Won(Leadership::new(tree, self.event_writer(term), session, record))
    }
}

/// Returns the operations that write `/term` until its data version is `term`, the last time with
/// `data`. `version` is the present data version; if `/term` is missing, it is created first.
pub fn raise_term(version: Option<Version>, term: Term, data: &[u8]) -> Vec<Op> {
    let path = layout::term();
    let create = Op::Create { path: path.clone(), data: Vec::new(), mode: CreateMode::Persistent };
    let writes = (version.map_or(0, |version| version.0)..term.0).map(|version| Op::Set {
        path: path.clone(),
        data: if version + 1 == term.0 { data.to_vec() } else { Vec::new() },
        version: Some(Version(version)),
    });
    version.is_none().then_some(create).into_iter().chain(writes).collect()
}

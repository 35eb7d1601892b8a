//! Knowledge of a client from earlier responses: the leader, and the last change that it has seen.

use std::time::Duration;

use reqwest::{Method, header::HeaderMap};

use super::{Client, Request};
use crate::{forward::BEHIND, seen::Seen};
use stormkeeper_model::Term;

/// The latest leadership and changes that the client has seen.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The latest changes that the client has written or seen. Reads are answered from views that
    /// contain them, so they see what the client wrote, and never an older state than before.
    pub(super) seen: Seen,
    /// The latest term that any nimbus has sent.
    pub(super) term: Option<Term>,
    /// API address of that term's leader, `host:port`.
    pub(super) leader: Option<String>,
}

impl Client {
    /// The leader, if a seed knows it, followed by the seeds.
    pub(super) async fn addresses(&self) -> Vec<String> {
        if self.known_leader().is_none()
            && let Some(leader) = self.cluster().await.ok().and_then(|cluster| cluster.leader)
        {
            self.record_leader(leader.term, Some(leader.api));
        }
        self.known_addresses()
    }

    /// The last known leader, if any, followed by the seeds.
    pub(super) fn known_addresses(&self) -> Vec<String> {
        let leader = self.known_leader();
        let seeds = self.seeds.iter().filter(|seed| leader.as_ref() != Some(*seed)).cloned();
        leader.iter().cloned().chain(seeds).collect()
    }

    pub(super) fn known_leader(&self) -> Option<String> {
        self.known().leader.clone()
    }

    pub(super) fn forget_leader(&self) {
        self.known().leader = None;
    }

    /// Records the leader that a nimbus named. A nimbus that has not seen the latest term yet would
    /// name a deposed leader, so leaders of earlier terms are ignored.
    pub(super) fn record_leader(&self, term: Term, leader: Option<String>) {
        let mut known = self.known();
        if known.term.is_none_or(|latest| term > latest) {
            (known.term, known.leader) = (Some(term), leader);
        } else if known.term == Some(term) && leader.is_some() {
            known.leader = leader;
        }
    }

    /// Records the changes that the nimbus has seen.
    pub(super) fn record_view(&self, nimbus: &str, request: &Request<'_>, headers: &HeaderMap) {
        for change in Seen::of_headers(headers).iter() {
            self.known().seen.record(change.clone());
            if let Some(listener) = self.listener.as_ref().filter(|_| request.method != Method::GET) {
                listener.written(change);
            }
        }
        let behind = headers.get(BEHIND).and_then(|value| value.to_str().ok()?.parse().ok());
        // The caller shows the age itself if it asked one nimbus for its own view.
        let listener = self.listener.as_ref().filter(|_| request.sees_writes);
        if let (Some(listener), Some(age_ms)) = (listener, behind) {
            listener.behind(nimbus, Duration::from_millis(age_ms));
        }
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no code panics while holding what the client knows")
    }
}

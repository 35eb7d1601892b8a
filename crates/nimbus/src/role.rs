//! Role loop: a nimbus follows and leads in turns, for as long as it runs.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    candidacy::{Candidacy, candidacy},
    leader::{Leader, LeaderContext, StopCause},
    reachable::Reachable,
    tree_copy::seen_term,
};
use stormkeeper_access::locks::Problems;
use stormkeeper_coordination::{
    cluster::{
        layout::{self, Ephemeral},
        presence::Presence,
        record::{self, NimbusRecord},
        users::HeldUsers,
    },
    election::{CampaignOutcome, Candidate, Leadership},
    tree::{Scope, SessionState},
};
use stormkeeper_model::{NimbusId, backoff::Delays, clock::Monotonic, text};
use stormkeeper_runtime::{tasks::Tasks, watch};

const RETRY: Delays = Delays::between(Duration::from_millis(50), Duration::from_secs(5));

/// Longest pause between two campaigns of a follower, in case a watch event was lost.
const CAMPAIGN_PERIOD: Duration = Duration::from_secs(10);

/// Pause before a nimbus campaigns again after its leader task failed. Other nimbuses can lead
/// meanwhile, and a fault that every leader meets does not cause an election every few
/// milliseconds.
const FAILURE_PAUSE: Delays = Delays::between(Duration::from_secs(1), Duration::from_secs(30));

/// Pause after a leadership that was lost before it was stable: two processes that depose each other
/// must not hold elections without a pause.
const LOST_PAUSE: Delays = Delays::between(Duration::from_millis(100), Duration::from_secs(2));

/// A leadership longer than this counts as stable: it resets the pauses.
const STABLE_LEADERSHIP: Duration = Duration::from_secs(60);

/// Current role of this nimbus.
enum Role {
    Follower,
    /// With the time at which the leadership began.
    Leader(Box<Leader>, Monotonic),
}

/// Outcome of one attempt to become the leader.
enum AttemptOutcome {
    /// This nimbus leads.
    Won(Leadership),
    /// Another nimbus leads, or this nimbus must wait: try again after this time at the latest.
    RetryAfter(Duration),
}

/// Switches a nimbus between following and leading.
pub(super) struct RoleLoop {
    pub(super) me: NimbusId,
    pub(super) candidate: Candidate,
    pub(super) context: LeaderContext,
    pub(super) role: watch::Sender<record::Role>,
    /// Number of blobs of live topologies that this nimbus is missing; `None` until known.
    pub(super) n_missing: watch::Receiver<Option<usize>>,
    /// Reachability of the API.
    pub(super) reachable: Reachable,
    /// True once it is known that no other process has the id of this nimbus.
    pub(super) is_alone: watch::Receiver<bool>,
    pub(super) tasks: Tasks,
}

impl RoleLoop {
    /// Runs until its tasks are cancelled. A leader then resigns, so that its successor need
    /// not wait for the session to expire.
    pub(super) async fn run(mut self) {
        let stop = self.tasks.cancelled();
        let is_alone = tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = stop.cancelled() => return,
            is_alone = self.is_alone.wait_for(|is_alone| *is_alone) => is_alone,
        };
        if is_alone.is_err() {
            // Another process has the id of this nimbus, which ends.
            stop.cancelled().await;
            return;
        }
        let (mut failure_pause, mut lost_pause) = (FAILURE_PAUSE.backoff(), LOST_PAUSE.backoff());
        let mut role = Role::Follower;
        loop {
            role = match role {
                Role::Follower => match self.follow(&stop).await {
                    Some(leadership) => {
                        let leader = Leader::start(leadership, self.context.clone(), &self.tasks);
                        self.role.send_replace(record::Role::Leader);
                        Role::Leader(Box::new(leader), self.context.clock.monotonic())
                    }
                    None => return,
                },
                Role::Leader(leader, began) => {
                    let lost = tokio::select! {
                        biased;
                        // Cancel-safe: both only wait. The tasks of a leader are cancelled with ours,
                        // so this ends on a stop too.
                        lost = leader.lost() => lost,
                        reason = self.reachable.lost(&self.me, self.context.observer.observe()) => {
                            error!("{reason}: this nimbus resigns, so that another leads");
                            StopCause::LeadershipLost
                        }
                    };
                    let was_stable = self.context.clock.monotonic().since(began) > STABLE_LEADERSHIP;
                    if was_stable {
                        failure_pause.reset();
                        lost_pause.reset();
                    }
                    let leadership = leader.stop().await;
                    self.role.send_replace(record::Role::Follower);
                    // Resign even if the leadership seems lost: if it is not, others wait for it.
                    leadership.resign().await;
                    let pause = match lost {
                        StopCause::TaskEnded if !stop.is_cancelled() => {
                            let pause = failure_pause.next_delay();
                            warn!(
                                ?pause,
                                "the leader task failed; this nimbus pauses before it campaigns again"
                            );
                            pause
                        }
                        StopCause::LeadershipLost if !was_stable => lost_pause.next_delay(),
                        _ => Duration::ZERO,
                    };
                    tokio::select! {
                        biased;
                        // Cancel-safe: both only wait.
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    Role::Follower
                }
            }
        }
    }

    /// Waits until this nimbus becomes the leader. Returns `None` on a stop.
    async fn follow(&mut self, stop: &CancellationToken) -> Option<Leadership> {
        let tree = self.context.store.tree();
        let mut leader = tree.watch(&layout::leader(), Scope::Node);
        let mut sessions = tree.session();
        let mut backoff = RETRY.backoff();
        let mut leaderless = None;
        while !stop.is_cancelled() {
            let state = *sessions.borrow_and_update();
            let wait = match state {
                SessionState::Connected(_) => match self.try_campaign(&mut leaderless).await {
                    Ok(AttemptOutcome::Won(leadership)) => return Some(leadership),
                    Ok(AttemptOutcome::RetryAfter(wait)) => {
                        backoff.reset();
                        wait.min(CAMPAIGN_PERIOD)
                    }
                    Err(error) => {
                        info!(error, "could not campaign for leader; retrying");
                        backoff.next_delay()
                    }
                },
                SessionState::Connecting | SessionState::Disconnected(_) => CAMPAIGN_PERIOD,
                SessionState::Closed => {
                    warn!("the ZooKeeper client was closed: this nimbus cannot lead until it is restarted");
                    stop.cancelled().await;
                    return None;
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: all of them only wait; the loop checks everything again.
                () = stop.cancelled() => return None,
                _changes = leader.changed() => {}
                _changed = sessions.changed() => {}
                // These fail only if the blob task or the API has ended, which ends the nimbus.
                () = self.reachable.changed() => {}
                _changed = self.n_missing.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        None
    }

    /// Returns how long this nimbus, if others cannot reach it, leaves the leadership to them. It leads if
    /// nobody else does: topologies are then still placed.
    async fn leave_to_others(
        &mut self,
        leaderless: &mut Option<Monotonic>,
    ) -> Result<Option<Duration>, String> {
        let view = Arc::clone(&self.context.observer.observe().borrow().view);
        let grace = self.reachable.grace(&self.me, &view, self.context.options.candidate_grace);
        let Some(grace) = grace else { return Ok(None) };
        if self.context.store.leader().await.map_err(|error| error.to_string())?.is_some() {
            *leaderless = None;
            return Ok(Some(CAMPAIGN_PERIOD));
        }
        let now = self.context.clock.monotonic();
        let leaderless_for = now.since(*leaderless.get_or_insert(now));
        Ok(grace.checked_sub(leaderless_for).filter(|left| !left.is_zero()))
    }

    /// Campaigns if it is this nimbus' turn. `leaderless` is the time since which it has seen no
    /// leader.
    async fn try_campaign(&mut self, leaderless: &mut Option<Monotonic>) -> Result<AttemptOutcome, String> {
        self.context.store.ensure_layout().await.map_err(|error| error.to_string())?;
        if let Some(wait) = self.leave_to_others(leaderless).await? {
            return Ok(AttemptOutcome::RetryAfter(wait));
        }
        let n_missing = *self.n_missing.borrow_and_update();
        if n_missing.is_none()
            && self.context.store.leader().await.map_err(|error| error.to_string())?.is_some()
        {
            // Shortly after the start: keep what our own former session may still hold until we
            // know whether we can take it over.
            return Ok(AttemptOutcome::RetryAfter(CAMPAIGN_PERIOD));
        }
        if n_missing != Some(0) {
            if self.candidate.remove_stale_leader().await.map_err(|error| error.to_string())? {
                *leaderless = None;
                return Ok(AttemptOutcome::RetryAfter(CAMPAIGN_PERIOD));
            }
            let now = self.context.clock.monotonic();
            let leaderless_for = now.since(*leaderless.get_or_insert(now));
            let view = Arc::clone(&self.context.observer.observe().borrow().view);
            let grace = self.context.options.candidate_grace;
            match candidacy(&self.me, n_missing, &view.nimbuses, leaderless_for, grace) {
                Candidacy::After(wait) => {
                    debug!(?n_missing, ?wait, "missing blobs: waiting before this nimbus campaigns");
                    return Ok(AttemptOutcome::RetryAfter(wait));
                }
                Candidacy::Now => {
                    warn!(?n_missing, "no nimbus with all blobs leads: campaigning with blobs missing");
                }
            }
        }
        let seen = seen_term(&self.context.observer.observe().borrow().view);
        match self.candidate.campaign(seen).await.map_err(|error| error.to_string())? {
            CampaignOutcome::Won(leadership) => Ok(AttemptOutcome::Won(leadership)),
            CampaignOutcome::Lost => {
                *leaderless = None;
                Ok(AttemptOutcome::RetryAfter(CAMPAIGN_PERIOD))
            }
        }
    }
}

/// Changing parts of the record that a nimbus publishes at `/nimbuses/{id}`.
pub(super) struct PublishedStatus {
    pub(super) role: watch::Receiver<record::Role>,
    pub(super) n_missing: watch::Receiver<Option<usize>>,
    /// Reason if its disk is almost full.
    pub(super) disk_problem: watch::Receiver<Option<String>>,
    /// Writes to its local directory that fail.
    pub(super) failed_writes: watch::Receiver<Vec<String>>,
    /// Files with tokens or secrets that cannot be used.
    pub(super) access: Problems,
    /// Differences from the leader.
    pub(super) comparison: Comparison,
    /// Users that it has at ZooKeeper.
    pub(super) held_users: watch::Receiver<HeldUsers>,
    /// Reason why its metric store cannot be opened; absent if this nimbus keeps no metrics.
    pub(super) metrics_error: Option<watch::Receiver<Option<String>>>,
}

/// Differences of a nimbus from the leader, if they are a problem.
pub(super) struct Comparison {
    /// Milliseconds by which its clock is ahead of the leader's.
    pub(super) clock_ahead_ms: watch::Receiver<Option<i64>>,
    /// Reason why the leader refuses its proofs.
    pub(super) proof_problem: watch::Receiver<Option<String>>,
}

/// Longest reason in the record of a nimbus; the log has the full text.
const REASON_BYTES_MAX: usize = 1000;

fn shorten_reason(reason: &str) -> String {
    text::shortened_from_log(reason, REASON_BYTES_MAX).into_owned()
}

/// The problem of the disk of a nimbus, if there is one.
fn disk_problem(failed_writes: &[String], low: Option<&str>) -> Option<String> {
    let all: Vec<&str> = failed_writes.iter().map(String::as_str).chain(low).collect();
    (!all.is_empty()).then(|| shorten_reason(&all.join("; ")))
}

/// Keeps the record at `/nimbuses/{id}` up to date.
pub(super) async fn register(
    mut is_alone: watch::Receiver<bool>,
    (me, mut record): (NimbusId, NimbusRecord),
    mut status: PublishedStatus,
    presence: Presence,
) {
    if is_alone.wait_for(|is_alone| *is_alone).await.is_err() {
        return;
    }
    // The record is not published until the number of missing blobs is known.
    if status.n_missing.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        record.role = *status.role.borrow_and_update();
        record.blobs_missing = status.n_missing.borrow_and_update().unwrap_or_default();
        record.disk_problem = disk_problem(
            &status.failed_writes.borrow_and_update(),
            status.disk_problem.borrow_and_update().as_deref(),
        );
        let clock_ahead_ms = *status.comparison.clock_ahead_ms.borrow_and_update();
        // The clock of the leader is the reference.
        record.clock_ahead_ms = clock_ahead_ms.filter(|_| record.role == record::Role::Follower);
        record.zookeeper_users = Some(status.held_users.borrow_and_update().clone());
        let proof_problem = status.comparison.proof_problem.borrow_and_update().clone();
        let access: Vec<String> = proof_problem.into_iter().chain(status.access.text()).collect();
        record.certificate_expired = *status.access.certificate_expired.borrow_and_update();
        record.access_problem = (!access.is_empty()).then(|| shorten_reason(&access.join("; ")));
        record.metric_store_error = status
            .metrics_error
            .as_mut()
            .and_then(|error| error.borrow_and_update().as_deref().map(shorten_reason));
        presence.keep(&Ephemeral::Nimbus(me.clone()), record::encode(&record));
        let metrics_error = async {
            match &mut status.metrics_error {
                Some(error) => error.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            // Any of them: the loop reads all values again.
            biased;
            // Cancel-safe: all only wait.
            changed = status.role.changed() => changed,
            changed = status.n_missing.changed() => changed,
            changed = status.disk_problem.changed() => changed,
            changed = status.failed_writes.changed() => changed,
            changed = metrics_error => changed,
            () = status.access.changed() => Ok(()),
            // Its sender ends at once if there are no users.
            Ok(()) = status.held_users.changed() => Ok(()),
            // Their senders end at once if there are no clients for the comparison.
            Ok(()) = status.comparison.clock_ahead_ms.changed() => Ok(()),
            Ok(()) = status.comparison.proof_problem.changed() => Ok(()),
        };
        if changed.is_err() {
            // All senders live as long as the nimbus; the record stays as it is.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_writes_and_a_low_disk_are_one_problem() {
        assert_eq!(disk_problem(&[], None), None);
        assert_eq!(disk_problem(&[], Some("low")).as_deref(), Some("low"));
        let failed = ["cannot write a".to_owned(), "cannot write b".to_owned()];
        assert_eq!(
            disk_problem(&failed, Some("low")).as_deref(),
            Some("cannot write a; cannot write b; low")
        );
    }

    #[test]
    fn a_reason_in_a_record_is_bounded() {
        assert_eq!(shorten_reason("the disk"), "the disk");
        let long = format!("x{}", "é".repeat(REASON_BYTES_MAX));
        assert!(shorten_reason(&long).len() <= REASON_BYTES_MAX);
    }
}

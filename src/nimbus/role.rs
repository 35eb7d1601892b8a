//! Following and leading, one after the other, for as long as the nimbus runs.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    clock::Monotonic,
    cluster::{
        layout::{self, Ephemeral},
        presence::Presence,
        record::{self, Nimbus},
    },
    daemon::{tasks::Tasks, watch},
    election::{Campaign, Candidate, Leadership},
    model::NimbusId,
    nimbus::{
        candidacy::{Candidacy, candidacy},
        leader::{Leader, Lost, Setting},
    },
    tree::{Scope, SessionState},
};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often a follower stands without being woken, should an event have been lost.
const STAND_PERIOD: Duration = Duration::from_secs(10);

/// How long a nimbus whose leading task broke does not stand, so that another one can try
/// and a fault that every leader meets does not make an election every few milliseconds.
const BROKEN_MIN: Duration = Duration::from_secs(1);
const BROKEN_MAX: Duration = Duration::from_secs(30);

/// A leadership longer than this was a good one: the next break is a new trouble.
const GOOD_LEADERSHIP: Duration = Duration::from_secs(60);

/// Which part this nimbus plays.
enum Role {
    Follower,
    /// Since when, as well.
    Leader(Box<Leader>, Monotonic),
}

/// How standing went.
enum Stood {
    /// We lead.
    Won(Leadership),
    /// Another one does, or it is not our turn: look again after so long.
    Again(Duration),
}

/// What decides which part this nimbus plays.
pub(super) struct Player {
    pub(super) me: NimbusId,
    pub(super) candidate: Candidate,
    pub(super) setting: Setting,
    pub(super) role: watch::Sender<record::Role>,
    /// How many blobs of live topologies this nimbus lacks, once it knows.
    pub(super) n_missing: watch::Receiver<Option<usize>>,
    pub(super) tasks: Tasks,
}

impl Player {
    /// Plays until its tasks are cancelled; a leader then resigns, so that its successor need
    /// not wait.
    pub(super) async fn run(mut self) {
        let stop = self.tasks.cancelled();
        let mut broken =
            Backoff::new(BROKEN_MIN, BROKEN_MAX, fastrand::Rng::new()).expect("the constants are in order");
        let mut role = Role::Follower;
        loop {
            role = match role {
                Role::Follower => match self.follow(&stop).await {
                    Some(leadership) => {
                        let leader = Leader::start(leadership, self.setting.clone(), &self.tasks);
                        self.role.send_replace(record::Role::Leader);
                        Role::Leader(Box::new(leader), self.setting.clock.monotonic())
                    }
                    None => return,
                },
                Role::Leader(leader, began) => {
                    // A leader's own tasks are cancelled with ours, so this ends on a stop too.
                    let lost = leader.lost().await;
                    if self.setting.clock.monotonic().since(began) > GOOD_LEADERSHIP {
                        broken.reset();
                    }
                    let leadership = leader.stop().await;
                    self.role.send_replace(record::Role::Follower);
                    // Also when it seems lost: if it is ours in spite of all, others wait for it.
                    leadership.resign().await;
                    if lost == Lost::Task && !stop.is_cancelled() {
                        let pause = broken.next_delay();
                        warn!(?pause, "the leading task broke: others may lead first");
                        tokio::select! {
                            biased;
                            // Cancel-safe: both only wait.
                            () = stop.cancelled() => {}
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                    Role::Follower
                }
            }
        }
    }

    /// Waits for the leadership; `None` when told to stop.
    async fn follow(&mut self, stop: &CancellationToken) -> Option<Leadership> {
        let tree = self.setting.store.tree();
        let mut leader = tree.watch(&layout::leader(), Scope::Node);
        let mut sessions = tree.session();
        let mut backoff =
            Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order");
        let mut leaderless = None;
        while !stop.is_cancelled() {
            let state = *sessions.borrow_and_update();
            let wait = match state {
                SessionState::Connected(_) => match self.stand(&mut leaderless).await {
                    Ok(Stood::Won(leadership)) => return Some(leadership),
                    Ok(Stood::Again(wait)) => {
                        backoff.reset();
                        wait.min(STAND_PERIOD)
                    }
                    Err(error) => {
                        info!(error, "could not stand for leader yet");
                        backoff.next_delay()
                    }
                },
                SessionState::Connecting | SessionState::Disconnected(_) => STAND_PERIOD,
                SessionState::Closed => {
                    warn!("the connection to the tree was closed: this nimbus can lead no more");
                    stop.cancelled().await;
                    return None;
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: all of them only wait; what woke us is looked at again above.
                () = stop.cancelled() => return None,
                _changes = leader.changed() => {}
                _changed = sessions.changed() => {}
                // Fails only when the blobs' task has ended, which ends the nimbus.
                _changed = self.n_missing.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        None
    }

    /// Stands, if it is this nimbus' turn. `leaderless` is since when it has seen no leader.
    async fn stand(&mut self, leaderless: &mut Option<Monotonic>) -> Result<Stood, String> {
        self.setting.store.ensure_layout().await.map_err(|error| error.to_string())?;
        let n_missing = *self.n_missing.borrow_and_update();
        if n_missing.is_none()
            && self.setting.store.leader().await.map_err(|error| error.to_string())?.is_some()
        {
            // A moment after our start: what our own former session left is not given away
            // before we know whether we can take it over.
            return Ok(Stood::Again(STAND_PERIOD));
        }
        if n_missing != Some(0) {
            if self.candidate.is_led_by_another().await.map_err(|error| error.to_string())? {
                *leaderless = None;
                return Ok(Stood::Again(STAND_PERIOD));
            }
            let now = self.setting.clock.monotonic();
            let so_long = now.since(*leaderless.get_or_insert(now));
            let view = Arc::clone(&self.setting.observer.observe().borrow().view);
            let grace = self.setting.options.candidate_grace;
            match candidacy(&self.me, n_missing, &view.nimbuses, so_long, grace) {
                Candidacy::Waits(wait) => {
                    debug!(?n_missing, ?wait, "leaving it to others to lead");
                    return Ok(Stood::Again(wait));
                }
                Candidacy::Stands => {
                    warn!(?n_missing, "nobody who has all blobs leads: standing without some");
                }
            }
        }
        match self.candidate.campaign().await.map_err(|error| error.to_string())? {
            Campaign::Won(leadership) => Ok(Stood::Won(leadership)),
            Campaign::Lost => {
                *leaderless = None;
                Ok(Stood::Again(STAND_PERIOD))
            }
        }
    }
}

/// What a nimbus shows of itself, as it changes.
pub(super) struct Shown {
    pub(super) plays: watch::Receiver<record::Role>,
    pub(super) n_missing: watch::Receiver<Option<usize>>,
    /// Why its metrics archive cannot be opened; none where no metrics are kept.
    pub(super) closed: Option<watch::Receiver<Option<String>>>,
}

/// The longest reason in the record of a nimbus; its log has all of it.
const REASON_BYTES_MAX: usize = 1000;

fn shortened(reason: &str) -> String {
    let mut ends = (0..=REASON_BYTES_MAX.min(reason.len())).rev();
    let end = ends.find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason[..end].to_owned()
}

/// Keeps `/nimbuses/{id}` true.
pub(super) async fn register(me: NimbusId, mut record: Nimbus, mut shown: Shown, presence: Presence) {
    // Nothing is said of blobs before it is known which of them are here.
    if shown.n_missing.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        record.role = *shown.plays.borrow_and_update();
        record.blobs_missing = shown.n_missing.borrow_and_update().unwrap_or_default();
        record.metrics_closed =
            shown.closed.as_mut().and_then(|closed| closed.borrow_and_update().as_deref().map(shortened));
        presence.keep(&Ephemeral::Nimbus(me.clone()), record::encode(&record));
        let archive = async {
            match &mut shown.closed {
                Some(closed) => closed.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            // Whichever it is, all are read.
            biased;
            // Cancel-safe: all only wait.
            changed = shown.plays.changed() => changed,
            changed = shown.n_missing.changed() => changed,
            changed = archive => changed,
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
    fn a_reason_in_a_record_is_bounded() {
        assert_eq!(shortened("the disk"), "the disk");
        let long = format!("x{}", "é".repeat(REASON_BYTES_MAX));
        assert_eq!(shortened(&long).len(), REASON_BYTES_MAX - 1);
    }
}

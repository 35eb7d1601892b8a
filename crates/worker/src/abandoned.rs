//! End of a worker that nobody owns any more.
//!
//! A worker outlives its supervisor and an outage of ZooKeeper, because both come back. It is
//! abandoned if its directory was removed, its supervisor is gone and ZooKeeper is not reached, all
//! three without interruption for a configured time. Then it ends with its components.

use std::{path::PathBuf, time::Duration};

use tracing::{error, info, warn};

use crate::owner::{Owner, SupervisorState};
use stormkeeper_coordination::tree::SessionState;
use stormkeeper_model::clock::{Clock, Monotonic};
use stormkeeper_runtime::{blocking, watch};

/// Bounds of the period of looking at the signs.
const PERIOD_MIN: Duration = Duration::from_millis(500);
const PERIOD_MAX: Duration = Duration::from_secs(30);

/// Signs that nobody owns a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs {
    is_dir_removed: bool,
    is_supervisor_gone: bool,
    is_tree_unreached: bool,
}

/// Conclusion from the signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The worker has an owner, or may have one.
    Owned,
    /// All signs are there, since a moment.
    First,
    /// All signs are there for less than the limit.
    Waiting,
    /// A sign has disappeared.
    OwnedAgain,
    /// All signs were there for the whole limit.
    Abandoned,
}

/// Time for which all signs were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abandonment {
    limit: Duration,
    since: Option<Monotonic>,
}

impl Abandonment {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    fn step(&mut self, now: Monotonic, signs: Signs) -> Verdict {
        let Signs { is_dir_removed, is_supervisor_gone, is_tree_unreached } = signs;
        if !(is_dir_removed && is_supervisor_gone && is_tree_unreached) {
            return match self.since.take() {
                Some(_) => Verdict::OwnedAgain,
                None => Verdict::Owned,
            };
        }
        match self.since {
            None => {
                self.since = Some(now);
                Verdict::First
            }
            Some(since) if now.since(since) >= self.limit => Verdict::Abandoned,
            Some(_) => Verdict::Waiting,
        }
    }
}

/// Returns when nobody has owned the worker in `dir` for `limit`.
///
/// # Cancellation safety
/// Safe: it only looks.
pub(super) async fn abandoned(
    dir: PathBuf,
    owner: Owner,
    mut session: watch::Receiver<SessionState>,
    limit: Duration,
    clock: Clock,
) {
    let mut abandonment = Abandonment::new(limit);
    let period = (limit / 10).clamp(PERIOD_MIN, PERIOD_MAX);
    loop {
        tokio::time::sleep(period).await;
        let is_tree_unreached = !matches!(*session.borrow_and_update(), SessionState::Connected(_));
        let (looked_at, owner) = (dir.clone(), owner.clone());
        let signs = blocking::run(move || Signs {
            is_dir_removed: matches!(looked_at.try_exists(), Ok(false)),
            is_supervisor_gone: owner.supervisor() == SupervisorState::Gone,
            is_tree_unreached,
        });
        match abandonment.step(clock.monotonic(), signs.await) {
            Verdict::Owned | Verdict::Waiting => {}
            Verdict::First => warn!(
                dir = %dir.display(), ?limit,
                "the directory of this worker was removed, its supervisor is gone and ZooKeeper is not reached; if that \
                 lasts, this worker ends"
            ),
            Verdict::OwnedAgain => info!("this worker has an owner again"),
            Verdict::Abandoned => {
                error!(?limit, "nobody owns this worker any more: ending it with its components");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::Timestamp;

    const HOUR: Duration = Duration::from_secs(3600);
    const ALL: Signs = Signs { is_dir_removed: true, is_supervisor_gone: true, is_tree_unreached: true };

    #[test]
    fn worker_is_abandoned_after_all_signs_for_the_whole_limit() {
        let clock = Clock::manual(Timestamp::EPOCH);
        let mut abandonment = Abandonment::new(HOUR);
        let mut step = |signs| abandonment.step(clock.monotonic(), signs);
        assert_eq!(step(ALL), Verdict::First);
        clock.advance(HOUR - Duration::from_millis(1));
        assert_eq!(step(ALL), Verdict::Waiting);
        clock.advance(Duration::from_millis(1));
        assert_eq!(step(ALL), Verdict::Abandoned);
    }

    #[test]
    fn each_sign_that_disappears_starts_the_time_again() {
        let without = [
            Signs { is_dir_removed: false, ..ALL },
            Signs { is_supervisor_gone: false, ..ALL },
            Signs { is_tree_unreached: false, ..ALL },
        ];
        for signs in without {
            let clock = Clock::manual(Timestamp::EPOCH);
            let mut abandonment = Abandonment::new(HOUR);
            assert_eq!(abandonment.step(clock.monotonic(), signs), Verdict::Owned);
            clock.advance(2 * HOUR);
            assert_eq!(
                abandonment.step(clock.monotonic(), signs),
                Verdict::Owned,
                "two signs are not enough"
            );
            assert_eq!(abandonment.step(clock.monotonic(), ALL), Verdict::First);
            clock.advance(HOUR / 2);
            assert_eq!(abandonment.step(clock.monotonic(), signs), Verdict::OwnedAgain);
            assert_eq!(abandonment.step(clock.monotonic(), ALL), Verdict::First);
            clock.advance(HOUR - Duration::from_millis(1));
            assert_eq!(abandonment.step(clock.monotonic(), ALL), Verdict::Waiting);
        }
    }
}

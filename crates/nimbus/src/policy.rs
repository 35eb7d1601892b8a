//! Time and move limits of decisions.

use std::time::Duration;

use crate::Options;

/// The part of [`Options`] that concerns decisions.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Time without a heartbeat after which a task is dead.
    pub task_timeout: Duration,
    /// Time that a task may take from its assignment to its first heartbeat.
    pub task_launch: Duration,
    /// Time that a supervisor may be absent before its tasks move, if they are absent too.
    pub supervisor_timeout: Duration,
    /// Largest share of the supervisors that may vanish together before their hosts are treated as
    /// cut off from ZooKeeper, and not as lost.
    pub lost_hosts_share_max: Share,
    /// Time during which a leader moves nothing after its term began or its connection came back.
    pub settle: Duration,
    /// Most tasks that are moved away from lost workers in one round.
    pub max_moves_per_round: usize,
}

/// A share of a number of things, from none to all, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// One half.
    pub const HALF: Self = Self(500_000);

    /// Creates a share; more than a million millionths are all.
    pub fn of_millionths(n: u64) -> Self {
        Self(u32::try_from(n.min(1_000_000)).unwrap_or(1_000_000))
    }

    /// Returns whether `n` is at most this share of `all`.
    pub fn allows(self, n: usize, all: usize) -> bool {
        n as u128 * 1_000_000 <= all as u128 * u128::from(self.0)
    }
}

impl From<&Options> for Policy {
    fn from(options: &Options) -> Self {
        Self {
            task_timeout: options.task_timeout,
            task_launch: options.task_launch,
            supervisor_timeout: options.supervisor_timeout,
            lost_hosts_share_max: options.lost_hosts_share_max,
            settle: options.settle,
            max_moves_per_round: options.max_moves_per_round,
        }
    }
}

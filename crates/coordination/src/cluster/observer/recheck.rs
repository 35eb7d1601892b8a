//! Records that are read again without an event: a change of an access control list causes none, so
//! only a read finds that ZooKeeper does not let this process read a record, or lets it read the record
//! again.
//!
//! Every second a share of the records is read, and the lists of records. Each record is read within
//! [`ROUND`] while there are at most [`ROUND`] / [`PERIOD`] times [`SHARE_MAX`] records (16,000); with
//! more records a round takes longer, and never costs more than [`SHARE_MAX`] reads a second.

use std::{collections::VecDeque, time::Duration};

use crate::tree::TreePath;

/// Pause between two shares.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// Time in which every record is read once.
const ROUND: Duration = Duration::from_secs(8);

/// Maximum number of records in a share.
const SHARE_MAX: usize = 2_000;

/// Progress of a round.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    left: VecDeque<TreePath>,
    share: usize,
}

impl Recheck {
    /// Returns the znodes to read next: `lists`, and a share of the records of this round. `records`
    /// returns all records for the next round.
    pub(super) fn next_share(
        &mut self,
        lists: Vec<TreePath>,
        records: impl FnOnce() -> Vec<TreePath>,
    ) -> Vec<TreePath> {
        if self.left.is_empty() {
            self.left = records().into();
            let n_shares = usize::try_from(ROUND.as_secs() / PERIOD.as_secs()).unwrap_or(1).max(1);
            self.share = self.left.len().div_ceil(n_shares).clamp(1, SHARE_MAX);
        }
        let share = self.left.drain(..self.share.min(self.left.len()));
        share.chain(lists).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn records(n: usize) -> Vec<TreePath> {
        (0..n).map(|n| format!("/storms/t{n}").parse().expect("valid path")).collect()
    }

    #[test]
    fn every_record_is_read_once_in_a_round_and_a_share_is_bounded() {
        for (n, n_shares) in [(0, 1), (1, 1), (8, 8), (9, 5), (10_000, 8), (16_000, 8), (40_000, 20)] {
            let (mut recheck, mut seen) = (Recheck::default(), BTreeSet::new());
            let lists: Vec<TreePath> = vec!["/storms".parse().expect("valid path")];
            for _ in 0..n_shares {
                let share = recheck.next_share(lists.clone(), || records(n));
                assert!(share.len() <= SHARE_MAX + 1 && share.ends_with(&lists), "{}", share.len());
                for path in &share[..share.len() - 1] {
                    assert!(seen.insert(path.clone()), "{path} is read twice");
                }
            }
            assert_eq!(seen.len(), n);
        }
    }
}

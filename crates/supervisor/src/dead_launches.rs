//! Choice of the directories of ended workers that are removed. Pure.
//!
//! The owners share what is kept (`fair_share`), so a crash loop removes its own logs, the oldest first.

use std::time::SystemTime;

use stormkeeper_model::{
    TopologyId, WorkerId,
    fair_share::{self, Shared},
};

/// The directory of a worker that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLaunch {
    pub(super) worker: WorkerId,
    /// Time of the last change of the directory. The worker can set it: it decides only between launches
    /// of one topology.
    pub(super) modified: SystemTime,
    /// Owner and topology, if they are known. All unknown ones count as one owner.
    pub(super) of: Option<(String, TopologyId)>,
}

/// Returns the launches to remove so that at most `n_kept` of `dead` are left.
pub(super) fn to_remove(mut dead: Vec<DeadLaunch>, n_kept: usize) -> Vec<WorkerId> {
    dead.sort_by(|a, b| (a.modified, &a.worker).cmp(&(b.modified, &b.worker)));
    let shared = |DeadLaunch { worker, of, .. }: DeadLaunch| {
        let (owner, topology) = of.map_or((None, None), |(owner, topology)| (Some(owner), Some(topology)));
        Shared { owner, topology, item: worker }
    };
    fair_share::to_remove(dead.into_iter().map(shared), (n_kept, usize::MAX), launched)
}

/// Time of a launch in seconds, which its id has after the port. Nobody can set it.
fn launched(worker: &WorkerId) -> u64 {
    worker.as_str().split('-').nth(1).and_then(|secs| secs.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn launch(n: u64, of: Option<(&str, &str)>) -> DeadLaunch {
        DeadLaunch {
            worker: format!("6700-{n:03}-00000a").parse().expect("valid id"),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(n),
            of: of.map(|(owner, topology)| (owner.to_owned(), topology.parse().expect("valid id"))),
        }
    }

    fn removed(dead: &[DeadLaunch], n_kept: usize) -> Vec<u64> {
        let of = |worker: WorkerId| worker.as_str()[5..8].parse().expect("a number");
        let mut removed: Vec<u64> = to_remove(dead.to_vec(), n_kept).into_iter().map(of).collect();
        removed.sort_unstable();
        removed
    }

    #[test]
    fn owner_and_topology_with_the_most_launches_give_way_with_their_oldest() {
        let (ann, ann_quiet) = (Some(("ann", "a-1-1")), Some(("ann", "quiet-1-1")));
        let (bob, unknown) = (Some(("bob", "b-1-1")), None);
        let dead = [
            launch(1, bob),
            launch(2, ann_quiet),
            launch(3, ann),
            launch(4, ann),
            launch(5, ann),
            launch(6, unknown),
            launch(7, bob),
        ];
        assert_eq!(removed(&dead, 7), Vec::<u64>::new());
        assert_eq!(removed(&dead, 6), [3], "ann has four, three of them of one topology");
        assert_eq!(removed(&dead, 5), [3, 4]);
        assert_eq!(removed(&dead, 4), [1, 3, 4], "two owners have two: the oldest of all goes");
        assert_eq!(removed(&dead, 3), [1, 2, 3, 4]);
        assert_eq!(removed(&dead, 0), [1, 2, 3, 4, 5, 6, 7]);
        // A time in the future, which a user can set, saves nothing from the others.
        let forged =
            DeadLaunch { modified: SystemTime::UNIX_EPOCH + Duration::from_secs(9999), ..launch(1, bob) };
        assert_eq!(removed(&[forged, launch(2, ann)], 1), [1]);
    }

    proptest! {
        /// Nobody loses a launch while another owner keeps more than one more.
        #[test]
        fn no_owner_loses_to_one_who_keeps_more(
            owners in prop::collection::vec(0u8..5, 0..60),
            n_kept in 0usize..40,
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let dead: Vec<DeadLaunch> = (0..).zip(&owners)
                .map(|(n, owner)| launch(n, Some((names[usize::from(*owner)], "t-1-1"))))
                .collect();
            let gone: BTreeSet<WorkerId> = to_remove(dead.clone(), n_kept).into_iter().collect();
            prop_assert_eq!(gone.len(), dead.len().saturating_sub(n_kept));
            let mut kept = [0usize; 5];
            let mut lost = [0usize; 5];
            for (launch, owner) in dead.iter().zip(&owners) {
                let count = if gone.contains(&launch.worker) { &mut lost } else { &mut kept };
                count[usize::from(*owner)] += 1;
            }
            let most = kept.iter().max().copied().unwrap_or_default();
            for (kept, _) in kept.iter().zip(lost).filter(|(_, lost)| *lost > 0) {
                prop_assert!(kept + 1 >= most, "{kept} of a loser, {most} of another");
            }
        }
    }
}

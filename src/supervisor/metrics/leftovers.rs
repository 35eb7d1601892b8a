//! Brings what workers that are gone have left to the leader.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    clock::{Clock, Monotonic},
    daemon::blocking,
    model::WorkerId,
    rpc::{
        cuts::{self, Cut, Remains, Standing, Taken, remains},
        delivery::{Added, Brought, Delivery, bring},
        metrics_client::MetricsClient,
    },
    supervisor::worker_dir,
};

/// How often it looks for workers that are gone.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// How many workers' leftovers are in memory at once; the others wait on disk.
const AT_ONCE: usize = 4;

/// After so long, stored cuts are sent again to hear whether they are safe now.
const NEWS_PATIENCE: Duration = Duration::from_secs(20);

/// Looks for leftovers and brings them.
#[derive(Debug)]
pub(super) struct Leftovers {
    local_dir: PathBuf,
    client: MetricsClient,
    clock: Clock,
    bringing: BTreeMap<WorkerId, Bringing>,
}

#[derive(Debug)]
struct Bringing {
    taken: Taken,
    delivery: Delivery,
    // Not handed in yet.
    left: VecDeque<Cut>,
    asked: Monotonic,
}

impl Leftovers {
    pub(super) fn new(local_dir: PathBuf, client: MetricsClient, clock: Clock) -> Self {
        Self { local_dir, client, clock, bringing: BTreeMap::new() }
    }

    /// Runs until it is dropped; what is not brought then is still on disk.
    pub(super) async fn run(mut self) {
        let mut period = tokio::time::interval(LOOK_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.look().await;
            let workers: Vec<WorkerId> = self.bringing.keys().cloned().collect();
            for worker in workers {
                if self.bring(&worker).await {
                    self.bringing.remove(&worker);
                }
            }
        }
    }

    /// Takes in workers that are gone, as far as there is room.
    async fn look(&mut self) {
        let (dir, known) = (self.local_dir.clone(), self.bringing.keys().cloned().collect::<Vec<_>>());
        let room = AT_ONCE - known.len();
        let found = blocking::run(move || find(&dir, &known, room)).await;
        match found {
            Ok(found) => {
                for (worker, taken, delivery, left) in found {
                    let asked = self.clock.monotonic();
                    self.bringing.insert(worker, Bringing { taken, delivery, left, asked });
                }
            }
            Err(error) => warn!(%error, "cannot look for metrics of workers that are gone"),
        }
    }

    /// Brings what a worker left; answers whether all of it is safe and noted so.
    async fn bring(&mut self, worker: &WorkerId) -> bool {
        let Some(Bringing { taken, delivery, left, asked }) = self.bringing.get_mut(worker) else {
            return true;
        };
        let now = self.clock.monotonic();
        if now.since(*asked) >= NEWS_PATIENCE {
            delivery.ask_again(now);
            *asked = now;
        }
        hand_in(|cut| delivery.add(cut), left);
        if let Brought::NotAll(reason) = bring(delivery, &self.client, &self.clock).await {
            info!(%worker, reason, "metrics of a worker that is gone are not with the leader yet; trying again");
            return false;
        }
        // Who is told is this task alone.
        drop(delivery.newly_safe());
        if !left.is_empty() || !delivery.is_empty() {
            return false;
        }
        match cuts::finish(taken) {
            Ok(()) => {
                info!(%worker, "the metrics that a worker left are with the leader");
                true
            }
            Err(error) => {
                warn!(%worker, %error, "cannot note that the metrics of a worker are with the leader; they are sent again");
                false
            }
        }
    }
}

/// Hands in what fits. What is left is handed in when there is room.
fn hand_in(mut add: impl FnMut(Cut) -> Added, left: &mut VecDeque<Cut>) {
    while let Some(cut) = left.pop_front() {
        let worker = cut.snapshot.worker.clone();
        match add(cut.clone()) {
            Added::Taken | Added::Safe => {}
            Added::Full => {
                left.push_front(cut);
                return;
            }
            Added::Nameless(ids) => {
                let number = cut.snapshot.number;
                warn!(%worker, number, n = ids.len(), "metrics without names are lost");
                let mut named = cut;
                named.snapshot.leaves.retain(|leaf| !ids.contains(&leaf.id));
                left.push_front(named);
            }
        }
    }
}

type Found = (WorkerId, Taken, Delivery, VecDeque<Cut>);

fn find(local_dir: &Path, known: &[WorkerId], room: usize) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for worker in worker_dir::all(local_dir)?.into_iter().filter(|worker| !known.contains(worker)) {
        if found.len() >= room {
            break;
        }
        match read(&worker_dir::path(local_dir, &worker)) {
            Ok(Some((taken, delivery, left))) => found.push((worker, taken, delivery, left)),
            Ok(None) => {}
            // One worker's disk trouble is not the others'.
            Err(error) => warn!(%worker, %error, "what a worker left of its metrics cannot be read"),
        }
    }
    Ok(found)
}

fn read(worker_dir: &Path) -> io::Result<Option<(Taken, Delivery, VecDeque<Cut>)>> {
    let (taken, launch) = match cuts::look(worker_dir)? {
        Standing::Left(taken, launch) => (taken, launch),
        Standing::Done | Standing::Live => return Ok(None),
    };
    let Remains { cuts, names, problems } = remains::read(&taken.dir, &launch)?;
    for problem in problems {
        warn!(worker = %launch.worker, problem, "a part of what a worker left of its metrics is lost");
    }
    let mut delivery = Delivery::new(launch.topology);
    delivery.learn(&launch.worker, &names.into_iter().collect::<Vec<_>>());
    Ok(Some((taken, delivery, cuts.into())))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{
        cluster::store::Store,
        metrics::{Leaf, MetricId},
        model::Timestamp,
        rpc::{
            cuts::{CutDir, Launch},
            tests::leader::{TestLeader, cut, emitted},
        },
        tree::{Tree, memory::MemoryTree},
    };

    fn worker(name: &str) -> WorkerId {
        name.parse().expect("valid")
    }

    fn launch(name: &str) -> Launch {
        let topology = "t-1-100".parse().expect("valid");
        Launch { topology, worker: worker(name), started: Timestamp::from_millis(1) }
    }

    /// What a worker leaves that emitted ten tuples, in two cuts.
    fn leave(local_dir: &Path, name: &str) -> PathBuf {
        let dir = worker_dir::path(local_dir, &worker(name));
        fs::create_dir_all(&dir).expect("made");
        let launch = launch(name);
        let taken = cuts::take(&dir, &launch).expect("taken");
        let mut cuts = CutDir::create(&taken.dir).expect("made");
        let (id, name) = emitted();
        cuts.add_name(id, &name).expect("written");
        for number in [1, 2] {
            cuts.write(&cut(&launch, number), &[(id, 5 * number)].into()).expect("written");
        }
        dir
    }

    #[tokio::test]
    async fn what_is_left_is_brought_once_and_noted_when_it_is_safe() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        let leader = TestLeader::start(Arc::clone(&tree)).await;
        leader.has().nothing_is_safe = true;
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let client = MetricsClient::new(Store::new(tree)).expect("made");
        let names = ["w1", "w2"];
        let dirs = names.map(|name| leave(dir.path(), name));
        let mut leftovers = Leftovers::new(dir.path().to_owned(), client, clock.clone());
        leftovers.look().await;
        assert_eq!(leftovers.bringing.len(), 2);
        for name in names {
            assert!(!leftovers.bring(&worker(name)).await, "it is stored and not safe");
        }
        assert_eq!(leader.has().totals()[0], 20);
        leftovers.look().await;
        assert_eq!(leftovers.bringing.len(), 2, "what is being brought is not looked at again");
        leader.has().nothing_is_safe = false;
        clock.turn(NEWS_PATIENCE);
        for (name, dir) in names.iter().zip(&dirs) {
            assert!(cuts::may_have_left(dir), "it was noted too early");
            assert!(leftovers.bring(&worker(name)).await, "it asks again whether it is safe");
            leftovers.bringing.remove(&worker(name));
            assert!(!cuts::may_have_left(dir));
        }
        leftovers.look().await;
        assert_eq!((leftovers.bringing.len(), leader.has().totals()[0]), (0, 20));
    }

    #[test]
    fn a_worker_whose_disk_is_bad_does_not_hide_the_others() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b", "c", "d"] {
            leave(dir.path(), name);
        }
        for name in ["a", "c"] {
            let launch = worker_dir::path(dir.path(), &worker(name)).join("metrics/launch");
            fs::write(launch, b"garbage").expect("written");
        }
        let found = |known: &[WorkerId], room| {
            let found = find(dir.path(), known, room).expect("readable");
            let mut found: Vec<String> = found.iter().map(|(worker, ..)| worker.to_string()).collect();
            found.sort();
            found
        };
        assert_eq!(found(&[], 9), ["b", "d"]);
        assert_eq!(found(&[worker("b")], 9), ["d"]);
        assert_eq!(found(&[], 1).len(), 1);
        assert_eq!(find(&dir.path().join("nothing"), &[], 9).expect("no workers").len(), 0);
    }

    #[test]
    fn what_does_not_fit_waits_and_what_has_no_name_is_left_out() {
        let launch = launch("w");
        let mut odd = cut(&launch, 2);
        odd.snapshot.leaves.push(Leaf { id: MetricId(7), ..odd.snapshot.leaves[0].clone() });
        let mut left: VecDeque<Cut> = [cut(&launch, 1), odd, cut(&launch, 3)].into();
        let mut taken = Vec::new();
        let mut add = |cut: Cut| {
            if cut.snapshot.leaves.iter().any(|leaf| leaf.id == MetricId(7)) {
                return Added::Nameless(vec![MetricId(7)]);
            }
            if taken.len() == 2 {
                return Added::Full;
            }
            taken.push(cut);
            Added::Taken
        };
        hand_in(&mut add, &mut left);
        assert_eq!(left, [cut(&launch, 3)]);
        assert_eq!(taken, [cut(&launch, 1), cut(&launch, 2)], "but for the leaf without a name");
    }
}

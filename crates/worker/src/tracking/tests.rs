//! Trees over several workers: trackers that exchange messages, some of which are lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use stormkeeper_model::{Port, Timestamp, assignment::AssignedWorker};
use stormkeeper_stream::AnchorList;

const SPOUT: TaskId = TaskId(0);

fn slot(port: u16) -> Slot {
    Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
}

/// Workers with three tasks each; the spout is task 0, in the first of them or in the last.
struct World {
    trackers: Vec<Tracker>,
    outgoing: BTreeMap<(usize, usize), Arc<Outgoing>>,
    assignment: Assignment,
    spout_at: usize,
    _tasks: Tasks,
}

impl World {
    fn new(n_workers: usize, ackers: Ackers, spout_at: usize) -> Self {
        let tasks = Tasks::default();
        let of_worker = |worker: usize| {
            let first = u32::try_from(worker * 3 + 1).expect("small");
            let spout = (worker == spout_at).then_some(SPOUT);
            spout.into_iter().chain((first..first + 3).map(TaskId)).collect::<TaskSet>()
        };
        let mut assignment = Assignment::default();
        for worker in 0..n_workers {
            let (host, start) = ("h".to_owned(), Timestamp::EPOCH);
            let assigned = AssignedWorker { host, tasks: of_worker(worker), start };
            assignment.workers.insert(slot(u16::try_from(worker).expect("small")), assigned);
        }
        let own = |worker: usize| slot(u16::try_from(worker).expect("small"));
        let trackers = (0..n_workers)
            .map(|worker| Tracker::start(ackers, own(worker), &of_worker(worker), None, &tasks));
        let world = Self {
            trackers: trackers.collect(),
            outgoing: (0..n_workers)
                .flat_map(|from| (0..n_workers).map(move |to| ((from, to), Arc::default())))
                .collect(),
            assignment,
            spout_at,
            _tasks: tasks,
        };
        for (from, tracker) in world.trackers.iter().enumerate() {
            let elsewhere = world.assignment.workers.values().enumerate().filter(|(to, _)| *to != from);
            let remote = elsewhere.flat_map(|(to, worker)| {
                let outgoing = &world.outgoing[&(from, to)];
                worker.tasks.iter().map(|task| (task, Arc::clone(outgoing))).collect::<Vec<_>>()
            });
            tracker.update(&world.assignment, remote.collect());
        }
        world
    }

    fn worker_of(&self, task: TaskId) -> usize {
        let mut workers = self.assignment.workers.values();
        workers.position(|worker| worker.tasks.contains(task)).expect("an assigned task")
    }

    fn tracker_of(&self, task: TaskId) -> &Tracker {
        &self.trackers[self.worker_of(task)]
    }

    /// Delivers what waits between the workers until nothing waits; each message unless `is_lost`.
    async fn exchange(&self, mut is_lost: impl FnMut() -> bool) {
        loop {
            let mut is_quiet = true;
            for ((_, to), outgoing) in &self.outgoing {
                let next = std::pin::pin!(outgoing.next());
                let Some(changes) = futures_now(next) else { continue };
                is_quiet = false;
                if !is_lost() {
                    self.trackers[*to].receive(&changes.to_tuple()).expect("a message");
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn begin(&self, receivers: &[TaskId]) -> Anchor {
        let tracker = &self.trackers[self.spout_at];
        let anchor =
            Anchor { acker: tracker.acker_for(SPOUT), root: fastrand::u64(..), edge: fastrand::u64(..) };
        tracker.begin(anchor, SPOUT, receivers);
        anchor
    }

    fn news(&self) -> Vec<(u64, News)> {
        self.trackers[self.spout_at].mailbox(SPOUT).take()
    }
}

/// Returns the result of a future that is ready.
fn futures_now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Delivers a tuple to a task, which emits tuples to tasks of later workers and then settles it.
fn process(
    world: &World,
    anchors: &[Anchor],
    task: TaskId,
    random: &mut fastrand::Rng,
    depth: u32,
    fails: f64,
) -> bool {
    let mut delivery = Delivery::of(AnchorList::Given(anchors), task);
    let n_children = if depth == 0 { 0 } else { random.usize(0..3) };
    let (mut is_good, mut later) = (true, Vec::new());
    let n_tasks = world.trackers.len() * 3;
    for _ in 0..n_children {
        let mut receivers: Vec<TaskId> =
            (0..random.usize(1..4)).map(|_| TaskId(random.u32(1..=n_tasks as u32))).collect();
        receivers.sort_unstable();
        receivers.dedup();
        let mut children = Vec::new();
        delivery.anchor(&receivers, |_| true, || random.u64(..), &mut children);
        later.extend(receivers.into_iter().map(|receiver| (receiver, children.clone())));
    }
    let mut settled = match random.f64() < fails {
        true => {
            is_good = false;
            delivery.settled(Settlement::Failed).collect()
        }
        false => delivery.acked().collect(),
    };
    // A bolt may settle its input before or after its children are processed.
    let early = random.bool();
    if early {
        world.tracker_of(task).settle(&mut settled);
    }
    random.shuffle(&mut later);
    for (receiver, children) in later {
        is_good &= process(world, &children, receiver, random, depth - 1, fails);
    }
    world.tracker_of(task).settle(&mut settled);
    is_good
}

fn any_world() -> impl Strategy<Value = (usize, Ackers, usize)> {
    (1usize..4).prop_flat_map(|n_workers| {
        let ackers = prop_oneof![Just(Ackers::PerWorker), (1u32..4).prop_map(Ackers::Count)];
        (Just(n_workers), ackers, 0..n_workers)
    })
}

proptest! {
    #[test]
    fn spout_is_told_the_outcome_of_each_tree_once(
        (n_workers, ackers, spout_at) in any_world(),
        seed: u64,
        n_trees in 1usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new(n_workers, ackers, spout_at);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut expected = BTreeMap::new();
            for _ in 0..n_trees {
                let receivers = [TaskId(1), TaskId(2)];
                let anchor = world.begin(&receivers);
                let mut is_good = true;
                for receiver in receivers {
                    is_good &= process(&world, &[anchor], receiver, &mut random, 4, 0.05);
                }
                let outcome = if is_good { Outcome::Acked } else { Outcome::Failed };
                expected.insert(anchor.root, News::Ended(outcome));
                if random.bool() {
                    world.exchange(|| false).await;
                }
            }
            world.exchange(|| false).await;
            let news = world.news();
            prop_assert_eq!(news.len(), expected.len());
            prop_assert_eq!(news.into_iter().collect::<BTreeMap<_, _>>(), expected);
            for tracker in &world.trackers {
                prop_assert_eq!(tracker.n_trees(), 0);
            }
            Ok(())
        })?;
    }

    #[test]
    fn lost_messages_never_make_an_incomplete_tree_look_complete(
        (n_workers, ackers, spout_at) in any_world(),
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new(n_workers, ackers, spout_at);
            let mut random = fastrand::Rng::with_seed(seed);
            let receivers = [TaskId(1), TaskId(2)];
            let anchor = world.begin(&receivers);
            // Task 2 never settles.
            process(&world, &[anchor], TaskId(1), &mut random, 4, 0.0);
            world.exchange(|| random.bool()).await;
            prop_assert_eq!(world.news(), []);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn worker_without_an_acker_uses_that_of_a_worker_with_one() {
    let world = World::new(4, Ackers::Count(2), 3);
    // The fourth worker uses the second one's, whose first task is 4.
    assert_eq!(world.trackers[3].acker_for(SPOUT), TaskId(4));
    let anchor = world.begin(&[TaskId(1)]);
    world.exchange(|| false).await;
    let n_trees: Vec<usize> = world.trackers.iter().map(Tracker::n_trees).collect();
    assert_eq!(n_trees, [0, 1, 0, 0]);
    let mut settled =
        vec![Settled { acker: anchor.acker, root: anchor.root, settlement: Settlement::TimeoutReset }];
    world.tracker_of(TaskId(1)).settle(&mut settled);
    world.exchange(|| false).await;
    assert_eq!(world.news(), [(anchor.root, News::TimeoutReset)]);
    for (spout_at, acker) in [(0, SPOUT), (1, SPOUT), (2, TaskId(1))] {
        let world = World::new(4, Ackers::Count(2), spout_at);
        let first = if acker == TaskId(1) { TaskId(1) } else { acker };
        assert_eq!(world.trackers[spout_at].acker_for(SPOUT), first, "{spout_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn trees_and_late_acks_are_forgotten_after_the_timeout() {
    let tasks = Tasks::default();
    let timeout = Some(Duration::from_secs(30));
    let own = [SPOUT, TaskId(1)].into_iter().collect();
    let tracker = Tracker::start(Ackers::PerWorker, slot(1), &own, timeout, &tasks);
    let anchor = Anchor { acker: SPOUT, root: 7, edge: 9 };
    tracker.begin(anchor, SPOUT, &[TaskId(1)]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(tracker.n_trees(), 1, "longer than the spout waits");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(tracker.n_trees(), 0);
    let edges = anchor.edge_to(TaskId(1));
    let mut settled = vec![Settled { acker: SPOUT, root: 7, settlement: Settlement::Acked(edges) }];
    tracker.settle(&mut settled);
    assert_eq!((tracker.mailbox(SPOUT).take(), settled.len()), (vec![], 0));
    tokio::time::sleep(Duration::from_secs(46)).await;
    assert_eq!(tracker.0.n_late.load(Ordering::Relaxed), 1);
}

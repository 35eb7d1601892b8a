//! Updates of running topologies, step by step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    effects,
    world::{SECOND, World},
};
use crate::{
    liveness::{LaunchSight, UpdateSight},
    plan::Reason,
    update::{NewPackage, begun},
};
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{
    BlobKey, Slot, TaskId, Timestamp, TopologyId, WorkerId,
    clock::Monotonic,
    event::EventKind,
    update::{Turn, Update},
};

/// What a worker with the new package does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewCode {
    Runs,
    Dies,
}

/// A topology with launches of its workers: each runs the package that its record gave it at its start.
struct Cluster {
    world: World,
    id: TopologyId,
    launches: BTreeMap<Slot, Launch>,
    n_launches: u64,
    code: NewCode,
    texts: Vec<(EventKind, String)>,
}

#[derive(Debug, Clone)]
struct Launch {
    start: Timestamp,
    since: Monotonic,
    worker: WorkerId,
    blob: BlobKey,
    drained_for: Option<Timestamp>,
}

fn new_blob() -> BlobKey {
    BlobKey::of(b"new")
}

impl Cluster {
    fn new(n_workers: u32, code: NewCode) -> Self {
        let mut world = World::with_supervisors(usize::try_from(n_workers).expect("few") + 1, 1);
        let id = world.running("wc", 2 * n_workers, n_workers);
        let mut cluster =
            Self { world, id, launches: BTreeMap::new(), n_launches: 0, code, texts: Vec::new() };
        cluster.launch();
        cluster
    }

    fn record(&self) -> TopologyRecord {
        self.world.topology_record(&self.id).expect("there")
    }

    fn update(&self) -> Option<Update> {
        self.record().update
    }

    fn begin(&mut self, at_once: u32) {
        let former = self.record().blob;
        let package =
            NewPackage { blob: new_blob(), blob_bytes: Some(7), message_timeout_secs: 20, former, at_once };
        let assignment = self.world.assignment(&self.id).expect("placed");
        let next = begun(&self.id, &self.record(), &package, &assignment).expect("it can begin");
        self.world.edit(&self.id, |record| *record = next);
    }

    /// Supervisors replace the workers that have another start.
    fn launch(&mut self) {
        let (record, assignment) = (self.record(), self.world.assignment(&self.id).expect("placed"));
        self.launches.retain(|slot, _| assignment.workers.contains_key(slot));
        for (slot, worker) in &assignment.workers {
            if self.launches.get(slot).is_some_and(|launch| launch.start == worker.start) {
                continue;
            }
            self.n_launches += 1;
            let worker_id = format!("w{}", self.n_launches).parse().expect("valid");
            let blob = record.blob_of(slot, worker.start).clone();
            let since = self.world.clock.monotonic();
            let launch = Launch { start: worker.start, since, worker: worker_id, blob, drained_for: None };
            self.launches.insert(slot.clone(), launch);
        }
    }

    /// Workers whose turn it is drain.
    fn drain(&mut self) {
        let Some(update) = self.update() else { return };
        for (slot, launch) in &mut self.launches {
            launch.drained_for = update.drains(slot, launch.start).or(launch.drained_for);
        }
    }

    /// Lets the leader look.
    fn look(&mut self) {
        let now = self.world.clock.monotonic();
        let is_bad = |launch: &Launch| self.code == NewCode::Dies && launch.blob == new_blob();
        let seen = self.launches.iter().map(|(slot, launch)| {
            let sight = LaunchSight {
                worker: launch.worker.clone(),
                drained_for: launch.drained_for,
                is_steady: !is_bad(launch) && now.since(launch.since) >= 10 * SECOND,
                failing: is_bad(launch).then_some(TaskId(1)),
            };
            (slot.clone(), Some(sight))
        });
        let sight = UpdateSight { launches: seen.collect() };
        self.world.liveness.note_updates([(self.id.clone(), sight)].into());
    }

    /// Decides once, and carries the plan out. Returns its effects.
    fn decide(&mut self) -> Vec<String> {
        self.world.send_heartbeats();
        let plan = self.world.decide();
        for action in &plan.actions {
            if let Reason::Update { text, event } = &action.reason {
                self.texts.push((*event, text.clone()));
            }
        }
        self.world.execute(&plan);
        effects(&plan)
    }

    /// Lets everything happen until the update is over. Returns the slots in the order in which their workers
    /// were replaced, and the most workers that started at a time.
    fn finish(&mut self) -> (Vec<Slot>, usize) {
        let (mut replaced, mut most) = (Vec::new(), 0);
        for _ in 0..400 {
            let Some(before) = self.update() else { return (replaced, most) };
            self.launch();
            self.drain();
            self.look();
            self.decide();
            let starting = self.update().map(|update| update.starting).unwrap_or_default();
            most = most.max(starting.len());
            let is_new = |turn: &Turn| !before.starting.iter().any(|old| old.worker.is_same(&turn.worker));
            replaced.extend(starting.into_iter().filter(is_new).map(|turn| turn.worker.slot));
            self.world.wait(SECOND);
        }
        panic!("the update does not end: {:?}", self.update());
    }

    fn slots(&self) -> Vec<Slot> {
        self.world.assignment(&self.id).expect("placed").workers.keys().cloned().collect()
    }

    /// Packages of the workers in slots of the topology. One on a lost host, whose tasks have another place,
    /// needs none any more.
    fn blobs(&self) -> Vec<BlobKey> {
        let assignment = self.world.assignment(&self.id).expect("placed");
        let placed = self.launches.iter().filter(|(slot, _)| assignment.workers.contains_key(*slot));
        placed.map(|(_, launch)| launch.blob.clone()).collect()
    }
}

#[test]
fn workers_are_replaced_one_after_the_other_where_they_are_each_drained_first() {
    let mut cluster = Cluster::new(3, NewCode::Runs);
    let before = cluster.world.assignment(&cluster.id).expect("placed");
    cluster.begin(1);
    let slots = cluster.slots();
    assert_eq!(cluster.decide(), ["step of an update"]);
    cluster.look();
    assert_eq!(cluster.decide(), Vec::<String>::new(), "the first worker has not drained");
    let drains = |cluster: &Cluster, slot: &Slot| {
        cluster.update().expect("under way").drains(slot, before.workers[slot].start)
    };
    assert!(drains(&cluster, &slots[0]).is_some());
    assert_eq!(drains(&cluster, &slots[1]), None);
    cluster.drain();
    cluster.look();
    assert_eq!(cluster.decide(), ["replace workers of an update"]);
    let after = cluster.world.assignment(&cluster.id).expect("placed");
    assert_ne!(after.workers[&slots[0]].start, before.workers[&slots[0]].start);
    assert_eq!(after.workers[&slots[0]].tasks, before.workers[&slots[0]].tasks);
    assert_eq!(after.workers[&slots[1]], before.workers[&slots[1]]);
    cluster.look();
    assert_eq!(cluster.decide(), Vec::<String>::new(), "the worker before it still has the heartbeats");
    let record = cluster.record();
    assert_eq!(*record.blob_of(&slots[0], after.workers[&slots[0]].start), new_blob());
    assert_eq!(*record.blob_of(&slots[1], after.workers[&slots[1]].start), BlobKey::of(b"x"));
    assert!(record.uses(&BlobKey::of(b"x")) && record.uses(&new_blob()));

    assert_eq!(cluster.finish(), (slots[1..].to_vec(), 1));
    cluster.launch();
    assert_eq!(cluster.blobs(), [new_blob(), new_blob(), new_blob()]);
    let record = cluster.record();
    assert_eq!((record.blob_bytes, record.message_timeout_secs), (Some(7), 20));
    assert!(!record.uses(&BlobKey::of(b"x")), "the former package is released");
    let (event, text) = cluster.texts.last().expect("events");
    assert_eq!((*event, text.as_str()), (EventKind::Updated, "all workers run the new package"));
    assert_eq!(cluster.texts[0].1, format!("worker 1 of 3, at host-{}, drains", slots[0]));
    assert_eq!(cluster.decide(), Vec::<String>::new());
}

#[test]
fn worker_that_does_not_drain_is_replaced_at_the_deadline() {
    let mut cluster = Cluster::new(1, NewCode::Runs);
    cluster.begin(1);
    cluster.decide();
    cluster.look();
    cluster.world.wait(19 * SECOND);
    assert_eq!(cluster.decide(), Vec::<String>::new());
    cluster.world.wait(SECOND);
    assert_eq!(cluster.decide(), ["replace workers of an update"]);
    assert!(cluster.texts[1].1.contains("has not drained in time"), "{:?}", cluster.texts);
}

#[test]
fn several_start_at_a_time_once_the_first_one_runs_and_one_drains_at_a_time() {
    let mut cluster = Cluster::new(6, NewCode::Runs);
    cluster.begin(3);
    let slots = cluster.slots();
    for _ in 0..9 {
        cluster.launch();
        cluster.drain();
        cluster.look();
        cluster.decide();
        cluster.world.wait(SECOND);
    }
    let update = cluster.update().expect("under way");
    assert_eq!((update.n_replaced(), update.draining.is_some()), (1, false), "the first one must run");
    assert_eq!(cluster.finish(), (slots[1..].to_vec(), 3));
    assert!(cluster.texts.iter().any(|(_, text)| text.ends_with(" runs; 6 of 6 do")), "{:?}", cluster.texts);
}

#[test]
fn worker_that_does_not_run_takes_the_update_back_and_the_others_were_not_touched() {
    let mut cluster = Cluster::new(3, NewCode::Dies);
    let before = cluster.world.assignment(&cluster.id).expect("placed");
    cluster.begin(1);
    let slots = cluster.slots();
    assert_eq!(cluster.finish(), (vec![slots[0].clone(); 2], 1), "forward and back");
    cluster.launch();
    let record = cluster.record();
    assert_eq!((record.blob.clone(), record.message_timeout_secs), (BlobKey::of(b"x"), 30));
    assert!(!record.uses(&new_blob()));
    assert_eq!(cluster.blobs(), vec![BlobKey::of(b"x"); 3]);
    let after = cluster.world.assignment(&cluster.id).expect("placed");
    for slot in &slots[1..] {
        assert_eq!(after.workers[slot], before.workers[slot]);
    }
    let failed: Vec<&str> = (cluster.texts.iter())
        .filter(|(event, _)| *event == EventKind::UpdateFailed)
        .map(|(_, text)| text.as_str())
        .collect();
    let why =
        format!("the worker at host-{} does not run: the component of task 1 ends again and again", slots[0]);
    let expected = [
        format!("{why}; going back to the former package"),
        format!("all workers have the former package again, as {why}"),
    ];
    assert_eq!(failed, expected);
}

#[test]
fn workers_that_ran_with_the_new_package_go_back_in_their_turn() {
    let mut cluster = Cluster::new(4, NewCode::Runs);
    cluster.begin(1);
    while cluster.update().expect("under way").n_replaced() < 3 {
        cluster.launch();
        cluster.drain();
        cluster.look();
        cluster.decide();
        cluster.world.wait(SECOND);
    }
    // Only the third one has trouble.
    let third = cluster.slots()[2].clone();
    cluster.launch();
    cluster.look();
    let launch = &cluster.launches[&third];
    let sight = LaunchSight {
        worker: launch.worker.clone(),
        drained_for: None,
        is_steady: false,
        failing: Some(TaskId(5)),
    };
    let sight = UpdateSight { launches: [(third.clone(), Some(sight))].into() };
    cluster.world.liveness.note_updates([(cluster.id.clone(), sight)].into());
    assert_eq!(cluster.decide(), ["replace workers of an update"]);
    let update = cluster.update().expect("it goes back");
    assert!(update.failure.is_some());
    assert_eq!(update.former.blob, new_blob());
    assert_eq!(update.total, 3, "the fourth one has the former package still");
    let slots = cluster.slots();
    assert_eq!(cluster.finish(), (slots[..2].to_vec(), 1));
    cluster.launch();
    assert_eq!(cluster.blobs(), vec![BlobKey::of(b"x"); 4]);
}

#[test]
fn new_leader_goes_on_and_decides_nothing_before_it_has_looked() {
    let mut cluster = Cluster::new(2, NewCode::Runs);
    cluster.begin(1);
    cluster.decide();
    cluster.drain();
    cluster.world.fail_over();
    assert_eq!(cluster.decide(), Vec::<String>::new(), "nothing was seen in this term");
    cluster.look();
    assert_eq!(cluster.decide(), ["replace workers of an update"]);
    cluster.launch();
    cluster.world.fail_over();
    cluster.world.wait(119 * SECOND);
    assert_eq!(cluster.decide(), Vec::<String>::new());
    cluster.world.wait(10 * SECOND);
    assert_eq!(cluster.decide(), Vec::<String>::new(), "without a look, the deadline says nothing");
    cluster.look();
    assert_eq!(cluster.decide(), ["step of an update"]);
    assert_eq!(cluster.update().expect("under way").failure, None);
    cluster.finish();
}

#[test]
fn worker_that_the_leader_had_to_place_again_fails_the_update_and_a_lost_host_does_not() {
    for is_present in [true, false] {
        let mut cluster = Cluster::new(2, NewCode::Runs);
        cluster.begin(1);
        cluster.decide();
        cluster.drain();
        cluster.look();
        assert_eq!(cluster.decide(), ["replace workers of an update"]);
        let slot = cluster.slots()[0].clone();
        let worker = cluster.world.assignment(&cluster.id).expect("placed").workers[&slot].clone();
        let tasks = worker.tasks.clone();
        if is_present {
            // It never had a heartbeat.
            cluster.world.silence(&cluster.id.clone(), tasks.iter());
            for _ in 0..130 {
                cluster.world.wait(SECOND);
                let plan = cluster.world.decide();
                cluster.world.execute(&plan);
            }
        } else {
            cluster.world.remove_supervisor(slot.supervisor.as_str());
            for _ in 0..60 {
                cluster.world.wait(SECOND);
                cluster.world.send_heartbeats();
                let plan = cluster.world.decide();
                cluster.world.execute(&plan);
            }
        }
        let assignment = cluster.world.assignment(&cluster.id).expect("placed");
        assert_ne!(assignment.workers.get(&slot), Some(&worker), "it was placed again");
        assert_eq!(cluster.update().expect("under way").failure.is_some(), is_present);
        cluster.finish();
        let expected = if is_present { BlobKey::of(b"x") } else { new_blob() };
        cluster.launch();
        assert_eq!((cluster.record().blob, cluster.blobs()), (expected.clone(), vec![expected; 2]));
    }
}

#[test]
fn update_waits_while_a_topology_is_killed_and_hosts_that_drain_wait_for_the_update() {
    let mut cluster = Cluster::new(2, NewCode::Runs);
    cluster.begin(1);
    cluster.world.drain("host-s0", Some(0));
    cluster.decide();
    cluster.look();
    assert_eq!(cluster.decide(), Vec::<String>::new(), "the drained host waits");
    cluster.finish();
    assert_eq!(cluster.decide(), ["stop the spouts before tasks move"], "then its workers leave it");

    let mut cluster = Cluster::new(2, NewCode::Runs);
    cluster.begin(1);
    cluster.world.kill(&cluster.id.clone(), 60 * SECOND);
    cluster.look();
    assert_eq!(cluster.decide(), Vec::<String>::new());
}

#[derive(Debug, Clone)]
enum Event {
    Launch,
    Drain,
    Look,
    Blind,
    Decide,
    Wait { secs: u32 },
    FailOver,
    SupervisorGoes { nth: usize },
    SupervisorComes { nth: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Launch),
        3 => Just(Event::Drain),
        3 => Just(Event::Look),
        1 => Just(Event::Blind),
        6 => Just(Event::Decide),
        3 => (1..40_u32).prop_map(|secs| Event::Wait { secs }),
        1 => Just(Event::FailOver),
        1 => (0..5_usize).prop_map(|nth| Event::SupervisorGoes { nth }),
        1 => (0..5_usize).prop_map(|nth| Event::SupervisorComes { nth }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens, both packages are kept as long as a worker has them, no worker is
    /// replaced before it has drained or its time is over, no more start at a time than were
    /// asked for, and in the end all workers have one package: the new one, unless it does not run.
    #[test]
    fn an_update_ends_with_all_workers_on_one_package_and_replaces_none_before_its_turn(
        at_once in 1..4_u32,
        dies in any::<bool>(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut cluster = Cluster::new(4, if dies { NewCode::Dies } else { NewCode::Runs });
        cluster.begin(at_once);
        for event in events {
            match event {
                Event::Launch => cluster.launch(),
                Event::Drain => cluster.drain(),
                Event::Look => cluster.look(),
                Event::Blind => cluster.world.liveness.note_updates(BTreeMap::new()),
                Event::Wait { secs } => cluster.world.wait(secs * SECOND),
                Event::FailOver => cluster.world.fail_over(),
                Event::SupervisorGoes { nth } => cluster.world.remove_supervisor(&format!("s{nth}")),
                Event::SupervisorComes { nth } => cluster.world.supervisor(&format!("s{nth}"), 1),
                Event::Decide => {
                    let before = cluster.update();
                    let drained: Vec<(Slot, Option<Timestamp>)> = cluster.launches.iter()
                        .map(|(slot, launch)| (slot.clone(), launch.drained_for)).collect();
                    let is_replaced = cluster.decide().iter().any(|effect| effect == "replace workers of an update");
                    let was_draining = before.and_then(|update| update.draining);
                    let is_left = cluster.update().is_some_and(|update| update.draining.is_some());
                    if let (true, Some(Turn { worker, deadline }), false) = (is_replaced, was_draining, is_left) {
                        let is_due = cluster.world.clock.now() >= deadline;
                        let has_drained = drained.iter()
                            .any(|(slot, change)| *slot == worker.slot && *change == Some(deadline));
                        prop_assert!(is_due || has_drained, "{:?}", worker);
                    }
                }
            }
            if let Some(Update { starting, failure: None, .. }) = cluster.update() {
                prop_assert!(starting.len() <= usize::try_from(at_once).expect("small"));
            }
            let record = cluster.record();
            prop_assert!(cluster.blobs().iter().all(|blob| record.uses(blob)), "{:?}", record);
        }
        for nth in 0..5 {
            cluster.world.supervisor(&format!("s{nth}"), 1);
        }
        cluster.finish();
        cluster.launch();
        let record = cluster.record();
        prop_assert!(cluster.blobs().iter().all(|blob| *blob == record.blob), "{:?}", cluster.blobs());
        let is_new = record.blob == new_blob();
        prop_assert!(!(dies && is_new), "the package does not run");
    }
}

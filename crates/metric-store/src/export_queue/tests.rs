use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;

const POLICY: LeasePolicy = LeasePolicy { timeout: Duration::from_secs(60), pause: Duration::from_secs(5) };
const WIDE: Limits = Limits { per_topology_max: 1000, bytes_max: u64::MAX };

fn topology(n: u8) -> TopologyId {
    format!("t-{n}-1").parse().expect("an id")
}

fn at(secs: u64) -> Monotonic {
    Monotonic::START.plus(Duration::from_secs(secs))
}

fn some(n_top: u64, n_rest: u64) -> Reserved {
    Reserved { n_top, n_rest, bytes: (n_top + n_rest) * 10 }
}

fn commit(queue: &mut Queue, changes: Vec<Change>) {
    changes.into_iter().for_each(|change| queue.commit(change));
}

fn with_exporters(names: &[&str]) -> Queue {
    let mut queue = Queue::default();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    queue.commit(Change::Next(1));
    let changes = queue.set_exporters(&names);
    commit(&mut queue, changes);
    queue
}

fn add(queue: &mut Queue, minute: u32, reserved: Reserved, limits: Limits) {
    let change = queue.reserve(Minute(minute), &topology(1), reserved);
    queue.commit(change);
    let (changes, _, _) = queue.close(Minute(minute), limits);
    commit(queue, changes);
}

#[test]
fn entry_is_leased_nacked_acknowledged_and_removed() {
    let mut queue = with_exporters(&["a", "b"]);
    add(&mut queue, 5, some(1, 1), WIDE);
    add(&mut queue, 6, some(1, 0), WIDE);
    let first = queue.next("a", at(0), POLICY).expect("ready");
    assert_eq!((first.key.minute, first.key.kind, first.attempts), (Minute(5), ExportKind::All, 0));
    assert_eq!(queue.next("a", at(0), POLICY), None, "the exporter has a lease");
    assert_eq!(queue.next("b", at(0), POLICY).expect("ready").key, first.key, "leases are per exporter");
    // After a nack, the entry is leased again once the pause is over.
    queue.nack("a", first.key.number, at(1), POLICY, "rejected");
    assert_eq!(queue.next("a", at(5), POLICY), None);
    let again = queue.next("a", at(6), POLICY).expect("ready again");
    assert_eq!((again.key, again.attempts), (first.key.clone(), 1));
    // The entry is removed when both exporters acknowledged it.
    let changes = queue.ack("a", first.key.number);
    commit(&mut queue, changes);
    queue.release("a", first.key.number);
    assert_eq!(queue.ack("a", first.key.number), []);
    assert_eq!(queue.status().ready, 2);
    let changes = queue.ack("b", first.key.number);
    commit(&mut queue, changes);
    assert_eq!(queue.status().ready, 1);
    let second = queue.next("a", at(6), POLICY).expect("ready");
    assert_eq!((second.key.minute, second.key.kind), (Minute(6), ExportKind::Topology));
    // A timeout is a nack; a late nack has no effect.
    assert_eq!(queue.next("a", at(66), POLICY), None);
    queue.nack("a", second.key.number, at(67), POLICY, "late");
    let status = queue.status().exporters.remove("a").expect("known");
    assert_eq!((status.nacked, status.acked, status.pending, status.leased), (2, 1, 1, 0));
    assert_eq!(queue.next("a", at(71), POLICY).expect("ready again").attempts, 1);
    assert_eq!(queue.next("nobody", at(99), POLICY), None);
}

#[test]
fn oldest_entries_beyond_the_limits_are_dropped_and_counted() {
    let mut queue = with_exporters(&["a", "b"]);
    let limits = Limits { per_topology_max: 2, bytes_max: 1000 };
    add(&mut queue, 1, some(1, 0), limits);
    add(&mut queue, 2, some(1, 0), limits);
    let changes = queue.ack("a", 1);
    commit(&mut queue, changes);
    let change = queue.reserve(Minute(3), &topology(1), some(1, 0));
    queue.commit(change);
    let (changes, n_added, dropped) = queue.close(Minute(3), limits);
    assert_eq!((n_added, dropped), (1, vec![topology(1)]), "only b had not acknowledged it");
    commit(&mut queue, changes);
    let status = queue.status();
    assert_eq!((status.ready, status.oldest), (2, Some(Minute(2))));
    assert_eq!((status.exporters["a"].dropped, status.exporters["b"].dropped), (0, 1));
    // An entry that exceeds the limit on bytes by itself is dropped at once.
    add(&mut queue, 4, some(0, 101), Limits { per_topology_max: 9, bytes_max: 1000 });
    assert_eq!(queue.status().ready, 0);
    add(&mut queue, 5, some(0, 1), limits);
    assert_eq!(queue.next("a", at(0), POLICY).expect("ready").key.number, 5, "numbers are never used again");
}

#[test]
fn large_minute_is_divided_with_the_topology_first() {
    let mut queue = with_exporters(&["a"]);
    add(&mut queue, 1, some(10, 25_000), WIDE);
    let mut parts = Vec::new();
    while let Some(ExportLease { key, .. }) = queue.next("a", at(0), POLICY) {
        let changes = queue.ack("a", key.number);
        commit(&mut queue, changes);
        queue.release("a", key.number);
        parts.push((key.kind, key.part, key.parts));
    }
    use ExportKind::{Task, Topology};
    assert_eq!(parts, [(Topology, 0, 1), (Task, 0, 3), (Task, 1, 3), (Task, 2, 3)]);
    assert_eq!(with_exporters(&[]).close(Minute(9), WIDE).1, 0);
}

#[test]
fn later_data_of_a_minute_is_added() {
    let mut queue = with_exporters(&["a"]);
    for _ in 0..2 {
        let change = queue.reserve(Minute(1), &topology(1), some(1, 2));
        queue.commit(change);
    }
    let (changes, _, _) = queue.close(Minute(1), WIDE);
    commit(&mut queue, changes);
    assert_eq!(queue.next("a", at(0), POLICY).expect("ready").points, 6);
    assert_eq!(queue.status().bytes, 60);
}

#[test]
fn nack_pauses_the_exporter_and_a_dropped_entry_ends_its_lease() {
    let mut queue = with_exporters(&["a"]);
    let limits = Limits { per_topology_max: 2, ..WIDE };
    for minute in 1..=2 {
        add(&mut queue, minute, some(1, 0), limits);
    }
    let first = queue.next("a", at(0), POLICY).expect("ready").key;
    queue.nack("a", first.number, at(1), POLICY, "rejected");
    assert_eq!(queue.next("a", at(5), POLICY), None, "another entry is ready, but the exporter is paused");
    assert_eq!(queue.next("a", at(6), POLICY).expect("the pause is over").key, first);
    for minute in 3..=4 {
        add(&mut queue, minute, some(1, 0), limits);
    }
    let status = queue.status().exporters.remove("a").expect("known");
    assert_eq!((status.dropped, status.leased), (2, 0), "{first} and the second are gone");
    assert_eq!(queue.next("a", at(7), POLICY).expect("no lease is left").key.minute, Minute(3));
}

#[test]
fn exporters_are_added_and_removed() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut queue = with_exporters(&["a", "b"]);
    for minute in 1..=3 {
        add(&mut queue, minute, some(1, 0), WIDE);
    }
    let change = |queue: &mut Queue, changes| commit(queue, changes);
    let changes = queue.ack("a", 1);
    change(&mut queue, changes);
    assert_eq!(queue.next("b", at(0), POLICY).expect("ready").key.number, 1);
    // Only the removed exporter had not acknowledged the first entry.
    let changes = queue.set_exporters(&names(&["a"]));
    change(&mut queue, changes);
    assert_eq!(queue.exporters().collect::<Vec<_>>(), ["a"]);
    assert_eq!(queue.status().ready, 2);
    assert_eq!(queue.next("b", at(0), POLICY), None);
    // An exporter that returns has no leases, and begins with the oldest entry.
    let changes = queue.set_exporters(&names(&["a", "b"]));
    change(&mut queue, changes);
    let status = queue.status().exporters.remove("b").expect("known");
    assert_eq!((status.pending, status.leased, status.acked), (2, 0, 0));
    assert_eq!(queue.next("b", at(0), POLICY).expect("ready").key.number, 2);
    // The acknowledgement of a removed exporter is not required.
    let changes = queue.set_exporters(&names(&["a"]));
    change(&mut queue, changes);
    let changes = queue.ack("a", 2);
    change(&mut queue, changes);
    assert_eq!(queue.status().ready, 1);
}

#[test]
fn removed_topology_leaves_nothing() {
    let mut queue = with_exporters(&["a"]);
    add(&mut queue, 1, some(1, 0), WIDE);
    for n in [1, 2] {
        let change = queue.reserve(Minute(2), &topology(n), some(1, 0));
        queue.commit(change);
    }
    let changes = queue.forget(&topology(1));
    commit(&mut queue, changes);
    assert_eq!((queue.status().ready, queue.status().reserved, queue.status().bytes), (0, 1, 0));
    let (changes, _, _) = queue.close(Minute(2), WIDE);
    commit(&mut queue, changes);
    assert_eq!(queue.next("a", at(0), POLICY).expect("the entry of the other").key.topology, topology(2));
}

#[test]
fn acknowledged_metas_do_not_decrease() {
    let mut queue = with_exporters(&["a"]);
    for through in [7, 3] {
        let changes = queue.ack_metas("a", through);
        commit(&mut queue, changes);
    }
    assert_eq!((queue.metas_known_by("a"), queue.metas_known_by("b")), (Some(7), None));
    assert_eq!(queue.ack_metas("b", 1), []);
}

/// Step of the model, in any order.
#[derive(Debug, Clone)]
enum Step {
    Data(u8),
    Close,
    Next(u8),
    Ack(u8, u8),
    Nack(u8, u8),
    Wait(u8),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..3).prop_map(Step::Data),
        Just(Step::Close),
        (0_u8..2).prop_map(Step::Next),
        (0_u8..2, any::<u8>()).prop_map(|(exporter, which)| Step::Ack(exporter, which)),
        (0_u8..2, any::<u8>()).prop_map(|(exporter, which)| Step::Nack(exporter, which)),
        (1_u8..90).prop_map(Step::Wait),
        Just(Step::Crash),
    ]
}

/// Queue with its disk: all changes so far, which restore the queue after a crash.
struct World {
    queue: Queue,
    disk: Vec<Change>,
    held: [Vec<(ExportKey, u64)>; 2],
    minute: u32,
    now: u64,
    /// Minutes that were closed with data; in `acked`, those that each exporter acknowledged.
    closed: BTreeSet<(u32, TopologyId)>,
    acked: [BTreeSet<(u32, TopologyId)>; 2],
}

const NAMES: [&str; 2] = ["a", "b"];

impl World {
    fn write(&mut self, changes: Vec<Change>) {
        self.disk.extend(changes.iter().cloned());
        commit(&mut self.queue, changes);
    }

    fn take(&mut self, exporter: usize) -> Option<ExportKey> {
        let export = self.queue.next(NAMES[exporter], at(self.now), POLICY)?;
        let now = self.now;
        let mut before = self.held[exporter].iter().filter(|(key, _)| *key == export.key);
        assert!(before.all(|(_, given)| given + 60 <= now), "leased twice at once");
        self.held[exporter].retain(|(key, _)| *key != export.key);
        self.held[exporter].push((export.key.clone(), now));
        Some(export.key)
    }

    fn ack(&mut self, exporter: usize, key: &ExportKey) {
        let changes = self.queue.ack(NAMES[exporter], key.number);
        self.write(changes);
        self.queue.release(NAMES[exporter], key.number);
        self.held[exporter].retain(|(held, _)| held != key);
        self.acked[exporter].insert((key.minute.0, key.topology.clone()));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Data(n) => {
                let change = self.queue.reserve(Minute(self.minute), &topology(n), some(1, 1));
                self.write(vec![change]);
                self.closed.insert((self.minute, topology(n)));
            }
            Step::Close => {
                let (changes, _, dropped) = self.queue.close(Minute(self.minute), WIDE);
                assert_eq!(dropped, []);
                self.write(changes);
                self.minute += 1;
            }
            Step::Next(exporter) => _ = self.take(exporter.into()),
            Step::Ack(exporter, which) => {
                let exporter = usize::from(exporter);
                if let Some(key) = pick(&self.held[exporter], which) {
                    self.ack(exporter, &key);
                }
            }
            Step::Nack(exporter, which) => {
                let exporter = usize::from(exporter);
                if let Some(key) = pick(&self.held[exporter], which) {
                    self.queue.nack(NAMES[exporter], key.number, at(self.now), POLICY, "no");
                    self.held[exporter].retain(|(held, _)| *held != key);
                }
            }
            // A lease that times out may still be acknowledged, or nacked without effect.
            Step::Wait(secs) => self.now += u64::from(secs),
            Step::Crash => {
                self.queue = Queue::default();
                let disk = self.disk.clone();
                commit(&mut self.queue, disk);
                self.held = Default::default();
            }
        }
    }
}

fn pick(held: &[(ExportKey, u64)], which: u8) -> Option<ExportKey> {
    (!held.is_empty()).then(|| held[usize::from(which) % held.len()].0.clone())
}

proptest! {
    /// After any sequence of steps, crashes included, the exporters continue: each receives every
    /// minute that had data, none is stuck, and the queue is empty in the end.
    #[test]
    fn nothing_is_lost_and_nothing_is_stuck(steps in proptest::collection::vec(step(), 1..60)) {
        let queue = Queue::default();
        let mut world = World {
            queue, disk: Vec::new(), held: Default::default(), minute: 1, now: 0,
            closed: BTreeSet::new(), acked: Default::default(),
        };
        let changes = world.queue.set_exporters(&NAMES.map(str::to_owned));
        world.write(changes);
        for step in steps {
            world.step(step);
            for exporter in NAMES {
                prop_assert!(world.queue.status().exporters[exporter].leased <= 1);
            }
        }
        world.step(Step::Close);
        // The longest pause and all leases are over.
        world.now += 10_000;
        world.held = Default::default();
        for (exporter, name) in NAMES.iter().enumerate() {
            let mut n_tries = 0;
            while world.queue.status().exporters[*name].pending > 0 {
                n_tries += 1;
                prop_assert!(n_tries < 500, "stuck: {:?}", world.queue.status());
                match world.take(exporter) {
                    Some(key) => world.ack(exporter, &key),
                    None => world.now += 10_000,
                }
            }
            prop_assert_eq!(&world.acked[exporter], &world.closed);
        }
        let status = world.queue.status();
        prop_assert_eq!((status.ready, status.reserved, status.bytes), (0, 0, 0));
    }
}

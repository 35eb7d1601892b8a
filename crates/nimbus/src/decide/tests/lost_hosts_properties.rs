//! Properties of the loss of hosts: random histories of supervisors and workers, compared with a
//! plain record of who was seen when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::world::{SECOND, World};
use crate::{liveness::LossReason, plan::Reason};
use stormkeeper_model::{SupervisorId, TopologyId, clock::Monotonic};

const N_SUPERVISORS: usize = 5;

#[derive(Debug, Clone)]
enum Event {
    /// The session of a supervisor ends.
    Vanishes {
        nth: usize,
    },
    Stops {
        nth: usize,
    },
    Comes {
        nth: usize,
    },
    /// The sessions of all workers of a supervisor end.
    WorkersVanish {
        nth: usize,
    },
    /// The heartbeats of all workers with a supervisor are there.
    SendHeartbeats,
    Interrupted,
    FailOver,
    Wait {
        millis: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let nth = || 0..N_SUPERVISORS;
    prop_oneof![
        3 => nth().prop_map(|nth| Event::Vanishes { nth }),
        1 => nth().prop_map(|nth| Event::Stops { nth }),
        2 => nth().prop_map(|nth| Event::Comes { nth }),
        3 => nth().prop_map(|nth| Event::WorkersVanish { nth }),
        1 => Just(Event::SendHeartbeats),
        1 => Just(Event::Interrupted),
        1 => Just(Event::FailOver),
        4 => (1..6000_u64).prop_map(|millis| Event::Wait { millis }),
        2 => (5000..40_000_u64).prop_map(|millis| Event::Wait { millis }),
    ]
}

/// Knowledge of a witness.
struct Witness {
    /// Time since which each supervisor is absent, and whether it had announced its stop.
    absent: BTreeMap<SupervisorId, (Monotonic, bool)>,
    /// The supervisors that have assigned workers.
    needed: BTreeSet<SupervisorId>,
    /// Time since which no worker on the supervisor has a heartbeat.
    silent: BTreeMap<SupervisorId, Monotonic>,
    /// Beginning of the term, or end of the last interruption.
    connected_since: Monotonic,
}

impl Witness {
    fn look(&mut self, world: &World) {
        let (view, now) = (world.view(), world.clock.monotonic());
        let (absent, silent) = (std::mem::take(&mut self.absent), std::mem::take(&mut self.silent));
        self.needed = view
            .assignments
            .values()
            .flat_map(|assignment| assignment.value.supervisors().cloned())
            .collect();
        for i in 0..N_SUPERVISORS {
            let id: SupervisorId = name(i).parse().expect("valid");
            if !view.supervisors.contains_key(&id) {
                let since = absent.get(&id).map_or(now, |(since, _)| *since);
                let has_stopped = view.stopped_supervisors.contains_key(&id);
                self.absent.insert(id.clone(), (since, has_stopped));
            }
            let workers = view.assignments.iter().flat_map(|(topology, assignment)| {
                let here = assignment.value.workers.iter().filter(|(slot, _)| slot.supervisor == id);
                here.map(move |(_, worker)| (topology, worker))
            });
            let is_alive =
                |(topology, worker): (&TopologyId, &stormkeeper_model::assignment::AssignedWorker)| {
                    worker.tasks.iter().any(|task| view.heartbeats[topology].contains(task))
                };
            if !workers.into_iter().any(is_alive) {
                self.silent.insert(id.clone(), silent.get(&id).copied().unwrap_or(now));
            }
        }
    }

    /// The reason why the host of `id` must not be treated as lost.
    fn objection(&self, id: &SupervisorId, now: Monotonic) -> Option<String> {
        let Some((absent_since, has_stopped)) = self.absent.get(id) else {
            return Some("it is registered".to_owned());
        };
        let Some(silent_since) = self.silent.get(id) else {
            return Some("one of its workers has a heartbeat".to_owned());
        };
        if *has_stopped {
            return Some("it has announced its stop".to_owned());
        }
        if now.since(*absent_since.max(silent_since)) < SECOND / 2 {
            return Some("it is gone for less than half a second".to_owned());
        }
        if now.since(self.connected_since) < 15 * SECOND {
            return Some("the leader has not settled".to_owned());
        }
        let is_recent = |(id, (since, _)): &(&SupervisorId, &(Monotonic, bool))| {
            let was_gone = self.connected_since.since(*since) >= 30 * SECOND && !self.needed.contains(id);
            let since = if was_gone { *since } else { (*since).max(self.connected_since) };
            now.since(since) < 30 * SECOND
        };
        let recent = self.absent.iter().filter(is_recent);
        let recent: Vec<bool> = recent.map(|(_, (_, has_stopped))| *has_stopped).collect();
        let n_vanished = recent.iter().filter(|has_stopped| !**has_stopped).count();
        let n_all = N_SUPERVISORS - self.absent.len() + recent.len();
        (n_vanished * 2 > n_all).then(|| format!("{n_vanished} of {n_all} vanished together"))
    }
}

fn name(nth: usize) -> String {
    format!("s{nth}")
}

fn step(world: &mut World, witness: &mut Witness, event: &Event) {
    match event {
        Event::Vanishes { nth } => world.remove_supervisor(&name(*nth)),
        Event::Stops { nth } => world.stop(&name(*nth)),
        Event::Comes { nth } => world.start(&name(*nth), 4),
        Event::WorkersVanish { nth } => {
            for (topology, assignment) in world.view().assignments {
                let workers = assignment.value.workers.iter();
                for (_, worker) in workers.filter(|(slot, _)| slot.supervisor.as_str() == name(*nth)) {
                    world.silence(&topology, worker.tasks.iter());
                }
            }
        }
        Event::SendHeartbeats => world.send_heartbeats(),
        Event::Interrupted => {
            world.liveness.interrupt();
            witness.connected_since = world.clock.monotonic();
        }
        Event::FailOver => {
            // The nimbus that takes over has followed until now: it has seen the last assignments.
            let (view, now) = (world.view(), world.clock.monotonic());
            world.liveness.observe(&view, now);
            let announcers = world.liveness.announcers(now);
            world.fail_over();
            world.liveness = world.liveness.clone().with_announcers(&announcers);
            witness.connected_since = now;
            // It does not know since when a supervisor with assigned workers is absent, also if these
            // move away later.
            for (id, (since, _)) in &mut witness.absent {
                if witness.needed.contains(id) {
                    *since = now;
                }
            }
        }
        Event::Wait { millis } => world.wait(Duration::from_millis(*millis)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A host is lost only if its supervisor and all its workers are gone for half a second, nobody
    /// announced it, the leader has settled, and the others did not vanish with it; and then it is.
    #[test]
    fn hosts_are_lost_exactly_if_nothing_speaks_against_it(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::with_announcers(N_SUPERVISORS, 4);
        let mut witness = Witness {
            absent: BTreeMap::new(),
            needed: BTreeSet::new(),
            silent: BTreeMap::new(),
            connected_since: world.clock.monotonic(),
        };
        world.running("a", 10, 5);
        world.running("b", 6, 3);
        for event in &events {
            step(&mut world, &mut witness, event);
            witness.look(&world);
            let now = world.clock.monotonic();
            let plan = world.decide();
            let mut lost = Vec::new();
            for action in &plan.actions {
                if let Reason::WorkerLost { slot, loss: LossReason::HostLost, .. } = &action.reason {
                    prop_assert_eq!(witness.objection(&slot.supervisor, now), None, "{} after {:?}", slot, event);
                }
                if matches!(action.reason, Reason::WorkerLost { .. }) {
                    lost.extend(action.moves.iter().filter_map(|one| one.from.clone()));
                }
            }
            // With a free slot, every worker of a lost host moves.
            let view = world.view();
            let n_free = view.supervisors.len() * 4;
            for (id, assignment) in view.assignments.iter().filter(|_| n_free >= 12) {
                for slot in assignment.value.workers.keys() {
                    let is_lost = witness.objection(&slot.supervisor, now).is_none();
                    prop_assert!(!is_lost || lost.contains(slot), "{} of {} stays after {:?}", slot, id, event);
                }
            }
            world.execute(&plan);
            witness.look(&world);
        }
    }
}

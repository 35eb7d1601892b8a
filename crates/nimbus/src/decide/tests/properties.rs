use proptest::prelude::*;

use super::world::{SECOND, World};
use crate::plan::{ClusterProblem, Finding};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::TopologyId;

/// Event in the cluster.
#[derive(Debug, Clone)]
enum Event {
    Submit {
        n_tasks: u32,
        workers: u32,
        grow_back_secs: Option<u64>,
    },
    Kill {
        nth: usize,
        wait_secs: u32,
    },
    Rebalance {
        nth: usize,
        workers: u32,
        n_tasks: Option<u32>,
    },
    SupervisorGoes {
        nth: usize,
    },
    SupervisorStops {
        nth: usize,
    },
    SupervisorComes {
        nth: usize,
    },
    SendHeartbeats,
    Wait {
        secs: u32,
    },
    Garbage {
        nth: usize,
        root: usize,
    },
    Drain {
        nth: usize,
    },
    Undrain {
        nth: usize,
    },
    FailOver,
    /// The leader applies this many actions of its plan, the last one in part, and dies.
    Interrupted {
        n_actions: usize,
        n_ops: usize,
    },
    Decide,
}

const N_SUPERVISORS: usize = 4;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1..9_u32, 1..4_u32, prop::option::of(1..60_u64)).prop_map(
            |(n_tasks, workers, grow_back_secs)| Event::Submit { n_tasks, workers, grow_back_secs }
        ),
        2 => (0..4_usize, 0..60_u32).prop_map(|(nth, wait_secs)| Event::Kill { nth, wait_secs }),
        1 => (0..4_usize, 1..5_u32, prop::option::of(1..9_u32))
            .prop_map(|(nth, workers, n_tasks)| Event::Rebalance { nth, workers, n_tasks }),
        1 => (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorGoes { nth }),
        1 => (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorStops { nth }),
        1 => (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorComes { nth }),
        1 => (0..N_SUPERVISORS).prop_map(|nth| Event::Drain { nth }),
        1 => (0..N_SUPERVISORS).prop_map(|nth| Event::Undrain { nth }),
        3 => Just(Event::SendHeartbeats),
        3 => (1..100_u32).prop_map(|secs| Event::Wait { secs }),
        1 => (0..4_usize, 0..4_usize).prop_map(|(nth, root)| Event::Garbage { nth, root }),
        1 => Just(Event::FailOver),
        3 => (0..4_usize, 0..6_usize).prop_map(|(n_actions, n_ops)| Event::Interrupted { n_actions, n_ops }),
        4 => Just(Event::Decide),
    ]
}

struct Run {
    world: World,
    ids: Vec<TopologyId>,
    damaged: std::collections::BTreeMap<stormkeeper_coordination::tree::TreePath, Vec<u8>>,
}

impl Run {
    fn topology(&self, nth: usize) -> Option<TopologyId> {
        let live: Vec<&TopologyId> = self.ids.iter().filter(|id| self.is_readable(id)).collect();
        live.get(nth % live.len().max(1)).map(|id| (*id).clone())
    }

    fn is_readable(&self, id: &TopologyId) -> bool {
        let path = layout::storm(id);
        self.world.nodes.contains_key(&path) && !self.damaged.contains_key(&path)
    }

    fn step(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Submit { n_tasks, workers, grow_back_secs } => {
                let name = format!("t{}", self.ids.len());
                let id = world.submit(&name, n_tasks, workers);
                world.edit(&id, |record| record.grow_back_secs = grow_back_secs);
                self.ids.push(id);
            }
            Event::Kill { nth, wait_secs } => {
                if let Some(id) = self.topology(nth) {
                    self.world.kill(&id, wait_secs * SECOND);
                }
            }
            Event::Rebalance { nth, workers, n_tasks } => {
                let Some(id) = self.topology(nth) else { return };
                let topology_record = self.world.topology_record(&id).expect("readable");
                if topology_record.status.on(stormkeeper_model::status::LifecycleEvent::Rebalance).is_ok() {
                    self.world.rebalance(&id, 5 * SECOND, workers, n_tasks);
                }
            }
            Event::SupervisorGoes { nth } => world.remove_supervisor(&format!("s{nth}")),
            Event::SupervisorStops { nth } => world.stop(&format!("s{nth}")),
            Event::SupervisorComes { nth } => world.start(&format!("s{nth}"), 2),
            Event::Drain { nth } => world.drain(&format!("host-s{nth}"), Some(5)),
            Event::Undrain { nth } => world.undrain(&format!("host-s{nth}")),
            Event::SendHeartbeats => world.send_heartbeats(),
            Event::Wait { secs } => world.wait(secs * SECOND),
            Event::Garbage { nth, root } => {
                let Some(id) = self.topology(nth) else { return };
                let path = [layout::storm, layout::tasks, layout::assignment, layout::metrics][root](&id);
                if let Some((data, _)) = self.world.nodes.get(&path) {
                    self.damaged.entry(path.clone()).or_insert_with(|| data.clone());
                    self.world.put(path, b"garbage".to_vec());
                }
            }
            Event::FailOver => world.fail_over(),
            Event::Interrupted { n_actions, n_ops } => {
                let plan = world.decide();
                for (n, action) in plan.actions.iter().take(n_actions).enumerate() {
                    world.act(&action.effect, if n + 1 == n_actions { n_ops } else { usize::MAX });
                    world.check();
                }
                world.fail_over();
            }
            Event::Decide => {
                let plan = world.decide();
                world.execute(&plan);
            }
        }
    }

    /// Restores the damaged records that still exist, and lets time pass.
    fn repair(&mut self) {
        for (path, data) in std::mem::take(&mut self.damaged) {
            if self.world.nodes.contains_key(&path) {
                self.world.put(path, data);
            }
        }
        for nth in 0..N_SUPERVISORS {
            self.world.supervisor(&format!("s{nth}"), 2);
            self.world.undrain(&format!("host-s{nth}"));
        }
        for _ in 0..6 {
            self.world.settle();
            self.world.send_heartbeats();
            self.world.wait(60 * SECOND);
        }
        self.world.settle();
    }
}

fn run(events: Vec<Event>) -> Run {
    let world = World::with_announcers(N_SUPERVISORS, 2);
    let mut run = Run { world, ids: Vec::new(), damaged: Default::default() };
    for event in events {
        run.step(event);
        run.world.check();
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Repeated decisions at the same moment soon give an empty plan.
    #[test]
    fn repeated_plans_become_empty(events in prop::collection::vec(event(), 1..40)) {
        let mut run = run(events);
        run.world.settle();
        prop_assert_eq!(run.world.decide().actions, vec![]);
    }

    /// After any events, and wherever leaders died, killed topologies leave nothing, and the
    /// others have all their tasks placed if there are slots.
    #[test]
    fn topologies_end_fully_placed_or_fully_removed(events in prop::collection::vec(event(), 1..40)) {
        let mut run = run(events);
        run.repair();
        let view = run.world.view();
        let n_slots = N_SUPERVISORS * 2;
        for id in &run.ids {
            match view.topologies.get(id) {
                None => {
                    let left: Vec<_> = run.world.nodes.keys().filter(|path| path.as_str().contains(id.as_str())).collect();
                    prop_assert!(left.is_empty(), "{} left {:?}", id, left);
                }
                Some(topology_record) => {
                    // In a full cluster a rebalance waits for a slot, and is reported.
                    let waits = |finding: &Finding| finding.topology.as_ref() == Some(id)
                        && matches!(finding.problem, ClusterProblem::RebalanceWaits { .. });
                    let says_so = run.world.decide().findings.iter().any(waits);
                    let is_full = view.topologies.len() > n_slots / 4;
                    let is_done = topology_record.value.pending.is_none() || (is_full && says_so);
                    prop_assert!(is_done, "{} still waits: {:?}", id, topology_record);
                    if view.topologies.len() <= n_slots / 4 {
                        let placed = view.assignments.get(id).map(|a| a.value.tasks());
                        prop_assert_eq!(placed, view.tasks.get(id).map(|t| t.value.components.tasks()));
                    }
                }
            }
        }
        prop_assert!(view.supervisor_assignments.values().flat_map(|o| o.value.topologies.keys()).all(|id| view.topologies.contains_key(id)));
    }

    /// A topology with a record that cannot be read keeps every znode it has.
    #[test]
    fn a_topology_with_an_unreadable_record_keeps_its_znodes(
        before in prop::collection::vec(event(), 1..20),
        root in 0..3_usize,
        after in prop::collection::vec(event(), 1..20),
    ) {
        let mut run = run(before);
        let Some(id) = run.topology(0) else { return Ok(()) };
        let killed = run.world.topology_record(&id).is_some_and(|topology_record| topology_record.status == stormkeeper_model::status::TopologyStatus::Killed);
        prop_assume!(!killed);
        let path = [layout::storm, layout::tasks, layout::assignment][root](&id);
        prop_assume!(run.world.nodes.contains_key(&path));
        run.world.put(path, b"garbage".to_vec());
        let kept: Vec<_> = [layout::storm(&id), layout::tasks(&id), layout::assignment(&id), layout::metrics(&id)]
            .into_iter()
            .filter_map(|path| Some((path.clone(), run.world.nodes.get(&path)?.clone())))
            .collect();
        let others = |event: &Event| !matches!(event, Event::Kill { .. } | Event::Rebalance { .. } | Event::Garbage { .. });
        for event in after.into_iter().filter(others) {
            run.step(event);
            run.world.check();
        }
        for (path, node) in kept {
            prop_assert_eq!(run.world.nodes.get(&path), Some(&node), "{} changed", path);
        }
    }

    /// As long as workers send heartbeats, no failover, loss of connection or loss of supervisors
    /// changes any assignment.
    #[test]
    fn a_healthy_task_never_moves(
        sizes in prop::collection::vec((1..9_u32, 1..4_u32), 1..3),
        events in prop::collection::vec(
            prop_oneof![
                (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorGoes { nth }),
                (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorStops { nth }),
                (0..N_SUPERVISORS).prop_map(|nth| Event::SupervisorComes { nth }),
                (1..200_u32).prop_map(|secs| Event::Wait { secs }),
                Just(Event::FailOver),
                Just(Event::Decide),
                (0..4_usize, 0..6_usize).prop_map(|(n_actions, n_ops)| Event::Interrupted { n_actions, n_ops }),
            ],
            1..40,
        ),
    ) {
        let submit = |(n_tasks, workers)| Event::Submit { n_tasks, workers, grow_back_secs: None };
        let submits = sizes.into_iter().map(submit);
        let mut run = run(submits.chain([Event::Decide, Event::SendHeartbeats, Event::Decide]).collect());
        let placed: Vec<_> = run.ids.iter().map(|id| run.world.assignment(id)).collect();
        for event in events {
            run.step(event);
        }
        prop_assert_eq!(placed, run.ids.iter().map(|id| run.world.assignment(id)).collect::<Vec<_>>());
    }
}

//! The slots of a cluster, numbered by small ordinals, and the choice of the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::problem::{Problem, Standing, UnplacedReason};
use stormkeeper_model::{Port, Slot, SupervisorId, TopologyId};

/// Every slot of the problem, in the order of supervisor and port. Slots, supervisors and hosts
/// are identified by their ordinal in that order.
pub(super) struct SlotTable<'a> {
    slots: Vec<Cell>,
    supervisors: Vec<Supervisor<'a>>,
    hosts: Vec<Host>,
    index: BTreeMap<&'a SupervisorId, usize>,
}

struct Cell {
    port: Port,
    supervisor: usize,
    taken: bool,
}

struct Supervisor<'a> {
    id: &'a SupervisorId,
    host: usize,
    slots: Range<usize>,
    load: Load,
    standing: Standing,
}

#[derive(Default)]
struct Host {
    supervisors: Vec<usize>,
    load: Load,
}

/// Used and free slots of a supervisor or a host.
#[derive(Default)]
struct Load {
    used: usize,
    /// Slots that can be used; slots of a supervisor that is away or drained cannot.
    free: usize,
}

/// Properties of a topology that determine its next slot.
pub(super) struct SlotCriteria {
    /// Number of its workers on each host and each supervisor.
    on_host: Vec<usize>,
    on_supervisor: Vec<usize>,
    /// Number of failures of each supervisor that speak against this topology there.
    failures: Vec<u32>,
    /// Slots chosen first among equals, those with the largest number first: the number of their tasks.
    pub(super) preferred: BTreeMap<usize, usize>,
    /// Slots chosen only if no other is free.
    pub(super) avoided: BTreeSet<usize>,
}

impl<'a> SlotTable<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let names: BTreeSet<&str> = problem.supervisors.values().map(|s| s.host.as_str()).collect();
        let host_of: BTreeMap<&str, usize> =
            names.into_iter().enumerate().map(|(n, name)| (name, n)).collect();
        let mut table = Self {
            slots: Vec::new(),
            supervisors: Vec::with_capacity(problem.supervisors.len()),
            hosts: std::iter::repeat_with(Host::default).take(host_of.len()).collect(),
            index: BTreeMap::new(),
        };
        for (n, (id, supervisor)) in problem.supervisors.iter().enumerate() {
            let host = host_of[supervisor.host.as_str()];
            let first = table.slots.len();
            table.slots.extend(supervisor.ports.iter().map(|&port| Cell {
                port,
                supervisor: n,
                taken: false,
            }));
            let slots = first..table.slots.len();
            let free = match supervisor.standing {
                Standing::Live => slots.len(),
                Standing::Away | Standing::Drained | Standing::Expired => 0,
            };
            table.hosts[host].supervisors.push(n);
            table.hosts[host].load.free += free;
            let load = Load { used: 0, free };
            table.supervisors.push(Supervisor { id, host, slots, load, standing: supervisor.standing });
            table.index.insert(id, n);
        }
        for slot in &problem.occupied {
            if let Some(slot) = table.find(slot) {
                table.take(slot);
            }
        }
        table
    }

    /// The ordinal of a slot; `None` if there is no such supervisor or port.
    pub(super) fn find(&self, slot: &Slot) -> Option<usize> {
        let supervisor = &self.supervisors[*self.index.get(&slot.supervisor)?];
        let cells = &self.slots[supervisor.slots.clone()];
        cells.binary_search_by_key(&slot.port, |cell| cell.port).ok().map(|n| supervisor.slots.start + n)
    }

    /// The slot with this ordinal.
    pub(super) fn slot(&self, slot: usize) -> Slot {
        let cell = &self.slots[slot];
        Slot { supervisor: self.supervisors[cell.supervisor].id.clone(), port: cell.port }
    }

    /// Returns whether an existing worker may stay: no other worker has the slot.
    pub(super) fn may_stay(&self, slot: usize) -> bool {
        !self.slots[slot].taken
    }

    /// The ordinal of the supervisor of a slot.
    pub(super) fn supervisor(&self, slot: usize) -> usize {
        self.slots[slot].supervisor
    }

    /// The live supervisors with a free slot.
    pub(super) fn with_free_slots(&self) -> impl Iterator<Item = usize> {
        let all = self.supervisors.iter().enumerate();
        all.filter(|(_, supervisor)| supervisor.load.free > 0).map(|(n, _)| n)
    }

    /// Returns whether a worker in this slot may get more tasks.
    pub(super) fn open_for_placement(&self, slot: usize) -> bool {
        self.supervisors[self.slots[slot].supervisor].open_for_placement()
    }

    /// Marks a slot as used. It must be free.
    pub(super) fn take(&mut self, slot: usize) {
        let cell = &mut self.slots[slot];
        debug_assert!(!cell.taken, "a slot is used once");
        cell.taken = true;
        let supervisor = &mut self.supervisors[cell.supervisor];
        let freed = usize::from(supervisor.open_for_placement());
        for load in [&mut supervisor.load, &mut self.hosts[supervisor.host].load] {
            load.used += 1;
            load.free -= freed;
        }
    }

    /// Marks a slot as free again. It must be used.
    pub(super) fn release(&mut self, slot: usize) {
        let cell = &mut self.slots[slot];
        debug_assert!(cell.taken, "a free slot is not released");
        cell.taken = false;
        let supervisor = &mut self.supervisors[cell.supervisor];
        let freed = usize::from(supervisor.open_for_placement());
        for load in [&mut supervisor.load, &mut self.hosts[supervisor.host].load] {
            load.used -= 1;
            load.free += freed;
        }
    }

    /// Criteria of a topology without a worker.
    pub(super) fn criteria(&self, topology: &TopologyId, problem: &Problem) -> SlotCriteria {
        let failures = self.supervisors.iter().map(|supervisor| {
            let id = supervisor.id;
            problem.failures.against(topology, id)
        });
        SlotCriteria {
            on_host: vec![0; self.hosts.len()],
            on_supervisor: vec![0; self.supervisors.len()],
            failures: failures.collect(),
            preferred: BTreeMap::new(),
            avoided: BTreeSet::new(),
        }
    }

    /// Records in `criteria` that its topology has a worker in `slot`.
    pub(super) fn count(&self, criteria: &mut SlotCriteria, slot: usize) {
        let supervisor = self.slots[slot].supervisor;
        criteria.on_supervisor[supervisor] += 1;
        criteria.on_host[self.supervisors[supervisor].host] += 1;
    }

    /// Chooses and uses the best free slot for `criteria`: on the host with the fewest recent
    /// failures, then the fewest workers of this topology, then the fewest of all; likewise the
    /// supervisor there; then the lowest port.
    pub(super) fn pick(&mut self, criteria: &mut SlotCriteria) -> Option<usize> {
        self.pick_where::<false>(criteria, |_| true)
    }

    /// As [`pick`](Self::pick), among the supervisors that have `room`.
    pub(super) fn pick_with_room(
        &mut self,
        criteria: &mut SlotCriteria,
        room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.pick_where::<true>(criteria, room)
    }

    fn pick_where<const IS_LIMITED: bool>(
        &mut self,
        criteria: &mut SlotCriteria,
        room: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let has_room = |n: usize| self.supervisors[n].load.free > 0 && (!IS_LIMITED || room(n));
        let is_open = |n: usize| {
            self.hosts[n].load.free > 0
                && (!IS_LIMITED || self.hosts[n].supervisors.iter().any(|supervisor| has_room(*supervisor)))
        };
        let favoured = self.by_place(criteria.preferred.keys());
        let avoided = self.by_place(criteria.avoided.iter());
        let host = (0..self.hosts.len()).filter(|&n| is_open(n)).min_by_key(|&n| {
            let Load { used, free } = self.hosts[n].load;
            let exhausted = avoided.hosts.get(&n) == Some(&free);
            let failures = self.failures_on(n, criteria);
            (failures, exhausted, criteria.on_host[n], used, !favoured.hosts.contains_key(&n))
        })?;
        let supervisors = self.hosts[host].supervisors.iter().copied();
        let supervisor = supervisors.filter(|&n| has_room(n)).min_by_key(|&n| {
            let Load { used, free } = self.supervisors[n].load;
            let exhausted = avoided.supervisors.get(&n) == Some(&free);
            let failures = criteria.failures[n];
            (failures, exhausted, criteria.on_supervisor[n], used, !favoured.supervisors.contains_key(&n))
        })?;
        let cells = self.supervisors[supervisor].slots.clone();
        let slot = cells
            .filter(|&n| !self.slots[n].taken)
            .min_by_key(|n| (criteria.avoided.contains(n), std::cmp::Reverse(criteria.preferred.get(n))))?;
        self.take(slot);
        self.count(criteria, slot);
        Some(slot)
    }

    /// Failures of the supervisor with the fewest of those that have a free slot on the host.
    fn failures_on(&self, host: usize, criteria: &SlotCriteria) -> u32 {
        let supervisors = self.hosts[host].supervisors.iter().copied();
        let with_room = supervisors.filter(|&n| self.supervisors[n].load.free > 0);
        with_room.map(|n| criteria.failures[n]).min().unwrap_or(0)
    }

    /// Reason why no slot is free.
    pub(super) fn shortage(&self) -> UnplacedReason {
        let slots = self.supervisors.iter().filter(|s| s.open_for_placement()).map(|s| s.slots.len());
        match slots.reduce(|a, b| a + b) {
            Some(slots) => UnplacedReason::NoFreeSlot { slots },
            None if self.supervisors.iter().any(|s| s.standing == Standing::Drained) => {
                UnplacedReason::EveryHostDrained
            }
            None => UnplacedReason::NoSupervisor,
        }
    }

    /// Counts the free ones of `slots`, by host and by supervisor.
    fn by_place<'s>(&self, slots: impl Iterator<Item = &'s usize>) -> Tally {
        let mut tally = Tally::default();
        for &slot in slots {
            let supervisor = self.slots[slot].supervisor;
            if !self.slots[slot].taken && self.supervisors[supervisor].open_for_placement() {
                *tally.supervisors.entry(supervisor).or_default() += 1;
                *tally.hosts.entry(self.supervisors[supervisor].host).or_default() += 1;
            }
        }
        tally
    }
}

impl Supervisor<'_> {
    fn open_for_placement(&self) -> bool {
        self.standing == Standing::Live
    }
}

#[derive(Default)]
struct Tally {
    hosts: BTreeMap<usize, usize>,
    supervisors: BTreeMap<usize, usize>,
}

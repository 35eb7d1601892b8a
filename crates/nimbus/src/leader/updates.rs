//! Looks of a leader at the workers whose turn it is in an update: whether they have drained, and whether
//! those that replaced them run.

use std::{collections::BTreeMap, time::Duration};

use tracing::debug;

use super::{
    LeaderLoop,
    drains::{LOOK_PERIOD, TOPOLOGIES_MAX},
};
use crate::liveness::{LaunchSight, UpdateSight};
use stormkeeper_coordination::cluster::{record::TaskHeartbeat, view::ClusterView};
use stormkeeper_model::{
    Slot, TaskId, TopologyId, WorkerId,
    assignment::AssignedWorker,
    clock::Monotonic,
    heartbeat::TaskStatus,
    update::{Turn, Update},
};

/// Time for which the components of all tasks of a worker must be up before the next worker is replaced.
const STEADY: Duration = Duration::from_secs(10);

/// Sum of the times for which a component waits to be started again after which it fails. A component that
/// ends once comes back within a second or two.
const FAILING: Duration = Duration::from_secs(5);

/// Looks of one term.
#[derive(Debug, Default)]
pub(super) struct UpdateLooks {
    looked: Option<Monotonic>,
    launches: BTreeMap<(TopologyId, Slot), Launch>,
}

/// One launch, as it was seen look after look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Launch {
    worker: WorkerId,
    seen: Monotonic,
    /// Since when the components of all tasks are up.
    up: Option<Monotonic>,
    /// How long a component was down, by task.
    down: BTreeMap<TaskId, Duration>,
}

impl Launch {
    fn new(worker: WorkerId, now: Monotonic) -> Self {
        Self { worker, seen: now, up: None, down: BTreeMap::new() }
    }

    fn see(&mut self, all: usize, beats: &[(TaskId, &TaskHeartbeat)], now: Monotonic) {
        let passed = now.since(self.seen);
        self.seen = now;
        let is_up = |status| matches!(status, TaskStatus::Running | TaskStatus::Inactive);
        let own = beats.iter().filter(|(_, beat)| beat.worker == self.worker);
        match own.clone().filter(|(_, beat)| is_up(beat.status)).count() == all {
            true => self.up = self.up.or(Some(now)),
            false => self.up = None,
        }
        for (task, _) in own.filter(|(_, beat)| beat.status == TaskStatus::Restarting) {
            *self.down.entry(*task).or_default() += passed;
        }
    }

    fn sight(&self, first: &TaskHeartbeat, now: Monotonic) -> LaunchSight {
        LaunchSight {
            worker: self.worker.clone(),
            drained_for: first.drained_for,
            is_steady: self.up.is_some_and(|since| now.since(since) >= STEADY),
            failing: self.down.iter().find(|(_, down)| **down >= FAILING).map(|(task, _)| *task),
        }
    }
}

impl LeaderLoop {
    /// Reads the heartbeats of workers whose turn it is in an update, if the last look was a while ago.
    /// Returns whether there is an update.
    pub(super) async fn look_at_updates(&mut self, view: &ClusterView, now: Monotonic) -> bool {
        let updates =
            view.topologies.iter().filter_map(|(id, record)| Some((id, record.value.update.as_ref()?)));
        let updates: Vec<(&TopologyId, &Update)> = updates.take(TOPOLOGIES_MAX).collect();
        if updates.is_empty() {
            if std::mem::take(&mut self.updates).looked.is_some() {
                self.liveness.note_updates(BTreeMap::new());
            }
            return false;
        }
        if self.updates.looked.is_some_and(|looked| now.since(looked) < LOOK_PERIOD) {
            return true;
        }
        let (mut sights, mut launches) = (BTreeMap::new(), BTreeMap::new());
        for (id, update) in updates {
            let Some(assignment) = view.assignments.get(id) else { continue };
            let workers = update.turns().filter_map(|Turn { worker: turn, .. }| {
                Some((
                    &turn.slot,
                    assignment.value.workers.get(&turn.slot).filter(|it| it.start == turn.start)?,
                ))
            });
            let workers: Vec<(&Slot, &AssignedWorker)> = workers.collect();
            let tasks: Vec<TaskId> = workers.iter().flat_map(|(_, worker)| worker.tasks.iter()).collect();
            let beats = match self.context.store.heartbeats_of(id, &tasks).await {
                Ok(beats) => beats,
                Err(error) => {
                    debug!(topology = %id, %error, "cannot read the progress of an update; looking again");
                    continue;
                }
            };
            let mut sight = UpdateSight::default();
            for (slot, worker) in workers {
                let key = (id.clone(), slot.clone());
                let launch = look(self.updates.launches.remove(&key), slot, worker, &beats, now);
                let (launch, seen) = launch.unzip();
                sight.launches.insert(slot.clone(), seen);
                launches.extend(launch.map(|launch| (key, launch)));
            }
            sights.insert(id.clone(), sight);
        }
        self.updates = UpdateLooks { looked: Some(now), launches };
        self.liveness.note_updates(sights);
        true
    }
}

/// Looks at the launch in a slot; `None` if it has no heartbeat.
fn look(
    before: Option<Launch>,
    slot: &Slot,
    worker: &AssignedWorker,
    beats: &BTreeMap<TaskId, TaskHeartbeat>,
    now: Monotonic,
) -> Option<(Launch, LaunchSight)> {
    let own = worker.tasks.iter().filter_map(|task| Some((task, beats.get(&task)?)));
    let own: Vec<(TaskId, &TaskHeartbeat)> = own.filter(|(_, beat)| beat.port == slot.port).collect();
    // During a replacement, heartbeats of both launches may exist: that of the later one counts.
    let known = before.as_ref().map(|launch| &launch.worker);
    let (_, first) = own.iter().find(|(_, beat)| Some(&beat.worker) != known).or(own.first())?;
    let same = before.filter(|launch| launch.worker == first.worker);
    let mut launch = same.unwrap_or_else(|| Launch::new(first.worker.clone(), now));
    launch.see(worker.tasks.len(), &own, now);
    let sight = launch.sight(first, now);
    Some((launch, sight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::record::UnknownFields;
    use stormkeeper_model::{Port, Timestamp, clock::Clock, heartbeat::TaskCounts};

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(worker: &str, status: TaskStatus) -> TaskHeartbeat {
        TaskHeartbeat {
            host: "h".to_owned(),
            port: Port(6700),
            worker: worker.parse().expect("valid"),
            status,
            uptime_secs: 0,
            counts: TaskCounts::default(),
            pending: 0,
            drained_for: None,
            unknown_fields: UnknownFields::new(),
        }
    }

    /// Looks every second at a worker with the tasks 1 and 2.
    struct Looks {
        clock: Clock,
        launch: Option<Launch>,
    }

    impl Looks {
        fn look(&mut self, first: TaskHeartbeat, second: TaskHeartbeat) -> LaunchSight {
            let slot = Slot { supervisor: "s1".parse().expect("valid"), port: Port(6700) };
            let worker = AssignedWorker {
                host: "h".to_owned(),
                tasks: [TaskId(1), TaskId(2)].into_iter().collect(),
                start: Timestamp::EPOCH,
            };
            let beats = [(TaskId(1), first), (TaskId(2), second)].into();
            self.clock.advance(SECOND);
            let now = self.clock.monotonic();
            let (launch, sight) = look(self.launch.take(), &slot, &worker, &beats, now).expect("a launch");
            self.launch = Some(launch);
            sight
        }
    }

    #[test]
    fn launch_is_steady_after_ten_seconds_with_all_tasks_up_and_another_launch_begins_anew() {
        use TaskStatus::{Inactive, Restarting, Running, Starting};
        let mut looks = Looks { clock: Clock::manual(Timestamp::EPOCH), launch: None };
        for n in 0..30 {
            assert!(!looks.look(beat("w1", Running), beat("w1", Starting)).is_steady, "{n}");
        }
        for n in 0..10 {
            assert!(!looks.look(beat("w1", Running), beat("w1", Inactive)).is_steady, "{n}");
        }
        assert!(looks.look(beat("w1", Running), beat("w1", Inactive)).is_steady);
        assert!(!looks.look(beat("w1", Running), beat("w1", Restarting)).is_steady);
        assert!(!looks.look(beat("w1", Running), beat("w1", Running)).is_steady, "a restart begins anew");
        let sight = looks.look(beat("w1", Running), beat("w2", Running));
        assert_eq!((sight.worker.as_str(), sight.is_steady), ("w2", false), "the later launch counts");
        for n in 0..10 {
            assert!(!looks.look(beat("w2", Running), beat("w2", Running)).is_steady, "{n}");
        }
        assert!(looks.look(beat("w2", Running), beat("w2", Running)).is_steady);
    }

    #[test]
    fn component_that_was_down_for_five_seconds_in_sum_fails_and_one_restart_does_not() {
        use TaskStatus::{Restarting, Running};
        let mut looks = Looks { clock: Clock::manual(Timestamp::EPOCH), launch: None };
        looks.look(beat("w1", Running), beat("w1", Running));
        for n in 1..=5 {
            let down = looks.look(beat("w1", Running), beat("w1", Restarting));
            assert_eq!(down.failing, (n == 5).then_some(TaskId(2)), "{n}");
            let up = looks.look(beat("w1", Running), beat("w1", Running));
            assert_eq!(up.failing, (n == 5).then_some(TaskId(2)), "{n}");
        }
    }
}

//! Steps of updates: one worker after the other drains and is replaced, and a few at a time may start; each
//! must run for a while.
//!
//! A step is decided from the record and from what the heartbeats of its workers say, so any leader goes on
//! where another one stopped. If a worker with the new package does not run, the update turns back: the
//! packages change places, and the workers that were replaced are replaced again in the same way.

use std::time::Duration;

use crate::{
    decide::{draft::Draft, placement},
    liveness::{LaunchSight, UpdateSight},
    plan::{Effect, Reason},
};
use stormkeeper_coordination::cluster::record::{Stored, TopologyRecord};
use stormkeeper_model::{
    Timestamp,
    assignment::Assignment,
    event::EventKind,
    status::TopologyStatus,
    update::{FormerPackage, PlacedWorker, Turn, Update},
};

/// Period of the steps.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Moves each update on by one step at most. A topology that another action of the plan changes is left to
/// the next decision.
pub(super) fn step(draft: &mut Draft<'_>) {
    let view = draft.view;
    for (id, record) in &view.topologies {
        let Some(update) = &record.value.update else { continue };
        let is_changed = draft.plan.actions.iter().any(|action| action.effect.topology() == Some(id));
        let is_running = matches!(record.value.status, TopologyStatus::Active | TopologyStatus::Inactive);
        let Some(assignment) = view.assignments.get(id).filter(|_| is_running && !is_changed) else {
            continue;
        };
        draft.wake_at(draft.now.monotonic.plus(LOOK_PERIOD));
        let case = Case {
            draft,
            record: &record.value,
            update,
            assignment: &assignment.value,
            sight: draft.liveness.update_sight(id),
        };
        match case.next() {
            Next::Wait => {}
            Next::Write { record: value, reason } => {
                let topology_record = Box::new(Stored { value: *value, version: record.version });
                draft.act(Effect::StepUpdate { id: id.clone(), topology_record }, reason, 0);
            }
            Next::Replace { assignment, record: value, reason } => {
                let topology_record = Stored { value: *value, version: record.version };
                placement::replace_workers(draft, id, topology_record, assignment, reason);
            }
        }
    }
}

/// Result of a look at an update.
#[derive(Debug)]
enum Next {
    Wait,
    Write {
        record: Box<TopologyRecord>,
        reason: Reason,
    },
    /// Replace workers: the assignment gives them a new start, so that their supervisors launch them again.
    Replace {
        assignment: Assignment,
        record: Box<TopologyRecord>,
        reason: Reason,
    },
}

struct Case<'a> {
    draft: &'a Draft<'a>,
    record: &'a TopologyRecord,
    update: &'a Update,
    assignment: &'a Assignment,
    sight: Option<&'a UpdateSight>,
}

/// State of one worker that was replaced.
enum Started {
    Steady,
    NotYet,
    /// It does not run, and is still where the update started it.
    Failed(String),
    /// The leader has placed its tasks again, as it did not come up.
    PlacedAgain(String),
    /// Its host was lost.
    Gone,
}

impl Case<'_> {
    fn next(&self) -> Next {
        let states: Vec<(&Turn, Started)> =
            self.update.starting.iter().map(|turn| (turn, self.started(turn))).collect();
        if let Some((turn, failure)) =
            states.iter().find_map(|(turn, state)| Some((turn, self.failure(turn, state)?)))
        {
            if self.update.failure.is_none() {
                let failed = states.iter().filter(|(_, state)| matches!(state, Started::Failed(_)));
                return self.turn_back(&failed.map(|(turn, _)| &turn.worker).collect::<Vec<_>>(), failure);
            }
            // There is no other package: the worker is left to its supervisor.
            if self.now() >= turn.deadline {
                let starting = self.update.starting.iter().filter(|other| other != turn).cloned().collect();
                let text = format!("{failure}, and has the former package; going on");
                return self.write(Update { starting, ..self.update.clone() }, text);
            }
        }
        let is_over = |state: &Started| matches!(state, Started::Steady | Started::Gone);
        if let Some((turn, _)) = states.iter().find(|(_, state)| is_over(state)) {
            let starting =
                states.iter().filter(|(_, state)| !is_over(state)).map(|(turn, _)| (*turn).clone());
            let update = Update { starting: starting.collect(), ..self.update.clone() };
            let (n, total) = (update.n_steady(), update.total);
            let text = format!("the worker at {} runs; {n} of {total} do", self.place(&turn.worker));
            return self.write(update, text);
        }
        match &self.update.draining {
            Some(turn) => self.drain(turn),
            None => self.begin_turn(),
        }
    }

    fn now(&self) -> Timestamp {
        self.draft.now.wall
    }

    /// Returns the workers that are left; those that are no longer assigned were placed again meanwhile.
    fn left(&self) -> Vec<PlacedWorker> {
        self.update.left.iter().filter(|left| left.is_in(self.assignment)).cloned().collect()
    }

    fn begin_turn(&self) -> Next {
        let left = self.left();
        let starting = self.update.starting.len();
        let Some(first) = left.first() else {
            if starting > 0 {
                return Next::Wait;
            }
            let (text, event) = match &self.update.failure {
                None => ("all workers run the new package".to_owned(), EventKind::Updated),
                Some(failure) => (
                    format!("all workers have the former package again, as {failure}"),
                    EventKind::UpdateFailed,
                ),
            };
            let record = Box::new(TopologyRecord { update: None, ..self.record.clone() });
            return Next::Write { record, reason: Reason::Update { text, event } };
        };
        let most = if self.update.n_steady() == 0 { 1 } else { self.update.at_once.max(1) as usize };
        if starting >= most {
            return Next::Wait;
        }
        let deadline = self.now().plus(Duration::from_secs(self.record.message_timeout_secs));
        let text = format!("{} drains", self.turn(left.len(), first));
        let draining = Some(Turn { worker: first.clone(), deadline });
        self.write(Update { left, draining, ..self.update.clone() }, text)
    }

    fn drain(&self, turn: &Turn) -> Next {
        let worker = &turn.worker;
        if !worker.is_in(self.assignment) {
            let text = format!("the worker at {} was placed again meanwhile", self.place(worker));
            return self.write(Update { left: self.left(), draining: None, ..self.update.clone() }, text);
        }
        let is_drained = match self.sight.and_then(|sight| sight.launches.get(&worker.slot)) {
            None => false,
            // A worker without a heartbeat has nothing to finish.
            Some(None) => true,
            Some(Some(launch)) => launch.drained_for == Some(turn.deadline),
        };
        if !is_drained && self.now() < turn.deadline {
            return Next::Wait;
        }
        let how = if is_drained { "has drained" } else { "has not drained in time" };
        let left = self.left();
        let text = format!("{} {how} and is replaced", self.turn(left.len(), worker));
        let mut assignment = self.assignment.clone();
        let mut starting = self.update.starting.clone();
        starting.extend(self.replaced(worker, &mut assignment));
        let left = left.into_iter().filter(|left| !left.is_same(worker)).collect();
        let update = Some(Update { left, draining: None, starting, ..self.update.clone() });
        let record = Box::new(TopologyRecord { update, ..self.record.clone() });
        Next::Replace { assignment, record, reason: self.reason(text) }
    }

    /// Returns what is wrong with a worker that was replaced.
    fn failure(&self, turn: &Turn, state: &Started) -> Option<String> {
        match state {
            Started::Failed(why) | Started::PlacedAgain(why) => {
                Some(format!("the worker at {} {why}", self.place(&turn.worker)))
            }
            Started::Steady | Started::NotYet | Started::Gone => None,
        }
    }

    fn started(&self, turn: &Turn) -> Started {
        let worker = &turn.worker;
        if !worker.is_in(self.assignment) {
            return match self.draft.view.supervisors.contains_key(&worker.slot.supervisor) {
                true => Started::PlacedAgain("did not come up and was placed again".to_owned()),
                false => Started::Gone,
            };
        }
        // Without a look, nothing is known, also at the deadline.
        let Some(launch) = self.sight.and_then(|sight| sight.launches.get(&worker.slot)) else {
            return Started::NotYet;
        };
        let launch = launch.as_ref().filter(|launch| worker.replaces.as_ref() != Some(&launch.worker));
        match launch {
            Some(LaunchSight { is_steady: true, .. }) => Started::Steady,
            Some(LaunchSight { failing: Some(task), .. }) => {
                Started::Failed(format!("does not run: the component of task {task} ends again and again"))
            }
            Some(_) | None if self.now() >= turn.deadline => {
                let secs = self.draft.policy.task_launch.as_secs();
                Started::Failed(format!("did not run steadily within {secs} s"))
            }
            Some(_) | None => Started::NotYet,
        }
    }

    /// Exchanges the packages. The `failed` workers are replaced at once, the others with the new package in
    /// their turn; one that drains takes no more tuples, and must be replaced in any case.
    fn turn_back(&self, failed: &[&PlacedWorker], failure: String) -> Next {
        let is_left = |worker: &PlacedWorker| self.update.left.iter().any(|left| left.is_same(worker));
        let is_failed = |worker: &PlacedWorker| failed.iter().any(|failed| failed.is_same(worker));
        let draining = self.update.draining.clone().filter(|turn| turn.worker.is_in(self.assignment));
        let new =
            PlacedWorker::all_of(self.assignment).filter(|worker| !is_left(worker) && !is_failed(worker));
        let left: Vec<PlacedWorker> = draining.iter().map(|turn| turn.worker.clone()).chain(new).collect();
        let mut assignment = self.assignment.clone();
        let starting: Vec<Turn> =
            failed.iter().filter_map(|worker| self.replaced(worker, &mut assignment)).collect();
        let record = self.record.clone();
        let former = FormerPackage {
            blob: record.blob,
            blob_bytes: record.blob_bytes,
            message_timeout_secs: record.message_timeout_secs,
        };
        let text = format!("{failure}; going back to the former package");
        let (total, at_once) = (starting.len() + left.len(), self.update.at_once);
        let update = Update { former, left, total, at_once, draining, starting, failure: Some(failure) };
        let FormerPackage { blob, blob_bytes, message_timeout_secs } = self.update.former.clone();
        let update = Some(update);
        let record = TopologyRecord { blob, blob_bytes, message_timeout_secs, update, ..self.record.clone() };
        let reason = Reason::Update { text, event: EventKind::UpdateFailed };
        match assignment == *self.assignment {
            true => Next::Write { record: Box::new(record), reason },
            false => Next::Replace { assignment, record: Box::new(record), reason },
        }
    }

    /// Gives a worker a new start in `assignment`, and returns its turn to run.
    fn replaced(&self, worker: &PlacedWorker, assignment: &mut Assignment) -> Option<Turn> {
        let placed = assignment.workers.get_mut(&worker.slot)?;
        placed.start = placement::restarted(placed.start, self.now());
        let launch = self.sight.and_then(|sight| sight.launches.get(&worker.slot)).cloned().flatten();
        let replaces = launch.map(|launch| launch.worker);
        let worker = PlacedWorker { slot: worker.slot.clone(), start: placed.start, replaces };
        Some(Turn { worker, deadline: self.now().plus(self.draft.policy.task_launch) })
    }

    fn write(&self, update: Update, text: String) -> Next {
        let record = Box::new(TopologyRecord { update: Some(update), ..self.record.clone() });
        Next::Write { record, reason: self.reason(text) }
    }

    fn reason(&self, text: String) -> Reason {
        let text = if self.update.failure.is_some() { format!("going back: {text}") } else { text };
        Reason::Update { text, event: EventKind::Updating }
    }

    /// Returns the number and place of a worker, when `n_left` have the package that is left.
    fn turn(&self, n_left: usize, worker: &PlacedWorker) -> String {
        let total = self.update.total;
        format!("worker {} of {total}, at {},", total.saturating_sub(n_left) + 1, self.place(worker))
    }

    fn place(&self, worker: &PlacedWorker) -> String {
        place(self.assignment, worker)
    }
}

/// Returns the place of a worker, as `host:port`.
pub(crate) fn place(assignment: &Assignment, worker: &PlacedWorker) -> String {
    let slot = &worker.slot;
    let host = assignment.workers.get(slot).map_or(slot.supervisor.as_str(), |worker| worker.host.as_str());
    format!("{host}:{}", slot.port)
}

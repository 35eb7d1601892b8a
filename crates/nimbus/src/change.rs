//! Activate, deactivate, rebalance, kill: changes of a topology's record.
//!
//! The record contains the whole change, its deadline included, so that any later leader can
//! execute it when it is due.

use std::time::Duration;

use crate::{
    drain::check_wait,
    log_levels,
    refusal::Refusal,
    samples,
    submit::check_placeable,
    update::{self, NewPackage},
};
use stormkeeper_api_types::message::{
    CredentialsRequest, KillRequest, LogLevelRequest, RebalanceRequest, SampleRequest,
};
use stormkeeper_coordination::{
    cluster::{
        event::EventDraft,
        layout,
        record::{self, Stored, TopologyRecord},
        store::{self, Store},
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree,
};
use stormkeeper_metrics::name::MAX_PART_BYTES;
use stormkeeper_model::{
    Timestamp, TopologyId,
    event::EventKind,
    metric_control::MetricControl,
    settings::MAX_WORKERS,
    status::{LifecycleEvent, PendingChange, TopologyStatus, Transition},
    task_set::MAX_TASKS,
    topology::TaskTable,
};

/// Most attempts when others write the record at the same time; only a person with zkCli does.
const TRIES: usize = 8;

/// Request of an operator for a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Let spouts run.
    Activate,
    /// Stop spouts.
    Deactivate,
    /// Place tasks again after a wait.
    Rebalance(RebalanceRequest),
    /// Remove it after a wait.
    Kill(KillRequest),
    /// Replace the metric settings that were changed before. An empty control restores the
    /// topology's own settings.
    Metrics(MetricControl),
    /// Set or end the log level of components.
    LogLevel(LogLevelRequest),
    /// Begin or end a sample of the tuples of a component.
    Sample(SampleRequest),
    /// Run another package, one worker after the other.
    Update(Box<NewPackage>),
    /// Set and remove credentials, which are not in the topology record.
    Credentials(CredentialsRequest),
}

impl Change {
    /// Name of the change in the API and the CLI.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Deactivate => "deactivate",
            Self::Rebalance(_) => "rebalance",
            Self::Kill(_) => "kill",
            Self::Metrics(_) => "metrics",
            Self::LogLevel(_) => "log-level",
            Self::Sample(_) => "sample",
            Self::Update(_) => "update",
            Self::Credentials(_) => "credentials",
        }
    }
}

/// Finds a topology by its id, else by its name.
///
/// # Errors
/// [`Refusal::UnknownTopology`], and [`Refusal::Unreadable`] if its record cannot be read.
pub fn find(view: &ClusterView, text: &str) -> Result<TopologyId, Refusal> {
    let unknown = || Refusal::UnknownTopology { topology: text.to_owned() };
    let id = text.parse::<TopologyId>().ok();
    if let Some(id) = id.filter(|id| view.topologies.contains_key(id)) {
        return Ok(id);
    }
    let named =
        view.topologies.iter().find(|(_, topology_record)| topology_record.value.name.as_str() == text);
    if let Some((id, _)) = named {
        return Ok(id.clone());
    }
    if let Some(id) = without_record(view, text) {
        return Err(Refusal::RecordMissing { path: layout::storm(id), id: id.clone() });
    }
    // A record that cannot be read does not say its name; the id of the topology has it too.
    let unreadable = view.unreadable.iter().find(|(path, _)| {
        let name = path.name();
        path.parent() == Some(layout::storms()) && (name == text || TopologyId::name_in(name) == text)
    });
    match unreadable {
        Some((path, defect)) => {
            let (path, reason, remedy) = (path.clone(), defect.reason.clone(), defect.remedy(path));
            Err(Refusal::Unreadable { path, reason, remedy })
        }
        None => Err(unknown()),
    }
}

/// Finds a topology whose topology record is missing and not merely unreadable, by its id or name.
fn without_record<'a>(view: &'a ClusterView, text: &str) -> Option<&'a TopologyId> {
    // An id is the name, a number and a time.
    let has_name = |id: &TopologyId| {
        let mut parts = id.as_str().rsplitn(3, '-');
        parts.nth(2).is_some_and(|name| name == text)
    };
    view.tasks.keys().chain(view.assignments.keys()).find(|id| {
        (id.as_str() == text || has_name(id))
            && !view.topologies.contains_key(*id)
            && !view.unreadable.contains_key(&layout::storm(id))
    })
}

/// Writes a change into the record of a topology and returns the new record.
pub(super) async fn execute(
    id: &TopologyId,
    (change, by): (&Change, &Option<String>),
    now: Timestamp,
    store: &Store,
    writer: &FencedWriter,
) -> Result<TopologyRecord, Refusal> {
    let path = layout::storm(id);
    let gone = || Refusal::UnknownTopology { topology: id.to_string() };
    let mut in_doubt: Option<TopologyRecord> = None;
    for _ in 0..TRIES {
        let topology_record = match &in_doubt {
            None => store.topology_record(id).await?,
            Some(_) => read_back(id, store).await?,
        };
        let topology_record = topology_record.ok_or_else(gone)?;
        if in_doubt.as_ref() == Some(&topology_record.value) {
            return Ok(topology_record.value);
        }
        let next = match change {
            Change::Rebalance(request) => {
                let tasks = tasks_of(id, store).await?;
                check_rebalance(id, request, &tasks, topology_record.value.workers)?;
                changed(&topology_record.value, change, now)?
            }
            Change::Metrics(control) => {
                check_control(control)?;
                changed(&topology_record.value, change, now)?
            }
            Change::Update(package) => {
                let assignment = store.assignment(id).await?.map(|stored| stored.value).unwrap_or_default();
                update::begun(id, &topology_record.value, package, &assignment)?
            }
            Change::LogLevel(request) => {
                log_levels::check(id, request, &tasks_of(id, store).await?)?;
                changed(&topology_record.value, change, now)?
            }
            Change::Sample(request) => {
                samples::check(id, (request, &topology_record.value, now), &tasks_of(id, store).await?)?;
                changed(&topology_record.value, change, now)?
            }
            Change::Activate | Change::Deactivate | Change::Kill(_) | Change::Credentials(_) => {
                changed(&topology_record.value, change, now)?
            }
        };
        if next == topology_record.value {
            return Ok(next);
        }
        let data = record::encode(&next);
        let set = tree::Op::Set { path: path.clone(), data, version: Some(topology_record.version) };
        match writer.commit_with_event(vec![set], event_draft(id, change, by.clone(), &next)).await {
            Ok(_) => return Ok(next),
            Err(WriteError::Op {
                source: tree::Error::BadVersion { .. } | tree::Error::NoNode { .. },
                ..
            }) => {}
            // If the write took effect, the next attempt reads it or conflicts with it.
            Err(WriteError::Unknown(_)) => in_doubt = Some(next),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::Conflict { path })
}

async fn tasks_of(id: &TopologyId, store: &Store) -> Result<TaskTable, store::Error> {
    Ok(store.tasks(id).await?.map(|tasks| tasks.value).unwrap_or_default())
}

fn event_draft(id: &TopologyId, change: &Change, by: Option<String>, next: &TopologyRecord) -> EventDraft {
    let event = match change {
        Change::Activate => EventKind::Activated,
        Change::Deactivate => EventKind::Deactivated,
        Change::Rebalance(_) => EventKind::Rebalancing,
        Change::Kill(_) => EventKind::Killed,
        Change::Credentials(_) => EventKind::CredentialsChanged,
        Change::Update(package) => {
            let reason = format!("an operator asked for it; the new package is {}", package.blob);
            return EventDraft { by, ..EventDraft::of(id, EventKind::Updating, reason) };
        }
        Change::LogLevel(request) => {
            let reason = format!("an operator asked for it; {}", log_levels::describe(request));
            return EventDraft { by, ..EventDraft::of(id, EventKind::LogLevelsChanged, reason) };
        }
        Change::Sample(request) => {
            let reason = format!("an operator asked for it; {}", samples::describe(request));
            return EventDraft { by, ..EventDraft::of(id, EventKind::SamplesChanged, reason) };
        }
        Change::Metrics(control) => {
            let reason = format!("an operator asked for it; {}", describe_control(control));
            return EventDraft { by, ..EventDraft::of(id, EventKind::MetricsChanged, reason) };
        }
    };
    let reason = match next.pending.as_ref().map(PendingChange::deadline) {
        Some(deadline) => format!("an operator asked for it; it is due at {deadline}"),
        None => "an operator asked for it".to_owned(),
    };
    EventDraft { by, ..EventDraft::of(id, event, reason) }
}

/// Pause between two reads after a write whose response was lost.
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);

/// Most of these reads: together longer than a ZooKeeper server takes to restart, and as long as
/// a person waits for a response.
const READ_BACK_TRIES: usize = 100;

/// Reads the record of a topology, and retries until a read succeeds.
///
/// # Errors
/// [`Refusal::OutcomeUnknown`] if none succeeds in time.
pub(super) async fn read_back(
    id: &TopologyId,
    store: &Store,
) -> Result<Option<Stored<TopologyRecord>>, Refusal> {
    for _ in 0..READ_BACK_TRIES {
        match store.topology_record(id).await {
            Ok(found) => return Ok(found),
            Err(store::Error::Tree(error)) if error.is_retryable() => {
                tokio::time::sleep(READ_BACK_PAUSE).await;
            }
            Err(_) => return Err(Refusal::OutcomeUnknown),
        }
    }
    Err(Refusal::OutcomeUnknown)
}

/// Returns the record of a topology after `change`.
///
/// # Errors
/// [`Refusal::Illegal`] if its status does not allow the change, and [`Refusal::BadOption`] for a wait
/// beyond the limit.
pub(super) fn changed(
    topology_record: &TopologyRecord,
    change: &Change,
    now: Timestamp,
) -> Result<TopologyRecord, Refusal> {
    let (event, wait_secs) = match change {
        Change::Activate => (LifecycleEvent::Activate, None),
        Change::Deactivate => (LifecycleEvent::Deactivate, None),
        Change::Rebalance(request) => (LifecycleEvent::Rebalance, request.wait_secs),
        Change::Kill(request) => (LifecycleEvent::Kill, request.wait_secs),
        // Metric settings can be changed in every status.
        Change::Metrics(control) => return Ok(with_metric_control(topology_record, control)),
        Change::LogLevel(request) => return Ok(log_levels::with_level(topology_record, request, now)),
        Change::Sample(request) => return Ok(samples::with_sample(topology_record, request, now)),
        // Depends on other records: see `update::begun`.
        Change::Update(_) => return Ok(topology_record.clone()),
        // In a record of their own.
        Change::Credentials(_) => return Ok(topology_record.clone()),
    };
    check_wait(wait_secs)?;
    if matches!(change, Change::Rebalance(_)) && topology_record.update.is_some() {
        let text = "an update is under way; rebalance the topology when it is done".to_owned();
        return Err(Refusal::BadOption(text));
    }
    let status = match topology_record.status.on(event)? {
        Transition::Becomes(status) => status,
        // Only deadlines lead there, and no request of an operator is a deadline.
        Transition::Resumes | Transition::IsRemoved => topology_record.status,
    };
    let wait = Duration::from_secs(wait_secs.unwrap_or(topology_record.message_timeout_secs));
    let deadline = now.plus(wait);
    let pending = match change {
        Change::Activate
        | Change::Deactivate
        | Change::Metrics(_)
        | Change::LogLevel(_)
        | Change::Sample(_)
        | Change::Update(_)
        | Change::Credentials(_) => None,
        Change::Kill(_) => Some(PendingChange::Kill { deadline }),
        Change::Rebalance(request) => Some(PendingChange::Rebalance {
            deadline,
            resume: topology_record.status,
            workers: request.workers,
            parallelism: request.parallelism.clone(),
            only_drained: false,
            restart: request.restart,
            grow_back: false,
        }),
    };
    let mut next = topology_record.clone();
    next.status = status;
    next.pending = pending;
    if status == TopologyStatus::Killed {
        next.update = None;
    }
    Ok(next)
}

/// Returns the record of a topology with the metric settings of `control`.
fn with_metric_control(topology_record: &TopologyRecord, control: &MetricControl) -> TopologyRecord {
    let metrics = (*control != MetricControl::default()).then(|| control.clone());
    TopologyRecord { metrics, ..topology_record.clone() }
}

/// Most names in each list of a [`MetricControl`]: all that are built in, and as many again.
/// Each worker of the topology reads the record.
const CONTROLLED_NAMES_MAX: usize = 200;

/// Checks that workers can apply the metric settings.
fn check_control(control: &MetricControl) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::BadOption(text));
    let MetricControl { enabled, disabled, sample_rate, debug } = control;
    for names in [enabled, disabled, debug] {
        if names.len() > CONTROLLED_NAMES_MAX {
            return bad(format!("at most {CONTROLLED_NAMES_MAX} metric names are allowed in one list"));
        }
        let is_name = |name: &str| {
            let is_odd = |c: char| c == '@' || c.is_control() || c.is_whitespace();
            !name.is_empty() && name.len() <= MAX_PART_BYTES && !name.contains(is_odd)
        };
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            return bad(format!("{name:?} is not the last part of a metric's name, such as Emitted"));
        }
    }
    match sample_rate {
        Some(rate) if !(0.0..=1.0).contains(rate) => {
            bad(format!("sample rate {rate} is not between 0 and 1"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Describes changed metric settings for people.
fn describe_control(control: &MetricControl) -> String {
    let MetricControl { enabled, disabled, sample_rate, debug } = control;
    let lists = [("enabled", enabled), ("disabled", disabled), ("written to worker logs", debug)];
    let mut parts: Vec<String> = (lists.into_iter())
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}", names.join(", ")))
        .collect();
    parts.extend(sample_rate.map(|rate| format!("sample rate: {rate}")));
    if parts.is_empty() { "metrics as in the topology's settings".to_owned() } else { parts.join("; ") }
}

/// Checks that the topology can run with the requested workers and parallelism.
fn check_rebalance(
    id: &TopologyId,
    request: &RebalanceRequest,
    tasks: &TaskTable,
    workers: u32,
) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::BadOption(text));
    if request.workers == Some(0) {
        return bad("a topology needs at least one worker".to_owned());
    }
    if let Some(workers) = request.workers.filter(|workers| u64::from(*workers) > MAX_WORKERS) {
        return bad(format!("{workers} workers are more than the {MAX_WORKERS} that a topology may have"));
    }
    for (component, n) in &request.parallelism {
        if !tasks.0.contains_key(component) {
            let known = tasks.0.keys().cloned().collect();
            return Err(Refusal::UnknownComponent {
                topology: id.clone(),
                component: component.clone(),
                known,
            });
        }
        if *n == 0 {
            return bad(format!("{component} needs at least one task"));
        }
    }
    let n_tasks = tasks.n_resized(&request.parallelism);
    if n_tasks > u64::from(MAX_TASKS) {
        return bad(format!("{n_tasks} tasks are more than the {MAX_TASKS} that a topology may have"));
    }
    check_placeable(id, &tasks.resized(&request.parallelism), request.workers.unwrap_or(workers))
}

#[cfg(test)]
mod tests;

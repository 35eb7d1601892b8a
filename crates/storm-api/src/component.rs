//! The page of a component.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    EXECUTORS_MAX,
    numbers::{Values, Wanted},
    text,
    topologies::status,
    topology::{TopologyPage, component_subject},
    window::Window,
};
use stormkeeper_metrics::{
    Subject,
    builtin::{
        ACKED, Builtin, CAPACITY, EMITTED, EXECUTED, EXECUTOR_TIME, FAILED, PROCESS_LATENCY, TRANSFERRED,
    },
};
use stormkeeper_model::{
    ComponentId, Port, Slot, StreamId, TaskId, Timestamp, TopologyId, TopologyName,
    assignment::AssignedWorker, error::TaskError, task_set::TaskSet,
};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormComponent")]
pub(crate) struct Body {
    user: Option<String>,
    id: ComponentId,
    encoded_id: String,
    /// Name of the topology.
    name: TopologyName,
    component_type: &'static str,
    executors: usize,
    tasks: usize,
    topology_id: TopologyId,
    encoded_topology_id: String,
    topology_status: &'static str,
    window: String,
    window_hint: String,
    debug: bool,
    sampling_pct: u8,
    event_log_link: String,
    profiling_and_debugging_capable: bool,
    profile_action_enabled: bool,
    profiler_active: [(); 0],
    scheduler_display_resource: bool,
    requested_mem_on_heap: f64,
    requested_mem_off_heap: f64,
    requested_cpu: f64,
    component_errors: Vec<ComponentError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spout_summary: Option<Vec<Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bolt_stats: Option<Vec<Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_stats: Option<Vec<InputStats>>,
    output_stats: Vec<OutputStats>,
    executor_stats: Vec<ExecutorStats>,
}

/// Sums of a component in one window.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormComponentStats")]
struct Row {
    window_pretty: String,
    window: String,
    #[serde(flatten)]
    numbers: Numbers,
}

/// Numbers of a component or an executor: those of a spout, or those of a bolt.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormNumbers")]
struct Numbers {
    emitted: Option<u64>,
    transferred: Option<u64>,
    acked: Option<u64>,
    failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_latency: Option<String>,
    #[serde(flatten)]
    of_bolt: Option<BoltNumbers>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormBoltNumbers")]
pub(crate) struct BoltNumbers {
    capacity: String,
    execute_latency: String,
    executed: Option<u64>,
    process_latency: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormInputStats")]
struct InputStats {
    component: ComponentId,
    encoded_component_id: String,
    stream: StreamId,
    execute_latency: String,
    process_latency: String,
    executed: Option<u64>,
    acked: Option<u64>,
    failed: Option<u64>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormOutputStats")]
struct OutputStats {
    stream: StreamId,
    emitted: Option<u64>,
    transferred: Option<u64>,
    #[serde(flatten)]
    of_spout: Option<SpoutOutput>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormSpoutOutput")]
struct SpoutOutput {
    complete_latency: String,
    acked: Option<u64>,
    failed: Option<u64>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormExecutorStats")]
struct ExecutorStats {
    id: String,
    encoded_id: String,
    uptime: String,
    uptime_seconds: u64,
    host: String,
    port: Option<Port>,
    worker_log_link: String,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormComponentError")]
struct ComponentError {
    error_time: Timestamp,
    /// The same under its name in the code of Storm 2.
    time: Timestamp,
    error_host: String,
    error_port: Port,
    error: String,
    error_lapsed_secs: u64,
    error_worker_log_link: String,
}

const OF_ALL: [&Builtin; 4] = [&EMITTED, &TRANSFERRED, &ACKED, &FAILED];
const OF_BOLTS: [&Builtin; 3] = [&EXECUTED, &EXECUTOR_TIME, &PROCESS_LATENCY];

impl BoltNumbers {
    pub(crate) fn new(subject: &Subject, window: Window, values: &Values) -> Self {
        Self {
            capacity: text::decimal(values.capacity(subject, window)),
            execute_latency: values.latency(subject, &EXECUTOR_TIME, window),
            executed: values.count(subject, &EXECUTED, window),
            process_latency: values.latency(subject, &PROCESS_LATENCY, window),
        }
    }
}

fn task_subject(component: &ComponentId, task: TaskId) -> Subject {
    Subject::Task { component: component.clone(), task }
}

impl TopologyPage<'_> {
    /// Returns the tasks of a component; `None` if the topology has no such component.
    pub fn tasks_of(&self, component: &ComponentId) -> Option<&TaskSet> {
        self.cluster.view.tasks.get(self.id)?.value.components.0.get(component)
    }

    /// Returns the values that [`component`](Self::component) needs.
    pub fn wanted_of_component(&self, component: &ComponentId) -> Wanted {
        let mut wanted = Wanted::default();
        let windows = self.window.and_standard();
        self.want_numbers(&component_subject(component), component, &windows, &mut wanted);
        self.want_streams(component, &mut wanted);
        let tasks = self.tasks_of(component).into_iter().flat_map(|tasks| tasks.iter().take(EXECUTORS_MAX));
        for task in tasks {
            self.want_numbers(&task_subject(component, task), component, &[self.window], &mut wanted);
        }
        wanted
    }

    fn want_numbers(
        &self,
        subject: &Subject,
        component: &ComponentId,
        windows: &[Window],
        wanted: &mut Wanted,
    ) {
        wanted.add(subject, &OF_ALL, windows);
        if self.is_spout(component) {
            wanted.add(subject, &[&PROCESS_LATENCY], windows);
        }
        if !self.is_spout(component) {
            wanted.add(subject, &OF_BOLTS, windows);
            let mut of_capacity: Vec<Window> = windows.iter().map(|window| window.of_capacity()).collect();
            of_capacity.sort_unstable();
            of_capacity.dedup();
            wanted.add(subject, &[&CAPACITY], &of_capacity);
        }
    }

    /// Returns the body of `topology/{id}/component/{component}`. `errors` are the errors of its tasks.
    pub fn component(
        &self,
        component: &ComponentId,
        errors: Vec<TaskError>,
        values: &Values,
    ) -> impl Serialize + use<> {
        let is_spout = self.is_spout(component);
        let n_tasks = self.tasks_of(component).map_or(0, TaskSet::len);
        let request =
            self.cluster.view.tasks.get(self.id).and_then(|tasks| tasks.value.requests.get(component));
        let request = request.copied().unwrap_or_default();
        let rows = self.rows(component, values);
        let (spout_summary, bolt_stats) = if is_spout { (Some(rows), None) } else { (None, Some(rows)) };
        Body {
            user: None,
            id: component.clone(),
            encoded_id: text::encoded(component.as_str()),
            name: self.record.name.clone(),
            component_type: if is_spout { "spout" } else { "bolt" },
            executors: n_tasks,
            tasks: n_tasks,
            topology_id: self.id.clone(),
            encoded_topology_id: text::encoded(self.id.as_str()),
            topology_status: status(self.record.status),
            window: self.window.label(),
            window_hint: values.hint(self.window),
            debug: false,
            sampling_pct: 10,
            event_log_link: String::new(),
            profiling_and_debugging_capable: false,
            profile_action_enabled: false,
            profiler_active: [],
            scheduler_display_resource: true,
            requested_mem_on_heap: request.memory_mb as f64 * n_tasks as f64,
            requested_mem_off_heap: 0.0,
            requested_cpu: request.cpu_percent as f64 * n_tasks as f64,
            component_errors: self.component_errors(errors),
            spout_summary,
            bolt_stats,
            input_stats: (!is_spout).then(|| self.input_stats(component, values)),
            output_stats: self.output_stats(component, values),
            executor_stats: self.executor_stats(component, values),
        }
    }

    fn rows(&self, component: &ComponentId, values: &Values) -> Vec<Row> {
        let subject = component_subject(component);
        let row = |window: Window| Row {
            window_pretty: window.pretty(),
            window: window.label(),
            numbers: self.numbers(&subject, component, window, values),
        };
        self.window.and_standard().into_iter().map(row).collect()
    }

    fn numbers(
        &self,
        subject: &Subject,
        component: &ComponentId,
        window: Window,
        values: &Values,
    ) -> Numbers {
        let count = |metric| values.count(subject, metric, window);
        let is_spout = self.is_spout(component);
        Numbers {
            emitted: count(&EMITTED),
            transferred: count(&TRANSFERRED),
            acked: count(&ACKED),
            failed: count(&FAILED),
            complete_latency: is_spout.then(|| values.latency(subject, &PROCESS_LATENCY, window)),
            of_bolt: (!is_spout).then(|| BoltNumbers::new(subject, window, values)),
        }
    }

    fn input_stats(&self, component: &ComponentId, values: &Values) -> Vec<InputStats> {
        let inputs = self.inputs(component, values).into_iter();
        inputs
            .map(|input| InputStats {
                encoded_component_id: text::encoded(input.from.as_str()),
                component: input.from,
                stream: input.stream,
                execute_latency: input.execute_latency,
                process_latency: input.process_latency,
                executed: input.executed,
                acked: input.acked,
                failed: input.failed,
            })
            .collect()
    }

    fn output_stats(&self, component: &ComponentId, values: &Values) -> Vec<OutputStats> {
        let is_spout = self.is_spout(component);
        let outputs = self.outputs(component, values).into_iter();
        outputs
            .map(|output| OutputStats {
                stream: output.stream,
                emitted: output.emitted,
                transferred: output.transferred,
                of_spout: is_spout.then_some(SpoutOutput {
                    complete_latency: output.complete_latency,
                    acked: output.acked,
                    failed: output.failed,
                }),
            })
            .collect()
    }

    /// Returns one row for each task: each task is its own executor.
    fn executor_stats(&self, component: &ComponentId, values: &Values) -> Vec<ExecutorStats> {
        let (unread, places) = (Values::unknown(String::new()), self.places());
        let tasks = self.tasks_of(component).into_iter().flat_map(TaskSet::iter);
        let executor = |(place, task): (usize, TaskId)| {
            let id = format!("[{task}-{task}]");
            let worker = places.get(&task).copied();
            let uptime_seconds = worker.map_or(0, |of| self.uptime(of));
            let values = if place < EXECUTORS_MAX { values } else { &unread };
            ExecutorStats {
                encoded_id: text::encoded(&id),
                id,
                uptime: text::uptime(uptime_seconds),
                uptime_seconds,
                host: worker.map_or_else(String::new, |(_, worker)| worker.host.clone()),
                port: worker.map(|(slot, _)| slot.port),
                worker_log_link: String::new(),
                numbers: self.numbers(&task_subject(component, task), component, self.window, values),
            }
        };
        tasks.enumerate().map(executor).collect()
    }

    /// Returns the slot and the worker of each task that has one.
    pub(crate) fn places(&self) -> BTreeMap<TaskId, (&Slot, &AssignedWorker)> {
        let assignment = self.cluster.view.assignments.get(self.id).map(|assignment| &assignment.value);
        let workers = assignment.into_iter().flat_map(|assignment| &assignment.workers);
        workers.flat_map(|place| place.1.tasks.iter().map(move |task| (task, place))).collect()
    }

    pub(crate) fn uptime(&self, (slot, worker): (&Slot, &AssignedWorker)) -> u64 {
        let assigned_for = || self.cluster.now.since(worker.start).as_secs();
        self.uptimes.get(slot).copied().unwrap_or_else(assigned_for)
    }

    /// Returns the errors, the latest first.
    fn component_errors(&self, mut errors: Vec<TaskError>) -> Vec<ComponentError> {
        errors.sort_by_key(|error| std::cmp::Reverse(error.time));
        let shown = |error: TaskError| ComponentError {
            error_time: error.time,
            time: error.time,
            error_host: error.host,
            error_port: error.port,
            error: match error.stack.is_empty() {
                true => error.message,
                false => format!("{}\n{}", error.message, error.stack),
            },
            error_lapsed_secs: self.cluster.now.since(error.time).as_secs(),
            error_worker_log_link: String::new(),
        };
        errors.into_iter().map(shown).collect()
    }
}

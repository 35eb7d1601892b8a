//! The page of a topology.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    cluster::Cluster,
    component::BoltNumbers,
    numbers::{Values, Wanted},
    supervisors::WorkerSummary,
    text,
    topologies::TopologySummary,
    totals::Amount,
    window::Window,
};
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_metrics::{
    Subject,
    builtin::{
        ACKED, Builtin, CAPACITY, EMITTED, EXECUTED, EXECUTOR_TIME, FAILED, PROCESS_LATENCY, TRANSFERRED,
    },
};
use stormkeeper_model::{
    ComponentId, Port, Slot, Timestamp, TopologyId,
    error::TaskError,
    task_set::TaskSet,
    topology::{ComponentKind, Settings, Topology},
};

/// Sources of the pages of one topology.
#[derive(Debug, Clone, Copy)]
pub struct TopologyPage<'a> {
    /// The cluster.
    pub cluster: Cluster<'a>,
    /// Id of the topology.
    pub id: &'a TopologyId,
    /// Record of the topology.
    pub record: &'a TopologyRecord,
    /// The topology as submitted; absent while the answering nimbus is missing its package. All
    /// components count as bolts then.
    pub topology: Option<&'a Topology>,
    /// The asked window.
    pub window: Window,
    /// True if components and streams of the system are asked for.
    pub sys: bool,
    /// Uptimes of workers in seconds, as far as they were read.
    pub uptimes: &'a BTreeMap<Slot, u64>,
    /// Last error of each component that had one.
    pub errors: &'a BTreeMap<ComponentId, TaskError>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopology")]
pub(crate) struct Body {
    #[serde(flatten)]
    summary: TopologySummary,
    user: Option<String>,
    window: String,
    window_hint: String,
    msg_timeout: u64,
    debug: bool,
    sampling_pct: u8,
    topology_stats: Vec<TopologyStats>,
    workers: Vec<WorkerSummary>,
    spouts: Vec<SpoutSummary>,
    bolts: Vec<BoltSummary>,
    configuration: Settings,
    visualization_table: Vec<Value>,
    scheduler_display_resource: bool,
    #[serde(rename = "bugtracker-url")]
    bugtracker_url: Option<String>,
    #[serde(rename = "central-log-url")]
    central_log_url: Option<String>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopologyStats")]
struct TopologyStats {
    window_pretty: String,
    window: String,
    emitted: Option<u64>,
    transferred: Option<u64>,
    complete_latency: String,
    acked: Option<u64>,
    failed: Option<u64>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormSpoutSummary")]
struct SpoutSummary {
    spout_id: ComponentId,
    encoded_spout_id: String,
    #[serde(flatten)]
    common: ComponentSummary,
    complete_latency: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormBoltSummary")]
struct BoltSummary {
    bolt_id: ComponentId,
    encoded_bolt_id: String,
    #[serde(flatten)]
    common: ComponentSummary,
    #[serde(flatten)]
    numbers: BoltNumbers,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormComponentSummary")]
struct ComponentSummary {
    executors: usize,
    tasks: usize,
    emitted: Option<u64>,
    transferred: Option<u64>,
    acked: Option<u64>,
    failed: Option<u64>,
    requested_mem_on_heap: f64,
    requested_mem_off_heap: f64,
    requested_cpu: f64,
    #[serde(flatten)]
    last_error: LastError,
}

/// Last error of a component; empty texts and `null` if there is none.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormLastError")]
pub(crate) struct LastError {
    last_error: String,
    error_host: String,
    error_port: Option<Port>,
    error_time: Option<Timestamp>,
    error_lapsed_secs: Option<u64>,
    error_worker_log_link: String,
}

/// Returns the subject of the metrics of a component.
pub(crate) fn component_subject(component: &ComponentId) -> Subject {
    Subject::Component { component: component.clone() }
}

impl TopologyPage<'_> {
    /// Returns the components that are asked for, with their tasks.
    pub(crate) fn components(&self) -> impl Iterator<Item = (&ComponentId, &TaskSet)> {
        let table = self.cluster.view.tasks.get(self.id).map(|tasks| &tasks.value.components.0);
        table.into_iter().flatten().filter(|(component, _)| self.sys || !component.is_system())
    }

    pub(crate) fn is_spout(&self, component: &ComponentId) -> bool {
        let found = self.topology.and_then(|topology| topology.components.get(component));
        found.is_some_and(|component| component.kind == ComponentKind::Spout)
    }

    /// Returns the values that [`page`](Self::page) needs.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        let (all, own, capacity) = (self.window.and_standard(), [self.window], [self.window.of_capacity()]);
        for (component, _) in self.components() {
            let subject = component_subject(component);
            wanted.add(&subject, &[&EMITTED, &TRANSFERRED], &all);
            match self.is_spout(component) {
                true => wanted.add(&subject, &[&ACKED, &FAILED, &PROCESS_LATENCY], &all),
                false => {
                    let of_bolt = [&ACKED, &FAILED, &EXECUTED, &PROCESS_LATENCY, &EXECUTOR_TIME];
                    wanted.add(&subject, &of_bolt, &own);
                    wanted.add(&subject, &[&CAPACITY], &capacity);
                }
            }
        }
        wanted
    }

    /// Returns the body of `topology/{id}`.
    pub fn page(&self, values: &Values) -> impl Serialize + use<> {
        let (spouts, bolts): (Vec<_>, Vec<_>) =
            self.components().partition(|(component, _)| self.is_spout(component));
        Body {
            summary: self.cluster.topology_summary(self.id, self.record),
            user: None,
            window: self.window.label(),
            window_hint: values.hint(self.window),
            msg_timeout: self.record.message_timeout_secs,
            debug: false,
            sampling_pct: 10,
            topology_stats: self.stats(values),
            workers: self.cluster.workers(self.id, |_| true, self.uptimes),
            spouts: spouts.into_iter().map(|of| self.spout(of, values)).collect(),
            bolts: bolts.into_iter().map(|of| self.bolt(of, values)).collect(),
            configuration: self.configuration(),
            visualization_table: Vec::new(),
            scheduler_display_resource: true,
            bugtracker_url: None,
            central_log_url: None,
        }
    }

    /// Sums over all components; acks and fails are those of the spouts.
    fn stats(&self, values: &Values) -> Vec<TopologyStats> {
        let windows = self.window.and_standard().into_iter();
        windows
            .map(|window| {
                let sum = |metric: &Builtin, of_spouts: bool| -> Option<u64> {
                    let counted = self.components().filter(|(id, _)| !of_spouts || self.is_spout(id));
                    counted.map(|(id, _)| values.count(&component_subject(id), metric, window)).sum()
                };
                TopologyStats {
                    window_pretty: window.pretty(),
                    window: window.label(),
                    emitted: sum(&EMITTED, false),
                    transferred: sum(&TRANSFERRED, false),
                    complete_latency: text::decimal(self.complete_ms(values, window)),
                    acked: sum(&ACKED, true),
                    failed: sum(&FAILED, true),
                }
            })
            .collect()
    }

    /// Returns the mean latency of the trees of all spouts.
    fn complete_ms(&self, values: &Values, window: Window) -> f64 {
        let spouts = self.components().map(|(id, _)| id).filter(|id| self.is_spout(id));
        let (n, sum) = spouts.map(component_subject).fold((0, 0.0), |(n, sum), subject| {
            let n_trees = values.count(&subject, &PROCESS_LATENCY, window).unwrap_or_default();
            (n + n_trees, sum + n_trees as f64 * values.mean_ms(&subject, &PROCESS_LATENCY, window))
        });
        if n > 0 { sum / n as f64 } else { 0.0 }
    }

    fn spout(&self, (component, tasks): (&ComponentId, &TaskSet), values: &Values) -> SpoutSummary {
        SpoutSummary {
            spout_id: component.clone(),
            encoded_spout_id: text::encoded(component.as_str()),
            common: self.component_summary(component, tasks, values),
            complete_latency: values.latency(&component_subject(component), &PROCESS_LATENCY, self.window),
        }
    }

    fn bolt(&self, (component, tasks): (&ComponentId, &TaskSet), values: &Values) -> BoltSummary {
        BoltSummary {
            bolt_id: component.clone(),
            encoded_bolt_id: text::encoded(component.as_str()),
            common: self.component_summary(component, tasks, values),
            numbers: BoltNumbers::new(&component_subject(component), self.window, values),
        }
    }

    fn component_summary(
        &self,
        component: &ComponentId,
        tasks: &TaskSet,
        values: &Values,
    ) -> ComponentSummary {
        let (subject, window) = (component_subject(component), self.window);
        let requests = self.cluster.view.tasks.get(self.id).map(|tasks| &tasks.value.requests);
        let request = requests.and_then(|requests| requests.get(component)).copied().unwrap_or_default();
        let (Amount { memory, cpu }, n_tasks) = (request.into(), tasks.len() as f64);
        ComponentSummary {
            executors: tasks.len(),
            tasks: tasks.len(),
            emitted: values.count(&subject, &EMITTED, window),
            transferred: values.count(&subject, &TRANSFERRED, window),
            acked: values.count(&subject, &ACKED, window),
            failed: values.count(&subject, &FAILED, window),
            requested_mem_on_heap: memory * n_tasks,
            requested_mem_off_heap: 0.0,
            requested_cpu: cpu * n_tasks,
            last_error: self.last_error(component),
        }
    }

    fn last_error(&self, component: &ComponentId) -> LastError {
        let error = self.errors.get(component);
        LastError {
            last_error: error.map_or_else(String::new, |error| text::shortened(&error.message)),
            error_host: error.map_or_else(String::new, |error| error.host.clone()),
            error_port: error.map(|error| error.port),
            error_time: error.map(|error| error.time),
            error_lapsed_secs: error.map(|error| self.cluster.now.since(error.time).as_secs()),
            error_worker_log_link: String::new(),
        }
    }

    /// Settings of the topology, with secrets masked.
    fn configuration(&self) -> Settings {
        let settings = self.topology.map(|topology| &topology.settings).into_iter().flatten();
        settings.map(|(key, value)| (key.clone(), shown(key, value))).collect()
    }
}

/// Parts of the name of a setting whose value is not shown.
const SECRET: [&str; 5] = ["password", "secret", "token", "credential", "private"];

fn shown(key: &str, value: &Value) -> Value {
    let key = key.to_ascii_lowercase();
    match SECRET.iter().any(|part| key.contains(part)) {
        true => Value::from("*****"),
        false => value.clone(),
    }
}

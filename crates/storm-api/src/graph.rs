//! The graph of a topology, and pages about what a topology here never has.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    numbers::{Values, Wanted},
    text,
    topology::{TopologyPage, component_subject},
};
use stormkeeper_metrics::builtin::{CAPACITY, PROCESS_LATENCY};
use stormkeeper_model::{
    ComponentId, Port, StreamId, TaskId,
    topology::{Grouping, Input},
};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormGraphNode")]
pub(crate) struct Node {
    #[serde(rename = ":type")]
    kind: &'static str,
    #[serde(rename = ":capacity")]
    capacity: f64,
    #[serde(rename = ":latency")]
    latency: String,
    /// Tuples put into queues, by stream.
    #[serde(rename = ":transferred")]
    transferred: BTreeMap<String, Option<u64>>,
    #[serde(rename = ":stats")]
    stats: Vec<Place>,
    #[serde(rename = ":link")]
    link: String,
    #[serde(rename = ":inputs")]
    inputs: Vec<Edge>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormGraphPlace")]
struct Place {
    #[serde(rename = ":host")]
    host: String,
    #[serde(rename = ":port")]
    port: Port,
    #[serde(rename = ":uptime_secs")]
    uptime_secs: u64,
    /// Never known of one executor: the component has the sum.
    #[serde(rename = ":transferred")]
    transferred: Option<u64>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormGraphEdge")]
struct Edge {
    #[serde(rename = ":component")]
    component: ComponentId,
    #[serde(rename = ":stream")]
    stream: StreamId,
    #[serde(rename = ":sani-stream")]
    sani_stream: String,
    #[serde(rename = ":grouping")]
    grouping: &'static str,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormGraph")]
pub(crate) struct Init {
    visualization_table: Vec<Vec<StreamBox>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "StormStreamBox")]
struct StreamBox {
    stream: StreamId,
    #[serde(rename = "sani-stream")]
    sani_stream: String,
    checked: bool,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormLogConfig")]
pub(crate) struct LogConfig {
    named_logger_levels: Map<String, Value>,
}

/// Streams in one row of the table of streams.
const BOXES_IN_ROW: usize = 4;

/// Returns the name of a stream with `_` for characters that a page cannot use in an id.
fn sanitized(stream: &StreamId) -> String {
    let is_plain = |c: char| c.is_ascii_alphabetic() || "_-:.".contains(c);
    let plain: String = stream.as_str().chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    match plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => plain,
        false => format!("_s{plain}"),
    }
}

const fn grouping(grouping: &Grouping) -> &'static str {
    match grouping {
        Grouping::Shuffle => "shuffle",
        Grouping::LocalOrShuffle => "local_or_shuffle",
        // Storm has no global grouping of its own: it is one by no fields.
        Grouping::Fields(_) | Grouping::Global => "fields",
        Grouping::PartialKey(_) => "custom_serialized",
        Grouping::All => "all",
        Grouping::None => "none",
        Grouping::Direct => "direct",
    }
}

impl TopologyPage<'_> {
    fn inputs_in_order(&self, component: &ComponentId) -> impl Iterator<Item = &Input> {
        let found = self.topology.and_then(|topology| topology.components.get(component));
        found.into_iter().flat_map(|component| &component.inputs)
    }

    /// Returns the values that [`visualization`](Self::visualization) needs.
    pub fn wanted_of_graph(&self) -> Wanted {
        let mut wanted = self.wanted_by_stream();
        for (component, _) in self.components().filter(|(component, _)| !self.is_spout(component)) {
            let subject = component_subject(component);
            wanted.add(&subject, &[&PROCESS_LATENCY], &[self.window]);
            wanted.add(&subject, &[&CAPACITY], &[self.window.of_capacity()]);
        }
        wanted
    }

    /// Returns the body of `topology/{id}/visualization`.
    pub fn visualization(&self, values: &Values) -> impl Serialize + use<> {
        let places = self.places();
        let node = |component: &ComponentId, tasks: &mut dyn Iterator<Item = TaskId>| {
            let subject = component_subject(component);
            let outputs = self.outputs(component, values).into_iter();
            let place = |task| {
                let (slot, worker) = places.get(&task).copied()?;
                let uptime_secs = self.uptime((slot, worker));
                Some(Place { host: worker.host.clone(), port: slot.port, uptime_secs, transferred: None })
            };
            let edge = |input: &Input| Edge {
                component: input.from.clone(),
                stream: input.stream.clone(),
                sani_stream: sanitized(&input.stream),
                grouping: grouping(&input.grouping),
            };
            Node {
                kind: if self.is_spout(component) { "spout" } else { "bolt" },
                capacity: values.capacity(&subject, self.window),
                latency: values.latency(&subject, &PROCESS_LATENCY, self.window),
                transferred: outputs.map(|of| (sanitized(&of.stream), of.transferred)).collect(),
                stats: tasks.filter_map(place).collect(),
                link: format!(
                    "/component.html?id={}&topology_id={}",
                    text::encoded(component.as_str()),
                    text::encoded(self.id.as_str())
                ),
                inputs: self.inputs_in_order(component).map(edge).collect(),
            }
        };
        let nodes = self
            .components()
            .map(|(component, tasks)| (component.as_str().to_owned(), node(component, &mut tasks.iter())));
        nodes.collect::<BTreeMap<String, Node>>()
    }

    /// Returns the body of `topology/{id}/visualization-init`: the streams between components.
    pub fn visualization_init(&self) -> impl Serialize + use<> {
        let streams = self.components().flat_map(|(component, _)| self.inputs_in_order(component));
        let mut boxes: Vec<StreamBox> = streams
            .map(|input| StreamBox {
                stream: input.stream.clone(),
                sani_stream: sanitized(&input.stream),
                checked: !input.stream.as_str().starts_with("__"),
            })
            .collect();
        boxes.sort();
        boxes.dedup();
        Init { visualization_table: boxes.chunks(BOXES_IN_ROW).map(<[StreamBox]>::to_vec).collect() }
    }

    /// Returns the body of `topology/{id}/lag`: no spout of a topology here is one of Kafka's.
    pub fn lag(&self) -> impl Serialize + use<> {
        Map::<String, Value>::new()
    }

    /// Returns the body of `topology/{id}/logconfig`: levels of loggers cannot be changed.
    pub fn log_config(&self) -> impl Serialize + use<> {
        LogConfig { named_logger_levels: Map::new() }
    }
}

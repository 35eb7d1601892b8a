//! Numbers by stream, and the page `topology/{id}/metrics`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    numbers::{TaskStream, Values, Wanted},
    topology::{TopologyPage, component_subject},
};
use stormkeeper_metrics::{
    Subject,
    builtin::{ACKED, Builtin, EMITTED, EXECUTED, EXECUTOR_TIME, FAILED, PROCESS_LATENCY, TRANSFERRED},
};
use stormkeeper_model::{ComponentId, StreamId, TopologyId};

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormTopologyMetrics")]
pub(crate) struct Body {
    id: TopologyId,
    window: String,
    window_hint: String,
    /// The same under the name of Storm's sample.
    #[serde(rename = "window-hint")]
    window_hint_of_sample: String,
    spouts: Vec<SpoutStreams>,
    bolts: Vec<BoltStreams>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormSpoutStreams")]
struct SpoutStreams {
    id: ComponentId,
    emitted: Vec<OfStream<Option<u64>>>,
    transferred: Vec<OfStream<Option<u64>>>,
    acked: Vec<OfStream<Option<u64>>>,
    failed: Vec<OfStream<Option<u64>>>,
    complete_ms_avg: Vec<OfStream<String>>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormBoltStreams")]
struct BoltStreams {
    id: ComponentId,
    emitted: Vec<OfStream<Option<u64>>>,
    transferred: Vec<OfStream<Option<u64>>>,
    acked: Vec<OfInput<Option<u64>>>,
    failed: Vec<OfInput<Option<u64>>>,
    executed: Vec<OfInput<Option<u64>>>,
    process_ms_avg: Vec<OfInput<String>>,
    executed_ms_avg: Vec<OfInput<String>>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormOfStream_{T}")]
struct OfStream<T> {
    stream_id: StreamId,
    value: T,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormOfInput_{T}")]
struct OfInput<T> {
    component_id: ComponentId,
    stream_id: StreamId,
    value: T,
}

/// Numbers of one stream that a component emits.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) stream: StreamId,
    pub(crate) emitted: Option<u64>,
    pub(crate) transferred: Option<u64>,
    pub(crate) acked: Option<u64>,
    pub(crate) failed: Option<u64>,
    pub(crate) complete_latency: String,
}

/// Numbers of one stream that a bolt receives from one component.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) from: ComponentId,
    pub(crate) stream: StreamId,
    pub(crate) executed: Option<u64>,
    pub(crate) acked: Option<u64>,
    pub(crate) failed: Option<u64>,
    pub(crate) execute_latency: String,
    pub(crate) process_latency: String,
}

fn stream_subject(component: &ComponentId, stream: &StreamId) -> Subject {
    Subject::ComponentStream { component: component.clone(), stream: stream.clone() }
}

/// Splits a total in proportion to `parts`; the shares add up to the total. Equal shares if all parts
/// are 0.
fn split(total: u64, parts: &[u64]) -> Vec<u64> {
    let weight = |part: &u64| if parts.iter().all(|part| *part == 0) { 1 } else { u128::from(*part) };
    let sum: u128 = parts.iter().map(weight).sum();
    // Keeps the product below the limit of its type.
    let shift = (u128::BITS - sum.leading_zeros()).saturating_sub(63);
    let (mut given, mut passed) = (0, 0_u128);
    let mut shares = Vec::with_capacity(parts.len());
    for part in parts {
        passed += weight(part);
        let upto =
            u64::try_from(u128::from(total) * (passed >> shift) / (sum >> shift).max(1)).unwrap_or(total);
        shares.push(upto - given);
        given = upto;
    }
    shares
}

impl TopologyPage<'_> {
    /// Returns the streams that a component emits.
    fn outputs_of(&self, component: &ComponentId) -> impl Iterator<Item = &StreamId> {
        let found = self.topology.and_then(|topology| topology.components.get(component));
        let outputs = found.into_iter().flat_map(|component| component.outputs.keys());
        outputs.filter(|stream| self.sys || !stream.as_str().starts_with("__"))
    }

    /// Returns the streams that a bolt receives, each with the components that emit it.
    fn inputs_of(&self, component: &ComponentId) -> BTreeMap<&StreamId, Vec<&ComponentId>> {
        let found = self.topology.and_then(|topology| topology.components.get(component));
        let mut inputs: BTreeMap<&StreamId, Vec<&ComponentId>> = BTreeMap::new();
        for input in found.into_iter().flat_map(|component| &component.inputs) {
            let sources = inputs.entry(&input.stream).or_default();
            if !sources.contains(&&input.from) {
                sources.push(&input.from);
            }
        }
        inputs
    }

    /// Adds what [`outputs`](Self::outputs) and [`inputs`](Self::inputs) need.
    pub(crate) fn want_streams(&self, component: &ComponentId, wanted: &mut Wanted) {
        let window = [self.window];
        for stream in self.outputs_of(component) {
            let subject = stream_subject(component, stream);
            wanted.add(&subject, &[&EMITTED, &TRANSFERRED], &window);
            if self.is_spout(component) {
                wanted.add(&subject, &[&ACKED, &FAILED, &PROCESS_LATENCY], &window);
            }
        }
        let of_component: &[&Builtin] = match self.is_spout(component) {
            true => &[&FAILED],
            false => &[&EXECUTOR_TIME],
        };
        wanted.add(&component_subject(component), of_component, &window);
        for (stream, sources) in self.inputs_of(component) {
            let subject = stream_subject(component, stream);
            wanted.add(&subject, &[&EXECUTED, &ACKED, &FAILED, &PROCESS_LATENCY], &window);
            for (from, at) in self.received_by(component, stream, &sources) {
                wanted.add_received(from, &at, self.window);
            }
        }
    }

    /// Returns where tuples of a stream with several sources are counted by their source.
    fn received_by<'a>(
        &'a self,
        component: &'a ComponentId,
        stream: &'a StreamId,
        sources: &'a [&'a ComponentId],
    ) -> impl Iterator<Item = (&'a ComponentId, TaskStream<'a>)> {
        let table = self.cluster.view.tasks.get(self.id).map(|tasks| &tasks.value.components.0);
        let tasks = table.and_then(|table| table.get(component)).filter(|_| sources.len() > 1);
        let tasks = tasks.into_iter().flat_map(|tasks| tasks.iter().take(crate::EXECUTORS_MAX));
        tasks.flat_map(move |task| {
            sources.iter().map(move |from| (*from, TaskStream { component, task, stream }))
        })
    }

    /// Returns the numbers of the streams that a component emits.
    pub(crate) fn outputs(&self, component: &ComponentId, values: &Values) -> Vec<Output> {
        let streams: Vec<&StreamId> = self.outputs_of(component).collect();
        let is_only = streams.len() == 1;
        let output = |stream: &StreamId| {
            let subject = stream_subject(component, stream);
            let count = |metric| values.count(&subject, metric, self.window);
            Output {
                stream: stream.clone(),
                emitted: count(&EMITTED),
                transferred: count(&TRANSFERRED),
                acked: count(&ACKED),
                // Refused emits of a spout are counted for the task, not by stream.
                failed: match is_only {
                    true => values.count(&component_subject(component), &FAILED, self.window),
                    false => count(&FAILED),
                },
                complete_latency: values.latency(&subject, &PROCESS_LATENCY, self.window),
            }
        };
        streams.into_iter().map(output).collect()
    }

    /// Returns the numbers of the streams that a bolt receives. The tuples of one stream that several
    /// components emit are counted together: each number is split in proportion to what the bolt has
    /// received from each.
    pub(crate) fn inputs(&self, component: &ComponentId, values: &Values) -> Vec<Input> {
        let execute_latency = values.latency(&component_subject(component), &EXECUTOR_TIME, self.window);
        let mut inputs = Vec::new();
        for (stream, sources) in self.inputs_of(component) {
            let subject = stream_subject(component, stream);
            let mut received = vec![0; sources.len()];
            for (from, at) in self.received_by(component, stream, &sources) {
                if let Some(place) = sources.iter().position(|source| *source == from) {
                    received[place] = values.received(from, &at, self.window).saturating_add(received[place]);
                }
            }
            let parts = |metric| values.count(&subject, metric, self.window).map(|n| split(n, &received));
            let (executed, acked, failed) = (parts(&EXECUTED), parts(&ACKED), parts(&FAILED));
            let part = |of: &Option<Vec<u64>>, place: usize| of.as_ref()?.get(place).copied();
            for (place, from) in sources.into_iter().enumerate() {
                inputs.push(Input {
                    from: from.clone(),
                    stream: stream.clone(),
                    executed: part(&executed, place),
                    acked: part(&acked, place),
                    failed: part(&failed, place),
                    execute_latency: execute_latency.clone(),
                    process_latency: values.latency(&subject, &PROCESS_LATENCY, self.window),
                });
            }
        }
        inputs
    }

    /// Returns the values that [`metrics`](Self::metrics) needs.
    pub fn wanted_by_stream(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.components().for_each(|(component, _)| self.want_streams(component, &mut wanted));
        wanted
    }

    /// Returns the body of `topology/{id}/metrics`.
    pub fn metrics(&self, values: &Values) -> impl Serialize + use<> {
        let (spouts, bolts): (Vec<_>, Vec<_>) =
            self.components().map(|(component, _)| component).partition(|component| self.is_spout(component));
        Body {
            id: self.id.clone(),
            window: self.window.label(),
            window_hint: values.hint(self.window),
            window_hint_of_sample: values.hint(self.window),
            spouts: spouts.into_iter().map(|spout| self.spout_streams(spout, values)).collect(),
            bolts: bolts.into_iter().map(|bolt| self.bolt_streams(bolt, values)).collect(),
        }
    }

    fn spout_streams(&self, component: &ComponentId, values: &Values) -> SpoutStreams {
        let outputs = self.outputs(component, values);
        SpoutStreams {
            id: component.clone(),
            emitted: of_streams(&outputs, |output| output.emitted),
            transferred: of_streams(&outputs, |output| output.transferred),
            acked: of_streams(&outputs, |output| output.acked),
            failed: of_streams(&outputs, |output| output.failed),
            complete_ms_avg: of_streams(&outputs, |output| output.complete_latency.clone()),
        }
    }

    fn bolt_streams(&self, component: &ComponentId, values: &Values) -> BoltStreams {
        let (outputs, inputs) = (self.outputs(component, values), self.inputs(component, values));
        BoltStreams {
            id: component.clone(),
            emitted: of_streams(&outputs, |output| output.emitted),
            transferred: of_streams(&outputs, |output| output.transferred),
            acked: of_inputs(&inputs, |input| input.acked),
            failed: of_inputs(&inputs, |input| input.failed),
            executed: of_inputs(&inputs, |input| input.executed),
            process_ms_avg: of_inputs(&inputs, |input| input.process_latency.clone()),
            executed_ms_avg: of_inputs(&inputs, |input| input.execute_latency.clone()),
        }
    }
}

fn of_streams<T>(outputs: &[Output], value: impl Fn(&Output) -> T) -> Vec<OfStream<T>> {
    outputs.iter().map(|of| OfStream { stream_id: of.stream.clone(), value: value(of) }).collect()
}

fn of_inputs<T>(inputs: &[Input], value: impl Fn(&Input) -> T) -> Vec<OfInput<T>> {
    let one = |of: &Input| OfInput {
        component_id: of.from.clone(),
        stream_id: of.stream.clone(),
        value: value(of),
    };
    inputs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_in_proportion_and_add_up() {
        assert_eq!(split(10, &[3, 1]), [7, 3]);
        assert_eq!(split(10, &[0, 5]), [0, 10]);
        assert_eq!(split(7, &[0, 0]), [3, 4], "nothing is known of the parts");
        assert_eq!(split(7, &[]), [0_u64; 0]);
        assert_eq!(split(u64::MAX, &[u64::MAX, u64::MAX]).iter().sum::<u64>(), u64::MAX);
    }
}

//! Handshake, the first message to a child: settings, pid directory, and the topology's graph as
//! seen from the task.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::batch;
use stormkeeper_model::{
    ComponentId, TaskId, TopologyId, settings,
    topology::{Grouping, Settings, TaskTable, Topology},
};

/// Returns the handshake of one task.
///
/// The defaults of all known settings are overridden by the settings of the host, these by those of
/// the topology, and these by those of the component.
pub fn message(
    id: &TopologyId,
    topology: &Topology,
    defaults: &Settings,
    table: &TaskTable,
    component: &ComponentId,
    task: TaskId,
    pid_dir: &Path,
) -> Value {
    json!({
        "conf": conf(id, topology, defaults, component),
        "pidDir": pid_dir.to_string_lossy(),
        "context": context(topology, table, component, task),
        // An extension, which readers of Storm's handshake ignore.
        "dialects": [batch::NAME],
    })
}

/// Returns the settings of a component: defaults of all known settings, overridden by those of the host, of
/// the topology, and of the component.
pub(crate) fn conf(
    id: &TopologyId,
    topology: &Topology,
    defaults: &Settings,
    component: &ComponentId,
) -> Settings {
    // As in Storm, components find every setting, set or not.
    let unset = settings::KNOWN.iter().map(|setting| (setting.key.to_owned(), setting.default_value()));
    let mut conf: Settings = unset.collect();
    conf.extend(defaults.clone());
    conf.extend(topology.settings.clone());
    if let Some(component) = topology.components.get(component) {
        conf.extend(component.settings.clone());
    }
    conf.insert("topology.name".to_owned(), topology.name.as_str().into());
    conf.insert("storm.id".to_owned(), id.as_str().into());
    conf
}

fn context(topology: &Topology, table: &TaskTable, component: &ComponentId, task: TaskId) -> Value {
    let components: Map<String, Value> =
        table.iter().map(|(component, task)| (task.to_string(), component.as_str().into())).collect();
    let outputs = topology.components.get(component).map(|component| &component.outputs);
    let streams: Vec<&str> =
        outputs.iter().flat_map(|outputs| outputs.keys()).map(|id| id.as_str()).collect();
    let fields: Map<String, Value> = outputs
        .iter()
        .flat_map(|outputs| outputs.iter())
        .map(|(stream, declared)| (stream.to_string(), declared.fields.clone().into()))
        .collect();
    let (source_groupings, source_fields) = sources(topology, component);
    json!({
        "taskid": task.0,
        "componentid": component.as_str(),
        "task->component": components,
        "streams": streams,
        "stream->outputfields": fields,
        "stream->target->grouping": targets(topology, component),
        "source->stream->grouping": source_groupings,
        "source->stream->fields": source_fields,
    })
}

/// Returns the receivers of each stream of `component`, with their groupings.
fn targets(topology: &Topology, component: &ComponentId) -> Value {
    let mut by_stream = Map::new();
    for (receiver, inputs) in topology.components.iter().map(|(id, component)| (id, &component.inputs)) {
        for input in inputs.iter().filter(|input| input.from == *component) {
            insert(&mut by_stream, input.stream.as_str(), receiver.as_str(), grouping(&input.grouping));
        }
    }
    by_stream.into()
}

/// Returns the groupings by which `component` receives its input streams, and their fields.
fn sources(topology: &Topology, component: &ComponentId) -> (Value, Value) {
    let (mut groupings, mut fields) = (Map::new(), Map::new());
    for input in topology.components.get(component).iter().flat_map(|component| &component.inputs) {
        let (from, stream) = (input.from.as_str(), input.stream.as_str());
        insert(&mut groupings, from, stream, grouping(&input.grouping));
        let declared = topology.components.get(&input.from).and_then(|from| from.outputs.get(&input.stream));
        if let Some(declared) = declared {
            insert(&mut fields, from, stream, declared.fields.clone().into());
        }
    }
    (groupings.into(), fields.into())
}

fn insert(map: &mut Map<String, Value>, outer: &str, inner: &str, value: Value) {
    if let Value::Object(map) = map.entry(outer).or_insert_with(|| json!({})) {
        map.insert(inner.to_owned(), value);
    }
}

/// Returns a grouping by Storm's name; Storm's global grouping is a fields grouping by no fields.
fn grouping(grouping: &Grouping) -> Value {
    match grouping {
        Grouping::Shuffle => json!({ "type": "SHUFFLE" }),
        Grouping::LocalOrShuffle => json!({ "type": "LOCAL_OR_SHUFFLE" }),
        Grouping::Fields(fields) => json!({ "type": "FIELDS", "fields": fields }),
        // Storm names a custom grouping and no fields.
        Grouping::PartialKey(fields) => json!({ "type": "PARTIAL_KEY", "fields": fields }),
        Grouping::All => json!({ "type": "ALL" }),
        Grouping::Global => json!({ "type": "FIELDS", "fields": [] }),
        Grouping::None => json!({ "type": "NONE" }),
        Grouping::Direct => json!({ "type": "DIRECT" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_contains_settings_and_the_graph_around_the_task() {
        let topology: Topology = serde_json::from_value(json!({
            "name": "wc",
            "settings": { "topology.debug": true, "both": "topology" },
            "components": {
                "lines": { "kind": "spout", "parallelism": 1, "run": { "command": ["a"] },
                           "outputs": { "default": { "fields": ["line"] } } },
                "split": { "kind": "bolt", "parallelism": 2, "run": { "command": ["b"] },
                           "settings": { "both": "component" },
                           "inputs": [{ "from": "lines", "stream": "default", "grouping": { "type": "shuffle" } }],
                           "outputs": { "default": { "fields": ["word"] }, "odd": { "fields": ["x", "y"] } } },
                "count": { "kind": "bolt", "parallelism": 1, "run": { "command": ["c"] },
                           "inputs": [
                             { "from": "split", "stream": "default",
                               "grouping": { "type": "fields", "fields": ["word"] } },
                             { "from": "split", "stream": "odd", "grouping": { "type": "global" } }] },
            },
        }))
        .expect("a topology");
        let split: ComponentId = "split".parse().expect("valid");
        let table =
            TaskTable::number(topology.components.iter().map(|(id, one)| (id.clone(), one.parallelism)));
        let defaults = Settings::from([("both".to_owned(), "host".into()), ("host".to_owned(), 1.into())]);
        let id = "wc-1-100".parse().expect("valid");
        let mut hello = message(&id, &topology, &defaults, &table, &split, TaskId(3), Path::new("/w/pids"));
        let conf = hello["conf"].as_object_mut().expect("an object");
        for setting in settings::KNOWN {
            assert_eq!(conf.remove(setting.key), Some(setting.default_value()), "{}", setting.key);
        }
        assert_eq!(
            hello,
            json!({
                "conf": { "both": "component", "host": 1, "storm.id": "wc-1-100", "topology.debug": true,
                          "topology.name": "wc" },
                "pidDir": "/w/pids",
                "context": {
                    "taskid": 3,
                    "componentid": "split",
                    "task->component": { "1": "count", "2": "lines", "3": "split", "4": "split" },
                    "streams": ["default", "odd"],
                    "stream->outputfields": { "default": ["word"], "odd": ["x", "y"] },
                    "stream->target->grouping": {
                        "default": { "count": { "type": "FIELDS", "fields": ["word"] } },
                        "odd": { "count": { "type": "FIELDS", "fields": [] } } },
                    "source->stream->grouping": { "lines": { "default": { "type": "SHUFFLE" } } },
                    "source->stream->fields": { "lines": { "default": ["line"] } },
                },
                "dialects": ["batch-1"],
            })
        );
    }
}

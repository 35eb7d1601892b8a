//! Spouts and bolts.

use std::collections::BTreeMap;

use crate::{
    flux::{
        daemon_keys::topology_key_warning,
        load, reference, shell,
        walk::{At, Entries, Walk},
    },
    yaml::{SourcePosition, Value},
};
use stormkeeper_model::{
    ComponentId, StreamId, settings,
    topology::{Ackers, Component, ComponentKind, Run, Settings, StreamDeclaration},
    validate::{Part, Place},
};

const KNOWN: &[&str] = &[
    "id",
    "parallelism",
    "command",
    "output",
    "config",
    "className",
    "constructorArgs",
    "configMethods",
    "numTasks",
    "onHeapMemoryLoad",
    "offHeapMemoryLoad",
    "cpuLoad",
];

const UNSUPPORTED: &[(&str, &str)] = &[
    ("properties", "there are no Java beans; use `config` for the component's own settings"),
    ("factory", "there is no Java object to build; use `command: [...]`"),
    ("factoryArgs", "there is no Java object to build; use `command: [...]`"),
];

/// Declarations of a component, in whichever syntax they were written.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) command: Vec<String>,
    pub(super) outputs: BTreeMap<StreamId, StreamDeclaration>,
    pub(super) settings: Settings,
    /// True if it was written as one of Flux's shell wrappers.
    pub(super) is_wrapper: bool,
    /// Parts that could not be read. Validation problems in these parts are suppressed.
    pub(super) unread: Vec<Part>,
}

/// A component, with the parts that could be read.
pub(super) struct ParsedComponent {
    pub(super) id: ComponentId,
    pub(super) component: Component,
    /// Positions of its parts.
    pub(super) places: Vec<(Place, String, SourcePosition)>,
    pub(super) unread: Vec<Place>,
    /// True if all of its streams could be read.
    pub(super) outputs_read: bool,
    /// True if it was written as one of Flux's shell wrappers.
    pub(super) is_wrapper: bool,
}

pub(super) fn read(walk: &mut Walk, at: &At<'_>, kind: ComponentKind) -> Option<ParsedComponent> {
    let map = walk.map(at, KNOWN, UNSUPPORTED)?;
    let example = match kind {
        ComponentKind::Spout => "sentences",
        ComponentKind::Bolt => "split",
    };
    let id: Option<ComponentId> = walk.required(&map, "id", example).and_then(|at| walk.id(&at));
    let n_faults = walk.faults.len();
    let parallelism = read_tasks(walk, &map);
    let mut declared = Declared::default();
    match (map.get("command"), map.get("className")) {
        (Some(command), None) => read_plain(walk, &map, &command, &mut declared),
        (None, Some(class)) => shell::read(walk, &map, &class, kind, &mut declared),
        (Some(_), Some(class)) => {
            walk.fault(&class, "it has both a `command` and a `className`", "keep the `command`".to_owned());
            declared.unread.extend([Part::Command, Part::Component]);
        }
        (None, None) => {
            let advice = "add one, for example `command: [python3, split.py]`".to_owned();
            walk.fault_at(map.at, map.path_of("command"), "it has no command to run", advice);
            declared.unread.push(Part::Command);
        }
    }
    // Settings in `config` win over the keys that stand for a setting.
    let mut settings_at = load::read(walk, &map, &mut declared.settings);
    if let Some(config) = map.get("config") {
        let (own, at) = read_settings(walk, &config);
        for (key, path, position) in &at {
            if let Some(warning) = settings::component_warning(key) {
                walk.warn(*position, path.clone(), warning);
            }
        }
        declared.settings.extend(own);
        settings_at.extend(at);
    }
    let id = id?;
    let place = |part| Place::Component(kind, id.clone(), part);
    let mut places: Vec<_> =
        settings_at.into_iter().map(|(key, path, at)| (place(Part::Setting(key)), path, at)).collect();
    places.push((place(Part::Component), at.path.clone(), at.node.at));
    let keys = [
        ("parallelism", Part::Parallelism),
        ("numTasks", Part::Parallelism),
        ("command", Part::Command),
        ("constructorArgs", Part::Command),
    ];
    for (key, part) in keys {
        places.extend(map.get(key).map(|at| (place(part), at.path, at.node.at)));
    }
    let output = map.get("output").or_else(|| map.get("constructorArgs"));
    for stream in declared.outputs.keys() {
        let named = output.as_ref().map(|at| (at.path.clone(), at.node.at));
        let (path, at) = named.unwrap_or_else(|| (at.path.clone(), at.node.at));
        places.push((place(Part::Output(stream.clone())), path, at));
    }
    let outputs_read = walk.faults.len() == n_faults;
    let component = Component {
        kind,
        parallelism: parallelism.unwrap_or(1),
        run: Run::Command(declared.command),
        outputs: declared.outputs,
        inputs: Vec::new(),
        settings: declared.settings,
    };
    let unread = declared.unread.into_iter().map(place).collect();
    let is_wrapper = declared.is_wrapper;
    Some(ParsedComponent { id, component, places, unread, outputs_read, is_wrapper })
}

fn read_plain(walk: &mut Walk, map: &Entries<'_>, command: &At<'_>, declared: &mut Declared) {
    match read_command(walk, command) {
        Some(words) => declared.command = words,
        None => declared.unread.push(Part::Command),
    }
    if let Some(output) = map.get("output") {
        read_output(walk, &output, declared);
    }
    for key in ["constructorArgs", "configMethods"] {
        if let Some(at) = map.get(key) {
            walk.fault(
                &at,
                format!("`{key}` is only valid with a `className`"),
                "use `output` and `config`".to_owned(),
            );
        }
    }
}

/// Reads a command: a list of strings. Numbers count as their text.
pub(super) fn read_command(walk: &mut Walk, at: &At<'_>) -> Option<Vec<String>> {
    let Some(items) = at.as_list() else {
        let words = at.as_text().map(|text| text.split_whitespace().collect::<Vec<_>>().join(", "));
        let advice = words.map(|words| format!("write it as a list: [{words}]"));
        walk.mismatch(at, "a list of words", advice);
        return None;
    };
    let word = |item: &At<'_>| match &item.node.value {
        Value::Whole(n) => Some(n.to_string()),
        _ => walk.text(item).map(str::to_owned),
    };
    let words: Vec<Option<String>> = items.iter().map(word).collect();
    words.into_iter().collect()
}

/// Reads the number of tasks: `numTasks`, else `parallelism`. In Storm, `parallelism` is the number
/// of threads that run the tasks; here each task is a process of its own.
fn read_tasks(walk: &mut Walk, map: &Entries<'_>) -> Option<u32> {
    let parallelism = map.get("parallelism");
    let threads = parallelism.as_ref().map_or(Some(1), |at| number_of_tasks(walk, at));
    let Some(tasks_at) = map.get("numTasks") else { return threads };
    let tasks = number_of_tasks(walk, &tasks_at)?;
    if let Some(at) = parallelism.filter(|_| threads.is_some_and(|threads| threads != tasks)) {
        let what = format!("has no effect beside `numTasks: {tasks}`: each task is a process of its own");
        walk.warn(at.node.at, at.path, what);
    }
    Some(tasks)
}

fn number_of_tasks(walk: &mut Walk, at: &At<'_>) -> Option<u32> {
    let number = match at.node.value {
        Value::Whole(n) => u32::try_from(n).ok(),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
            None
        }
    };
    if number.is_none() {
        let what = format!("expected a whole number of tasks, found {}", at.node.to_json());
        walk.fault(at, what, None);
    }
    number
}

/// `[word]`, or `{default: [word], errors: {fields: [line], direct: true}}`.
fn read_output(walk: &mut Walk, at: &At<'_>, declared: &mut Declared) {
    if at.as_list().is_some() {
        if let Some(fields) = walk.texts(at) {
            let declaration = StreamDeclaration { fields, direct: false };
            declared.outputs.insert(StreamId::default_stream(), declaration);
        }
        return;
    }
    let Some(streams) = at.as_map() else {
        let what = at.node.mismatch("the fields of the stream");
        return walk.fault(at, what, "write a list such as [word, count]".to_owned());
    };
    for (key, at) in streams.iter() {
        let stream = key.text.parse::<StreamId>().map_err(|error| walk.fault(&at, error.to_string(), None));
        let declaration = match at.as_list() {
            Some(_) => walk.texts(&at).map(|fields| StreamDeclaration { fields, direct: false }),
            None => read_declaration(walk, &at),
        };
        if let (Ok(stream), Some(declaration)) = (stream, declaration) {
            declared.outputs.insert(stream, declaration);
        }
    }
}

fn read_declaration(walk: &mut Walk, at: &At<'_>) -> Option<StreamDeclaration> {
    let map = walk.map(at, &["fields", "direct"], &[])?;
    let fields = walk.required(&map, "fields", "[word]").and_then(|at| walk.texts(&at));
    let direct = map.get("direct").map_or(Some(false), |at| walk.flag(&at));
    Some(StreamDeclaration { fields: fields?, direct: direct? })
}

/// Key of a setting, and its path and position in the file.
pub(super) type SettingAt = (String, String, SourcePosition);

/// Reads the settings under a `config:` key, with the position of each.
pub(super) fn read_settings(walk: &mut Walk, at: &At<'_>) -> (Settings, Vec<SettingAt>) {
    let (mut settings, mut places) = (Settings::new(), Vec::new());
    let Some(map) = at.as_map() else {
        let what = at.node.mismatch("a map of settings");
        walk.fault(at, what, "for example {topology.workers: 2}".to_owned());
        return (settings, places);
    };
    for (key, at) in map.iter() {
        if let Some(warning) = topology_key_warning(&key.text) {
            walk.warn(key.at, at.path.clone(), warning);
        }
        reference::warn_in(walk, &at);
        settings.insert(key.text.clone(), at.node.to_json());
        places.push((key.text.clone(), at.path, at.node.at));
    }
    // Written down, it says that the author knows the default.
    if map.is_null(Ackers::SETTING) {
        settings.insert(Ackers::SETTING.to_owned(), serde_json::Value::Null);
    }
    (settings, places)
}

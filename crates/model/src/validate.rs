//! Validation of a topology.
//!
//! All problems are reported, so that an author corrects a file only once, up to a bound: a topology
//! may come from anybody, and a nimbus checks it. The work is in proportion to the size of the
//! topology. Cycles are allowed: a bolt may receive tuples that derive from its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use crate::{
    ComponentId, StreamId,
    absent::Absent,
    id::quoted,
    settings, spelling,
    suggest::Suggestions,
    task_set::MAX_TASKS,
    topology::{Component, ComponentKind, Grouping, Input, Run, Settings, StreamDeclaration, Topology},
};

/// Place of a problem in a topology.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The whole topology.
    Topology,
    /// A setting of the topology.
    Setting(String),
    /// A component, or a part of one.
    Component(ComponentKind, ComponentId, Part),
}

/// Place of a problem in a component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The whole component.
    Component,
    /// Its number of tasks.
    Parallelism,
    /// The command that its tasks start.
    Command,
    /// A stream that the component emits.
    Output(StreamId),
    /// The streams that the component receives.
    Inputs,
    /// The nth stream that the component receives.
    Input(usize),
    /// A setting of the component.
    Setting(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id, part) = match self {
            Self::Topology => return f.write_str("topology"),
            Self::Setting(key) => return write!(f, "config.{key}"),
            Self::Component(kind, id, part) => (kind, id, part),
        };
        let group = match kind {
            ComponentKind::Spout => "spouts",
            ComponentKind::Bolt => "bolts",
        };
        write!(f, "{group}.{id}")?;
        match part {
            Part::Component => Ok(()),
            Part::Parallelism => f.write_str(".parallelism"),
            Part::Command => f.write_str(".command"),
            Part::Output(stream) => write!(f, ".output.{stream}"),
            Part::Inputs => f.write_str(".inputs"),
            Part::Input(n) => write!(f, ".inputs[{n}]"),
            Part::Setting(key) => write!(f, ".config.{key}"),
        }
    }
}

/// A reason for which a topology cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyDefect {
    /// Place of the problem.
    pub place: Place,
    /// Description of the problem.
    pub what: String,
    /// Remedy, unless it is obvious.
    pub hint: Option<String>,
}

impl fmt::Display for TopologyDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Maximum problems that are listed; the others are counted.
pub const MAX_DEFECTS: usize = 100;

/// Maximum characters of a description or a hint, which may quote any part of the topology.
const MAX_TEXT_CHARS: usize = 1000;

/// Checks the whole topology.
///
/// # Errors
/// The problems of the topology, in the order of its components: at most [`MAX_DEFECTS`], and if
/// there are more, a last one that says how many.
pub fn validate(topology: &Topology) -> Result<(), Vec<TopologyDefect>> {
    let mut found = Findings::default();
    check_spelling(topology.name.as_str(), Place::Topology, &mut found);
    check_settings(&topology.settings, Place::Setting, &mut found);
    let mut spouts = topology.components.values().filter(|c| c.kind == ComponentKind::Spout);
    if spouts.next().is_none() {
        found.add(Place::Topology, "there is no spout", "without a spout, no tuple enters the topology");
    }
    let n_tasks: u64 = topology.components.values().map(|c| u64::from(c.parallelism)).sum();
    if n_tasks > u64::from(MAX_TASKS) {
        let what = format!("its {n_tasks} tasks are more than the {MAX_TASKS} that a topology may have");
        found.add(Place::Topology, what, "lower the parallelism of its components");
    }
    for (id, component) in &topology.components {
        check_component(topology, id, component, &mut found);
    }
    check_appearance(topology, &mut found);
    match found.listed.is_empty() {
        true => Ok(()),
        false => Err(found.into_defects()),
    }
}

/// Problems found so far, and what the checks remember.
#[derive(Default)]
struct Findings<'a> {
    listed: Vec<TopologyDefect>,
    n_more: usize,
    suggestions: Suggestions,
    /// Fields of the streams that are grouped by fields.
    fields: HashMap<(&'a ComponentId, &'a StreamId), HashSet<&'a str>>,
}

impl Findings<'_> {
    fn add(&mut self, place: Place, what: impl Into<String>, hint: impl Into<Hint>) {
        if self.listed.len() == MAX_DEFECTS {
            self.n_more += 1;
            return;
        }
        let Hint(hint) = hint.into();
        self.listed.push(TopologyDefect { place, what: cut(what.into()), hint: hint.map(cut) });
    }

    fn into_defects(self) -> Vec<TopologyDefect> {
        let Self { mut listed, n_more, .. } = self;
        if n_more > 0 {
            let problems = if n_more == 1 { "problem is" } else { "problems are" };
            let what = format!("{n_more} more {problems} not listed");
            let hint = Some("correct those that are listed first".to_owned());
            listed.push(TopologyDefect { place: Place::Topology, what, hint });
        }
        listed
    }
}

/// Cuts a text that is longer than [`MAX_TEXT_CHARS`].
fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

struct Hint(Option<String>);

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl From<Option<String>> for Hint {
    fn from(text: Option<String>) -> Self {
        Self(text)
    }
}

fn check_settings(settings: &Settings, place: impl Fn(String) -> Place, found: &mut Findings<'_>) {
    for (key, value) in settings {
        if let Some(setting) = settings::known(key).filter(|setting| !setting.kind.accepts(value)) {
            found.add(place(key.clone()), format!("{value} is not {}", setting.kind), "");
        }
        if let Some(absent) = Absent::of_setting(key) {
            found.add(place(key.clone()), format!("there is no {absent} in Stormkeeper"), absent.instead());
        }
    }
}

/// Checks a name that the topology gives. Names are not checked where they are read: a topology that runs
/// keeps the name that an earlier build has accepted.
fn check_spelling(name: &str, place: Place, found: &mut Findings<'_>) {
    if let Some(reason) = spelling::misleading(name) {
        found.add(
            place,
            format!("the name {} could be taken for another one: {reason}", quoted(name)),
            "use letters of one script",
        );
    }
}

fn check_command(command: &[String], at: &Place, found: &mut Findings<'_>) {
    match command.first() {
        None => found.add(at.clone(), "it is empty", "name a program, for example [python3, split.py]"),
        Some(program) if program.is_empty() => {
            found.add(at.clone(), "the program's name is empty", "name one, for example python3");
        }
        Some(_) if command.iter().any(|word| word.contains('\0')) => {
            found.add(at.clone(), "it contains a NUL character", "remove it: no program can receive one");
        }
        Some(_) => {}
    }
}

/// Checks that no two components look the same.
fn check_appearance(topology: &Topology, found: &mut Findings<'_>) {
    if topology.components.keys().all(|id| id.as_str().is_ascii()) {
        return;
    }
    let mut seen: HashMap<String, &ComponentId> = HashMap::new();
    for (id, component) in &topology.components {
        let other = seen.entry(spelling::appearance(id.as_str())).or_insert(id);
        if spelling::look_alike(id.as_str(), other.as_str()) {
            let what = format!("{} and {} look the same", quoted(id.as_str()), quoted(other.as_str()));
            found.add(
                Place::Component(component.kind, id.clone(), Part::Component),
                what,
                "choose another id for one of them",
            );
        }
    }
}

fn check_component<'a>(
    topology: &'a Topology,
    id: &ComponentId,
    component: &'a Component,
    found: &mut Findings<'a>,
) {
    let at = |part| Place::Component(component.kind, id.clone(), part);
    check_spelling(id.as_str(), at(Part::Component), found);
    if id.is_system() {
        found.add(
            at(Part::Component),
            "names that begin with `__` belong to the system",
            "choose another id",
        );
    }
    match component.parallelism {
        0 => found.add(at(Part::Parallelism), "0 tasks would never run", "set it to 1 or more"),
        n if n > MAX_TASKS => {
            found.add(at(Part::Parallelism), format!("{n} is more than the {MAX_TASKS} allowed"), "lower it");
        }
        _ => {}
    }
    match &component.run {
        Run::Command(command) => check_command(command, &at(Part::Command), found),
        Run::InWorker if topology.program.is_none() => found.add(
            at(Part::Command),
            "its code is in the worker program, and the topology has none",
            "submit the program, or name a command",
        ),
        Run::InWorker => {}
    }
    check_settings(&component.settings, |key| at(Part::Setting(key)), found);
    for (stream, declaration) in &component.outputs {
        check_output(&at(Part::Output(stream.clone())), stream, declaration, found);
    }
    match (component.kind, component.inputs.is_empty()) {
        (ComponentKind::Spout, false) => found.add(
            at(Part::Input(0)),
            format!("{id} is a spout, and a spout receives nothing"),
            "declare it among the bolts, or direct the stream elsewhere",
        ),
        (ComponentKind::Bolt, true) => found.add(
            at(Part::Inputs),
            "it receives no stream, so it would never run",
            "add a stream that leads to it, or remove it",
        ),
        (ComponentKind::Spout, true) | (ComponentKind::Bolt, false) => {}
    }
    let mut received = BTreeSet::new();
    for (n, input) in component.inputs.iter().enumerate() {
        if !received.insert((&input.from, &input.stream)) {
            let what = format!("it receives {}'s stream `{}` twice", input.from, input.stream);
            found.add(at(Part::Input(n)), what, "every tuple would come twice; keep one of them");
        }
        check_input(topology, &at(Part::Input(n)), input, found);
    }
}

fn check_output(at: &Place, stream: &StreamId, declaration: &StreamDeclaration, found: &mut Findings<'_>) {
    check_spelling(stream.as_str(), at.clone(), found);
    if stream.as_str().starts_with("__") {
        found.add(at.clone(), "streams that begin with `__` belong to the system", "choose another name");
    }
    let mut names = BTreeSet::new();
    for field in &declaration.fields {
        if field.is_empty() {
            found.add(at.clone(), "a field has an empty name", "");
        } else if !names.insert(field) {
            found.add(at.clone(), format!("the field `{field}` is there twice"), "rename one of them");
        }
    }
}

fn check_input<'a>(topology: &'a Topology, at: &Place, input: &'a Input, found: &mut Findings<'a>) {
    let Some(source) = topology.components.get(&input.from) else {
        let known = topology.components.keys().map(ComponentId::as_str);
        let what = format!("there is no component `{}`", input.from);
        let hint = found.suggestions.hint(input.from.as_str(), known);
        return found.add(at.clone(), what, hint);
    };
    let Some(stream) = source.outputs.get(&input.stream) else {
        let what = format!("{} does not declare a stream `{}`", input.from, input.stream);
        let advice = match source.outputs.is_empty() {
            true => Some(format!("give {} an `output` with the fields of that stream", input.from)),
            false => {
                let known = source.outputs.keys().map(StreamId::as_str);
                found.suggestions.hint(input.stream.as_str(), known)
            }
        };
        return found.add(at.clone(), what, advice);
    };
    match (&input.grouping, stream.direct) {
        (Grouping::Direct, false) => found.add(
            at.clone(),
            format!("direct grouping needs a direct stream, and {}'s `{}` is none", input.from, input.stream),
            "declare the stream with `direct: true`, or group it in another way",
        ),
        (Grouping::Direct, true) => {}
        (_, true) => found.add(
            at.clone(),
            format!(
                "{}'s stream `{}` is direct: its emitter names the receiving task",
                input.from, input.stream
            ),
            "use direct grouping",
        ),
        (Grouping::Fields(fields) | Grouping::PartialKey(fields), false) => {
            check_fields(at, input, fields, stream, found);
        }
        (
            Grouping::Shuffle | Grouping::LocalOrShuffle | Grouping::All | Grouping::Global | Grouping::None,
            false,
        ) => {}
    }
}

fn check_fields<'a>(
    at: &Place,
    input: &'a Input,
    fields: &[String],
    stream: &'a StreamDeclaration,
    found: &mut Findings<'a>,
) {
    if fields.is_empty() {
        found.add(at.clone(), "fields grouping without a field", "name at least one in `args`");
    }
    let known = || stream.fields.iter().map(String::as_str);
    let mut times: BTreeMap<&String, usize> = BTreeMap::new();
    for field in fields {
        let n = times.entry(field).or_default();
        *n += 1;
        if *n == 2 {
            found.add(at.clone(), format!("it groups by the field `{field}` twice"), "name it once");
        }
        let declared = found.fields.entry((&input.from, &input.stream)).or_insert_with(|| known().collect());
        if !declared.contains(field.as_str()) {
            let what = format!("{}'s stream `{}` has no field `{field}`", input.from, input.stream);
            let hint = found.suggestions.hint(field, known());
            found.add(at.clone(), what, hint);
        }
    }
}

#[cfg(test)]
mod tests;

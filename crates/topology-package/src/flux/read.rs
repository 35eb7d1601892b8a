//! Reads a whole topology file.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    flux::{
        absent,
        component::{self, read_settings},
        fault::{Fault, Faults},
        shell,
        substitution::{Replacements, substitute, unresolved},
        walk::{At, Entries, Walk},
    },
    yaml::{self, Node, SourcePosition},
};
use stormkeeper_model::{
    ComponentId, StreamId, TopologyName,
    suggest::hint,
    topology::{Component, ComponentKind, Grouping, Input, Settings, Topology},
    validate::{Part, Place, validate},
};

/// A valid topology, and the warnings about its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The topology.
    pub topology: Topology,
    /// Parts of the file that have no effect.
    pub warnings: Vec<Fault>,
}

const KNOWN: &[&str] = &["name", "config", "spouts", "bolts", "streams"];

/// Keys that take parts of the topology from elsewhere.
const ELSEWHERE: &[&str] = &["includes", "topologySource"];

const UNSUPPORTED: &[(&str, &str)] = &[
    ("includes", "put everything in one file"),
    ("components", "there are no Java objects to build; give each spout and bolt a `command`"),
    (
        "topologySource",
        "there is no Java class that builds the topology; list `spouts`, `bolts` and `streams`",
    ),
    ("properties", "use `config` for settings, and `--filter FILE` for values of placeholders"),
    ("workerHooks", "Stormkeeper has no JVM"),
];

/// Reads a topology from the text of its file and checks that it can run. No placeholder has a
/// value.
///
/// # Errors
/// All faults, in the order of the file.
pub fn parse(text: &str) -> Result<Parsed, Faults> {
    parse_with(text, &Replacements::default())
}

/// Reads a topology as [`parse`] does, with values for its placeholders.
///
/// # Errors
/// All faults, in the order of the file. If a placeholder has no value, only those without: the
/// other faults may be consequences.
pub fn parse_with(text: &str, replacements: &Replacements) -> Result<Parsed, Faults> {
    let text = substitute(text, replacements).map_err(|fault| Faults(vec![fault]))?;
    let root = yaml::parse(&text.text).map_err(|error| Faults(text.syntax_faults(error, replacements)))?;
    let in_file = |mut faults: Vec<Fault>| {
        faults.iter_mut().for_each(|fault| fault.at = text.in_file(fault.at));
        faults.sort_by_key(|fault| fault.at);
        faults
    };
    let unresolved = unresolved(&root, replacements);
    if !unresolved.is_empty() {
        return Err(Faults(in_file(unresolved)));
    }
    match read(&root) {
        Ok(Parsed { topology, warnings }) => Ok(Parsed { topology, warnings: in_file(warnings) }),
        Err(Faults(faults)) => Err(Faults(in_file(faults))),
    }
}

/// Reads a topology from the values of its file. Faults and warnings are in no order.
fn read(root: &Node) -> Result<Parsed, Faults> {
    let mut reader = Reader::default();
    let name = reader.read(&At::root(root));
    let Reader { mut walk, components, settings, places, suppressed, wrappers, .. } = reader;
    // Without a name, the rest of the file is still checked.
    let placeholder = || "unnamed".parse().expect("a valid name");
    let topology = Topology {
        name: name.unwrap_or_else(placeholder),
        settings,
        components,
        program: None,
        given_at_submission: Default::default(),
    };
    for problem in validate(&topology).err().unwrap_or_default() {
        if !suppressed.contains(&problem.place) {
            let (path, at) = locate(&places, &problem.place, root.at);
            let hint = wrapper_hint(&topology, &problem.place, &wrappers).or(problem.hint);
            walk.fault_at(at, path, problem.what, hint);
        }
    }
    let Walk { faults, warnings } = walk;
    match faults.is_empty() {
        true => Ok(Parsed { topology, warnings }),
        false => Err(Faults(faults)),
    }
}

/// Returns the advice for a problem with a stream of a shell wrapper, which has no `output`.
fn wrapper_hint(topology: &Topology, place: &Place, wrappers: &BTreeSet<ComponentId>) -> Option<String> {
    let Place::Component(_, id, Part::Input(n)) = place else { return None };
    let Input { from, stream, grouping } = topology.components.get(id)?.inputs.get(*n)?;
    let outputs = &topology.components.get(from).filter(|_| wrappers.contains(from))?.outputs;
    let is_direct = matches!(grouping, Grouping::Direct);
    match outputs.get(stream) {
        None if outputs.is_empty() => Some(shell::stream_advice(from, stream, is_direct)),
        Some(declaration) if is_direct && !declaration.direct => {
            Some(format!("{}, or group it in another way", shell::stream_advice(from, stream, true)))
        }
        None | Some(_) => None,
    }
}

/// Returns the position of a part of the topology in the file, or else of the whole component.
fn locate(
    places: &BTreeMap<Place, (String, SourcePosition)>,
    place: &Place,
    start: SourcePosition,
) -> (String, SourcePosition) {
    let whole = || match place {
        Place::Component(kind, id, _) => {
            places.get(&Place::Component(*kind, id.clone(), Part::Component)).cloned()
        }
        Place::Topology | Place::Setting(_) => None,
    };
    places.get(place).cloned().or_else(whole).unwrap_or_else(|| (String::new(), start))
}

#[derive(Default)]
struct Reader {
    walk: Walk,
    components: BTreeMap<ComponentId, Component>,
    settings: Settings,
    places: BTreeMap<Place, (String, SourcePosition)>,
    /// Places with a reported fault, or with parts that could not be read. Validation problems in
    /// these places would mislead and are not reported.
    suppressed: BTreeSet<Place>,
    /// Components that were written as shell wrappers.
    wrappers: BTreeSet<ComponentId>,
    /// True if a part of the topology is elsewhere, so that what is missing here may be there.
    is_partial: bool,
}

impl Reader {
    fn read(&mut self, root: &At<'_>) -> Option<TopologyName> {
        let map = self.walk.map(root, KNOWN, UNSUPPORTED);
        let Some(map) = map else {
            self.suppressed.insert(Place::Topology);
            return None;
        };
        absent::refuse_in(&mut self.walk, &map);
        self.is_partial = ELSEWHERE.iter().any(|key| map.get(key).is_some());
        let name = match map.get("name") {
            None if self.is_partial => None,
            _ => self.walk.required(&map, "name", "word-count"),
        };
        let name = name.and_then(|at| self.walk.id(&at));
        if let Some(config) = map.get("config") {
            let (settings, places) = read_settings(&mut self.walk, &config);
            self.settings = settings;
            let place = |(key, path, at)| (Place::Setting(key), (path, at));
            self.places.extend(places.into_iter().map(place));
        }
        let mut unknown_outputs = BTreeSet::new();
        for (key, kind) in [("spouts", ComponentKind::Spout), ("bolts", ComponentKind::Bolt)] {
            self.read_components(&map, key, kind, &mut unknown_outputs);
        }
        let all_read = self.read_streams(&map, &unknown_outputs);
        if !all_read || self.is_partial {
            self.suppress_inputs();
        }
        if self.is_partial {
            self.suppressed.insert(Place::Topology);
        }
        name
    }

    fn read_components(
        &mut self,
        map: &Entries<'_>,
        key: &str,
        kind: ComponentKind,
        unknown_outputs: &mut BTreeSet<ComponentId>,
    ) {
        let Some(at) = map.get(key) else { return };
        let Some(items) = self.walk.list(&at) else {
            self.suppressed.insert(Place::Topology);
            return;
        };
        for item in items {
            let Some(read) = component::read(&mut self.walk, &item, kind) else {
                self.suppressed.insert(Place::Topology);
                continue;
            };
            if self.components.contains_key(&read.id) {
                let what = format!("the id `{}` occurs twice", read.id);
                self.walk.fault(&item, what, "give each spout and bolt an id of its own".to_owned());
                continue;
            }
            if !read.outputs_read {
                unknown_outputs.insert(read.id.clone());
            }
            if read.is_wrapper {
                self.wrappers.insert(read.id.clone());
            }
            self.places.extend(read.places.into_iter().map(|(place, path, at)| (place, (path, at))));
            self.suppressed.extend(read.unread);
            self.components.insert(read.id, read.component);
        }
    }

    /// Returns whether all streams could be read.
    fn read_streams(&mut self, map: &Entries<'_>, unknown_outputs: &BTreeSet<ComponentId>) -> bool {
        let Some(at) = map.get("streams") else { return true };
        let Some(items) = self.walk.list(&at) else { return false };
        let mut all_read = true;
        for item in items {
            all_read &= self.read_stream(&item, unknown_outputs).is_some();
        }
        all_read
    }

    /// Suppresses problems of bolts without inputs, which may receive a stream that was not read.
    fn suppress_inputs(&mut self) {
        let bolts = self.components.iter().filter(|(_, component)| component.inputs.is_empty());
        let place = |(id, component): (&ComponentId, &Component)| {
            Place::Component(component.kind, id.clone(), Part::Inputs)
        };
        self.suppressed.extend(bolts.map(place));
    }

    fn read_stream(&mut self, at: &At<'_>, unknown_outputs: &BTreeSet<ComponentId>) -> Option<()> {
        let walk = &mut self.walk;
        let map = walk.map(at, &["id", "name", "from", "to", "grouping"], &[])?;
        let from = walk.required(&map, "from", "sentences").and_then(|at| walk.id::<ComponentId>(&at));
        let to_at = walk.required(&map, "to", "split");
        let to = to_at.as_ref().and_then(|at| walk.id::<ComponentId>(at));
        let grouping =
            walk.required(&map, "grouping", "{type: SHUFFLE}").and_then(|at| read_grouping(walk, &at));
        let (from, to, to_at, (grouping, stream)) = (from?, to?, to_at?, grouping?);
        let is_elsewhere = self.is_partial && !self.components.contains_key(&from);
        let Some(target) = self.components.get_mut(&to) else {
            if self.is_partial {
                return None;
            }
            let known = self.components.keys().map(ComponentId::as_str);
            let advice = hint(to.as_str(), known);
            walk.fault(&to_at, format!("there is no component `{to}`"), advice);
            return None;
        };
        let place = Place::Component(target.kind, to, Part::Input(target.inputs.len()));
        if is_elsewhere || unknown_outputs.contains(&from) {
            self.suppressed.insert(place.clone());
        }
        let position = map.get("from").map_or(at.node.at, |at| at.node.at);
        self.places.insert(place, (at.path.clone(), position));
        target.inputs.push(Input { from, stream, grouping });
        Some(())
    }
}

/// Types of grouping, by their names in Flux.
const GROUPINGS: &[&str] =
    &["SHUFFLE", "LOCAL_OR_SHUFFLE", "FIELDS", "PARTIAL_KEY", "ALL", "GLOBAL", "NONE", "DIRECT"];

/// Class of Storm's partial-key grouping, which Flux can name in a custom grouping only.
const PARTIAL_KEY_CLASS: &str = "org.apache.storm.grouping.PartialKeyGrouping";

fn read_grouping(walk: &mut Walk, at: &At<'_>) -> Option<(Grouping, StreamId)> {
    let unsupported = [("customClass", "a custom grouping needs a JVM")];
    let map = walk.map(at, &["type", "args", "streamId"], &unsupported)?;
    if let Some(class) = map.get("customClass").and_then(|at| absent::class_in(&at)) {
        absent::refuse(walk, &class);
    }
    let stream = match map.get("streamId") {
        Some(at) => walk.id(&at),
        None => Some(StreamId::default_stream()),
    };
    let kind_at = walk.required(&map, "type", "SHUFFLE")?;
    let kind = walk.text(&kind_at)?.to_ascii_uppercase();
    let grouping = match kind.as_str() {
        "SHUFFLE" => Grouping::Shuffle,
        "LOCAL_OR_SHUFFLE" => Grouping::LocalOrShuffle,
        "FIELDS" | "PARTIAL_KEY" => {
            let fields = walk.required(&map, "args", "[word]").and_then(|at| walk.texts(&at))?;
            let grouping = if kind == "FIELDS" { Grouping::Fields } else { Grouping::PartialKey };
            return Some((grouping(fields), stream?));
        }
        "ALL" => Grouping::All,
        "GLOBAL" => Grouping::Global,
        "NONE" => Grouping::None,
        "DIRECT" => Grouping::Direct,
        "CUSTOM" => {
            let advice = format!(
                "use another type (PARTIAL_KEY for {PARTIAL_KEY_CLASS}), or use DIRECT and select the task in the \
                 emitter"
            );
            walk.fault(&kind_at, "a custom grouping needs a JVM", advice);
            return None;
        }
        _ => {
            let advice = hint(&kind, GROUPINGS.iter().copied());
            walk.fault(&kind_at, format!("there is no grouping {kind}"), advice);
            return None;
        }
    };
    if let Some(args) = map.get("args") {
        walk.fault(&args, format!("{kind} has no args"), "only FIELDS has args".to_owned());
    }
    Some((grouping, stream?))
}

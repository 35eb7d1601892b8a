//! Declaration of a topology.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde_json::Value;

use stormkeeper_model::{
    ComponentId, StreamId, TopologyName,
    platform::{Formats, Libc, Platform, Program},
    topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, Topology},
    validate::{self, TopologyDefect},
};
use stormkeeper_worker::component::{Bolt, Components, Spout};

/// Declares the components of a topology, their streams and their settings.
///
/// Declaring does nothing else: [`run`](crate::run) takes the builder, and the same program declares its
/// topology when it is submitted and in each of its workers. So a declaration must not depend on where the
/// program runs; what is special to a run belongs into settings (`stormkeeper submit PROGRAM -c key=value`),
/// which [`TopologyContext::setting`](crate::TopologyContext::setting) reads.
#[derive(Debug)]
pub struct TopologyBuilder {
    name: String,
    settings: BTreeMap<String, Value>,
    components: BTreeMap<ComponentId, Component>,
    code: Components,
    resources: Option<PathBuf>,
    // Names that are not valid, and ids that occur twice.
    faults: Vec<String>,
}

/// A stream to receive: a component, for its default stream, or a component and a stream of it.
pub trait Source {
    /// Returns the component and the stream.
    fn parts(&self) -> (&str, &str);
}

impl Source for &str {
    fn parts(&self) -> (&str, &str) {
        (self, "default")
    }
}

impl Source for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        (self.0, self.1)
    }
}

/// Defects of a declared topology, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defects(Vec<String>);

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Defects {}

/// A topology with the code of its components.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) topology: Topology,
    pub(crate) code: Components,
    pub(crate) resources: Option<PathBuf>,
}

impl TopologyBuilder {
    /// Begins a topology of this name; `stormkeeper submit --name` may give it another one.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            settings: BTreeMap::new(),
            components: BTreeMap::new(),
            code: Components::default(),
            resources: None,
            faults: Vec::new(),
        }
    }

    /// Sets a setting of the topology, such as `topology.workers`.
    pub fn setting(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Submits the files in a directory with the topology: components find them in
    /// [`TopologyContext::resources`](crate::TopologyContext::resources), and commands are started there.
    /// Only the submit reads it; `concat!(env!("CARGO_MANIFEST_DIR"), "/resources")` is a directory of
    /// the sources.
    pub fn resources(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.resources = Some(dir.into());
        self
    }

    /// Declares a spout; `make` makes the instance of each of its tasks, in the worker that runs it.
    pub fn spout<S: Spout + 'static>(
        &mut self,
        id: &str,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Declaration<'_> {
        let parsed = self.declare(id, ComponentKind::Spout, Run::InWorker);
        if let Some(id) = parsed.clone() {
            self.code.add_spout(id, make);
        }
        Declaration { builder: self, id: parsed }
    }

    /// Declares a bolt; `make` makes the instance of each of its tasks, in the worker that runs it.
    pub fn bolt<B: Bolt + 'static>(
        &mut self,
        id: &str,
        make: impl Fn() -> B + Send + Sync + 'static,
    ) -> Declaration<'_> {
        let parsed = self.declare(id, ComponentKind::Bolt, Run::InWorker);
        if let Some(id) = parsed.clone() {
            self.code.add_bolt(id, make);
        }
        Declaration { builder: self, id: parsed }
    }

    /// Declares a spout that is a command which speaks Storm's multilang protocol, in any language.
    pub fn shell_spout<W: Into<String>>(
        &mut self,
        id: &str,
        command: impl IntoIterator<Item = W>,
    ) -> Declaration<'_> {
        let command = command.into_iter().map(Into::into).collect();
        let id = self.declare(id, ComponentKind::Spout, Run::Command(command));
        Declaration { builder: self, id }
    }

    /// Declares a bolt that is a command which speaks Storm's multilang protocol, in any language.
    pub fn shell_bolt<W: Into<String>>(
        &mut self,
        id: &str,
        command: impl IntoIterator<Item = W>,
    ) -> Declaration<'_> {
        let command = command.into_iter().map(Into::into).collect();
        let id = self.declare(id, ComponentKind::Bolt, Run::Command(command));
        Declaration { builder: self, id }
    }

    fn declare(&mut self, id: &str, kind: ComponentKind, run: Run) -> Option<ComponentId> {
        let id: ComponentId = match id.parse() {
            Ok(id) => id,
            Err(error) => {
                self.faults.push(format!("component {id:?}: {error}"));
                return None;
            }
        };
        let component = Component {
            kind,
            parallelism: 1,
            run,
            outputs: BTreeMap::new(),
            inputs: Vec::new(),
            settings: BTreeMap::new(),
        };
        if self.components.insert(id.clone(), component).is_some() {
            self.faults.push(format!("component {id}: it is declared twice"));
        }
        Some(id)
    }

    /// Returns the topology, if it can run.
    pub(crate) fn build(self) -> Result<Built, Defects> {
        let Self { name, settings, components, code, resources, mut faults } = self;
        let name =
            name.parse::<TopologyName>().map_err(|error| faults.push(format!("name {name:?}: {error}")));
        let Ok(name) = name else { return Err(Defects(faults)) };
        // The submit fills in what the program needs of its host.
        let unknown = Program {
            version: String::new(),
            formats: Formats { launch: 0, tree: 0 },
            needs: Platform { arch: String::new(), libc: Libc::None },
        };
        let mut topology = Topology {
            name,
            settings,
            components,
            program: Some(unknown),
            given_at_submission: Default::default(),
        };
        if let Err(defects) = validate::validate(&topology) {
            faults.extend(defects.iter().map(TopologyDefect::to_string));
        }
        topology.program = None;
        match faults.is_empty() {
            true => Ok(Built { topology, code, resources }),
            false => Err(Defects(faults)),
        }
    }
}

/// The component that was declared last, to be described further.
#[derive(Debug)]
pub struct Declaration<'b> {
    builder: &'b mut TopologyBuilder,
    // `None` if its id is not valid.
    id: Option<ComponentId>,
}

impl Declaration<'_> {
    /// Number of tasks; 1 unless it is set.
    pub fn parallelism(self, tasks: u32) -> Self {
        self.change(|component| component.parallelism = tasks)
    }

    /// Fields of the tuples that the component emits to its default stream.
    pub fn output<F: Into<String>>(self, fields: impl IntoIterator<Item = F>) -> Self {
        self.stream("default", fields)
    }

    /// Fields of the tuples that the component emits to a stream.
    pub fn stream<F: Into<String>>(self, stream: &str, fields: impl IntoIterator<Item = F>) -> Self {
        self.add_output(stream, fields, false)
    }

    /// A stream of which the component names the receiving task of every tuple.
    pub fn direct_stream<F: Into<String>>(self, stream: &str, fields: impl IntoIterator<Item = F>) -> Self {
        self.add_output(stream, fields, true)
    }

    /// Receives a stream; its tuples are shared evenly among the tasks.
    pub fn shuffle(self, from: impl Source) -> Self {
        self.receive(&from, Grouping::Shuffle)
    }

    /// Receives a stream; its tuples are shared evenly among the tasks in the worker of the emitting task, or
    /// among all tasks if that worker has none.
    pub fn local_or_shuffle(self, from: impl Source) -> Self {
        self.receive(&from, Grouping::LocalOrShuffle)
    }

    /// Receives a stream; tuples with equal values of these fields go to the same task.
    pub fn fields<F: Into<String>>(self, from: impl Source, fields: impl IntoIterator<Item = F>) -> Self {
        self.receive(&from, Grouping::Fields(fields.into_iter().map(Into::into).collect()))
    }

    /// Receives a stream; tuples with equal values of these fields go to two tasks, each to the one that the
    /// emitting task has sent fewer tuples.
    pub fn partial_key<F: Into<String>>(
        self,
        from: impl Source,
        fields: impl IntoIterator<Item = F>,
    ) -> Self {
        self.receive(&from, Grouping::PartialKey(fields.into_iter().map(Into::into).collect()))
    }

    /// Receives a stream; every task receives every tuple.
    pub fn all(self, from: impl Source) -> Self {
        self.receive(&from, Grouping::All)
    }

    /// Receives a stream; the task with the lowest id receives every tuple.
    pub fn global(self, from: impl Source) -> Self {
        self.receive(&from, Grouping::Global)
    }

    /// Receives a stream; the emitting component names the task.
    pub fn direct(self, from: impl Source) -> Self {
        self.receive(&from, Grouping::Direct)
    }

    /// Sets a setting of the component, which overrides the topology's.
    pub fn setting(self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.change(|component| {
            component.settings.insert(key.to_owned(), value);
        })
    }

    /// Calls [`Bolt::tick`] of the component in this period.
    pub fn tick_every(self, period: Duration) -> Self {
        self.setting("topology.tick.tuple.freq.secs", period.as_secs_f64())
    }

    fn add_output<F: Into<String>>(
        mut self,
        stream: &str,
        fields: impl IntoIterator<Item = F>,
        direct: bool,
    ) -> Self {
        let Some(stream) = self.parse::<StreamId>(stream) else { return self };
        let fields = fields.into_iter().map(Into::into).collect();
        let Self { builder, id } = &mut self;
        let component = id.as_ref().and_then(|id| builder.components.get_mut(id));
        let before = component.and_then(|component| {
            component.outputs.insert(stream.clone(), StreamDeclaration { fields, direct })
        });
        if let (Some(_), Some(id)) = (before, id) {
            builder.faults.push(format!("component {id}: its stream {stream} is declared twice"));
        }
        self
    }

    fn receive(mut self, source: &impl Source, grouping: Grouping) -> Self {
        let (from, stream) = source.parts();
        let parsed = self.parse(from).zip(self.parse(stream));
        let Some((from, stream)) = parsed else { return self };
        self.change(|component| component.inputs.push(Input { from, stream, grouping }))
    }

    fn parse<I: std::str::FromStr<Err: fmt::Display>>(&mut self, text: &str) -> Option<I> {
        let parsed = text.parse();
        if let (Err(error), Some(id)) = (&parsed, &self.id) {
            self.builder.faults.push(format!("component {id}: {error}"));
        }
        parsed.ok()
    }

    fn change(self, change: impl FnOnce(&mut Component)) -> Self {
        if let Some(component) = self.id.as_ref().and_then(|id| self.builder.components.get_mut(id)) {
            change(component);
        }
        self
    }
}

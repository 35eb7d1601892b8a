//! Groupings: selection of the receivers of a tuple.
//!
//! A [`Router`] belongs to one emitting task. It is rebuilt when the task table changes; its
//! shuffles then start at the beginning of their rings, which is uneven by less than one round
//! for each such change.

use std::sync::Arc;

use crate::{Encoded, Origin, hash};
use stormkeeper_model::{
    ComponentId, StreamId, TaskId,
    task_set::TaskSet,
    topology::{Grouping, Input, StreamDeclaration, TaskTable, Topology},
};

/// Error for a tuple that cannot be routed, or a topology for which no router can be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The emitting component is not part of the topology.
    #[error("component {component} is not in the topology")]
    UnknownComponent {
        /// The component.
        component: ComponentId,
    },
    /// The component declares no such stream.
    #[error("component {component} declares no stream {stream}")]
    UnknownStream {
        /// The emitting component.
        component: ComponentId,
        /// The stream to which it emitted.
        stream: StreamId,
    },
    /// A receiver groups by a field that the stream does not have.
    #[error("{receiver} groups by the field {field:?}, which stream {stream} of {component} does not have")]
    UnknownField {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
        /// The receiving component.
        receiver: ComponentId,
        /// The field.
        field: String,
    },
    /// A receiving component has no tasks in the task table.
    #[error("component {receiver} receives from {component} but has no tasks")]
    NoTasks {
        /// The emitting component.
        component: ComponentId,
        /// The receiving component.
        receiver: ComponentId,
    },
    /// A tuple has more or fewer values than its stream has fields.
    #[error("a tuple of stream {stream} of {component} needs {wanted} values and has {given}")]
    WrongNumberOfValues {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
        /// The number of declared fields.
        wanted: usize,
        /// The number of values.
        given: usize,
    },
    /// A tuple of a stream with direct grouping names no task.
    #[error("stream {stream} of {component} is direct: the emit must name a task")]
    DirectTaskMissing {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
    },
    /// The named task does not receive the stream by direct grouping.
    #[error("task {task} does not receive stream {stream} of {component} by direct grouping")]
    NotADirectReceiver {
        /// The emitting component.
        component: ComponentId,
        /// The stream.
        stream: StreamId,
        /// The task that the emit named.
        task: TaskId,
    },
}

/// Maximum number of tasks at which a shuffle looks for room, besides the one whose turn it is.
pub const PASSED_OVER_MAX: usize = 8;

/// Selects the receivers of one task's tuples. Pure; its only state are the positions of its
/// shuffles.
#[derive(Debug, Clone)]
pub struct Router {
    component: ComponentId,
    streams: Vec<(StreamId, Stream)>,
    // Position of the default stream, to which most tuples are emitted.
    default: Option<usize>,
}

#[derive(Debug, Clone)]
struct Stream {
    origin: Arc<Origin>,
    n_fields: usize,
    // The emitter names the receiver of every tuple.
    direct: bool,
    receivers: Vec<Receiver>,
}

/// One input of one receiving component. Its tasks are never empty.
#[derive(Debug, Clone)]
enum Receiver {
    // The tasks in a shuffled order and the position of the next one.
    Ring { tasks: Vec<TaskId>, next: usize },
    // The tasks in ascending order and the positions of the grouped values.
    ByHash { tasks: Vec<TaskId>, positions: Vec<usize> },
    // The same, and the number of tuples that each task was sent.
    ByTwoHashes { tasks: Vec<TaskId>, positions: Vec<usize>, sent: Vec<u64> },
    Every { tasks: Vec<TaskId> },
    One { task: TaskId },
    Named { tasks: TaskSet },
}

impl Router {
    /// The router of task `source`, which runs `component`. `local` are the tasks of its own
    /// worker.
    ///
    /// # Errors
    /// [`Error::UnknownComponent`], [`Error::UnknownField`] or [`Error::NoTasks`] when
    /// topology and table do not match; a validated topology and its table do.
    pub fn new(
        topology: &Topology,
        table: &TaskTable,
        component: &ComponentId,
        source: TaskId,
        local: &TaskSet,
    ) -> Result<Self, Error> {
        let emitter = topology
            .components
            .get(component)
            .ok_or_else(|| Error::UnknownComponent { component: component.clone() })?;
        let mut streams = Vec::new();
        for (stream, declaration) in &emitter.outputs {
            let origin = Origin { task: source, component: component.clone(), stream: stream.clone() };
            let mut receivers = Vec::new();
            for (receiver, input) in inputs_from(topology, &origin) {
                let tasks = table.0.get(receiver).filter(|tasks| !tasks.is_empty());
                let tasks = tasks.ok_or_else(|| Error::NoTasks {
                    component: component.clone(),
                    receiver: receiver.clone(),
                })?;
                // Emitters that start together must not all start with the same receiver.
                let seed = (u64::from(source.0) << 32) | receivers.len() as u64;
                receivers.push(Receiver::new(&origin, declaration, receiver, input, tasks, local, seed)?);
            }
            let direct =
                declaration.direct || receivers.iter().any(|one| matches!(one, Receiver::Named { .. }));
            let n_fields = declaration.fields.len();
            let known = Stream { origin: Arc::new(origin), n_fields, direct, receivers };
            streams.push((stream.clone(), known));
        }
        let is_default = |(stream, _): &(StreamId, _)| *stream == StreamId::default_stream();
        let default = streams.iter().position(is_default);
        Ok(Self { component: component.clone(), streams, default })
    }

    /// Returns whether a stream has receivers among which a shuffle can choose.
    pub fn has_choice(&self) -> bool {
        let mut receivers = self.streams.iter().flat_map(|(_, stream)| &stream.receivers);
        receivers.any(|receiver| matches!(receiver, Receiver::Ring { tasks, .. } if tasks.len() > 1))
    }

    /// Lets the shuffles of a stream pass over tasks without room: the next turn is that of the first
    /// task with room, of the task whose turn it is and the [`PASSED_OVER_MAX`] after it. If none of them
    /// has room, all are added to `full`, and the turn stays. A stream that is not declared has no
    /// shuffles.
    ///
    /// So each of `n` tasks that have room receives at least one of any `n` tuples in a row, and if all have
    /// room, nothing changes.
    pub fn pass_over(
        &mut self,
        stream: Option<&StreamId>,
        mut has_room: impl FnMut(TaskId) -> bool,
        full: &mut Vec<TaskId>,
    ) {
        let Some(position) = self.position(stream) else { return };
        for receiver in &mut self.streams[position].1.receivers {
            if let Receiver::Ring { tasks, next } = receiver {
                let turns = (*next..tasks.len()).chain(0..*next).take(1 + PASSED_OVER_MAX);
                match turns.clone().find(|at| has_room(tasks[*at])) {
                    Some(at) => *next = at,
                    None => full.extend(turns.map(|at| tasks[at])),
                }
            }
        }
    }

    fn position(&self, stream: Option<&StreamId>) -> Option<usize> {
        match stream {
            Some(stream) => self.streams.iter().position(|(known, _)| known == stream),
            None => self.default,
        }
    }

    /// Clears `out` and writes the receivers of a tuple into it: in the order of the
    /// receiving components, each task as often as it receives the tuple. No receiver at all
    /// is not an error. `stream` is `None` for the default stream, and `direct` the task that the emit names.
    /// Returns the origin of the tuple.
    ///
    /// # Errors
    /// [`Error::UnknownStream`], [`Error::WrongNumberOfValues`], and for a stream that is
    /// received by direct grouping, or an emit that names a task,
    /// [`Error::DirectTaskMissing`] and [`Error::NotADirectReceiver`]. `out` is then empty.
    pub fn route(
        &mut self,
        stream: Option<&StreamId>,
        values: Encoded<'_>,
        direct: Option<TaskId>,
        out: &mut Vec<TaskId>,
    ) -> Result<&Arc<Origin>, Error> {
        out.clear();
        let position = self.position(stream);
        let component = &self.component;
        let Some((stream, known)) = position.map(|position| &mut self.streams[position]) else {
            let stream = stream.cloned().unwrap_or_else(StreamId::default_stream);
            return Err(Error::UnknownStream { component: component.clone(), stream });
        };
        if values.len() != known.n_fields {
            let (component, stream) = (component.clone(), stream.clone());
            let (wanted, given) = (known.n_fields, values.len());
            return Err(Error::WrongNumberOfValues { component, stream, wanted, given });
        }
        match direct {
            Some(task) if known.receivers.iter().any(|receiver| receiver.receives_direct(task)) => {
                out.push(task);
                Ok(&known.origin)
            }
            Some(task) => {
                let (component, stream) = (component.clone(), stream.clone());
                Err(Error::NotADirectReceiver { component, stream, task })
            }
            None if known.direct => {
                Err(Error::DirectTaskMissing { component: component.clone(), stream: stream.clone() })
            }
            None => {
                for receiver in &mut known.receivers {
                    receiver.deal(values, out);
                }
                Ok(&known.origin)
            }
        }
    }
}

/// Every input of the topology that receives from `origin`, with the receiving component.
fn inputs_from<'a>(
    topology: &'a Topology,
    origin: &'a Origin,
) -> impl Iterator<Item = (&'a ComponentId, &'a Input)> {
    topology.components.iter().flat_map(|(receiver, component)| {
        component
            .inputs
            .iter()
            .filter(|input| input.from == origin.component && input.stream == origin.stream)
            .map(move |input| (receiver, input))
    })
}

impl Receiver {
    fn new(
        origin: &Origin,
        declaration: &StreamDeclaration,
        receiver: &ComponentId,
        input: &Input,
        tasks: &TaskSet,
        local: &TaskSet,
        seed: u64,
    ) -> Result<Self, Error> {
        let all = || tasks.iter().collect::<Vec<_>>();
        Ok(match &input.grouping {
            Grouping::Shuffle | Grouping::None => Self::ring(all(), seed),
            Grouping::LocalOrShuffle => {
                let near: Vec<_> = tasks.iter().filter(|task| local.contains(*task)).collect();
                Self::ring(if near.is_empty() { all() } else { near }, seed)
            }
            Grouping::Fields(fields) | Grouping::PartialKey(fields) => {
                let position = |field: &String| {
                    declaration.fields.iter().position(|declared| declared == field).ok_or_else(|| {
                        Error::UnknownField {
                            component: origin.component.clone(),
                            stream: origin.stream.clone(),
                            receiver: receiver.clone(),
                            field: field.clone(),
                        }
                    })
                };
                let positions = fields.iter().map(position).collect::<Result<_, _>>()?;
                let (tasks, is_whole_key) = (all(), matches!(&input.grouping, Grouping::Fields(_)));
                match is_whole_key {
                    true => Self::ByHash { tasks, positions },
                    false => Self::ByTwoHashes { sent: vec![0; tasks.len()], tasks, positions },
                }
            }
            Grouping::All => Self::Every { tasks: all() },
            Grouping::Global => Self::One { task: tasks.iter().next().expect("tasks are never empty") },
            Grouping::Direct => Self::Named { tasks: tasks.clone() },
        })
    }

    fn ring(mut tasks: Vec<TaskId>, seed: u64) -> Self {
        fastrand::Rng::with_seed(seed).shuffle(&mut tasks);
        Self::Ring { tasks, next: 0 }
    }

    fn receives_direct(&self, task: TaskId) -> bool {
        match self {
            Self::Named { tasks } => tasks.contains(task),
            Self::Ring { .. }
            | Self::ByHash { .. }
            | Self::ByTwoHashes { .. }
            | Self::Every { .. }
            | Self::One { .. } => false,
        }
    }

    fn deal(&mut self, values: Encoded<'_>, out: &mut Vec<TaskId>) {
        match self {
            Self::Ring { tasks, next } => {
                out.push(tasks[*next]);
                *next = if *next + 1 == tasks.len() { 0 } else { *next + 1 };
            }
            Self::ByHash { tasks, positions } => {
                let hash = hash::of_encoded(values, positions);
                out.push(tasks[index_of(hash, tasks.len())]);
            }
            Self::ByTwoHashes { tasks, positions, sent } => {
                let hash = hash::of_encoded(values, positions);
                let first = index_of(hash, tasks.len());
                let second = second_choice(first, hash, tasks.len());
                let chosen = if sent[second] < sent[first] { second } else { first };
                sent[chosen] += 1;
                out.push(tasks[chosen]);
            }
            Self::Every { tasks } => out.extend_from_slice(tasks),
            Self::One { task } => out.push(*task),
            // Reached by name alone: a stream with such a receiver rejects other emits.
            Self::Named { .. } => {}
        }
    }
}

fn index_of(hash: u64, n: usize) -> usize {
    usize::try_from(hash % n as u64).expect("below the number of tasks")
}

/// Returns the index of the other task for a key of this hash: another one, if there is any.
fn second_choice(first: usize, hash: u64, n: usize) -> usize {
    match n {
        1 => first,
        n => (first + 1 + index_of(hash::again(hash), n - 1)) % n,
    }
}

#[cfg(test)]
mod tests;

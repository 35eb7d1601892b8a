//! Events of the cluster, for people: elections, moves of tasks, and their reasons.
//!
//! An event is written in the same transaction as the change it describes, so the list contains
//! exactly the changes that took effect, in their order. The list is the same on every replica and
//! outlives each of them.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::{
    cluster::{
        layout,
        record::{self, UnknownFields},
    },
    tree::{CreateMode, Op},
};
use stormkeeper_model::{
    InvalidId, NimbusId, Term, Timestamp, TopologyId,
    clock::Clock,
    event::{EventKind, Move},
    task_set::MAX_TASKS,
    text,
    topology::TaskTable,
};

/// Number of events that are kept. Owners share it: of the owner with the most, the oldest are
/// deleted first.
pub const EVENTS_KEPT: usize = 500;

/// Maximum size of a stored event; moves that do not fit are only counted.
pub const EVENT_BYTES_MAX: usize = 8 * 1024;

/// Maximum size of the reason.
const REASON_BYTES_MAX: usize = 1024;

/// Number of an event: later events have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNumber(pub u64);

impl fmt::Display for EventNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{:010}", self.0)
    }
}

impl FromStr for EventNumber {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = text.strip_prefix('e').and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or_else(|| InvalidId {
            kind: "event number",
            text: text.to_owned(),
            reason: "it is not the letter e followed by digits",
        })
    }
}

/// `/events/{sequence}`: one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the event, by the clock of the nimbus that wrote it.
    #[serde(rename = "time_ms")]
    pub time: Timestamp,
    /// Term of that nimbus.
    pub term: Term,
    /// The nimbus that made the change.
    pub nimbus: NimbusId,
    /// Kind of the event.
    pub event: EventKind,
    /// The affected topology, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyId>,
    /// Reason for the change.
    pub reason: String,
    /// The user who requested the change, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Moves of tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "read_moves")]
    pub moves: Vec<Move>,
    /// Number of further moves that are not listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moves_omitted: usize,
    /// Details of a submit; absent for other kinds and in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Submitted>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown_fields: UnknownFields,
}

/// Details of a submit for the history, which may process the event after the topology's records
/// have been removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Owner of the topology.
    pub owner: String,
    /// Share of values that are sorted into histograms' buckets, if the settings specify it. Always
    /// finite, because JSON has no other numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Tasks of the topology; empty if they would have made the event too long.
    #[serde(default, skip_serializing_if = "has_no_tasks")]
    pub tasks: TaskTable,
}

// The rate is never NaN.
impl Eq for Submitted {}

/// Reads moves, and counts their tasks meanwhile: a move of a few bytes can list a million of them.
fn read_moves<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Move>, D::Error> {
    struct Moves;
    impl<'de> Visitor<'de> for Moves {
        type Value = Vec<Move>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of moves")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Move>, A::Error> {
            let (mut moves, mut n_tasks) = (Vec::new(), 0);
            while let Some(one) = seq.next_element::<Move>()? {
                n_tasks += one.tasks.len();
                if n_tasks > MAX_TASKS as usize {
                    return Err(A::Error::custom(format!("more than {MAX_TASKS} tasks are moved")));
                }
                moves.push(one);
            }
            Ok(moves)
        }
    }
    from.deserialize_seq(Moves)
}

fn has_no_tasks(tasks: &TaskTable) -> bool {
    tasks.0.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// An event before its writer, term and time are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// Kind of the event.
    pub event: EventKind,
    /// The affected topology, if any.
    pub topology: Option<TopologyId>,
    /// Reason for the change.
    pub reason: String,
    /// The user who requested the change, if any.
    pub by: Option<String>,
    /// Moves of tasks.
    pub moves: Vec<Move>,
    /// Details of a submit.
    pub submitted: Option<Submitted>,
}

impl EventDraft {
    /// Creates an event of the whole cluster.
    pub fn of_cluster(event: EventKind, reason: impl Into<String>) -> Self {
        Self { event, topology: None, reason: reason.into(), by: None, moves: Vec::new(), submitted: None }
    }

    /// Creates an event of one topology.
    pub fn of(topology: &TopologyId, event: EventKind, reason: impl Into<String>) -> Self {
        Self { topology: Some(topology.clone()), ..Self::of_cluster(event, reason) }
    }
}

/// Writer of events, in one term.
#[derive(Debug, Clone)]
pub struct EventWriter {
    /// The nimbus that writes.
    pub nimbus: NimbusId,
    /// Term of that nimbus.
    pub term: Term,
    /// Clock of that nimbus.
    pub clock: Clock,
}

impl EventWriter {
    /// Returns the operation that appends an event to the list.
    pub fn append(&self, draft: EventDraft) -> Op {
        let EventDraft { event, topology, reason, by, moves, submitted } = draft;
        let (time, term, nimbus) = (self.clock.now(), self.term, self.nimbus.clone());
        let (moves_omitted, unknown_fields) = (0, UnknownFields::new());
        Event {
            time,
            term,
            nimbus,
            event,
            topology,
            reason,
            by,
            moves,
            moves_omitted,
            submitted,
            unknown_fields,
        }
        .op()
    }
}

impl Event {
    /// Returns the operation that appends this event to the list.
    fn op(mut self) -> Op {
        self.reason = text::shortened(&self.reason, REASON_BYTES_MAX).into_owned();
        let mut data = record::encode(&self);
        if data.len() > EVENT_BYTES_MAX
            && let Some(submitted) = &mut self.submitted
        {
            submitted.tasks = TaskTable::default();
            data = record::encode(&self);
        }
        while data.len() > EVENT_BYTES_MAX && !self.moves.is_empty() {
            // Halving needs only a few attempts, however many moves there are.
            let kept = self.moves.len() / 2;
            self.moves_omitted += self.moves.len() - kept;
            self.moves.truncate(kept);
            data = record::encode(&self);
        }
        Op::Create { path: layout::event_prefix(), data, mode: CreateMode::PersistentSequential }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_model::{Port, Slot, task_set::TaskSet};

    fn slot(port: u16) -> Slot {
        Slot { supervisor: "s".parse().expect("valid"), port: Port(port) }
    }

    fn event(moves: Vec<Move>) -> Event {
        Event {
            time: Timestamp::from_millis(5),
            term: Term(3),
            nimbus: "n".parse().expect("valid"),
            event: EventKind::Moved,
            topology: Some("t-1-1".parse().expect("valid")),
            reason: "why".to_owned(),
            by: None,
            moves,
            moves_omitted: 0,
            submitted: None,
            unknown_fields: UnknownFields::new(),
        }
    }

    #[test]
    fn event_that_moves_too_many_tasks_is_rejected_while_it_is_read() {
        let tasks: TaskSet = "1-600000".parse().expect("valid");
        let one = Move { tasks, from: None, to: Some(slot(1)) };
        let text = serde_json::to_string(&event(vec![one.clone(), one])).expect("JSON");
        let error = serde_json::from_str::<Event>(&text).expect_err("too many tasks").to_string();
        assert!(error.starts_with("more than 1000000 tasks are moved at line 1"), "{error}");
    }

    #[test]
    fn event_is_read_back_and_bounded_in_size() {
        let all =
            |n| (0..n).map(|i| Move { tasks: TaskSet::range(i, i), from: None, to: Some(slot(1)) }).collect();
        let data = |event: Event| match event.op() {
            Op::Create { data, mode: CreateMode::PersistentSequential, .. } => data,
            op => panic!("{op:?}"),
        };
        let small = event(all(3));
        let path = layout::event(EventNumber(7));
        assert_eq!(path.as_str(), "/events/e0000000007");
        assert_eq!(record::decode::<Event>(&path, &data(small.clone())).expect("readable"), small);
        let mut large = event(all(1000));
        large.reason = "é".repeat(5000);
        let bytes = data(large);
        assert!(bytes.len() <= EVENT_BYTES_MAX);
        let read: Event = record::decode(&path, &bytes).expect("readable");
        assert_eq!(read.moves.len() + read.moves_omitted, 1000);
    }

    #[test]
    fn submit_event_omits_tasks_that_do_not_fit() {
        let tasks =
            |n: u32| TaskTable::number((0..n).map(|i| (format!("component-{i}").parse().expect("valid"), 1)));
        for (n, is_whole) in [(2, true), (1000, false)] {
            let submitted = Submitted { owner: "ann".to_owned(), sample_rate: Some(0.5), tasks: tasks(n) };
            let event = Event {
                event: EventKind::Submitted,
                submitted: Some(submitted.clone()),
                ..event(Vec::new())
            };
            let Op::Create { data, .. } = event.op() else { panic!("an event is created") };
            assert!(data.len() <= EVENT_BYTES_MAX);
            let read: Event = record::decode(&layout::events(), &data).expect("readable");
            let tasks = if is_whole { submitted.tasks.clone() } else { TaskTable::default() };
            assert_eq!(read.submitted, Some(Submitted { tasks, ..submitted }));
        }
    }

    #[test]
    fn event_kind_of_a_newer_version_is_read_as_other() {
        let text =
            r#"{"v":1,"time_ms":1,"term":1,"nimbus":"n","event":"levitated","reason":"","colour":"blue"}"#;
        let read: Event = record::decode(&layout::events(), text.as_bytes()).expect("readable");
        assert_eq!(read.event, EventKind::Other);
    }
}

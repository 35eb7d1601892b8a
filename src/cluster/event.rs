//! What happened in the cluster, for people: who led, what moved where, and why.
//!
//! An event is written in the transaction of what it tells of, so that the list holds what
//! took effect and nothing else, in the order in which it did; it is the same on every
//! replica and outlives each of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    cluster::{layout, record},
    model::{
        InvalidId, NimbusId, Term, Timestamp, TopologyId,
        event::{EventKind, Move},
        topology::TaskTable,
    },
    tree::{CreateMode, Op},
};

/// How many events are kept; the oldest go first.
pub const EVENTS_KEPT: usize = 500;

/// The longest event as it is stored; the moves that do not fit are only counted.
pub const EVENT_BYTES_MAX: usize = 8 * 1024;

/// The longest reason.
const REASON_BYTES_MAX: usize = 1024;

/// The number of an event: later ones are larger.
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
            reason: "it is not an e with digits behind it",
        })
    }
}

/// `/events/{sequence}`: one thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the clock of the nimbus that wrote it.
    #[serde(rename = "time_ms")]
    pub time: Timestamp,
    /// The term in which it happened.
    pub term: Term,
    /// The nimbus that did it.
    pub nimbus: NimbusId,
    /// What.
    pub event: EventKind,
    /// The topology it happened to, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyId>,
    /// Why.
    pub reason: String,
    /// Who asked for it, if someone did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The tasks that got another place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// How many more moves there were than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moves_left_out: usize,
    /// What was submitted; of an event of that kind, and not of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Submitted>,
}

/// What a submit leaves for the history, which may only learn of the topology when its records
/// are gone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Whose topology it is.
    pub owner: String,
    /// The share of values that go into histograms' buckets, where its settings say. Always
    /// finite: what is not, no JSON holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// Its tasks; empty when they would have made the event too long.
    #[serde(default, skip_serializing_if = "has_no_tasks")]
    pub tasks: TaskTable,
}

// The rate is never NaN.
impl Eq for Submitted {}

fn has_no_tasks(tasks: &TaskTable) -> bool {
    tasks.0.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// What an event tells, besides who tells it and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub event: EventKind,
    /// The topology it happened to, if one.
    pub topology: Option<TopologyId>,
    /// Why.
    pub reason: String,
    /// Who asked for it, if someone did.
    pub by: Option<String>,
    /// The tasks that got another place.
    pub moves: Vec<Move>,
    /// What was submitted, of a submit.
    pub submitted: Option<Submitted>,
}

impl Told {
    /// Something that happened to the cluster, not to one topology.
    pub fn of_cluster(event: EventKind, reason: impl Into<String>) -> Self {
        Self { event, topology: None, reason: reason.into(), by: None, moves: Vec::new(), submitted: None }
    }

    /// Something that happened to one topology.
    pub fn of(topology: &TopologyId, event: EventKind, reason: impl Into<String>) -> Self {
        Self { topology: Some(topology.clone()), ..Self::of_cluster(event, reason) }
    }
}

/// Who tells, in one term.
#[derive(Debug, Clone)]
pub struct Author {
    /// The nimbus.
    pub nimbus: NimbusId,
    /// Its term.
    pub term: Term,
    /// Its clock.
    pub clock: Clock,
}

impl Author {
    /// The operation that adds an event to the list.
    pub fn tell(&self, told: Told) -> Op {
        let Told { event, topology, reason, by, moves, submitted } = told;
        let (time, term, nimbus) = (self.clock.now(), self.term, self.nimbus.clone());
        let moves_left_out = 0;
        Event { time, term, nimbus, event, topology, reason, by, moves, moves_left_out, submitted }.op()
    }
}

impl Event {
    /// The operation that adds this event to the list.
    fn op(mut self) -> Op {
        if self.reason.len() > REASON_BYTES_MAX {
            let end =
                (0..=REASON_BYTES_MAX).rev().find(|end| self.reason.is_char_boundary(*end)).unwrap_or(0);
            self.reason.truncate(end);
            self.reason.push('…');
        }
        let mut data = record::encode(&self);
        if data.len() > EVENT_BYTES_MAX
            && let Some(submitted) = &mut self.submitted
        {
            submitted.tasks = TaskTable::default();
            data = record::encode(&self);
        }
        while data.len() > EVENT_BYTES_MAX && !self.moves.is_empty() {
            // Half at a time: a handful of tries, however many there are.
            let kept = self.moves.len() / 2;
            self.moves_left_out += self.moves.len() - kept;
            self.moves.truncate(kept);
            data = record::encode(&self);
        }
        Op::Create { path: layout::event_prefix(), data, mode: CreateMode::PersistentSequential }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Port, Slot, task_set::TaskSet};

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
            moves_left_out: 0,
            submitted: None,
        }
    }

    #[test]
    fn an_event_reads_back_and_is_bounded() {
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
        assert_eq!(read.moves.len() + read.moves_left_out, 1000);
    }

    #[test]
    fn a_submit_tells_what_it_was_of_as_far_as_there_is_room() {
        let tasks =
            |n: u32| TaskTable::number((0..n).map(|i| (format!("component-{i}").parse().expect("valid"), 1)));
        for (n, is_whole) in [(2, true), (1000, false)] {
            let submitted = Submitted { owner: "ann".to_owned(), sample_rate: Some(0.5), tasks: tasks(n) };
            let told = Event {
                event: EventKind::Submitted,
                submitted: Some(submitted.clone()),
                ..event(Vec::new())
            };
            let Op::Create { data, .. } = told.op() else { panic!("an event is created") };
            assert!(data.len() <= EVENT_BYTES_MAX);
            let read: Event = record::decode(&layout::events(), &data).expect("readable");
            let tasks = if is_whole { submitted.tasks.clone() } else { TaskTable::default() };
            assert_eq!(read.submitted, Some(Submitted { tasks, ..submitted }));
        }
    }

    #[test]
    fn what_a_newer_version_tells_of_is_readable() {
        let text =
            r#"{"v":2,"time_ms":1,"term":1,"nimbus":"n","event":"levitated","reason":"","colour":"blue"}"#;
        let read: Event = record::decode(&layout::events(), text.as_bytes()).expect("readable");
        assert_eq!(read.event, EventKind::Other);
    }
}

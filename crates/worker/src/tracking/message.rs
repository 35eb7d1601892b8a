//! Messages between the trackers of two workers, as tuples of the system.
//!
//! ```text
//! values = [[root, spout, edges, …], [root, edges, …], [root, …], [root, …], [spout, root, outcome, …]]
//!           begun                    acked             failed     reset      told
//! ```
//!
//! All numbers are whole. `told` goes from an acker to a spout's worker, everything else to an acker.
//! An outcome is 0 (acked), 1 (failed) or 2 (timeout reset).

use std::sync::Arc;

use super::{News, ledger::Outcome};
use stormkeeper_model::TaskId;
use stormkeeper_stream::{Origin, Tuple, Value};

/// Component of these tuples; no component of a topology has such a name.
pub(crate) const ACKER: &str = "__acker";

const STREAM: &str = "__track";

/// A number of changes for the tracker of another worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Trees that began: root, spout task and edges.
    pub(super) begun: Vec<(u64, TaskId, u64)>,
    /// Edges of acked deliveries by root.
    pub(super) acked: Vec<(u64, u64)>,
    /// Roots of trees of which a delivery failed.
    pub(super) failed: Vec<u64>,
    /// Roots of trees whose timeout starts again.
    pub(super) reset: Vec<u64>,
    /// News for spouts.
    pub(super) told: Vec<(TaskId, u64, News)>,
}

/// A tuple that should have been a message, and is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of a tracker: {0}")]
pub(crate) struct Invalid(&'static str);

impl Changes {
    /// Returns the message as a tuple.
    pub(super) fn to_tuple(&self) -> Tuple {
        let list = |numbers: &mut dyn Iterator<Item = u64>| Value::List(numbers.map(Value::from).collect());
        let task = |task: TaskId| u64::from(task.0);
        let values = vec![
            list(&mut self.begun.iter().flat_map(|(root, spout, edges)| [*root, task(*spout), *edges])),
            list(&mut self.acked.iter().flat_map(|(root, edges)| [*root, *edges])),
            list(&mut self.failed.iter().copied()),
            list(&mut self.reset.iter().copied()),
            list(&mut self.told.iter().flat_map(|(spout, root, news)| [task(*spout), *root, code(*news)])),
        ];
        let origin = Origin {
            task: TaskId(0),
            component: ACKER.parse().expect("a valid id"),
            stream: STREAM.parse().expect("a valid id"),
        };
        Tuple::new(Arc::new(origin), values)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Invalid`] if the values are not those of a message; nothing of it is used.
    pub(super) fn of_tuple(tuple: &Tuple) -> Result<Self, Invalid> {
        let [begun, acked, failed, reset, told] = tuple.values() else {
            return Err(Invalid("it has not five values"));
        };
        let task =
            |number: u64| u32::try_from(number).map(TaskId).map_err(|_| Invalid("a task is too large"));
        Ok(Self {
            begun: groups(begun)?
                .into_iter()
                .map(|[root, spout, edges]| Ok((root, task(spout)?, edges)))
                .collect::<Result<_, _>>()?,
            acked: groups(acked)?.into_iter().map(|[root, edges]| (root, edges)).collect(),
            failed: groups(failed)?.into_iter().map(|[root]| root).collect(),
            reset: groups(reset)?.into_iter().map(|[root]| root).collect(),
            told: groups(told)?
                .into_iter()
                .map(|[spout, root, code]| Ok((task(spout)?, root, news(code)?)))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn code(news: News) -> u64 {
    match news {
        News::Ended(Outcome::Acked) => 0,
        News::Ended(Outcome::Failed) => 1,
        News::TimeoutReset => 2,
    }
}

fn news(code: u64) -> Result<News, Invalid> {
    match code {
        0 => Ok(News::Ended(Outcome::Acked)),
        1 => Ok(News::Ended(Outcome::Failed)),
        2 => Ok(News::TimeoutReset),
        _ => Err(Invalid("an outcome is unknown")),
    }
}

/// Returns the numbers of a list in groups of `N`.
fn groups<const N: usize>(list: &Value) -> Result<Vec<[u64; N]>, Invalid> {
    let Value::List(list) = list else { return Err(Invalid("a value is not a list")) };
    let (groups, rest) = list.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(Invalid("a list ends early"));
    }
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| Invalid("a number is negative")),
        Value::UInt(number) => Ok(*number),
        _ => Err(Invalid("a value is not a number")),
    };
    let group = |group: &[Value; N]| {
        let mut numbers = [0; N];
        for (to, from) in numbers.iter_mut().zip(group) {
            *to = number(from)?;
        }
        Ok(numbers)
    };
    groups.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_reads_back() {
        let changes = Changes {
            begun: vec![(u64::MAX, TaskId(3), 0), (1, TaskId(u32::MAX), u64::MAX)],
            acked: vec![(4, 5)],
            failed: vec![6, 7],
            reset: vec![],
            told: vec![
                (TaskId(1), 8, News::Ended(Outcome::Acked)),
                (TaskId(2), 9, News::Ended(Outcome::Failed)),
                (TaskId(3), 10, News::TimeoutReset),
            ],
        };
        assert_eq!(Changes::of_tuple(&changes.to_tuple()), Ok(changes));
        assert_eq!(Changes::of_tuple(&Changes::default().to_tuple()), Ok(Changes::default()));
    }

    #[test]
    fn tuple_that_is_no_message_is_refused_as_a_whole() {
        let refused = |values: serde_json::Value, reason: &str| {
            let values: Vec<Value> = serde_json::from_value(values).expect("values");
            let origin = Changes::default().to_tuple().origin().clone();
            let error = Changes::of_tuple(&Tuple::new(origin, values)).expect_err("invalid").to_string();
            assert!(error.ends_with(reason), "{error}");
        };
        refused(serde_json::json!([[], [], [], []]), "it has not five values");
        refused(serde_json::json!([[], 1, [], [], []]), "a value is not a list");
        refused(serde_json::json!([[1, 2], [], [], [], []]), "a list ends early");
        refused(serde_json::json!([[1, 1_u64 << 32, 3], [], [], [], []]), "a task is too large");
        refused(serde_json::json!([[], [1, -1], [], [], []]), "a number is negative");
        refused(serde_json::json!([[], [], [1.5], [], []]), "a value is not a number");
        refused(serde_json::json!([[], [], [], [], [1, 2, 3]]), "an outcome is unknown");
    }
}

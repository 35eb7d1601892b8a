//! Task sets in range notation: `1-4,7`.

use std::{borrow::Cow, collections::BTreeSet, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{InvalidId, TaskId};

/// A set of tasks of one topology. Its text form is a list of ranges, so that a worker with a
/// thousand tasks is still a short line in a znode.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskSet(BTreeSet<TaskId>);

/// Maximum number of tasks of a topology; it also bounds the cost of a hand-written range.
pub const MAX_TASKS: u32 = 1_000_000;

impl TaskSet {
    /// Returns the set of the tasks from `first` to `last`, both included.
    pub fn range(first: u32, last: u32) -> Self {
        Self((first..=last).map(TaskId).collect())
    }

    /// Returns the tasks in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = TaskId> + ExactSizeIterator + '_ {
        self.0.iter().copied()
    }

    /// Returns the number of tasks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the set contains `task`.
    pub fn contains(&self, task: TaskId) -> bool {
        self.0.contains(&task)
    }

    /// Adds `task`; returns true if it was absent.
    pub fn insert(&mut self, task: TaskId) -> bool {
        self.0.insert(task)
    }

    /// Removes `task`; returns true if it was present.
    pub fn remove(&mut self, task: TaskId) -> bool {
        self.0.remove(&task)
    }
}

impl FromIterator<TaskId> for TaskSet {
    fn from_iter<I: IntoIterator<Item = TaskId>>(tasks: I) -> Self {
        Self(tasks.into_iter().collect())
    }
}

impl fmt::Display for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tasks = self.0.iter().map(|task| task.0).peekable();
        let mut separator = "";
        while let Some(first) = tasks.next() {
            let mut last = first;
            while tasks.peek() == Some(&(last + 1)) {
                last = tasks.next().expect("peeked");
            }
            match last == first {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for TaskSet {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fail = |reason| InvalidId { kind: "set of tasks", text: text.to_owned(), reason };
        let number = |part: &str| part.parse::<u32>().map_err(|_| fail("a part is not a number or a range"));
        let mut tasks = BTreeSet::new();
        let mut n_listed = 0u32;
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(fail("a range ends before it begins"));
            }
            if last > MAX_TASKS {
                return Err(fail("a task number is larger than 1000000"));
            }
            // Overlapping ranges cost time in proportion to their length, however short their text.
            n_listed = n_listed.saturating_add(last - first + 1);
            if n_listed > MAX_TASKS {
                return Err(fail("it lists more than 1000000 tasks"));
            }
            tasks.extend((first..=last).map(TaskId));
        }
        Ok(Self(tasks))
    }
}

impl JsonSchema for TaskSet {
    fn schema_name() -> Cow<'static, str> {
        "TaskSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Tasks as a list of numbers and ranges: `1-4,7`. Empty without tasks.",
            "type": "string",
            "pattern": "^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$",
        })
    }
}

impl TryFrom<String> for TaskSet {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TaskSet> for String {
    fn from(tasks: TaskSet) -> Self {
        tasks.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn consecutive_tasks_are_written_as_ranges() {
        let set: TaskSet = [1, 2, 3, 7, 9, 10].into_iter().map(TaskId).collect();
        assert_eq!(set.to_string(), "1-3,7,9-10");
        assert_eq!(TaskSet::default().to_string(), "");
    }

    #[test]
    fn malformed_sets_are_rejected() {
        for bad in ["x", "1-", "4-2", "1-9999999999", "0-4294967295", "1 - 2"] {
            assert!(bad.parse::<TaskSet>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn overlapping_ranges_cost_no_more_than_one_range() {
        assert_eq!("1-1000000".parse::<TaskSet>().map(|set| set.len()), Ok(1_000_000));
        let error = "1-1000000,".repeat(100_000).parse::<TaskSet>().expect_err("too many");
        assert!(
            error
                .to_string()
                .ends_with("… (1000000 bytes) is not a valid set of tasks: it lists more than 1000000 tasks"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn every_set_reads_back(tasks in proptest::collection::btree_set(0u32..500, 0..80)) {
            let set: TaskSet = tasks.into_iter().map(TaskId).collect();
            prop_assert_eq!(set.to_string().parse::<TaskSet>(), Ok(set));
        }
    }
}

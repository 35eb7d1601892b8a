//! States of jobs and subtasks.

use serde_json::{Map, Value};

/// State of a job. Flink has more; these are the ones that a topology can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Submitted, and not placed yet.
    Created,
    /// Active, or inactive: then the spouts are stopped, and the bolts go on. Clients of Flink take
    /// `SUSPENDED` for a job whose state is unknown at present, and ask again until it has another one.
    Running,
    /// Rebalancing.
    Restarting,
    /// Killed, and not removed yet.
    Cancelling,
    /// Killed and removed: in the history.
    Canceled,
}

impl JobState {
    /// All of Flink's states, in the order of `timestamps`.
    const FLINK: [&'static str; 11] = [
        "INITIALIZING",
        "SUSPENDED",
        "CREATED",
        "FAILING",
        "FINISHED",
        "CANCELLING",
        "RUNNING",
        "RESTARTING",
        "FAILED",
        "CANCELED",
        "RECONCILING",
    ];

    /// Flink's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Restarting => "RESTARTING",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
        }
    }

    /// Returns `timestamps` of a job: 0 for each state but those in `known`.
    pub(crate) fn timestamps(known: &[(Self, u64)]) -> Value {
        let at = |word: &str| known.iter().find(|(state, _)| state.word() == word).map_or(0, |(_, at)| *at);
        Self::FLINK.iter().map(|word| ((*word).to_owned(), at(word).into())).collect::<Map<_, _>>().into()
    }
}

/// State of a subtask. Flink has more; these are the ones that a task can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// Without a slot.
    Scheduled,
    /// Assigned to a worker, and without a heartbeat.
    Deploying,
    /// With a heartbeat.
    Running,
    /// With a heartbeat, of a topology that was killed.
    Canceling,
    /// Removed with its topology.
    Canceled,
}

impl TaskState {
    /// All of Flink's states, in the order of Flink's counts.
    const FLINK: [&'static str; 10] = [
        "RUNNING",
        "FINISHED",
        "CANCELING",
        "INITIALIZING",
        "SCHEDULED",
        "CANCELED",
        "RECONCILING",
        "DEPLOYING",
        "CREATED",
        "FAILED",
    ];

    /// Flink's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Deploying => "DEPLOYING",
            Self::Running => "RUNNING",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
        }
    }

    /// Returns an object with a number for each of Flink's states.
    pub(crate) fn by_state(number: impl Fn(&str) -> i64) -> Value {
        Self::FLINK.iter().map(|word| ((*word).to_owned(), number(word).into())).collect::<Map<_, _>>().into()
    }

    /// Returns how many of `states` are in each state.
    pub(crate) fn counts(states: &[Self]) -> Value {
        let count = |word: &str| states.iter().filter(|state| state.word() == word).count();
        Self::by_state(|word| i64::try_from(count(word)).unwrap_or(i64::MAX))
    }

    /// Returns the state of a vertex: the one of its subtasks that is furthest from running.
    pub(crate) fn of_vertex(states: &[Self]) -> Self {
        states.iter().copied().min().unwrap_or(Self::Scheduled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_have_all_states_of_flink() {
        use TaskState::{Deploying, Running};
        let counts = TaskState::counts(&[Running, Deploying, Running]);
        let expected = json!({
            "RUNNING": 2, "FINISHED": 0, "CANCELING": 0, "INITIALIZING": 0, "SCHEDULED": 0,
            "CANCELED": 0, "RECONCILING": 0, "DEPLOYING": 1, "CREATED": 0, "FAILED": 0,
        });
        assert_eq!(counts, expected);
        assert_eq!(TaskState::of_vertex(&[Running, Deploying, Running]), Deploying);
        assert_eq!(TaskState::of_vertex(&[Running, Running]), Running);
    }

    #[test]
    fn every_state_is_one_of_flink() {
        use {JobState as J, TaskState as T};
        for state in [J::Created, J::Running, J::Restarting, J::Cancelling, J::Canceled] {
            assert_eq!(J::timestamps(&[(state, 7)])[state.word()], json!(7));
        }
        for state in [T::Scheduled, T::Deploying, T::Running, T::Canceling, T::Canceled] {
            assert_eq!(T::counts(&[state])[state.word()], json!(1));
        }
    }
}

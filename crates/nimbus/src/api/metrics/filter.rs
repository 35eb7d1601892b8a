//! Filter for the metrics of a topology.

use stormkeeper_metrics::{MetaType, MetricName, Subject, name::matches_pattern};
use stormkeeper_model::{ComponentId, StreamId, TaskId};

/// Required properties of a metric; an absent property matches every metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) level: Option<MetaType>,
    pub(super) component: Option<ComponentId>,
    pub(super) task: Option<TaskId>,
    pub(super) stream: Option<StreamId>,
    /// Pattern for the last part of the metric's name.
    pub(super) name: Option<String>,
}

impl Filter {
    /// True if the filter has no condition but a level, by which the metric store selects itself.
    pub(super) fn is_level_only(&self) -> bool {
        *self == Self { level: self.level, ..Self::default() }
    }

    /// True if the filter matches a metric.
    pub(super) fn matches(&self, metric: &MetricName) -> bool {
        let (component, task, stream) = parts(metric.subject());
        self.level.is_none_or(|level| level == metric.meta())
            && self.component.as_ref().is_none_or(|wanted| component == Some(wanted))
            && self.task.is_none_or(|wanted| task == Some(wanted))
            && self.stream.as_ref().is_none_or(|wanted| stream == Some(wanted))
            && self.name.as_ref().is_none_or(|pattern| matches_pattern(pattern, metric.name()))
    }
}

/// Returns the component, task and stream of a subject, if it has them.
pub(super) fn parts(subject: &Subject) -> (Option<&ComponentId>, Option<TaskId>, Option<&StreamId>) {
    match subject {
        Subject::Stream { component, task, stream } => (Some(component), Some(*task), Some(stream)),
        Subject::Task { component, task } => (Some(component), Some(*task), None),
        Subject::ComponentStream { component, stream } => (Some(component), None, Some(stream)),
        Subject::Component { component } => (Some(component), None, None),
        Subject::Worker { .. } | Subject::Connection { .. } | Subject::Nimbus { .. } | Subject::Topology => {
            (None, None, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_requires_all_of_its_conditions() {
        let task: MetricName = "1@1@wc-1-1@split@3@@sys@Emitted".parse().expect("a name");
        let worker: MetricName = "4@2@wc-1-1@host@6700@sys@MemoryUsed".parse().expect("a name");
        let all = Filter::default();
        assert!(all.matches(&task) && all.matches(&worker));
        let split = Filter { component: Some("split".parse().expect("valid")), ..Filter::default() };
        assert!(split.matches(&task) && !split.matches(&worker));
        let check = |filter: Filter| assert!(!filter.matches(&task), "{filter:?}");
        check(Filter { task: Some(TaskId(4)), ..split.clone() });
        check(Filter { level: Some(MetaType::Component), ..split.clone() });
        check(Filter { stream: Some(StreamId::default_stream()), ..split.clone() });
        check(Filter { name: Some("Ack*".to_owned()), ..split });
    }
}

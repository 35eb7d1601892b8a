//! Which metrics of a topology are asked for.

use crate::{
    metrics::{MetaType, MetricName, Subject},
    model::{ComponentId, StreamId, TaskId},
};

/// What metrics have to be; what is absent lets all through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) level: Option<MetaType>,
    pub(super) component: Option<ComponentId>,
    pub(super) task: Option<TaskId>,
    pub(super) stream: Option<StreamId>,
    /// What the last part is like.
    pub(super) name: Option<String>,
}

impl Filter {
    /// Whether it asks for nothing but a level, by which the archive picks itself.
    pub(super) fn is_of_level_alone(&self) -> bool {
        *self == Self { level: self.level, ..Self::default() }
    }

    /// Whether it lets a metric through.
    pub(super) fn lets_through(&self, metric: &MetricName) -> bool {
        let (component, task, stream) = parts(metric.subject());
        self.level.is_none_or(|level| level == metric.meta())
            && self.component.as_ref().is_none_or(|wanted| component == Some(wanted))
            && self.task.is_none_or(|wanted| task == Some(wanted))
            && self.stream.as_ref().is_none_or(|wanted| stream == Some(wanted))
            && self.name.as_ref().is_none_or(|pattern| is_like(metric.name(), pattern))
    }
}

/// The component, task and stream of a subject, where it has them.
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

/// Whether `text` is like `pattern`, in which `*` is any text and `?` any character. Takes at
/// most the product of their lengths, whatever the pattern is.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut p) = (0, 0);
    // The last `*`, and what it takes so far: when the rest does not fit, it takes one more.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, at));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[at] => {
                at += 1;
                p += 1;
            }
            Some(_) | None => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = taken + 1;
                    p = star_at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        fn check(pattern: &str, text: &str, expected: bool) {
            assert_eq!(is_like(text, pattern), expected, "{text} {pattern}");
        }
        check("Emitted", "Emitted", true);
        check("Emitted", "EmittedX", false);
        check("E*d", "Emitted", true);
        check("E*d*", "Emitted", true);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("?", "", false);
        check("??", "µs", true);
        check("*a*b", "xaxxbxb", true);
        check("*a*b", "xaxxbx", false);
        check(&"*a".repeat(30), &"a".repeat(200), true);
        check(&format!("{}b", "*a".repeat(30)), &"a".repeat(200), false);
    }

    #[test]
    fn a_filter_asks_for_all_of_its_parts() {
        let task: MetricName = "1@1@wc-1-1@split@3@@sys@Emitted".parse().expect("a name");
        let worker: MetricName = "4@2@wc-1-1@host@6700@sys@MemoryUsed".parse().expect("a name");
        let all = Filter::default();
        assert!(all.lets_through(&task) && all.lets_through(&worker));
        let split = Filter { component: Some("split".parse().expect("valid")), ..Filter::default() };
        assert!(split.lets_through(&task) && !split.lets_through(&worker));
        let check = |filter: Filter| assert!(!filter.lets_through(&task), "{filter:?}");
        check(Filter { task: Some(TaskId(4)), ..split.clone() });
        check(Filter { level: Some(MetaType::Component), ..split.clone() });
        check(Filter { stream: Some(StreamId::default_stream()), ..split.clone() });
        check(Filter { name: Some("Ack*".to_owned()), ..split });
    }
}

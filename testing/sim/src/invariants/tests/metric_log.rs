//! Histories of metric logs that violate a property.

use crate::{environment::Environment, invariants::check_stores_converge, metric_log::MetricLogEvent};
use stormkeeper_coordination::cluster::metric_log::MetricLogState;
use stormkeeper_metric_store::inspection::StoredRecords;
use stormkeeper_model::{LogPosition, Term, Timestamp};

fn at(term: i32, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn published(state: &MetricLogState, log: &[LogPosition]) -> MetricLogEvent {
    MetricLogEvent::Published { nimbus: "n".to_owned(), state: state.clone(), log: log.to_vec() }
}

fn committed(high_watermark: LogPosition) -> MetricLogState {
    MetricLogState { high_watermark, ..MetricLogState::default() }
}

fn removed(name: &str, log: &[LogPosition], kept: &[LogPosition]) -> MetricLogEvent {
    let (name, log, kept) = (name.to_owned(), log.to_vec(), kept.to_vec());
    MetricLogEvent::Removed { nimbus: "n".to_owned(), name, log, kept }
}

/// Returns the property that the last of `events` violates.
fn violated(events: &[MetricLogEvent]) -> Option<&'static str> {
    let env = Environment::new(0);
    let violation = || env.journal().violation().map(|violation| violation.invariant);
    for event in events {
        assert_eq!(violation(), None, "before {event}");
        env.journal().metric_log(event);
    }
    violation()
}

#[test]
fn committed_is_violated_by_a_later_leader_without_an_entry() {
    let before = published(&committed(at(1, 2)), &[at(1, 1), at(1, 2), at(1, 3)]);
    assert_eq!(
        violated(&[before.clone(), published(&committed(at(2, 3)), &[at(1, 1), at(1, 2), at(2, 3)])]),
        None
    );
    assert_eq!(
        violated(&[before, published(&committed(at(2, 2)), &[at(1, 1), at(2, 2)])]),
        Some("committed")
    );
}

#[test]
fn committed_is_violated_by_an_answer_that_names_an_entry_before_it_is_committed() {
    let answer = |high_watermark| MetricLogEvent::Answered {
        nimbus: "n".to_owned(),
        at: at(1, 2),
        high_watermark,
        log: vec![at(1, 1), at(1, 2)],
    };
    let after = published(&committed(at(2, 2)), &[at(1, 1), at(2, 2)]);
    assert_eq!(violated(&[answer(at(1, 1)), after.clone()]), None);
    assert_eq!(violated(&[answer(at(1, 2)), after]), Some("committed"));
}

#[test]
fn unclean_takeover_exempts_the_entries_that_it_discards_once() {
    let before = committed(at(1, 2));
    let log = [at(1, 1), at(1, 2)];
    let leader = "n".parse().expect("valid");
    let unclean = before.record_unclean_takeover(&leader, Term(2), at(1, 1), Timestamp::EPOCH);
    let history = [published(&before, &log), published(&unclean, &[at(1, 1)])];
    assert_eq!(violated(&history), None);
    let later = MetricLogState { high_watermark: at(2, 2), ..unclean };
    let [first, second] = history;
    let history = [first, second, published(&later, &[at(1, 1), at(2, 2)]), published(&later, &[at(1, 1)])];
    assert_eq!(violated(&history), Some("committed"));
}

#[test]
fn quarantine_is_violated_by_the_removal_of_a_quarantined_database() {
    assert_eq!(violated(&[removed("next", &[at(1, 1)], &[])]), None);
    assert_eq!(violated(&[removed("quarantine-1-1", &[at(1, 1)], &[at(1, 1)])]), Some("quarantine"));
}

#[test]
fn quarantine_is_violated_by_the_removal_of_a_committed_entry() {
    let before = published(&committed(at(1, 2)), &[at(1, 1), at(1, 2)]);
    let removal = |kept: &[LogPosition]| removed("before", &[at(1, 1), at(1, 2), at(1, 3)], kept);
    assert_eq!(violated(&[before.clone(), removal(&[at(1, 1), at(1, 2), at(2, 3)])]), None);
    assert_eq!(violated(&[before, removal(&[at(1, 1), at(2, 2)])]), Some("quarantine"));
}

#[test]
fn stores_is_violated_by_one_record() {
    let records = |value: u8| StoredRecords::from([(("points", vec![1]), vec![value])]);
    let stores = |value| [("a".to_owned(), records(1)), ("b".to_owned(), records(value))];
    assert_eq!(check_stores_converge(&stores(1)), Ok(()));
    assert!(check_stores_converge(&stores(2)).is_err());
    assert!(
        check_stores_converge(&[("a".to_owned(), records(1)), ("b".to_owned(), StoredRecords::new())])
            .is_err()
    );
}

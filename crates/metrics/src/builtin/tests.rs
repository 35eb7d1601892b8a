//! The table has no duplicates, and the documents print it.

use std::collections::BTreeSet;

use super::{of, *};

fn table() -> String {
    let mut text = String::from(
        "| metric | kind | unit | levels | aggregation | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in ALL {
        let shown = match (row.kind, row.shown) {
            (MetricType::Counter | MetricType::Meter, _) => "sum",
            (MetricType::Histogram | MetricType::Timer, _) => "merged",
            (MetricType::Gauge, Shown::Sum) => "sum",
            (MetricType::Gauge, Shown::Mean) => "mean",
        };
        let note = match (row.status, row.default) {
            (BuiltinStatus::NotApplicable(instead), _) => format!(" *Not measured: {instead}.*"),
            (BuiltinStatus::Measured, DefaultState::Off) => " *Off by default.*".to_owned(),
            (BuiltinStatus::Measured, DefaultState::On) => String::new(),
        };
        let Builtin { name, unit, meaning, .. } = row;
        let (kind, levels) = (row.kind.word(), row.subject.levels());
        text += &format!("| `{name}` | {kind} | {unit} | {levels} | {shown} | {meaning}{note} |\n");
    }
    text
}

fn limits() -> String {
    use crate::{merge, name, registry, user};
    let rows = [
        (registry::METRICS_MAX, "metrics of one process", "further metrics are ignored, counted and logged"),
        (user::USER_METRICS_MAX, "user metrics of one task", "an error for the user"),
        (name::MAX_NAME_BYTES, "bytes of a full name", "rejected"),
        (name::MAX_PART_BYTES, "bytes of a group or of a last part", "rejected"),
        (merge::POINTS_MAX, "points of one metric batch", "more batches"),
        (merge::NAMES_MAX, "names that a topology master keeps", "ignored, counted"),
        (crate::protocol::NAMES_MAX, "names of one registration request", "several requests"),
        (crate::protocol::BODY_BYTES_MAX, "bytes of one message to nimbus", "rejected"),
    ];
    let mut text = String::from("| limit | of | beyond it |\n| --- | --- | --- |\n");
    for (limit, of, beyond) in rows {
        text += &format!("| {limit} | {of} | {beyond} |\n");
    }
    text
}

#[test]
fn generated_metrics_table() {
    // One test for both tables: they are in the same file.
    stormkeeper_runtime::test_support::assert_generated("docs/metrics.md", "metrics", &table());
    stormkeeper_runtime::test_support::assert_generated("docs/metrics.md", "limits", &limits());
}

#[test]
fn name_and_subject_identify_one_row() {
    let mut seen = BTreeSet::new();
    for row in ALL {
        assert!(seen.insert((row.name, row.subject.levels())), "duplicate row for {}", row.name);
    }
}

#[test]
fn rows_are_found_by_names_on_every_level() {
    let topology = || "wc-1-1".parse::<TopologyId>().expect("an id");
    let worker = || Subject::Worker { host: "h".to_owned(), port: 6700 };
    for row in ALL {
        let subject = match row.subject {
            SubjectKind::Stream => Subject::Stream {
                component: "c".parse().expect("an id"),
                task: stormkeeper_model::TaskId(1),
                stream: "s".parse().expect("an id"),
            },
            SubjectKind::Task => {
                Subject::Task { component: "c".parse().expect("an id"), task: stormkeeper_model::TaskId(1) }
            }
            SubjectKind::Worker | SubjectKind::Supervisor => worker(),
            SubjectKind::Connection => Subject::Connection { host: "h".to_owned(), port: 6700 },
            SubjectKind::Nimbus => Subject::Nimbus { host: "h".to_owned(), port: 8080 },
        };
        let topology = match row.subject {
            SubjectKind::Supervisor => crate::name::SUPERVISOR.parse().expect("an id"),
            SubjectKind::Nimbus => crate::name::NIMBUS.parse().expect("an id"),
            SubjectKind::Stream | SubjectKind::Task | SubjectKind::Worker | SubjectKind::Connection => {
                topology()
            }
        };
        let name = row.of_one(topology, subject, "one").expect("a name");
        assert_eq!(name.meta(), row.subject.meta());
        assert_eq!(of(&name), Some(row));
        for above in crate::rollup::ancestors(&name) {
            assert_eq!(of(&above), Some(row), "{above}");
        }
    }
    let users = "1@2@wc-1-1@c@1@@udf@CpuUsedRatio".parse().expect("a name");
    assert_eq!((of(&users), shown(&users)), (None, Shown::Sum));
}

#[test]
fn two_metrics_are_off_by_default() {
    let off: Vec<_> = ALL.iter().filter(|row| row.default == DefaultState::Off).map(|row| row.name).collect();
    assert_eq!(off, ["EmitTime", "MsgDecodeTime"]);
    assert!(is_off_by_default(&"1@4@wc-1-1@c@1@@sys@EmitTime".parse().expect("a name")));
    assert!(!is_off_by_default(&"1@4@wc-1-1@c@1@@udf@EmitTime".parse().expect("a name")));
}

//! The table is whole, and the documents show it.

use std::collections::BTreeSet;

use super::{of, *};

fn table() -> String {
    let mut text = String::from(
        "| metric | kind | unit | levels | what is shown of several | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in ALL {
        let shown = match (row.kind, row.shown) {
            (MetricType::Counter | MetricType::Meter, _) => "sum",
            (MetricType::Histogram | MetricType::Timer, _) => "merged",
            (MetricType::Gauge, Shown::Sum) => "sum",
            (MetricType::Gauge, Shown::Mean) => "mean",
        };
        let note = match (row.status, row.default) {
            (Status::NotApplicable(instead), _) => format!(" *Not measured: {instead}.*"),
            (Status::WaitsForTracking, _) => " *Waits for the tracking of tuple trees.*".to_owned(),
            (Status::Measured, Default::Off) => " *Off by default.*".to_owned(),
            (Status::Measured, Default::On) => String::new(),
        };
        let Builtin { name, unit, meaning, .. } = row;
        let (kind, levels) = (row.kind.word(), row.of.levels());
        text += &format!("| `{name}` | {kind} | {unit} | {levels} | {shown} | {meaning}{note} |\n");
    }
    text
}

fn limits() -> String {
    use crate::metrics::{client, merge, name, registry};
    let rows = [
        (registry::METRICS_MAX, "metrics of one process", "more do nothing; counted, and in the log"),
        (client::USER_METRICS_MAX, "metrics of one task's user", "an error for the user"),
        (name::MAX_NAME_BYTES, "bytes of a full name", "refused"),
        (name::MAX_PART_BYTES, "bytes of a group or of a last part", "refused"),
        (merge::POINTS_MAX, "points of one contribution", "more contributions"),
        (merge::NAMES_MAX, "names that a topology master keeps", "not taken in, counted"),
        (crate::rpc::metrics::NAMES_MAX, "names of one registration", "several registrations"),
        (crate::rpc::metrics::BODY_BYTES_MAX, "bytes of one message to nimbus", "refused"),
    ];
    let mut text = String::from("| limit | of | beyond it |\n| --- | --- | --- |\n");
    for (limit, of, beyond) in rows {
        text += &format!("| {limit} | {of} | {beyond} |\n");
    }
    text
}

#[test]
fn generated_metrics_table() {
    // One test for both: they are written to one file.
    crate::test_support::assert_generated("docs/metrics.md", "metrics", &table());
    crate::test_support::assert_generated("docs/metrics.md", "limits", &limits());
}

#[test]
fn a_name_and_what_it_is_of_belong_to_one_row() {
    let mut seen = BTreeSet::new();
    for row in ALL {
        assert!(seen.insert((row.name, row.of.levels())), "{} stands there twice", row.name);
    }
}

#[test]
fn names_lead_back_to_their_rows_on_every_level() {
    let topology = || "wc-1-1".parse::<TopologyId>().expect("an id");
    let worker = || Subject::Worker { host: "h".to_owned(), port: 6700 };
    for row in ALL {
        let subject = match row.of {
            Of::Stream => Subject::Stream {
                component: "c".parse().expect("an id"),
                task: crate::model::TaskId(1),
                stream: "s".parse().expect("an id"),
            },
            Of::Task => {
                Subject::Task { component: "c".parse().expect("an id"), task: crate::model::TaskId(1) }
            }
            Of::Worker | Of::Supervisor => worker(),
            Of::Connection => Subject::Connection { host: "h".to_owned(), port: 6700 },
            Of::Nimbus => Subject::Nimbus { host: "h".to_owned(), port: 8080 },
        };
        let topology = match row.of {
            Of::Supervisor => crate::metrics::name::SUPERVISOR.parse().expect("an id"),
            Of::Nimbus => crate::metrics::name::NIMBUS.parse().expect("an id"),
            Of::Stream | Of::Task | Of::Worker | Of::Connection => topology(),
        };
        let name = row.of_one(topology, subject, "one").expect("a name");
        assert_eq!(name.meta(), row.of.meta());
        assert_eq!(of(&name), Some(row));
        for above in crate::metrics::rollup::ancestors(&name) {
            assert_eq!(of(&above), Some(row), "{above}");
        }
    }
    let users = "1@2@wc-1-1@c@1@@udf@CpuUsedRatio".parse().expect("a name");
    assert_eq!((of(&users), shown(&users)), (None, Shown::Sum));
}

#[test]
fn two_metrics_are_off_by_default() {
    let off: Vec<_> = ALL.iter().filter(|row| row.default == Default::Off).map(|row| row.name).collect();
    assert_eq!(off, ["EmitTime", "MsgDecodeTime"]);
    assert!(is_off_by_default(&"1@4@wc-1-1@c@1@@sys@EmitTime".parse().expect("a name")));
    assert!(!is_off_by_default(&"1@4@wc-1-1@c@1@@udf@EmitTime".parse().expect("a name")));
}

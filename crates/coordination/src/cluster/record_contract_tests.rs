//! Contract of all records: they keep unknown fields, and a newer format is not read.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    event::Event,
    layout,
    layout_version::Layout,
    metric_log::MetricLogState,
    record::{
        self, BlobReplica, CredentialsRecord, Drain, Election, Leader, MetaFingerprint, NimbusRecord,
        StoppedSupervisor, StoredError, SupervisorAssignments, SupervisorRecord, TaskHeartbeat, TasksRecord,
        TopologyRecord, Unreadable,
    },
};
use crate::{cluster::tree_id::TreeIdentity, tree::TreePath};

/// Decodes a record and encodes it again.
type WriteBack = fn(&TreePath, &[u8]) -> Result<Vec<u8>, Unreadable>;

fn write_back<T: Serialize + DeserializeOwned>(path: &TreePath, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
    record::decode::<T>(path, bytes).map(|record| record::encode(&record))
}

fn write_back_assignment(path: &TreePath, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
    record::decode_assignment(path, bytes).map(|assignment| record::encode_assignment(&assignment))
}

/// Every row of the layout whose znode holds a record, with an example.
const RECORDS: &[(&str, WriteBack, &str)] = &[
    ("/layout", write_back::<Layout>, r#"{"layout":2,"created_by":"0.1.0"}"#),
    (
        "/storms/{topology-id}",
        write_back::<TopologyRecord>,
        r#"{"name":"wc","status":"active","launched_ms":1,"workers":2,"owner":"ann",
            "blob":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","message_timeout_secs":30,
            "ackers":{"count":2},
            "update":{"former":{"blob":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
            "blob_bytes":7,"message_timeout_secs":30},"total":2,"at_once":1,
            "left":[{"slot":{"supervisor":"s1","port":6700},"start_ms":5}],
            "draining":{"worker":{"slot":{"supervisor":"s1","port":6700},"start_ms":5},"deadline_ms":8},
            "starting":[{"worker":{"slot":{"supervisor":"s1","port":6701},"start_ms":6,"replaces":"w1"},
            "deadline_ms":9}],
            "failure":"why"}}"#,
    ),
    (
        "/tasks/{topology-id}",
        write_back::<TasksRecord>,
        r#"{"components":{"split":"1-3"},"requests":{"split":{"memory_mb":128,"cpu_percent":10}}}"#,
    ),
    (
        "/assignments/{topology-id}",
        write_back_assignment,
        r#"{"workers":[{"supervisor":"a","port":6700,"host":"h","tasks":"1-3","start_ms":5}]}"#,
    ),
    (
        "/credentials/{topology-id}",
        write_back::<CredentialsRecord>,
        r#"{"number":2,"entries":{"db.password":{"changed_ms":5,"by":"ann"}},"key":"00","sealed":"ff"}"#,
    ),
    (
        "/supervisors/{supervisor-id}",
        write_back::<SupervisorRecord>,
        r#"{"host":"h","ports":[6700],"resources":{"cpu_percent":1,"memory_mb":2},
            "capacity":{"memory_mb":2,"cpu_percent":1},"memory_limits_unenforced":"no cgroup v2","version":"0",
            "start_ms":5,"announces_stop":true,"tracks_tuples":true,"platform":{"arch":"x86_64","libc":"gnu-2.36"},"clock_ahead_ms":-5000,"agent":"h:8000","exposed":"its agent",
            "zookeeper_users":{"hashes":["00ff"],"open":true},"certificate_expired":true,
            "problems":[{"port":6701,"topology":"wc-1-100","unusable":true,"idle":"1-3","text":"why"}],
            "failures":[{"kind":"launch","port":6700,"topology":"wc-1-100","placed_ms":4,"n":3,"reason":"why",
            "everywhere":true},{"kind":"component","component":"split","n":3,"reason":"why"}]}"#,
    ),
    (
        "/stopped-supervisors/{supervisor-id}",
        write_back::<StoppedSupervisor>,
        r#"{"host":"h","stopped_ms":5}"#,
    ),
    (
        "/taskbeats/{topology-id}/{task-id}",
        write_back::<TaskHeartbeat>,
        r#"{"host":"h","port":6700,"worker":"w","status":"running","uptime_secs":1,"emitted":1,"transferred":2,
            "executed":3,"acked":4,"failed":5,"pending":6}"#,
    ),
    ("/taskerrors/{topology-id}/{task-id}/{sequence}", write_back::<StoredError>, ERROR),
    ("/taskerrors/{topology-id}/last/{component}", write_back::<StoredError>, ERROR),
    (
        "/nimbuses/{nimbus-id}",
        write_back::<NimbusRecord>,
        r#"{"host":"h","api":"h:1","version":"0","start_ms":5,"blobs_missing":0,"role":"leader","clock_ahead_ms":5000,
            "exposed":"its API","zookeeper_users":{"hashes":[]},"certificate_expired":true}"#,
    ),
    ("/term", write_back::<Election>, r#"{"term":3,"nimbus":"n"}"#),
    ("/tree-id", write_back::<TreeIdentity>, r#"{"id":"00","term":3,"succeeds":["ff"]}"#),
    ("/leader", write_back::<Leader>, r#"{"nimbus":"n","api":"h:1","term":3}"#),
    (
        "/supervisor-assignments/{supervisor-id}",
        write_back::<SupervisorAssignments>,
        r#"{"topologies":{"wc-1-100":4}}"#,
    ),
    ("/drains/{host}", write_back::<Drain>, r#"{"since_ms":5,"by":"ann"}"#),
    (
        "/events/{sequence}",
        write_back::<Event>,
        r#"{"time_ms":5,"term":3,"nimbus":"n","event":"elected","reason":"why"}"#,
    ),
    ("/blobs/{sha256}/{nimbus-id}", write_back::<BlobReplica>, r#"{"bytes":7}"#),
    (
        "/metric-log",
        write_back::<MetricLogState>,
        r#"{"high_watermark":{"term":5,"index":0},"in_sync_replicas":["b"]}"#,
    ),
    ("/metrics/{topology-id}", write_back::<MetaFingerprint>, r#"{"count":1,"digest":"00"}"#),
];

const ERROR: &str = r#"{"time_ms":5,"component":"split","task":1,"host":"h","port":6700,"message":"m"}"#;

/// The example with a format and with the given fields added.
fn example(json: &str, format: u32, more: &[(&str, Value)]) -> Value {
    let mut record: Value = serde_json::from_str(json).expect("JSON");
    record["v"] = format.into();
    more.iter().for_each(|(name, value)| record[*name] = value.clone());
    record
}

fn path() -> TreePath {
    "/some/record".parse().expect("valid path")
}

#[test]
fn contract_covers_every_record_of_the_layout() {
    let with_record = |row: &&layout::Row| !row.holds.starts_with("nothing;");
    let rows: BTreeSet<&str> = layout::TABLE.iter().filter(with_record).map(|row| row.path).collect();
    assert_eq!(RECORDS.iter().map(|(path, ..)| *path).collect::<BTreeSet<_>>(), rows);
}

#[test]
fn every_record_keeps_unknown_fields() {
    let unknown = [("colour", Value::from("blue")), ("shape", serde_json::json!({"v": 9, "edges": [1, 2]}))];
    for (row, write_back, json) in RECORDS {
        let before = example(json, record::FORMAT, &unknown);
        let after = write_back(&path(), before.to_string().as_bytes()).expect(row);
        assert_eq!(serde_json::from_slice::<Value>(&after).expect("JSON"), before, "{row}");
    }
}

#[test]
fn no_record_of_a_newer_format_is_read_and_the_error_names_both_formats() {
    for (row, write_back, json) in RECORDS {
        // A newer format is rejected even if the other fields have another shape.
        for record in [example(json, 7, &[]), serde_json::json!({"v": 7, "list": []})] {
            let error = write_back(&path(), record.to_string().as_bytes()).expect_err(row).to_string();
            assert!(error.contains("it has format 7, and this build reads up to format 1"), "{row}: {error}");
        }
    }
}

#[test]
fn failure_of_a_kind_that_this_build_does_not_know_leaves_the_record_readable() {
    let (_, _, json) = RECORDS.iter().find(|(path, ..)| path.starts_with("/supervisors/")).expect("there");
    let record =
        example(json, 1, &[("failures", serde_json::json!([{"kind":"disk","n":1,"reason":"full"}]))]);
    let record: SupervisorRecord = record::decode(&path(), record.to_string().as_bytes()).expect("readable");
    assert_eq!(record.failures[0].kind, super::failure::FailureKind::Unknown);
}

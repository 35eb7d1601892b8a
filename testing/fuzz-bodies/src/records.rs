//! Records in ZooKeeper.

use serde::{Serialize, de::DeserializeOwned};

use stormkeeper_coordination::{
    cluster::{
        event::Event,
        metric_log::MetricLogState,
        record::{
            BlobReplica, Drain, Election, Leader, MetaFingerprint, NimbusRecord, StoppedSupervisor,
            StoredError, SupervisorAssignments, SupervisorRecord, TaskHeartbeat, TasksRecord, TopologyRecord,
            decode, decode_assignment, encode, encode_assignment,
        },
    },
    tree::TreePath,
};

use crate::check_error;

/// Reads the data of a znode as every kind of record.
///
/// A record reads back, with the fields of newer versions. An error names the znode.
///
/// # Panics
/// If a property does not hold.
pub fn znode_record(data: &[u8]) {
    let path: TreePath = "/storms/wc-1-100".parse().expect("a path");
    check::<TopologyRecord>(&path, data);
    check::<TasksRecord>(&path, data);
    check::<SupervisorRecord>(&path, data);
    check::<StoppedSupervisor>(&path, data);
    check::<TaskHeartbeat>(&path, data);
    check::<StoredError>(&path, data);
    check::<NimbusRecord>(&path, data);
    check::<Election>(&path, data);
    check::<Leader>(&path, data);
    check::<SupervisorAssignments>(&path, data);
    check::<Drain>(&path, data);
    check::<BlobReplica>(&path, data);
    check::<MetaFingerprint>(&path, data);
    check::<MetricLogState>(&path, data);
    check::<Event>(&path, data);
    match decode_assignment(&path, data) {
        Ok(assignment) => {
            let encoded = encode_assignment(&assignment);
            assert_eq!(decode_assignment(&path, &encoded).expect("reads back"), assignment);
        }
        Err(error) => check_unreadable(&error.to_string()),
    }
}

fn check<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(path: &TreePath, data: &[u8]) {
    match decode::<T>(path, data) {
        Ok(record) => {
            let encoded = encode(&record);
            assert_eq!(decode::<T>(path, &encoded).expect("a record reads back"), record);
        }
        Err(error) => check_unreadable(&error.to_string()),
    }
}

fn check_unreadable(error: &str) {
    check_error(error);
    assert!(error.starts_with("/storms/wc-1-100 does not hold"), "an error without path: {error}");
}

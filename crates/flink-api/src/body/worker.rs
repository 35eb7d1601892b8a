//! Bodies about task managers.

use serde_json::{Value, json};

use crate::{FlinkId, WorkerAddress};

/// A worker that is registered: assigned, with a heartbeat of one of its tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerDetails {
    /// Address, which is its id.
    pub address: WorkerAddress,
    /// The topology's job.
    pub job: FlinkId,
    /// Number of tasks.
    pub tasks: usize,
    /// Time of this answer: the worker has a session now.
    pub now_ms: u64,
    /// CPU cores of the host.
    pub cores: f64,
    /// Memory of the host in bytes.
    pub memory: u64,
    /// Resident memory of the worker and its components in bytes, as last measured.
    pub memory_used: u64,
}

/// Resources of Flink that no worker has.
fn no_resource() -> Value {
    json!({
        "cpuCores": 0.0, "taskHeapMemory": 0, "taskOffHeapMemory": 0, "managedMemory": 0, "networkMemory": 0,
        "extendedResources": {},
    })
}

fn entry(worker: &WorkerDetails) -> Value {
    json!({
        "id": worker.address.to_string(),
        "path": worker.address.to_string(),
        "dataPort": worker.address.port,
        "jmxPort": -1,
        "timeSinceLastHeartbeat": worker.now_ms,
        "slotsNumber": 1,
        "freeSlots": 0,
        "assignedTasks": worker.tasks,
        "totalResource": no_resource(),
        "freeResource": no_resource(),
        "hardware": {
            "cpuCores": worker.cores.round() as u64,
            "physicalMemory": worker.memory,
            "freeMemory": worker.memory.saturating_sub(worker.memory_used),
            "managedMemory": 0,
        },
        "memoryConfiguration": {
            "frameworkHeap": 0, "taskHeap": 0, "frameworkOffHeap": 0, "taskOffHeap": 0, "networkMemory": 0,
            "managedMemory": 0, "jvmMetaspace": 0, "jvmOverhead": 0, "totalFlinkMemory": 0,
            "totalProcessMemory": 0,
        },
    })
}

/// Returns the body of `/taskmanagers`.
pub fn task_managers(workers: &[WorkerDetails]) -> Value {
    json!({ "taskmanagers": workers.iter().map(entry).collect::<Vec<_>>() })
}

/// Returns the body of `/taskmanagers/:taskmanagerid`. There is no JVM, so all but the used memory
/// are 0; `nonHeapUsed` is the resident memory.
pub fn task_manager(worker: &WorkerDetails) -> Value {
    let mut body = entry(worker);
    body["allocatedSlots"] = json!([{
        "jobId": worker.job.to_string(), "resource": no_resource(), "assignedTasks": worker.tasks,
    }]);
    body["metrics"] = json!({
        "heapUsed": 0, "heapCommitted": 0, "heapMax": 0,
        "nonHeapUsed": worker.memory_used, "nonHeapCommitted": worker.memory_used, "nonHeapMax": -1,
        "directCount": 0, "directUsed": 0, "directMax": 0,
        "mappedCount": 0, "mappedUsed": 0, "mappedMax": 0,
        "memorySegmentsAvailable": 0, "memorySegmentsTotal": 0,
        "nettyShuffleMemorySegmentsAvailable": 0, "nettyShuffleMemorySegmentsUsed": 0,
        "nettyShuffleMemorySegmentsTotal": 0, "nettyShuffleMemoryAvailable": 0, "nettyShuffleMemoryUsed": 0,
        "nettyShuffleMemoryTotal": 0,
        "garbageCollectors": [],
    });
    body
}

/// Returns the body of a list of log files: the name of each, its bytes, and the time of its last change
/// in milliseconds.
pub fn logs(files: impl IntoIterator<Item = (String, u64, u64)>) -> Value {
    let file = |(name, size, changed)| json!({ "name": name, "size": size, "mtime": changed });
    json!({ "logs": files.into_iter().map(file).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_has_one_slot_which_its_topology_uses() {
        let address = WorkerAddress { host: "h".to_owned(), port: 6700 };
        let job: FlinkId = "f".repeat(32).parse().expect("valid");
        let (cores, memory, memory_used) = (4.0, 1000, 300);
        let worker = WorkerDetails { address, job, tasks: 3, now_ms: 7, cores, memory, memory_used };
        let body = task_manager(&worker);
        assert_eq!(body["allocatedSlots"][0]["jobId"], json!("f".repeat(32)));
        assert_eq!((&body["id"], &body["hardware"]["freeMemory"]), (&json!("h:6700"), &json!(700)), "{body}");
        assert_eq!(task_managers(&[worker])["taskmanagers"][0]["timeSinceLastHeartbeat"], json!(7));
    }
}

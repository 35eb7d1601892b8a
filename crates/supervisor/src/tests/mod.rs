//! Tests of an agent on a memory tree with fake processes, under paused time.

mod absent_records;
mod adoption;
mod clocks;
mod directory;
mod failures;
mod fake;
mod launches;
mod real;
mod stops;
mod taken_port;
mod tree;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use self::{
    fake::{Behaviour, FakeProcesses},
    world::{Placement, Supervisor, TIMEOUT, World, acquire, blob, reports, topology, topology_record},
};
use super::{
    process::{ExitReport, StopSignal},
    *,
};
use stormkeeper_api_types::blobs::BlobClient;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, SupervisorAssignments, TopologyRecord},
        store::Store,
    },
    tree::{
        CreateMode, TreePath, Version,
        faulty::{FaultPlan, FaultRates, FaultyTree},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{
    BlobKey, Port, Slot, SupervisorId, TaskId, Timestamp, TopologyId,
    assignment::{AssignedWorker, Assignment},
    error::TaskError,
    task_set::TaskSet,
    topology::TaskTable,
};
use stormkeeper_runtime::{
    fs::{LockedDir, layout_file, locked_dir},
    tasks::{OnExit, Tasks},
    test_support::wait_until,
};

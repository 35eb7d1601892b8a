//! The rows of the table, and what each stands for.

use super::{Builtin, Default, Of, Shown, Status};
use crate::metrics::{
    MetricType,
    name::{NETTY, SYS},
};

/// `CONSTANT: name, group, kind, of, unit, shown, default, status: meaning;` for each.
macro_rules! builtins {
    ($($constant:ident: $name:literal, $group:ident, $kind:ident, $of:ident, $unit:literal, $shown:ident,
        $default:ident, $status:expr => $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Builtin = Builtin {
                name: $name,
                group: $group,
                kind: MetricType::$kind,
                of: Of::$of,
                unit: $unit,
                meaning: $meaning,
                shown: Shown::$shown,
                default: Default::$default,
                status: $status,
            };
        )*

        /// All of them, by what they are of.
        pub const ALL: &[Builtin] = &[$($constant),*];
    };
}

const MEASURED: Status = Status::Measured;
const WAITS: Status = Status::WaitsForTracking;

const fn instead(what: &'static str) -> Status {
    Status::NotApplicable(what)
}

builtins! {
    EMITTED: "Emitted", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Emitted by the component on this stream: once for each emit, however many tasks it goes to.";
    TRANSFERRED: "Transferred", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Sent on this stream to tasks: once for each receiving task.";
    EXECUTED: "Executed", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Received on this stream and handed to the bolt.";
    ACKED: "Acked", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Acked by the bolt, by the stream that they came on; of a spout, told to it as acked.";
    FAILED: "Failed", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Failed by the bolt or, of a spout, told to it as failed. Those that time out wait for tracking.";
    SEND_TPS: "SendTps", SYS, Meter, Stream, "tuples/s", Sum, On, MEASURED =>
        "Emitted per second.";
    RECV_TPS: "RecvTps", SYS, Meter, Stream, "tuples/s", Sum, On, MEASURED =>
        "Received per second. Stands on the stream as `{component}.RecvTps`, by the component that it comes from.";
    PROCESS_LATENCY: "ProcessLatency", SYS, Histogram, Stream, "µs", Mean, On, MEASURED =>
        "Bolt: from taking a tuple out of its queue to its ack. The spout's, from emit to the last ack, waits for tracking.";
    TUPLE_LIFE_CYCLE: "TupleLifeCycle", SYS, Histogram, Stream, "µs", Mean, On, MEASURED =>
        "From the emit by the sending task to the beginning of its handling here. Between hosts it is only as good as their clocks agree; what would be negative counts as 0.";

    EXECUTOR_TIME: "ExecutorTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "One call of the component: execute, or nextTuple.";
    EMIT_TIME: "EmitTime", SYS, Histogram, Task, "µs", Mean, Off, MEASURED =>
        "From an emit until its tuples are in all queues that they go to.";
    SERIALIZE_TIME: "SerializeTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "To make bytes of one batch for a component in another process.";
    DESERIALIZE_TIME: "DeserializeTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "To make values of one message of a component in another process.";
    ACKER_TIME: "AckerTime", SYS, Histogram, Task, "µs", Mean, On, WAITS =>
        "One call of the task that tracks tuple trees.";
    BATCH_INTER_TIME: "BatchInterTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "Between two batches that the task takes out of its queue.";
    EMPTY_CPU_RATIO: "EmptyCpuRatio", SYS, Gauge, Task, "0 to 1", Mean, On, MEASURED =>
        "Spout: the share of calls of nextTuple since the last report that emitted nothing.";
    CAPACITY: "Capacity", SYS, Gauge, Task, "0 to 1", Mean, On, MEASURED =>
        "The share of the time since the last report in which the component was busy. Near 1 it needs more tasks.";
    PENDING_NUM: "PendingNum", SYS, Gauge, Task, "tuples", Sum, On, WAITS =>
        "Spout: emitted and neither acked nor failed yet.";
    EXECUTOR_QUEUE: "ExecutorQueue", SYS, Gauge, Task, "% full", Mean, On, MEASURED =>
        "The queue of tuples that wait for this task.";
    DESERIALIZE_QUEUE: "DeserializeQueue", SYS, Gauge, Task, "% full", Mean, On, instead("nothing waits for that: a frame of another worker and a message of the component's own process are read when the one before is decoded and handed on, and wait in the kernel until then; see ExecutorQueue") =>
        "The queue of what is received and not decoded yet.";
    SERIALIZE_QUEUE: "SerializeQueue", SYS, Gauge, Task, "% full", Mean, On, MEASURED =>
        "The queue of messages that wait for the component's own process.";
    CTRL_QUEUE: "CtrlQueue", SYS, Gauge, Task, "% full", Mean, On, instead("control messages do not queue apart from tuples; see ExecutorQueue") =>
        "The queue of control messages of a task.";

    CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Worker, "% of a core", Sum, On, MEASURED =>
        "CPU time of the worker and the processes of its components: 62 is 0.62 of a core, and more than 100 is more than one.";
    MEMORY_USED: "MemoryUsed", SYS, Gauge, Worker, "bytes", Sum, On, MEASURED =>
        "Resident memory of the worker and the processes of its components.";
    THREADS: "Threads", SYS, Gauge, Worker, "threads", Sum, On, MEASURED =>
        "Threads of the worker.";
    OPEN_FILES: "OpenFiles", SYS, Gauge, Worker, "descriptors", Sum, On, MEASURED =>
        "Open file descriptors of the worker.";
    HEAP_MEMORY: "HeapMemory", SYS, Gauge, Worker, "bytes", Sum, On, instead("there is no JVM; see MemoryUsed") =>
        "The heap of a JVM.";
    FULL_GC: "FullGc", SYS, Gauge, Worker, "collections", Sum, On, instead("there is no JVM, and nothing like it") =>
        "Full collections in the last minute.";
    GC_COUNT: "GCCount", SYS, Gauge, Worker, "collections", Sum, On, instead("there is no JVM, and nothing like it") =>
        "Collections in the last minute.";
    GC_TIME: "GCTime", SYS, Gauge, Worker, "µs", Sum, On, instead("there is no JVM, and nothing like it") =>
        "Time of collections in the last minute.";
    NETTY_CLI_SEND_SPEED: "NettyCliSendSpeed", NETTY, Meter, Worker, "bytes/s", Sum, On, MEASURED =>
        "Sent to other workers.";
    NETTY_SRV_RECV_SPEED: "NettySrvRecvSpeed", NETTY, Meter, Worker, "bytes/s", Sum, On, MEASURED =>
        "Received from other workers.";
    NETTY_CLI_SEND_BATCH_SIZE: "NettyCliSendBatchSize", NETTY, Histogram, Worker, "bytes", Mean, On, MEASURED =>
        "One frame to another worker.";
    NETTY_SRV_TRANSMIT_TIME: "NettySrvTransmitTime", NETTY, Histogram, Worker, "µs", Mean, On, MEASURED =>
        "From the sending of a frame by another worker to its arrival here; only as good as the hosts' clocks agree.";
    MSG_DECODE_TIME: "MsgDecodeTime", NETTY, Histogram, Worker, "µs", Mean, Off, MEASURED =>
        "To make tuples of one frame.";
    RECV_CTRL_QUEUE: "RecvCtrlQueue", SYS, Gauge, Worker, "% full", Mean, On, instead("control messages do not queue apart from tuples") =>
        "The queue of received control messages.";
    SEND_CTRL_QUEUE: "SendCtrlQueue", SYS, Gauge, Worker, "% full", Mean, On, instead("control messages do not queue apart from tuples") =>
        "The queue of control messages to be sent.";

    NETTY_CLI_SEND_TIME: "NettyCliSendTime", NETTY, Histogram, Connection, "µs", Mean, On, MEASURED =>
        "To hand one frame to the kernel.";
    NETTY_CLI_CACHE_SIZE: "NettyCliCacheSize", NETTY, Gauge, Connection, "bytes", Sum, On, MEASURED =>
        "Bytes of the frame that is being handed to the kernel. What waits behind it is not bytes yet: see NettyCliSendPending, in tuples.";
    NETTY_CLI_SEND_PENDING: "NettyCliSendPending", NETTY, Gauge, Connection, "tuples", Sum, On, MEASURED =>
        "Tuples that wait to be sent.";
    NETTY_CLI_CONN_CHECK: "NettyCliConnCheck", NETTY, Gauge, Connection, "", Sum, On, instead("a broken connection is told in the worker's log and its counts") =>
        "A check of the connection.";
    NETTY_CLI_SYNC_BATCH_QUEUE: "NettyCliSyncBatchQ", NETTY, Gauge, Connection, "", Sum, On, instead("JStorm has the name only") =>
        "Never measured.";
    NETTY_CLI_SYNC_DISRUPTOR_QUEUE: "NettyCliSyncDisrQ", NETTY, Gauge, Connection, "", Sum, On, instead("JStorm has the name only") =>
        "Never measured.";

    SUPERVISOR_CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Supervisor, "% of the machine", Mean, On, MEASURED =>
        "CPU time that the whole machine used, 0 to 100.";
    SUPERVISOR_MEMORY_USAGE: "MemoryUsage", SYS, Gauge, Supervisor, "0 to 1", Mean, On, MEASURED =>
        "The share of the machine's memory that is in use, without what the kernel would give back.";
    SUPERVISOR_DISK_USAGE: "DiskUsage", SYS, Gauge, Supervisor, "0 to 1", Mean, On, MEASURED =>
        "The share of the disk below the supervisor's directory that is in use.";
    SUPERVISOR_NET_RECV_SPEED: "NetRecvSpeed", SYS, Gauge, Supervisor, "bytes/s", Sum, On, MEASURED =>
        "Received by the machine's network devices, loopback aside.";
    SUPERVISOR_NET_SEND_SPEED: "NetSendSpeed", SYS, Gauge, Supervisor, "bytes/s", Sum, On, MEASURED =>
        "Sent by the machine's network devices, loopback aside.";

    NIMBUS_CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Nimbus, "% of a core", Sum, On, MEASURED =>
        "CPU time of this nimbus.";
    NIMBUS_MEMORY_USED: "MemoryUsed", SYS, Gauge, Nimbus, "bytes", Sum, On, MEASURED =>
        "Resident memory of this nimbus.";
    NIMBUS_OPEN_FILES: "OpenFiles", SYS, Gauge, Nimbus, "files", Sum, On, MEASURED =>
        "Files and connections that this nimbus has open.";
    NIMBUS_VIEW_AGE: "ViewAge", SYS, Gauge, Nimbus, "ms", Mean, On, MEASURED =>
        "How old this nimbus' view of the cluster is; 0 while it is up to date.";
    NIMBUS_ARCHIVE_BYTES: "ArchiveBytes", SYS, Gauge, Nimbus, "bytes", Sum, On, MEASURED =>
        "The archive on disk.";
    NIMBUS_ARCHIVE_QUEUE: "ArchiveQueue", SYS, Gauge, Nimbus, "requests", Sum, On, MEASURED =>
        "Requests that wait for the archive.";
    NIMBUS_INTAKE_POINTS: "IntakePoints", SYS, Meter, Nimbus, "points/s", Sum, On, MEASURED =>
        "Points taken in as the leader.";
    NIMBUS_INTAKE_CONTRIBUTIONS: "IntakeContributions", SYS, Meter, Nimbus, "contributions/s", Sum, On, MEASURED =>
        "Contributions taken in as the leader.";
    NIMBUS_INTAKE_REFUSED: "IntakeRefused", SYS, Counter, Nimbus, "contributions", Sum, On, MEASURED =>
        "Contributions that were refused, or put off to a later try.";
    NIMBUS_REGISTERED: "Registered", SYS, Counter, Nimbus, "names", Sum, On, MEASURED =>
        "Names registered as the leader.";
    NIMBUS_UPLOAD_QUEUE: "UploadQueue", SYS, Gauge, Nimbus, "entries", Sum, On, MEASURED =>
        "Minutes of topologies that wait for external stores.";
    NIMBUS_UPLOAD_DROPPED: "UploadDropped", SYS, Counter, Nimbus, "entries", Sum, On, MEASURED =>
        "Minutes of topologies that were dropped before an external store had them.";
    NIMBUS_HBASE_SEND_TPS: "HBaseSendTps", SYS, Meter, Nimbus, "rows/s", Sum, On, instead("there is no HBase; see IntakePoints") =>
        "Rows sent to HBase.";
    NIMBUS_TOTAL_HBASE_INSERT: "TotalHBaseInsert", SYS, Counter, Nimbus, "rows", Sum, On, instead("there is no HBase; see IntakePoints") =>
        "Rows sent to HBase in all.";
    NIMBUS_HBASE_FAILED: "HBaseFailed", SYS, Counter, Nimbus, "rows", Sum, On, instead("there is no HBase; see UploadDropped") =>
        "Rows that HBase did not take.";
    NIMBUS_REQUEST_TIME: "RequestTime", SYS, Histogram, Nimbus, "µs", Mean, On, instead("requests are told in the log of nimbus") =>
        "One remote call, by its name.";
}

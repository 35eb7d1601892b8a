//! The rows of the table of built-in metrics.

use super::{Builtin, BuiltinStatus, DefaultState, Shown, SubjectKind};
use crate::{
    MetricType,
    name::{NETTY, SYS},
};

/// `CONSTANT: name, group, kind, subject, unit, shown, default, status: meaning;` for each.
macro_rules! builtins {
    ($($constant:ident: $name:literal, $group:ident, $kind:ident, $subject:ident, $unit:literal, $shown:ident,
        $default:ident, $status:expr => $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Builtin = Builtin {
                name: $name,
                group: $group,
                kind: MetricType::$kind,
                subject: SubjectKind::$subject,
                unit: $unit,
                meaning: $meaning,
                shown: Shown::$shown,
                default: DefaultState::$default,
                status: $status,
            };
        )*

        /// All built-in metrics, grouped by subject.
        pub const ALL: &[Builtin] = &[$($constant),*];
    };
}

const MEASURED: BuiltinStatus = BuiltinStatus::Measured;

const fn instead(what: &'static str) -> BuiltinStatus {
    BuiltinStatus::NotApplicable(what)
}

builtins! {
    EMITTED: "Emitted", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Emitted by the component on this stream: once for each emit, however many tasks receive it. Refused emits are not counted.";
    TRANSFERRED: "Transferred", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Put into the queue of a task, or of the connection to its worker: once for each receiving task.";
    EXECUTED: "Executed", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Bolt: encoded for the bolt's process, by input stream; the process may not have read the tuple yet. Not measured for spouts: EXECUTED of a spout in `stormkeeper show` is the number of nextTuple calls that emitted.";
    ACKED: "Acked", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Bolt: acked by the bolt, by input stream. Spout: emits with an id whose tree is complete, counted when the ack is queued for the spout, which receives it before the next nextTuple, or never if its process ends before. Without ackers that is directly after the emit, and no bolt need have processed the tuple.";
    FAILED: "Failed", SYS, Counter, Stream, "tuples", Sum, On, MEASURED =>
        "Bolt: failed by the bolt, or in flight when its process ended. Spout: emits with an id whose tree failed or timed out, by output stream; those that were refused, for the task; and those that were pending when its process ended.";
    SEND_TPS: "SendTps", SYS, Meter, Stream, "tuples/s", Sum, On, MEASURED =>
        "Emitted per second.";
    RECV_TPS: "RecvTps", SYS, Meter, Stream, "tuples/s", Sum, On, MEASURED =>
        "Received per second. On the stream level the name is `{component}.RecvTps`, with the sending component.";
    PROCESS_LATENCY: "ProcessLatency", SYS, Histogram, Stream, "µs", Mean, On, MEASURED =>
        "Bolt: from taking a tuple out of its queue to its ack. Spout: from the emit of a tuple with an id to the ack of the last tuple of its tree, by output stream.";
    TUPLE_LIFE_CYCLE: "TupleLifeCycle", SYS, Histogram, Stream, "µs", Mean, On, MEASURED =>
        "From the emit by the sending task to the start of processing here. Between hosts the value includes the clock difference; negative values count as 0.";

    EXECUTOR_TIME: "ExecutorTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "One call of the component. Spout: nextTuple. Bolt: the busy time since the last ack or fail, in equal parts for the tuples that are acked or failed together; if the process ends, the time that it was busy with its last tuple.";
    EMIT_TIME: "EmitTime", SYS, Histogram, Task, "µs", Mean, Off, MEASURED =>
        "From an emit until its tuples are in the queues of all receiving tasks.";
    SERIALIZE_TIME: "SerializeTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "Encoding one batch of tuples for a component in another process.";
    DESERIALIZE_TIME: "DeserializeTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "Decoding one message of a component in another process. One message in 16 is timed, and only these are counted.";
    ACKER_TIME: "AckerTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "Recording what became of one batch of tuples with the ackers, by the task that acked or failed them.";
    BATCH_INTER_TIME: "BatchInterTime", SYS, Histogram, Task, "µs", Mean, On, MEASURED =>
        "Between two batches that the task takes out of its queue.";
    EMPTY_CPU_RATIO: "EmptyCpuRatio", SYS, Gauge, Task, "0 to 1", Mean, On, MEASURED =>
        "Spout: the share of nextTuple calls since the last report that emitted nothing.";
    CAPACITY: "Capacity", SYS, Gauge, Task, "0 to 1", Mean, On, MEASURED =>
        "The share of the time since the last reading in which the component was busy: in nextTuple, with a tuple until its ack or fail, or without a response to a heartbeat, which it reads after the tuples before it. Near 1 the component needs more tasks, or hangs.";
    PENDING_NUM: "PendingNum", SYS, Gauge, Task, "tuples", Sum, On, MEASURED =>
        "Spout: tuples emitted with an id whose ack or fail the spout was not told yet.";
    EXECUTOR_QUEUE: "ExecutorQueue", SYS, Gauge, Task, "% full", Mean, On, MEASURED =>
        "The queue of tuples that wait for this task.";
    DESERIALIZE_QUEUE: "DeserializeQueue", SYS, Gauge, Task, "% full", Mean, On, instead("no such queue exists: a frame of another worker or a message of the component's own process stays in the kernel until the one before is decoded; see ExecutorQueue") =>
        "The queue of received tuples that are not decoded yet.";
    SERIALIZE_QUEUE: "SerializeQueue", SYS, Gauge, Task, "% full", Mean, On, MEASURED =>
        "Tuples that wait for the component's process, of at most `topology.shellbolt.max.pending`; those in the pipe are not counted.";
    CTRL_QUEUE: "CtrlQueue", SYS, Gauge, Task, "% full", Mean, On, instead("control messages have no queue of their own; see ExecutorQueue") =>
        "The queue of control messages of a task.";

    CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Worker, "% of a core", Sum, On, MEASURED =>
        "CPU time of the worker and the processes of its components: 62 is 0.62 of a core; values above 100 use more than one core.";
    MEMORY_USED: "MemoryUsed", SYS, Gauge, Worker, "bytes", Sum, On, MEASURED =>
        "Resident memory of the worker and the processes of its components.";
    THREADS: "Threads", SYS, Gauge, Worker, "threads", Sum, On, MEASURED =>
        "Threads of the worker.";
    OPEN_FILES: "OpenFiles", SYS, Gauge, Worker, "descriptors", Sum, On, MEASURED =>
        "Open file descriptors of the worker.";
    HEAP_MEMORY: "HeapMemory", SYS, Gauge, Worker, "bytes", Sum, On, instead("there is no JVM; see MemoryUsed") =>
        "The heap of a JVM.";
    FULL_GC: "FullGc", SYS, Gauge, Worker, "collections", Sum, On, instead("there is no JVM and no garbage collector") =>
        "Full collections in the last minute.";
    GC_COUNT: "GCCount", SYS, Gauge, Worker, "collections", Sum, On, instead("there is no JVM and no garbage collector") =>
        "Collections in the last minute.";
    GC_TIME: "GCTime", SYS, Gauge, Worker, "µs", Sum, On, instead("there is no JVM and no garbage collector") =>
        "Time spent in collections in the last minute.";
    NETTY_CLI_SEND_SPEED: "NettyCliSendSpeed", NETTY, Meter, Worker, "bytes/s", Sum, On, MEASURED =>
        "Sent to other workers.";
    NETTY_SRV_RECV_SPEED: "NettySrvRecvSpeed", NETTY, Meter, Worker, "bytes/s", Sum, On, MEASURED =>
        "Received from other workers.";
    NETTY_CLI_SEND_BATCH_SIZE: "NettyCliSendBatchSize", NETTY, Histogram, Worker, "bytes", Mean, On, MEASURED =>
        "Size of one frame to another worker.";
    NETTY_SRV_TRANSMIT_TIME: "NettySrvTransmitTime", NETTY, Histogram, Worker, "µs", Mean, On, MEASURED =>
        "From the sending of a frame by another worker to its arrival here; includes the clock difference of the hosts.";
    MSG_DECODE_TIME: "MsgDecodeTime", NETTY, Histogram, Worker, "µs", Mean, Off, MEASURED =>
        "Decoding the tuples of one frame.";
    RECV_CTRL_QUEUE: "RecvCtrlQueue", SYS, Gauge, Worker, "% full", Mean, On, instead("control messages have no queue of their own") =>
        "The queue of received control messages.";
    SEND_CTRL_QUEUE: "SendCtrlQueue", SYS, Gauge, Worker, "% full", Mean, On, instead("control messages have no queue of their own") =>
        "The queue of outgoing control messages.";

    NETTY_CLI_SEND_TIME: "NettyCliSendTime", NETTY, Histogram, Connection, "µs", Mean, On, MEASURED =>
        "Passing one frame to the kernel.";
    NETTY_CLI_CACHE_SIZE: "NettyCliCacheSize", NETTY, Gauge, Connection, "bytes", Sum, On, MEASURED =>
        "Bytes of the frame that is being passed to the kernel. Tuples behind that frame are not encoded yet: see NettyCliSendPending.";
    NETTY_CLI_SEND_PENDING: "NettyCliSendPending", NETTY, Gauge, Connection, "tuples", Sum, On, MEASURED =>
        "Tuples that wait to be sent.";
    NETTY_CLI_CONN_CHECK: "NettyCliConnCheck", NETTY, Gauge, Connection, "", Sum, On, instead("the worker logs and counts broken connections") =>
        "A check of the connection.";
    NETTY_CLI_SYNC_BATCH_QUEUE: "NettyCliSyncBatchQ", NETTY, Gauge, Connection, "", Sum, On, instead("JStorm defines the name only") =>
        "A name without a meaning.";
    NETTY_CLI_SYNC_DISRUPTOR_QUEUE: "NettyCliSyncDisrQ", NETTY, Gauge, Connection, "", Sum, On, instead("JStorm defines the name only") =>
        "A name without a meaning.";

    SUPERVISOR_CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Supervisor, "% of the host", Mean, On, MEASURED =>
        "CPU use of the whole host, 0 to 100.";
    SUPERVISOR_MEMORY_USAGE: "MemoryUsage", SYS, Gauge, Supervisor, "0 to 1", Mean, On, MEASURED =>
        "The share of the host's memory that is in use, without memory that the kernel can reclaim.";
    SUPERVISOR_DISK_USAGE: "DiskUsage", SYS, Gauge, Supervisor, "0 to 1", Mean, On, MEASURED =>
        "The used share of the disk that holds the supervisor's directory.";
    SUPERVISOR_NET_RECV_SPEED: "NetRecvSpeed", SYS, Gauge, Supervisor, "bytes/s", Sum, On, MEASURED =>
        "Received by the host's network devices except loopback.";
    SUPERVISOR_NET_SEND_SPEED: "NetSendSpeed", SYS, Gauge, Supervisor, "bytes/s", Sum, On, MEASURED =>
        "Sent by the host's network devices except loopback.";

    NIMBUS_CPU_USED_RATIO: "CpuUsedRatio", SYS, Gauge, Nimbus, "% of a core", Sum, On, MEASURED =>
        "CPU time of this nimbus.";
    NIMBUS_MEMORY_USED: "MemoryUsed", SYS, Gauge, Nimbus, "bytes", Sum, On, MEASURED =>
        "Resident memory of this nimbus.";
    NIMBUS_OPEN_FILES: "OpenFiles", SYS, Gauge, Nimbus, "files", Sum, On, MEASURED =>
        "Files and connections that this nimbus has open.";
    NIMBUS_VIEW_AGE: "ViewAge", SYS, Gauge, Nimbus, "ms", Mean, On, MEASURED =>
        "Age of this nimbus' view of the cluster; 0 while the view is up to date.";
    NIMBUS_METRIC_STORE_BYTES: "MetricStoreBytes", SYS, Gauge, Nimbus, "bytes", Sum, On, MEASURED =>
        "Size of the metric store on disk.";
    NIMBUS_METRIC_STORE_QUEUE: "MetricStoreQueue", SYS, Gauge, Nimbus, "requests", Sum, On, MEASURED =>
        "Requests that wait for the metric store.";
    NIMBUS_INGEST_POINTS: "IngestPoints", SYS, Meter, Nimbus, "points/s", Sum, On, MEASURED =>
        "Points ingested as the leader.";
    NIMBUS_INGEST_BATCHES: "IngestBatches", SYS, Meter, Nimbus, "batches/s", Sum, On, MEASURED =>
        "Metric batches ingested as the leader.";
    NIMBUS_INGEST_REJECTED: "IngestRejected", SYS, Counter, Nimbus, "batches", Sum, On, MEASURED =>
        "Metric batches that were rejected, or deferred to a retry.";
    NIMBUS_REGISTERED: "Registered", SYS, Counter, Nimbus, "names", Sum, On, MEASURED =>
        "Metric names registered as the leader.";
    NIMBUS_EXPORT_QUEUE: "ExportQueue", SYS, Gauge, Nimbus, "entries", Sum, On, MEASURED =>
        "Minutes of topologies that wait for export to external stores by this nimbus; 0 unless it leads.";
    NIMBUS_EXPORT_DROPPED: "ExportDropped", SYS, Counter, Nimbus, "entries", Sum, On, MEASURED =>
        "Minutes of topologies that were dropped before an external store acknowledged them, while this nimbus led.";
    NIMBUS_EXPORT_REJECTED: "ExportRejected", SYS, Counter, Nimbus, "numbers", Sum, On, MEASURED =>
        "Numbers of metrics that external stores rejected for good, while this nimbus led.";
    NIMBUS_HBASE_SEND_TPS: "HBaseSendTps", SYS, Meter, Nimbus, "rows/s", Sum, On, instead("there is no HBase; see IngestPoints") =>
        "Rows sent to HBase.";
    NIMBUS_TOTAL_HBASE_INSERT: "TotalHBaseInsert", SYS, Counter, Nimbus, "rows", Sum, On, instead("there is no HBase; see IngestPoints") =>
        "Total rows sent to HBase.";
    NIMBUS_HBASE_FAILED: "HBaseFailed", SYS, Counter, Nimbus, "rows", Sum, On, instead("there is no HBase; see ExportRejected and ExportDropped") =>
        "Rows that HBase rejected.";
    NIMBUS_REQUEST_TIME: "RequestTime", SYS, Histogram, Nimbus, "µs", Mean, On, MEASURED =>
        "One request to this nimbus, from the head of the request to the head of the response; all requests together.";
    NIMBUS_REFUSED_REQUESTS: "RefusedRequests", SYS, Counter, Nimbus, "requests", Sum, On, MEASURED =>
        "Requests that this nimbus refused: without a proof or with a wrong one, beyond the rights of the sender, from pages of other sites, or changes that are switched off.";
    NIMBUS_DECISION_TIME: "DecisionTime", SYS, Histogram, Nimbus, "µs", Mean, On, MEASURED =>
        "One decision of this nimbus as the leader, with the writes that follow from it.";
}

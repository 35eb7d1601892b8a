//! `GET /metrics`: the host of a supervisor and the workers there, for Prometheus.
//!
//! The numbers are read from `/proc` at most once a second, however many ask. Names, units and labels
//! are those of the page of a nimbus for the same things.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
};

use super::AgentApi;
use crate::status::Status;
use stormkeeper_access::refusals::{RefusalKind, Refusals};
use stormkeeper_api_types::message::Code;
use stormkeeper_exposition::{Description, Family, FamilyKind, Format, Labels, SampleValue, Unit};
use stormkeeper_model::{Port, TopologyId, clock::Clock};
use stormkeeper_runtime::{
    blocking,
    proc::{self, HostUsage, ProcessTree, TICKS_PER_SECOND, Usage},
    refreshed::Refreshed,
    tasks::Tasks,
};
use stormkeeper_serving::error::Rejection;

/// Media types of the page, of which the client chooses one.
pub(super) const MEDIA_TYPES: &[&str] =
    &["text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"];

/// Shortest time between two readings: one costs some milliseconds, and several monitors may ask.
const PERIOD: Duration = Duration::from_secs(1);

/// Maximum wait of a request for a reading; then it gets the one before.
const PATIENCE: Duration = Duration::from_secs(5);

/// The families of the last reading. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Page {
    families: Refreshed<Vec<Family>>,
    data_dir: PathBuf,
    tasks: Arc<Tasks>,
}

/// State of a host and of the workers there, as read at one time.
#[derive(Debug, Default)]
struct Reading {
    host: Option<HostUsage>,
    /// Used share of the disk with the data directory.
    disk: Option<f64>,
    supervisor: Option<Usage>,
    n_slots: usize,
    workers: Vec<WorkerReading>,
}

/// A slot that has a worker, or should have one.
#[derive(Debug)]
struct WorkerReading {
    port: Port,
    topology: TopologyId,
    /// Usage of the worker, alone and with all processes that it started, while it runs.
    usage: Option<ProcessTree>,
}

/// `CONSTANT: name, kind, unit => help;` for each family.
macro_rules! families {
    ($($constant:ident: $name:literal, $kind:ident, $unit:ident => $help:literal;)*) => {
        $(
            #[doc = $help]
            static $constant: Description =
                Description::fixed(concat!("stormkeeper_", $name), FamilyKind::$kind, Unit::$unit, $help);
        )*

        /// All families, in the order of the documentation.
        #[cfg(test)]
        static ALL: &[&Description] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO: "supervisor_build_info", Gauge, Things =>
        "Version of this supervisor, as the label `version`; always 1.";
    SUPERVISOR_CPU: "supervisor_cpu_seconds", Counter, Seconds => "CPU time of this supervisor.";
    SUPERVISOR_MEMORY: "supervisor_memory_used_bytes", Gauge, Bytes => "Resident memory of this supervisor.";
    SLOTS: "supervisor_slots", Gauge, Things => "Slots of this supervisor.";
    REFUSED_REQUESTS: "refused_requests", Counter, Things =>
        "Requests that the agent refused since it listens, by kind.";
    HOST_CPU: "host_cpu_seconds", Counter, Seconds => "Busy time of all processors of the host.";
    HOST_MEMORY: "host_memory_bytes", Gauge, Bytes => "Memory of the host.";
    HOST_AVAILABLE: "host_memory_available_bytes", Gauge, Bytes => "Memory of the host that programs can get.";
    HOST_RECEIVED: "host_network_received_bytes", Counter, Bytes =>
        "Received by the host's network devices except loopback.";
    HOST_SENT: "host_network_sent_bytes", Counter, Bytes =>
        "Sent by the host's network devices except loopback.";
    HOST_DISK: "host_disk_used_ratio", Gauge, Ratio =>
        "The used share of the disk that holds the supervisor's directory.";
    WORKER_UP: "worker_up", Gauge, Things =>
        "1 while the process of the worker runs, 0 while its slot should have one.";
    WORKER_CPU: "worker_cpu_seconds", Counter, Seconds =>
        "CPU time of the worker and the processes of its components, since the worker started.";
    WORKER_MEMORY: "worker_memory_used_bytes", Gauge, Bytes =>
        "Resident memory of the worker and the processes of its components.";
    WORKER_THREADS: "worker_threads", Gauge, Things => "Threads of the worker.";
    WORKER_FILES: "worker_open_files", Gauge, Things => "Open file descriptors of the worker.";
}

impl Page {
    pub(super) fn new(data_dir: &Path, clock: Clock) -> Self {
        let families = Refreshed::new(PERIOD, clock);
        Self { families, data_dir: data_dir.to_owned(), tasks: Arc::default() }
    }
}

pub(super) async fn metrics(State(api): State<AgentApi>, headers: HeaderMap) -> Result<Response, Rejection> {
    let (status, dir, host) = (api.status.borrow().clone(), api.page.data_dir.clone(), api.host.clone());
    let refusals = Arc::clone(&api.refusals);
    let make = |_before| blocking::run(move || families(&read(&status, &dir), &host, &refusals));
    let Some(families) = api.page.families.get(&api.page.tasks, PATIENCE, make).await else {
        let message = "the numbers for this page are still being read";
        return Err(Rejection::new(Code::NotReady, message, Some("try again later")));
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::preferred(accept);
    let page = blocking::run(move || format.encode(&families)).await;
    let content_type = HeaderValue::from_static(format.content_type());
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, HeaderValue::from_static("accept"))];
    Ok((headers, page).into_response())
}

/// Reads the numbers; those that cannot be read are absent. Blocks.
fn read(status: &Status, data_dir: &Path) -> Reading {
    let workers = status.slots.iter().filter_map(|(port, slot)| {
        let usage = slot.process.and_then(|process| {
            // The pid may be of another process by now.
            let found = proc::stat(process.pid).ok()??;
            (found.started == process.started).then(|| proc::of_tree(process.pid).ok())?
        });
        Some(WorkerReading { port: *port, topology: slot.topology.clone()?, usage })
    });
    Reading {
        workers: workers.collect(),
        n_slots: status.slots.len(),
        host: proc::of_host().ok(),
        disk: proc::of_disk(data_dir).ok(),
        supervisor: proc::of_this_process(),
    }
}

fn families(reading: &Reading, host: &str, refusals: &Refusals) -> Vec<Family> {
    let Reading { supervisor, n_slots, disk, workers, .. } = reading;
    let version = Labels::from([("version", env!("CARGO_PKG_VERSION").to_owned())]);
    let refused = RefusalKind::ALL
        .map(|kind| (Labels::from([("kind", kind.word().to_owned())]), SampleValue::from(refusals.of(kind))));
    let mut families = vec![
        Family::labelled(&BUILD_INFO, [(version, SampleValue::Count(1))]),
        Family::single(&SLOTS, (*n_slots).into()),
        Family::labelled(&REFUSED_REQUESTS, refused),
    ];
    if let Some(usage) = supervisor {
        families.push(Family::single(&SUPERVISOR_CPU, usage.cpu.as_secs_f64().into()));
        families.push(Family::single(&SUPERVISOR_MEMORY, usage.resident_bytes.into()));
    }
    let of_host = |about: &Description, value: SampleValue| {
        Family::labelled(about, [(Labels::from([("host", host.to_owned())]), value)])
    };
    families.extend(disk.map(|disk| of_host(&HOST_DISK, disk.into())));
    if let Some(usage) = &reading.host {
        let busy = usage.busy_ticks as f64 / TICKS_PER_SECOND as f64;
        families.extend([
            of_host(&HOST_CPU, busy.into()),
            of_host(&HOST_MEMORY, usage.memory_bytes.into()),
            of_host(&HOST_AVAILABLE, usage.available_bytes.into()),
            of_host(&HOST_RECEIVED, usage.received_bytes.into()),
            of_host(&HOST_SENT, usage.sent_bytes.into()),
        ]);
    }
    let labels: Vec<Labels> = workers.iter().map(|worker| labels(worker, host)).collect();
    let of_workers = |about: &Description, value: fn(&ProcessTree) -> SampleValue| {
        let samples = workers.iter().zip(&labels);
        let samples =
            samples.filter_map(|(it, labels)| Some((Arc::clone(labels), value(it.usage.as_ref()?))));
        Family::labelled(about, samples)
    };
    let up = workers.iter().zip(&labels);
    let up = up.map(|(it, labels)| (Arc::clone(labels), SampleValue::from(it.usage.is_some())));
    families.extend([
        Family::labelled(&WORKER_UP, up),
        of_workers(&WORKER_CPU, |it| (it.all.cpu + it.all.children_cpu).as_secs_f64().into()),
        of_workers(&WORKER_MEMORY, |it| it.all.resident_bytes.into()),
        of_workers(&WORKER_THREADS, |it| it.own.n_threads.into()),
        of_workers(&WORKER_FILES, |it| it.own.n_descriptors.into()),
    ]);
    families
}

fn labels(worker: &WorkerReading, host: &str) -> Labels {
    let WorkerReading { port, topology, .. } = worker;
    let name = TopologyId::name_in(topology.as_str()).to_owned();
    Labels::from([
        ("topology", name),
        ("topology_id", topology.to_string()),
        ("host", host.to_owned()),
        ("port", port.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::ProcessId, status::SlotStatus};

    fn slot(process: Option<ProcessId>) -> SlotStatus {
        let topology = "word-count-1-100".parse().ok();
        SlotStatus { state: "running", topology, worker: None, process, reason: None }
    }

    #[test]
    fn page_has_the_host_and_its_workers_and_no_numbers_of_a_process_that_has_ended() {
        let pid = std::process::id();
        let started = proc::stat(pid).expect("read").expect("it runs").started;
        let process = |started| slot(Some(ProcessId { pid, started }));
        let status = Status {
            supervisor: "s".parse().expect("valid"),
            has_assignments: true,
            slots: [(Port(1), process(started)), (Port(2), process(started + 1)), (Port(3), slot(None))]
                .into(),
            problems: Vec::new(),
        };
        let page = Format::Text.encode(&families(&read(&status, Path::new("/")), "h1", &Refusals::default()));
        let page = String::from_utf8(page).expect("text");
        let has = |line: &str| page.lines().any(|found| found.starts_with(line));
        let worker = |port| {
            format!(r#"{{topology="word-count",topology_id="word-count-1-100",host="h1",port="{port}"}} "#)
        };
        for (port, up) in [(1, 1), (2, 0), (3, 0)] {
            assert!(has(&format!("stormkeeper_worker_up{}{up}", worker(port))), "{page}");
            let has_usage = has(&format!("stormkeeper_worker_threads{}", worker(port)));
            assert_eq!(has_usage, up == 1, "{port}: {page}");
        }
        assert!(
            has(r#"stormkeeper_host_memory_bytes{host="h1"} "#) && has("stormkeeper_supervisor_slots 3"),
            "{page}"
        );
        for about in ALL {
            let name = match about.kind {
                FamilyKind::Counter => format!("{}_total", about.name),
                FamilyKind::Gauge | FamilyKind::Histogram => about.name.to_string(),
            };
            assert!(has(&name), "{name} is missing: {page}");
        }
    }

    /// Returns the table of families in the documentation.
    fn table() -> String {
        let mut table = String::from("| family | kind | meaning |\n| --- | --- | --- |\n");
        for about in ALL {
            let total = if about.kind == FamilyKind::Counter { "_total" } else { "" };
            table.push_str(&format!(
                "| `{}{total}` | {} | {} |\n",
                about.name,
                about.kind.word(),
                about.help
            ));
        }
        table
    }

    #[test]
    fn generated_table_of_families_is_current() {
        stormkeeper_runtime::test_support::assert_generated(
            "docs/operations/logs.md",
            "agent families",
            &table(),
        );
    }
}

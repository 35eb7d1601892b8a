//! Creates the options of each subsystem from a configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::config::{load::Config, value::Value};
use stormkeeper_access::{
    locks::{self, ZooKeeperProblems},
    tls::TlsSettings,
};
use stormkeeper_coordination::{
    cluster::{layout, users::HeldUsers},
    tree::{self, options::OnMissingRoot},
};
use stormkeeper_metric_store as metric_store;
use stormkeeper_metrics as metrics;
use stormkeeper_metrics_service::exporters;
use stormkeeper_model::{address::HostAndPort, resources::Capacity, settings, topology::Ackers};
use stormkeeper_nimbus as nimbus;
use stormkeeper_runtime::proc;
use stormkeeper_supervisor as supervisor;

/// Periods and timeouts of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerTiming {
    /// Period of writing the local heartbeat file.
    pub heartbeat_period: Duration,
    /// Shortest time between two updates of a task's heartbeat.
    pub task_heartbeat_period: Duration,
    /// Time without output after which a component is killed, unless the topology sets it.
    pub subprocess_timeout: Duration,
    /// Period of metric reports.
    pub metric_report_period: Duration,
    /// Time after which a worker that nobody owns any more ends.
    pub abandoned_after: Duration,
}

impl Config {
    /// Options of the ZooKeeper connection; only a nimbus creates a missing root.
    pub fn tree_options(&self, on_missing_root: OnMissingRoot) -> tree::options::Options {
        let Value::TreePath(root) = self.value("storm.zookeeper.root") else { unfit("a path of the tree") };
        let port = self.narrow("storm.zookeeper.port");
        tree::options::Options {
            servers: self.hosts("storm.zookeeper.servers").map(|host| with_port(host, port)).collect(),
            root: root.clone(),
            on_missing_root,
            cluster_znodes: layout::CLUSTER_ZNODES,
            access: None,
            tls: None,
            session_timeout: self.duration("storm.zookeeper.session.timeout"),
            request_timeout: self.duration("storm.zookeeper.connection.timeout"),
        }
    }

    /// Options of a nimbus.
    pub fn nimbus_options(&self) -> nimbus::Options {
        let session = self.duration("storm.zookeeper.session.timeout");
        let defaults = self.topology_defaults();
        let default = |key: &str| defaults.get(key).and_then(serde_json::Value::as_u64);
        nimbus::Options {
            local_dir: self.local_dir(),
            host: self.nimbus_host(),
            api: self.api_address(),
            // Files are read by the command that runs a nimbus, which decides about the exposure as well.
            locks: locks::Locks::open(),
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: ZooKeeperProblems::default(),
            quotas: None,
            api_names: self.api_names(),
            seeds: self.nimbus_seeds(),
            monitor_period: self.duration("nimbus.monitor.freq.secs"),
            task_timeout: self.duration("nimbus.task.timeout.secs"),
            task_launch: self.duration("nimbus.task.launch.secs"),
            supervisor_timeout: self.duration("nimbus.supervisor.timeout.secs"),
            session_timeout: self.duration("storm.zookeeper.session.timeout"),
            lost_hosts_share_max: nimbus::options::Share::of_millionths(
                self.whole("nimbus.lost.hosts.share.max"),
            ),
            settle: match self.value("nimbus.settle.secs") {
                Value::Unset => session + session / 2,
                _ => self.duration("nimbus.settle.secs"),
            },
            max_moves_per_round: usize::try_from(self.whole("nimbus.max.moves.per.round"))
                .unwrap_or(usize::MAX),
            candidate_grace: self.duration("nimbus.candidate.grace.secs"),
            max_blob_bytes: self.max_blob_bytes(),
            upload_limits: nimbus::options::UploadLimits {
                unused_bytes_max: self.whole("nimbus.blobs.unused.bytes.max"),
                free_bytes_min: match self.value("nimbus.disk.free.bytes.min") {
                    Value::Unset => None,
                    _ => Some(self.whole("nimbus.disk.free.bytes.min")),
                },
            },
            blob_retention: self.duration("nimbus.topology.blobstore.deletion.delay.ms"),
            replication: nimbus::options::ReplicationSettings {
                min_count: default("topology.min.replication.count").and_then(|n| usize::try_from(n).ok()),
                wait: default("topology.max.replication.wait.time.sec").map(Duration::from_secs),
            },
            tracking: nimbus::options::TrackingDefaults {
                message_timeout: default("topology.message.timeout.secs")
                    .map_or(MESSAGE_TIMEOUT, Duration::from_secs),
                ackers: Ackers::of_setting(default(Ackers::SETTING).map(serde_json::Value::from).as_ref()),
                grow_back: defaults.get("topology.grow.back").and_then(serde_json::Value::as_bool)
                    == Some(true),
                grow_back_delay: Duration::from_secs(default("topology.grow.back.delay.secs").unwrap_or(60)),
            },
            metrics: Some(self.metric_options()),
            storm_api: self.storm_api_options(),
            prometheus_series_max: self.narrow("nimbus.prometheus.series.max"),
        }
    }

    fn storm_api_options(&self) -> nimbus::options::StormApiOptions {
        let origins = match self.value("ui.header.access.control.allow.origin") {
            Value::Text(origins) => origins.as_str(),
            _ => "",
        };
        let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let shown = self.show();
        let set = shown.iter().filter(|shown| !shown.is_default);
        let sources = set.map(|shown| (shown.key.clone(), shown.provenance.clone())).collect();
        let shown = shown.into_iter().map(|shown| (shown.key, shown.value));
        nimbus::options::StormApiOptions {
            actions: self.flag("ui.actions.enabled"),
            jsonp: self.flag("ui.jsonp.enabled"),
            origins: origins.map(str::to_owned).collect(),
            configuration: shown.collect(),
            sources,
        }
    }

    /// Settings of the access to this process.
    pub fn access_settings(&self) -> locks::Settings {
        let mode = match self.value("storm.access") {
            Value::Text(text) => Some(text.parse().unwrap_or_else(|_| unfit("a mode of access"))),
            _ => None,
        };
        locks::Settings {
            mode,
            tokens: self.file_if_set("ui.tokens.file"),
            secret: self.file_if_set("storm.cluster.secret.file"),
            tls: self.tls_settings(),
        }
    }

    /// Settings of TLS.
    pub fn tls_settings(&self) -> TlsSettings {
        let mode = |key| match self.value(key) {
            Value::Text(text) => Some(text.parse().unwrap_or_else(|_| unfit("a use of TLS"))),
            _ => None,
        };
        let daemons = match self.value("storm.tls.daemons") {
            Value::Text(names) => names.as_str(),
            _ => "",
        };
        let daemons = daemons.split(',').map(str::trim).filter(|name| !name.is_empty());
        TlsSettings {
            mode: mode("storm.tls"),
            certificate: self.file_if_set("storm.tls.cert.file"),
            key: self.file_if_set("storm.tls.key.file"),
            authorities: self.file_if_set("storm.tls.ca.file"),
            client_certificates: mode("storm.tls.client.certificates").unwrap_or_default(),
            daemons: daemons.map(str::to_owned).collect(),
            host: self.host_name(),
        }
    }

    /// Files with the certificate of commands and its key.
    pub fn certificate_files(&self) -> [Option<PathBuf>; 2] {
        ["ui.cert.file", "ui.cert.key.file"].map(|key| self.file_if_set(key))
    }

    /// Workers run as the owners of their topologies, if that is set.
    pub fn run_as(&self) -> Option<supervisor::run_as::RunAs> {
        let min_uid = self.narrow("supervisor.run.worker.as.user.min.uid");
        self.flag("supervisor.run.worker.as.user").then_some(supervisor::run_as::RunAs { min_uid })
    }

    /// File with the quotas of owners.
    pub fn quotas_file(&self) -> Option<PathBuf> {
        self.file_if_set("nimbus.quotas.file")
    }

    /// File with the users of the tree.
    pub fn zookeeper_users_file(&self) -> Option<PathBuf> {
        self.file_if_set("storm.zookeeper.users.file")
    }

    /// File with the token of commands.
    pub fn token_file(&self) -> Option<PathBuf> {
        self.file_if_set("ui.token.file")
    }

    /// Path in the key `key`, made absolute, if it is set.
    pub fn file_if_set(&self, key: &str) -> Option<PathBuf> {
        match self.value(key) {
            Value::Text(file) => Some(std::path::absolute(file).unwrap_or_else(|_| file.into())),
            _ => None,
        }
    }

    /// Names of the nimbuses: of this host, of the replicas, and of proxies in front of them.
    fn api_names(&self) -> Vec<String> {
        let seeds = self.hosts("nimbus.seeds").map(str::to_owned);
        seeds.chain(self.allowed_hosts().iter().cloned()).chain([self.hostname.clone()]).collect()
    }

    /// Names of proxies in front of daemons.
    fn allowed_hosts(&self) -> &[String] {
        match self.value("ui.allowed.hosts") {
            Value::Hosts(hosts) => hosts.as_slice(),
            _ => &[],
        }
    }

    fn metric_options(&self) -> nimbus::options::MetricOptions {
        let defaults = self.topology_defaults();
        let number = |key: &str| defaults.get(key).and_then(serde_json::Value::as_f64);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        nimbus::options::MetricOptions {
            medium: metric_store::Medium::Disk,
            usage: proc::of_this_process,
            retention: metric_store::Retention {
                m1: self.duration("nimbus.metric.retention.minute.secs"),
                m10: self.duration("nimbus.metric.retention.ten.minutes.secs"),
                h2: self.duration("nimbus.metric.retention.two.hours.secs"),
                d1: self.duration("nimbus.metric.retention.day.secs"),
            },
            names_per_topology_max: count(self.whole("nimbus.metric.max.per.topology")),
            pending_per_topology_max: pending_metrics(defaults.get("topology.max.pending.metric.num")),
            pending_bytes_max: self.whole("nimbus.metric.queue.max.bytes"),
            close_delay: self.duration("nimbus.metric.close.delay.secs"),
            takeover_grace: self.duration("nimbus.metric.takeover.grace.secs"),
            sample_rate: number("topology.metric.sample.rate").unwrap_or(metrics::control::SAMPLE_RATE),
            exporters: self.exporter_options(),
            intervals: nimbus::options::Intervals::default(),
        }
    }

    /// Patterns of the environment variables that workers get in addition.
    pub fn allowed_variables(&self) -> Vec<String> {
        match self.value("supervisor.worker.environment.allow") {
            Value::Variables(patterns) => patterns.clone(),
            _ => Vec::new(),
        }
    }

    /// Limit of the bytes of unfinished frames of a worker.
    pub fn unfinished_frame_bytes(&self) -> usize {
        self.narrow("worker.unfinished.frames.max.bytes")
    }

    /// Options of a supervisor.
    pub fn supervisor_options(&self) -> supervisor::Options {
        let Value::Ports(ports) = self.value("supervisor.slots.ports") else { unfit("a list of ports") };
        let (agent, may_move) = self.agent_address();
        let names = self.allowed_hosts().iter().cloned().chain([self.hostname.clone()]);
        supervisor::Options {
            local_dir: self.local_dir(),
            host: self.supervisor_host(),
            ports: ports.clone(),
            // Decided by the command that runs a supervisor.
            exposed: None,
            held_users: HeldUsers::none(),
            zookeeper_problems: ZooKeeperProblems::default(),
            agent: Some(supervisor::AgentOptions { address: agent, may_move, names: names.collect() }),
            platform: None,
            capacity: Capacity {
                cpu_percent: self.whole_if_set("supervisor.cpu.capacity"),
                memory_mb: self.whole_if_set("supervisor.memory.capacity.mb"),
            },
            worker_start_timeout: self.duration("supervisor.worker.start.timeout.secs"),
            worker_timeout: self.duration("supervisor.worker.timeout.secs"),
            worker_shutdown_grace: self.duration("supervisor.worker.shutdown.sleep.secs"),
            unused_blob_retention: self.duration("supervisor.localizer.cleanup.interval.ms"),
            reconcile_period: self.duration("supervisor.monitor.frequency.secs"),
        }
    }

    pub(super) fn port_if_set(&self, key: &str) -> Option<u16> {
        self.whole_if_set(key).map(|port| u16::try_from(port).unwrap_or_else(|_| unfit("a port")))
    }

    fn whole_if_set(&self, key: &str) -> Option<u64> {
        match self.value(key) {
            Value::Unset => None,
            _ => Some(self.whole(key)),
        }
    }

    /// Options of the exporters.
    pub fn exporter_options(&self) -> exporters::ExporterOptions {
        match self.read_exporter_options() {
            Ok(options) => options,
            Err(_) => unreachable!("exporter options are checked when the configuration is loaded"),
        }
    }

    /// Returns the key of the first invalid exporter option, and a description of the fault.
    pub(super) fn exporter_fault(&self) -> Option<(&'static str, String)> {
        match self.read_exporter_options() {
            Ok(options) => exporters::registry::check(&options).err(),
            Err(fault) => Some(fault),
        }
    }

    fn read_exporter_options(&self) -> Result<exporters::ExporterOptions, (&'static str, String)> {
        let levels = |key| exporters::options::levels(self.text(key)).map_err(|what| (key, what));
        let number = |key| usize::try_from(self.whole(key)).unwrap_or(usize::MAX);
        let cluster = self.text("cluster.name").to_owned();
        let tags = "nimbus.metrics.plugin.opentsdb.tags";
        let events = "nimbus.metrics.plugin.opentsdb.events";
        Ok(exporters::ExporterOptions {
            exporters: self.text("nimbus.metric.uploader.class").to_owned(),
            query_client: self.text("nimbus.metric.query.client.class").to_owned(),
            log: exporters::options::LogOptions {
                cluster: cluster.clone(),
                levels: levels("nimbus.metrics.plugin.log.insert.filters")?,
            },
            file: exporters::options::FileOptions {
                cluster: cluster.clone(),
                levels: levels("nimbus.metrics.plugin.file.insert.filters")?,
                dir: match self.value("nimbus.metrics.plugin.file.dir") {
                    Value::Text(dir) => dir.into(),
                    _ => self.local_dir().join("metrics-files"),
                },
                max_bytes: self.whole("nimbus.metrics.plugin.file.max.bytes"),
                n_files: number("nimbus.metrics.plugin.file.files"),
            },
            alimonitor: exporters::options::AlimonitorOptions {
                cluster: cluster.clone(),
                levels: levels("nimbus.metrics.plugin.alimonitor.insert.filters")?,
                url: self.text("nimbus.metrics.plugin.alimonitor.url").to_owned(),
                monitor_name: self.text("nimbus.metrics.plugin.alimonitor.monitor.name").to_owned(),
                timeout: self.duration("nimbus.metrics.plugin.alimonitor.timeout.secs"),
            },
            opentsdb: exporters::options::OpenTsdbOptions {
                cluster,
                levels: levels("nimbus.metrics.plugin.opentsdb.insert.filters")?,
                url: self.text("nimbus.metrics.plugin.opentsdb.url").to_owned(),
                prefix: self.text("nimbus.metrics.plugin.opentsdb.prefix").to_owned(),
                batch: number("nimbus.metrics.plugin.opentsdb.batch"),
                max_tags: number("nimbus.metrics.plugin.opentsdb.max.tags"),
                tags: match self.value(tags) {
                    Value::Text(text) => exporters::options::tags(text).map_err(|what| (tags, what))?,
                    _ => BTreeMap::new(),
                },
                annotates: exporters::options::annotates(self.text(events)).map_err(|what| (events, what))?,
                timeout: self.duration("nimbus.metrics.plugin.opentsdb.timeout.secs"),
            },
        })
    }

    /// Periods and timeouts of a worker.
    pub fn worker_timing(&self) -> WorkerTiming {
        WorkerTiming {
            heartbeat_period: self.duration("worker.heartbeat.frequency.secs"),
            task_heartbeat_period: self.duration("task.heartbeat.frequency.secs"),
            subprocess_timeout: self.duration("supervisor.worker.timeout.secs"),
            metric_report_period: self.duration("worker.metric.report.frequency.secs"),
            abandoned_after: self.duration("worker.abandoned.secs"),
        }
    }

    /// Addresses of the nimbus replicas, each `host:port`.
    pub fn nimbus_seeds(&self) -> Vec<String> {
        let port = self.narrow("ui.port");
        self.hosts("nimbus.seeds").map(|host| with_port(host, port)).collect()
    }

    /// Address of the nimbus at `address`, `host:port`.
    pub fn nimbus_at(&self, address: &HostAndPort) -> String {
        address.with_default(self.narrow("ui.port"))
    }

    /// Maximum size of a blob that a nimbus with this configuration accepts.
    pub fn max_blob_bytes(&self) -> u64 {
        self.whole("nimbus.max.blob.bytes")
    }

    /// Directory of this host's daemons. Absolute: workers are started in other directories.
    pub fn local_dir(&self) -> PathBuf {
        let Value::Text(dir) = self.value("storm.local.dir") else { unfit("a text") };
        std::path::absolute(dir).unwrap_or_else(|_| dir.into())
    }

    pub(super) fn duration(&self, key: &str) -> Duration {
        let Value::Duration(duration) = self.value(key) else { unfit("a time") };
        *duration
    }

    fn text(&self, key: &str) -> &str {
        let Value::Text(text) = self.value(key) else { unfit("a text") };
        text
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        let Value::Flag(flag) = self.value(key) else { unfit("true or false") };
        *flag
    }

    fn whole(&self, key: &str) -> u64 {
        let Value::Whole(n) = self.value(key) else { unfit("a number") };
        *n
    }

    /// Number in the range of `T`, which the key's kind guarantees.
    pub(super) fn narrow<T: TryFrom<u64>>(&self, key: &str) -> T {
        T::try_from(self.whole(key)).unwrap_or_else(|_| unfit("a number in range"))
    }

    pub(super) fn hosts(&self, key: &str) -> impl Iterator<Item = &str> {
        let Value::Hosts(hosts) = self.value(key) else { unfit("a list of hosts") };
        hosts.iter().map(String::as_str)
    }
}

/// Returns the value of `topology.max.pending.metric.num`, or its default.
fn pending_metrics(configured: Option<&serde_json::Value>) -> usize {
    let of_table = || settings::known("topology.max.pending.metric.num")?.default.parse().ok();
    let configured = configured.and_then(serde_json::Value::as_f64).map(|n| n as usize);
    configured.or_else(of_table).unwrap_or_else(|| unfit("a whole number"))
}

/// Storm's default, for topologies and hosts without a message timeout.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Panics: each value was checked against the kind of its key when it was read.
fn unfit(kind: &str) -> ! {
    unreachable!("the table of keys says that this is {kind}")
}

/// Returns `host` with its own port or, if it has none, with `port`.
fn with_port(host: &str, port: u16) -> String {
    host.parse::<HostAndPort>().map_or_else(|_| unfit("a list of hosts"), |host| host.with_default(port))
}

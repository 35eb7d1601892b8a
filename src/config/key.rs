//! Table of the supported keys.

mod nimbus;

use crate::config::value::Kind;

/// A key of `storm.yaml`.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name; Storm's name if Storm has the key.
    pub name: &'static str,
    /// Kind of its values. `null` is also valid if it is the default.
    pub kind: Kind,
    /// Default value, as YAML.
    pub default: &'static str,
    /// One line for the reference.
    pub doc: &'static str,
}

/// Longest plausible wait. A longer one is usually a number of milliseconds for a key that counts
/// seconds.
const WEEK_SECS: u64 = 7 * 24 * 3600;
const WEEK_MILLIS: u64 = WEEK_SECS * 1000;

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

/// Returns all of them, in alphabetical order; `topology.*` has a table of its own in
/// [`stormkeeper_model::settings`].
pub fn all() -> impl Iterator<Item = &'static Key> {
    nimbus::KEYS.iter().chain(OTHERS)
}

/// Keys after those of nimbuses, in alphabetical order.
const OTHERS: &[Key] = &[
    key(
        "storm.access",
        Kind::Choice(&["open", "optional", "required"]),
        "null",
        "Whether requests to a nimbus must prove who sends them: `optional` checks a proof and accepts requests without \
         one, as a step in a running cluster; unset, `required` if there are tokens and a cluster secret, else `open`.",
    ),
    key(
        "storm.cluster.secret.file",
        Kind::Text,
        "null",
        "The file with the secret by which daemons know each other, the same on all hosts, with the mode 0600; \
         `stormkeeper secret new FILE` makes one.",
    ),
    key(
        "storm.insecure",
        Kind::Flag,
        "false",
        "Whether daemons of a cluster that is not locked may listen on addresses that other hosts reach; it is said at \
         each start and by `list`, `cluster` and `nimbuses`. Everybody who reaches such an address owns the cluster.",
    ),
    key(
        "storm.local.dir",
        Kind::Text,
        "\"stormkeeper-local\"",
        "The directory of the daemons of this host, each in its own subdirectory `nimbus` or `supervisor`: ids, \
         blobs, metrics, ledger, workers' directories and logs.",
    ),
    key(
        "storm.local.hostname",
        Kind::Host,
        "null",
        "The name under which other hosts reach this one; unset, the name that the system gives, and of a daemon that \
         listens on loopback its address.",
    ),
    key(
        "storm.tls",
        Kind::Choice(&["off", "optional", "required"]),
        "null",
        "Whether ports and requests speak TLS: `optional` accepts plain HTTP too, as a step in a running cluster; \
         unset, `required` if storm.tls.cert.file is set (for a command, storm.tls.ca.file), else `off`.",
    ),
    key(
        "storm.tls.ca.file",
        Kind::Text,
        "null",
        "The file with the authorities, in PEM, that have signed the certificates of daemons and of clients.",
    ),
    key(
        "storm.tls.cert.file",
        Kind::Text,
        "null",
        "The file with the certificate of this host, in PEM, for its storm.local.hostname; those between it and its \
         authority follow it. It is read again when it changes.",
    ),
    key(
        "storm.tls.client.certificates",
        Kind::Choice(&["off", "optional", "required"]),
        "\"off\"",
        "Whether clients are asked for a certificate: `optional` takes one in place of a token (`cert:NAME` in \
         ui.tokens.file), `required` also demands one in storm.tls.daemons of each daemon.",
    ),
    key(
        "storm.tls.daemons",
        Kind::Text,
        "null",
        "The names in the certificates of nimbuses and supervisors, separated by commas; `*.` at the beginning \
         stands for one label.",
    ),
    key(
        "storm.tls.key.file",
        Kind::Text,
        "null",
        "The file with the private key of storm.tls.cert.file, in PEM, with the mode 0600.",
    ),
    key(
        "storm.zookeeper.connection.timeout",
        Kind::Millis(100, WEEK_MILLIS),
        "15000",
        "How long a request to ZooKeeper may take before its outcome counts as unknown.",
    ),
    key(
        "storm.zookeeper.port",
        Kind::Whole(1, 65_535),
        "2181",
        "The port of ZooKeeper servers that are listed without a port.",
    ),
    key(
        "storm.zookeeper.root",
        Kind::TreePath,
        "\"/stormkeeper\"",
        "The root znode of the cluster; created if it does not exist.",
    ),
    key("storm.zookeeper.servers", Kind::Hosts, "[\"localhost\"]", "The servers of the ZooKeeper ensemble."),
    key(
        "storm.zookeeper.session.timeout",
        Kind::Millis(1000, 3_600_000),
        "10000",
        "The requested session timeout; a killed leader is replaced after it.",
    ),
    key(
        "storm.zookeeper.tls.ca.file",
        Kind::Text,
        "null",
        "The PEM file with the authorities that sign the certificates of the ZooKeeper servers, and lists of revoked \
         certificates; set, every connection to ZooKeeper is TLS, to the servers' `secureClientPort`.",
    ),
    key(
        "storm.zookeeper.tls.cert.file",
        Kind::Text,
        "null",
        "The PEM file with the certificate that a daemon presents to ZooKeeper; needed where the servers ask for one \
         (`ssl.clientAuth=need`, their default).",
    ),
    key(
        "storm.zookeeper.tls.key.file",
        Kind::Text,
        "null",
        "The PEM file with the key of `storm.zookeeper.tls.cert.file`, with the mode 0600.",
    ),
    key(
        "storm.zookeeper.tls.workers.cert.file",
        Kind::Text,
        "null",
        "The PEM file with the certificate that workers present to ZooKeeper: not that of the daemons, as components \
         can read what their worker reads.",
    ),
    key(
        "storm.zookeeper.tls.workers.key.file",
        Kind::Text,
        "null",
        "The PEM file with the key of `storm.zookeeper.tls.workers.cert.file`, with the mode 0600.",
    ),
    key(
        "storm.zookeeper.users.file",
        Kind::Text,
        "null",
        "The file with this daemon's user at ZooKeeper and the ids of the others, with the mode 0600; \
         `stormkeeper zookeeper users DIR` makes the files of a cluster. Unset, whoever reaches ZooKeeper may write the \
         tree.",
    ),
    key(
        "supervisor.agent.host",
        Kind::Address,
        "null",
        "The address on which the agent of a supervisor listens, from which nimbuses read the logs of workers; unset, \
         0.0.0.0 if the agent requires a proof of who asks (`storm.access`), else 127.0.0.1.",
    ),
    key(
        "supervisor.agent.port",
        Kind::Port,
        "null",
        "The port of the agent of a supervisor; 0 selects any free port. Unset, 8000, or any free port if another program \
         has it, as another supervisor on the same host.",
    ),
    key(
        "supervisor.cpu.capacity",
        Kind::Whole(1, 1_000_000),
        "null",
        "The CPU that this host offers to tasks that request some (`topology.component.cpu.pcore.percent`), in hundredths of a core; unset, any amount.",
    ),
    key(
        "supervisor.localizer.cleanup.interval.ms",
        Kind::Millis(0, WEEK_MILLIS),
        "600000",
        "How long a supervisor keeps a blob that no slot uses.",
    ),
    key(
        "supervisor.memory.capacity.mb",
        Kind::Whole(1, 1 << 30),
        "null",
        "The memory that this host offers to tasks that request some (`topology.component.resources.*`), in MiB; unset, any amount.",
    ),
    key(
        "supervisor.monitor.frequency.secs",
        Kind::Secs(1, 3600),
        "3",
        "How often a supervisor checks everything again if no event triggers a check.",
    ),
    key(
        "supervisor.run.worker.as.user",
        Kind::Flag,
        "false",
        "Whether workers run as the user of the host whose name is the owner of their topology; the supervisor must run as \
         root, and a topology whose owner is no such user does not start there.",
    ),
    key(
        "supervisor.run.worker.as.user.min.uid",
        Kind::Whole(1, 4_294_967_294),
        "1000",
        "The smallest id of a user as whom a worker may run; those below are of the system.",
    ),
    key(
        "supervisor.slots.ports",
        Kind::Ports,
        "[6700, 6701, 6702, 6703]",
        "The ports of the slots, one slot per port; the slot's worker listens on it for tuples.",
    ),
    key(
        "supervisor.worker.environment.allow",
        Kind::Variables,
        "null",
        "Environment variables of the supervisor that workers and components get in addition to PATH, HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_*, TZ, TMPDIR, PYTHON*, VIRTUAL_ENV, LD_LIBRARY_PATH, SSL_*, *_proxy, *_PROXY, RUST_BACKTRACE and STORMKEEPER_*; STORMKEEPER_TOKEN is never passed.",
    ),
    key(
        "supervisor.worker.host",
        Kind::Address,
        "null",
        "The address on which workers listen for tuples, as 0.0.0.0 or [::] for all; unset, if there is a cluster secret or the configuration names other hosts, `storm.local.hostname` if that is an address of this host, else all addresses of IPv4 and IPv6; without both, a loopback address. Without a required proof another address than loopback needs `storm.insecure`.",
    ),
    key(
        "supervisor.worker.shutdown.sleep.secs",
        Kind::Secs(0, 3600),
        "3",
        "How long a worker has between SIGTERM and SIGKILL.",
    ),
    key(
        "supervisor.worker.start.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "120",
        "How long a worker may take from its launch to its first heartbeat.",
    ),
    key(
        "supervisor.worker.timeout.secs",
        Kind::Secs(1, WEEK_SECS),
        "30",
        "How long a worker may be without a heartbeat before it is killed and started again.",
    ),
    key(
        "task.heartbeat.frequency.secs",
        Kind::Secs(1, 3600),
        "10",
        "The shortest time between two updates of the data of a task's heartbeat; the start and the loss of a task are visible at once.",
    ),
    key(
        "ui.actions.enabled",
        Kind::Flag,
        "true",
        "Whether a nimbus takes changes by people, from commands and by every API: submits, changes of topologies and of \
         their metrics, drains, and the recovery of a tree. What daemons do is not affected.",
    ),
    key(
        "ui.allowed.hosts",
        Kind::Hosts,
        "null",
        "Further names under which the API of a nimbus may be addressed, as by a proxy, and hosts whose web pages may use it; addresses, `localhost`, the host's own name and `nimbus.seeds` are always allowed, and ports are not compared.",
    ),
    key(
        "ui.cert.file",
        Kind::Text,
        "null",
        "The file with the client certificate of commands, in PEM; --cert comes first.",
    ),
    key(
        "ui.cert.key.file",
        Kind::Text,
        "null",
        "The file with the private key of ui.cert.file, in PEM, with the mode 0600; --key comes first.",
    ),
    key(
        "ui.header.access.control.allow.origin",
        Kind::Text,
        "null",
        "Origins whose web pages may read Storm's API, separated by commas (`https://ui.example.com`), or `*` for all; unset, none.",
    ),
    key(
        "ui.host",
        Kind::Address,
        "null",
        "The address on which the API of a nimbus listens; unset, 0.0.0.0 if a proof is required (`storm.access`) or the \
         configuration names other hosts, else a loopback address. Without a required proof another address than \
         loopback needs `storm.insecure`.",
    ),
    key(
        "ui.jsonp.enabled",
        Kind::Flag,
        "false",
        "Whether Storm's API answers `callback=` with a script (JSONP), which lets every web page read the cluster.",
    ),
    key("ui.port", Kind::Port, "8080", "The port of the API of a nimbus; 0 selects any free port."),
    key(
        "ui.token.file",
        Kind::Text,
        "null",
        "The file with the token of commands, with the mode 0600; STORMKEEPER_TOKEN and --token-file come first.",
    ),
    key(
        "ui.tokens.file",
        Kind::Text,
        "null",
        "The file with the names, roles and digests of the tokens that a nimbus accepts; `stormkeeper token new` prints \
         a line.",
    ),
    key(
        "worker.abandoned.secs",
        Kind::Secs(1, 30 * 24 * 3600),
        "3600",
        "How long a worker runs on whose directory was removed, whose supervisor is gone and which does not reach \
         ZooKeeper; then it ends with its components.",
    ),
    key(
        "worker.heartbeat.frequency.secs",
        Kind::Secs(1, 3600),
        "1",
        "How often a worker sends a heartbeat to its supervisor.",
    ),
    key(
        "worker.metric.report.frequency.secs",
        Kind::Secs(1, 60),
        "60",
        "How often a worker reports its metrics; also at the end of each minute.",
    ),
    key(
        "worker.unfinished.frames.max.bytes",
        Kind::Bytes(32 << 20, 64 << 30),
        "\"64MiB\"",
        "The limit of the memory of a worker for tuples of other workers that have not arrived completely; one half is for frames above 256 KiB. Senders wait at the limit.",
    ),
];

/// Returns the key called `name`, if it is supported.
pub fn known(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

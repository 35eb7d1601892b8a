//! Facts on which the checks decide.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use stormkeeper_access::tls::certificate::PeerCertificate;
use stormkeeper_api_types::message::{NimbusList, SupervisorList};
use stormkeeper_coordination::{
    cluster::tree_id::{FoundTree, TreeMark},
    tree::TreePath,
};
use stormkeeper_model::{Timestamp, clock_difference::ClockReading};
use stormkeeper_runtime::proc::DiskSpace;

/// Fact, or the reason why it is unknown.
pub(super) type Known<T> = Result<T, String>;

#[derive(Debug)]
pub(super) struct Facts {
    pub(super) now: Timestamp,
    /// Version of this program.
    pub(super) version: String,
    pub(super) names: Vec<Name>,
    pub(super) servers: Vec<Server>,
    pub(super) tree: Known<Tree>,
    pub(super) memories: Vec<Memory>,
    pub(super) seeds: Vec<Seed>,
    pub(super) cluster: Known<(NimbusList, SupervisorList)>,
    pub(super) ports: Known<Vec<Port>>,
    pub(super) disk: Disk,
    pub(super) descriptors: Vec<Descriptors>,
    pub(super) files: Vec<SecretFile>,
    pub(super) certificates: Vec<CertificateFile>,
    /// Controllers of cgroup v2.
    pub(super) cgroup: Known<String>,
}

/// Name of a host.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: String,
    /// Key of the configuration that has it.
    pub(super) key: &'static str,
    /// Name of this host, which others are told.
    pub(super) is_own: bool,
    pub(super) addresses: Known<Vec<IpAddr>>,
}

/// Server of ZooKeeper.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: String,
    /// Time until the connection was made.
    pub(super) connected: Known<Duration>,
    /// Answer to the command `srvr`.
    pub(super) answer: Known<String>,
}

/// Tree as a session shows it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: TreePath,
    /// Whether the tree is empty, or why it is refused.
    pub(super) is_empty: Known<bool>,
    pub(super) found: Known<FoundTree>,
    /// Time of the median read.
    pub(super) latency: Duration,
}

/// Tree that a daemon of this host remembers.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) daemon: &'static str,
    pub(super) mark: Known<Option<TreeMark>>,
}

/// Nimbus of the configuration.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) address: String,
    /// Comparison with its clock; a nimbus of an older build does not tell its time.
    pub(super) answer: Known<Option<ClockReading>>,
}

/// Port on which a daemon of this host listens, or would.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) key: &'static str,
    pub(super) holder: Option<Holder>,
}

/// Process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// Process of another user.
    Unknown,
    Process {
        pid: u32,
        program: String,
    },
}

/// Disk of `storm.local.dir`.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) dir: PathBuf,
    /// Nearest directory that exists.
    pub(super) existing: PathBuf,
    pub(super) space: Known<DiskSpace>,
    /// Whether a file can be written.
    pub(super) write: Known<()>,
    /// Risk of the mode of the directory.
    pub(super) risk: Option<String>,
}

/// Limit of open files.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// Process that has the limit.
    pub(super) of: String,
    pub(super) limit: Option<u64>,
}

/// File with a secret, or one that others must not change.
#[derive(Debug)]
pub(super) struct SecretFile {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
    pub(super) read: Result<(), Unread>,
}

/// Reason why a file cannot be used.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) text: String,
    /// This user may not read it, and another may.
    pub(super) is_denied: bool,
}

/// File with certificates.
#[derive(Debug)]
pub(super) struct CertificateFile {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
    pub(super) certificates: Result<Vec<PeerCertificate>, Unread>,
}

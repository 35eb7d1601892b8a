//! Defects of records, with what an operator can do.

use crate::tree::TreePath;

/// Defect of the data of a znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// Description for people.
    pub reason: String,
    /// Kind, which decides about the remedy.
    pub kind: DefectKind,
}

/// Kind of a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefectKind {
    /// The data is no valid record in any build.
    Damaged,
    /// A newer build wrote the data: it is valid there.
    Newer,
    /// The access control list of the znode excludes this process.
    Denied,
}

impl Defect {
    /// Data that is no valid record in any build.
    pub fn damage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), kind: DefectKind::Damaged }
    }

    /// Data that a newer build wrote.
    pub fn newer(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), kind: DefectKind::Newer }
    }

    /// A znode that this process is not authorized to read.
    pub fn denied() -> Self {
        let reason = "ZooKeeper does not authorize this process".to_owned();
        Self { reason, kind: DefectKind::Denied }
    }

    /// True if the data may be valid and must never be overwritten: only damage may be.
    pub fn must_stay(&self) -> bool {
        match self.kind {
            DefectKind::Damaged => false,
            DefectKind::Newer | DefectKind::Denied => true,
        }
    }

    /// Returns what an operator can do about the defect of the znode at `path`.
    pub fn remedy(&self, path: &TreePath) -> &'static str {
        match self.kind {
            DefectKind::Damaged => remedy_of_damage(path),
            DefectKind::Newer => "upgrade this daemon to the build that wrote it",
            DefectKind::Denied => {
                "restore the access control list with zkCli, as `setAcl PATH world:anyone:cdrwa`, or if the tree has \
                 users, with `stormkeeper zookeeper protect`"
            }
        }
    }
}

impl std::fmt::Display for Defect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

fn remedy_of_damage(path: &TreePath) -> &'static str {
    match path.parts().next().unwrap_or_default() {
        "storms" => {
            "correct it with zkCli or restore it; if it is deleted, all other records of the topology are removed a \
             minute later, and its workers end"
        }
        "tasks" => {
            "correct it with zkCli or restore it; if that is not possible, delete it and kill the topology"
        }
        "assignments" => {
            "correct it with zkCli or restore it; if it is deleted, nimbus writes it again as it was, or places the \
             topology anew if it does not know it"
        }
        "credentials" => {
            "restore it with zkCli, or delete it and set the credentials again with `stormkeeper credentials`"
        }
        "drains" => "correct it with zkCli, or delete it and drain the host again",
        "leader" | "nimbuses" | "supervisors" => {
            "its daemon writes it again within seconds; if it stays, delete it with zkCli"
        }
        "supervisor-assignments" | "metrics" => {
            "the leader writes it again; if it stays, delete it with zkCli"
        }
        _ => "correct it with zkCli, or delete it",
    }
}

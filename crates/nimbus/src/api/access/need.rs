//! Right that a request needs, by its method and path. Pure.

use axum::http::Method;

use crate::api::flink::is_flink_path;
use stormkeeper_api_types::{client::decoded, routes};
use stormkeeper_model::tuple_samples::SAMPLES_FILE;

/// Right that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: probes, and signing in.
    Nothing,
    /// A proof of who asks: paths at which nothing is.
    Proof,
    /// Reading.
    Read,
    /// Changing the topology of this id or name.
    ChangeTopology(String),
    /// Reading tuples of samples of the topology of this id or name.
    ReadSamples(String),
    /// Cancelling the job of this id, by Flink's API.
    CancelJob(String),
    /// Submitting a topology.
    Submit,
    /// Storing a blob.
    StoreBlob,
    /// Reading the blob with this key, which may contain what only its topology should know.
    ReadBlob(String),
    /// Changing anything else, such as a host.
    Operate,
    /// Looking into the tree.
    ReadTree,
    /// Bringing back a tree.
    Recover,
    /// Being a daemon.
    Daemon,
    /// Being a daemon, or a worker of the topology of the metrics.
    SendMetrics,
}

impl Need {
    /// Returns whether this is a change by people, which `ui.actions.enabled` switches off. What only
    /// daemons do is none; a blob that is stored changes nothing before a submit.
    pub(super) fn is_change(&self) -> bool {
        match self {
            Self::ChangeTopology(_) | Self::CancelJob(_) | Self::Submit | Self::Operate | Self::Recover => {
                true
            }
            Self::Nothing
            | Self::Proof
            | Self::Read
            | Self::StoreBlob
            | Self::ReadSamples(_)
            | Self::ReadBlob(_)
            | Self::ReadTree
            | Self::Daemon
            | Self::SendMetrics => false,
        }
    }
}

/// Returns what a request to a route needs. A path that no rule names, also of another API below the same
/// address, needs a reader for reads and an operator for everything else.
pub(super) fn need(method: &Method, path: &str) -> Need {
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if is_read && matches!(path, "/live" | "/ready") {
        return Need::Nothing;
    }
    if !is_read && is_flink_path(path) {
        return flink_write(method, path);
    }
    let route = routes::of_path(path).unwrap_or_default();
    let parts: Vec<&str> = route.split('/').skip(1).collect();
    match (is_read, &parts[..]) {
        // It says who the sender is, also to a sender without a proof, and looks at the token itself.
        (_, ["session"]) => Need::Nothing,
        (_, ["metrics", "sync", ..] | ["blobs", _, "copy", ..]) => Need::Daemon,
        (_, ["metrics", "register" | "ingest", ..]) => Need::SendMetrics,
        (true, ["topology", topology, "logs", _, _, file, ..]) if is_samples_file(&decoded(file)) => {
            Need::ReadSamples(decoded(topology))
        }
        (true, ["tree", ..]) => Need::ReadTree,
        (true, ["blobs", key, ..]) => Need::ReadBlob((*key).to_owned()),
        (true, _) => Need::Read,
        (false, ["blobs", _]) if *method == Method::PUT => Need::StoreBlob,
        (false, ["recovery", ..]) => Need::Recover,
        (false, ["topology"] | ["topology", "submit", ..]) => Need::Submit,
        (false, ["topology", topology, ..] | ["metrics", "topology", topology, ..]) => {
            Need::ChangeTopology(decoded(topology))
        }
        (false, _) => Need::Operate,
    }
}

/// Returns whether a log has tuples of samples: the file of that name, or an older part of it.
pub(in crate::api) fn is_samples_file(name: &str) -> bool {
    name.starts_with(SAMPLES_FILE)
}

/// Returns what a write to a path of Flink's API needs. It has one write.
fn flink_write(method: &Method, path: &str) -> Need {
    let parts: Vec<&str> = path.strip_prefix("/v1").unwrap_or(path).split('/').skip(1).collect();
    match parts[..] {
        ["jobs", job] if *method == Method::PATCH => Need::CancelJob(decoded(job)),
        _ => Need::Operate,
    }
}

impl Need {
    /// Returns who may do it, for people; `None` if anyone may.
    pub(super) fn text(&self) -> Option<&'static str> {
        Some(match self {
            Self::Nothing => return None,
            Self::Proof => "a token",
            Self::Read => "a token of the role reader",
            Self::ChangeTopology(_) | Self::ReadSamples(_) | Self::CancelJob(_) => {
                "a token of the role operator, for the owner of the topology if it is limited to one"
            }
            Self::Submit => "a token of the role operator",
            Self::StoreBlob => "a token of the role operator, or the cluster secret",
            Self::ReadBlob(_) => {
                "a token of the role admin, the cluster secret, or the key of the topology of the package"
            }
            Self::Operate => "a token of the role operator that is not limited to an owner",
            Self::ReadTree => {
                "a token of the role admin that is not limited to an owner, or the cluster secret"
            }
            Self::Recover => "a token of the role admin",
            Self::Daemon => "the cluster secret",
            Self::SendMetrics => "the cluster secret, or the key of the topology of the metrics",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_request_needs_its_right_with_either_prefix() {
        let topology = |text: &str| Need::ChangeTopology(text.to_owned());
        let samples = |text: &str| Need::ReadSamples(text.to_owned());
        for prefix in ["/api/stormkeeper/v1", "/api/v1"] {
            for (method, route, expected) in [
                (Method::GET, "/cluster/summary", Need::Read),
                (Method::GET, "/topology/wc", Need::Read),
                (Method::GET, "/recovery", Need::Read),
                (Method::GET, "/tree", Need::ReadTree),
                (Method::POST, "/tree", Need::Operate),
                (Method::HEAD, "/nimbus/summary", Need::Read),
                (Method::GET, "/metrics/data", Need::Read),
                (Method::POST, "/topology/submit", Need::Submit),
                (Method::POST, "/topology", Need::Submit),
                (Method::POST, "/topology/wc/kill", topology("wc")),
                (Method::POST, "/topology/a%20b/kill/10", topology("a b")),
                (Method::POST, "/topology/wc/metrics", topology("wc")),
                (Method::POST, "/topology/wc/samples", topology("wc")),
                (Method::GET, "/topology/wc/samples", Need::Read),
                (Method::GET, "/topology/wc/logs/s/6700/worker.log", Need::Read),
                (Method::GET, "/topology/w%63/logs/s/6700/worker.samples", samples("wc")),
                (Method::HEAD, "/topology/wc/logs/s/6700/worker%2Esamples.1/download", samples("wc")),
                (Method::DELETE, "/metrics/topology/wc/metas", topology("wc")),
                (Method::POST, "/host/h/drain", Need::Operate),
                (Method::POST, "/recovery", Need::Recover),
                (Method::PUT, "/blobs/00", Need::StoreBlob),
                (Method::POST, "/blobs/00", Need::Operate),
                (Method::GET, "/blobs/00", Need::ReadBlob("00".to_owned())),
                (Method::HEAD, "/blobs/00", Need::ReadBlob("00".to_owned())),
                (Method::POST, "/blobs/00/copy", Need::Daemon),
                (Method::GET, "/metrics/sync/log", Need::Daemon),
                (Method::GET, "/metrics/sync/checkpoint", Need::Daemon),
                (Method::POST, "/metrics/register", Need::SendMetrics),
                (Method::POST, "/metrics/ingest", Need::SendMetrics),
                (Method::POST, "/anything/else", Need::Operate),
                (Method::GET, "/anything/else", Need::Read),
                (Method::PATCH, "", Need::Operate),
            ] {
                let path = format!("{prefix}{route}");
                assert_eq!(need(&method, &path), expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn submits_and_operations_are_changes_and_reads_and_the_work_of_daemons_are_none() {
        let job = Need::CancelJob("00".to_owned());
        for need in [job, Need::ChangeTopology("wc".to_owned()), Need::Submit, Need::Operate, Need::Recover] {
            assert!(need.is_change(), "{need:?}");
        }
        let key = "00".to_owned();
        for need in [
            Need::Nothing,
            Need::Read,
            Need::ReadTree,
            Need::ReadBlob(key),
            Need::StoreBlob,
            Need::Daemon,
            Need::SendMetrics,
        ] {
            assert!(!need.is_change(), "{need:?}");
        }
    }

    #[test]
    fn path_of_another_api_needs_a_reader_to_read_and_an_operator_to_change() {
        for path in ["/jobs", "/v1/jobs/00/metrics"] {
            assert_eq!(need(&Method::GET, path), Need::Read, "{path}");
        }
        for path in ["/metrics", "/api/openapi.json", "/", "/live/x", "//live", "//jobs", "/v1"] {
            assert_eq!(need(&Method::GET, path), Need::Read, "{path}");
            assert_eq!(need(&Method::POST, path), Need::Operate, "{path}");
            assert_eq!(need(&Method::PATCH, path), Need::Operate, "{path}");
        }
        for probe in ["/live", "/ready"] {
            assert_eq!(need(&Method::GET, probe), Need::Nothing);
            assert_eq!(need(&Method::POST, probe), Need::Operate);
        }
    }

    #[test]
    fn write_of_flink_that_is_not_cancelling_needs_an_operator() {
        let cancel = Need::CancelJob("00".to_owned());
        for prefix in ["", "/v1"] {
            for (method, path, expected) in [
                (Method::PATCH, "/jobs/00", &cancel),
                (Method::PATCH, "/jobs/%30%30", &cancel),
                (Method::DELETE, "/jobs/00", &Need::Operate),
                (Method::PATCH, "/jobs", &Need::Operate),
                (Method::PATCH, "/jobs/00/metrics", &Need::Operate),
                (Method::GET, "/jobs/00", &Need::Read),
            ] {
                assert_eq!(need(&method, &format!("{prefix}{path}")), *expected, "{method} {path}");
            }
        }
    }
}

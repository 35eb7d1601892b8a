//! What is answered to a request that was refused or failed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer to a request that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of trouble it is; stable.
    pub code: Code,
    /// What went wrong, where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What kind of trouble an [`ErrorBody`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed: not JSON, a wrong field, a bad id.
    InvalidRequest,
    /// The topology cannot run.
    InvalidTopology,
    /// There is no topology of that id or name.
    UnknownTopology,
    /// There is no such host, or it is not drained.
    UnknownHost,
    /// There is no such metric.
    UnknownMetric,
    /// This nimbus has no metrics archive now; the message says why.
    NoArchive,
    /// Too few nimbuses have a copy of the blob; nothing was changed.
    NotReplicated,
    /// A topology of that name is there already.
    NameInUse,
    /// The topology's status does not allow it.
    IllegalTransition,
    /// The blob has not been put, or is nowhere.
    BlobMissing,
    /// The bytes of a blob are not those of its key.
    BlobMismatch,
    /// Something is over its limit; the message names it.
    TooLarge,
    /// A znode that is needed holds no valid record.
    UnreadableRecord,
    /// Others wrote the same record again and again; nothing was changed.
    Conflict,
    /// There is no leader now, or it is not reachable; nothing was changed.
    NoLeader,
    /// ZooKeeper is not reachable now; nothing was changed.
    TreeUnavailable,
    /// The connection broke while writing; whether it took effect is not known.
    OutcomeUnknown,
    /// This nimbus has not read the cluster yet.
    NotReady,
    /// There is nothing at this path of the API.
    NoSuchRoute,
    /// The path is there, with another method.
    WrongMethod,
    /// A fault of ours; the log of the nimbus has the details.
    Internal,
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl Code {
    /// Its text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidTopology => "invalid_topology",
            Self::UnknownTopology => "unknown_topology",
            Self::UnknownHost => "unknown_host",
            Self::UnknownMetric => "unknown_metric",
            Self::NoArchive => "no_archive",
            Self::NotReplicated => "not_replicated",
            Self::NameInUse => "name_in_use",
            Self::IllegalTransition => "illegal_transition",
            Self::BlobMissing => "blob_missing",
            Self::BlobMismatch => "blob_mismatch",
            Self::TooLarge => "too_large",
            Self::UnreadableRecord => "unreadable_record",
            Self::Conflict => "conflict",
            Self::NoLeader => "no_leader",
            Self::TreeUnavailable => "tree_unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::NotReady => "not_ready",
            Self::NoSuchRoute => "no_such_route",
            Self::WrongMethod => "wrong_method",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_newer_nimbus_is_readable() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"code":"on_fire","message":"m","since":1}"#).expect("readable");
        assert_eq!(body, ErrorBody { code: Code::Other, message: "m".to_owned(), hint: None });
    }

    #[test]
    fn codes_print_as_they_are_sent() {
        for code in [Code::InvalidRequest, Code::NameInUse, Code::NoSuchRoute, Code::Internal, Code::Other] {
            assert_eq!(serde_json::to_value(code).expect("text"), code.as_str());
        }
    }
}

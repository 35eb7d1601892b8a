//! Error body: the response to a request that was rejected or failed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Response to a request that was rejected or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Kind of the error; stable.
    pub code: Code,
    /// Description: the failure and its object.
    pub message: String,
    /// Advice for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kind of the error in an [`ErrorBody`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed: not JSON, a wrong field, a bad id.
    InvalidRequest,
    /// The topology cannot run.
    InvalidTopology,
    /// No topology has that id or name.
    UnknownTopology,
    /// The host does not exist, or is not drained.
    UnknownHost,
    /// The host has no such log, or no such worker.
    UnknownLog,
    /// The agent of the supervisor does not answer, or the supervisor has none; the message says which.
    AgentUnavailable,
    /// The znode does not exist.
    UnknownZnode,
    /// The metric does not exist.
    UnknownMetric,
    /// This nimbus has no open metric store; the message says why.
    NoMetricStore,
    /// Too few nimbuses have a copy of the blob; nothing was changed.
    NotReplicated,
    /// Another topology has that name.
    NameInUse,
    /// The topology's status does not allow the operation.
    IllegalTransition,
    /// The blob was not uploaded, or no nimbus has a copy.
    BlobMissing,
    /// The bytes of a blob do not match its key.
    BlobMismatch,
    /// A value is over its limit; the message names the limit.
    TooLarge,
    /// The nimbus has no room for the blob; the message names the limit.
    InsufficientStorage,
    /// A required znode has no valid record.
    UnreadableRecord,
    /// Concurrent writes of the same record won repeatedly; nothing was changed.
    Conflict,
    /// There is no reachable leader; nothing was changed.
    NoLeader,
    /// ZooKeeper is not reachable; nothing was changed.
    TreeUnavailable,
    /// The connection broke during a write, which may have taken effect.
    OutcomeUnknown,
    /// This nimbus has not read the cluster yet.
    NotReady,
    /// ZooKeeper has another tree than that of this nimbus; nothing was changed.
    AnotherTree,
    /// There is nothing to recover, or the recovery is not possible.
    NotRecoverable,
    /// The request has no proof of its sender, or a wrong one.
    Unauthenticated,
    /// The sender has sent too many requests in the last minute; the header `Retry-After` says when it
    /// may send the next.
    TooManyRequests,
    /// The sender of the request may not do this.
    Forbidden,
    /// The quota of the owner does not allow it; the message names the quota and what is in use.
    QuotaExceeded,
    /// The host is not one of the nimbus, or a web page of another site sent the request.
    ForeignRequest,
    /// A write has the content type of a form or of plain text.
    WrongContentType,
    /// The configuration of the nimbus switches this off.
    SwitchedOff,
    /// The API has no such path.
    NoSuchRoute,
    /// The API has the path, with another method.
    WrongMethod,
    /// Internal error; the log of the nimbus has the details.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Other,
}

impl Code {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidTopology => "invalid_topology",
            Self::UnknownTopology => "unknown_topology",
            Self::UnknownHost => "unknown_host",
            Self::UnknownLog => "unknown_log",
            Self::AgentUnavailable => "agent_unavailable",
            Self::UnknownZnode => "unknown_znode",
            Self::UnknownMetric => "unknown_metric",
            Self::NoMetricStore => "no_metric_store",
            Self::NotReplicated => "not_replicated",
            Self::NameInUse => "name_in_use",
            Self::IllegalTransition => "illegal_transition",
            Self::BlobMissing => "blob_missing",
            Self::BlobMismatch => "blob_mismatch",
            Self::TooLarge => "too_large",
            Self::InsufficientStorage => "insufficient_storage",
            Self::UnreadableRecord => "unreadable_record",
            Self::Conflict => "conflict",
            Self::NoLeader => "no_leader",
            Self::TreeUnavailable => "tree_unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::NotReady => "not_ready",
            Self::AnotherTree => "another_tree",
            Self::NotRecoverable => "not_recoverable",
            Self::Unauthenticated => "unauthenticated",
            Self::TooManyRequests => "too_many_requests",
            Self::Forbidden => "forbidden",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ForeignRequest => "foreign_request",
            Self::WrongContentType => "wrong_content_type",
            Self::SwitchedOff => "switched_off",
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
    fn an_unknown_code_is_parsed_as_other() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"code":"on_fire","message":"m","since":1}"#).expect("readable");
        assert_eq!(body, ErrorBody { code: Code::Other, message: "m".to_owned(), hint: None });
    }

    #[test]
    fn codes_display_as_on_the_wire() {
        for code in [
            Code::InvalidRequest,
            Code::Unauthenticated,
            Code::TooManyRequests,
            Code::Forbidden,
            Code::ForeignRequest,
            Code::WrongContentType,
            Code::NoSuchRoute,
            Code::Internal,
            Code::Other,
        ] {
            assert_eq!(serde_json::to_value(code).expect("text"), code.as_str());
        }
    }
}

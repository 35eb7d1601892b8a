//! Mapping of the client crate's errors to ours.

use zookeeper_client as zk;

use crate::tree::{Error, TreePath};

/// Maps the error of a request about `path`.
pub(super) fn error_at(path: &TreePath, error: zk::Error) -> Error {
    let path = path.clone();
    match error {
        zk::Error::NoNode => Error::NoNode { path },
        zk::Error::NodeExists => Error::NodeExists { path },
        zk::Error::BadVersion => Error::BadVersion { path },
        zk::Error::NotEmpty => Error::NotEmpty { path },
        zk::Error::NoChildrenForEphemerals => Error::NoChildrenForEphemerals { path },
        zk::Error::NoAuth => Error::NotAuthorized { path: Some(path) },
        other => general_error(other),
    }
}

/// Maps the error of a request that has no single path.
pub(super) fn general_error(error: zk::Error) -> Error {
    match error {
        zk::Error::SessionExpired
        | zk::Error::SessionMoved
        | zk::Error::ClientClosed
        | zk::Error::AuthFailed
        | zk::Error::Timeout => Error::SessionExpired,
        zk::Error::NoAuth => Error::NotAuthorized { path: None },
        zk::Error::InvalidAcl
        | zk::Error::NotReadOnly
        | zk::Error::NoWatcher
        | zk::Error::QuotaExceeded
        | zk::Error::Throttled
        | zk::Error::MarshallingError
        | zk::Error::Unimplemented
        | zk::Error::ReconfigDisabled
        | zk::Error::BadArguments(_)
        | zk::Error::RuntimeInconsistent
        | zk::Error::NoNode
        | zk::Error::NodeExists
        | zk::Error::BadVersion
        | zk::Error::NotEmpty
        | zk::Error::NoChildrenForEphemerals => Error::Refused(error.to_string()),
        // A broken socket is reported as `Custom` more often than as `ConnectionLoss`. Any other
        // error may have occurred after the write took effect.
        other => Error::ConnectionLost(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::WriteOutcome;

    #[test]
    fn denied_access_is_named_with_its_path() {
        let path: TreePath = "/storms/wc-1-100".parse().expect("valid path");
        let error = error_at(&path, zk::Error::NoAuth);
        assert_eq!(error.to_string(), "ZooKeeper does not authorize this process for /storms/wc-1-100");
        assert!(!error.is_retryable());
        let error = general_error(zk::Error::NoAuth).to_string();
        assert_eq!(error, "ZooKeeper does not authorize this process for one of the requested znodes");
    }

    #[test]
    fn outcome_is_unknown_if_the_request_may_have_taken_effect() {
        let path: TreePath = "/a".parse().expect("valid path");
        let unknown = [
            zk::Error::ConnectionLoss,
            zk::Error::SessionExpired,
            zk::Error::UnexpectedErrorCode(-1),
            zk::Error::UnexpectedError("odd".to_owned()),
        ];
        for error in unknown {
            assert_eq!(error_at(&path, error.clone()).outcome(), WriteOutcome::Unknown, "{error:?}");
        }
        let refused = [zk::Error::NoNode, zk::Error::BadVersion, zk::Error::NoAuth, zk::Error::QuotaExceeded];
        for error in refused {
            assert_eq!(error_at(&path, error.clone()).outcome(), WriteOutcome::NotApplied, "{error:?}");
        }
    }
}

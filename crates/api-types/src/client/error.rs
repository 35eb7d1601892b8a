//! Errors of a client of the nimbuses.

use std::fmt;

use crate::message::{Code, ErrorBody};

/// Error of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of seeds is empty.
    #[error("no nimbus is configured (nimbus.seeds is empty)")]
    NoSeeds,
    /// The HTTP client could not be created.
    #[error("cannot create the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// No nimbus could be reached, or those that were reached cannot serve the request now.
    #[error(
        "{}: {}",
        if answered(.tried) { "no nimbus can serve the request now" } else { "no nimbus answered" },
        Attempts(.tried)
    )]
    Unreachable {
        /// Every nimbus that was tried, with the reason.
        tried: Vec<Attempt>,
    },
    /// A nimbus rejected the request.
    #[error("{}", .body.message)]
    Refused {
        /// Address of the nimbus.
        nimbus: String,
        /// The HTTP status.
        status: u16,
        /// Body of the response.
        body: ErrorBody,
    },
    /// The connection broke after a write was sent.
    #[error("{nimbus} did not answer in time, and the request may have taken effect: {reason}")]
    Unanswered {
        /// Address of the nimbus.
        nimbus: String,
        /// Cause.
        reason: String,
    },
    /// The response does not come from a nimbus.
    #[error("{nimbus} answered {status} with a body that is not from Stormkeeper: {quote}")]
    Foreign {
        /// Address of the server.
        nimbus: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response.
        quote: String,
    },
}

/// A failed try to reach one nimbus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Address of the nimbus.
    pub nimbus: String,
    /// Reason of the failure.
    pub reason: String,
    /// True if the nimbus answered, and is not able to serve the request for the moment.
    pub answered: bool,
}

fn answered(tried: &[Attempt]) -> bool {
    tried.iter().any(|attempt| attempt.answered)
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Attempt { nimbus, reason, .. }) in self.0.iter().enumerate() {
            write!(f, "{}{nimbus} ({reason})", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Error {
    /// The error body of a nimbus that rejected the request.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { body, .. } => Some(body),
            Self::NoSeeds
            | Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::Unanswered { .. }
            | Self::Foreign { .. } => None,
        }
    }

    pub(super) fn code(&self) -> Option<Code> {
        self.refusal().map(|body| body.code)
    }

    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { body, .. } => body.hint.clone(),
            Self::NoSeeds => {
                Some("set nimbus.seeds in storm.yaml or pass -c nimbus.seeds=HOST:PORT".to_owned())
            }
            Self::Unreachable { tried } if answered(tried) => Some(
                "a nimbus runs, but has no connection to ZooKeeper or no leader: wait, or look for ZooKeeper in \
                 its log"
                    .to_owned(),
            ),
            Self::Unreachable { .. } => {
                Some("start a nimbus, or check nimbus.seeds and the port of its API (ui.port)".to_owned())
            }
            Self::Unanswered { .. } => Some("check with `stormkeeper list` before trying again".to_owned()),
            Self::Foreign { .. } => {
                Some("another program listens on that address; check nimbus.seeds and ui.port".to_owned())
            }
            Self::Setup(_) => None,
        }
    }
}

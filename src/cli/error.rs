//! Failure of a command: kind, causes, hint, exit code.

use std::process::ExitCode;

use crate::{cli::output, config};

/// Kind of a failure; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// Bug or local system error.
    Internal = 1,
    /// Invalid command line.
    Usage = 2,
    /// Invalid configuration or topology file.
    Config = 3,
    /// Request rejected by the cluster.
    Refused = 4,
    /// Cluster unreachable, or operation timed out.
    Unavailable = 5,
}

/// Failure of a command, as it is shown to the user.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, error: anyhow::Error) -> Self {
        Self { kind, error, hint: None }
    }

    pub(super) fn internal(error: anyhow::Error) -> Self {
        Self::new(ErrorKind::Internal, error)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, anyhow::Error::msg(message.into()))
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True if the same command may succeed in a moment.
    pub(super) fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    /// The error and its causes in one line.
    pub(super) fn text(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Prints the failure to standard error and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        let mut text = format!("error: {}", self.error);
        for cause in self.error.chain().skip(1) {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        output::note(&text);
        ExitCode::from(self.kind as u8)
    }
}

/// Prints clap's message: help and versions are data, everything else is a usage error.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is not an error.
    let _closed = error.print();
    match error.use_stderr() {
        true => ExitCode::from(ErrorKind::Usage as u8),
        false => ExitCode::SUCCESS,
    }
}

impl From<stormkeeper_api_types::client::Error> for Failure {
    fn from(error: stormkeeper_api_types::client::Error) -> Self {
        use stormkeeper_api_types::{client::Error as E, message::Code};
        let kind = match &error {
            E::NoSeeds => ErrorKind::Config,
            E::Setup(_) => ErrorKind::Internal,
            E::Unreachable { .. } | E::Unanswered { .. } | E::Foreign { .. } => ErrorKind::Unavailable,
            E::Refused { body, .. } => match body.code {
                Code::NoLeader
                | Code::AgentUnavailable
                | Code::TreeUnavailable
                | Code::NotReady
                | Code::AnotherTree
                | Code::NotReplicated
                | Code::NoMetricStore
                | Code::TooManyRequests
                | Code::OutcomeUnknown => ErrorKind::Unavailable,
                Code::Internal => ErrorKind::Internal,
                _ => ErrorKind::Refused,
            },
        };
        let hint = error.hint();
        Self { kind, error: error.into(), hint }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::new(ErrorKind::Config, error.into())
    }
}

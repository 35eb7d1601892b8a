//! How a command fails: kind, causes, hint, exit code.

use std::process::ExitCode;

use crate::{cli::output, config};

/// What kind of trouble ended a command; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// A fault of ours.
    Internal = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration or a topology file is wrong.
    Config = 3,
    /// The cluster said no.
    Refused = 4,
    /// The cluster could not be reached, or did not get there in time.
    Unavailable = 5,
}

/// Why a command did not do what was asked.
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

    /// Whether the same command may succeed in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    /// Prints the failure to standard error and answers the exit code.
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

/// What clap has to say: help and versions are data, everything else is a mistake.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no trouble of ours.
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
                | Code::TreeUnavailable
                | Code::NotReady
                | Code::NotReplicated
                | Code::NoArchive
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

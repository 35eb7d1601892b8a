//! Names of log files.

use std::{fmt, str::FromStr};

/// Highest number of an older part that is looked for; a worker keeps four.
const PART_MAX: u8 = 9;

/// Log of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogKind {
    /// The log of the worker and its components.
    Log,
    /// Standard output and standard error of the worker.
    Out,
}

impl LogKind {
    const ALL: [Self; 2] = [Self::Log, Self::Out];

    fn file_name(self) -> &'static str {
        match self {
            Self::Log => "worker.log",
            Self::Out => "worker.out",
        }
    }
}

/// Name of a log file: `worker.log`, `worker.out`, or an older part such as `worker.log.1`. No other
/// text is a name, so a name is never a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogName {
    kind: LogKind,
    /// Number of the older part; 0 is the newest.
    part: u8,
}

impl LogName {
    /// The newest parts of all logs.
    pub(crate) fn newest() -> impl Iterator<Item = Self> {
        LogKind::ALL.into_iter().map(|kind| Self { kind, part: 0 })
    }

    /// All names, the newest part of a log first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::newest().flat_map(Self::parts)
    }

    /// The names of all parts of the same log, the newest first.
    pub(crate) fn parts(self) -> impl Iterator<Item = Self> {
        (0..=PART_MAX).map(move |part| Self { part, ..self })
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.file_name())?;
        match self.part {
            0 => Ok(()),
            part => write!(f, ".{part}"),
        }
    }
}

/// Error of a text that is no name of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoLogName;

impl FromStr for LogName {
    type Err = NoLogName;

    fn from_str(text: &str) -> Result<Self, NoLogName> {
        // No list of characters to reject: a text is a name if a name is written like that.
        Self::all().find(|name| name.to_string() == text).ok_or(NoLogName)
    }
}

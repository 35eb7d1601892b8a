//! Names of log files.

use std::{fmt, str::FromStr};

use stormkeeper_model::tuple_samples::SAMPLES_FILE;

/// Highest number of an older part that is looked for; a worker keeps four.
const PART_MAX: u8 = 9;

/// Log of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogKind {
    /// The log of the worker and its components.
    Log,
    /// Standard output and standard error of the worker.
    Out,
    /// Tuples of components that an operator asked to see.
    Samples,
}

impl LogKind {
    /// What is listed, searched and downloaded with the logs. Samples are not: not everybody who reads
    /// logs may read them.
    const LISTED: [Self; 2] = [Self::Log, Self::Out];

    fn file_name(self) -> &'static str {
        match self {
            Self::Log => "worker.log",
            Self::Out => "worker.out",
            Self::Samples => SAMPLES_FILE,
        }
    }
}

/// Name of a log file: `worker.log`, `worker.out`, `worker.samples`, or an older part such as
/// `worker.log.1`. No other text is a name, so a name is never a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogName {
    kind: LogKind,
    /// Number of the older part; 0 is the newest.
    part: u8,
}

impl LogName {
    /// The newest parts of all logs but the samples.
    pub(crate) fn newest() -> impl Iterator<Item = Self> {
        LogKind::LISTED.into_iter().map(|kind| Self { kind, part: 0 })
    }

    /// The names of all logs but the samples, the newest part of a log first.
    pub(crate) fn listed() -> impl Iterator<Item = Self> {
        Self::newest().flat_map(Self::parts)
    }

    /// Every name.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::listed().chain(Self { kind: LogKind::Samples, part: 0 }.parts())
    }

    /// Returns whether this is a file with tuples of samples.
    pub(crate) fn has_samples(self) -> bool {
        self.kind == LogKind::Samples
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

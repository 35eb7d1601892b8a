//! Starts of this supervisor, in its data directory: a supervisor that is killed again and again
//! while its workers run on would look healthy.

use std::{io, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use stormkeeper_model::{Timestamp, clock::Monotonic, restarts::RESTART_WINDOW};
use stormkeeper_runtime::fs::{FailedWrites, atomic_file, regular_file};

pub(super) const FILE: &str = "starts.json";

const FORMAT: u32 = 1;

/// Maximum number of starts that are kept, the newest.
const STARTS_KEPT: usize = 100;

/// The starts of one supervisor.
#[derive(Debug, Clone)]
pub(super) struct StartLog {
    path: PathBuf,
    writes: FailedWrites,
    starts: Vec<Start>,
    /// Ends of the time for which each restart counts, by the clock of this run.
    restarts_until: Vec<Monotonic>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
    #[serde(rename = "start_ms")]
    at: Timestamp,
    /// True if this run ended because the supervisor was asked to stop.
    #[serde(default)]
    stopped: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    starts: Vec<Start>,
}

impl StartLog {
    /// Reads the log in `local_dir` and adds a start, at `now`. A log that cannot be read is begun anew:
    /// nothing depends on it but the number that operators see. Blocks.
    pub(super) fn open(
        local_dir: &Path,
        (now, monotonic): (Timestamp, Monotonic),
        writes: FailedWrites,
    ) -> Self {
        let path = local_dir.join(FILE);
        let mut starts = match read(&path) {
            Ok(starts) => starts,
            Err(error) => {
                warn!(file = %path.display(), %error, "cannot read the starts of this supervisor; counting anew");
                Vec::new()
            }
        };
        starts.push(Start { at: now, stopped: false });
        let n_old = starts.len().saturating_sub(STARTS_KEPT);
        starts.drain(..n_old);
        let restarts = starts.windows(2).filter(|pair| !pair[0].stopped).map(|pair| pair[1].at);
        // The clock of the host may have been set back since: a time in the future is unknown.
        let ages = restarts.filter(|at| *at <= now).map(|at| now.since(at));
        let restarts_until = ages.map(|age| monotonic.plus(RESTART_WINDOW.saturating_sub(age))).collect();
        let log = Self { path, writes, starts, restarts_until };
        log.write();
        log
    }

    /// Number of starts within the window before `now` that followed a run which was not stopped.
    pub(super) fn n_restarts(&self, now: Monotonic) -> u32 {
        let recent = self.restarts_until.iter().filter(|until| **until > now);
        u32::try_from(recent.count()).unwrap_or(u32::MAX)
    }

    /// Records that this run ends because the supervisor was asked to stop. Blocks.
    pub(super) fn stopped(&mut self) {
        if let Some(last) = self.starts.last_mut() {
            last.stopped = true;
            self.write();
        }
    }

    /// Writes the file again if it was deleted. Returns whether it was. Blocks.
    pub(super) fn put_back(&self) -> io::Result<bool> {
        let is_missing = !self.path.try_exists()?;
        if is_missing {
            self.try_write()?;
        }
        Ok(is_missing)
    }

    fn try_write(&self) -> io::Result<()> {
        let stored = Stored { v: FORMAT, starts: self.starts.clone() };
        let written = serde_json::to_vec(&stored)
            .map_err(io::Error::from)
            .and_then(|bytes| atomic_file::write(&self.path, &bytes));
        self.writes.record(&self.path, written)
    }

    fn write(&self) {
        if let Err(error) = self.try_write() {
            warn!(file = %self.path.display(), %error, "cannot record a start or a stop of this supervisor");
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Start>> {
    let bytes = match regular_file::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let Stored { starts, .. } = serde_json::from_slice(&bytes)?;
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use stormkeeper_model::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    struct Host {
        dir: tempfile::TempDir,
        clock: Clock,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            Self { dir, clock: Clock::manual(Timestamp::from_millis(1_000_000)) }
        }

        fn start(&self) -> StartLog {
            self.clock.advance(10 * SECOND);
            self.start_at((self.clock.now(), self.clock.monotonic()))
        }

        fn start_at(&self, at: (Timestamp, Monotonic)) -> StartLog {
            StartLog::open(self.dir.path(), at, FailedWrites::new(self.clock.clone()))
        }
    }

    #[test]
    fn deleted_file_is_put_back_with_all_starts() {
        let host = Host::new();
        host.start();
        let log = host.start();
        assert!(!log.put_back().expect("whole"));
        let path = host.dir.path().join(FILE);
        fs::remove_file(&path).expect("deleted");
        assert!(log.put_back().expect("put back"));
        assert_eq!(read(&path).expect("read").len(), 2);
    }

    #[test]
    fn only_starts_after_a_run_that_was_not_stopped_are_restarts() {
        let host = Host::new();
        let now = || host.clock.monotonic();
        assert_eq!(host.start().n_restarts(now()), 0, "the first start");
        let mut killed_once = host.start();
        assert_eq!(killed_once.n_restarts(now()), 1);
        killed_once.stopped();
        assert_eq!(host.start().n_restarts(now()), 1, "a supervisor that was stopped");
        assert_eq!(host.start().n_restarts(now()), 2);
        let last = host.start();
        assert_eq!(last.n_restarts(now()), 3);
        host.clock.advance(RESTART_WINDOW - SECOND);
        assert_eq!(last.n_restarts(now()), 1);
        host.clock.advance(SECOND);
        assert_eq!(last.n_restarts(now()), 0);
        let set_back = (Timestamp::EPOCH, now());
        assert_eq!(host.start_at(set_back).n_restarts(now()), 1, "this start alone");
    }

    #[test]
    fn damaged_log_is_begun_anew_and_the_log_is_bounded() {
        let host = Host::new();
        fs::write(host.dir.path().join(FILE), "{").expect("written");
        assert_eq!(host.start().starts.len(), 1);
        for _ in 0..STARTS_KEPT + 5 {
            host.start();
        }
        assert_eq!(host.start().starts.len(), STARTS_KEPT);
    }
}

//! Writer of a log that cannot fail: a line that cannot be written is lost, and nothing else.
//!
//! `tracing` reports a failed write on standard error, and panics if that fails too, as it does on a
//! full disk or after the reader of a pipe has ended.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tracing_subscriber::fmt::{
    MakeWriter,
    format::Writer,
    time::{FormatTime as _, SystemTime},
};

/// The error of the last line, if it could not be written, of any log of this process.
static LAST: Last = Last { has_failed: AtomicBool::new(false), error: Mutex::new(None) };

struct Last {
    /// Looked at for each line, without the lock.
    has_failed: AtomicBool,
    error: Mutex<Option<(io::ErrorKind, String)>>,
}

impl Last {
    fn record(&self, written: &io::Result<()>) {
        match written {
            Ok(()) if !self.has_failed.load(Ordering::Relaxed) => {}
            Ok(()) => {
                *self.error() = None;
                self.has_failed.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                *self.error() = Some((error.kind(), error.to_string()));
                self.has_failed.store(true, Ordering::Relaxed);
            }
        }
    }

    fn error(&self) -> MutexGuard<'_, Option<(io::ErrorKind, String)>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the error of the last line that this process has logged.
///
/// # Errors
/// The error, if the line is lost.
pub fn last_line() -> io::Result<()> {
    match LAST.error().clone() {
        Some((kind, reason)) => Err(io::Error::new(kind, reason)),
        None => Ok(()),
    }
}

/// Makes writers that lose what cannot be written.
#[derive(Debug)]
pub struct LossyLog<W> {
    inner: W,
    lost: Arc<Lost>,
}

/// Lines that were lost since the last line that was written.
#[derive(Debug, Default)]
struct Lost {
    n_lines: AtomicU64,
    /// True if the beginning of a line was written, as on a disk that became full.
    is_cut: AtomicBool,
}

impl<W> LossyLog<W> {
    /// Writes to the writers of `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, lost: Arc::default() }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LossyLog<W> {
    type Writer = LossyWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LossyWriter { inner: self.inner.make_writer(), lost: Arc::clone(&self.lost) }
    }
}

/// Writer of one event, which never fails.
#[derive(Debug)]
pub struct LossyWriter<W> {
    inner: W,
    lost: Arc<Lost>,
}

impl<W: Write> LossyWriter<W> {
    /// Writes whole lines; a failure after their beginning is noted.
    fn write_lines(&mut self, mut lines: &[u8]) -> io::Result<()> {
        while !lines.is_empty() {
            match self.inner.write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    lines = lines.get(n..).unwrap_or_default();
                    self.lost.is_cut.store(!lines.is_empty(), Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The line about lost lines, in the form of other lines, so that a search for warnings finds it.
fn notice(n_lost: u64, is_cut: bool) -> String {
    let mut line = String::from(if is_cut { "\n" } else { "" });
    // Writing to a text cannot fail.
    let _never = SystemTime.format_time(&mut Writer::new(&mut line));
    line + &format!("  WARN {}: {n_lost} lines of this log could not be written\n", module_path!())
}

impl<W: Write> Write for LossyWriter<W> {
    /// Writes one event. The first event after a loss is preceded by a line with the number of lost
    /// lines.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let n_lost = self.lost.n_lines.load(Ordering::Relaxed);
        let written = match n_lost {
            0 => self.write_lines(event),
            _ => {
                let notice = notice(n_lost, self.lost.is_cut.load(Ordering::Relaxed));
                self.write_lines(notice.as_bytes()).and_then(|()| self.write_lines(event))
            }
        };
        LAST.record(&written);
        match written {
            Ok(()) => _ = self.lost.n_lines.fetch_sub(n_lost, Ordering::Relaxed),
            Err(_) => _ = self.lost.n_lines.fetch_add(1, Ordering::Relaxed),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What could not be flushed is lost.
        let _lost = self.inner.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A disk that is full or not, and the file on it.
    #[derive(Debug, Default)]
    struct Disk(Mutex<(bool, Vec<u8>)>);

    impl Write for &Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("not poisoned");
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A disk with room for some bytes.
    struct Room<'a>(&'a Disk, usize);

    impl Write for Room<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.1);
            self.1 -= n;
            if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(&bytes[..n]) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The first notice must not be glued to what was written of the line that filled the disk.
    #[test]
    fn notice_after_a_cut_line_is_a_line_of_its_own() {
        let (disk, lost) = (Disk::default(), Arc::new(Lost::default()));
        for (line, room) in [("one\n", 100), ("two\n", 2), ("three\n", 0), ("four\n", 200), ("five\n", 100)] {
            let mut log = LossyWriter { inner: Room(&disk, room), lost: Arc::clone(&lost) };
            assert_eq!(log.write(line.as_bytes()).expect("cannot fail"), line.len());
        }
        let text = String::from_utf8(disk.0.into_inner().expect("not poisoned").1).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((&lines[..2], &lines[3..]), (&["one", "tw"][..], &["four", "five"][..]), "{text}");
        assert!(
            lines[2].contains(" WARN ") && lines[2].ends_with(": 2 lines of this log could not be written")
        );
    }

    #[test]
    fn last_error_is_known_until_a_line_is_written() {
        let last = Last { has_failed: AtomicBool::new(false), error: Mutex::new(None) };
        last.record(&Ok(()));
        assert!(last.error().is_none());
        last.record(&Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(last.error().as_ref().expect("failed").0, io::ErrorKind::StorageFull);
        last.record(&Ok(()));
        assert!(last.error().is_none());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_cost_nothing_else() {
        let disk = Arc::new(Disk::default());
        let full = |is_full| disk.0.lock().expect("not poisoned").0 = is_full;
        let log = LossyLog::new(Arc::clone(&disk));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log)
            .with_ansi(false)
            .without_time()
            .log_internal_errors(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            full(true);
            tracing::info!("two");
            tracing::info!("three");
            full(false);
            tracing::info!("four");
            tracing::info!("five");
        });
        let text = String::from_utf8(disk.0.lock().expect("not poisoned").1.clone()).expect("UTF-8");
        let lines: Vec<&str> =
            text.lines().map(|line| line.rsplit(": ").next().unwrap_or(line).trim()).collect();
        assert_eq!(lines, ["one", "2 lines of this log could not be written", "four", "five"]);
    }
}

//! Writer of a log that cannot fail: a line that cannot be written is lost, and nothing else.
//!
//! `tracing` reports a failed write on standard error, and panics if that fails too, as it does on a
//! full disk or after the reader of a pipe has ended.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers that lose what cannot be written.
#[derive(Debug)]
pub struct LossyLog<W> {
    inner: W,
    // Lines that were lost since the last line that was written.
    n_lost: Arc<AtomicU64>,
}

impl<W> LossyLog<W> {
    /// Writes to the writers of `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, n_lost: Arc::default() }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LossyLog<W> {
    type Writer = LossyWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LossyWriter { inner: self.inner.make_writer(), n_lost: Arc::clone(&self.n_lost) }
    }
}

/// Writer of one event, which never fails.
#[derive(Debug)]
pub struct LossyWriter<W> {
    inner: W,
    n_lost: Arc<AtomicU64>,
}

impl<W: Write> Write for LossyWriter<W> {
    /// Writes one event. The first event after a loss is preceded by a line with the number of lost
    /// lines.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let n_lost = self.n_lost.load(Ordering::Relaxed);
        let note = || format!("{n_lost} lines of this log could not be written\n");
        let written = match n_lost {
            0 => self.inner.write_all(event),
            _ => self.inner.write_all(note().as_bytes()).and_then(|()| self.inner.write_all(event)),
        };
        match written {
            Ok(()) => _ = self.n_lost.fetch_sub(n_lost, Ordering::Relaxed),
            Err(_) => _ = self.n_lost.fetch_add(1, Ordering::Relaxed),
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

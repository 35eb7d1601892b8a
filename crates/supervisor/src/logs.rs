//! The log files of workers: bounded in size, and read back when a worker fails.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::{run_as, user_files};
use stormkeeper_runtime::fs::rotating_file;

/// The output of a worker and its components, in the worker's directory.
pub(crate) const WORKER_LOG: &str = "logs/worker.out";

/// Size above which a log is rotated: enough for hours of a verbose component, and a worker
/// never uses much more than twice this on disk.
pub(crate) const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;

/// Maximum part of a log in an error record, so that ten records stay well below the size limit
/// of a znode.
const MAX_TAIL_BYTES: u64 = 4 * 1024;
const MAX_TAIL_LINES: usize = 30;

/// Number of log files that are kept: the current one and one that was rotated.
const N_FILES: usize = 2;

fn is_over_limit(log: &Path) -> io::Result<bool> {
    match fs::metadata(log) {
        Ok(metadata) => Ok(metadata.len() > MAX_LOG_BYTES),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Rotates a log that no process writes, if it is over the limit. Blocks.
///
/// # Errors
/// If the file system reports an error.
pub(crate) fn rotate(log: &Path) -> io::Result<()> {
    if is_over_limit(log)? {
        rotating_file::rotate(log, N_FILES)?;
    }
    Ok(())
}

/// Rotates the log in the directory of a worker that has it open, if it is over the limit: copies
/// it and truncates it. Lines written between the two steps are lost. The alternative, a pipe,
/// would break when the supervisor ends before the worker. Blocks.
///
/// # Errors
/// If the file system reports an error.
pub(crate) fn rotate_in_place(dir: &Path) -> io::Result<()> {
    let log = dir.join(WORKER_LOG);
    if !is_over_limit(&log)? {
        return Ok(());
    }
    let older = rotating_file::older(&log, 1);
    match run_as::owner_if_other(dir)? {
        Some(owner) => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            run_as::rotate_in_place(&dir.join("logs"), (&name(&log), &name(&older)), owner)
        }
        None => {
            let mut current = File::open(&log)?;
            run_as::copy_end(&mut current, &mut File::create(older)?)?;
            File::options().write(true).open(&log)?.set_len(0)
        }
    }
}

/// Returns the last lines of the log in the directory of a worker, at most 30 lines and 4 KiB;
/// empty if there is no log. Blocks.
///
/// # Errors
/// If the file exists and cannot be read.
pub(crate) fn tail(dir: &Path) -> io::Result<String> {
    let mut file = match user_files::open(dir, WORKER_LOG) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let start = file.metadata()?.len().saturating_sub(MAX_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is incomplete if the log has more before it.
    let whole =
        if start == 0 { &text[..] } else { text.split_once('\n').map_or(&text[..], |(_, rest)| rest) };
    let lines: Vec<&str> = whole.lines().collect();
    Ok(lines[lines.len().saturating_sub(MAX_TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn tail_has_complete_lines_and_is_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join(WORKER_LOG);
        fs::create_dir(dir.path().join("logs")).expect("created");
        assert_eq!(tail(dir.path()).expect("no log"), "");
        fs::write(&log, "one\ntwo\n").expect("written");
        assert_eq!(tail(dir.path()).expect("read"), "one\ntwo");
        let many: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        fs::write(&log, many).expect("written");
        let last = tail(dir.path()).expect("read");
        assert_eq!(last.lines().count(), MAX_TAIL_LINES);
        assert!(last.starts_with("line 9970\n") && last.ends_with("line 9999"), "{last}");
        fs::write(&log, "x".repeat(100_000)).expect("written");
        assert_eq!(tail(dir.path()).expect("read").len(), 4096);
    }

    #[test]
    fn writer_appends_after_its_open_log_was_truncated() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join(WORKER_LOG);
        fs::create_dir(dir.path().join("logs")).expect("created");
        let mut writer = File::options().create(true).append(true).open(&log).expect("open");
        let limit = usize::try_from(MAX_LOG_BYTES).expect("small");
        writer.write_all(&vec![b'x'; limit]).expect("written");
        rotate_in_place(dir.path()).expect("at the limit");
        assert_eq!(fs::metadata(&log).expect("there").len(), MAX_LOG_BYTES);
        writer.write_all(b"y").expect("written");
        rotate_in_place(dir.path()).expect("over the limit");
        writer.write_all(b"z").expect("written");
        assert_eq!(fs::read(&log).expect("read"), b"z");
        assert_eq!(fs::metadata(rotating_file::older(&log, 1)).expect("there").len(), MAX_LOG_BYTES + 1);
    }
}

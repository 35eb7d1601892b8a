//! The log files of workers: bounded in size, and read back when a worker fails.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// What a worker and its components print, in the worker's directory.
pub const WORKER_LOG: &str = "logs/worker.out";

/// A log is moved aside when it is larger: enough for hours of a talkative component, and a
/// worker never takes much more than twice this on disk.
pub const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;

/// The most of a log that goes into an error record, so that ten of them stay well below the
/// size limit of a znode.
const MAX_TAIL_BYTES: u64 = 4 * 1024;
const MAX_TAIL_LINES: usize = 30;

/// The one older part that is kept.
fn older(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn is_over_limit(log: &Path) -> io::Result<bool> {
    match fs::metadata(log) {
        Ok(metadata) => Ok(metadata.len() > MAX_LOG_BYTES),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a log that nobody writes aside when it is over the limit. Blocks.
///
/// # Errors
/// When the file system refuses.
pub fn rotate(log: &Path) -> io::Result<()> {
    if is_over_limit(log)? {
        fs::rename(log, older(log))?;
    }
    Ok(())
}

/// Copies a log that a worker has open aside and cuts it to nothing when it is over the
/// limit. What is written between the two is lost: a few lines, against a worker that would
/// have to outlive its supervisor's pipes. Blocks.
///
/// # Errors
/// When the file system refuses.
pub fn rotate_in_place(log: &Path) -> io::Result<()> {
    if is_over_limit(log)? {
        fs::copy(log, older(log))?;
        File::options().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// The last lines of a log, at most 30 and 4 KiB; empty when there is none. Blocks.
///
/// # Errors
/// When the file cannot be read, for another reason than not being there.
pub fn tail(log: &Path) -> io::Result<String> {
    let mut file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let start = file.metadata()?.len().saturating_sub(MAX_TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is only a part of one when there was more before it.
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
    fn the_tail_is_whole_lines_and_bounded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join("worker.out");
        assert_eq!(tail(&log).expect("no log"), "");
        fs::write(&log, "one\ntwo\n").expect("written");
        assert_eq!(tail(&log).expect("read"), "one\ntwo");
        let many: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        fs::write(&log, many).expect("written");
        let last = tail(&log).expect("read");
        assert_eq!(last.lines().count(), MAX_TAIL_LINES);
        assert!(last.starts_with("line 9970\n") && last.ends_with("line 9999"), "{last}");
        fs::write(&log, "x".repeat(100_000)).expect("written");
        assert_eq!(tail(&log).expect("read").len(), 4096);
    }

    #[test]
    fn a_log_that_is_open_goes_on_after_it_was_cut() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let log = dir.path().join("worker.out");
        let mut writer = File::options().create(true).append(true).open(&log).expect("open");
        let limit = usize::try_from(MAX_LOG_BYTES).expect("small");
        writer.write_all(&vec![b'x'; limit]).expect("written");
        rotate_in_place(&log).expect("at the limit");
        assert_eq!(fs::metadata(&log).expect("there").len(), MAX_LOG_BYTES);
        writer.write_all(b"y").expect("written");
        rotate_in_place(&log).expect("over the limit");
        writer.write_all(b"z").expect("written");
        assert_eq!(fs::read(&log).expect("read"), b"z");
        assert_eq!(fs::metadata(older(&log)).expect("there").len(), MAX_LOG_BYTES + 1);
    }
}

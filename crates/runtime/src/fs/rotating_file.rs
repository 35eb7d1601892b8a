//! Numbering and rotation of files that are bounded in size: the current file, and older ones with
//! the suffix `.1`, `.2` and so on. The caller decides when to rotate, and what a failure means.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Path of the `n`-th older file of `current`; 1 is the newest.
pub fn older(current: &Path, n: usize) -> PathBuf {
    let mut name = current.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Renames `current` to its first older file, and each older file to the next. `n_files` are kept,
/// a new current one included: the oldest is overwritten, and older files that a former
/// configuration with more files left are removed. With `n_files` below 2 the current file stays.
/// A missing file is skipped: an operator may have removed it.
///
/// # Errors
/// If a file cannot be renamed or removed; the next call finishes the rotation.
pub fn rotate(current: &Path, n_files: usize) -> io::Result<()> {
    for n in n_files.max(1).. {
        match fs::remove_file(older(current, n)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(fault("remove", &older(current, n), &error)),
        }
    }
    for n in (1..n_files).rev() {
        let from = if n == 1 { current.to_owned() } else { older(current, n - 1) };
        match fs::rename(&from, older(current, n)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault("rename", &from, &error)),
        }
    }
    Ok(())
}

/// The error of one of several files, which the caller cannot tell apart.
fn fault(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn files(dir: &Path) -> BTreeMap<String, String> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.expect("listed").path();
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("read"))
        };
        fs::read_dir(dir).expect("listed").map(read).collect()
    }

    #[test]
    fn files_move_up_and_those_beyond_the_number_are_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let current = dir.path().join("log");
        let expect = |expected: &[(&str, &str)]| {
            let expected: Vec<_> = expected.iter().map(|(name, text)| (*name, *text)).collect();
            let found = files(dir.path());
            let found: Vec<_> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            assert_eq!(found, expected);
        };
        for n in 1..=4 {
            fs::write(&current, n.to_string()).expect("written");
            rotate(&current, 4).expect("rotated");
        }
        expect(&[("log.1", "4"), ("log.2", "3"), ("log.3", "2")]);
        fs::write(&current, "5").expect("written");
        rotate(&current, 2).expect("rotated");
        expect(&[("log.1", "5")]);
        rotate(&current, 2).expect("nothing to rename");
        expect(&[("log.1", "5")]);
    }

    #[test]
    fn single_file_stays_and_an_error_names_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let current = dir.path().join("log");
        fs::write(&current, "1").expect("written");
        rotate(&current, 1).expect("nothing to do");
        assert_eq!(files(dir.path()).len(), 1);
        fs::create_dir(older(&current, 1)).expect("in the way");
        let error = rotate(&current, 2).expect_err("a directory is in the way").to_string();
        assert!(error.contains("log"), "{error}");
    }
}

//! Reading files of a daemon that somebody may have replaced: a FIFO would be waited for, a directory
//! has no bytes, and a device never ends.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a regular file, or a link to one, for reading. Does not wait for a writer of a FIFO.
///
/// # Errors
/// If the file cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, File::options().read(true))
}

/// Opens a regular file, or a link to one, with `options`. Does not wait for the other end of a FIFO.
///
/// # Errors
/// If the file cannot be opened, or is no regular file.
pub fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // A FIFO without a reader cannot be opened for writing, and a directory neither.
    if let Ok(found) = fs::metadata(path) {
        check(found.file_type())?;
    }
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a regular file, or a link to one.
///
/// # Errors
/// If the file cannot be read, or is no regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file, or a link to one, as text.
///
/// # Errors
/// If the file cannot be read, is no regular file, or is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Checks a file that a user names on the command line. Unlike a file of a daemon it may be a pipe of
/// the calling shell, such as `/dev/stdin` or `/dev/fd/63`. A missing file is left to the reader.
///
/// # Errors
/// If it is there and is neither a regular file nor such a pipe.
pub fn check_given(path: &Path) -> io::Result<()> {
    let is_of_shell = path.starts_with("/dev") || path.starts_with("/proc");
    match fs::metadata(path) {
        Ok(found) if is_of_shell && !found.is_dir() => Ok(()),
        Ok(found) => check(found.file_type()),
        Err(_) => Ok(()),
    }
}

/// Reads a file that a user names on the command line as text, after [`check_given`].
///
/// # Errors
/// If the file cannot be read, cannot be used, or is not UTF-8.
pub fn read_given(path: &Path) -> io::Result<String> {
    check_given(path)?;
    fs::read_to_string(path)
}

fn check(found: FileType) -> io::Result<()> {
    let kind = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => "directory",
        found if found.is_fifo() => "FIFO",
        found if found.is_socket() => "socket",
        _ => "device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {kind}, and must be a regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType as NodeType, Mode, mknodat};

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        mknodat(CWD, path("fifo"), NodeType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        fs::create_dir(path("directory")).expect("a directory");
        std::os::unix::fs::symlink("fifo", path("link")).expect("linked");
        for (name, kind) in [("fifo", "FIFO"), ("link", "FIFO"), ("directory", "directory")] {
            for refused in [
                read(&path(name)).expect_err("refused"),
                open_with(&path(name), File::options().create(true).append(true)).expect_err("refused"),
            ] {
                let expected = format!("it is a {kind}, and must be a regular file");
                assert_eq!(refused.to_string(), expected, "{name}");
            }
        }
        for name in ["fifo", "directory"] {
            let refused = read_given(&path(name)).expect_err("refused").to_string();
            assert!(refused.contains("must be a regular file"), "{refused}");
        }
        assert_eq!(read_given(Path::new("/dev/null")).expect("of the shell"), "");
        fs::write(path("file"), "text").expect("written");
        std::os::unix::fs::symlink("file", path("link to a file")).expect("linked");
        assert_eq!(read_to_string(&path("link to a file")).expect("read"), "text");
        assert_eq!(read(&path("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
        fs::write(path("file"), [0xff]).expect("written");
        let refused = read_to_string(&path("file")).expect_err("not UTF-8");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}

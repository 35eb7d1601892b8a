//! Layout version of a data directory: the file `layout` in it.
//!
//! The file is written when the directory is first used. A directory with files of a daemon and
//! without `layout` was written by an earlier build, and a directory with another number by another
//! build: both are refused and not changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{atomic_file, modes, regular_file};

/// Version of the layout of data directories: of the files in them, their names and formats.
pub const LAYOUT_VERSION: u32 = 2;

/// Name of the file.
pub const FILE: &str = "layout";

/// Format of the file itself.
const FORMAT: u32 = 1;

/// Kind of a data directory.
#[derive(Debug, Clone, Copy)]
pub struct LayoutFile {
    /// Name of the kind, in the file and in messages.
    pub kind: &'static str,
    /// Files and directories whose existence shows that a directory was used before.
    pub traces: &'static [&'static str],
    /// Remedy for a directory of another layout that the operator does not need any more.
    pub remedy: &'static str,
}

/// Content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    v: u32,
    layout: u32,
    kind: String,
}

/// Reason why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or the file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The directory or the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The directory was used and has no file `layout`.
    #[error(
        "the {kind} directory {} has no file `{FILE}`, and contains {found}: the file was deleted, or an \
         earlier, unreleased build wrote the directory (layout 1; this build \
         needs layout {LAYOUT_VERSION}). If this build wrote it, copy `{FILE}` from the \
         {kind} directory of another host; otherwise {remedy}. Nothing was changed",
        dir.display()
    )]
    Unversioned {
        /// The directory.
        dir: PathBuf,
        /// Kind of the directory.
        kind: &'static str,
        /// Files of a daemon that were found.
        found: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// The directory has another layout.
    #[error(
        "the {kind} directory {} has layout {found}, and this build reads layout {LAYOUT_VERSION}: run {} that \
         wrote it, or {remedy}. Nothing was changed",
        dir.display(), if *found > LAYOUT_VERSION { "the newer build" } else { "the older build" }
    )]
    OtherVersion {
        /// The directory.
        dir: PathBuf,
        /// Kind of the directory.
        kind: &'static str,
        /// Layout of the directory.
        found: u32,
        /// Remedy.
        remedy: &'static str,
    },
    /// The directory belongs to another kind of daemon.
    #[error(
        "{} is the directory of a {found}, not of a {kind}: give each daemon its own storm.local.dir. Nothing was \
         changed",
        dir.display()
    )]
    OtherKind {
        /// The directory.
        dir: PathBuf,
        /// Required kind.
        kind: &'static str,
        /// Kind in the file.
        found: String,
    },
    /// The file does not contain a layout.
    #[error(
        "{} does not hold a layout ({reason}): restore it from a backup, or from the same directory of another \
         host that runs this build; or {remedy}. Nothing was changed",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Defect of the file.
        reason: String,
        /// Remedy.
        remedy: &'static str,
    },
}

impl LayoutFile {
    /// Checks the layout of `dir`, which may be missing. Changes nothing.
    ///
    /// # Errors
    /// [`Error`] if the directory must not be used.
    pub fn check(&self, dir: &Path) -> Result<(), Error> {
        self.is_present(dir).map(drop)
    }

    /// Checks the layout of `dir`, and writes the file if the directory was not used before. Creates
    /// a missing directory. The caller must hold the directory's lock, if it has one.
    ///
    /// # Errors
    /// [`Error`] if the directory must not be used; it is not changed then.
    pub fn check_or_create(&self, dir: &Path) -> Result<(), Error> {
        if self.is_present(dir)? {
            return Ok(());
        }
        let path = dir.join(FILE);
        self.create(dir, &path).map_err(|source| Error::Io { path, source })
    }

    /// Returns whether the file is there with this layout.
    pub(super) fn is_present(&self, dir: &Path) -> Result<bool, Error> {
        let path = dir.join(FILE);
        let text = match regular_file::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.check_unused(dir).map(|()| false);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::from("not UTF-8"),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let remedy = self.remedy;
        let invalid = |reason: String| Error::Invalid { path: path.clone(), reason, remedy };
        let content: Content = match serde_json::from_str(&text) {
            Ok(content) => content,
            // A later format of the file keeps at least the number of the layout.
            Err(error) => match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(json)
                    if json["layout"].as_u64().is_some_and(|found| found != u64::from(LAYOUT_VERSION)) =>
                {
                    let found = json["layout"].as_u64().and_then(|found| found.try_into().ok());
                    let (dir, found) = (dir.to_owned(), found.unwrap_or(u32::MAX));
                    return Err(Error::OtherVersion { dir, kind: self.kind, found, remedy });
                }
                Ok(_) | Err(_) => return Err(invalid(error.to_string())),
            },
        };
        let dir = dir.to_owned();
        match content {
            Content { layout, .. } if layout != LAYOUT_VERSION => {
                Err(Error::OtherVersion { dir, kind: self.kind, found: layout, remedy })
            }
            Content { v, .. } if v > FORMAT => Err(invalid(format!(
                "it has format {v}, and this build reads up to format {FORMAT}: a newer build wrote it"
            ))),
            Content { kind, .. } if kind != self.kind => {
                Err(Error::OtherKind { dir, kind: self.kind, found: kind })
            }
            Content { .. } => Ok(true),
        }
    }

    fn check_unused(&self, dir: &Path) -> Result<(), Error> {
        // `symlink_metadata` also sees a link whose target is missing.
        let is_there = |name: &&&str| fs::symlink_metadata(dir.join(**name)).is_ok();
        let found: Vec<&str> = self.traces.iter().filter(is_there).copied().collect();
        match found.is_empty() {
            true => Ok(()),
            false => Err(Error::Unversioned {
                dir: dir.to_owned(),
                kind: self.kind,
                found: found.join(", "),
                remedy: self.remedy,
            }),
        }
    }

    /// Writes the file: after a crash it is complete or absent.
    fn create(&self, dir: &Path, path: &Path) -> io::Result<()> {
        modes::create_dir_all(dir)?;
        write(path, self.kind)
    }
}

/// Writes a file of this layout for `kind`.
pub(super) fn write(path: &Path, kind: &str) -> io::Result<()> {
    let content = Content { v: FORMAT, layout: LAYOUT_VERSION, kind: kind.to_owned() };
    atomic_file::write(path, format!("{}\n", serde_json::to_string(&content)?).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: LayoutFile =
        LayoutFile { kind: "nimbus", traces: &["nimbus-id", "blobs"], remedy: "move the directory away" };

    /// Asserts that the directory with these files is refused with a message that contains all of
    /// `expected` and its path, and is not changed.
    fn expect_refused(files: &[(&str, &str)], expected: &[&str]) {
        let dir = tempfile::tempdir().expect("a directory");
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).expect("written"));
        for refused in [LAYOUT.check(dir.path()), LAYOUT.check_or_create(dir.path())] {
            let text = refused.expect_err("refused").to_string();
            for expected in expected.iter().copied().chain([dir.path().to_str().expect("text")]) {
                assert!(text.contains(expected), "{expected:?} is not in {text:?}");
            }
        }
        let mut found: Vec<(String, String)> = fs::read_dir(dir.path())
            .expect("listed")
            .map(|entry| entry.expect("listed").path())
            .map(|path| {
                let name = path.file_name().expect("a name").to_str().expect("text").to_owned();
                (name, fs::read_to_string(path).expect("read"))
            })
            .collect();
        found.sort();
        let mut before: Vec<_> = files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        before.sort();
        assert_eq!(found, before);
    }

    #[test]
    fn unused_directory_gets_a_layout_and_keeps_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("nimbus");
        LAYOUT.check(&dir).expect("unused");
        assert!(!dir.exists());
        LAYOUT.check_or_create(&dir).expect("created");
        let text = fs::read_to_string(dir.join(FILE)).expect("read");
        assert_eq!(text, "{\"v\":1,\"layout\":2,\"kind\":\"nimbus\"}\n");
        fs::write(dir.join("nimbus-id"), "n").expect("written");
        LAYOUT.check_or_create(&dir).expect("there");
        assert_eq!(fs::read_to_string(dir.join(FILE)).expect("read"), text);
    }

    #[test]
    fn directory_with_foreign_files_and_leftovers_of_a_first_start_counts_as_unused() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["lost+found", "storm.yaml", "nimbus.lock", "layout.tmp"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        LAYOUT.check_or_create(dir.path()).expect("created");
    }

    #[test]
    fn directory_of_an_earlier_build_is_refused_and_not_changed() {
        let expected =
            ["no file `layout`", "nimbus-id, blobs", "layout 1", "layout 2", "move the directory away"];
        expect_refused(&[("nimbus-id", "n"), ("blobs", "")], &expected);
    }

    #[test]
    fn directory_of_another_layout_is_refused_and_the_build_to_run_is_named() {
        let newer = r#"{"v":1,"layout":3,"kind":"nimbus"}"#;
        expect_refused(&[("layout", newer)], &["has layout 3", "reads layout 2", "run the newer build"]);
        expect_refused(&[("layout", r#"{"v":9,"layout":3}"#)], &["has layout 3", "reads layout 2"]);
        let older = r#"{"v":1,"layout":1,"kind":"nimbus"}"#;
        expect_refused(&[("layout", older)], &["has layout 1", "reads layout 2", "run the older build"]);
    }

    #[test]
    fn directory_of_another_daemon_is_refused() {
        let other = r#"{"v":1,"layout":2,"kind":"supervisor"}"#;
        expect_refused(
            &[("layout", other)],
            &["directory of a supervisor, not of a nimbus", "storm.local.dir"],
        );
    }

    #[test]
    fn damaged_layout_file_is_refused() {
        for damaged in ["", "2", "{}", r#"{"v":1,"layout":2}"#, r#"{"v":1,"layout":"x","kind":"nimbus"}"#] {
            expect_refused(&[("layout", damaged)], &["does not hold a layout", "restore it"]);
        }
        let later = r#"{"v":2,"layout":2,"kind":"nimbus"}"#;
        expect_refused(&[("layout", later)], &["it has format 2, and this build reads up to format 1"]);
    }
}

//! New files with secrets.

use std::{io, path::Path};

use anyhow::{Context as _, anyhow};

use crate::cli::error::{ErrorKind, Failure};
use stormkeeper_access::file::create_secret;

/// Creates a file that only its owner may read. `remedy` is the hint if there is a file of that name, which
/// stays as it is.
pub(super) fn create(path: &Path, text: &str, remedy: &str) -> Result<(), Failure> {
    match create_secret(path, text) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path, remedy)),
        written => {
            let written = written.with_context(|| format!("creating {}", path.display()));
            written.map_err(|error| Failure::new(ErrorKind::Usage, error))
        }
    }
}

/// Returns the failure of a command that would have to replace a file.
pub(super) fn exists(path: &Path, remedy: &str) -> Failure {
    let error = anyhow!("{} exists already, and is left as it is", path.display());
    Failure::new(ErrorKind::Usage, error).with_hint(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_exists_is_left_with_the_remedy_and_another_failure_has_its_cause() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        create(&path, "one", "another name").expect("created");
        let said = format!("{:?}", create(&path, "two", "another name").expect_err("exists"));
        assert!(said.contains("secret exists already") && said.contains("another name"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "one");
        let below = path.join("file");
        let said = format!("{:?}", create(&below, "x", "another name").expect_err("no directory"));
        assert!(said.contains("creating") && !said.contains("exists already"), "{said}");
    }
}

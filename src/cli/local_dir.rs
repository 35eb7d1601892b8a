//! Mode of `storm.local.dir`, at the start of a daemon.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use tracing::warn;

/// Bits of users who may add and remove entries.
const WRITABLE: u32 = 0o022;

/// Bit with which users remove only what is theirs, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Warns of a `storm.local.dir` in which other users may replace the data directory of the daemon. It
/// starts all the same: an upgrade must not stop a cluster for a mode that was accepted before. Blocks.
pub(super) fn warn_if_others_may_change(dir: &Path) {
    if let Some(risk) = risk_of(dir) {
        warn!("{risk}");
    }
}

/// Returns the risk of the mode of `storm.local.dir`, and its remedy. Blocks.
pub(super) fn risk_of(dir: &Path) -> Option<String> {
    // One that is missing is created for one user.
    risk(dir, fs::metadata(dir).ok()?.mode())
}

fn risk(dir: &Path, mode: u32) -> Option<String> {
    let is_open = mode & WRITABLE != 0 && mode & STICKY == 0;
    is_open.then(|| {
        let (dir, mode) = (dir.display(), mode & 0o777);
        format!(
            "storm.local.dir {dir} has the mode {mode:03o}: other users may replace the data of this daemon and of its \
             workers, and so act for them; run `chmod go-w {dir}`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_whose_entries_others_may_replace_is_named_with_the_remedy() {
        let dir = Path::new("/var/lib/x");
        for mode in [0o40777, 0o40775, 0o40702] {
            let said = risk(dir, mode).expect("a risk");
            assert!(said.contains(&format!("{:03o}", mode & 0o777)), "{said}");
            assert!(said.contains("chmod go-w /var/lib/x"), "{said}");
        }
        for mode in [0o40700, 0o40711, 0o40755, 0o41777] {
            assert_eq!(risk(dir, mode), None, "{mode:o}");
        }
    }
}

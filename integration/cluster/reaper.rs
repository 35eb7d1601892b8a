//! End of the processes of a cluster whose test is killed.
//!
//! Workers run in process groups of their own and outlive their supervisor, so nothing else would end
//! them. The reaper is a shell that reads from a pipe of the test: the pipe ends with the test, also
//! by `kill -9`. Then the shell kills every process that names the directory of the cluster in its
//! command line or its environment.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Reads the directory, then waits for `done` or for the end of the pipe. Processes may be starting
/// others meanwhile, so it looks several times.
const SCRIPT: &str = r#"
read -r dir
read -r done && exit 0
for round in 1 2 3 4 5; do
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" = $$ ] && continue
        if cat "$process/environ" "$process/cmdline" 2>/dev/null | tr '\0' '\n' | grep -qF -- "$dir"; then
            kill -9 "${process#/proc/}" 2>/dev/null
        fi
    done
    sleep 0.2
done
rm -rf -- "$dir"
"#;

pub(crate) struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Watches over the processes of the cluster in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The end of the group of the test must not end it.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let pipe = shell.stdin.as_mut().expect("a pipe");
        writeln!(pipe, "{}", dir.display()).expect("the shell reads");
        Self { shell }
    }
}

impl Drop for Reaper {
    /// The test has ended the processes itself.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // A shell that has ended already needs no word.
            let _gone = pipe.write_all(b"done\n");
        }
        let _status = self.shell.wait();
    }
}

//! The program: it describes its topology, or is a worker of it.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use crate::builder::{Built, TopologyBuilder};
use stormkeeper_runtime::error_chain;
use stormkeeper_topology_package::{
    launch::LaunchSpec,
    program::{DESCRIBE, Description},
};
use stormkeeper_worker_process as worker_process;
use stormkeeper_worker_process::FORMATS;

/// Status of a process that was called in a wrong way.
const USAGE: u8 = 2;

/// Request to the program.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Describe the topology.
    Describe,
    /// Be the worker of this launch spec.
    Worker(PathBuf),
    /// Say how it is used.
    Help,
}

impl Asked {
    fn of(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let texts: Vec<Option<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
        match (texts.as_slice(), arguments.as_slice()) {
            ([Some(DESCRIBE)], _) => Self::Describe,
            ([Some("worker"), Some("--spec"), _], [.., spec]) => Self::Worker(spec.into()),
            _ => Self::Help,
        }
    }
}

/// Runs the program of a topology; call it in `main`, and print nothing before.
///
/// `stormkeeper submit PROGRAM` has the program describe its topology, and submits both. Each worker of the
/// topology is then this program, started by a supervisor.
pub fn run(topology: TopologyBuilder) -> ExitCode {
    let asked = Asked::of(std::env::args_os().skip(1));
    let built = match topology.build() {
        Ok(built) => built,
        Err(defects) => return complain(&format!("the topology cannot run:\n{defects}"), 1),
    };
    match asked {
        Asked::Describe => describe(built),
        // On a thread of its own: `main` may be in an async runtime, in which no other one may be waited for.
        Asked::Worker(spec) => match thread::spawn(move || work(&spec, built)).join() {
            Ok(code) => code,
            Err(_) => complain("the worker panicked; what it printed before says why", 1),
        },
        Asked::Help => complain(
            &format!(
                "this program has the topology {}. Submit it with `stormkeeper submit {}`.",
                built.topology.name,
                std::env::args().next().unwrap_or_else(|| "PROGRAM".to_owned())
            ),
            USAGE,
        ),
    }
}

fn describe(built: Built) -> ExitCode {
    let description = Description::new(FORMATS, built.topology, built.resources);
    let written = serde_json::to_string(&description).map_err(io::Error::other);
    match written.and_then(|text| writeln!(io::stdout().lock(), "{text}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot describe the topology: {error}"), 1),
    }
}

fn work(spec: &std::path::Path, built: Built) -> ExitCode {
    let spec = match LaunchSpec::read(spec) {
        Ok(spec) => spec,
        Err(error) => return complain(&error_chain(&error).to_string(), 1),
    };
    let Some(connections) = spec.connections.clone() else {
        return complain(
            "the supervisor is of an older build, which starts no worker programs of topologies; upgrade it",
            1,
        );
    };
    let worked = worker_process::prepare(&spec, log_filter().as_deref())
        .and_then(|()| worker_process::run(spec, connections, built.code));
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error_chain(&error).to_string(), 1),
    }
}

#[expect(clippy::disallowed_methods, reason = "the program is the process, whose environment it may read")]
fn log_filter() -> Option<String> {
    std::env::var("STORMKEEPER_LOG").ok().filter(|filter| !filter.is_empty())
}

/// Writes a text to the standard error.
fn complain(text: &str, status: u8) -> ExitCode {
    // Nobody reads it if that fails.
    let _unread = writeln!(io::stderr().lock(), "{text}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_submit_and_of_a_supervisor_are_known_and_others_get_help() {
        let asked = |arguments: &[&str]| Asked::of(arguments.iter().map(OsString::from));
        assert_eq!(asked(&["describe"]), Asked::Describe);
        assert_eq!(asked(&["worker", "--spec", "/w/worker.json"]), Asked::Worker("/w/worker.json".into()));
        for other in [&[][..], &["--help"], &["worker"], &["describe", "x"]] {
            assert_eq!(asked(other), Asked::Help, "{other:?}");
        }
    }
}

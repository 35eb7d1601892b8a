//! `stormkeeper doctor`
//!
//! [`gather`] collects facts, each within a time limit, and [`judge`] decides on them alone.

mod facts;
mod gather;
mod host;
mod judge;
mod session;

use anyhow::anyhow;
use serde::Serialize;

use crate::cli::{Global, client_runtime, error::Failure, output};
use judge::{Check, State};
use stormkeeper_model::text::counted;

/// Check this host, its configuration, ZooKeeper and the cluster, and say what to do.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run it on the host of a daemon, as the user of the daemon and with its configuration: \
others may not read its files. It looks at ZooKeeper, clocks, names, ports, the disk, limits, files with \
secrets, certificates, versions and cgroups, and changes nothing; to try the disk, it writes a file of one \
byte and removes it. Each check ends after five seconds, and a session with ZooKeeper after ten.\n\
Exit status: 0 if nothing failed, also with warnings; 1 if a check failed.\n\
Example: stormkeeper doctor --config /etc/stormkeeper/storm.yaml"
)]
pub(super) struct Args {
    /// Print only warnings and failures
    #[arg(short = 'q', long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    checks: &'a [&'a Check],
    warnings: usize,
    failures: usize,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let config = global.load()?;
    let runtime = client_runtime()?;
    let checks = judge::judge(&runtime.block_on(gather::facts(global, &config)));
    // A file system that does not answer must not keep the command.
    runtime.shutdown_background();
    let n_in = |state| checks.iter().filter(|check| check.state == state).count();
    let (warnings, failures) = (n_in(State::Warn), n_in(State::Fail));
    let shown: Vec<&Check> = checks.iter().filter(|check| !args.quiet || check.state != State::Ok).collect();
    if global.json {
        output::print_json(&Report { checks: &shown, warnings, failures })?;
    } else {
        let mut text = text(&shown);
        let n_ok = n_in(State::Ok);
        text.push_str(&format!(
            "{n_ok} ok, {}, {}\n",
            counted(warnings, "warning"),
            counted(failures, "failure")
        ));
        output::print(&text)?;
    }
    match failures {
        0 => Ok(()),
        n => Err(Failure::internal(anyhow!("{} failed", counted(n, "check")))),
    }
}

fn text(checks: &[&Check]) -> String {
    let mut text = String::new();
    for Check { state, about, text: said, remedy } in checks {
        text.push_str(&format!("{:<5} {about:<12} {}\n", state.as_str(), output::one_line(said)));
        if let Some(remedy) = remedy {
            text.push_str(&format!("{:<18} -> {}\n", "", output::one_line(remedy)));
        }
    }
    text
}

#[cfg(test)]
mod tests;

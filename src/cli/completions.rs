//! `stormkeeper completions SHELL`

use crate::cli::{command_line, error::Failure, output};

/// Print shell completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: stormkeeper completions bash > /etc/bash_completion.d/stormkeeper")]
pub(super) struct Args {
    /// Shell for which to print completions
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_line(), "stormkeeper", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

//! `stormkeeper secret`

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::{error::Failure, new_file, output};
use stormkeeper_access::secret::Secrets;

/// Make cluster secrets.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a secret for storm.cluster.secret.file
    New(New),
}

/// Make a secret.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Copy the file to every host with a nimbus or a supervisor. To replace a secret in a \
running cluster, add the next one as the second line on every host, then make it the first, then remove the \
other.\nExample: stormkeeper secret new /etc/stormkeeper/cluster.secret"
)]
pub(super) struct New {
    /// Write the secret to this new file, which only its owner may read, instead of printing it
    file: Option<PathBuf>,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::New(New { file }) = command;
    let secret = Secrets::generate().context("reading random bytes").map_err(Failure::internal)?;
    let Some(path) = file else { return output::print(&format!("{secret}\n")) };
    new_file::create(
        path,
        &format!("{secret}\n"),
        "choose another name; to replace the secret of a running cluster, make the next one without a file, and \
         add it to this file as its second line: docs/security.md",
    )?;
    output::note(&format!(
        "the secret is in {}, which only its owner may read; copy it to every host of a nimbus or a supervisor, and \
         name it there in storm.cluster.secret.file",
        path.display()
    ));
    Ok(())
}

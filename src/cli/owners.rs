//! `stormkeeper owners`

use crate::cli::{Global, client_runtime, error::Failure, output};

/// Show what each owner of topologies uses, and its quota.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The quotas are those of nimbus.quotas.file on the nimbus that answers; - is no limit. \
UNUSED are bytes of packages that were uploaded to that nimbus and no topology of the owner uses; they count \
too where PACKAGE BYTES are limited.\n\
Example: stormkeeper owners"
)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, _args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let list = client_runtime()?.block_on(client.owners())?;
    if global.json {
        return output::print_json(&list);
    }
    if list.owners.is_empty() {
        output::note("No topologies, and no quotas.");
        return Ok(());
    }
    let of = |used: u64, max: Option<u64>| {
        format!("{} / {}", output::count(used), max.map_or("-".to_owned(), output::count))
    };
    let mut table = output::Table::new(&["OWNER", "TOPOLOGIES", "TASKS", "PACKAGE BYTES", "UNUSED"]);
    for owner in &list.owners {
        table.row([
            owner.owner.clone(),
            of(owner.topologies, owner.topologies_max),
            of(owner.tasks, owner.tasks_max),
            of(owner.blob_bytes, owner.blob_bytes_max),
            output::count(owner.unused_blob_bytes),
        ]);
    }
    output::print(&table.text(0))
}

//! `stormkeeper config show`

use crate::cli::{
    Global,
    error::Failure,
    output::{self, Table},
};

/// Show the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print every key with its value and the source of the value
    Show,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show => show(global),
    }
}

fn show(global: &Global) -> Result<(), Failure> {
    let config = global.load()?;
    let rows = config.show();
    if global.json {
        return output::print_json(&rows);
    }
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for row in rows {
        table.row([row.key, row.value.to_string(), row.provenance]);
    }
    output::print(&table.text(0))
}

//! `stormkeeper config show`

use serde::Serialize;

use crate::cli::{Global, error::Failure, output, output::Table};

/// Look at the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print every key with its value and where it comes from
    Show,
}

#[derive(Serialize)]
struct Row {
    key: String,
    value: String,
    from: String,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Show => show(global),
    }
}

fn show(global: &Global) -> Result<(), Failure> {
    let config = global.load()?;
    let rows = config.show().into_iter().map(|(key, value, from)| Row {
        key: key.to_string(),
        value: value.to_string(),
        from: from.to_string(),
    });
    let rows: Vec<Row> = rows.collect();
    if global.json {
        return output::print_json(&rows);
    }
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for row in rows {
        table.row([row.key, row.value, row.from]);
    }
    output::print(&table.text(0))
}

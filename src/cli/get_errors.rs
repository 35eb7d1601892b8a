//! `stormkeeper get-errors NAME`

use crate::cli::{Global, client_runtime, error::Failure, output};

/// Print the errors of a topology's tasks, newest first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Print the stack traces too
    #[arg(long)]
    stacks: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let errors = client_runtime()?.block_on(client.errors(&args.topology))?;
    if global.json {
        return output::print_json(&errors);
    }
    if errors.errors.is_empty() {
        output::note(&format!("{} has no errors.", errors.name));
        return Ok(());
    }
    let mut text = String::new();
    for error in &errors.errors {
        text.push_str(&format!(
            "{}  {} task {} on {}:{}  {}\n",
            error.time,
            error.component,
            error.task,
            output::one_line(&error.host),
            error.port,
            output::one_line(&error.message)
        ));
        if args.stacks {
            for line in error.stack.lines() {
                text.push_str(&format!("    {}\n", output::one_line(line)));
            }
        }
    }
    if errors.truncated {
        output::note("Too many tasks have errors; the list is truncated.");
    }
    output::print(&text)
}

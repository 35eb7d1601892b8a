//! `stormkeeper token`

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::{Global, error::Failure, new_file, output};
use stormkeeper_access::{
    principal::{Person, Role},
    token::{self, Token},
};

/// Make tokens.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a token, and print it with its line for ui.tokens.file; it is shown once
    New(New),
}

/// Make a token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Add the line to ui.tokens.file on every nimbus, which reads it within seconds. \
The line has only the digest of the token.\n\
Example: stormkeeper token new ann --role operator --out ~/.stormkeeper-token")]
pub(super) struct New {
    /// Name, which events and logs show
    name: String,
    /// reader (reads), operator (also changes topologies and hosts) or admin (also recovers a tree)
    #[arg(long)]
    role: Role,
    /// Limit an operator to the topologies of this owner
    #[arg(long)]
    owner: Option<String>,
    /// Write the token to this new file, which only its owner may read, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(global: &Global, command: &Command) -> Result<(), Failure> {
    match command {
        Command::New(args) => new(global, args),
    }
}

fn new(global: &Global, New { name, role, owner, out }: &New) -> Result<(), Failure> {
    token::check_name("name", name).map_err(Failure::usage)?;
    if let Some(owner) = owner {
        token::check_name("owner", owner).map_err(Failure::usage)?;
        if *role != Role::Operator {
            return Err(Failure::usage(format!(
                "--owner limits an operator, and not a token of the role {role}"
            )));
        }
    }
    let token = Token::generate().context("reading random bytes").map_err(Failure::internal)?;
    let line = token.line(&Person { name: name.clone(), role: *role, owner: owner.clone() });
    let shown = match out {
        Some(path) => {
            new_file::create(
                path,
                &format!("{}\n", token.secret_text()),
                "choose another name; to replace a token, make the next one under another name in ui.tokens.file, \
                 and remove the line of the old one when nobody uses it any more",
            )?;
            None
        }
        None => Some(token.secret_text()),
    };
    if global.json {
        return output::print_json(&serde_json::json!({ "token": shown, "line": line }));
    }
    let token = shown.as_ref().map(|token| format!("token: {token}\n")).unwrap_or_default();
    output::print(&format!("{token}line: {line}\n"))?;
    let of_token = match out {
        Some(path) => format!("the token is in {}, which only its owner may read", path.display()),
        None => "the token is not shown again".to_owned(),
    };
    output::note(&format!(
        "{of_token}; add what follows `line: `, which has no secret, to ui.tokens.file on every nimbus"
    ));
    Ok(())
}

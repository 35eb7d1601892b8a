//! `stormkeeper credentials TOPOLOGY`

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
};

use anyhow::Context as _;

use crate::cli::{
    Global, client_runtime,
    confirm::confirm,
    error::{ErrorKind, Failure},
    output,
};
use stormkeeper_api_types::message::{
    CredentialList, CredentialsRequest,
    unique::{self, Unique},
};
use stormkeeper_model::text;
use stormkeeper_runtime::fs::regular_file;

/// Maximum bytes of a file with credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Hand secrets to the workers of a topology, or renew them while it runs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only the workers of the topology read the values, in the file that the environment variable \
STORMKEEPER_CREDENTIALS_FILE of each component names; a change is there within seconds, and no worker restarts. \
Nothing shows a value again. Other credentials of the topology stay as they are.\n\
A FILE has a JSON object of names and texts; - is the standard input. A value on the command line is seen by \
other users of the host.\n\
Examples:\n  \
stormkeeper credentials word-count secrets.json\n  \
stormkeeper credentials word-count db.user=wc db.password=...\n  \
stormkeeper credentials word-count                  # names, dates and authors\n  \
stormkeeper credentials word-count --remove db.user"
)]
pub(super) struct Args {
    /// Name or id of the topology
    topology: String,
    /// Credentials to set: NAME=VALUE, or a JSON file
    #[arg(value_name = "FILE|NAME=VALUE")]
    values: Vec<String>,
    /// List the names of the credentials; the same as no arguments
    #[arg(long, conflicts_with_all = ["values", "remove", "remove_others"])]
    list: bool,
    /// Remove this credential (can be repeated)
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Remove all credentials that this command does not set; asks for confirmation at a terminal
    #[arg(long)]
    remove_others: bool,
    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    yes: bool,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let client = global.client()?;
    let request = CredentialsRequest {
        set: read_values(&args.values)?,
        remove: args.remove.iter().cloned().collect::<BTreeSet<_>>(),
        remove_others: args.remove_others,
    };
    if args.list || request == CredentialsRequest::default() {
        let list = client_runtime()?.block_on(client.credentials(&args.topology))?;
        return report(global, &list);
    }
    if args.remove_others {
        let kept = text::counted(request.set.len(), "credential");
        let question = format!("Remove all credentials of {} but the {kept} of this command?", args.topology);
        confirm(args.yes, &question)?;
    }
    let changed = client_runtime()?.block_on(client.change_credentials(&args.topology, &request))?;
    if global.json {
        return output::print_json(&changed);
    }
    output::print(&format!(
        "The credentials of {} ({}) are changed; its workers have them within seconds\n",
        changed.name, changed.topology_id
    ))
}

fn report(global: &Global, list: &CredentialList) -> Result<(), Failure> {
    if global.json {
        return output::print_json(list);
    }
    if list.credentials.is_empty() {
        output::note(&format!("{} has no credentials.", list.topology_id));
        return Ok(());
    }
    let mut table = output::Table::new(&["NAME", "CHANGED", "BY"]);
    for credential in &list.credentials {
        let by = credential.by.clone().unwrap_or_default();
        table.row([credential.name.clone(), credential.changed.to_string(), by]);
    }
    output::print(&table.text(0))
}

/// Reads the arguments and the files that they name.
fn read_values(arguments: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut values = BTreeMap::new();
    for argument in arguments {
        let more = match argument.split_once('=') {
            Some((name, value)) => BTreeMap::from([(name.to_owned(), value.to_owned())]),
            None => {
                of_file(argument, || format!("{argument} is not NAME=VALUE, and no file with credentials"))?
            }
        };
        for (name, value) in more {
            if values.insert(name.clone(), value).is_some() {
                return Err(Failure::usage(format!("the credential {name} is given twice")));
            }
        }
    }
    Ok(values)
}

/// Reads a file with credentials, or a pipe of the shell. `context` says what could not be read.
fn of_file(name: &str, context: impl FnOnce() -> String) -> Result<BTreeMap<String, String>, Failure> {
    let fail = |error: anyhow::Error| Failure::new(ErrorKind::Usage, error);
    let mut text = String::new();
    let read = match name {
        "-" => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
        path => regular_file::check_given(Path::new(path))
            .and_then(|()| File::open(path))
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    read.with_context(context).map_err(fail)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(anyhow::anyhow!("{name} is larger than {FILE_BYTES_MAX} bytes")));
    }
    let read = serde_json::from_str(&text).map(|Unique(values)| values);
    read.map_err(|error| {
        // Another cause would quote a part of a value.
        let fault = match unique::repeated(&error) {
            Some(key) => format!("the credential {} is there twice", output::one_line(&key)),
            None => "it is not a JSON object of names and texts, such as {\"db.password\": \"…\"}".to_owned(),
        };
        fail(anyhow::anyhow!("{name}:{}:{}: {fault}", error.line(), error.column()))
    })
}

/// Returns the content of the file of a worker in a cluster of its own: the credentials in the file `name`,
/// checked as a leader would check them, or none.
pub(super) fn text_of_file(name: Option<&str>) -> Result<String, Failure> {
    let context =
        |name: &str| format!("{name} is no file with credentials, a JSON object of names and texts");
    let values = name.map(|name| of_file(name, || context(name))).transpose()?.unwrap_or_default();
    stormkeeper_nimbus::credentials::check_all(&values).map_err(Failure::usage)?;
    output::json_line(&values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        read_values(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn values_come_from_arguments_and_files_and_a_bad_file_shows_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets.json");
        let name = path.to_str().expect("text");
        std::fs::write(&path, r#"{"db.password": "a=b", "api": "k"}"#).expect("written");
        let all = of(&[name, "x=1=2"]).expect("valid");
        let expected = [("api", "k"), ("db.password", "a=b"), ("x", "1=2")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let said = |result: Result<_, Failure>| format!("{:?}", result.expect_err("invalid"));
        assert!(said(of(&[name, "api=2"])).contains("api is given twice"));
        for bad in ["{\"a\": \"s3cr3t", "{\"a\": [\"s3cr3t\"]}", "s3cr3t", "[\"s3cr3t\"]"] {
            std::fs::write(&path, bad).expect("written");
            let said = said(of(&[name]));
            assert!(said.contains("not a JSON object of names") && !said.contains("s3cr3t"), "{said}");
        }
        std::fs::write(&path, "{\"a\": \"s3cr3t\",\n \"a\": \"other\"}").expect("written");
        let twice = said(of(&[name]));
        assert!(
            twice.contains("secrets.json:2:") && twice.contains("the credential a is there twice"),
            "{twice}"
        );
        assert!(!twice.contains("s3cr3t") && !twice.contains("other"), "{twice}");
        assert!(said(of(&["/missing/file"])).contains("/missing/file"));
        std::fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).expect("written");
        assert!(said(of(&[name])).contains("larger than 1048576 bytes"));
    }

    #[test]
    fn file_for_a_run_without_a_cluster_is_checked_as_a_leader_would_and_is_empty_without_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets.json");
        let name = path.to_str().expect("text");
        assert_eq!(text_of_file(None).expect("none"), "{}\n");
        std::fs::write(&path, r#"{"b": "2", "a": "1"}"#).expect("written");
        assert_eq!(text_of_file(Some(name)).expect("valid"), "{\"a\":\"1\",\"b\":\"2\"}\n");
        for (bad, fault) in [(r#"{"a b": "x"}"#, "no name of a credential"), (r#"{"a": ""}"#, "a is empty")] {
            std::fs::write(&path, bad).expect("written");
            let said = format!("{:?}", text_of_file(Some(name)).expect_err("invalid"));
            assert!(said.contains(fault), "{said}");
        }
        let other = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &other, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("made");
        for (bad, fault) in [(&other, "it is a FIFO"), (&dir.path().to_owned(), "it is a directory")] {
            let said = format!("{:?}", text_of_file(bad.to_str()).expect_err("no file"));
            assert!(said.contains("is no file with credentials") && said.contains(fault), "{said}");
            assert!(!said.contains("NAME=VALUE"), "{said}");
        }
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(64 << 10));
        std::fs::write(&path, long).expect("written");
        let said = format!("{:?}", text_of_file(Some(name)).expect_err("too long"));
        assert!(said.contains("65536 bytes together"), "{said}");
    }
}

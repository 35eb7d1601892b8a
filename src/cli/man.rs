//! `stormkeeper man DIR`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::cli::{
    Global, command_line,
    error::{ErrorKind, Failure},
    output,
};

/// Write the manual pages of all commands.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "One page for each command: stormkeeper.1, stormkeeper-kill.1 and so on. Pages that are \
there are replaced.\n\
Example: stormkeeper man /usr/local/share/man/man1 && man stormkeeper-kill"
)]
pub(super) struct Args {
    /// Directory of the pages, which is created if it is missing
    dir: PathBuf,
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let pages = pages().map_err(|error| Failure::internal(error.into()))?;
    write(&args.dir, &pages).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("writing pages to {}", args.dir.display()));
        Failure::new(ErrorKind::Usage, error)
    })?;
    if global.json {
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        return output::print_json(&serde_json::json!({ "pages": names }));
    }
    output::print(&format!("{} pages are in {}\n", pages.len(), args.dir.display()))
}

/// Returns the name and the text of each page.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command_line();
    // Names of commands with those of their parents.
    command.build();
    let mut pages = Vec::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let page = clap_mangen::Man::new(command.clone());
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), text));
        let shown = |one: &&clap::Command| !one.is_hide_set() && one.get_name() != "help";
        commands.extend(command.get_subcommands().filter(shown).cloned());
    }
    pages.sort();
    Ok(pages)
}

fn write(dir: &Path, pages: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    pages.iter().try_for_each(|(name, text)| fs::write(dir.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_options() {
        let pages = pages().expect("pages");
        let page = |name: &str| {
            let found = pages.iter().find(|(other, _)| other == name);
            String::from_utf8_lossy(&found.unwrap_or_else(|| panic!("no page {name}")).1).into_owned()
        };
        assert!(page("stormkeeper.1").contains("Control plane for stream topologies"));
        assert!(page("stormkeeper-kill.1").contains("\\fB\\-\\-wait\\fR"), "{}", page("stormkeeper-kill.1"));
        assert!(page("stormkeeper-zookeeper-protect.1").contains("access control list"));
        let has = |name: &str| pages.iter().any(|(other, _)| other == name);
        assert!(!has("stormkeeper-worker.1") && !has("stormkeeper-help.1"), "hidden commands have no pages");
    }

    #[test]
    fn pages_are_written_to_a_new_directory_and_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let pages_in = dir.path().join("share/man1");
        for text in [b"one", b"two"] {
            write(&pages_in, &[("a.1".to_owned(), text.to_vec())]).expect("written");
            assert_eq!(fs::read(pages_in.join("a.1")).expect("read"), text);
        }
    }
}

//! `stormkeeper new NAME`

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::cli::{
    Global,
    error::{ErrorKind, Failure},
    new_file, output,
};
use stormkeeper_model::TopologyName;

/// Longest name, so that ids and file names that are made of it stay readable.
const MAX_NAME_LENGTH: usize = 64;

/// Names of programs that Cargo or Rust refuses.
const REFUSED_PROGRAMS: &[&str] = &[
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "proc_macro",
    "std",
    "stormkeeper-topology",
    "test",
];

/// Write a directory with a topology that runs at once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The topology counts the words of a text; README.md in the directory says how to run it. \
A topology in Rust needs the crate stormkeeper-topology from a checkout of Stormkeeper: the one to which this \
program or the current directory belongs, or that of --checkout.\n\
Example: stormkeeper new words --lang python && cd words && stormkeeper local topology.yaml"
)]
pub(super) struct Args {
    /// Name of the topology and of its directory, which must not exist
    #[arg(value_parser = parse_name)]
    name: String,
    /// Language of the spouts and bolts
    #[arg(long, value_enum, default_value = "python")]
    lang: Language,
    /// Checkout of Stormkeeper with the crate for topologies in Rust
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Language {
    Python,
    Rust,
    Shell,
}

/// Text of a template that is the name of the topology.
const NAME: &str = "{{name}}";

/// Text of a template that is the path of the crate, as a string of TOML.
const CRATE: &str = "{{crate}}";

const LINES: &str = include_str!("new/rust/lines.txt");

const PYTHON: &[(&str, &str)] = &[
    ("README.md", include_str!("new/python/README.md")),
    ("topology.yaml", include_str!("new/python/topology.yaml")),
    ("resources/lines.py", include_str!("new/python/lines.py")),
    ("resources/split.py", include_str!("new/python/split.py")),
    ("resources/count.py", include_str!("new/python/count.py")),
    ("resources/lines.txt", LINES),
];

const SHELL: &[(&str, &str)] = &[
    ("README.md", include_str!("new/shell/README.md")),
    ("topology.yaml", include_str!("new/shell/topology.yaml")),
    ("resources/multilang.sh", include_str!("new/shell/multilang.sh")),
    ("resources/lines.sh", include_str!("new/shell/lines.sh")),
    ("resources/split.sh", include_str!("new/shell/split.sh")),
    ("resources/count.sh", include_str!("new/shell/count.sh")),
    ("resources/lines.txt", LINES),
];

const RUST: &[(&str, &str)] = &[
    ("README.md", include_str!("new/rust/README.md")),
    ("Cargo.toml", include_str!("new/rust/Cargo.toml.txt")),
    ("src/main.rs", include_str!("new/rust/src/main.rs")),
    ("lines.txt", LINES),
    (".gitignore", "/target\n"),
];

#[derive(Serialize)]
struct Report<'a> {
    directory: &'a str,
    language: Language,
    files: Vec<&'static str>,
    commands: Vec<String>,
}

/// Reads a name that is valid as that of a topology, a directory and a Cargo package.
fn parse_name(text: &str) -> Result<String, String> {
    let is_simple = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !is_simple || text.len() > MAX_NAME_LENGTH {
        return Err(format!(
            "expected a letter and then letters, digits, '-' and '_', at most {MAX_NAME_LENGTH}"
        ));
    }
    text.parse::<TopologyName>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn run(global: &Global, args: &Args) -> Result<(), Failure> {
    let name = &args.name;
    let template = match args.lang {
        Language::Python => PYTHON,
        Language::Shell => SHELL,
        Language::Rust => RUST,
    };
    let library = match args.lang {
        Language::Rust => path_of_crate(name, args.checkout.as_deref())?,
        Language::Python | Language::Shell if args.checkout.is_some() => {
            return Err(Failure::usage("--checkout is for --lang rust only"));
        }
        Language::Python | Language::Shell => String::new(),
    };
    let filled = |text: &str| text.replace(NAME, name).replace(CRATE, &library);
    write(Path::new(name), template.iter().map(|(path, text)| (*path, filled(text))))?;
    let commands = match args.lang {
        Language::Rust => vec![
            format!("cd {name}"),
            "cargo build --release".to_owned(),
            format!("stormkeeper local target/release/{name} --until-idle 3s"),
        ],
        Language::Python | Language::Shell => {
            vec![format!("cd {name}"), "stormkeeper local topology.yaml --until-idle 3s".to_owned()]
        }
    };
    if global.json {
        let files = template.iter().map(|(path, _)| *path).collect();
        return output::print_json(&Report { directory: name, language: args.lang, files, commands });
    }
    output::print(&format!("{name} is written. Run it on this machine:\n\n  {}\n", commands.join("\n  ")))
}

/// Writes a new directory with files, or nothing.
fn write(directory: &Path, files: impl IntoIterator<Item = (&'static str, String)>) -> Result<(), Failure> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(new_file::exists(directory, "choose another name, or remove it"));
        }
        created => created.map_err(|error| cannot_create(directory, error))?,
    }
    for (path, text) in files {
        let path = directory.join(path);
        let written = match path.parent() {
            Some(parent) => fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)),
            None => fs::write(&path, text),
        };
        if let Err(error) = written {
            // A part of a topology would not run, and would be in the way of the next attempt.
            let _remains = fs::remove_dir_all(directory);
            return Err(cannot_create(&path, error));
        }
    }
    Ok(())
}

fn cannot_create(path: &Path, error: io::Error) -> Failure {
    let error = anyhow::Error::new(error).context(format!("creating {}", path.display()));
    Failure::new(ErrorKind::Usage, error)
}

/// Returns the path of the crate `stormkeeper-topology` as a string of TOML.
fn path_of_crate(name: &str, checkout: Option<&Path>) -> Result<String, Failure> {
    if REFUSED_PROGRAMS.contains(&name) {
        return Err(Failure::usage(format!("Cargo builds no program with the name {name}; choose another")));
    }
    let wrong = |error| Failure::new(ErrorKind::Usage, error);
    let checkout = match checkout {
        Some(dir) => {
            let dir = dir
                .canonicalize()
                .with_context(|| format!("looking for {}", dir.display()))
                .map_err(wrong)?;
            if !is_checkout(&dir) {
                let error = anyhow!("{} has no crates/topology/Cargo.toml", dir.display());
                return Err(wrong(error).with_hint("--checkout is the root of a checkout of Stormkeeper"));
            }
            dir
        }
        None => {
            let starts = [env::current_exe().ok(), env::current_dir().ok()];
            found_above(starts.into_iter().flatten()).ok_or_else(|| {
                wrong(anyhow!("a topology in Rust needs a checkout of Stormkeeper, and none was found"))
                    .with_hint("name it with --checkout DIR")
            })?
        }
    };
    let path = checkout.join("crates/topology");
    let path = path.to_str().ok_or_else(|| wrong(anyhow!("{} is not UTF-8", path.display())))?;
    // Strings of JSON are strings of TOML.
    serde_json::to_string(path).map_err(|error| Failure::internal(error.into()))
}

/// Returns the first checkout of Stormkeeper to which one of the paths belongs.
fn found_above(mut starts: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    starts.find_map(|start| start.ancestors().find(|dir| is_checkout(dir)).map(Path::to_owned))
}

fn is_checkout(dir: &Path) -> bool {
    let manifest = fs::read_to_string(dir.join("crates/topology/Cargo.toml"));
    manifest.is_ok_and(|text| text.contains("name = \"stormkeeper-topology\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_valid_for_topologies_directories_and_cargo() {
        for good in ["words", "a", "Word_Count-2"] {
            assert_eq!(parse_name(good).as_deref(), Ok(good));
        }
        let long = "x".repeat(MAX_NAME_LENGTH + 1);
        for bad in ["", "2words", "-x", "../x", "a/b", "a b", "a.b", "wörter", "a\"b", &long] {
            let error = parse_name(bad).expect_err(bad);
            assert!(error.contains("expected a letter"), "{bad}: {error}");
        }
    }

    #[test]
    fn topology_files_load_after_the_name_is_filled_in_and_no_placeholder_is_left() {
        for (template, name) in [(PYTHON, "true"), (SHELL, "null")] {
            let dir = tempfile::tempdir().expect("a directory");
            let target = dir.path().join(name);
            write(&target, template.iter().map(|(path, text)| (*path, text.replace(NAME, name))))
                .expect("written");
            let source = stormkeeper_topology_package::flux::load_with(
                &target.join("topology.yaml"),
                &stormkeeper_topology_package::flux::Replacements { properties: None, environment: None },
            );
            let source = source.expect("loads");
            assert_eq!((source.topology.name.as_str(), source.warnings.len()), (name, 0));
        }
        for (path, text) in [PYTHON, SHELL, RUST].concat() {
            let filled = text.replace(NAME, "").replace(CRATE, "");
            assert!(!filled.contains(NAME) && !filled.contains(CRATE), "{path}");
        }
    }

    #[test]
    fn directory_that_exists_is_left_and_a_part_of_a_new_one_does_not_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = dir.path().join("words");
        fs::create_dir(&target).expect("created");
        let refused = write(&target, [("file", String::new())]).expect_err("exists");
        assert!(format!("{refused:?}").contains("exists already"), "{refused:?}");
        assert_eq!(fs::read_dir(&target).expect("readable").count(), 0);
        let other = dir.path().join("other");
        let failed = write(&other, [("a", String::new()), ("a/b", String::new())]).expect_err("a is a file");
        assert!(format!("{failed:?}").contains("creating"), "{failed:?}");
        assert!(!other.exists());
    }

    #[test]
    fn checkout_is_found_from_a_program_inside_and_another_directory_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inside = root.join("target/debug/stormkeeper");
        assert_eq!(found_above([PathBuf::from("/usr/bin/x"), inside].into_iter()), Some(root.to_owned()));
        assert_eq!(found_above([PathBuf::from("/usr/bin/x")].into_iter()), None);
        let found = path_of_crate("words", Some(root)).expect("found");
        assert_eq!(found, format!("{:?}", root.join("crates/topology")));
        for (name, checkout, part) in [
            ("words", Path::new("/usr"), "has no crates/topology"),
            ("test", root, "no program with the name test"),
        ] {
            let refused = format!("{:?}", path_of_crate(name, Some(checkout)).expect_err(name));
            assert!(refused.contains(part), "{refused}");
        }
    }
}

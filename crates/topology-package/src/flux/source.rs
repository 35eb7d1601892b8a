//! A topology file on disk, with the resources next to it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    flux::{
        fault::{Fault, Faults},
        read::{Parsed, parse_with},
        resources,
        substitution::Replacements,
    },
    package::{self, RESOURCES, TopologyPackage},
};
use stormkeeper_model::{
    ComponentId,
    topology::{Component, Run, Topology},
};

/// A topology that was loaded from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Path of the file.
    pub path: PathBuf,
    /// The topology.
    pub topology: Topology,
    /// Folder of the author's files, if it exists.
    pub resources: Option<PathBuf>,
    /// Warnings, one line each. None of them prevents the topology from running.
    pub warnings: Vec<String>,
}

/// Reason why there is no topology, or no package of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the topology file {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file has faults.
    #[error("{}", located(path, faults))]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// All faults of the file.
        faults: Faults,
    },
    /// The author's files cannot be packed.
    #[error(transparent)]
    Resources(#[from] resources::Error),
    /// The topology package cannot be built.
    #[error(transparent)]
    TopologyPackage(#[from] package::Error),
}

/// Formats each fault as `file:line:column: …`, a form that editors understand.
fn located(path: &Path, faults: &Faults) -> String {
    let line = |fault: &Fault| format!("{}:{fault}", path.display());
    faults.0.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Loads a topology file without placeholders, as [`load_with`] does. Blocks.
///
/// # Errors
/// [`Error::Read`], or [`Error::Invalid`] with all faults.
pub fn load(path: &Path) -> Result<Source, Error> {
    load_with(path, &Replacements::default())
}

/// Loads a topology file, replaces its placeholders, and finds the `resources/` next to it. Blocks.
///
/// # Errors
/// [`Error::Read`], or [`Error::Invalid`] with all faults.
pub fn load_with(path: &Path, replacements: &Replacements) -> Result<Source, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let Parsed { topology, warnings } =
        parse_with(&text, replacements).map_err(|faults| Error::Invalid { path: path.to_owned(), faults })?;
    let mut warnings: Vec<String> =
        warnings.iter().map(|warning| format!("{}:{warning}", path.display())).collect();
    let resources_dir = path.parent().unwrap_or(Path::new("")).join(RESOURCES);
    for (id, component) in &topology.components {
        if let Some(missing) = missing_file(component, &resources_dir) {
            warnings.push(missing_warning(path, id, &missing, &resources_dir));
        }
    }
    let resources = resources_dir.is_dir().then_some(resources_dir);
    Ok(Source { path: path.to_owned(), topology, resources, warnings })
}

fn missing_warning(path: &Path, id: &ComponentId, missing: &str, resources_dir: &Path) -> String {
    let (path, resources_dir) = (path.display(), resources_dir.display());
    format!("{path}: {id}: `{missing}` is not in {resources_dir}, so it must exist on every host")
}

/// Packs a topology and its resources into the topology package that is submitted. Blocks.
///
/// # Errors
/// [`Error::Resources`] and [`Error::TopologyPackage`].
pub fn bundle(source: &Source, max_bytes: u64) -> Result<TopologyPackage, Error> {
    let files = match &source.resources {
        Some(root) => resources::collect(root, max_bytes)?,
        None => Vec::new(),
    };
    Ok(package::pack(&source.topology, None, files, max_bytes)?)
}

/// File extensions of arguments that are probably a script of the author.
const SCRIPTS: &[&str] = &["py", "rb", "js", "mjs", "ts", "pl", "sh", "php", "lua"];

/// Returns the file that the command gives by a relative path and that is not in the resources. It
/// may still exist on the hosts.
fn missing_file(component: &Component, resources: &Path) -> Option<String> {
    let Run::Command(words) = &component.run else { return None };
    let (program, arguments) = words.split_first()?;
    let is_script = |word: &&String| {
        Path::new(word.as_str())
            .extension()
            .is_some_and(|ending| SCRIPTS.iter().any(|known| ending == *known))
    };
    let by_path = program.contains('/').then_some(program);
    let named = by_path.or_else(|| arguments.iter().find(|word| !word.starts_with('-')).filter(is_script))?;
    let path = Path::new(named);
    (path.is_relative() && !resources.join(path).exists()).then(|| named.clone())
}

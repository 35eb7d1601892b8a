//! A topology file on disk, with the resources beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    flux::{
        fault::{Fault, Faults},
        read::{Parsed, parse},
        resources,
    },
    package::{self as bundle, Bundle, RESOURCES},
};
use stormkeeper_model::{
    ComponentId,
    topology::{Component, Run, Topology},
};

/// A topology that was read from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub topology: Topology,
    /// The folder of the author's files, if there is one.
    pub resources: Option<PathBuf>,
    /// What is strange, one line each; none of it stops the topology from running.
    pub warnings: Vec<String>,
}

/// Why there is no topology, or no blob of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the topology file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{}", located(path, faults))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        faults: Faults,
    },
    /// The author's files cannot travel.
    #[error(transparent)]
    Resources(#[from] resources::Error),
    /// The blob cannot be made.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
}

/// Each fault as `file:line:column: …`, which editors understand.
fn located(path: &Path, faults: &Faults) -> String {
    let line = |fault: &Fault| format!("{}:{fault}", path.display());
    faults.0.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Reads a topology file and finds the `resources/` beside it. Blocks.
///
/// # Errors
/// [`Error::Read`], or [`Error::Invalid`] with everything that is wrong.
pub fn load(path: &Path) -> Result<Source, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let Parsed { topology, warnings } =
        parse(&text).map_err(|faults| Error::Invalid { path: path.to_owned(), faults })?;
    let mut warnings: Vec<String> =
        warnings.iter().map(|warning| format!("{}:{warning}", path.display())).collect();
    let beside = path.parent().unwrap_or(Path::new("")).join(RESOURCES);
    for (id, component) in &topology.components {
        if let Some(missing) = missing_file(component, &beside) {
            warnings.push(missing_warning(path, id, &missing, &beside));
        }
    }
    let resources = beside.is_dir().then_some(beside);
    Ok(Source { path: path.to_owned(), topology, resources, warnings })
}

fn missing_warning(path: &Path, id: &ComponentId, missing: &str, beside: &Path) -> String {
    let (path, beside) = (path.display(), beside.display());
    format!("{path}: {id}: `{missing}` is not in {beside}; it must be on every host then")
}

/// Packs a topology with its resources into the blob that is submitted. Blocks.
///
/// # Errors
/// [`Error::Resources`] and [`Error::Bundle`].
pub fn bundle(source: &Source, max_bytes: u64) -> Result<Bundle, Error> {
    let files = match &source.resources {
        Some(root) => resources::collect(root, max_bytes)?,
        None => Vec::new(),
    };
    Ok(bundle::pack(&source.topology, files, max_bytes)?)
}

/// Endings by which an argument is taken for a script of the author's.
const SCRIPTS: &[&str] = &["py", "rb", "js", "mjs", "ts", "pl", "sh", "php", "lua"];

/// The file that the command names by a relative path and that is not in the resources.
/// The hosts may have it all the same.
fn missing_file(component: &Component, resources: &Path) -> Option<String> {
    let Run::Command(words) = &component.run;
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

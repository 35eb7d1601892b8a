//! The topology file: Storm Flux's YAML to [`stormkeeper_model::topology::Topology`].
//!
//! [`parse`] reads a text, [`load_with`] a file with the `resources/` beside it, and [`bundle`]
//! packs both into the blob that is submitted. Everything that is wrong with a file is
//! reported at once, each fault with its line and its path into the file. What
//! [`stormkeeper_model::validate`] finds is reported at the line that it is about.
//!
//! ```yaml
//! name: word-count
//! config: {topology.workers: 2}
//! spouts:
//!   - {id: sentences, command: [python3, sentences.py], output: [sentence]}
//! bolts:
//!   - {id: split, parallelism: 4, command: [python3, split.py], output: [word]}
//! streams:
//!   - {from: sentences, to: split, grouping: {type: SHUFFLE}}
//! ```
//!
//! Placeholders such as `${name}` are replaced first (`substitution.rs`), by values of a
//! [properties file](properties) or of the environment.
//!
//! Flux's shell wrappers are supported (`shell.rs`). A Java class is rejected by name, as nothing
//! here runs in a JVM.

mod absent;
mod component;
mod daemon_keys;
mod fault;
mod load;
pub mod properties;
mod read;
mod reference;
pub mod resources;
mod shell;
mod source;
mod substitution;
mod walk;

pub use daemon_keys::topology_key_warning;
pub use fault::{Fault, Faults};
pub use read::{Parsed, parse, parse_with};
pub use source::{Error, Source, bundle, load, load_with};
pub use substitution::Replacements;

#[cfg(test)]
mod compatibility_tests;
#[cfg(test)]
mod substitution_tests;
#[cfg(test)]
mod tests;

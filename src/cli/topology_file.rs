//! The topology file of a command, and the values for its placeholders.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;

use crate::{
    cli::{
        error::{ErrorKind, Failure},
        output,
    },
    config::Config,
};
use stormkeeper_model::{
    topology::Topology,
    validate::{TopologyDefect, validate},
};
use stormkeeper_runtime::fs::regular_file;
use stormkeeper_topology_package::{
    flux::{self, Replacements, properties},
    package::TopologyPackage,
    program,
};

#[derive(Debug, clap::Args)]
pub(super) struct TopologyFile {
    /// Topology file (Flux YAML), or a worker program built with the crate `stormkeeper-topology`
    file: PathBuf,
    /// Replace `${name}` in the topology file by values of this Java properties file
    #[arg(long, value_name = "PROPERTIES")]
    filter: Option<PathBuf>,
    /// Replace `${ENV-NAME}` in the topology file by environment variables
    #[arg(long)]
    env_filter: bool,
}

impl TopologyFile {
    /// Loads the topology and packs its topology package. Warnings go to standard error.
    pub(super) fn load(&self, config: &Config) -> Result<TopologyPackage, Failure> {
        let given = [Some(&self.file), self.filter.as_ref()];
        for path in given.into_iter().flatten() {
            let checked = regular_file::check_given(path);
            let checked = checked.with_context(|| format!("cannot read the file {}", path.display()));
            checked.map_err(|error| Failure::new(ErrorKind::Config, error))?;
        }
        if program::is_program(&self.file) {
            return self.load_program(config);
        }
        let properties = self.filter.as_deref().map(properties::load).transpose();
        let properties = properties.map_err(|error| Failure::new(ErrorKind::Config, error.into()))?;
        let replacements = Replacements { properties, environment: self.env_filter.then(environment) };
        let wrong = |error: flux::Error| Failure::new(ErrorKind::Config, error.into());
        let mut source = flux::load_with(&self.file, &replacements).map_err(wrong)?;
        override_settings(&mut source.topology, config);
        validate(&source.topology).map_err(|defects| invalid(&defects))?;
        for warning in &source.warnings {
            output::note(&format!("warning: {warning}"));
        }
        flux::bundle(&source, config.max_blob_bytes()).map_err(wrong)
    }

    /// Runs a worker program to learn its topology, and packs both.
    fn load_program(&self, config: &Config) -> Result<TopologyPackage, Failure> {
        if self.filter.is_some() || self.env_filter {
            let error = anyhow::anyhow!(
                "--filter and --env-filter replace placeholders of a topology file, and {} is a program",
                self.file.display()
            );
            return Err(Failure::new(ErrorKind::Usage, error).with_hint("set its settings with -c key=value"));
        }
        let wrong = |error: program::Error| Failure::new(ErrorKind::Config, error.into());
        let mut loaded = program::load(&self.file).map_err(wrong)?;
        override_settings(&mut loaded.topology, config);
        validate(&loaded.topology).map_err(|defects| invalid(&defects))?;
        loaded.pack(config.max_blob_bytes()).map_err(wrong)
    }
}

/// Replaces settings by those of the command line, and notes which these are.
fn override_settings(topology: &mut Topology, config: &Config) {
    let given = config.topology_overrides();
    topology.given_at_submission = given.keys().cloned().collect();
    topology.settings.extend(given);
}

/// Failure of a topology that is valid without the settings of the command line.
fn invalid(defects: &[TopologyDefect]) -> Failure {
    let texts: Vec<String> = defects.iter().map(TopologyDefect::to_string).collect();
    let error = anyhow::anyhow!("the topology cannot run with the settings of -c: {}", texts.join("; "));
    Failure::new(ErrorKind::Config, error)
}

/// Environment variables whose names and values are UTF-8.
fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::config::Environment;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        topology: TopologyFile,
    }

    const TOPOLOGY: &str = "\
name: ${name}
config: {path: \"${ENV-PATH}\"}
spouts:
  - {id: source, command: [\"true\"]}
";

    fn load(dir: &std::path::Path, args: &[&str]) -> Result<TopologyPackage, String> {
        load_with(dir, args, &[])
    }

    fn load_with(dir: &std::path::Path, args: &[&str], given: &[&str]) -> Result<TopologyPackage, String> {
        let file = dir.join("topology.yaml").display().to_string();
        fs::write(&file, TOPOLOGY).expect("written");
        let line = ["test", &file].into_iter().chain(args.iter().copied());
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        let (config, _) = Config::load(None, &given, &Environment::default()).expect("valid");
        let failure = |failure: Failure| format!("{failure:?}");
        Line::try_parse_from(line).expect("valid").topology.load(&config).map_err(failure)
    }

    #[test]
    fn placeholders_are_replaced_from_the_filter_file_and_the_environment() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let filter = dir.path().join("dev.properties").display().to_string();
        fs::write(&filter, "name=filled\n").expect("written");
        let packed = load(dir.path(), &["--filter", &filter, "--env-filter"]).expect("loads");
        let topology = stormkeeper_topology_package::package::read_topology(&packed.bytes[..]);
        let topology = topology.expect("reads");
        assert_eq!(topology.name.as_str(), "filled");
        let path = environment()["PATH"].clone();
        assert_eq!(topology.settings["path"], path);
    }

    #[test]
    fn settings_of_the_command_line_override_those_of_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let filter = dir.path().join("dev.properties").display().to_string();
        fs::write(&filter, "name=filled\n").expect("written");
        let args = ["--filter", &filter, "--env-filter"];
        let packed = load_with(dir.path(), &args, &["topology.workers=7", "ui.port=1234"]).expect("loads");
        let topology = stormkeeper_topology_package::package::read_topology(&packed.bytes[..]);
        let topology = topology.expect("reads");
        assert_eq!(topology.given_at_submission, ["topology.workers".to_owned()].into());
        let settings = topology.settings;
        assert_eq!(settings.get("topology.workers"), Some(&serde_json::json!(7)));
        assert!(!settings.contains_key("ui.port"), "a key of the daemons");
    }

    #[test]
    fn both_options_are_needed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let filter = dir.path().join("dev.properties").display().to_string();
        let error = load(dir.path(), &["--filter", &filter]).expect_err("missing");
        assert!(error.contains("cannot read the properties file"), "{error}");
        fs::write(&filter, "name=filled\n").expect("written");
        let error = load(dir.path(), &["--filter", &filter]).expect_err("no environment");
        assert!(error.contains("pass `--env-filter`") && !error.contains("--filter FILE"), "{error}");
        let error = load(dir.path(), &["--env-filter"]).expect_err("no properties");
        assert!(error.contains("pass `--filter FILE`") && !error.contains("--env-filter"), "{error}");
    }
}

//! Reads the configuration's layers and checks them.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use crate::config::{
    key::{self, Key, known},
    mask,
    value::Value,
};
use stormkeeper_model::{settings, suggest::nearest, topology::Settings, unsupported_keys};
use stormkeeper_runtime::fs::regular_file;
use stormkeeper_topology_package::yaml::{self, SourcePosition};

/// Environment variable with the path of the file, unless the command line gives it.
const FILE_VARIABLE: &str = "STORMKEEPER_CONF";

/// File that is read if no file is given and this one exists.
const DEFAULT_FILE: &str = "/etc/stormkeeper/storm.yaml";

/// Keys of a certificate and of its private key, of which neither has a use without the other.
const PAIRS: [[&str; 2]; 4] = [
    ["storm.tls.cert.file", "storm.tls.key.file"],
    ["storm.zookeeper.tls.cert.file", "storm.zookeeper.tls.key.file"],
    ["storm.zookeeper.tls.workers.cert.file", "storm.zookeeper.tls.workers.key.file"],
    ["ui.cert.file", "ui.cert.key.file"],
];

/// Inputs from the environment of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// File that the environment gives; it must exist.
    pub named_file: Option<PathBuf>,
    /// File that is read if it exists and no other file is given.
    pub default_file: Option<PathBuf>,
    /// Host name of the host.
    pub hostname: String,
}

impl Environment {
    /// Environment of this process: `STORMKEEPER_CONF`, `/etc/stormkeeper/storm.yaml` and the
    /// host's host name.
    pub fn of_process() -> Self {
        let named = std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty());
        let system = rustix::system::uname();
        Self {
            named_file: named.map(PathBuf::from),
            default_file: Some(DEFAULT_FILE.into()),
            hostname: system.nodename().to_string_lossy().into_owned(),
        }
    }
}

/// Configuration: every value with its source.
#[derive(Debug, Clone)]
pub struct Config {
    entries: BTreeMap<&'static str, Entry>,
    topology: BTreeMap<String, (serde_json::Value, Provenance)>,
    file: Option<PathBuf>,
    overrides: Vec<String>,
    pub(super) hostname: String,
}

#[derive(Debug, Clone)]
struct Entry {
    value: Value,
    shown: serde_json::Value,
    provenance: Provenance,
}

/// Source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// Default of the key.
    Default,
    /// Configuration file.
    File {
        /// Path of the file.
        path: PathBuf,
        /// SourcePosition of the key in the file.
        at: SourcePosition,
    },
    /// `-c key=value`.
    CommandLine,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, at } => write!(f, "{}:{}", path.display(), at.line),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A key with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidValue {
    /// Name of the key.
    pub key: String,
    /// Source of the value.
    pub provenance: Provenance,
    /// Description of the fault and of valid values.
    pub what: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.provenance, self.key, self.what)
    }
}

/// A key that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Name of the key.
    pub key: String,
    /// Source of the value.
    pub provenance: Provenance,
    /// Reason why the key has no effect, or the key that was probably meant.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.provenance, self.key, self.what)
    }
}

/// A value as `config show` prints it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EffectiveValue {
    /// Name of the key.
    pub key: String,
    /// Effective value.
    pub value: serde_json::Value,
    /// Source of the value.
    pub provenance: String,
    /// True if nothing sets the key.
    #[serde(skip)]
    pub is_default: bool,
}

/// Reason why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("{}:{source}", path.display())]
    Syntax {
        /// Path of the file.
        path: PathBuf,
        /// Syntax error with its position.
        source: yaml::Error,
    },
    /// The file is YAML but not a map of keys.
    #[error("{}:{at}: expected `key: value` lines, found {found}", path.display())]
    NotAMap {
        /// Path of the file.
        path: PathBuf,
        /// SourcePosition of the document's first node.
        at: SourcePosition,
        /// Kind of that node.
        found: &'static str,
    },
    /// An override is not `key=value`.
    #[error("-c {0:?} is not `key=value`")]
    Override(String),
    /// Some values are invalid.
    #[error("{}", list(.0))]
    Invalid(Vec<InvalidValue>),
}

fn list(faults: &[InvalidValue]) -> String {
    faults.iter().map(InvalidValue::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads `file`, or else the file that the environment gives, or else the default file if it
    /// exists; applies the `key=value` overrides; and checks all values. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read, and every invalid value.
    pub fn load(
        file: Option<&Path>,
        overrides: &[String],
        environment: &Environment,
    ) -> Result<(Self, Vec<Warning>), Error> {
        let named = file.or(environment.named_file.as_deref());
        let path = named.or(environment.default_file.as_deref().filter(|path| path.exists()));
        let mut layers = Layers::default();
        if let Some(path) = path {
            layers.read_file(path)?;
        }
        for given in overrides {
            layers.read_override(given)?;
        }
        let mut config = Self {
            entries: key::all().map(|key| (key.name, default_entry(key))).collect(),
            topology: BTreeMap::new(),
            file: path.map(Path::to_owned),
            overrides: overrides.to_vec(),
            hostname: environment.hostname.clone(),
        };
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        for (key, (node, provenance)) in layers.values {
            config.set(key, &node, provenance, &mut faults, &mut warnings);
        }
        config.check_together(&mut faults);
        match faults.is_empty() {
            true => Ok((config, warnings)),
            false => Err(Error::Invalid(faults)),
        }
    }

    fn set(
        &mut self,
        name: String,
        node: &yaml::Node,
        provenance: Provenance,
        faults: &mut Vec<InvalidValue>,
        warnings: &mut Vec<Warning>,
    ) {
        if let Some(key) = known(&name) {
            let unset = (node.value == yaml::Value::Null && key.default == "null").then_some(Value::Unset);
            match unset.or_else(|| key.kind.read(&node.value)) {
                Some(value) => {
                    self.entries.insert(key.name, Entry { value, shown: node.to_json(), provenance });
                }
                None => {
                    let fault = key.kind.fault(&node.value).map(|fault| format!(": {fault}"));
                    let fault = fault.unwrap_or_default();
                    let what = format!("is {}, and must be {}{fault}", brief(node), key.kind);
                    faults.push(InvalidValue { key: name, provenance, what });
                }
            }
            return;
        }
        if let Some(setting) = settings::known(&name) {
            let value = node.to_json();
            if !setting.kind.accepts(&value) {
                let what = format!("is {}, and must be {}", brief(node), setting.kind);
                faults.push(InvalidValue { key: name.clone(), provenance: provenance.clone(), what });
            }
            self.topology.insert(name, (value, provenance));
            return;
        }
        let what = match unsupported_keys::key_warning(&name) {
            Some(what) => what,
            None => match nearest(&name, key::all().map(|key| key.name)) {
                Some(near) => format!("is unknown; did you mean `{near}`?"),
                // A key of the author, for the topology that the command submits.
                None if provenance == Provenance::CommandLine => {
                    self.topology.insert(name, (node.to_json(), provenance));
                    return;
                }
                None => "is unknown and has no effect".to_owned(),
            },
        };
        if name.starts_with("topology.") {
            self.topology.insert(name.clone(), (node.to_json(), provenance.clone()));
        }
        warnings.push(Warning { key: name, provenance, what });
    }

    /// Checks the constraints between several values.
    fn check_together(&self, faults: &mut Vec<InvalidValue>) {
        let (period, timeout) = ("worker.heartbeat.frequency.secs", "supervisor.worker.timeout.secs");
        if self.duration(period) >= self.duration(timeout) {
            let provenance = match &self.entries[period].provenance {
                Provenance::Default => self.entries[timeout].provenance.clone(),
                set => set.clone(),
            };
            let what = format!("must be shorter than `{timeout}`, or every worker is killed as unresponsive");
            faults.push(InvalidValue { key: period.to_owned(), provenance, what });
        }
        for (key, other) in PAIRS.iter().flat_map(|[one, other]| [(one, other), (other, one)]) {
            if self.file_if_set(key).is_some() && self.file_if_set(other).is_none() {
                let what = format!("is set without `{other}`: set both, or neither");
                let provenance = self.entries[key].provenance.clone();
                faults.push(InvalidValue { key: (*key).to_owned(), provenance, what });
            }
        }
        if let Some((key, what)) = self.exporter_fault() {
            let provenance = self.entries[key].provenance.clone();
            faults.push(InvalidValue { key: key.to_owned(), provenance, what });
        }
    }

    /// Path of the file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The `key=value` overrides of the command line.
    pub fn overrides(&self) -> &[String] {
        &self.overrides
    }

    /// Settings `topology.*` of this configuration: defaults for topologies.
    pub fn topology_defaults(&self) -> Settings {
        let settings = self.topology.iter().filter(|(key, _)| key.starts_with("topology."));
        settings.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    /// Settings `topology.*` and keys of the author on the command line: they override those of a topology
    /// that the command submits.
    pub fn topology_overrides(&self) -> Settings {
        let given = self.topology.iter().filter(|(_, (_, from))| *from == Provenance::CommandLine);
        given.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    /// Every key with its value and source; a secret is replaced by a mark.
    pub fn show(&self) -> Vec<EffectiveValue> {
        let entries =
            self.entries.iter().map(|(key, entry)| ((*key).to_owned(), &entry.shown, &entry.provenance));
        let given = self.topology.iter().map(|(key, (value, provenance))| (key.clone(), value, provenance));
        let mut shown: BTreeMap<String, (serde_json::Value, &Provenance)> = settings::KNOWN
            .iter()
            .map(|setting| (setting.key.to_owned(), (default_json(setting.default), &Provenance::Default)))
            .collect();
        shown.extend(entries.chain(given).map(|(key, value, from)| (key, (value.clone(), from))));
        shown
            .into_iter()
            .map(|(key, (value, from))| {
                let value = mask::masked(&key, &value);
                let is_default = *from == Provenance::Default;
                EffectiveValue { key, value, provenance: from.to_string(), is_default }
            })
            .collect()
    }

    /// Value of a key of the table.
    pub(super) fn value(&self, key: &str) -> &Value {
        &self.entries[key].value
    }
}

fn default_json(text: &str) -> serde_json::Value {
    yaml::parse(text).map_or(serde_json::Value::Null, |node| node.to_json())
}

fn default_entry(key: &Key) -> Entry {
    let node = yaml::parse(key.default).expect("the defaults of the table are YAML");
    let value = match node.value {
        yaml::Value::Null => Value::Unset,
        _ => key.kind.read(&node.value).expect("the defaults of the table fit their keys"),
    };
    Entry { value, shown: node.to_json(), provenance: Provenance::Default }
}

/// Formats a value for a message, truncated to a few words.
fn brief(node: &yaml::Node) -> String {
    const MAX_CHARS: usize = 60;
    let text = node.to_json().to_string();
    match text.chars().count() > MAX_CHARS {
        true => format!("{}…", text.chars().take(MAX_CHARS).collect::<String>()),
        false => text,
    }
}

#[derive(Default)]
struct Layers {
    values: BTreeMap<String, (yaml::Node, Provenance)>,
}

impl Layers {
    fn read_file(&mut self, path: &Path) -> Result<(), Error> {
        let text =
            regular_file::read_given(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let root = yaml::parse(&text).map_err(|source| Error::Syntax { path: path.to_owned(), source })?;
        let entries = match root.value {
            yaml::Value::Map(entries) => entries,
            yaml::Value::Null => Vec::new(),
            other => {
                return Err(Error::NotAMap { path: path.to_owned(), at: root.at, found: other.kind() });
            }
        };
        for (key, node) in entries {
            let provenance = Provenance::File { path: path.to_owned(), at: key.at };
            self.values.insert(key.text, (node, provenance));
        }
        Ok(())
    }

    /// Reads one override. Its value is YAML, so that lists are possible; a value that is not YAML
    /// is a string, and so is a mapping for a key that takes none (`ui.host=::`).
    fn read_override(&mut self, given: &str) -> Result<(), Error> {
        let (key, value) = given
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| Error::Override(given.to_owned()))?;
        let is_wanted =
            |node: &yaml::Node| known(key.trim()).is_none() || !matches!(node.value, yaml::Value::Map(_));
        let node = yaml::parse(value).ok().filter(is_wanted).unwrap_or_else(|| yaml::Node {
            at: SourcePosition { line: 1, column: 1 },
            value: yaml::Value::Text(value.into()),
        });
        self.values.insert(key.trim().to_owned(), (node, Provenance::CommandLine));
        Ok(())
    }
}

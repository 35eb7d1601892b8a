//! Options of exporters and query clients, from the configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use stormkeeper_metrics::MetaType;
use stormkeeper_model::suggest;

/// Options of all plugins. Plugins that are not named are not created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterOptions {
    /// Names of the exporters, separated by commas; `none` for no exporter.
    pub exporters: String,
    /// Name of the query client.
    pub query_client: String,
    /// Options of the exporter `log`.
    pub log: LogOptions,
    /// Options of the exporter `file`.
    pub file: FileOptions,
    /// Options of the exporter `alimonitor`.
    pub alimonitor: AlimonitorOptions,
    /// Options of the exporter `opentsdb`.
    pub opentsdb: OpenTsdbOptions,
}

/// Options of the exporter that logs the number of metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Name of the cluster that the metrics come from.
    pub cluster: String,
    /// Exported levels.
    pub levels: Vec<MetaType>,
}

/// Options of the exporter that appends JSON lines to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Name of the cluster that the metrics come from.
    pub cluster: String,
    /// Exported levels.
    pub levels: Vec<MetaType>,
    /// Directory of the files.
    pub dir: PathBuf,
    /// Size in bytes at which a new file begins.
    pub max_bytes: u64,
    /// Number of files to keep, including the current one.
    pub n_files: usize,
}

/// Options of the exporter that posts forms to an Alimonitor agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlimonitorOptions {
    /// Name of the cluster that the metrics come from.
    pub cluster: String,
    /// Exported levels.
    pub levels: Vec<MetaType>,
    /// URL of the agent.
    pub url: String,
    /// Monitor that the metrics belong to.
    pub monitor_name: String,
    /// Timeout of one request.
    pub timeout: Duration,
}

/// Options of the exporter that posts points to OpenTSDB or a compatible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTsdbOptions {
    /// Name of the cluster that the metrics come from.
    pub cluster: String,
    /// Exported levels.
    pub levels: Vec<MetaType>,
    /// URL of the server, to which `/api/put` is appended.
    pub url: String,
    /// Prefix of its metric names.
    pub prefix: String,
    /// Maximum number of points in one request.
    pub batch: usize,
    /// Maximum number of tags that the server accepts on a point.
    pub max_tags: usize,
    /// Additional tags of each point.
    pub tags: BTreeMap<String, String>,
    /// True if events are sent as annotations.
    pub annotates: bool,
    /// Timeout of one request.
    pub timeout: Duration,
}

/// Parses `insert.filters`, and returns the levels that remain.
///
/// `NONE` filters nothing and `ALL` everything, as in JStorm; otherwise the filter is a list of
/// levels to exclude, separated by commas.
///
/// # Errors
/// The problem, as the end of a sentence that names the key.
pub fn levels(filters: &str) -> Result<Vec<MetaType>, String> {
    if filters.trim().eq_ignore_ascii_case("none") {
        return Ok(MetaType::ALL.to_vec());
    }
    if filters.trim().eq_ignore_ascii_case("all") {
        return Ok(Vec::new());
    }
    let mut denied = Vec::new();
    for word in filters.split(',').map(str::trim) {
        // JStorm writes COMPONENT_STREAM.
        let plain = word.to_ascii_lowercase().replace('_', "-");
        let level = MetaType::ALL.into_iter().find(|level| level.word() == plain);
        denied.push(level.ok_or_else(|| {
            let known = ["NONE", "ALL"].into_iter().chain(MetaType::ALL.map(MetaType::word));
            let hint = suggest::hint(&plain, known);
            format!(
                "holds {word:?}, which is no level{}",
                hint.map(|hint| format!("; {hint}")).unwrap_or_default()
            )
        })?);
    }
    Ok(MetaType::ALL.into_iter().filter(|level| !denied.contains(level)).collect())
}

/// Parses `nimbus.metrics.plugin.opentsdb.tags`: `key=value`, separated by commas; `none` for none.
///
/// # Errors
/// The problem, as the end of a sentence that names the key.
pub fn tags(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut tags = BTreeMap::new();
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(tags);
    }
    for pair in text.split(',').map(str::trim) {
        let Some((key, value)) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            return Err(format!("holds {pair:?}, which is not `key=value`"));
        };
        if key.is_empty() || value.is_empty() {
            return Err(format!("holds {pair:?}, whose key or value is empty"));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("has the tag {key:?} twice"));
        }
    }
    Ok(tags)
}

/// Parses `nimbus.metrics.plugin.opentsdb.events`: true if events are sent as annotations.
///
/// # Errors
/// The problem, as the end of a sentence that names the key.
pub fn annotates(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "annotations" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("holds {text:?}; it is `none` or `annotations`")),
    }
}

#[cfg(any(test, feature = "test-support"))]
impl ExporterOptions {
    /// Options with which each plugin can be created.
    pub fn of_test() -> Self {
        let (levels, timeout) = (MetaType::ALL.to_vec(), Duration::from_secs(5));
        let cluster = "one".to_owned();
        Self {
            exporters: "log".to_owned(),
            query_client: "nimbus".to_owned(),
            log: LogOptions { cluster: cluster.clone(), levels: levels.clone() },
            file: FileOptions {
                cluster: cluster.clone(),
                levels: levels.clone(),
                dir: "/nowhere".into(),
                max_bytes: 1 << 20,
                n_files: 3,
            },
            alimonitor: AlimonitorOptions {
                cluster: cluster.clone(),
                levels: levels.clone(),
                url: "http://127.0.0.1:15776/passive".to_owned(),
                monitor_name: "storm".to_owned(),
                timeout,
            },
            opentsdb: OpenTsdbOptions {
                cluster,
                levels,
                url: "http://127.0.0.1:4242".to_owned(),
                prefix: "storm".to_owned(),
                batch: 50,
                max_tags: 8,
                tags: BTreeMap::from([("dc".to_owned(), "test one".to_owned())]),
                annotates: false,
                timeout,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_exclude_levels() {
        assert_eq!(levels("NONE"), Ok(MetaType::ALL.to_vec()));
        assert_eq!(levels("ALL"), Ok(Vec::new()));
        let left = levels("task, COMPONENT_STREAM,stream").expect("valid");
        assert!(left.contains(&MetaType::Component) && left.contains(&MetaType::Topology), "{left:?}");
        assert_eq!(left.len(), MetaType::ALL.len() - 3);
        assert_eq!(
            levels("task,steam"),
            Err("holds \"steam\", which is no level; did you mean `stream`?".to_owned())
        );
        assert!(levels("task,,stream").is_err());
    }

    #[test]
    fn events_are_sent_as_annotations_or_not_at_all() {
        assert_eq!((annotates("none"), annotates(" Annotations")), (Ok(false), Ok(true)));
        assert_eq!(annotates("all"), Err("holds \"all\"; it is `none` or `annotations`".to_owned()));
    }

    #[test]
    fn tags_are_pairs_of_key_and_value() {
        assert_eq!(tags("none"), Ok(BTreeMap::new()));
        let two = BTreeMap::from([("dc", "a"), ("cluster", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(tags("dc=a, cluster = b"), Ok(two));
        for bad in ["dc", "dc=", "=a", "dc=a,dc=b", ","] {
            assert!(tags(bad).is_err(), "{bad}");
        }
    }
}

//! What the plugins are told by the configuration.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use stormkeeper_metrics::MetaType;
use stormkeeper_model::suggest;

/// For all plugins. Those that are not named are not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The uploaders by name, with commas; `none` for no one.
    pub uploaders: String,
    /// The query client by name.
    pub query_client: String,
    /// For the uploader `log`.
    pub log: Log,
    /// For the uploader `file`.
    pub file: File,
    /// For the uploader `alimonitor`.
    pub alimonitor: Alimonitor,
    /// For the uploader `opentsdb`.
    pub opentsdb: OpenTsdb,
}

/// Says in nimbus's log how much there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The levels that it gets.
    pub levels: Vec<MetaType>,
}

/// Appends JSON lines to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The levels that it gets.
    pub levels: Vec<MetaType>,
    /// The directory of the files.
    pub dir: PathBuf,
    /// A file that has so many bytes is not appended to any more.
    pub max_bytes: u64,
    /// So many files are kept, the one that grows included.
    pub n_files: usize,
}

/// Posts forms to an Alimonitor agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alimonitor {
    /// The levels that it gets.
    pub levels: Vec<MetaType>,
    /// Where it posts to.
    pub url: String,
    /// The monitor that the metrics belong to.
    pub monitor_name: String,
    /// How long one request may take.
    pub timeout: Duration,
}

/// Posts points to OpenTSDB, or to what takes them in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTsdb {
    /// The levels that it gets.
    pub levels: Vec<MetaType>,
    /// The server, without a path: `/api/put` is appended.
    pub url: String,
    /// What its metric names begin with.
    pub prefix: String,
    /// The most points in one request.
    pub batch: usize,
    /// The most tags that the server takes on a point.
    pub max_tags: usize,
    /// Tags that each point gets on top.
    pub tags: BTreeMap<String, String>,
    /// Whether events are sent, as annotations.
    pub annotates: bool,
    /// How long one request may take.
    pub timeout: Duration,
}

/// What `insert.filters` says: the levels that are left.
///
/// `NONE` filters nothing out and `ALL` everything, as in JStorm; else the words of the levels
/// to leave out, with commas.
///
/// # Errors
/// What is wrong, for the end of a sentence that names the key.
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

/// What `nimbus.metrics.plugin.opentsdb.tags` says: `key=value`, with commas; empty for no one.
///
/// # Errors
/// What is wrong, for the end of a sentence that names the key.
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

/// What `nimbus.metrics.plugin.opentsdb.events` says: whether they are sent as annotations.
///
/// # Errors
/// What is wrong, for the end of a sentence that names the key.
pub fn annotates(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "annotations" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("holds {text:?}; it is `none` or `annotations`")),
    }
}

#[cfg(any(test, feature = "test-support"))]
impl Options {
    /// Options with which each plugin could be made.
    pub fn of_test() -> Self {
        let (levels, timeout) = (MetaType::ALL.to_vec(), Duration::from_secs(5));
        Self {
            uploaders: "log".to_owned(),
            query_client: "nimbus".to_owned(),
            log: Log { levels: levels.clone() },
            file: File { levels: levels.clone(), dir: "/nowhere".into(), max_bytes: 1 << 20, n_files: 3 },
            alimonitor: Alimonitor {
                levels: levels.clone(),
                url: "http://127.0.0.1:15776/passive".to_owned(),
                monitor_name: "storm".to_owned(),
                timeout,
            },
            opentsdb: OpenTsdb {
                levels,
                url: "http://127.0.0.1:4242".to_owned(),
                prefix: "storm".to_owned(),
                batch: 50,
                max_tags: 8,
                tags: BTreeMap::from([("cluster".to_owned(), "test one".to_owned())]),
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
    fn filters_say_what_to_leave_out() {
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
    fn events_are_annotations_or_nothing() {
        assert_eq!((annotates("none"), annotates(" Annotations")), (Ok(false), Ok(true)));
        assert_eq!(annotates("all"), Err("holds \"all\"; it is `none` or `annotations`".to_owned()));
    }

    #[test]
    fn tags_are_pairs() {
        assert_eq!(tags("none"), Ok(BTreeMap::new()));
        let two = BTreeMap::from([("dc", "a"), ("cluster", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(tags("dc=a, cluster = b"), Ok(two));
        for bad in ["dc", "dc=", "=a", "dc=a,dc=b", ","] {
            assert!(tags(bad).is_err(), "{bad}");
        }
    }
}

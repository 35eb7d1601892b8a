//! Exporters and query clients by name.

use std::sync::Arc;

use crate::{
    export::exporters::{
        ExporterOptions, MetricExporter,
        backends::{alimonitor::Alimonitor, file::FileExporter, log::LogExporter, opentsdb::OpenTsdb},
    },
    query::{LeaderLocator, MetricQueryClient, nimbus::NimbusQueryClient},
};
use stormkeeper_access::{credentials::Credentials, tls::client::ClientTls};
use stormkeeper_model::suggest;

/// Constructor of an exporter.
type Make = fn(&ExporterOptions) -> Result<Arc<dyn MetricExporter>, Error>;

/// All exporters. A new exporter is added here.
const EXPORTERS: &[(&str, Make)] = &[
    ("log", |options| Ok(Arc::new(LogExporter::new(options.log.clone())))),
    ("file", |options| Ok(Arc::new(FileExporter::new(options.file.clone())))),
    ("alimonitor", |options| Ok(Arc::new(Alimonitor::new(options.alimonitor.clone())?))),
    ("opentsdb", |options| Ok(Arc::new(OpenTsdb::new(options.opentsdb.clone())?))),
];

/// All query clients.
const QUERY_CLIENTS: &[&str] = &["nimbus"];

/// Word for an empty list of exporters.
const NONE: &str = "none";

/// Error in the choice or the options of plugins.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown plugin name.
    #[error("`{name}` is not a {kind}{hint}")]
    Unknown {
        /// Kind of plugin.
        kind: &'static str,
        /// Unknown name.
        name: String,
        /// Nearest known name, or all known names.
        hint: String,
    },
    /// `none` in a list with other names.
    #[error("`none` must stand alone")]
    NoneAmongOthers,
    /// An exporter that is named twice would send everything twice.
    #[error("the exporter `{0}` is named twice")]
    Twice(String),
    /// Unusable URL.
    #[error("`{url}` {problem}, and must be like {example}")]
    Url {
        /// Configured URL.
        url: String,
        /// Problem of the URL.
        problem: String,
        /// Valid example.
        example: &'static str,
    },
    /// More tags than the server accepts: it would reject every point.
    #[error(
        "{extra} additional tags and the {needed} that points have are more than the {max} of `nimbus.metrics.plugin.opentsdb.max.tags`"
    )]
    TooManyTags {
        /// Number of additional tags.
        extra: usize,
        /// Maximum number of tags of a point without them.
        needed: usize,
        /// Limit.
        max: usize,
    },
    /// An additional tag has the name of a tag that points have.
    #[error("the tag `{0}` is reserved: points have it already")]
    TagTaken(String),
    /// The HTTP client cannot be created.
    #[error("cannot create the HTTP client")]
    Http(#[source] reqwest::Error),
}

/// Creates the configured exporters, in order; no exporter contacts its store before `init`.
///
/// # Errors
/// [`Error`] for a name that is unknown or repeated, and for options that cannot work.
pub fn exporters(options: &ExporterOptions) -> Result<Vec<Arc<dyn MetricExporter>>, Error> {
    if options.exporters.trim().eq_ignore_ascii_case(NONE) {
        return Ok(Vec::new());
    }
    let mut made: Vec<Arc<dyn MetricExporter>> = Vec::new();
    for name in options.exporters.split(',').map(str::trim) {
        if name.eq_ignore_ascii_case(NONE) {
            return Err(Error::NoneAmongOthers);
        }
        let Some((name, make)) = EXPORTERS.iter().find(|(known, _)| *known == name) else {
            let known = EXPORTERS.iter().map(|(known, _)| *known).chain([NONE]);
            return Err(unknown("metric exporter", name, known));
        };
        if made.iter().any(|exporter| exporter.name() == *name) {
            return Err(Error::Twice((*name).to_owned()));
        }
        made.push(make(options)?);
    }
    Ok(made)
}

/// Creates the configured query client. It sends requests to the nimbus that `leader` names.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Http`].
pub fn query_client(
    options: &ExporterOptions,
    leader: Arc<dyn LeaderLocator>,
    (credentials, tls): (Credentials, &ClientTls),
) -> Result<Arc<dyn MetricQueryClient>, Error> {
    match options.query_client.trim() {
        "nimbus" => {
            let client = NimbusQueryClient::over(tls, leader).map_err(Error::Http)?;
            Ok(Arc::new(client.with_credentials(credentials)))
        }
        name => Err(unknown("metric query client", name, QUERY_CLIENTS.iter().copied())),
    }
}

/// Checks that all configured plugins can be created, for the check of a configuration.
///
/// # Errors
/// The key whose value cannot work, and the problem as the end of a sentence.
pub fn check(options: &ExporterOptions) -> Result<(), (&'static str, String)> {
    exporters(options).map_err(|error| {
        let key = match &error {
            Error::Unknown { .. } | Error::NoneAmongOthers | Error::Twice(_) | Error::Http(_) => {
                "nimbus.metric.uploader.class"
            }
            Error::Url { url, .. } if *url == options.opentsdb.url => "nimbus.metrics.plugin.opentsdb.url",
            Error::Url { .. } => "nimbus.metrics.plugin.alimonitor.url",
            Error::TooManyTags { .. } | Error::TagTaken(_) => "nimbus.metrics.plugin.opentsdb.tags",
        };
        (key, format!("cannot work: {error}"))
    })?;
    let name = options.query_client.trim();
    match QUERY_CLIENTS.contains(&name) {
        true => Ok(()),
        false => {
            let error = unknown("metric query client", name, QUERY_CLIENTS.iter().copied());
            Err(("nimbus.metric.query.client.class", format!("cannot work: {error}")))
        }
    }
}

fn unknown(kind: &'static str, name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let hint = suggest::hint(name, known).map(|hint| format!("; {hint}")).unwrap_or_default();
    Error::Unknown { kind, name: name.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use crate::export::exporters::ExporterOptions;

    fn names(exporters: &str) -> Result<Vec<String>, String> {
        let options = ExporterOptions { exporters: exporters.to_owned(), ..ExporterOptions::of_test() };
        let made = super::exporters(&options).map_err(|error| error.to_string())?;
        Ok(made.iter().map(|exporter| exporter.name().to_owned()).collect())
    }

    #[test]
    fn exporters_are_created_by_name() {
        assert_eq!(
            names("opentsdb, log,file,alimonitor").expect("known"),
            ["opentsdb", "log", "file", "alimonitor"]
        );
        assert_eq!(names("none"), Ok(Vec::new()));
        let check = |given, expected: &str| assert_eq!(names(given), Err(expected.to_owned()), "{given}");
        check("log,opentsbd", "`opentsbd` is not a metric exporter; did you mean `opentsdb`?");
        check("kafka", "`kafka` is not a metric exporter; one of: log, file, alimonitor, opentsdb, none");
        check("log, log", "the exporter `log` is named twice");
        check("log,none", "`none` must stand alone");
    }

    #[test]
    fn invalid_option_is_reported_with_its_key() {
        let check = |change: fn(&mut ExporterOptions), key: &str, what: &str| {
            let mut options =
                ExporterOptions { exporters: "opentsdb,alimonitor".to_owned(), ..ExporterOptions::of_test() };
            change(&mut options);
            let (found, why) = super::check(&options).expect_err("it cannot work");
            assert_eq!(found, key, "{why}");
            assert!(why.contains(what), "{why}");
        };
        let url = "nimbus.metrics.plugin.opentsdb.url";
        check(|options| options.opentsdb.url = "tsdb:4242".to_owned(), url, "begins with tsdb:");
        check(|options| options.opentsdb.url = "https://tsdb".to_owned(), url, "https");
        check(|options| options.opentsdb.url = "tsdb".to_owned(), url, "is not a URL");
        check(
            |options| options.alimonitor.url = "/passive".to_owned(),
            "nimbus.metrics.plugin.alimonitor.url",
            "http://127.0.0.1:15776/passive",
        );
        let tags = "nimbus.metrics.plugin.opentsdb.tags";
        check(|options| options.opentsdb.max_tags = 6, tags, "1 additional tags and the 6");
        check(|options| options.opentsdb.tags = [("host".to_owned(), "x".to_owned())].into(), tags, "`host`");
        check(
            |options| options.query_client = "nimbs".to_owned(),
            "nimbus.metric.query.client.class",
            "did you mean `nimbus`?",
        );
        assert!(super::check(&ExporterOptions::of_test()).is_ok());
    }
}

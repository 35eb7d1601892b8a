//! The plugins by name.

use std::sync::Arc;

use crate::plugin::{
    MetricExporter, MetricQueryClient, Options, WhoLeads,
    query::nimbus::NimbusQueryClient,
    uploader::{alimonitor::Alimonitor, file::FileUploader, log::LogUploader, opentsdb::OpenTsdb},
};
use stormkeeper_model::suggest;

/// What makes an uploader of the options.
type Make = fn(&Options) -> Result<Arc<dyn MetricExporter>, Error>;

/// All uploaders. A new one gets a line here.
const UPLOADERS: &[(&str, Make)] = &[
    ("log", |options| Ok(Arc::new(LogUploader::new(options.log.clone())))),
    ("file", |options| Ok(Arc::new(FileUploader::new(options.file.clone())))),
    ("alimonitor", |options| Ok(Arc::new(Alimonitor::new(options.alimonitor.clone())?))),
    ("opentsdb", |options| Ok(Arc::new(OpenTsdb::new(options.opentsdb.clone())?))),
];

/// All query clients.
const QUERY_CLIENTS: &[&str] = &["nimbus"];

/// In the place of a list of uploaders: no one.
const NONE: &str = "none";

/// What is wrong with the choice or the set-up of plugins.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No plugin is called so.
    #[error("`{name}` is no {kind}{hint}")]
    Unknown {
        /// What it should be.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Which is nearest, or which there are.
        hint: String,
    },
    /// `none` with others.
    #[error("`none` stands alone")]
    NoneAmongOthers,
    /// It would send everything twice.
    #[error("the uploader `{0}` is named twice")]
    Twice(String),
    /// An address that nothing can be sent to.
    #[error("`{url}` {problem}, and must be like {example}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        problem: String,
        /// One that would do.
        example: &'static str,
    },
    /// The server would refuse each point.
    #[error(
        "{extra} tags on top of the {needed} that points have are more than the {max} of `nimbus.metrics.plugin.opentsdb.max.tags`"
    )]
    TooManyTags {
        /// Tags on top.
        extra: usize,
        /// How many a point may have without them.
        needed: usize,
        /// The limit.
        max: usize,
    },
    /// A tag on top has the name of one that points have.
    #[error("the tag `{0}` is one that points have already")]
    TagTaken(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Http(#[source] reqwest::Error),
}

/// The uploaders that are asked for, in that order; none touches its store before `init`.
///
/// # Errors
/// [`Error`] for a name that is unknown or given twice, and for options that can not work.
pub fn uploaders(options: &Options) -> Result<Vec<Arc<dyn MetricExporter>>, Error> {
    if options.uploaders.trim().eq_ignore_ascii_case(NONE) {
        return Ok(Vec::new());
    }
    let mut made: Vec<Arc<dyn MetricExporter>> = Vec::new();
    for name in options.uploaders.split(',').map(str::trim) {
        if name.eq_ignore_ascii_case(NONE) {
            return Err(Error::NoneAmongOthers);
        }
        let Some((name, make)) = UPLOADERS.iter().find(|(known, _)| *known == name) else {
            let known = UPLOADERS.iter().map(|(known, _)| *known).chain([NONE]);
            return Err(unknown("metric uploader", name, known));
        };
        if made.iter().any(|uploader| uploader.name() == *name) {
            return Err(Error::Twice((*name).to_owned()));
        }
        made.push(make(options)?);
    }
    Ok(made)
}

/// The query client that is asked for. It asks whom `leader` names.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Http`].
pub fn query_client(
    options: &Options,
    leader: Arc<dyn WhoLeads>,
) -> Result<Arc<dyn MetricQueryClient>, Error> {
    match options.query_client.trim() {
        "nimbus" => Ok(Arc::new(NimbusQueryClient::new(leader).map_err(Error::Http)?)),
        name => Err(unknown("metric query client", name, QUERY_CLIENTS.iter().copied())),
    }
}

/// Whether everything that is asked for could be made, for the check of a configuration.
///
/// # Errors
/// The key whose value cannot work, and what is wrong, for the end of a sentence.
pub fn check(options: &Options) -> Result<(), (&'static str, String)> {
    uploaders(options).map_err(|error| {
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
    use crate::plugin::Options;

    fn names(uploaders: &str) -> Result<Vec<String>, String> {
        let options = Options { uploaders: uploaders.to_owned(), ..Options::of_test() };
        let made = super::uploaders(&options).map_err(|error| error.to_string())?;
        Ok(made.iter().map(|uploader| uploader.name().to_owned()).collect())
    }

    #[test]
    fn uploaders_are_made_by_name() {
        assert_eq!(
            names("opentsdb, log,file,alimonitor").expect("known"),
            ["opentsdb", "log", "file", "alimonitor"]
        );
        assert_eq!(names("none"), Ok(Vec::new()));
        let check = |given, expected: &str| assert_eq!(names(given), Err(expected.to_owned()), "{given}");
        check("log,opentsbd", "`opentsbd` is no metric uploader; did you mean `opentsdb`?");
        check("kafka", "`kafka` is no metric uploader; one of: log, file, alimonitor, opentsdb, none");
        check("log, log", "the uploader `log` is named twice");
        check("log,none", "`none` stands alone");
    }

    #[test]
    fn what_cannot_work_names_its_key() {
        let check = |change: fn(&mut Options), key: &str, what: &str| {
            let mut options = Options { uploaders: "opentsdb,alimonitor".to_owned(), ..Options::of_test() };
            change(&mut options);
            let (found, why) = super::check(&options).expect_err("it cannot work");
            assert_eq!(found, key, "{why}");
            assert!(why.contains(what), "{why}");
        };
        let url = "nimbus.metrics.plugin.opentsdb.url";
        check(|options| options.opentsdb.url = "tsdb:4242".to_owned(), url, "begins with tsdb:");
        check(|options| options.opentsdb.url = "https://tsdb".to_owned(), url, "https");
        check(|options| options.opentsdb.url = "tsdb".to_owned(), url, "is no URL");
        check(
            |options| options.alimonitor.url = "/passive".to_owned(),
            "nimbus.metrics.plugin.alimonitor.url",
            "http://127.0.0.1:15776/passive",
        );
        let tags = "nimbus.metrics.plugin.opentsdb.tags";
        check(|options| options.opentsdb.max_tags = 5, tags, "1 tags on top of the 5");
        check(|options| options.opentsdb.tags = [("host".to_owned(), "x".to_owned())].into(), tags, "`host`");
        check(
            |options| options.query_client = "nimbs".to_owned(),
            "nimbus.metric.query.client.class",
            "did you mean `nimbus`?",
        );
        assert!(super::check(&Options::of_test()).is_ok());
    }
}

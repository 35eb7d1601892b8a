//! Reason why there are no values to show, and what to do.

use std::collections::{BTreeMap, BTreeSet};

use super::Args;
use crate::cli::error::{ErrorKind, Failure};
use stormkeeper_api_types::{
    client::{Client, MetricFilter, Page},
    message::NimbusStatus,
};
use stormkeeper_metrics::{MetaType, Window};
use stormkeeper_model::{TaskId, suggest};

/// Maximum number of metrics from which the components of a removed topology are read.
const READ_MAX: usize = 5000;

/// What the cluster knows of a topology without values.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Components, with their tasks if these are known; empty if nothing is known.
    pub(super) components: BTreeMap<String, BTreeSet<TaskId>>,
    /// Problem that stops the ingest of metrics.
    pub(super) problem: Option<String>,
}

impl Known {
    /// Asks for the components and for problems. What cannot be read stays unknown.
    pub(super) async fn read(client: &Client, topology: &str) -> Self {
        Self { components: components(client, topology).await, problem: ingest_problem(client).await }
    }
}

async fn components(client: &Client, topology: &str) -> BTreeMap<String, BTreeSet<TaskId>> {
    let mut known: BTreeMap<String, BTreeSet<TaskId>> = BTreeMap::new();
    if let Ok(running) = client.show(topology).await {
        for component in running.components {
            known.entry(component.id.to_string()).or_default();
        }
        for task in running.tasks {
            known.entry(task.component.to_string()).or_default().insert(task.task);
        }
        return known;
    }
    let filter = MetricFilter { level: Some(MetaType::Component), ..MetricFilter::default() };
    let page = Page { after: None, limit: Some(READ_MAX) };
    let measured = client.latest_metrics(topology, Window::D1, &filter, &page).await;
    let components =
        measured.into_iter().flat_map(|list| list.values).filter_map(|value| value.meta.component);
    components.map(|component| (component.to_string(), BTreeSet::new())).collect()
}

/// Returns the problem that stops the leader from storing metrics, if the leader says so.
pub(super) async fn ingest_problem(client: &Client) -> Option<String> {
    let nimbuses = client.nimbuses().await.ok()?.nimbuses;
    let Some(leader) = nimbuses.into_iter().find(|nimbus| nimbus.status == NimbusStatus::Leader) else {
        return Some("there is no leader".to_owned());
    };
    let seen = client.nimbuses_seen_by(&leader.api).await.ok()?.nimbuses;
    let own = seen.into_iter().find(|nimbus| nimbus.id == leader.id)?;
    let problem = own.metric_store_error.or(own.metrics_problem)?;
    Some(format!("{}: {problem}", own.id))
}

/// Returns the error for a component or task that the topology does not have.
pub(super) fn unknown_subject(topology: &str, args: &Args, known: &Known) -> Option<Failure> {
    let component = args.component.as_ref()?.as_str();
    let refused = |error: String| Failure::new(ErrorKind::Refused, anyhow::Error::msg(error));
    let Some(tasks) = known.components.get(component).filter(|_| !known.components.is_empty()) else {
        if known.components.is_empty() {
            return None;
        }
        let failure = refused(format!("{topology} has no component {component:?}"));
        return Some(match suggest::hint(component, known.components.keys().map(String::as_str)) {
            Some(hint) => failure.with_hint(hint),
            None => failure.with_hint(format!("`stormkeeper show {topology}` lists the components")),
        });
    };
    let task = args.task.filter(|task| !tasks.is_empty() && !tasks.contains(task))?;
    let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
    let failure = refused(format!("task {task} of {topology} is not a task of {component}"));
    Some(failure.with_hint(format!("its tasks are {}", tasks.join(", "))))
}

/// Returns the error for a list without values.
pub(super) fn no_metrics(topology: &str, args: &Args, known: &Known) -> Failure {
    if let Some(failure) = unknown_subject(topology, args, known) {
        return failure;
    }
    let what = match (&args.component, args.task, &args.name) {
        (_, _, Some(name)) => format!(" that match {name:?}"),
        (Some(component), Some(task), None) => format!(" of task {task} of {component}"),
        (Some(component), None, None) => format!(" of {component}"),
        (None, _, None) => String::new(),
    };
    let error = anyhow::anyhow!("{topology} has no metrics{what} in this window");
    let failure = Failure::new(ErrorKind::Refused, error);
    match &known.problem {
        Some(problem) => failure.with_hint(format!(
            "no metrics are stored at present, and none are lost: workers keep them until they are ({problem})"
        )),
        None => failure.with_hint(
            "the first come about a minute after the start; `--all` lists all metrics, `--window 1d` \
             includes older ones",
        ),
    }
}

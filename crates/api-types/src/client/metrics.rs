//! Metric queries of a client.

use super::{Client, Error, OnLostResponse, encoded, topology_route};
use crate::message::{
    Accepted, LatestList, MeasuredTopologyList, MetricControlRequest, MetricStoreStatus, PointList,
    TaskTrack, TopologyHistory,
};
use stormkeeper_metrics::{MetaType, Window};
use stormkeeper_model::{ComponentId, StreamId, TaskId};

/// Filter over the metrics of a topology; an absent field matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricFilter {
    /// Level.
    pub level: Option<MetaType>,
    /// Component.
    pub component: Option<ComponentId>,
    /// Task.
    pub task: Option<TaskId>,
    /// Stream.
    pub stream: Option<StreamId>,
    /// Pattern of the last part, or of the full name if the pattern contains `@`: `*` matches any
    /// text, `?` any character.
    pub name: Option<String>,
}

/// A page of a list: its start and its maximum length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the page before; the first page when absent.
    pub after: Option<String>,
    /// Maximum number of elements; the default of the nimbus when absent.
    pub limit: Option<usize>,
}

/// An interval of time as the API parses it: milliseconds since 1970, or relative such as `-1h`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// Start; sixty windows before the end when absent.
    pub from: Option<String>,
    /// End; now when absent.
    pub to: Option<String>,
}

/// The query of a URL, part by part.
#[derive(Debug, Default)]
struct Query(String);

impl Query {
    fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let separator = if self.0.is_empty() { '?' } else { '&' };
            self.0.push_str(&format!("{separator}{key}={}", encoded(&value.to_string())));
        }
        self
    }

    fn filter(self, filter: &MetricFilter, name: &str) -> Self {
        let MetricFilter { level, component, task, stream, name: pattern } = filter;
        self.with("level", level.map(MetaType::word))
            .with("component", component.as_ref())
            .with("task", task.as_ref())
            .with("stream", stream.as_ref())
            .with(name, pattern.as_ref())
    }

    fn page(self, page: &Page) -> Self {
        self.with("after", page.after.as_ref()).with("limit", page.limit)
    }
}

fn of(topology: &str, rest: &str) -> String {
    format!("/metrics/topology/{}/{rest}", encoded(topology))
}

impl Client {
    /// Returns the topologies that have metrics, including killed topologies.
    pub async fn measured_topologies(&self, page: &Page) -> Result<MeasuredTopologyList, Error> {
        let query = Query::default().page(page).0;
        self.get(&format!("/metrics/topologies{query}")).await
    }

    /// Returns the values of a topology's metrics in the window that ends now.
    pub async fn latest_metrics(
        &self,
        topology: &str,
        window: Window,
        filter: &MetricFilter,
        page: &Page,
    ) -> Result<LatestList, Error> {
        let query = Query::default().with("window", Some(window.secs())).filter(filter, "name").page(page).0;
        self.get(&format!("{}{query}", of(topology, "latest"))).await
    }

    /// Returns the points of a topology's metrics over time.
    pub async fn metric_points(
        &self,
        topology: &str,
        window: Window,
        filter: &MetricFilter,
        span: &Span,
        page: &Page,
    ) -> Result<PointList, Error> {
        let query = Query::default()
            .with("topology", Some(topology))
            .with("window", Some(window.secs()))
            .filter(filter, "pattern")
            .with("from", span.from.as_ref())
            .with("to", span.to.as_ref())
            .page(page);
        self.get(&format!("/metrics/data{}", query.0)).await
    }

    /// Returns the workers in which a topology's tasks ran, by task.
    pub async fn task_track(
        &self,
        topology: &str,
        task: Option<TaskId>,
        limit: Option<usize>,
    ) -> Result<TaskTrack, Error> {
        let query = Query::default().with("task", task).with("limit", limit).0;
        self.get(&format!("{}{query}", of(topology, "track"))).await
    }

    /// Returns the topologies in the history, newest first; only those named `name`, if given.
    pub async fn topology_history(
        &self,
        name: Option<&str>,
        limit: Option<usize>,
    ) -> Result<TopologyHistory, Error> {
        let query = Query::default().with("name", name).with("limit", limit).0;
        self.get(&format!("/metrics/history{query}")).await
    }

    /// Returns the status of the answering nimbus' metric store and its export queue.
    pub async fn metric_store_status(&self) -> Result<MetricStoreStatus, Error> {
        self.get("/metrics/status").await
    }

    /// Returns the metric switches that were changed while the topology runs.
    pub async fn metric_control(&self, topology: &str) -> Result<MetricControlRequest, Error> {
        self.get(&topology_route(topology, "/metrics")).await
    }

    /// Changes the metric switches of a running topology.
    pub async fn control_metrics(
        &self,
        topology: &str,
        request: &MetricControlRequest,
    ) -> Result<Accepted, Error> {
        // The request replaces the earlier one, so a repeat changes nothing.
        self.post(&topology_route(topology, "/metrics"), request, OnLostResponse::SendAgain).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_contain_the_given_fields_only() {
        assert_eq!(Query::default().filter(&MetricFilter::default(), "name").page(&Page::default()).0, "");
        let filter = MetricFilter {
            level: Some(MetaType::ComponentStream),
            task: Some(TaskId(3)),
            name: Some("Emit*&x".to_owned()),
            ..MetricFilter::default()
        };
        let page = Page { after: Some("00ff".to_owned()), limit: Some(5) };
        let query = Query::default().filter(&filter, "pattern").page(&page).0;
        assert_eq!(query, "?level=component-stream&task=3&pattern=Emit%2A%26x&after=00ff&limit=5");
    }
}

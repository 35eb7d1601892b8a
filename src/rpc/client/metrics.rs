//! What a client asks about metrics.

use super::{Client, Error, Repeat, encoded, topology_path};
use crate::{
    metrics::{MetaType, Window},
    model::{ComponentId, StreamId, TaskId},
    rpc::message::{
        Accepted, ArchiveStatus, LatestList, MeasuredTopologyList, MetricControlRequest, MetricMetaList,
        PointList, TaskTrack, TopologyHistory,
    },
};

/// Which metrics of a topology are asked for; what is absent lets all through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricFilter {
    /// Of this level.
    pub level: Option<MetaType>,
    /// Of this component.
    pub component: Option<ComponentId>,
    /// Of this task.
    pub task: Option<TaskId>,
    /// Of this stream.
    pub stream: Option<StreamId>,
    /// Whose last part, or full name where it holds `@`, is like this: `*` is any text, `?` any
    /// character.
    pub name: Option<String>,
}

/// A page of a list: where it begins, and how long it may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// What the page before answered as `next`; the first page when absent.
    pub after: Option<String>,
    /// At most so many; what the nimbus finds good when absent.
    pub limit: Option<usize>,
}

/// A stretch of time as the API reads it: milliseconds since 1970, or relative such as `-1h`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// From when on; sixty windows before the end when absent.
    pub from: Option<String>,
    /// Until when; now when absent.
    pub to: Option<String>,
}

/// The query of a URL, part by part.
#[derive(Debug, Default)]
struct Query(String);

impl Query {
    fn with(mut self, key: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let mark = if self.0.is_empty() { '?' } else { '&' };
            self.0.push_str(&format!("{mark}{key}={}", encoded(&value.to_string())));
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
    format!("/api/v1/metrics/topology/{}/{rest}", encoded(topology))
}

impl Client {
    /// The topologies that have metrics, those that are gone as well.
    pub async fn measured_topologies(&self, page: &Page) -> Result<MeasuredTopologyList, Error> {
        let query = Query::default().page(page).0;
        self.get(&format!("/api/v1/metrics/topologies{query}")).await
    }

    /// What is measured of a topology.
    pub async fn metric_metas(
        &self,
        topology: &str,
        filter: &MetricFilter,
        page: &Page,
    ) -> Result<MetricMetaList, Error> {
        let query = Query::default().filter(filter, "name").page(page).0;
        self.get(&format!("{}{query}", of(topology, "metas"))).await
    }

    /// The values of a topology's metrics in the window that ends now.
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

    /// The points of some of a topology's metrics over time.
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
        self.get(&format!("/api/v1/metrics/data{}", query.0)).await
    }

    /// Where a topology's tasks ran, by task.
    pub async fn task_track(
        &self,
        topology: &str,
        task: Option<TaskId>,
        limit: Option<usize>,
    ) -> Result<TaskTrack, Error> {
        let query = Query::default().with("task", task).with("limit", limit).0;
        self.get(&format!("{}{query}", of(topology, "track"))).await
    }

    /// The topologies that there were, newest first; those of one name if it is given.
    pub async fn topology_history(
        &self,
        name: Option<&str>,
        limit: Option<usize>,
    ) -> Result<TopologyHistory, Error> {
        let query = Query::default().with("name", name).with("limit", limit).0;
        self.get(&format!("/api/v1/metrics/history{query}")).await
    }

    /// How the archive of the nimbus that answers is, and its queue of uploads.
    pub async fn archive_status(&self) -> Result<ArchiveStatus, Error> {
        self.get("/api/v1/metrics/status").await
    }

    /// What a running topology measures otherwise than its settings say.
    pub async fn metric_control(&self, topology: &str) -> Result<MetricControlRequest, Error> {
        self.get(&topology_path(topology, "/metrics")).await
    }

    /// Changes what a running topology measures.
    pub async fn control_metrics(
        &self,
        topology: &str,
        request: &MetricControlRequest,
    ) -> Result<Accepted, Error> {
        // Wishing for the same twice changes nothing.
        self.post(&topology_path(topology, "/metrics"), request, Repeat::Safe).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_hold_what_was_asked_for_and_nothing_else() {
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

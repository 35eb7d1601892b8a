//! Payloads and servers for tests of exporters.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, response::IntoResponse};

use crate::export::exporters::{ExportError, PayloadSource};
use stormkeeper_metric_store::{Error, ExportKey, ExportKind, PayloadPage};
use stormkeeper_metrics::{
    MetricId, Minute, Point,
    point::{Counter, Gauge, Histogram, Meter, Timer},
    protocol::MetricMeta,
};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

pub(crate) const MINUTE: Minute = Minute(28_333_334);
pub(crate) const TIME: u64 = 1_700_000_040;

pub(crate) fn key() -> ExportKey {
    ExportKey {
        number: 7,
        topology: "wc-1-1700000000".parse().expect("valid"),
        minute: MINUTE,
        kind: ExportKind::All,
        part: 0,
        parts: 1,
    }
}

pub(crate) fn meta(name: &str) -> MetricMeta {
    let name: stormkeeper_metrics::MetricName = name.parse().expect("a name");
    MetricMeta { id: MetricId::of(&name.to_string(), 0), name }
}

pub(crate) fn counter(count: u64) -> Point {
    Point::Counter(Counter { count })
}

pub(crate) fn gauge(value: f64) -> Point {
    Point::Gauge(Gauge { at: MINUTE, sum: value, n: 1, min: value, max: value })
}

pub(crate) fn meter(count: u64) -> Meter {
    Meter { count, from: MINUTE, at: MINUTE, m1: 2.5, m5: 2.0, m15: 1.5 }
}

/// Histogram of the values 2, 2 and 4, the upper bounds of their buckets.
pub(crate) fn histogram() -> Histogram {
    let buckets = [(31, 2), (63, 1)].into();
    Histogram { count: 3, sum: 8.0, min: 2.0, max: 4.0, zeros: 0, buckets }
}

/// Metrics of all kinds, on several levels.
pub(crate) fn metrics() -> Vec<(MetricMeta, Point)> {
    let timer = Point::Timer(Timer { histogram: histogram(), meter: meter(3) });
    vec![
        (meta("5@1@wc-1-1700000000@@0@sys@Emitted"), counter(7)),
        (meta("3@1@wc-1-1700000000@split@4@default@sys@Emitted"), counter(5)),
        (meta("2@3@wc-1-1700000000@split@0@@sys@SendTps"), Point::Meter(meter(90))),
        (meta("1@4@wc-1-1700000000@split@4@@udf@size"), Point::Histogram(histogram())),
        (meta("1@5@wc-1-1700000000@split@4@@udf@took"), timer),
        (meta("4@2@wc-1-1700000000@h1@6700@udf@depth"), gauge(0.25)),
    ]
}

/// Number of numbers of [`metrics`].
pub(crate) const N_NUMBERS: u64 = 1 + 1 + 4 + 12 + 15 + 3;

/// Payload in pages of two.
pub(crate) struct Pages(pub(super) Vec<(MetricMeta, Point)>);

impl Pages {
    /// Payload sorted by id, as in the metric store.
    pub(crate) fn of(mut metrics: Vec<(MetricMeta, Point)>) -> Self {
        metrics.sort_by_key(|(meta, _)| meta.id);
        Self(metrics)
    }
}

#[async_trait]
impl PayloadSource for Pages {
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
        let points: Vec<(MetricMeta, Point)> =
            self.0.iter().filter(|(meta, _)| Some(meta.id) > after).take(2).cloned().collect();
        let last = points.last().map(|(meta, _)| meta.id);
        let next = last.filter(|last| self.0.last().is_some_and(|(meta, _)| meta.id > *last));
        Ok(PayloadPage { points, next })
    }
}

/// Payload that cannot be read.
pub(crate) struct Unreadable;

#[async_trait]
impl PayloadSource for Unreadable {
    async fn page(&self, _after: Option<MetricId>) -> Result<PayloadPage, ExportError> {
        Err(ExportError::Payload(Error::Busy))
    }
}

/// Server that records its requests, and answers the n-th request by a script.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) got: Arc<Mutex<Vec<Got>>>,
}

/// Recorded request.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) type Answer = (u16, String);

/// Script: the response to each request.
type Answers = dyn Fn(usize, &Got) -> Answer + Send + Sync;

#[derive(Clone)]
struct Script {
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Answers>,
    n: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server that runs as long as `tasks`.
    pub(crate) async fn start(
        tasks: &Tasks,
        answer: impl Fn(usize, &Got) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let got = Arc::new(Mutex::new(Vec::new()));
        let script = Script { got: Arc::clone(&got), answer: Arc::new(answer), n: Arc::default() };
        let routes = Router::new().fallback(serve).with_state(script);
        tasks.start("server", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        Self { url, got }
    }

    /// Returns the requests received so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().expect("nobody panics with it").clone()
    }
}

async fn serve(
    State(script): State<Script>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let got = Got { uri: uri.to_string(), headers, body };
    let n = script.n.fetch_add(1, Ordering::SeqCst);
    let (status, body) = (script.answer)(n, &got);
    script.got.lock().expect("nobody panics with it").push(got);
    (axum::http::StatusCode::from_u16(status).expect("a status"), body)
}

/// Server that accepts connections and never answers, or closes them at once.
pub(crate) async fn dumb_server(tasks: &Tasks, reports: bool) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tasks.start("dumb server", OnExit::Ignore, async move {
        let mut held = Vec::new();
        loop {
            let (connection, _) = listener.accept().await.expect("accepted");
            if !reports {
                held.push(connection);
            }
        }
    });
    url
}

use std::sync::Mutex;

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::{StatusCode, Uri},
    routing::{delete, get},
};

use super::*;
use crate::query::QueryError;
use stormkeeper_metrics::{
    MetaType, Window,
    point::Counter,
    protocol::{MetricMeta, PointsQuery},
};
use stormkeeper_model::{HostName, Port, Timestamp};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

#[derive(Debug, Default)]
struct Now(Mutex<Option<String>>);

impl Now {
    fn set(&self, api: &str) {
        *self.0.lock().expect("nobody panics with it") = Some(api.to_owned());
    }
}

#[async_trait]
impl LeaderLocator for Now {
    async fn leader(&self) -> Option<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

async fn serve(tasks: &Tasks, routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let api = listener.local_addr().expect("bound").to_string();
    tasks.start("leader", OnExit::Ignore, async move {
        axum::serve(listener, routes).await.expect("served");
    });
    api
}

fn packed<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain values")
}

fn topology() -> TopologyId {
    "wc-1-1700000000".parse().expect("valid")
}

fn page() -> MetaPage {
    let name: stormkeeper_metrics::MetricName = "5@1@wc-1-1700000000@@0@sys@Emitted".parse().expect("valid");
    let id = MetricId::of(&name.to_string(), 0);
    MetaPage { metas: vec![MetricMeta { id, name }], next: Some(id) }
}

fn place() -> TrackEntry {
    TrackEntry {
        task: TaskId(3),
        component: "split".parse().expect("valid"),
        host: "h1".parse::<HostName>().expect("valid"),
        port: Port(6700),
        from: Timestamp::from_millis(1000),
        to: None,
        reason: "placed".to_owned(),
        ended: String::new(),
    }
}

fn history_entry() -> HistoryEntry {
    HistoryEntry {
        topology: topology(),
        name: "wc".parse().expect("valid"),
        started: Timestamp::from_millis(1000),
        started_by: Some("ann".to_owned()),
        killed: None,
        killed_by: None,
        reason: String::new(),
        sample_rate: 0.1,
    }
}

fn points() -> Vec<(Minute, Point)> {
    vec![(Minute(28_333_334), Point::Counter(Counter { count: 7 }))]
}

/// Leader that answers only requests with the expected parameters.
fn leader() -> Router {
    Router::new()
        .route(
            "/api/stormkeeper/v1/metrics/sync/metas",
            get(|Query(query): Query<MetaQuery>| async move {
                let asked = MetaQuery {
                    topology: topology(),
                    meta: Some(MetaType::ComponentStream),
                    after: Some(MetricId(u64::MAX)),
                    limit: 10,
                };
                assert_eq!(query, asked);
                packed(&page())
            }),
        )
        .route(
            "/api/stormkeeper/v1/metrics/sync/points",
            get(|Query(query): Query<PointsQuery>| async move {
                let (from, to) = (Minute(1), Minute(2));
                assert_eq!(query, PointsQuery { id: MetricId(9), window: Window::H2, from, to, limit: 5 });
                packed(&points())
            }),
        )
        .route(
            "/api/stormkeeper/v1/metrics/sync/track",
            get(|Query(query): Query<TrackQuery>| async move {
                assert_eq!((query.topology, query.task), (topology(), Some(TaskId(3))));
                packed(&vec![place()])
            }),
        )
        .route(
            "/api/stormkeeper/v1/metrics/topology/{topology}/metas",
            delete(|Path(of): Path<TopologyId>, Json(request): Json<ForgetRequest>| async move {
                if of != topology() {
                    return (StatusCode::CONFLICT, "it runs");
                }
                let last = format!("{:016x}", NAMES_MAX + 1);
                match request.ids.as_slice() {
                    [first, ..] if request.ids.len() == NAMES_MAX => assert_eq!(first, "0000000000000001"),
                    ids => assert_eq!(ids, [last]),
                }
                (StatusCode::OK, "{}")
            }),
        )
        .route(
            "/api/stormkeeper/v1/metrics/sync/history",
            get(|Query(query): Query<HistoryQuery>| async move {
                assert_eq!(query, HistoryQuery { name: Some("wc".parse().expect("valid")), limit: 4 });
                packed(&vec![history_entry()])
            }),
        )
}

fn query() -> MetaQuery {
    MetaQuery {
        topology: topology(),
        meta: Some(MetaType::ComponentStream),
        after: Some(MetricId(u64::MAX)),
        limit: 10,
    }
}

#[tokio::test]
async fn leader_answers_all_queries() {
    let (tasks, now) = (Tasks::default(), Arc::new(Now::default()));
    now.set(&serve(&tasks, leader()).await);
    let client = NimbusQueryClient::new(now).expect("made");
    assert_eq!(client.metas(&query()).await.expect("answered"), page());
    let data = client
        .data(&PointsQuery { id: MetricId(9), window: Window::H2, from: Minute(1), to: Minute(2), limit: 5 })
        .await
        .expect("answered");
    assert_eq!(data, points());
    let track = client.task_track(&topology(), Some(TaskId(3))).await.expect("answered");
    assert_eq!(track, [place()]);
    let name = "wc".parse().expect("valid");
    assert_eq!(client.topology_history(&name, 4).await.expect("answered"), [history_entry()]);
    let ids: Vec<MetricId> = (1..=NAMES_MAX as u64 + 1).map(MetricId).collect();
    client.delete_metas(&topology(), &ids).await.expect("done, in two requests");
    client.delete_metas(&topology(), &[]).await.expect("there is nothing to do");
    let other = "other-1-1".parse().expect("valid");
    let refused = client.delete_metas(&other, &ids[..1]).await.expect_err("it runs");
    assert!(refused.to_string().ends_with("answered 409: it runs"), "{refused}");
    assert!(!refused.is_retryable(), "{refused}");
}

#[tokio::test]
async fn current_leader_is_queried() {
    let (tasks, now) = (Tasks::default(), Arc::new(Now::default()));
    let client = NimbusQueryClient::new(Arc::clone(&now) as Arc<dyn LeaderLocator>).expect("made");
    let none = client.metas(&query()).await.expect_err("nobody leads");
    assert!(matches!(none, QueryError::NoLeader) && none.is_retryable(), "{none}");
    now.set("127.0.0.1:1");
    let gone = client.metas(&query()).await.expect_err("nobody is there");
    assert!(
        matches!(gone, QueryError::Http(http::Error::Unreachable { .. })) && gone.is_retryable(),
        "{gone}"
    );
    now.set(&serve(&tasks, leader()).await);
    client.metas(&query()).await.expect("the new leader answers");
}

#[tokio::test]
async fn errors_and_invalid_answers_are_reported_with_the_url() {
    let tasks = Tasks::default();
    let routes = Router::new()
        .route(
            "/api/stormkeeper/v1/metrics/sync/metas",
            get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "{\"code\":\"no_leader\"}") }),
        )
        .route("/api/stormkeeper/v1/metrics/sync/track", get(|| async { "what?" }))
        .fallback(|uri: Uri| async move { (StatusCode::NOT_FOUND, uri.to_string()) });
    let api = serve(&tasks, routes).await;
    let now = Arc::new(Now::default());
    now.set(&api);
    let client = NimbusQueryClient::new(now).expect("made");
    let error = client.metas(&query()).await.expect_err("refused");
    assert!(error.is_retryable());
    let url = format!("http://{api}/api/stormkeeper/v1/metrics/sync/metas");
    assert_eq!(error.to_string(), format!("{url} answered 503: {{\"code\":\"no_leader\"}}"));
    let error = client.task_track(&topology(), None).await.expect_err("nonsense");
    assert!(
        matches!(error, QueryError::Http(http::Error::Invalid { .. })) && !error.is_retryable(),
        "{error}"
    );
    let error = client.topology_history(&"wc".parse().expect("valid"), 4).await.expect_err("no such route");
    assert!(!error.is_retryable(), "{error}");
}

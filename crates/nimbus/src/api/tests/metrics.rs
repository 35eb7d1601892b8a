//! Responses about metrics, from a metric store that the test filled.

use std::collections::BTreeSet;

use super::*;
use stormkeeper_metric_store as metric_store;
use stormkeeper_metric_store::MetricStore;
use stormkeeper_metrics::{
    MetricBatch, MetricId, Minute, Point,
    batch::SequenceRange,
    point::{Counter, Gauge, Histogram},
    protocol::{RegisterRequest, Registration},
};
use stormkeeper_model::{TaskId, Term, TopologyId};

/// Number of tasks of the component.
const TASKS: u32 = 12;

/// Number of minutes for which the topology ran.
const MINUTES: u32 = 15;

/// A leader whose metric store has the metrics of a removed topology.
pub(super) struct HistoryFixture {
    _fixture: Fixture,
    running: Running,
    pub(super) router: Router,
    store: MetricStore,
    /// First minute of the topology.
    first: Minute,
}

fn gone() -> TopologyId {
    "gone-1-1".parse().expect("valid")
}

/// Point of a task in the `n`th minute.
type Measure = fn(u32, u32) -> Point;

/// Metric names, each with its point in the `n`th minute.
fn names() -> Vec<(String, Measure)> {
    let count: Measure = |task, n| Point::Counter(Counter { count: u64::from(task * 100 + n) });
    let mut names: Vec<(String, Measure)> = vec![
        ("5@1@gone-1-1@@0@sys@Emitted".to_owned(), count),
        ("2@1@gone-1-1@split@0@@sys@Emitted".to_owned(), count),
        ("2@4@gone-1-1@split@0@@sys@ProcessLatency".to_owned(), |_, n| {
            let mut histogram =
                Histogram { count: 10, sum: 1000.0, min: 100.0, max: 100.0, ..Histogram::default() };
            histogram.buckets.add(212, u64::from(n + 1));
            Point::Histogram(histogram)
        }),
        ("2@2@gone-1-1@split@0@@sys@Capacity".to_owned(), |_, n| {
            Point::Gauge(Gauge { at: Minute(n), sum: 1.0, n: 4, min: 0.1, max: 0.7 })
        }),
        ("4@2@gone-1-1@node-1@6700@sys@MemoryUsed".to_owned(), |_, n| {
            Point::Gauge(Gauge { at: Minute(n), sum: 1.0, n: 4, min: 0.1, max: 0.7 })
        }),
    ];
    names.extend((1..=TASKS).map(|task| (format!("1@1@gone-1-1@split@{task}@@sys@Emitted"), count)));
    names
}

impl HistoryFixture {
    pub(super) async fn new() -> Self {
        let fixture = Fixture::new().await;
        let running = fixture.leader_with_metrics().await;
        let store = wait_until("its metric store is open", LONG, || async {
            running.handle().metrics().map_err(|refusal| refusal.to_string())
        })
        .await;
        let router = routes(running.handle().clone());
        let first = Minute::of(running.handle().clock().now()).minus(MINUTES + 5);
        let fixture = Self { _fixture: fixture, running, router, store, first };
        fixture.fill().await;
        fixture
    }

    fn term(&self) -> Term {
        self.running.handle().term().expect("it leads")
    }

    async fn fill(&self) {
        let registrations =
            names().into_iter().map(|(name, _)| Registration { id: MetricId::of(&name, 0), name }).collect();
        let request = RegisterRequest { topology: gone(), registrations };
        self.store.register(self.term(), request).await.expect("registered");
        for n in 0..MINUTES {
            // The last task has points in the first minutes only.
            let measured = names().into_iter().enumerate().filter(|(i, _)| n < 5 || *i + 1 < names().len());
            let batch = MetricBatch {
                topology: gone(),
                minute: self.first.plus(n),
                reports: vec![SequenceRange {
                    worker: "w1".parse().expect("valid"),
                    first: u64::from(n) + 1,
                    last: u64::from(n) + 1,
                }],
                points: measured
                    .map(|(i, (name, point))| (MetricId::of(&name, 0), point(i as u32, n)))
                    .collect(),
                readings: Vec::new(),
            };
            self.store.ingest(self.term(), batch).await.expect("accepted");
        }
        let at = self.first.start();
        let place = metric_store::HistoryEvent::TaskPlaced {
            topology: gone(),
            task: TaskId(3),
            component: "split".parse().expect("valid"),
            host: "node-1".parse().expect("valid"),
            port: Port(6700),
            at,
            reason: "placed".to_owned(),
        };
        let events = vec![
            metric_store::HistoryEvent::TopologyStarted {
                topology: gone(),
                name: "gone".parse().expect("valid"),
                at,
                by: Some("ann".to_owned()),
                sample_rate: 0.1,
            },
            place,
            metric_store::HistoryEvent::TaskGone {
                topology: gone(),
                task: TaskId(3),
                at: self.first.plus(MINUTES).start(),
                reason: "killed".to_owned(),
            },
            metric_store::HistoryEvent::TopologyKilled {
                topology: gone(),
                at: self.first.plus(MINUTES).start(),
                by: None,
                reason: "an operator asked for it".to_owned(),
            },
        ];
        self.store.record_events(self.term(), events).await.expect("recorded");
    }

    async fn get(&self, uri: &str) -> Value {
        let (status, answer) =
            ask(&self.router, Method::GET, &format!("/api/stormkeeper/v1/metrics/{uri}"), "").await;
        assert_eq!(status, StatusCode::OK, "{uri}: {answer}");
        answer
    }

    /// Returns all pages of a list, and their number.
    async fn pages(&self, uri: &str, list: &str) -> (Vec<Value>, usize) {
        let (mut all, mut n_pages, mut after) = (Vec::new(), 0, String::new());
        loop {
            let page = self.get(&format!("{uri}{after}")).await;
            all.extend(page[list].as_array().expect("a list").iter().cloned());
            n_pages += 1;
            assert!(n_pages < 1000, "{uri} does not end");
            let Some(next) = page["next"].as_str() else { return (all, n_pages) };
            after = format!("&after={next}");
        }
    }
}

#[tokio::test]
async fn removed_topology_is_found_by_id_and_by_name() {
    let fixture = HistoryFixture::new().await;
    let topologies = fixture.get("topologies").await;
    let found = topologies["topologies"].as_array().expect("a list").iter();
    let found = found.clone().find(|topology| topology["id"] == json!("gone-1-1")).expect("it is there");
    assert_eq!((&found["name"], &found["alive"]), (&json!("gone"), &json!(false)), "{found}");
    assert_eq!(found["metas"], json!(names().len()));
    for named in ["gone", "gone-1-1"] {
        let metas = fixture.get(&format!("topology/{named}/metas?level=component&name=Cap*")).await;
        let expected = json!({
            "id": MetricId::of("2@2@gone-1-1@split@0@@sys@Capacity", 0).to_string(),
            "name": "2@2@gone-1-1@split@0@@sys@Capacity",
            "level": "component", "kind": "gauge", "group": "sys", "metric": "Capacity",
            "unit": "0 to 1", "component": "split",
        });
        assert_eq!((&metas["metas"], &metas["topologyId"]), (&json!([expected]), &json!("gone-1-1")));
        assert_eq!(metas["store"]["nimbus"], json!(fixture.running.handle().id()));
        assert_eq!(metas["store"]["entriesBehind"], json!(0), "{metas}");
    }
    let track = fixture.get("topology/gone/track?task=3").await;
    let place = &track["entries"][0];
    assert_eq!((&place["host"], &place["ended"]), (&json!("node-1"), &json!("killed")), "{track}");
    assert_eq!(fixture.get("topology/gone/track?task=4").await["entries"], json!([]));
    let history = fixture.get("history?name=gone").await;
    assert_eq!(history["topologies"][0]["startedBy"], json!("ann"), "{history}");
    assert_eq!(history["topologies"][0]["killReason"], json!("an operator asked for it"));
    let status = fixture.get("status").await;
    assert_eq!(
        (&status["state"], &status["store"]["entriesBehind"]),
        (&json!("leading"), &json!(0)),
        "{status}"
    );
}

#[tokio::test]
async fn all_windows_of_a_list_end_with_the_same_minute() {
    let fixture = HistoryFixture::new().await;
    let count_of = |list: &Value, task: u32| {
        let values = list["values"].as_array().expect("a list");
        values
            .iter()
            .find(|value| value["task"] == json!(task))
            .map(|value| value["value"]["counter"]["count"].clone())
    };
    let minute = fixture.get("topology/gone/latest?level=task").await;
    let n = MINUTES - 1;
    assert_eq!(count_of(&minute, 1), Some(json!(500 + n)), "{minute}");
    assert_eq!(count_of(&minute, TASKS), None, "nobody measured it in the last minute");
    let ten = fixture.get("topology/gone/latest?level=task&window=600").await;
    // Task 1 is the sixth name; the last ten of fifteen minutes.
    assert_eq!(count_of(&ten, 1), Some(json!((5..15).map(|n| 500 + n).sum::<u32>())));
    assert_eq!(count_of(&ten, TASKS), None);
    let day = fixture.get("topology/gone/latest?level=task&window=1d").await;
    let i = names().len() as u32 - 1;
    assert_eq!(count_of(&day, TASKS), Some(json!((0..5).map(|n| i * 100 + n).sum::<u32>())));
    let end = fixture.first.plus(MINUTES).start();
    assert_eq!(day["values"][0]["toMs"], json!(end), "{day}");
    assert_eq!(ten["values"][0]["fromMs"], json!(fixture.first.plus(5).start()));

    let list = fixture.get("topology/gone/latest?component=split&level=component&window=10m").await;
    let of = |metric: &str| {
        let values = list["values"].as_array().expect("a list");
        values.iter().find(|value| value["metric"] == json!(metric)).expect("it is there")["value"].clone()
    };
    let capacity = json!({"value": 0.25, "n": 4, "min": 0.1, "max": 0.7, "atMs": 60_000 * MINUTES});
    assert_eq!(of("Capacity")["gauge"], capacity, "a mean");
    let latency = of("ProcessLatency")["histogram"].clone();
    assert_eq!(
        (&latency["count"], &latency["p99"], &latency["mean"]),
        (&json!(100), &json!(100.0), &json!(100.0))
    );
}

#[tokio::test]
async fn pages_of_a_list_contain_every_entry_once() {
    let fixture = HistoryFixture::new().await;
    for (uri, list, id) in [
        ("topology/gone/metas?name=*", "metas", "id"),
        ("topology/gone/metas?level=task", "metas", "id"),
        ("topology/gone/latest?window=86400", "values", "id"),
        ("topology/gone/latest?name=E*", "values", "id"),
    ] {
        let (all, _) = fixture.pages(uri, list).await;
        assert!(all.len() > 5, "{uri}");
        for limit in [1, 2, 3, all.len(), all.len() + 1] {
            let (paged, n_pages) = fixture.pages(&format!("{uri}&limit={limit}"), list).await;
            assert_eq!(paged, all, "{uri} by {limit}");
            // A metric without points in the window makes a page shorter.
            assert!(n_pages >= all.len().div_ceil(limit), "{uri} by {limit}: {n_pages} pages");
        }
        let ids: BTreeSet<String> = all.iter().map(|entry| entry[id].to_string()).collect();
        assert_eq!(ids.len(), all.len(), "{uri}");
    }
}

#[tokio::test]
async fn points_over_time_are_paged() {
    let fixture = HistoryFixture::new().await;
    let (first, last) = (fixture.first.start().as_millis(), fixture.first.plus(MINUTES).start().as_millis());
    let uri = format!("data?topology=gone&pattern=Emitted&from={first}&to={last}");
    /// Returns metric and time of each point.
    fn points(series: &[Value]) -> Vec<(String, u64, Value)> {
        let of_one = |series: &Value| {
            let id = series["id"].as_str().expect("an id").to_owned();
            let points = series["points"].as_array().expect("a list").clone();
            points.into_iter().map(move |point| {
                (id.clone(), point["fromMs"].as_u64().expect("a time"), point["value"].clone())
            })
        };
        series.iter().flat_map(of_one).collect()
    }
    let (series, n_pages) = fixture.pages(&uri, "series").await;
    let all = points(&series);
    assert_eq!((series.len(), n_pages), (2 + TASKS as usize, 1));
    // The last task has five points.
    assert_eq!(all.len(), (1 + TASKS as usize) * MINUTES as usize + 5);
    for limit in [1, 7, 15, 16, all.len(), all.len() + 1] {
        let (series, _) = fixture.pages(&format!("{uri}&limit={limit}"), "series").await;
        assert_eq!(points(&series), all, "by {limit}");
    }
    let name = "1@1@gone-1-1@split@1@@sys@Emitted";
    let id = MetricId::of(name, 0);
    let by_id = fixture.get(&format!("data?id={id}&from={first}&to={last}")).await;
    let by_name =
        fixture.get(&format!("data?name=TC@gone-1-1@split@1@@sys@Emitted&from={first}&to={last}")).await;
    assert_eq!(by_id["series"], by_name["series"]);
    assert_eq!(by_id["series"][0]["points"].as_array().expect("a list").len(), MINUTES as usize);
    assert_eq!(by_id["series"][0]["points"][3]["value"]["counter"]["count"], json!(503));
    let hours = fixture.get(&format!("data?id={id}&window=2h")).await;
    let counted: u64 = hours["series"][0]["points"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|point| point["value"]["counter"]["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!(counted, u64::from((0..MINUTES).map(|n| 500 + n).sum::<u32>()));
}

#[tokio::test]
async fn invalid_query_is_answered_with_the_reason() {
    let fixture = HistoryFixture::new().await;
    let bad = StatusCode::BAD_REQUEST;
    let cases = [
        ("topology/gone/metas?level=planet", "level=planet"),
        ("topology/gone/metas?window=60", "window"),
        ("topology/gone/metas?name=", "it is empty"),
        ("topology/gone/metas?name=1@1", "@"),
        ("topology/gone/metas?limit=0", "limit=0"),
        ("topology/gone/metas?limit=5001", "limit=5001"),
        ("topology/gone/metas?after=x", "after=x"),
        ("topology/gone/metas?task=x", "task=x"),
        ("topology/gone/metas?component=a/b", "component"),
        ("topology/gone/metas?colour=red", "colour"),
        ("topology/gone/latest?window=61", "window=61"),
        ("topology/gone/track?task=-1", "task=-1"),
        ("history?name=a.b", "dot"),
        ("topologies?after=a/b", "after"),
        ("data", "which metric"),
        ("data?id=xyz", "id=xyz"),
        ("data?id=1&name=5@1@gone-1-1@@0@sys@Nothing", "only one of"),
        ("data?id=1&pattern=x", "filter"),
        ("data?name=x", "metric name"),
        ("data?topology=gone&from=yesterday", "from=yesterday"),
        ("data?topology=gone&from=now&to=-1h", "later"),
    ];
    let check_one = |uri: &'static str, status, code, names| {
        let router = fixture.router.clone();
        async move {
            let uri = format!("/api/stormkeeper/v1/metrics/{uri}");
            check(&router, Bad { method: Method::GET, uri: &uri, body: Vec::new(), status, code, names })
                .await;
        }
    };
    for (uri, names) in cases {
        check_one(uri, bad, Code::InvalidRequest, names).await;
    }
    let missing = StatusCode::NOT_FOUND;
    check_one("topology/nothing/metas", missing, Code::UnknownTopology, "nothing").await;
    check_one("data?topology=nothing", missing, Code::UnknownTopology, "nothing").await;
    check_one("data?id=0000000000000001", missing, Code::UnknownMetric, "0000000000000001").await;
    check_one("data?name=5@1@gone-1-1@@0@sys@Nothing", missing, Code::UnknownMetric, "Nothing").await;
}

#[tokio::test]
async fn metrics_of_a_removed_topology_can_be_deleted() {
    let fixture = HistoryFixture::new().await;
    let uri = "/api/stormkeeper/v1/metrics/topology/gone/metas";
    let ids = async || {
        let (status, answer) = ask(&fixture.router, Method::GET, uri, "").await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let metas = answer["metas"].as_array().expect("a list").iter();
        metas.map(|meta| meta["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let before = ids().await;
    let request = json!({"ids": [before[0], before[3], "00000000000000ff"]}).to_string();
    for _again in 0..2 {
        let (status, answer) = ask(&fixture.router, Method::DELETE, uri, request.clone()).await;
        let expected = json!({"topologyId": "gone-1-1", "metas": before.len() - 2});
        assert_eq!((status, answer), (StatusCode::OK, expected));
    }
    let expected: Vec<String> =
        before.iter().enumerate().filter(|(i, _)| ![0, 3].contains(i)).map(|(_, id)| id.clone()).collect();
    assert_eq!(ids().await, expected);
    let all = json!({"ids": expected}).to_string();
    let (status, answer) = ask(&fixture.router, Method::DELETE, uri, all.clone()).await;
    assert_eq!((status, &answer["metas"]), (StatusCode::OK, &json!(0)), "{answer}");
    // The topology itself is still in the history.
    let by_id = "/api/stormkeeper/v1/metrics/topology/gone-1-1/metas";
    assert_eq!(ask(&fixture.router, Method::DELETE, by_id, all).await.0, StatusCode::OK);

    let many = json!({"ids": vec!["1"; stormkeeper_metrics::protocol::NAMES_MAX + 1]}).to_string();
    let (bad, invalid) = (StatusCode::BAD_REQUEST, Code::InvalidRequest);
    let daemons = "/api/stormkeeper/v1/metrics/topology/__NIMBUS__/metas";
    let unknown = "/api/stormkeeper/v1/metrics/topology/nothing/metas";
    let name = "7@2@__NIMBUS__@h@1@sys@MemoryUsed".to_owned();
    let registrations = vec![Registration { id: MetricId::of(&name, 0), name }];
    let own = RegisterRequest { topology: "__NIMBUS__".parse().expect("valid"), registrations };
    fixture.store.register(fixture.term(), own).await.expect("registered");
    for (uri, body, status, code, names) in [
        (uri, r#"{"ids":["xyz"]}"#, bad, invalid, "xyz"),
        (uri, r#"{"names":[]}"#, bad, invalid, "names"),
        (uri, "", bad, invalid, "EOF"),
        (uri, many.as_str(), bad, invalid, "10001 ids"),
        (unknown, r#"{"ids":[]}"#, StatusCode::NOT_FOUND, Code::UnknownTopology, "nothing"),
        (daemons, r#"{"ids":["1"]}"#, StatusCode::CONFLICT, Code::Conflict, "cannot be deleted"),
    ] {
        let body = body.as_bytes().to_vec();
        check(&fixture.router, Bad { method: Method::DELETE, uri, body, status, code, names }).await;
    }
}

#[tokio::test]
async fn metric_control_can_be_changed_while_the_topology_runs() {
    let fixture = Fixture::new().await;
    let running = fixture.leader().await;
    let router = routes(running.handle().clone());
    let TopologyPackage { key, bytes } = blob("wc");
    assert_eq!(
        ask(&router, Method::PUT, &format!("/api/stormkeeper/v1/blobs/{key}"), bytes).await.0,
        StatusCode::CREATED
    );
    let submit = json!({"blob": key, "owner": "ann"}).to_string();
    assert_eq!(
        ask(&router, Method::POST, "/api/stormkeeper/v1/topology/submit", submit).await.0,
        StatusCode::OK
    );
    let uri = "/api/stormkeeper/v1/topology/wc/metrics";
    assert_eq!(ask(&router, Method::GET, uri, "").await, (StatusCode::OK, json!({})));
    let control = json!({"enabled": ["EmitTime"], "sampleRate": 0.5});
    let (status, answer) = ask(&router, Method::POST, uri, control.to_string()).await;
    assert_eq!((status, &answer["topologyOperation"]), (StatusCode::OK, &json!("metrics")), "{answer}");
    wait_until("it is seen", LONG, || async {
        let (_, seen) = ask(&router, Method::GET, uri, "").await;
        if seen == control { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    for (body, names) in [
        (r#"{"sampleRate":2}"#, "between 0 and 1"),
        (r#"{"debug":["a@b"]}"#, "a@b"),
        (r#"{"enable":["a"]}"#, "enable"),
    ] {
        let status = StatusCode::BAD_REQUEST;
        let code = Code::InvalidRequest;
        let body = body.as_bytes().to_vec();
        check(&router, Bad { method: Method::POST, uri, body, status, code, names }).await;
    }
    // This nimbus was started without metrics.
    let uri = "/api/stormkeeper/v1/metrics/status";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    check(
        &router,
        Bad {
            method: Method::GET,
            uri,
            body: Vec::new(),
            status,
            code: Code::NoMetricStore,
            names: "metrics",
        },
    )
    .await;
    drop(fixture.tree);
}

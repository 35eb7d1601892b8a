use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    time::Duration,
};

use flate2::read::GzDecoder;
use proptest::prelude::*;
use reqwest::header::HeaderValue;

use super::{spelling, *};
use crate::export::exporters::{
    backends::tests::fixture::{
        Got, MINUTE, N_NUMBERS, Pages, Server, TIME, counter, dumb_server, gauge, key, meta, metrics,
    },
    series,
};
use stormkeeper_metrics::Point;
use stormkeeper_runtime::tasks::Tasks;

fn options(url: &str) -> options::OpenTsdbOptions {
    options::OpenTsdbOptions {
        url: url.to_owned(),
        timeout: Duration::from_millis(300),
        ..crate::export::exporters::ExporterOptions::of_test().opentsdb
    }
}

fn exporter(url: &str) -> OpenTsdb {
    OpenTsdb::new(options(url)).expect("made").with_short_pauses()
}

fn unpacked(got: &Got) -> Vec<DataPoint> {
    let mut text = String::new();
    GzDecoder::new(&got.body[..]).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

fn all_good(_: usize, _: &Got) -> (u16, String) {
    (204, String::new())
}

#[tokio::test]
async fn batch_is_gzipped_json_with_a_content_length() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, all_good).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: N_NUMBERS, refused: 0 });
    let got = server.got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].uri, "/api/put?details");
    assert_eq!(
        (&got[0].headers["content-encoding"], &got[0].headers["content-type"]),
        (&HeaderValue::from_static("gzip"), &HeaderValue::from_static("application/json"),)
    );
    assert_eq!(got[0].headers["content-length"], got[0].body.len().to_string());
    assert!(!got[0].headers.contains_key("transfer-encoding"));
    let points = unpacked(&got[0]);
    let emitted = points.iter().find(|p| p.tags["level"] == "stream").expect("it is there");
    let tags = [
        ("cluster", "one"),
        ("dc", "test/20/one"),
        ("topology", "wc-1-1700000000"),
        ("component", "split"),
        ("task", "4"),
        ("stream", "default"),
        ("level", "stream"),
    ];
    let expected = DataPoint {
        metric: "storm.sys.Emitted".to_owned(),
        timestamp: TIME,
        value: 5.into(),
        tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(*emitted, expected);
    let names: BTreeSet<&str> = points.iter().map(|p| p.metric.as_str()).collect();
    for name in ["storm.udf.depth", "storm.udf.depth.max", "storm.udf.took.p999", "storm.sys.SendTps.m1"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert!(points.iter().all(|p| (1..=8).contains(&p.tags.len())));
}

#[tokio::test]
async fn batches_are_bounded_and_connections_are_reused() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, all_good).await;
    let options = options::OpenTsdbOptions { batch: 10, ..options(&server.url) };
    let sent = OpenTsdb::new(options).expect("made").export(&key(), &Pages::of(metrics())).await;
    assert_eq!(sent.expect("accepted").points, N_NUMBERS);
    let sizes: Vec<usize> = server.got().iter().map(|got| unpacked(got).len()).collect();
    assert_eq!(sizes, [10, 10, 10, N_NUMBERS as usize - 30]);
}

#[tokio::test]
async fn excluded_levels_and_numbers_that_are_not_finite_are_not_sent() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, all_good).await;
    let levels = options::levels("stream,task,component").expect("valid");
    let exporter = OpenTsdb::new(options::OpenTsdbOptions { levels, ..options(&server.url) }).expect("made");
    let odd = meta("5@2@wc-1-1700000000@@0@udf@odd");
    let mut metrics = metrics();
    metrics.push((odd, gauge(f64::NAN)));
    let sent = exporter.export(&key(), &Pages::of(metrics)).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: 1 + 3, refused: 0 });
}

#[tokio::test]
async fn rejected_points_are_counted_and_not_sent_again() {
    let tasks = Tasks::default();
    let details =
        r#"{"errors":[{"error":"Unknown metric"},{"error":"Unknown metric"}],"success":34,"failed":2}"#;
    let server = Server::start(&tasks, move |_, _| (400, details.to_owned())).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("acknowledged");
    assert_eq!(sent, ExportCounts { points: N_NUMBERS - 2, refused: 2 });
    assert_eq!(server.got().len(), 1);
}

#[tokio::test]
async fn server_that_reports_more_rejections_than_points_rejected_all() {
    let tasks = Tasks::default();
    let details = r#"{"errors":[],"success":0,"failed":1000}"#;
    let server = Server::start(&tasks, move |_, _| (400, details.to_owned())).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("acknowledged");
    assert_eq!(sent, ExportCounts { points: 0, refused: N_NUMBERS });
}

#[tokio::test]
async fn throttled_points_are_retried_and_then_left_in_the_queue() {
    let tasks = Tasks::default();
    let throttle = r#"{"errors":[{"error":"Please throttle writes"}],"success":35,"failed":1}"#;
    let twice = move |n, _: &Got| if n < 2 { (400, throttle.to_owned()) } else { (204, String::new()) };
    let server = Server::start(&tasks, twice).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("taken in the end");
    assert_eq!((sent.points, server.got().len()), (N_NUMBERS, 3));

    let server = Server::start(&tasks, move |_, _| (400, throttle.to_owned())).await;
    let failed = exporter(&server.url).export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(failed, Err(ExportError::Throttled { n: 1, .. })), "{failed:?}");
    assert_eq!(server.got().len(), ATTEMPTS);
}

#[tokio::test]
async fn batch_that_is_too_long_is_halved() {
    let tasks = Tasks::default();
    let few =
        |_, got: &Got| if unpacked(got).len() > 10 { (413, String::new()) } else { (204, String::new()) };
    let server = Server::start(&tasks, few).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: N_NUMBERS, refused: 0 });

    let server = Server::start(&tasks, |_, _| (413, String::new())).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("nothing will do");
    assert_eq!(sent, ExportCounts { points: 0, refused: N_NUMBERS });
}

fn counters(n: usize) -> Pages {
    let counters = (0..n).map(|task| (meta(&format!("3@1@wc-1-1@split@{task}@s@sys@Emitted")), counter(1)));
    Pages::of(counters.collect())
}

#[tokio::test]
async fn bad_points_that_the_server_does_not_name_are_searched_for() {
    let tasks = Tasks::default();
    let is_bad = |point: &DataPoint| point.tags["task"].ends_with("33");
    let server = Server::start(&tasks, move |_, got| match points_of(got).iter().any(is_bad) {
        true => (400, "bad points".to_owned()),
        false => (204, String::new()),
    })
    .await;
    let sent = exporter(&server.url).export(&key(), &counters(400)).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: 396, refused: 4 });
    let batches = server.got();
    let batches = batches.iter().filter(|got| is_gzip(got)).map(points_of);
    let mut taken: Vec<String> = batches
        .filter(|points| !points.iter().any(is_bad))
        .flatten()
        .map(|point| point.tags["task"].clone())
        .collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 396, "each good point was accepted gzipped");
    let n_plain = server.got().iter().filter(|got| !is_gzip(got)).count();
    assert_eq!(n_plain, 1 + 4, "at the first rejection, and before each bad point is given up");

    // All points are bad: the search ends, and then each batch is sent once.
    let server = Server::start(&tasks, |_, _| (400, "no".to_owned())).await;
    let sent = exporter(&server.url).export(&key(), &counters(400)).await.expect("refused");
    assert_eq!(sent, ExportCounts { points: 0, refused: 400 });
    let got = server.got();
    let (gzipped, plain): (Vec<_>, Vec<_>) = got.iter().partition(|got| is_gzip(got));
    assert_eq!(gzipped.len(), 400 / 50 + 2 * SEARCHES_MAX);
    assert_eq!(plain.len(), 1 + 400 / 50 + SEARCHES_MAX, "each batch that is given up was tried plainly");
}

#[tokio::test]
async fn events_of_topologies_become_annotations_if_configured() {
    use stormkeeper_metric_store::HistoryEvent;
    use stormkeeper_model::{TaskId, Timestamp};
    let (topology, at) = (key().topology, Timestamp::from_millis(1_700_000_040_123));
    let (name, by) = ("wc".parse().expect("valid"), Some("ann".to_owned()));
    let events = [
        HistoryEvent::TopologyStarted {
            topology: topology.clone(),
            name,
            at,
            by: by.clone(),
            sample_rate: 0.1,
        },
        HistoryEvent::SampleRateChanged { topology: topology.clone(), sample_rate: 0.5, at, by: None },
        HistoryEvent::TaskGone {
            topology: topology.clone(),
            task: TaskId(4),
            at,
            reason: "moved".to_owned(),
        },
        HistoryEvent::TopologyKilled { topology, at, by, reason: "asked".to_owned() },
    ];
    let tasks = Tasks::default();
    let server =
        Server::start(&tasks, |n, _| if n < 3 { (200, "{}".to_owned()) } else { (404, String::new()) });
    let server = server.await;
    for event in &events {
        exporter(&server.url).send_event(event).await.expect("not sent");
    }
    assert_eq!(server.got().len(), 0);
    let annotating =
        options::OpenTsdbOptions { annotates: true, ..options(&format!("{}/tsdb/", server.url)) };
    let annotating = OpenTsdb::new(annotating).expect("made").with_short_pauses();
    for event in &events {
        annotating.send_event(event).await.expect("accepted");
    }
    let got: Vec<serde_json::Value> =
        server.got().iter().map(|got| serde_json::from_slice(&got.body).expect("JSON")).collect();
    let note = |description: &str, custom| serde_json::json!({ "startTime": TIME, "description": description, "custom": custom });
    let both = serde_json::json!({ "cluster": "one", "topology": "wc-1-1700000000", "by": "ann" });
    assert_eq!(
        got,
        [
            note("topology wc started", both.clone()),
            note(
                "topology wc-1-1700000000 samples 0.5 of its values",
                serde_json::json!({ "cluster": "one", "topology": "wc-1-1700000000" })
            ),
            note("topology wc-1-1700000000 killed: asked", both),
        ]
    );
    assert!(server.got().iter().all(|got| got.uri == "/tsdb/api/annotation"));
    let refused = annotating.send_event(&events[0]).await;
    assert!(matches!(refused, Err(ExportError::Answered { status: 404, .. })), "{refused:?}");
}

#[tokio::test]
async fn entry_stays_in_the_queue_while_the_server_has_a_problem() {
    let tasks = Tasks::default();
    let recovers = |n, _: &Got| if n < 3 { (500, "oh".to_owned()) } else { (204, String::new()) };
    let server = Server::start(&tasks, recovers).await;
    let sent = exporter(&server.url).export(&key(), &Pages::of(metrics())).await.expect("taken in the end");
    assert_eq!((sent.points, server.got().len()), (N_NUMBERS, 4));

    for (status, requests) in [(500, 4), (503, 4), (429, 4), (404, 1), (401, 1), (302, 1)] {
        let server = Server::start(&tasks, move |_, _| (status, "no".to_owned())).await;
        let failed = exporter(&server.url).export(&key(), &Pages::of(metrics())).await;
        assert!(matches!(failed, Err(ExportError::Answered { status: s, .. }) if s == status), "{failed:?}");
        assert_eq!(server.got().len(), requests, "{status}");
    }
    let late = exporter(&dumb_server(&tasks, false).await).export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(late, Err(ExportError::TimedOut { .. })), "{late:?}");
    let closed = exporter(&dumb_server(&tasks, true).await).export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(closed, Err(ExportError::Unreachable { .. })), "{closed:?}");
    let gone = exporter("http://127.0.0.1:1").export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(gone, Err(ExportError::Unreachable { .. })), "{gone:?}");
}

#[test]
fn counts_beyond_the_servers_range_become_floats() {
    let template = PointTemplate::new(&options("http://h")).expect("valid");
    let value = |count| {
        let name = meta("5@1@wc-1-1700000000@@0@sys@Emitted").name;
        let points: Vec<DataPoint> = template.points(&name, MINUTE, &counter(count)).collect();
        points[0].value.clone()
    };
    assert_eq!(value(i64::MAX as u64), i64::MAX);
    assert!(value(u64::MAX).is_f64());
}

proptest! {
    /// Checker written from OpenTSDB's rules, not from our code.
    #[test]
    fn every_point_satisfies_the_rules(group in "[^@\\s\\p{C}]{1,20}", name in "[^@\\s\\p{C}]{1,40}", host in "[^@\\s\\p{C}]{1,30}", value: f64) {
        let text = format!("4@2@wc-1-1700000000@{host}@6700@{group}@{name}");
        let Ok(name) = text.parse::<stormkeeper_metrics::MetricName>() else { return Ok(()) };
        let template = PointTemplate::new(&options("http://h")).expect("valid");
        let point: Point = gauge(value);
        for point in template.points(&name, MINUTE, &point) {
            let fits = |text: &str| {
                !text.is_empty() && text.encode_utf16().all(|unit| match char::from_u32(unit.into()) {
                    None => false,
                    Some(c) if c.is_ascii() => c.is_ascii_alphanumeric() || "-_./".contains(c),
                    Some(c) => c.is_alphabetic(),
                })
            };
            prop_assert!(fits(&point.metric), "{}", point.metric);
            prop_assert!((1..=8).contains(&point.tags.len()));
            prop_assert!(point.tags.iter().all(|(key, value)| fits(key) && fits(value)), "{:?}", point.tags);
            prop_assert!(point.value.as_f64().is_some_and(f64::is_finite), "{}", point.value);
            prop_assert!(point.timestamp < 9_999_999_999);
        }
    }
}

#[test]
fn tags_of_the_operator_are_spelled_and_win_over_the_name_of_the_cluster() {
    let tags = [("a b", "b c"), ("cluster", "mine")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let options = options::OpenTsdbOptions { tags: tags.into(), ..options("http://h") };
    let template = PointTemplate::new(&options).expect("valid");
    let name = meta("5@1@wc-1-1700000000@@0@sys@Emitted").name;
    let point = template.points(&name, MINUTE, &counter(1)).next().expect("a counter is one number");
    assert_eq!((&*point.tags["a/20/b"], &*point.tags["cluster"]), ("b/20/c", "mine"));
}

/// A point as a reader takes it: the group, the name, the number, and the tags.
fn meaning(point: &DataPoint) -> (String, String, Option<String>, BTreeMap<String, String>) {
    let read = |text: &str| spelling::tests::read(text).expect("spelled");
    let rest = point.metric.strip_prefix("storm.").expect("the prefix");
    let (group, name) = rest.split_once('.').expect("a group");
    let number = name.rsplit_once('.').filter(|(_, end)| series::NUMBERS.contains(end));
    let (name, number) = number.map_or((name, None), |(name, number)| (name, Some(number.to_owned())));
    let tags = point.tags.iter().map(|(key, value)| (read(key), read(value))).collect();
    (read(group), read(name), number, tags)
}

proptest! {
    #[test]
    fn every_series_can_be_read_back(
        group in "[a-z./ö:]{1,6}", name in "[ab_./ö:#-]{1,8}(\\.max|\\.count|\\.p99|)", host in "[a-c./_:]{1,9}",
    ) {
        let text = format!("4@2@wc-1-1700000000@{host}@6700@{group}@{name}");
        let Ok(parsed) = text.parse::<stormkeeper_metrics::MetricName>() else { return Ok(()) };
        let template = PointTemplate::new(&options("http://h")).expect("valid");
        for (point, number) in template.points(&parsed, MINUTE, &gauge(1.0)).zip([None, Some("min"), Some("max")]) {
            let (got_group, got_name, got_number, tags) = meaning(&point);
            prop_assert_eq!((&*got_group, &*got_name, got_number.as_deref()), (&*group, &*name, number));
            prop_assert_eq!(&*tags["host"], &*host);
        }
    }
}

fn is_gzip(got: &Got) -> bool {
    got.headers.contains_key("content-encoding")
}

/// Points of a request with or without gzip.
fn points_of(got: &Got) -> Vec<DataPoint> {
    if is_gzip(got) { unpacked(got) } else { serde_json::from_slice(&got.body).expect("JSON") }
}

#[tokio::test]
async fn server_without_gzip_gets_every_point_plainly_and_the_exporter_remembers_it() {
    let unparsable = r#"{"error":{"code":400,"message":"Unable to parse the given JSON"}}"#;
    for (status, answer) in [(400, unparsable), (400, ""), (415, "")] {
        let tasks = Tasks::default();
        // As OpenTSDB: plain bodies that are too long count as chunked.
        let server = Server::start(&tasks, move |_, got| match is_gzip(got) {
            true => (status, answer.to_owned()),
            false if got.body.len() > 8192 => (400, "Chunked request not supported.".to_owned()),
            false => (204, String::new()),
        });
        let server = server.await;
        let exporter = exporter(&server.url);
        for _ in 0..2 {
            let sent = exporter.export(&key(), &counters(400)).await.expect("accepted");
            assert_eq!(sent, ExportCounts { points: 400, refused: 0 }, "{status} {answer}");
        }
        let got = server.got();
        let n_gzip = got.iter().filter(|got| is_gzip(got)).count();
        // A shorter body is sent both ways, because a plain body of the first batch would be too long.
        assert_eq!(n_gzip, 2, "gzip is tried twice, then never again");
        let tasks: BTreeSet<String> = got
            .iter()
            .filter(|got| !is_gzip(got))
            .flat_map(points_of)
            .map(|point| point.tags["task"].clone())
            .collect();
        assert_eq!(tasks.len(), 400);
    }
}

#[tokio::test]
async fn server_without_gzip_that_rejects_a_point_gets_the_others_plainly() {
    let tasks = Tasks::default();
    let is_bad = |point: &DataPoint| point.tags["task"] == "0";
    let server = Server::start(&tasks, move |_, got| match is_gzip(got) {
        true => (400, "no".to_owned()),
        false if points_of(got).iter().any(is_bad) => (400, "bad point".to_owned()),
        false => (204, String::new()),
    });
    let server = server.await;
    let exporter = exporter(&server.url);
    let sent = exporter.export(&key(), &counters(200)).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: 199, refused: 1 });
    assert!(exporter.last_rejection().is_some());
}

#[tokio::test]
async fn entry_stays_in_the_queue_if_the_server_accepts_neither_encoding() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, |_, _| (415, "no".to_owned())).await;
    let failed = exporter(&server.url).export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(failed, Err(ExportError::Answered { status: 415, .. })), "{failed:?}");
    assert_eq!(server.got().len(), 2);
}

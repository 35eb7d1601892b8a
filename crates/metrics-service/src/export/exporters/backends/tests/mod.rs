//! Tests of `alimonitor`, and fixtures of all exporters' tests.

pub(crate) mod fixture;

use std::time::Duration;

use serde_json::{Value, json};

use self::fixture::{Pages, Server, Unreadable, dumb_server, key, metrics};
use super::{ExportCounts, ExportError, MetricExporter, alimonitor::Alimonitor};
use crate::export::exporters::options;
use stormkeeper_runtime::tasks::Tasks;

fn alimonitor(url: &str) -> Alimonitor {
    let options = options::AlimonitorOptions {
        cluster: "one".to_owned(),
        levels: stormkeeper_metrics::MetaType::ALL.to_vec(),
        url: url.to_owned(),
        monitor_name: "storm & co".to_owned(),
        timeout: Duration::from_millis(300),
    };
    Alimonitor::new(options).expect("made").with_short_pauses()
}

/// Returns the fields of a form.
fn message(body: &[u8]) -> (String, Value) {
    let url = reqwest::Url::parse(&format!("form:?{}", String::from_utf8_lossy(body))).expect("a form");
    let fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let [(name, monitor), (msg, message)] = &fields[..] else { panic!("{fields:?}") };
    assert_eq!((name.as_str(), msg.as_str()), ("name", "msg"));
    (monitor.clone(), serde_json::from_str(message).expect("JSON"))
}

#[tokio::test]
async fn alimonitor_receives_forms() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, |_, _| (200, "ok".to_owned())).await;
    let exporter = alimonitor(&format!("{}/passive", server.url));
    let sent = exporter.export(&key(), &Pages(metrics()[..1].to_vec())).await.expect("accepted");
    assert_eq!(sent, ExportCounts { points: 1, refused: 0 });
    let got = server.got();
    assert_eq!(got[0].headers["content-type"], "application/x-www-form-urlencoded");
    let (monitor, message) = message(&got[0].body);
    assert_eq!((got[0].uri.as_str(), monitor.as_str()), ("/passive", "storm & co"));
    let metric = json!({"name": "5@1@wc-1-1700000000@@0@sys@Emitted", "time": fixture::TIME, "count": 7});
    assert_eq!(message, json!({"cluster": "one", "collection_flag": 0, "error_info": "", "MSG": [metric]}));
    assert_eq!(got.len(), 1);

    let sent = exporter.export(&key(), &Pages(Vec::new())).await.expect("nothing to do");
    assert_eq!((sent, server.got().len()), (ExportCounts::default(), 1), "no request without metrics");
}

#[tokio::test]
async fn unreadable_metrics_are_reported_to_alimonitor() {
    let tasks = Tasks::default();
    let server = Server::start(&tasks, |_, _| (200, "ok".to_owned())).await;
    let failed = alimonitor(&server.url).export(&key(), &Unreadable).await;
    assert!(matches!(failed, Err(ExportError::Payload(_))), "{failed:?}");
    let (_, message) = message(&server.got()[0].body);
    assert_eq!((&message["collection_flag"], &message["MSG"]), (&json!(1), &json!([])));
    assert!(message["error_info"].as_str().is_some_and(|why| why.contains("too many writes")), "{message}");
}

#[tokio::test]
async fn alimonitor_is_retried_and_then_left_for_later() {
    let tasks = Tasks::default();
    let twice = |n, _: &fixture::Got| if n < 2 { (503, "later".to_owned()) } else { (200, String::new()) };
    let server = Server::start(&tasks, twice).await;
    alimonitor(&server.url).export(&key(), &Pages::of(metrics())).await.expect("taken in the end");

    let server = Server::start(&tasks, |_, _| (403, "go away".to_owned())).await;
    let refused = alimonitor(&server.url).export(&key(), &Pages::of(metrics())).await.expect_err("refused");
    assert_eq!(refused.to_string(), format!("{}/ answered 403: go away", server.url));
    assert_eq!(server.got().len(), 1, "a rejection is not retried at once");

    let slow = alimonitor(&dumb_server(&tasks, false).await);
    let late = slow.export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(late, Err(ExportError::TimedOut { .. })), "{late:?}");
    let gone = alimonitor("http://127.0.0.1:1").export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(gone, Err(ExportError::Unreachable { .. })), "{gone:?}");
}

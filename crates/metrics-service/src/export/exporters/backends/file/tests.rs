use std::{fs, path::Path};

use serde_json::{Value, json};

use super::*;
use crate::export::exporters::backends::tests::fixture::{MINUTE, Pages, TIME, key, meta, metrics};

fn exporter(dir: &Path, max_bytes: u64) -> FileExporter {
    let levels = MetaType::ALL.to_vec();
    FileExporter::new(options::FileOptions {
        cluster: "one".to_owned(),
        levels,
        dir: dir.to_owned(),
        max_bytes,
        n_files: 3,
    })
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{} has a torn line", file.display());
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn points_metas_and_events_are_written_as_lines() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let exporter = exporter(&dir.path().join("deep/metrics"), 1 << 20);
    exporter.init().await.expect("ready");
    let emitted = meta("3@1@wc-1-1700000000@split@4@default@sys@Emitted");
    exporter.register_metrics(std::slice::from_ref(&emitted)).await.expect("written");
    let sent = exporter.export(&key(), &Pages::of(metrics())).await.expect("written");
    assert_eq!(sent, ExportCounts { points: 6, refused: 0 });
    let event = metric_store::HistoryEvent::TopologyKilled {
        topology: key().topology,
        at: MINUTE.start(),
        by: Some("ann".to_owned()),
        reason: "asked for".to_owned(),
    };
    exporter.send_event(&event).await.expect("written");
    let lines = lines(&dir.path().join("deep/metrics/metrics.jsonl"));
    assert_eq!(lines.len(), 1 + 6 + 1 + 1);
    let of_stream = json!({
        "line": "point", "cluster": "one", "time": TIME, "minute": MINUTE.to_string(), "kind": "ALL", "part": 0,
        "id": emitted.id.to_string(), "name": "3@1@wc-1-1700000000@split@4@default@sys@Emitted", "type": "counter",
        "topology": "wc-1-1700000000", "component": "split", "task": "4", "stream": "default", "level": "stream",
        "group": "sys", "metric": "Emitted", "values": {"count": 5},
    });
    assert!(lines.contains(&of_stream), "{lines:#?}");
    assert_eq!((&lines[0]["line"], &lines[0]["id"]), (&json!("meta"), &of_stream["id"]));
    assert_eq!((&lines[7]["line"], &lines[7]["points"]), (&json!("upload"), &json!(6)));
    assert_eq!(lines[8]["event"]["TopologyKilled"]["by"], "ann");
    assert!(lines.iter().all(|line| line["cluster"] == "one"), "{lines:#?}");
}

#[tokio::test]
async fn incomplete_last_line_is_truncated() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("metrics.jsonl");
    let check = async |before: &str, after: &str| {
        fs::write(&file, before).expect("written");
        exporter(dir.path(), 1 << 20).init().await.expect("repaired");
        assert_eq!(fs::read_to_string(&file).expect("readable"), after);
    };
    check("{\"a\":1}\n{\"b\":", "{\"a\":1}\n").await;
    check("{\"a\":1}\n", "{\"a\":1}\n").await;
    check("{\"a\"", "").await;
    check("", "").await;
    // A tail that is not a line of the exporter stays.
    let long = "x".repeat((1 << 20) + 10);
    check(&long, &format!("{long}\n")).await;
}

#[tokio::test]
async fn files_are_rotated_and_the_oldest_is_removed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("metrics.jsonl.3"), "of a larger number of files\n").expect("written");
    let exporter = exporter(dir.path(), 2000);
    for _ in 0..12 {
        exporter.export(&key(), &Pages::of(metrics())).await.expect("written");
    }
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["metrics.jsonl", "metrics.jsonl.1", "metrics.jsonl.2"]);
    for name in names {
        assert!(!lines(&dir.path().join(name)).is_empty());
    }
    let newest = lines(&dir.path().join("metrics.jsonl"));
    assert_eq!(newest.last().expect("a line")["line"], "upload");
}

#[tokio::test]
async fn failed_write_is_reported_with_its_path() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // A full disk.
    std::os::unix::fs::symlink("/dev/full", dir.path().join("metrics.jsonl")).expect("linked");
    let error = exporter(dir.path(), 1 << 20).export(&key(), &Pages::of(metrics())).await.expect_err("full");
    let path = dir.path().join("metrics.jsonl");
    assert_eq!(error.to_string(), format!("cannot append to {}", path.display()));
    // A file in place of the directory.
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let error = exporter(&file, 1 << 20).init().await.expect_err("no directory");
    assert!(error.to_string().ends_with(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn second_writer_is_rejected() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let exporter = exporter(dir.path(), 1 << 20);
    let file = exporter.open().await.expect("opened");
    let busy = exporter.export(&key(), &Pages::of(metrics())).await;
    assert!(matches!(busy, Err(ExportError::Busy { .. })), "{busy:?}");
    drop(file);
    exporter.export(&key(), &Pages::of(metrics())).await.expect("the slot is free");
}

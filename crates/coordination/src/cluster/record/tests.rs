use super::*;

fn path() -> TreePath {
    "/storms/wc-1-100".parse().expect("valid path")
}

fn topology_record() -> TopologyRecord {
    TopologyRecord {
        launched: Timestamp::from_millis(100_000),
        workers: 2,
        pending: Some(PendingChange::Rebalance {
            deadline: Timestamp::from_millis(130_000),
            resume: TopologyStatus::Inactive,
            workers: Some(3),
            parallelism: BTreeMap::from([("split".parse().expect("valid id"), 4)]),
            only_drained: false,
            restart: false,
            grow_back: false,
        }),
        ..TopologyRecord::sample("wc")
    }
}

#[test]
fn topology_record_is_read_back_and_is_plain_json() {
    let bytes = encode(&topology_record());
    let text = String::from_utf8(bytes.clone()).expect("JSON is text");
    assert!(text.starts_with(r#"{"v":1,"name":"wc","status":"active","launched_ms":100000,"#), "{text}");
    assert_eq!(decode::<TopologyRecord>(&path(), &bytes).expect("readable"), topology_record());
}

#[test]
fn invalid_record_is_reported_with_its_path() {
    for bad in [&b""[..], b"hello", b"{}", br#"{"v":1}"#, br#"{"name":"wc"}"#] {
        let error = decode::<TopologyRecord>(&path(), bad).expect_err("unreadable");
        assert!(error.to_string().starts_with("/storms/wc-1-100 does not hold"), "{error}");
    }
}

#[test]
fn assignment_is_read_back_and_a_task_in_two_workers_is_rejected() {
    let text = r#"{"v":1,"workers":[
        {"supervisor":"a","port":6700,"host":"h","tasks":"1-3","start_ms":5},
        {"supervisor":"a","port":6701,"host":"h","tasks":"4","start_ms":5}]}"#;
    let assignment = decode_assignment(&path(), text.as_bytes()).expect("readable");
    assert_eq!(assignment.workers.len(), 2);
    assert_eq!(decode_assignment(&path(), &encode_assignment(&assignment)).expect("readable"), assignment);
    let twice = text.replace("\"4\"", "\"3-4\"");
    let error = decode_assignment(&path(), twice.as_bytes()).expect_err("unreadable");
    assert!(error.to_string().contains("task 3 is in two workers"), "{error}");
}

#[test]
fn assignment_of_many_workers_with_a_million_tasks_is_rejected_at_the_second() {
    let worker =
        |port| format!(r#"{{"supervisor":"a","port":{port},"host":"h","tasks":"1-1000000","start_ms":5}}"#);
    let workers: Vec<String> = (1..10_000).map(worker).collect();
    let text = format!(r#"{{"v":1,"workers":[{}]}}"#, workers.join(","));
    let error = decode_assignment(&path(), text.as_bytes()).expect_err("unreadable");
    assert!(error.to_string().contains("task 1 is in two workers"), "{error}");
}

//! Children that are shell scripts.

use super::{stderr::MAX_STDERR_TAIL_BYTES, *};
use crate::multilang::message::LogLevel;
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_stream::Value;

fn launch(script: &str, dir: &Path) -> ChildSpec {
    ChildSpec {
        component: "c".parse().expect("valid"),
        task: TaskId(7),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        dir: dir.to_owned(),
        environment: BTreeMap::from([("COLOUR".to_owned(), "blue".into())]),
        pid_dir: dir.to_owned(),
        codec: Codec::Json,
        memory_mb: 0,
    }
}

fn start(script: &str, dir: &Path, tasks: &Tasks) -> Result<Child, Error> {
    Child::start(&launch(script, dir), &serde_json::json!({ "hello": 1 }), tasks)
}

async fn next(child: &mut Child) -> Result<FromChild, Error> {
    loop {
        if let Some(received) = child.next_message()? {
            return Ok(received.expect("a valid message").message);
        }
        child.exchange().await?;
    }
}

fn log(text: &str) -> FromChild {
    FromChild::Notice(ComponentNotice::Log { level: LogLevel::Info, text: text.to_owned() })
}

#[tokio::test]
async fn child_receives_the_handshake_and_its_messages_are_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let script = r#"read hello; touch 12; printf '{"pid":12}\nend\n{"command":"log","msg":%s}\nend\n' "$hello"
        printf '{"command":"log","msg":"%s"}\nend\n' $COLOUR; cat >/dev/null; echo over >&2; exit 3"#;
    let tasks = Tasks::default();
    let mut child = start(script, dir.path(), &tasks).expect("started");
    assert_eq!(next(&mut child).await.expect("a message"), FromChild::Pid(Some(12)));
    assert_eq!(next(&mut child).await.expect("a message"), log(r#"{"hello":1}"#));
    assert_eq!(next(&mut child).await.expect("a message"), log("blue"));
    let end = child.end(Duration::from_secs(10)).await;
    assert_eq!((&*end.status, &*end.stderr_tail), ("exit status: 3", "over"));
    assert!(!dir.path().join("12").exists(), "the pid file of a dead child is removed");
}

#[tokio::test]
async fn tuples_are_sent_in_batches_only_to_a_child_that_accepts_them() {
    let plain = concat!(
        r#"{"id":"7","comp":"a","stream":"default","task":1,"tuple":["x"]}"#,
        "end",
        r#"{"id":"8","comp":"a","stream":"default","task":1,"tuple":["x"]}"#,
        "end[3]end"
    );
    let batch = r#"{"batch":[[7,"a","default",1,1,["x","x"]]]}end[3]end"#;
    for (answer, expected) in [
        (r#"{"pid":1}"#, plain),
        (r#"{"pid":1,"dialect":"batch-2"}"#, plain),
        (r#"{"pid":1,"dialect":"batch-1"}"#, batch),
    ] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let script = format!("read hello; read end; printf '%s\nend\n' '{answer}'; cat > got");
        let mut child = start(&script, dir.path(), &tasks).expect("started");
        assert_eq!(next(&mut child).await.expect("a message"), FromChild::Pid(Some(1)));
        let origin = stormkeeper_stream::Origin {
            task: TaskId(1),
            component: "a".parse().expect("valid"),
            stream: stormkeeper_model::StreamId::default_stream(),
        };
        let tuple = Tuple::new(Arc::new(origin), vec![Value::from("x")]);
        child.send_tuple(7, &tuple);
        child.send_tuple(8, &tuple);
        child.send(&[3]);
        while child.unsent_bytes() > 0 {
            child.exchange().await.expect("open");
        }
        child.end(Duration::from_secs(10)).await;
        let got = std::fs::read_to_string(dir.path().join("got")).expect("written");
        assert_eq!(got.replace('\n', ""), expected, "{answer}");
    }
}

#[tokio::test]
async fn batch_is_taken_apart_only_if_the_child_has_accepted_batches() {
    let batch = r#"{"command":"batch","emits":[],"settled":[["ack",[1,2]]]}"#;
    let empty = r#"{"command":"batch"}"#;
    for (answer, is_refused) in [(r#"{"pid":1}"#, true), (r#"{"pid":1,"dialect":"batch-1"}"#, false)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let tasks = Tasks::default();
        let script =
            format!("printf '%s\nend\n%s\nend\n%s\nend\n' '{answer}' '{batch}' '{empty}'; cat >/dev/null");
        let mut child = start(&script, dir.path(), &tasks).expect("started");
        assert_eq!(next(&mut child).await.expect("a message"), FromChild::Pid(Some(1)));
        if is_refused {
            let refused = loop {
                match child.next_message().expect("open") {
                    Some(received) => break received.expect_err("refused"),
                    None => child.exchange().await.expect("open"),
                }
            };
            assert!(refused.reason.contains("has not accepted batches"), "{refused}");
            continue;
        }
        for id in [1, 2] {
            let ack = FromChild::Ack(crate::multilang::message::ReturnedId::Number(id));
            assert_eq!(next(&mut child).await.expect("a message"), ack);
        }
        assert_eq!(next(&mut child).await.expect("a sign of life"), FromChild::Batch(Batch::default()));
    }
}

#[tokio::test]
async fn child_that_does_not_exit_within_the_grace_is_killed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let child = start("exec sleep 1000", dir.path(), &tasks).expect("started");
    assert_eq!(child.end(Duration::from_millis(10)).await.status, "killed by its worker");
}

#[tokio::test]
async fn closed_stdout_is_reported_with_the_incomplete_message() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let mut child = start(r#"printf '{"half"'"#, dir.path(), &tasks).expect("started");
    let error = next(&mut child).await.expect_err("ended");
    assert_eq!(error.to_string(), r#"stdout was closed within a message: {\"half\""#);
    assert_eq!(child.end(Duration::from_secs(10)).await.status, "exit status: 0");
}

#[tokio::test]
async fn exit_is_seen_although_a_descendant_holds_the_pipes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let script = r#"sleep 60 & printf '{"command":"log","msg":"last"}\nend\n'; exit 4"#;
    let mut child = start(script, dir.path(), &tasks).expect("started");
    assert_eq!(next(&mut child).await.expect("a message"), log("last"));
    assert_eq!(next(&mut child).await.expect_err("ended").to_string(), "stdout was closed");
    assert_eq!(child.end(Duration::from_secs(10)).await.status, "exit status: 4");
}

#[tokio::test]
async fn processes_that_a_child_started_end_with_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    for is_dropped in [false, true] {
        let script = r#"sleep 1000 & printf '{"pid":%s}\nend\n' $!; cat >/dev/null"#;
        let mut child = start(script, dir.path(), &tasks).expect("started");
        let FromChild::Pid(Some(pid)) = next(&mut child).await.expect("a message") else { panic!("no pid") };
        if is_dropped {
            drop(child);
        } else {
            child.end(Duration::from_secs(10)).await;
        }
        wait_until("the process has ended", Duration::from_secs(10), async || {
            // Nobody may reap it in a container without an init.
            match stormkeeper_runtime::proc::stat(pid).expect("Linux") {
                Some(stat) if !stat.is_zombie => Err(format!("{stat:?}")),
                Some(_) | None => Ok(()),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn last_words_after_the_end_of_stdin_are_kept() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let script = r#"cat >/dev/null; printf '{"command":"metrics","name":"n","params":3}\nend\nprinted\n'
        printf '{"command":"emit","tuple":[1]}\nend\n{"command":"log","msg":"bye"}\nend'"#;
    let child = start(script, dir.path(), &tasks).expect("started");
    let end = child.end(Duration::from_secs(10)).await;
    let metric = ComponentNotice::Metrics { name: "n".to_owned(), value: Value::Int(3) };
    let bye = ComponentNotice::Log { level: LogLevel::Info, text: "bye".to_owned() };
    assert_eq!(end.last_notices, [metric, bye]);
}

#[tokio::test]
async fn stderr_tail_is_bounded() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done";
    let child = start(script, dir.path(), &tasks).expect("started");
    let end = child.end(Duration::from_secs(10)).await;
    assert!(end.stderr_tail.len() <= MAX_STDERR_TAIL_BYTES, "{}", end.stderr_tail.len());
    assert!(end.stderr_tail.ends_with("line 1999"), "{}", end.stderr_tail);
}

#[tokio::test]
async fn missing_command_is_named_in_the_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tasks = Tasks::default();
    let mut launch = launch("", dir.path());
    launch.command = vec!["./no-such-program".to_owned()];
    let error = Child::start(&launch, &(), &tasks).expect_err("not there").to_string();
    assert!(error.contains("./no-such-program") && error.contains("No such file"), "{error}");
    launch.command = vec!["sh".to_owned()];
    launch.environment.insert("PATH".to_owned(), "/nowhere/bin".into());
    let error = Child::start(&launch, &(), &tasks).expect_err("not there").to_string();
    assert!(error.contains("\"sh\" is not in the PATH, which `topology.environment`"), "{error}");
}

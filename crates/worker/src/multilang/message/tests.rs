//! Messages, as they are written and read.

use super::*;

fn id(text: &str) -> ReturnedId {
    ReturnedId::from(text.to_owned())
}

fn emit(values: Vec<Value>) -> Emit {
    Emit { id: None, stream: None, anchors: vec![], direct: None, values, reply: EmitReply::TaskIds }
}

#[test]
fn every_child_message_is_parsed() {
    let check = |text: &str, expected: FromChild| {
        let parsed = FromChild::parse(text.as_bytes()).expect("understood");
        assert_eq!((parsed.message, parsed.has_changed_text), (expected, false), "{text}");
    };
    let word = || vec![Value::from("a")];
    check(r#"{"pid": 17}"#, FromChild::Pid(Some(17)));
    check(r#"{"pid": "17"}"#, FromChild::Pid(Some(17)));
    check("\u{feff}{\"pid\": 17}", FromChild::Pid(Some(17)));
    check(r#"{"pid": {}}"#, FromChild::Pid(None));
    check(r#"{"command":"sync","id":""}"#, FromChild::Sync);
    let called = |n, is_last_empty| FromChild::Called(Calls { n, is_last_empty });
    check(r#"{"command":"sync","calls":7,"empty":true}"#, called(7, true));
    check(r#"{"command":"sync","calls":1}"#, called(1, false));
    for odd in ["0", "-1", "1.5", "100001", "\"many\"", "[]"] {
        check(&format!(r#"{{"command":"sync","calls":{odd}}}"#), FromChild::Sync);
    }
    check(r#"{"command":"ack","id":"7"}"#, FromChild::Ack(id("7")));
    check(r#"{"id":-3,"command":"fail"}"#, FromChild::Fail(id("-3")));
    check(r#"{"command":"reset_timeout","id":"7"}"#, FromChild::ResetTimeout(id("7")));
    check(r#"{"command":"emit","tuple":["a"]}"#, FromChild::Emit(emit(word())));
    check(
        r#"{"command":"emit","tuple":["a"],"stream":null,"task":null,"need_task_ids":null,"anchors":[]}"#,
        FromChild::Emit(emit(word())),
    );
    check(
        r#"{"command":"emit","task":0,"stream":"","id":null,"tuple":["a"]}"#,
        FromChild::Emit(emit(word())),
    );
    check(r#"{"command":"fail","command":"sync"}"#, FromChild::Sync);
    check(
        r#"{"command":"emit","id":{"n":1},"stream":"s","tuple":["a"],"need_task_ids":false}"#,
        FromChild::Emit(Emit {
            id: Some(Value::Map([("n".to_owned(), Value::Int(1))].into())),
            stream: Some("s".parse().expect("valid")),
            reply: EmitReply::None,
            ..emit(word())
        }),
    );
    check(
        r#"{"command":"emit","anchors":"1","task":9,"tuple":["a"]}"#,
        FromChild::Emit(Emit {
            anchors: vec![id("1")],
            direct: Some(TaskId(9)),
            reply: EmitReply::None,
            ..emit(word())
        }),
    );
    check(
        r#"{"command":"emit","anchors":["1","2"],"tuple":["a"]}"#,
        FromChild::Emit(Emit { anchors: vec![id("1"), id("2")], ..emit(word()) }),
    );
    let log = |level, text: &str| FromChild::Notice(ComponentNotice::Log { level, text: text.to_owned() });
    check(r#"{"command":"log","msg":"x"}"#, log(LogLevel::Info, "x"));
    check(r#"{"command":"log","msg":{"a":1},"level":4}"#, log(LogLevel::Error, r#"{"a":1}"#));
    check(r#"{"command":"error","msg":"x"}"#, FromChild::Notice(ComponentNotice::Error("x".to_owned())));
    check(
        r#"{"command":"metrics","name":"m","params":2}"#,
        FromChild::Notice(ComponentNotice::Metrics { name: "m".to_owned(), value: Value::Int(2) }),
    );
}

#[test]
fn refused_message_is_reported_with_its_bytes() {
    let check = |text: &str, part: &str| {
        let error = FromChild::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(part) && error.contains(&frame::shorten(text.as_bytes())), "{error}");
    };
    check("", "the JSON is not complete at line 1 column 0");
    check("{} {}", "there is more text after the JSON");
    check("{\"command\":\"log\",\"msg\":01}", "not JSON: invalid number");
    check("[1]", "not a JSON object");
    check("{}", "field command is missing");
    check(r#"{"command":"dance"}"#, "unknown command \"dance\"");
    check(r#"{"command":7}"#, "field command must be text");
    check(r#"{"command":"emit"}"#, "field tuple is missing");
    check(r#"{"command":"emit","tuple":"a"}"#, "field tuple must be a list");
    check(r#"{"command":"ack"}"#, "field id is missing");
    check(r#"{"command":"emit","tuple":[],"anchors":[{}]}"#, "field anchors");
    check(r#"{"command":"emit","tuple":[],"task":-1}"#, "field task must be");
    check(r#"{"command":"emit","tuple":[],"stream":"a/b"}"#, "stream id");
    check(r#"{"command":"emit","tuple":[1e400]}"#, "a number does not fit into a float");
    check(r#"{"command":"metrics","name":"m","params":NaN}"#, "metric \"m\": NaN and infinity");
    let deep = format!(r#"{{"command":"emit","tuple":[{}{}]}}"#, "[".repeat(200), "]".repeat(200));
    check(&deep, "nested more than 125 deep");
}

#[test]
fn refused_emit_keeps_its_anchors() {
    let check = |text: &str, anchors: &[&str]| {
        let refused = FromChild::parse(text.as_bytes()).expect_err(text);
        let anchors = anchors.iter().map(|anchor| id(anchor)).collect::<Vec<_>>();
        assert_eq!(refused.emit.map(|emit| emit.anchors), Some(anchors), "{text}");
    };
    check(r#"{"command":"emit","anchors":["1","2"],"tuple":[NaN]}"#, &["1", "2"]);
    check(r#"{"command":"emit","anchors":"7","stream":"a/b","tuple":[1]}"#, &["7"]);
    check(r#"{"command":"emit","anchors":["1",{}],"tuple":[1]}"#, &["1"]);
    // Texts that the parser of JSON rejects.
    check(r#"{"command":"emit","anchors":["1", 2],"tuple":[01]}"#, &["1", "2"]);
    check("{'command': 'emit', 'anchors': ['1'], 'tuple': [1]}", &["1"]);
    check(r#"{"command":"emit","anchors":[01],"tuple":[1]}"#, &[]);
}

#[test]
fn refused_emit_keeps_its_id_and_its_reply() {
    let check = |text: &str, id: Option<Value>, reply| {
        let refused = FromChild::parse(text.as_bytes()).expect_err(text);
        assert_eq!(refused.emit, Some(RefusedEmit { id, anchors: vec![], reply }), "{text}");
    };
    check(r#"{"command":"emit","id":7,"tuple":[NaN]}"#, Some(Value::Int(7)), EmitReply::TaskIds);
    check(
        r#"{"command":"emit","id":"a","tuple":[-Infinity],"need_task_ids":false}"#,
        Some(Value::from("a")),
        EmitReply::None,
    );
    check(r#"{"command":"emit","task":3}"#, None, EmitReply::None);
    // Texts that the parser of JSON rejects.
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for tuple in [&*deep, "[1e400]", "[01]", "[+1]", "[1.]", "[.5]", r#"["\x41"]"#, r#"["\u12"]"#, "[1,]"] {
        let (id, reply) = (Some(Value::Int(7)), EmitReply::TaskIds);
        check(&format!(r#"{{"command":"emit","id":7,"tuple":{tuple}}}"#), id, reply);
    }
    let id = Some(Value::BigInt("1".repeat(400).into()));
    let text =
        format!(r#"{{"command":"emit","id":{},"tuple":[1e400],"need_task_ids":false}}"#, "1".repeat(400));
    check(&text, id, EmitReply::None);
    check(r#"{"command":"emit","id":1e400,"tuple":[1]}"#, None, EmitReply::TaskIds);
    let refused = FromChild::parse(br#"{"command":"ack"}"#).expect_err("no id");
    assert_eq!(refused.emit, None);
}

#[test]
fn broken_sync_ack_and_fail_are_taken_as_what_they_seem_to_be() {
    let check = |text: &str, meant: Option<FromChild>| {
        let refused = FromChild::parse(text.as_bytes()).expect_err(text);
        assert_eq!(refused.meant.as_deref(), meant.as_ref(), "{text}");
        let is_taken = refused.to_string().starts_with("took a message that is not valid as ");
        assert_eq!(is_taken, meant.is_some(), "{refused}");
    };
    check(r#"{"command":"sync",}"#, Some(FromChild::Sync));
    check(r#"{"command":"sync""#, Some(FromChild::Sync));
    check("{'command': 'sync', 'id': None}", Some(FromChild::Sync));
    check(r#"{"command":"sync","took":NaN}"#, Some(FromChild::Sync));
    check(r#"{"command":"ack","id":"7","took":01}"#, Some(FromChild::Ack(id("7"))));
    check(r#"{"id":7,"command":"fail","msg":"\x"}"#, Some(FromChild::Fail(id("7"))));
    check(r#"{"command":"fail","id":"7","took":NaN}"#, Some(FromChild::Fail(id("7"))));
    // No id, or none that can be read.
    check(r#"{"command":"ack","took":01}"#, None);
    check(r#"{"command":"ack","id":07}"#, None);
    check(r#"{"command":"ack","id":NaN}"#, None);
    check(r#"{"command":"log","msg":01}"#, None);
    check(r#"{"command":"sync"}{"command":"sync"}"#, Some(FromChild::Sync));
    check("sync", None);
    check(r#"{"msg":"\x","command":"dance"}"#, None);
}

#[test]
fn integers_of_any_size_are_kept() {
    let text = r#"{"command":"emit","id":-0,"tuple":[-0,[-0 ],-0.0]}"#;
    let values = vec![Value::Int(0), Value::List(vec![Value::Int(0)]), Value::Float(-0.0)];
    let expected = Emit { id: Some(Value::Int(0)), ..emit(values) };
    assert_eq!(FromChild::parse(text.as_bytes()).expect("taken").message, FromChild::Emit(expected));
    let text = r#"{"command":"emit","id":-9223372036854775809,"tuple":[18446744073709551617,"18446744073709551617"]}"#;
    let big = |digits: &str| Value::BigInt(digits.into());
    let values = vec![big("18446744073709551617"), Value::from("18446744073709551617")];
    let expected = Emit { id: Some(big("-9223372036854775809")), ..emit(values) };
    assert_eq!(FromChild::parse(text.as_bytes()).expect("taken").message, FromChild::Emit(expected));
    // More digits than a float has room for, beside text that has to be changed.
    let digits = "9".repeat(5000);
    let text = format!(r#"{{"command":"emit","id":-{digits},"tuple":[[{digits}],"\udce9"]}}"#);
    let values = vec![Value::List(vec![big(&digits)]), Value::from("\u{fffd}")];
    let expected = Emit { id: Some(big(&format!("-{digits}"))), ..emit(values) };
    assert_eq!(FromChild::parse(text.as_bytes()).expect("taken").message, FromChild::Emit(expected));
}

#[test]
fn text_that_is_not_unicode_is_changed_and_reported() {
    let text = FromChild::parse(b"{\"command\":\"emit\",\"tuple\":[\"kl\xe9\"]}").expect("taken");
    assert_eq!(text.message, FromChild::Emit(emit(vec![Value::from("kl\u{fffd}")])));
    assert!(text.has_changed_text);
}

#[test]
fn messages_to_a_child_match_the_storm_protocol() {
    let check = |message: ToChild<'_>, expected: &str| {
        assert_eq!(serde_json::to_string(&message).expect("JSON"), expected);
    };
    check(
        ToChild::Tuple { id: "4", comp: Some("c"), stream: "s", task: 9, tuple: &[Value::from("x")] },
        r#"{"id":"4","comp":"c","stream":"s","task":9,"tuple":["x"]}"#,
    );
    check(
        ToChild::Tuple { id: "5", comp: None, stream: "__heartbeat", task: -1, tuple: &[] },
        r#"{"id":"5","comp":null,"stream":"__heartbeat","task":-1,"tuple":[]}"#,
    );
    check(
        ToChild::Command { command: SpoutCommand::Next, id: &Value::from("") },
        r#"{"command":"next","id":""}"#,
    );
    check(ToChild::Next { command: SpoutCommand::Next, room: 7 }, r#"{"command":"next","room":7}"#);
    check(ToChild::TaskIds(&[TaskId(1), TaskId(2)]), "[1,2]");
}

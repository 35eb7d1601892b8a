//! Batches, written and read.

use super::*;
use stormkeeper_model::TaskId;

fn tuple(task: u32, values: &[Value]) -> Tuple {
    let origin = Origin {
        task: TaskId(task),
        component: "split".parse().expect("valid"),
        stream: StreamId::default_stream(),
    };
    Tuple::new(Arc::new(origin), values.to_vec())
}

fn parse(text: &str) -> Result<Vec<Received>, Refused> {
    match FromChild::parse(text.as_bytes())?.message {
        FromChild::Batch(batch) => Ok(batch.collect()),
        other => panic!("{text} is {other:?}"),
    }
}

/// Reads single messages.
fn singles(texts: &[&str]) -> Vec<Received> {
    texts.iter().map(|text| FromChild::parse(text.as_bytes())).collect()
}

#[test]
fn tuples_of_one_origin_share_a_group_and_others_begin_one() {
    let (mut writer, mut out) = (BatchWriter::default(), BytesMut::new());
    writer.finish(&mut out);
    assert!(out.is_empty(), "there is no batch");
    let text = |word: &str| vec![Value::from(word)];
    for (id, task, values) in [
        (17, 4, text("a")),
        (18, 4, text("b\n\"")),
        // A number is missing, another task, and another number of values.
        (20, 4, text("c")),
        (21, 5, text("d")),
        (22, 5, vec![Value::Int(1), Value::Null]),
        (23, 5, vec![Value::BigInt("99999999999999999999".into()), Value::List(vec![])]),
    ] {
        writer.add(id, &tuple(task, &values), &mut out);
    }
    writer.finish(&mut out);
    writer.add(24, &tuple(4, &text("e")), &mut out);
    writer.finish(&mut out);
    let expected = concat!(
        r#"{"batch":[[17,"split","default",4,1,["a","b\n\""]],[20,"split","default",4,1,["c"]],"#,
        r#"[21,"split","default",5,1,["d"]],[22,"split","default",5,2,[1,null,99999999999999999999,[]]]]}"#,
        "\nend\n",
        r#"{"batch":[[24,"split","default",4,1,["e"]]]}"#,
        "\nend\n",
    );
    assert_eq!(std::str::from_utf8(&out), Ok(expected));
}

#[test]
fn batch_stands_for_single_messages_in_their_order() {
    let batch = r#"{"command":"batch","emits":[[null,1,["a","b",3],[7,2,null,1]],["s",2,[1,{"k":[]},2.5,null],["x",1,["8",9],1]],
        [null,1,["p","q"],[null,2],[{"n":1},null]]],"settled":[["ack",[7,[8,2],"11"]],["fail",[12]],["ack",[13]]]}"#;
    let emit = |rest: &str| format!(r#"{{"command":"emit","need_task_ids":false,{rest}}}"#);
    let settle = |command: &str, id: u32| format!(r#"{{"command":"{command}","id":{id}}}"#);
    let expected = [
        emit(r#""tuple":["a"],"anchors":[7]"#),
        emit(r#""tuple":["b"],"anchors":["7"]"#),
        emit(r#""tuple":[3]"#),
        emit(r#""tuple":[1,{"k":[]}],"stream":"s","anchors":["x"]"#),
        emit(r#""tuple":[2.5,null],"stream":"s","anchors":[8,9]"#),
        emit(r#""tuple":["p"],"id":{"n":1}"#),
        emit(r#""tuple":["q"]"#),
        settle("ack", 7),
        settle("ack", 8),
        settle("ack", 9),
        settle("ack", 11),
        settle("fail", 12),
        settle("ack", 13),
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(parse(batch), Ok(singles(&expected)));
}

#[test]
fn empty_batch_stands_for_nothing() {
    for text in [r#"{"command":"batch"}"#, r#"{"command":"batch","emits":[],"settled":null}"#] {
        assert_eq!(parse(text), Ok(vec![]), "{text}");
    }
}

#[test]
fn batch_with_a_defect_is_refused_as_a_whole() {
    let check = |fields: &str, part: &str| {
        let text = format!(r#"{{"command":"batch",{fields}}}"#);
        let reason = parse(&text).expect_err(&text).reason;
        assert!(reason.contains(part), "{text}: {reason}");
    };
    check(r#""emits":{}"#, "field emits must be a list");
    check(r#""settled":7"#, "field settled must be a list");
    for run in [
        "7",
        "[]",
        "[null,0,[],[]]",
        "[null,-1,[],[]]",
        r#"[null,1,"a",[]]"#,
        "[null,1,[1],7]",
        "[null,1,[1],[7]]",
    ] {
        check(&format!(r#""emits":[{run}]"#), "a run must be [stream, arity, values, anchors, ids]");
    }
    for anchors in ["[{},1]", "[[{}],1]", "[7,-1]", "[7,1.5]", "[7,1]"] {
        check(
            &format!(r#""emits":[[null,1,[1,2],{anchors}]]"#),
            if anchors == "[7,1]" { "those of its 2 tuples" } else { "a run" },
        );
    }
    check(&format!(r#""emits":[[null,1,[1],[7,{0},8,{0}]]]"#, i64::MAX), "those of its 1 tuples");
    check(r#""emits":[[null,2,[1,2,3],[7,1]]]"#, "3 values cannot be tuples of 2");
    check(r#""emits":[[null,1,[1],[null,1],[1,2]]]"#, "a run must be");
    for group in ["7", "[]", r#"["dance",[1]]"#, r#"["ack"]"#, r#"["ack",[1],2]"#, r#"[1,[1]]"#] {
        check(&format!(r#""settled":[{group}]"#), "settled tuples must be");
    }
    check(r#""settled":[["ack",[[0,1000001]]]]"#, "must not settle more than 1000000 tuples");
    check(
        &format!(r#""settled":[["ack",[[0,{0}],[0,{0}],[0,{0}]]]]"#, i64::MAX),
        "must not settle more than",
    );
    check(r#""emits":[[null,1,[1e400],[null,1]]]"#, "does not fit into a float");
}

#[test]
fn stream_or_id_that_is_not_valid_costs_its_own_tuples() {
    let batch = r#"{"command":"batch","emits":[["a/b",1,[1,2],[7,1,null,1],[null,"id"]],[null,1,[3],[null,1]]],
        "settled":[["ack",[{},5,[6,-1]]]]}"#;
    let received = parse(batch).expect("a batch");
    let shown: Vec<String> = received
        .iter()
        .map(|one| match one {
            Ok(Parsed { message: FromChild::Emit(emit), .. }) => format!("emit {:?}", emit.values),
            Ok(Parsed { message, .. }) => format!("{message:?}"),
            Err(Refused { reason, emit, .. }) => match emit {
                Some(emit) => format!("refused {:?} {:?}", emit.id, emit.anchors),
                None => format!("refused: {reason}"),
            },
        })
        .collect();
    let expected = [
        "refused None [Number(7)]",
        r#"refused Some(Text("id")) []"#,
        "emit [Int(3)]",
        "refused: field id must be text or a whole number",
        "Ack(Number(5))",
        "refused: field id must be text or a whole number",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn integers_of_any_size_and_changed_texts_are_kept_in_a_batch() {
    let batch = r#"{"command":"batch","emits":[[null,1,[18446744073709551617,"\udce9"],[null,2]]]}"#;
    let received = parse(batch).expect("a batch");
    let shown: Vec<_> = received
        .into_iter()
        .map(|one| one.expect("valid"))
        .map(|parsed| (parsed.has_changed_text, parsed.message))
        .map(|(changed, message)| match message {
            FromChild::Emit(emit) => (changed, emit.values),
            other => panic!("{other:?}"),
        })
        .collect();
    let big = Value::BigInt("18446744073709551617".into());
    assert_eq!(shown, [(true, vec![big]), (false, vec![Value::from("\u{fffd}")])]);
}

#[test]
fn outcomes_in_a_row_share_a_list() {
    use SpoutCommand::{Ack, Fail};
    let outcomes = Outcomes::of(
        [(Ack, 1), (Ack, 2), (Fail, 3), (Ack, 4)].map(|(command, id)| (command, Value::Int(id))),
    );
    assert_eq!(
        serde_json::to_string(&outcomes).expect("JSON"),
        r#"{"command":"batch","outcomes":[["ack",[1,2]],["fail",[3]],["ack",[4]]]}"#
    );
}

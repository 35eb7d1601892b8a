//! Messages in MessagePack.

use proptest::prelude::*;

use super::*;
use crate::multilang::message::{Emit, EmitReply, ReturnedId, SpoutCommand, ToChild};
use stormkeeper_stream::test_support::any_value;

fn packed(json: &str) -> Vec<u8> {
    let value = Value::from_json(json).expect("JSON");
    rmp_serde::to_vec(&value).expect("MessagePack")
}

fn parts(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Part>, Error> {
    decoder.buffer().extend_from_slice(bytes);
    std::iter::from_fn(|| decoder.next_part().transpose()).collect()
}

#[test]
fn messages_to_a_component_are_maps_with_the_names_of_json() {
    let check = |message: ToChild<'_>| {
        let mut out = BytesMut::new();
        encode(&message, &mut out);
        let read: Value = rmp_serde::from_slice(&out).expect("one value");
        let json = serde_json::to_string(&message).expect("JSON");
        assert_eq!(read, Value::from_json(&json).expect("JSON"));
    };
    let values =
        [Value::from("x"), Value::Float(1.5), Value::BigInt("99999999999999999999".into()), Value::Null];
    check(ToChild::Tuple { id: "4", comp: Some("c"), stream: "s", task: 9, tuple: &values });
    check(ToChild::Tuple { id: "5", comp: None, stream: "__heartbeat", task: -1, tuple: &[] });
    check(ToChild::Command { command: SpoutCommand::Ack, id: &Value::Int(7) });
    check(ToChild::TaskIds(&[stormkeeper_model::TaskId(1), stormkeeper_model::TaskId(300)]));
    let mut handshake = BytesMut::new();
    encode(&serde_json::json!({ "conf": { "a": null, "n": 3, "x": 0.5 } }), &mut handshake);
    let read: Value = rmp_serde::from_slice(&handshake).expect("one value");
    assert_eq!(read, Value::from_json(r#"{"conf":{"a":null,"n":3,"x":0.5}}"#).expect("JSON"));
}

#[test]
fn messages_of_a_component_mean_what_they_mean_in_json() {
    for json in [
        r#"{"pid":17}"#,
        r#"{"command":"emit","tuple":["a",1,-7,2.5,null,true,{"k":[1]},99999999999999999999],"anchors":["1",2],"stream":"s"}"#,
        r#"{"command":"emit","id":{"n":1},"tuple":[],"need_task_ids":false,"task":9}"#,
        r#"{"command":"ack","id":"7"}"#,
        r#"{"command":"fail","id":7}"#,
        r#"{"command":"reset_timeout","id":"7"}"#,
        r#"{"command":"error","msg":"bad"}"#,
        r#"{"command":"log","msg":"x","level":3,"other":1}"#,
        r#"{"command":"metrics","name":"m","params":{"gauge":0.5}}"#,
        r#"{"command":"sync"}"#,
    ] {
        let expected = FromChild::parse(json.as_bytes()).expect("valid").message;
        assert_eq!(parse(&packed(json)).expect(json).message, expected);
    }
}

#[test]
fn message_that_is_not_valid_is_refused_with_what_an_emit_needs() {
    let check = |bytes: &[u8], part: &str| {
        let refused = parse(bytes).expect_err(part);
        assert!(refused.to_string().contains(part), "{refused}");
        refused.emit
    };
    assert_eq!(check(&packed(r#"{"command":"dance"}"#), "unknown command"), None);
    assert_eq!(check(&packed("[1]"), "not valid"), None);
    assert_eq!(check(&packed(r#"{"command":"log"}"#)[..5], "not valid"), None);
    let emit = |value: Value| {
        let message =
            [("command", "emit".into()), ("id", Value::Int(7)), ("tuple", Value::List(vec![value]))];
        let message = Value::Map(message.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        rmp_serde::to_vec(&message).expect("MessagePack")
    };
    for odd in [f64::NAN, f64::INFINITY] {
        let nested = Value::List(vec![Value::Map([("k".to_owned(), Value::Float(odd))].into())]);
        let emit = check(&emit(nested), "NaN and infinity").expect("an emit");
        assert_eq!((emit.id, emit.reply), (Some(Value::Int(7)), EmitReply::TaskIds));
    }
    // Binary data is no value of a tuple.
    check(&[0x81, 0xa3, b'm', b's', b'g', 0xc4, 1, b'x'], "binary data is no value");
    let nested = |depth: usize| (0..depth).fold(Value::Int(1), |value, _| Value::List(vec![value]));
    let deepest = parse(&emit(nested(VALUE_DEPTH_MAX))).expect("taken").message;
    let expected = Emit {
        id: Some(Value::Int(7)),
        stream: None,
        anchors: Vec::<ReturnedId>::new(),
        direct: None,
        values: vec![nested(VALUE_DEPTH_MAX)],
        reply: EmitReply::TaskIds,
    };
    assert_eq!(deepest, FromChild::Emit(expected));
    check(&emit(nested(VALUE_DEPTH_MAX + 5)), "depth");
}

#[test]
fn bytes_between_messages_cost_only_themselves() {
    let mut decoder = Decoder::new(1000);
    let sync = packed(r#"{"command":"sync"}"#);
    let stream = [b"printed\n".as_slice(), &sync, b"more", &sync].concat();
    let stray = |text: &str| Part::Stray(BytesMut::from(text));
    let message = || Part::Message(BytesMut::from(&*sync));
    assert_eq!(
        parts(&mut decoder, &stream),
        Ok(vec![stray("printed\n"), message(), stray("more"), message()])
    );
}

#[test]
fn message_that_is_too_long_is_rejected_as_soon_as_it_says_so() {
    let mut decoder = Decoder::new(1000);
    // A text of 2 GiB, and 1000 values one by one.
    let error = parts(&mut decoder, &[0x81, 0xa1, b'k', 0xdb, 0x7f, 0xff, 0xff, 0xff]).expect_err("too long");
    assert!(error.to_string().contains("exceeds 1000 bytes"), "{error}");
    let mut decoder = Decoder::new(1000);
    let mut stream = vec![0x81, 0xa1, b'k', 0xdd, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(parts(&mut decoder, &stream), Ok(vec![]));
    stream = vec![1; 993];
    assert!(parts(&mut decoder, &stream).is_err());
}

proptest! {
    #[test]
    fn messages_are_decoded_however_the_stream_is_split(
        values in prop::collection::vec(any_value(), 1..6),
        size in 1_usize..40,
    ) {
        let of = |value: &Value| {
            let message = Value::Map([("k".to_owned(), value.clone())].into());
            rmp_serde::to_vec(&message).expect("MessagePack")
        };
        let messages: Vec<Vec<u8>> = values.iter().map(of).collect();
        let stream = messages.concat();
        let mut decoder = Decoder::new(1 << 20);
        let mut read = Vec::new();
        for piece in stream.chunks(size) {
            for part in parts(&mut decoder, piece).expect("messages") {
                let Part::Message(message) = part else { panic!("{part:?}") };
                read.push(message.to_vec());
            }
        }
        prop_assert_eq!(read, messages);
        prop_assert!(decoder.buffer().is_empty());
    }
}

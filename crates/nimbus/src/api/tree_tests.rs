//! Bounds of what is shown of a znode, and what is withheld.

use serde_json::json;

use super::*;

fn path(text: &str) -> TreePath {
    text.parse().expect("valid")
}

fn content_of(at: &str, data: &Value) -> Content {
    let path = path(at);
    content(&path, data.to_string().as_bytes(), layout::explain(&path).is_some())
}

#[test]
fn pages_of_children_follow_each_other_and_the_last_has_no_next() {
    let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    let cut = |after, limit| page(names.clone(), after, limit);
    assert_eq!(cut(None, 2), (vec!["a".to_owned(), "b".to_owned()], Some("b".to_owned())));
    assert_eq!(cut(Some("b"), 2), (vec!["c".to_owned(), "d".to_owned()], Some("d".to_owned())));
    assert_eq!(cut(Some("d"), 2), (vec!["e".to_owned()], None));
    assert_eq!(cut(None, 5), (names.clone(), None), "a page that ends with the last name");
    assert_eq!(cut(Some("bb"), 1).0, ["c"], "a child that was deleted meanwhile");
    assert_eq!(cut(Some("z"), 2), (Vec::new(), None));
}

#[test]
fn values_of_credentials_and_unknown_fields_beside_them_are_not_shown() {
    let record = json!({
        "v": 1, "number": 3, "key": "k1", "entries": {"db": {"changed_ms": 1, "by": "ann"}},
        "sealed": "00ff", "newer": "hunter2",
    });
    let shown = content_of("/credentials/wc-1-1", &record).data.expect("a record");
    assert_eq!(shown["entries"], record["entries"]);
    assert_eq!((&shown["sealed"], &shown["newer"]), (&json!("(secret)"), &json!("(secret)")));
    let wrong = content(&path("/credentials/wc-1-1"), b"hunter2", true);
    assert_eq!((wrong.data, wrong.text), (None, None), "it may be a value");
    assert_eq!(content_of("/credentials/wc-1-1", &json!(["hunter2"])).data, Some(json!("(secret)")));
}

#[test]
fn secrets_in_other_records_are_masked() {
    let record = json!({"name": "wc", "settings": {"db.password": "hunter2", "n": 1}});
    let shown = content_of("/storms/wc-1-1", &record).data;
    assert_eq!(shown, Some(json!({"name": "wc", "settings": {"db.password": "(secret)", "n": 1}})));
}

#[test]
fn data_of_a_znode_that_is_not_of_the_layout_is_not_shown() {
    let found = content_of("/kafka/config", &json!({"x": "hunter2"}));
    assert_eq!((found.data, found.text), (None, None));
    assert!(found.withheld.expect("a reason").contains("not of the layout"));
    assert_eq!(content(&path("/kafka"), b"", false), Content::default(), "there is nothing to withhold");
}

#[test]
fn long_record_is_cut_after_its_secrets_are_masked_and_a_text_between_characters() {
    let record = json!({"a_password": "hunter2", "b": "ü".repeat(SHOWN_BYTES_MAX)});
    let found = content_of("/storms/wc-1-1", &record);
    let text = found.text.expect("its begin");
    assert!(text.len() <= SHOWN_BYTES_MAX && text.len() > SHOWN_BYTES_MAX - 2, "{}", text.len());
    assert!(!text.contains("hunter2") && text.contains("(secret)"));
    assert!(found.data.is_none() && found.withheld.is_some());
    let text = content(&path("/storms/wc-1-1"), &[0xff, b'x'], true).text;
    assert_eq!(text.as_deref(), Some("\u{fffd}x"), "no JSON, and no UTF-8");
}

#[test]
fn limit_beyond_the_bounds_is_refused_in_words() {
    let read = |text: &str| PageLimit::try_from(text.to_owned()).map(|PageLimit(limit)| limit);
    assert_eq!(read("5000"), Ok(5000));
    for wrong in ["0", "5001", "-1", "x", ""] {
        assert_eq!(read(wrong), Err("expected a whole number from 1 to 5000".to_owned()), "{wrong:?}");
    }
}

#[test]
fn path_that_zookeeper_does_not_take_is_refused_in_words() {
    let refused = |text: &str| path_of(text).expect_err("refused");
    assert!(path_of("/storms/\u{1f600}").is_ok());
    assert!(refused("/a\u{ffff}").contains("U+FFFF") && refused("/\u{e000}").contains("U+E000"));
    assert!(refused("/a\0").contains("control character"));
    assert_eq!(refused(&format!("/{}", "x".repeat(4096))), "a path has at most 4096 bytes");
}

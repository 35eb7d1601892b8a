//! Merge keys of YAML 1.1: `<<: *anchor` adds the entries of another map.
//!
//! Storm's files may contain them, as its YAML reader knows them. An entry of the map itself wins
//! over a merged entry, and in a list of maps the first one wins.

use std::collections::BTreeSet;

use super::{Error, MapKey, Node, Value};

const MERGE: &str = "<<";

/// Replaces the merge key of a map, if it has one, by the entries that the key adds.
///
/// # Errors
/// The value of the merge key is neither a map nor a list of maps.
pub(super) fn merge(entries: Vec<(MapKey, Node)>) -> Result<Vec<(MapKey, Node)>, Error> {
    if !entries.iter().any(|(key, _)| key.text == MERGE) {
        return Ok(entries);
    }
    let (merged, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.text == MERGE);
    let mut seen: BTreeSet<String> = own.iter().map(|(key, _)| key.text.clone()).collect();
    for (_, node) in merged {
        for (key, value) in maps(node)?.into_iter().flatten() {
            if seen.insert(key.text.clone()) {
                own.push((key, value));
            }
        }
    }
    Ok(own)
}

/// The maps that are the value of a merge key.
fn maps(node: Node) -> Result<Vec<Vec<(MapKey, Node)>>, Error> {
    match node.value {
        Value::List(items) => items.into_iter().map(map).collect(),
        Value::Null
        | Value::Flag(_)
        | Value::Whole(_)
        | Value::Number(_)
        | Value::Text(_)
        | Value::Map(_) => Ok(vec![map(node)?]),
    }
}

fn map(node: Node) -> Result<Vec<(MapKey, Node)>, Error> {
    if let Value::Map(entries) = node.value {
        return Ok(entries);
    }
    let what = format!(
        "`<<` merges maps, and this is {}; write `<<: *name`, where `&name` marks a map",
        node.value.kind()
    );
    Err(Error { at: node.at, what })
}

#[cfg(test)]
mod tests {
    use crate::yaml::parse;

    fn json(text: &str) -> String {
        parse(text).expect("YAML").to_json().to_string()
    }

    #[test]
    fn merged_entries_yield_to_entries_of_the_map_itself() {
        assert_eq!(
            json("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n"),
            r#"{"a":{"x":1,"y":2},"b":{"y":3,"x":1}}"#
        );
        assert_eq!(json("a: &a {x: 1}\nb: {x: 2, <<: *a}\n"), r#"{"a":{"x":1},"b":{"x":2}}"#);
    }

    #[test]
    fn first_map_of_a_merged_list_wins() {
        assert_eq!(
            json("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}\n"),
            r#"{"a":{"x":1},"b":{"x":2,"y":3},"c":{"x":1,"y":3}}"#
        );
    }

    #[test]
    fn map_that_merges_another_can_be_merged() {
        assert_eq!(
            json("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n"),
            r#"{"a":{"x":1},"b":{"y":2,"x":1},"c":{"z":3,"y":2,"x":1}}"#
        );
    }

    #[test]
    fn merged_entry_has_the_position_in_its_map() {
        let node = parse("a: &a\n  x: 1\nb:\n  <<: *a\n").expect("YAML");
        let x = node.get("b").and_then(|b| b.get("x")).expect("is there");
        assert_eq!(x.at.to_string(), "2:6");
    }

    #[test]
    fn merge_of_anything_but_maps_is_rejected() {
        let error = |text: &str| parse(text).expect_err(text).to_string();
        let expected =
            "1:5: `<<` merges maps, and this is a number; write `<<: *name`, where `&name` marks a map";
        assert_eq!(error("<<: 7\n"), expected);
        assert!(error("<<: [{a: 1}, x]\n").starts_with("1:14: `<<` merges maps, and this is a string;"));
        assert!(error("<<:\n").contains(": `<<` merges maps, and this is nothing;"));
    }
}

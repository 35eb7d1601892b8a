//! References of Flux: `{ref: name}` and `{reflist: [name, …]}`.
//!
//! A reference is the argument of a constructor or method, and stands for a Java object in
//! `components`. There are no such objects here.

use crate::{
    flux::walk::{At, Walk},
    yaml::Value,
};

/// Reports the references in the arguments of a wrapper as faults, and returns whether there are
/// any.
pub(super) fn reject_in(walk: &mut Walk, at: &At<'_>) -> bool {
    let mut found = Vec::new();
    find(at, &mut found);
    for (at, text) in &found {
        let what = format!("`{text}` stands for a Java object, and there are none");
        walk.fault(
            at,
            what,
            "write the value itself, or mark it with `&name` and repeat it with `*name`".to_owned(),
        );
    }
    !found.is_empty()
}

/// Reports what looks like a reference in a setting as a warning. As in Flux, it stays a map.
pub(super) fn warn_in(walk: &mut Walk, at: &At<'_>) {
    let mut found = Vec::new();
    find(at, &mut found);
    for (at, text) in found {
        let what = format!("`{text}` is passed to components as a map: settings contain no references");
        walk.warn(at.node.at, at.path, what);
    }
}

/// Finds the maps whose only key is `ref` or `reflist`, with their texts.
fn find<'a>(at: &At<'a>, found: &mut Vec<(At<'a>, String)>) {
    if let Some(items) = at.as_list() {
        items.iter().for_each(|item| find(item, found));
    }
    let Some(map) = at.as_map() else { return };
    let entries: Vec<_> = map.iter().collect();
    match entries.as_slice() {
        [(key, value)] if key.text == "ref" && matches!(value.node.value, Value::Text(_)) => {
            found.push((at.clone(), format!("{{ref: {}}}", value.as_text().unwrap_or_default())));
        }
        [(key, value)] if key.text == "reflist" && matches!(value.node.value, Value::List(_)) => {
            found.push((at.clone(), "{reflist: …}".to_owned()));
        }
        others => others.iter().for_each(|(_, value)| find(value, found)),
    }
}

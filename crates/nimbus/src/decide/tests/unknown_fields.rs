//! Fields that a newer build has added to records.

use super::world::{SECOND, World};
use serde_json::Value;
use stormkeeper_model::TaskId;

/// Records that the leader reads, changes and writes back.
const KEPT: [&str; 4] = ["storms", "tasks", "assignments", "supervisor-assignments"];

/// The records below the roots of [`KEPT`], and whether each has the unknown field.
fn marked(world: &World) -> Vec<(String, bool)> {
    let is_kept = |path: &str| KEPT.iter().any(|root| path.starts_with(&format!("/{root}/")));
    let records = world.nodes.iter().filter(|(path, _)| is_kept(path.as_str()));
    records
        .map(|(path, (data, _))| {
            let json: Value = serde_json::from_slice(data).expect("JSON");
            (path.to_string(), json["colour"] == "blue")
        })
        .collect()
}

#[test]
fn unknown_fields_survive_every_rewrite_and_cause_none() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    for (path, (data, _)) in &mut world.nodes {
        if KEPT.iter().any(|root| path.as_str().starts_with(&format!("/{root}/"))) {
            let mut json: Value = serde_json::from_slice(data).expect("JSON");
            json["colour"] = "blue".into();
            *data = json.to_string().into_bytes();
        }
    }
    assert_eq!(marked(&world).len(), 5, "{:?}", marked(&world));
    assert_eq!(world.decide().actions, []);

    let before = world.nodes.clone();
    world.rebalance(&id, SECOND, 3, Some(8));
    world.wait(SECOND);
    world.settle();
    world.silence(&id, [TaskId(1)]);
    world.wait(60 * SECOND);
    world.settle();
    let rewritten = |path: &str| {
        let path = path.parse().expect("valid path");
        before.get(&path).is_some_and(|(_, version)| *version < world.nodes[&path].1)
    };
    for (path, is_marked) in marked(&world) {
        assert!(is_marked && rewritten(&path), "{path}: marked {is_marked}, rewritten {}", rewritten(&path));
    }
}

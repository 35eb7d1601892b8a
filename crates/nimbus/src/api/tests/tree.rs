//! A look into the tree.

use super::access::{Keys, Sent, send, token};
use super::*;

const TREE: &str = "/api/stormkeeper/v1/tree";

#[tokio::test]
async fn znode_is_shown_with_its_meaning_its_owner_and_the_names_of_its_children() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    let look = async |query: &str| {
        let (status, body) = ask(&router, Method::GET, &format!("{TREE}{query}"), "").await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        body
    };
    let root = look("").await;
    assert_eq!((&root["path"], &root["explanation"]), (&json!("/"), &Value::Null));
    let names: Vec<&str> =
        root["children"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(names.is_sorted() && names.contains(&"storms") && names.contains(&"term"), "{names:?}");
    assert_eq!(root["childrenTotal"], names.len());

    let parent = look("?path=/supervisors").await;
    assert_eq!(parent["children"], json!(["s0"]));
    assert_eq!(parent["explanation"]["isParent"], true);
    let supervisor = look("?path=/supervisors/s0").await;
    assert_eq!(supervisor["explanation"]["layout"], "/supervisors/{supervisor-id}");
    assert_eq!(
        (&supervisor["explanation"]["kind"], &supervisor["data"]["host"]),
        (&json!("E"), &json!("host"))
    );
    let session = fixture.tree.session().borrow().connected().expect("connected");
    assert_eq!(supervisor["session"], session.to_string());
    assert!(supervisor["createdZxid"].as_str().is_some_and(|zxid| zxid.starts_with("0x")), "{supervisor}");

    let first = look("?limit=2").await;
    let rest = look(&format!("?limit=5000&after={}", first["next"].as_str().expect("there are more"))).await;
    let both: Vec<&Value> =
        [&first, &rest].iter().flat_map(|page| page["children"].as_array()).flatten().collect();
    assert_eq!(both, names, "the pages have each name once");
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test]
async fn znode_that_is_not_there_and_a_path_that_is_none_are_refused_with_the_reason() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    for (query, status, code, part) in [
        ("?path=/storms/none", StatusCode::NOT_FOUND, "unknown_znode", "/storms/none"),
        ("?path=storms", StatusCode::BAD_REQUEST, "invalid_request", "does not begin with a slash"),
        ("?path=/storms/../term", StatusCode::BAD_REQUEST, "invalid_request", "relative"),
        ("?path=/zookeeper/quota", StatusCode::BAD_REQUEST, "invalid_request", "reserved"),
        ("?limit=5001", StatusCode::BAD_REQUEST, "invalid_request", "from 1 to 5000"),
        ("?depth=9", StatusCode::BAD_REQUEST, "invalid_request", "depth"),
    ] {
        let (found, body) = ask(&router, Method::GET, &format!("{TREE}{query}"), "").await;
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{query}: {body}");
        assert!(body["message"].as_str().expect("a text").contains(part), "{query}: {body}");
    }
}

#[tokio::test]
async fn only_admins_look_into_a_locked_tree() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let look = async |own| send(&leader, &token(own), &Sent::new(Method::GET, TREE, "")).await.0;
    for own in [&keys.reader, &keys.operator, &keys.of_team] {
        assert_eq!(look(own).await, StatusCode::FORBIDDEN);
    }
    assert_eq!(look(&keys.admin).await, StatusCode::OK);
    let worker = keys.worker(&"wc-1-1".parse().expect("valid"));
    assert_eq!(send(&leader, &worker, &Sent::new(Method::GET, TREE, "")).await.0, StatusCode::FORBIDDEN);
}

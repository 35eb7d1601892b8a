//! Credentials and quotas of owners.

use super::{
    access::{Keys, Sent, answer, answer_of, host, send, token},
    *,
};
use stormkeeper_access::{
    credentials::Credentials, file::WatchedFile, locks::Mode, quota::Quotas, token::Token,
};

#[tokio::test]
async fn credentials_are_set_by_operators_listed_without_values_and_refused_without_a_cluster_secret() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let TopologyPackage { key, bytes } = blob("wc");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
    assert_eq!(send(&leader, &token(&keys.of_team), &put).await.0, StatusCode::CREATED);
    let body = json!({"blob": key, "owner": "x"}).to_string();
    let submit = Sent::new(Method::POST, "/api/stormkeeper/v1/topology/submit", &body);
    assert_eq!(send(&leader, &token(&keys.of_team), &submit).await.0, StatusCode::OK);

    let uri = "/api/stormkeeper/v1/topology/wc/credentials";
    let body = json!({"set": {"db": "s3cr3t"}}).to_string();
    let set = Sent::new(Method::POST, uri, &body);
    assert_eq!(send(&leader, &token(&keys.reader), &set).await.0, StatusCode::FORBIDDEN);
    let (status, answer) = send(&leader, &token(&keys.of_team), &set).await;
    assert_eq!((status, &answer["topologyOperation"]), (StatusCode::OK, &json!("credentials")), "{answer}");
    let list = Sent::new(Method::GET, uri, "");
    let (status, answer) = send(&leader, &token(&keys.reader), &list).await;
    assert_eq!((status, &answer["credentials"][0]["name"]), (StatusCode::OK, &json!("db")), "{answer}");
    assert!(!answer.to_string().contains("s3cr3t"), "{answer}");
    let topology = leader.handle().observation().expect("read").view.topologies.keys().next().cloned();
    let worker = keys.worker(&topology.expect("one"));
    assert_eq!(send(&leader, &worker, &list).await.0, StatusCode::FORBIDDEN, "workers have a file");
    let bad = json!({"set": {"a b": "s3cr3t"}}).to_string();
    let (status, answer) = send(&leader, &token(&keys.operator), &Sent::new(Method::POST, uri, &bad)).await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    assert!(!answer.to_string().contains("s3cr3t"), "{answer}");

    let fixture = Fixture::new().await;
    let open = fixture.leader().await;
    let put = Sent { body: blob("wc").bytes, ..put };
    assert_eq!(send(&open, &Credentials::None, &put).await.0, StatusCode::CREATED);
    assert_eq!(send(&open, &Credentials::None, &submit).await.0, StatusCode::OK);
    let (status, answer) = send(&open, &Credentials::None, &set).await;
    assert_eq!((status, &answer["code"]), (StatusCode::FORBIDDEN, &json!("switched_off")), "{answer}");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("storm.cluster.secret.file")));
}

#[tokio::test]
async fn two_submits_at_once_do_not_both_take_the_last_place_of_a_quota() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let quotas = keys.dir.path().join("quotas");
    std::fs::write(&quotas, "* topologies=2 blob-bytes=1MiB\n").expect("written");
    let quotas = WatchedFile::open(&quotas, Quotas::read).expect("valid");
    let options = nimbus::Options {
        locks: keys.locks(Mode::Required),
        quotas: Some(quotas.clone()),
        ..nimbus::Options::of_test(fixture.dir.path().join("leader"))
    };
    let started = start(options, fixture.server.connect(), Clock::new(), CancellationToken::new()).await;
    let leader = fixture.leading(started.expect("started")).await;
    let submit = async |name: &str, own: &Token| {
        let TopologyPackage { key, bytes } = blob(name);
        let uri = format!("/api/stormkeeper/v1/blobs/{key}");
        let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
        let mut put = put.request(&host(&leader), &token(own));
        let length = blob(name).bytes.len().to_string().parse().expect("a value");
        put.headers_mut().insert("content-length", length);
        assert_eq!(answer(&leader, put).await.0, StatusCode::CREATED);
        let body = json!({"blob": key, "owner": "x"}).to_string();
        send(&leader, &token(own), &Sent::new(Method::POST, "/api/stormkeeper/v1/topology/submit", &body))
            .await
    };
    assert_eq!(submit("first", &keys.of_team).await.0, StatusCode::OK);
    let both = tokio::join!(submit("second", &keys.of_team), submit("third", &keys.of_team));
    let mut statuses = [both.0.0, both.1.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::FORBIDDEN], "{both:?}");
    let refused = if both.0.0 == StatusCode::OK { both.1.1 } else { both.0.1 };
    assert_eq!(refused["code"], json!("quota_exceeded"));
    assert!(refused["message"].as_str().is_some_and(|said| said.contains("2 topologies")), "{refused}");
    assert_eq!(submit("of-bob", &keys.operator).await.0, StatusCode::OK, "another owner");

    let list_request = Sent::new(Method::GET, "/api/stormkeeper/v1/owner/summary", "");
    let (_, list) = send(&leader, &token(&keys.reader), &list_request).await;
    let of =
        |owner: &Value| (owner["owner"].clone(), owner["topologies"].clone(), owner["topologiesMax"].clone());
    let owners: Vec<_> = list["owners"].as_array().expect("a list").iter().map(of).collect();
    assert_eq!(owners, [(json!("bob"), json!(1), json!(2)), (json!("team"), json!(2), json!(2))]);
    assert!(list["owners"][1]["blobBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{list}");

    let raised = keys.dir.path().join("quotas");
    std::fs::write(&raised, "* topologies=3 blob-bytes=10\n").expect("written");
    quotas.refresh();
    let TopologyPackage { key, bytes } = blob("fourth");
    let uri = format!("/api/stormkeeper/v1/blobs/{key}");
    let length = bytes.len().to_string().parse().expect("a value");
    let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
    let mut put = put.request(&host(&leader), &token(&keys.of_team));
    put.headers_mut().insert("content-length", length);
    let (status, _, refused) = answer(&leader, put).await;
    assert_eq!((status, &refused["code"]), (StatusCode::FORBIDDEN, &json!("quota_exceeded")), "{refused}");
    std::fs::write(&raised, "* topologies=3 blob-bytes=1MiB\n").expect("written");
    quotas.refresh();
    let n_bytes = blob("fourth").bytes.len();
    let put = Sent { body: blob("fourth").bytes, ..Sent::new(Method::PUT, &uri, "") };
    let mut put = put.request(&host(&leader), &token(&keys.of_team));
    put.headers_mut().insert("content-length", n_bytes.to_string().parse().expect("a value"));
    // One API has seen both requests.
    let api = routes(leader.handle().clone());
    let created = api.clone().oneshot(put).await.expect("infallible");
    assert_eq!(created.status(), StatusCode::CREATED);
    let list = api.oneshot(list_request.request(&host(&leader), &token(&keys.reader))).await;
    let list = axum::body::to_bytes(list.expect("infallible").into_body(), usize::MAX).await.expect("a body");
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    assert_eq!(list["owners"][1]["unusedBlobBytes"], json!(n_bytes), "no topology uses it: {list}");
    std::fs::write(&raised, "* topologies=3\n").expect("written");
    quotas.refresh();
    assert_eq!(submit("fourth", &keys.of_team).await.0, StatusCode::OK, "the quota was raised");
}

#[tokio::test]
async fn upload_without_a_submit_is_shown_for_its_owner_also_without_quotas() {
    let (fixture, keys) = (Fixture::new().await, Keys::new());
    let leader = fixture.locked_leader(&keys).await;
    let (router, host) = (routes(leader.handle().clone()), host(&leader));
    let TopologyPackage { key, bytes } = blob("wc");
    let (n_bytes, uri) = (bytes.len(), format!("/api/stormkeeper/v1/blobs/{key}"));
    let put = Sent { body: bytes, ..Sent::new(Method::PUT, &uri, "") };
    let (status, _, _) = answer_of(&router, put.request(&host, &token(&keys.of_team))).await;
    assert_eq!(status, StatusCode::CREATED);
    let list = Sent::new(Method::GET, "/api/stormkeeper/v1/owner/summary", "");
    let unused = async || {
        let (_, _, list) = answer_of(&router, list.request(&host, &token(&keys.reader))).await;
        (list["owners"][0]["owner"].clone(), list["owners"][0]["unusedBlobBytes"].clone())
    };
    assert_eq!(unused().await, (json!("team"), json!(n_bytes)));
    let body = json!({"blob": key, "owner": "x"}).to_string();
    let submit = Sent::new(Method::POST, "/api/stormkeeper/v1/topology/submit", &body);
    assert_eq!(send(&leader, &token(&keys.of_team), &submit).await.0, StatusCode::OK);
    assert_eq!(unused().await, (json!("team"), json!(0)), "a topology has it");
}

//! Daemons that everybody may use who reaches them.

use super::*;

#[tokio::test]
async fn daemons_that_need_no_proof_are_one_line_of_list_and_cluster_and_named_among_the_nimbuses() {
    let f = Fixture::new().await;
    let exposed = Some("everybody may use its API".to_owned());
    let options =
        nimbus::Options { exposed: exposed.clone(), ..nimbus::Options::of_test(f.dir.path().join("n")) };
    let open = start(options, f.server.connect(), Clock::new(), CancellationToken::new()).await;
    let open = f.leading(open.expect("started")).await;
    let router = routes(open.handle().clone());
    let path = layout::supervisor(&"s0".parse().expect("valid"));
    let node = f.tree.get(&path).await.expect("read").expect("there");
    let record: SupervisorRecord = record::decode(&path, &node.data).expect("valid");
    for n in 0..7 {
        let path = layout::supervisor(&format!("t{n}").parse().expect("valid"));
        let record = SupervisorRecord { host: format!("h{n}"), exposed: exposed.clone(), ..record.clone() };
        f.tree.create(&path, &record::encode(&record), CreateMode::Ephemeral).await.expect("created");
    }
    wait_until("the daemons are named", LONG, async || {
        for route in ["topology/summary", "cluster/summary"] {
            let (_, shown) = ask(&router, Method::GET, &format!("/api/stormkeeper/v1/{route}"), "").await;
            let expected = "the cluster is not locked: 1 nimbus and 7 supervisors on 127.0.0.1, h0, h1, h2, h3 \
                            and 3 more may be used without a proof";
            let lines = shown["problems"].as_array().cloned().unwrap_or_default();
            if !matches!(&lines[..], [line] if line.as_str().is_some_and(|text| text.starts_with(expected))) {
                return Err(shown.to_string());
            }
        }
        Ok(())
    })
    .await;
    let (_, nimbuses) = ask(&router, Method::GET, "/api/stormkeeper/v1/nimbus/summary", "").await;
    assert_eq!(nimbuses["nimbuses"][0]["exposed"], "everybody may use its API");
    let (_, shown) = ask(&router, Method::GET, "/api/stormkeeper/v1/supervisor/summary", "").await;
    assert_eq!(shown["supervisors"].as_array().map(Vec::len), Some(8), "{shown}");
}

#[tokio::test]
async fn cluster_on_loopback_is_not_called_open() {
    let f = Fixture::new().await;
    let router = routes(f.leader().await.handle().clone());
    let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/summary", "").await;
    assert_eq!(list.get("problems"), None, "{list}");
}

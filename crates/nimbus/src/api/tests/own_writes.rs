//! Reads see what the same client wrote, on any nimbus.

use super::{
    replicas::{blob_with_copies, submit},
    *,
};
use stormkeeper_api_types::{
    message::{DrainRequest, KillRequest},
    seen::{Change, ZXID},
};
use stormkeeper_model::{HostName, TreeId, Zxid, status::TopologyStatus};

fn client(running: &Running) -> Client {
    Client::new(vec![running.handle().api().to_owned()], Timeouts::default()).expect("made")
}

#[tokio::test]
async fn a_read_on_a_follower_sees_what_the_client_wrote_on_the_leader() {
    let fixture = Fixture::new().await;
    let (leader, follower) = (fixture.leader().await, fixture.deaf_follower().await);
    let (writer, without) = (client(&leader), client(&follower));
    let reader = |writer: &Client| client(&follower).after(writer.seen());

    submit(&writer, blob_with_copies("wc", 1, 1)).await.expect("accepted");
    let unknown = without.show("wc").await.expect_err("no event has told the follower");
    assert_eq!(unknown.refusal().map(|body| body.code), Some(Code::UnknownTopology), "{unknown}");
    reader(&writer).show("wc").await.expect("the topology that was submitted");

    writer.deactivate("wc").await.expect("accepted");
    assert_eq!(without.show("wc").await.expect("shown").summary.status, TopologyStatus::Active);
    assert_eq!(reader(&writer).show("wc").await.expect("shown").summary.status, TopologyStatus::Inactive);

    let host: HostName = "host".parse().expect("valid");
    writer.drain(&host, &DrainRequest { wait_secs: Some(0) }).await.expect("accepted");
    assert!(reader(&writer).supervisors().await.expect("listed").supervisors[0].drained);
    writer.undrain(&host).await.expect("accepted");
    assert!(!reader(&writer).supervisors().await.expect("listed").supervisors[0].drained);

    writer.kill("wc", &KillRequest { wait_secs: Some(600) }).await.expect("accepted");
    let listed = reader(&writer).list().await.expect("listed");
    assert_eq!(listed.topologies[0].status, TopologyStatus::Killed);
}

#[tokio::test]
async fn a_read_of_what_the_nimbus_cannot_see_says_so_after_a_while() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let router = routes(leader.handle().clone());
    let ask = async |zxid: String| {
        let request =
            Request::builder().uri("/api/stormkeeper/v1/topology/summary").header("host", "localhost");
        let request = request.header(ZXID, zxid).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK, "the read is answered all the same");
        response.headers().contains_key(BEHIND)
    };
    let now = leader.handle().zxid();
    assert!(now.0 > 0, "the election is an event");
    let tree = leader.handle().tree_id().expect("the election has named the tree");
    let change = |tree: &TreeId, zxid| Change { tree: tree.clone(), zxid: Zxid(zxid) }.to_string();
    assert!(!ask(change(&tree, now.0)).await);
    assert!(ask(change(&tree, i64::MAX)).await);
    let other = TreeId("of another cluster".to_owned());
    assert!(ask(format!("{},{}", change(&other, 1), change(&tree, i64::MAX))).await);
    for ignored in ["", "x", "-1", "99999999999999999999", &change(&other, i64::MAX)] {
        assert!(!ask(ignored.to_owned()).await, "{ignored:?}");
    }
}

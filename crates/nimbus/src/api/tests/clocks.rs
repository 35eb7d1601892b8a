//! Clocks that differ from the leader's.

use super::*;

/// A nimbus whose clock is ahead of this host's by `ahead`.
async fn start_ahead(f: &Fixture, name: &str, ahead: Duration) -> Running {
    let clock = Clock::paced(Clock::new().now().plus(ahead));
    let options = nimbus::Options::of_test(f.dir.path().join(name));
    start(options, f.server.connect(), clock, CancellationToken::new()).await.expect("started")
}

#[tokio::test]
async fn nimbus_whose_clock_differs_from_the_leaders_is_named_by_every_replica() {
    let f = Fixture::new().await;
    let leader = f.leading(start_ahead(&f, "leader", Duration::ZERO).await).await;
    let follower = start_ahead(&f, "follower", Duration::from_secs(5)).await;
    let near = start_ahead(&f, "near", Duration::from_secs(1)).await;
    let (named, not_named) = (follower.handle().id().to_string(), near.handle().id().to_string());
    let routers = [&leader, &follower].map(|nimbus| routes(nimbus.handle().clone()));
    wait_until("both replicas name the clock", LONG, async || {
        for router in &routers {
            let (_, list) = ask(router, Method::GET, "/api/stormkeeper/v1/topology/summary", "").await;
            let (_, nimbuses) = ask(router, Method::GET, "/api/stormkeeper/v1/nimbus/summary", "").await;
            let expected = format!("the clock of nimbus {named} on ");
            let differs =
                |text: &str| text.contains(&expected) && text.contains(" s ahead of the leader's (");
            let lists = list["problems"][0].as_str().is_some_and(differs);
            let of_nimbus = nimbuses["nimbuses"].as_array().into_iter().flatten();
            let shown: Vec<bool> = of_nimbus
                .filter(|one| one["id"] == named.as_str())
                .map(|one| one["clockProblem"].as_str().is_some_and(differs))
                .collect();
            if !lists || shown != [true] {
                return Err(format!("{list} {nimbuses}"));
            }
        }
        Ok(())
    })
    .await;
    let (_, cluster) = ask(&routers[0], Method::GET, "/api/stormkeeper/v1/cluster/summary", "").await;
    assert_eq!(cluster["problems"].as_array().map(Vec::len), Some(1), "{cluster}");
    assert!(!cluster["problems"].to_string().contains(&not_named), "{cluster}");
}

#[tokio::test]
async fn clock_that_a_supervisor_reports_is_named_and_supervisors_beyond_ten_are_counted() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let path = layout::supervisor(&"s0".parse().expect("valid"));
    let node = f.tree.get(&path).await.expect("read").expect("there");
    let record: SupervisorRecord = record::decode(&path, &node.data).expect("valid");
    for n in 0..12 {
        let path = layout::supervisor(&format!("t{n:02}").parse().expect("valid"));
        let record = SupervisorRecord { clock_ahead_ms: Some(-65_432), ..record.clone() };
        f.tree.create(&path, &record::encode(&record), CreateMode::Ephemeral).await.expect("created");
    }
    wait_until("the list names the clocks", LONG, async || {
        let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/summary", "").await;
        let problems = list["problems"].as_array().cloned().unwrap_or_default();
        let texts: Vec<&str> = problems.iter().filter_map(Value::as_str).collect();
        let first = "the clock of supervisor t00 on host is 65.4 s behind the leader's (";
        let is_named = texts.first().is_some_and(|text| text.starts_with(first) && text.contains("NTP"));
        let counts = texts.last().is_some_and(|text| text.starts_with("the clocks of 2 more supervisors"));
        if is_named && counts && texts.len() == 11 { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
}

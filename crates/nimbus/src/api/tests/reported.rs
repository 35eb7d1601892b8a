//! Problems that supervisors report, in responses.

use super::*;
use stormkeeper_coordination::cluster::reported_problem::ReportedProblem;
use stormkeeper_model::task_set::TaskSet;

/// Writes the problems into the record of the only supervisor.
async fn report(fixture: &Fixture, problems: Vec<ReportedProblem>) {
    let path = layout::supervisor(&"s0".parse().expect("valid"));
    let data = fixture.tree.get(&path).await.expect("read").expect("there").data;
    let mut supervisor: SupervisorRecord = record::decode(&path, &data).expect("readable");
    supervisor.problems = problems;
    fixture.tree.set(&path, &record::encode(&supervisor), None).await.expect("written");
}

#[tokio::test]
async fn reported_problem_is_shown_and_idle_tasks_do_not_count_as_alive() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let app = routes(leader.handle().clone());
    let id = submitted_wc(&app).await;
    let assigned = wait_until("it is placed", LONG, || async {
        let store = Store::new(Arc::clone(&fixture.tree));
        let stored = store.assignment(&id).await.map_err(|error| error.to_string())?;
        stored.map(|stored| stored.value).filter(|it| !it.workers.is_empty()).ok_or("no".to_owned())
    })
    .await;
    let all: TaskSet = assigned.tasks();
    for task in all.iter() {
        let path = layout::taskbeat(&id, task);
        fixture.tree.create(&path, b"{}", CreateMode::Ephemeral).await.expect("created");
    }
    let (slot, worker) = assigned.workers.first_key_value().expect("placed");
    let first: TaskSet = worker.tasks.iter().take(1).collect();
    let of_worker = ReportedProblem::of_slot(slot.port, Some(id.clone()), "worker at host:6700: why");
    let of_port = ReportedProblem::of_slot(Port(6701), None, "port 6701 is taken");
    report(&fixture, vec![ReportedProblem { idle: first, ..of_worker }, of_port]).await;
    wait_until("the list shows it", LONG, || async {
        let (_, list) = ask(&app, Method::GET, "/api/stormkeeper/v1/topology/summary", Body::empty()).await;
        let topology = &list["topologies"][0];
        let is_shown =
            topology["problem"].as_str().is_some_and(|text| text.contains("worker at host:6700: why"))
                && topology["tasksAlive"] == all.len() - 1
                && list["problems"] == serde_json::json!(["port 6701 is taken"]);
        if is_shown { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    let (_, supervisors) =
        ask(&app, Method::GET, "/api/stormkeeper/v1/supervisor/summary", Body::empty()).await;
    assert_eq!(supervisors["supervisors"][0]["problems"].as_array().map(Vec::len), Some(2), "{supervisors}");
}

/// Its workers run, but the table cannot show it.
#[tokio::test]
async fn topology_whose_record_was_deleted_is_shown_by_all_reads() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let app = routes(leader.handle().clone());
    let id = submitted_wc(&app).await;
    wait_until("it is placed", LONG, || async {
        let store = Store::new(Arc::clone(&fixture.tree));
        let stored = store.assignment(&id).await.map_err(|error| error.to_string())?;
        stored.map(drop).ok_or("no".to_owned())
    })
    .await;
    fixture.tree.delete(&layout::storm(&id), None).await.expect("deleted");
    let expected = format!("{id}: /storms/{id} is missing");
    for path in ["/api/stormkeeper/v1/topology/summary", "/api/stormkeeper/v1/cluster/summary"] {
        wait_until("the line is there", LONG, || async {
            let (_, shown) = ask(&app, Method::GET, path, Body::empty()).await;
            let problems = shown["problems"].as_array().cloned().unwrap_or_default();
            let is_it = |text: &str| text.starts_with(&expected) && text.contains("restore the znode");
            match problems.iter().any(|problem| problem.as_str().is_some_and(is_it)) {
                true => Ok(()),
                false => Err(shown.to_string()),
            }
        })
        .await;
    }
    for text in [id.as_str(), "wc"] {
        let (status, refused) =
            ask(&app, Method::GET, &format!("/api/stormkeeper/v1/topology/{text}"), Body::empty()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
        assert!(refused.to_string().contains(&format!("/storms/{id} is missing")), "{refused}");
    }
}

/// One line, which names the remedy, in each answer.
#[tokio::test]
async fn record_that_cannot_be_read_is_shown_once_with_its_remedy() {
    let fixture = Fixture::new().await;
    let leader = fixture.leader().await;
    let app = routes(leader.handle().clone());
    let id = submitted_wc(&app).await;
    fixture.tree.set(&layout::tasks(&id), b"garbage", None).await.expect("written");
    wait_until("show names it", LONG, || async {
        let (_, shown) =
            ask(&app, Method::GET, &format!("/api/stormkeeper/v1/topology/{id}"), Body::empty()).await;
        let text = shown["problem"].as_str().unwrap_or_default().to_owned();
        let is_shown = text.contains(&format!("/tasks/{id} cannot be read, so nimbus leaves it unchanged: "))
            && text.contains("; correct it with zkCli or restore it");
        if is_shown { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let (_, list) = ask(&app, Method::GET, "/api/stormkeeper/v1/topology/summary", Body::empty()).await;
    let (path, unreadable) = (format!("/tasks/{id}"), &list["unreadable"]);
    assert_eq!(list.to_string().matches("cannot be read").count(), 0, "only `unreadable` has it: {list}");
    assert_eq!(unreadable[0]["path"], path.as_str(), "{list}");
    assert!(unreadable[0]["remedy"].as_str().is_some_and(|text| text.starts_with("correct it")), "{list}");

    fixture.tree.set(&layout::storm(&id), b"garbage", None).await.expect("written");
    for path in ["topology/wc", &format!("topology/{id}"), "topology/wc/errors"] {
        wait_until("it is refused with the record's path", LONG, || async {
            let (_, refused) =
                ask(&app, Method::GET, &format!("/api/stormkeeper/v1/{path}"), Body::empty()).await;
            let is_it = refused["code"] == "unreadable_record"
                && refused["message"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(&format!("/storms/{id} ")))
                && refused["hint"].as_str().is_some_and(|text| text.starts_with("correct it"));
            if is_it { Ok(()) } else { Err(refused.to_string()) }
        })
        .await;
    }
}

//! Tests of properties that no injected bug violates, with histories written by hand.
//!
//! Each history begins with a cluster in the expected state, and has one event that violates a
//! property.

mod lost_hosts;
mod metric_log;
mod play;

use std::{slice, sync::Arc};

use self::play::{
    History, assignment, create, delete, id, name, process, set, slot, tasks_of, topology_record,
};
use super::*;
use stormkeeper_access::quota::Quota;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, StoredError, TopologyRecord},
        store::ERRORS_KEPT,
    },
    tree::{CreateMode, Op, Tree as _, TreePath, Version},
};
use stormkeeper_model::{Port, TaskId, Term, TopologyId, status::TopologyStatus};
use stormkeeper_supervisor::process::StopSignal;

#[tokio::test(start_paused = true)]
async fn slots_is_violated_by_a_launch_where_a_process_still_runs() {
    let history = History::converged().await;
    history.end("w0");
    history.launch("w2", 0);
    assert_eq!(history.violation(), None);
    history.launch("w3", 0);
    assert_eq!(history.violation(), Some("slots"));
}

#[tokio::test(start_paused = true)]
async fn tasks_is_violated_by_a_worker_that_runs_other_tasks_than_its_slot() {
    let history = History::converged().await;
    history.end("w0");
    history.launch("w2", 0);
    assert_eq!(history.violation(), None);
    history.start_tasks("w2", tasks_of(1));
    assert_eq!(history.violation(), Some("tasks"));
}

#[test]
fn tasks_is_violated_by_a_task_that_runs_twice() {
    let mut model = ClusterModel::default();
    model.assignments.insert(id(), assignment(&[0, 1]));
    for worker in ["w0", "w1"] {
        assert_eq!(super::tasks::Tasks.state(&model), Ok(()));
        model.machine(&MachineEvent::Launched(process(worker, 0, 1)));
        model.machine(&MachineEvent::ReadTasks { worker: name(worker), tasks: tasks_of(0) });
    }
    let found = super::tasks::Tasks.state(&model).expect_err("both are assigned");
    assert_eq!(found, "task 1 of wc-1-100 runs in w0 and in w1");
}

#[tokio::test(start_paused = true)]
async fn terms_is_violated_by_a_write_in_a_term_that_another_nimbus_won() {
    let history = History::converged().await;
    let other = history.env.server.connect();
    history.env.journal().register_owner(other.id(), Party::Nimbus("nimbus-1".to_owned()));
    let write = |term| {
        let check = Op::Check { path: layout::term(), version: Some(Version(term)) };
        [check, set(layout::storm(&id()), record::encode(&topology_record(TopologyStatus::Inactive)))]
    };
    history.leader.close().await;
    history.elect(&other).await;
    history.commit(&other, write(2)).await;
    assert_eq!(history.violation(), None);
    // The term is the current one, so fencing accepts the write.
    let third = history.env.server.connect();
    history.env.journal().register_owner(third.id(), Party::Nimbus("nimbus-2".to_owned()));
    history.commit(&third, write(2)).await;
    assert_eq!(history.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn terms_is_violated_by_a_term_without_a_leader() {
    let history = History::converged().await;
    let data = record::encode(&record::Election {
        term: Term(2),
        nimbus: "n".parse().expect("valid id"),
        unknown_fields: Default::default(),
    });
    history.commit(&history.leader, [set(layout::term(), data)]).await;
    assert_eq!(history.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn terms_is_violated_by_a_term_that_begins_again_after_the_term_was_deleted() {
    let history = History::converged().await;
    let operator = history.env.server.connect();
    history.env.journal().register_owner(operator.id(), Party::Operator);
    history.commit(&operator, [delete(layout::leader()), delete(layout::term())]).await;
    assert_eq!(history.violation(), None);
    let term = create(layout::term(), Vec::new());
    let leader = Op::Create { path: layout::leader(), data: Vec::new(), mode: CreateMode::Ephemeral };
    history.commit(&history.leader, [term, set(layout::term(), Vec::new()), leader]).await;
    assert_eq!(history.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn terms_is_violated_by_a_leader_without_a_new_term() {
    let history = History::converged().await;
    history.commit_as_leader([delete(layout::leader())]).await;
    assert_eq!(history.violation(), None);
    let mode = CreateMode::Ephemeral;
    history.commit(&history.leader, [Op::Create { path: layout::leader(), data: Vec::new(), mode }]).await;
    assert_eq!(history.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn quotas_is_violated_by_a_topology_or_a_task_beyond_the_quota() {
    for (quota, violation) in [
        (Quota { topologies: Some(2), ..Quota::default() }, None),
        (Quota { topologies: Some(1), ..Quota::default() }, Some("quotas")),
        (Quota { tasks: Some(4), ..Quota::default() }, None),
        (Quota { tasks: Some(3), ..Quota::default() }, Some("quotas")),
    ] {
        let history = History::converged().await;
        history.env.journal().set_quota(quota);
        let second: TopologyId = "other-2-100".parse().expect("valid id");
        let record = TopologyRecord {
            name: "other".parse().expect("a name"),
            ..topology_record(TopologyStatus::Active)
        };
        history.commit_as_leader([create(layout::storm(&second), record::encode(&record))]).await;
        assert_eq!(history.violation(), violation, "{quota:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn signals_is_violated_by_a_signal_to_a_healthy_assigned_worker() {
    let history = History::converged().await;
    let terminate = |n| MachineEvent::Signalled { worker: name(n), signal: StopSignal::Terminate };
    history.record(MachineEvent::Hangs { worker: name("w0") });
    history.record(terminate("w0"));
    assert_eq!(history.violation(), None);
    history.record(terminate("w1"));
    assert_eq!(history.violation(), Some("signals"));
}

#[tokio::test(start_paused = true)]
async fn errors_is_violated_by_more_errors_than_are_kept() {
    let history = History::converged().await;
    let error = |n: usize| {
        let error = StoredError {
            time: play::START,
            component: "work".parse().expect("valid id"),
            task: TaskId(1),
            host: "h".to_owned(),
            port: Port(6700),
            message: format!("error {n}"),
            stack: String::new(),
            unknown_fields: Default::default(),
        };
        let path = layout::taskerror_prefix(&id(), TaskId(1));
        Op::Create { path, data: record::encode(&error), mode: CreateMode::PersistentSequential }
    };
    for n in 0..ERRORS_KEPT {
        history.commit(&history.workers[0], [error(n)]).await;
    }
    assert_eq!(history.violation(), None);
    history.commit(&history.workers[0], [error(ERRORS_KEPT)]).await;
    assert_eq!(history.violation(), Some("errors"));
}

#[tokio::test(start_paused = true)]
async fn errors_is_violated_by_a_confirmed_error_that_is_not_stored() {
    let history = History::converged().await;
    let message = "lost".to_owned();
    history.record(MachineEvent::ErrorStored { topology: id(), task: TaskId(1), message });
    assert_eq!(history.violation(), Some("errors"));
}

/// Returns the difference that is found after `damage` has damaged a running topology.
async fn missing_after(damage: impl AsyncFnOnce(&History)) -> String {
    let history = History::converged().await;
    damage(&history).await;
    history.check_converged().expect_err("a difference is found")
}

#[tokio::test(start_paused = true)]
async fn whole_reports_everything_that_can_be_missing() {
    let id = id();
    for (status, word) in [(TopologyStatus::Killed, "killed"), (TopologyStatus::Rebalancing, "rebalancing")] {
        let damage = async |history: &History| {
            history
                .commit_as_leader([set(layout::storm(&id), record::encode(&topology_record(status)))])
                .await
        };
        assert_eq!(missing_after(damage).await, format!("wc-1-100 is {word}"));
    }
    let without = async |path: TreePath| {
        missing_after(async |history: &History| history.commit_as_leader([delete(path)]).await).await
    };
    assert_eq!(without(layout::storm(&id)).await, "wc-1-100 has no record");
    assert_eq!(without(layout::tasks(&id)).await, "/tasks/wc-1-100 does not exist");
    assert_eq!(without(layout::assignment(&id)).await, "wc-1-100 has no assignment");
    assert_eq!(without(layout::taskbeat(&id, TaskId(4))).await, "task 4 of wc-1-100 has no heartbeat");
    let half = set(layout::assignment(&id), record::encode_assignment(&assignment(&[0])));
    let found = missing_after(async |history: &History| history.commit_as_leader([half]).await).await;
    assert_eq!(found, "wc-1-100 has the tasks 1-4, but places 1-2");
    let found = missing_after(async |history: &History| history.end("w1")).await;
    assert_eq!(found, "s1:6701 runs no worker of wc-1-100");
    let hangs = async |history: &History| history.record(MachineEvent::Hangs { worker: name("w1") });
    assert_eq!(missing_after(hangs).await, "s1:6701 runs no worker of wc-1-100");
    let starts = async |history: &History| {
        history.end("w1");
        history.launch("w2", 1);
    };
    assert_eq!(missing_after(starts).await, "w2 does not run 3-4 of wc-1-100 yet");
    let beaten_for = async |history: &History| {
        history.commit(&history.workers[1], [delete(layout::taskbeat(&id, TaskId(4)))]).await;
        history.heartbeat(0, TaskId(4)).await;
    };
    assert_eq!(missing_after(beaten_for).await, "task 4 of wc-1-100 has no heartbeat");
}

#[tokio::test(start_paused = true)]
async fn gone_reports_everything_that_can_be_left() {
    let history = History::converged().await;
    // Like a removal: the parts of the topology are deleted one by one, with a check after each
    // part.
    history.commit_as_leader([delete(layout::storm(&id()))]).await;
    let mut found = Vec::new();
    let mut goes = async |ops: &[Op]| {
        found.push(history.check_no_residue().expect_err("a residue is found"));
        history.commit_as_leader(ops.iter().cloned()).await;
    };
    goes(&[delete(layout::assignment(&id()))]).await;
    goes(&[delete(layout::tasks(&id()))]).await;
    let heartbeats = (1..5).map(|task| layout::taskbeat(&id(), TaskId(task)));
    let heartbeats: Vec<Op> = heartbeats.chain([layout::taskbeats(&id())]).map(delete).collect();
    goes(&heartbeats).await;
    let errors = [layout::taskerrors_of_task(&id(), TaskId(1)), layout::taskerrors(&id())].map(delete);
    goes(&errors).await;
    goes(slice::from_ref(&delete(layout::supervisor_assignments(&slot(0).supervisor)))).await;
    goes(&[create(layout::metrics(&id()), Vec::new())]).await;
    goes(&[delete(layout::metrics(&id()))]).await;
    for (worker, left) in [("w0", "w0"), ("w1", "w1")] {
        found.push(history.check_no_residue().expect_err("a process still runs"));
        assert!(found.last().is_some_and(|found| found.starts_with(left)), "{found:?}");
        history.end(worker);
    }
    assert_eq!(history.check_no_residue(), Ok(()));
    let expected = [
        "/assignments/wc-1-100 was not removed",
        "/tasks/wc-1-100 was not removed",
        "/taskbeats/wc-1-100 was not removed",
        "/taskerrors/wc-1-100 was not removed",
        "/supervisor-assignments/s1 names version 0 of wc-1-100, not the assignment's version",
        "w0 of wc-1-100 still runs",
        "/metrics/wc-1-100 was not removed",
        "w0 of wc-1-100 still runs",
        "w1 of wc-1-100 still runs",
    ];
    assert_eq!(found, expected);
}

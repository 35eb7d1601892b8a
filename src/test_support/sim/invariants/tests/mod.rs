//! Properties that no bug put in on purpose goes against, seen failing: histories by hand.
//!
//! Each begins with a cluster that runs as it should, and does one thing too much.

mod play;

use std::slice;

use self::play::{Play, assignment, create, delete, id, name, process, set, slot, storm, tasks_of};
use super::*;
use crate::{
    cluster::{
        layout,
        record::{self, StoredError},
        store::ERRORS_KEPT,
    },
    model::{Port, TaskId, Term, status::TopologyStatus},
    supervisor::process::StopSignal,
    tree::{CreateMode, Op, Tree as _, TreePath, Version},
};

#[tokio::test(start_paused = true)]
async fn slots_a_launch_where_a_process_still_runs() {
    let play = Play::whole().await;
    play.end("w0");
    play.launch("w2", 0);
    assert_eq!(play.violation(), None);
    play.launch("w3", 0);
    assert_eq!(play.violation(), Some("slots"));
}

#[tokio::test(start_paused = true)]
async fn tasks_a_worker_that_runs_others_than_its_slot_has() {
    let play = Play::whole().await;
    play.end("w0");
    play.launch("w2", 0);
    assert_eq!(play.violation(), None);
    play.begin("w2", tasks_of(1));
    assert_eq!(play.violation(), Some("tasks"));
}

#[test]
fn tasks_one_that_runs_twice() {
    let mut facts = Facts::default();
    facts.assignments.insert(id(), assignment(&[0, 1]));
    for worker in ["w0", "w1"] {
        assert_eq!(super::tasks::Tasks.state(&facts), Ok(()));
        facts.machine(&MachineEvent::Launched(process(worker, 0, 1)));
        facts.machine(&MachineEvent::Began { worker: name(worker), tasks: tasks_of(0) });
    }
    let found = super::tasks::Tasks.state(&facts).expect_err("both are assigned");
    assert_eq!(found, "task 1 of wc-1-100 runs in w0 and in w1");
}

#[tokio::test(start_paused = true)]
async fn terms_a_write_in_a_term_that_another_won() {
    let play = Play::whole().await;
    let other = play.ground.server.connect();
    play.ground.journal().introduce(other.id(), Party::Nimbus("nimbus-1".to_owned()));
    let write = |term| {
        let check = Op::Check { path: layout::term(), version: Some(Version(term)) };
        [check, set(layout::storm(&id()), record::encode(&storm(TopologyStatus::Inactive)))]
    };
    play.leader.close().await;
    play.elect(&other).await;
    play.commit(&other, write(2)).await;
    assert_eq!(play.violation(), None);
    // The term is the current one, so the fence lets it pass.
    let third = play.ground.server.connect();
    play.ground.journal().introduce(third.id(), Party::Nimbus("nimbus-2".to_owned()));
    play.commit(&third, write(2)).await;
    assert_eq!(play.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn terms_one_that_begins_without_a_leader() {
    let play = Play::whole().await;
    let data = record::encode(&record::Election { term: Term(2), nimbus: "n".parse().expect("valid id") });
    play.commit(&play.leader, [set(layout::term(), data)]).await;
    assert_eq!(play.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn terms_a_leader_without_one_that_begins() {
    let play = Play::whole().await;
    play.lead([delete(layout::leader())]).await;
    assert_eq!(play.violation(), None);
    let mode = CreateMode::Ephemeral;
    play.commit(&play.leader, [Op::Create { path: layout::leader(), data: Vec::new(), mode }]).await;
    assert_eq!(play.violation(), Some("terms"));
}

#[tokio::test(start_paused = true)]
async fn signals_one_to_a_worker_that_is_wanted() {
    let play = Play::whole().await;
    let terminate = |n| MachineEvent::Signalled { worker: name(n), signal: StopSignal::Terminate };
    play.happens(MachineEvent::Hangs { worker: name("w0") });
    play.happens(terminate("w0"));
    assert_eq!(play.violation(), None);
    play.happens(terminate("w1"));
    assert_eq!(play.violation(), Some("signals"));
}

#[tokio::test(start_paused = true)]
async fn errors_more_than_are_kept() {
    let play = Play::whole().await;
    let error = |n: usize| {
        let error = StoredError {
            time: play::START,
            component: "work".parse().expect("valid id"),
            task: TaskId(1),
            host: "h".to_owned(),
            port: Port(6700),
            message: format!("error {n}"),
            stack: String::new(),
        };
        let path = layout::taskerror_prefix(&id(), TaskId(1));
        Op::Create { path, data: record::encode(&error), mode: CreateMode::PersistentSequential }
    };
    for n in 0..ERRORS_KEPT {
        play.commit(&play.workers[0], [error(n)]).await;
    }
    assert_eq!(play.violation(), None);
    play.commit(&play.workers[0], [error(ERRORS_KEPT)]).await;
    assert_eq!(play.violation(), Some("errors"));
}

#[tokio::test(start_paused = true)]
async fn errors_one_that_is_not_where_it_was_said_to_be() {
    let play = Play::whole().await;
    let message = "lost".to_owned();
    play.happens(MachineEvent::ErrorStored { topology: id(), task: TaskId(1), message });
    assert_eq!(play.violation(), Some("errors"));
}

/// What is found missing once `spoil` has spoilt a whole topology.
async fn missing_after(spoil: impl AsyncFnOnce(&Play)) -> String {
    let play = Play::whole().await;
    spoil(&play).await;
    play.is_whole().expect_err("something is missing")
}

#[tokio::test(start_paused = true)]
async fn whole_everything_that_can_be_missing() {
    let id = id();
    for (status, word) in [(TopologyStatus::Killed, "killed"), (TopologyStatus::Rebalancing, "rebalancing")] {
        let spoil =
            async |play: &Play| play.lead([set(layout::storm(&id), record::encode(&storm(status)))]).await;
        assert_eq!(missing_after(spoil).await, format!("wc-1-100 is {word}"));
    }
    let without =
        async |path: TreePath| missing_after(async |play: &Play| play.lead([delete(path)]).await).await;
    assert_eq!(without(layout::storm(&id)).await, "wc-1-100 has no record");
    assert_eq!(without(layout::tasks(&id)).await, "/tasks/wc-1-100 is not there");
    assert_eq!(without(layout::assignment(&id)).await, "wc-1-100 has no assignment");
    assert_eq!(without(layout::taskbeat(&id, TaskId(4))).await, "task 4 of wc-1-100 does not beat");
    let half = set(layout::assignment(&id), record::encode_assignment(&assignment(&[0])));
    let found = missing_after(async |play: &Play| play.lead([half]).await).await;
    assert_eq!(found, "wc-1-100 has the tasks 1-4 and places 1-2");
    let found = missing_after(async |play: &Play| play.end("w1")).await;
    assert_eq!(found, "s1:6701 runs no worker of wc-1-100");
    let hangs = async |play: &Play| play.happens(MachineEvent::Hangs { worker: name("w1") });
    assert_eq!(missing_after(hangs).await, "s1:6701 runs no worker of wc-1-100");
    let starts = async |play: &Play| {
        play.end("w1");
        play.launch("w2", 1);
    };
    assert_eq!(missing_after(starts).await, "w2 does not run 3-4 of wc-1-100 yet");
    let beaten_for = async |play: &Play| {
        play.commit(&play.workers[1], [delete(layout::taskbeat(&id, TaskId(4)))]).await;
        play.beat(0, TaskId(4)).await;
    };
    assert_eq!(missing_after(beaten_for).await, "task 4 of wc-1-100 does not beat");
}

#[tokio::test(start_paused = true)]
async fn gone_everything_that_can_be_left() {
    let play = Play::whole().await;
    // As a removal is: what is named after the topology goes, and this is looked at after
    // each part.
    play.lead([delete(layout::storm(&id()))]).await;
    let mut found = Vec::new();
    let mut goes = async |ops: &[Op]| {
        found.push(play.is_gone().expect_err("something is left"));
        play.lead(ops.iter().cloned()).await;
    };
    goes(&[delete(layout::assignment(&id()))]).await;
    goes(&[delete(layout::tasks(&id()))]).await;
    let beats = (1..5).map(|task| layout::taskbeat(&id(), TaskId(task)));
    let beats: Vec<Op> = beats.chain([layout::taskbeats(&id())]).map(delete).collect();
    goes(&beats).await;
    let errors = [layout::taskerrors_of_task(&id(), TaskId(1)), layout::taskerrors(&id())].map(delete);
    goes(&errors).await;
    goes(slice::from_ref(&delete(layout::orders(&slot(0).supervisor)))).await;
    goes(&[create(layout::metrics(&id()), Vec::new())]).await;
    goes(&[delete(layout::metrics(&id()))]).await;
    for (worker, left) in [("w0", "w0"), ("w1", "w1")] {
        found.push(play.is_gone().expect_err("a process is left"));
        assert!(found.last().is_some_and(|found| found.starts_with(left)), "{found:?}");
        play.end(worker);
    }
    assert_eq!(play.is_gone(), Ok(()));
    let expected = [
        "/assignments/wc-1-100 is left",
        "/tasks/wc-1-100 is left",
        "/taskbeats/wc-1-100 is left",
        "/taskerrors/wc-1-100 is left",
        "/orders/s1 names version 0 of wc-1-100, which is not the assignment's",
        "w0 of wc-1-100 still runs",
        "/metrics/wc-1-100 is left",
        "w0 of wc-1-100 still runs",
        "w1 of wc-1-100 still runs",
    ];
    assert_eq!(found, expected);
}

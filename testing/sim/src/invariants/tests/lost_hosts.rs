//! Histories of a host that is lost, and of hosts that are not.

use std::time::Duration;

use super::{
    play::{History, START, assignment, create, delete, id, set, slot, tasks_of},
    *,
};
use stormkeeper_coordination::{cluster::layout::Ephemeral, tree::memory::MemorySession};
use stormkeeper_model::{SupervisorId, status::PendingChange};

struct Hosts {
    history: History,
    supervisors: Vec<Arc<MemorySession>>,
}

impl Hosts {
    /// The supervisor of both workers, called `s1`, and two others, long after the election.
    async fn running() -> Self {
        let history = History::converged().await;
        let mut supervisors = Vec::new();
        for name in ["s1", "s2", "s3"] {
            let session = history.env.server.connect();
            history.env.journal().register_owner(session.id(), Party::Supervisor(name.to_owned()));
            supervisors.push(session);
        }
        let hosts = Self { history, supervisors };
        for n in 0..3 {
            hosts.register(n).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        hosts
    }

    fn id_of(n: usize) -> SupervisorId {
        // The assignment of the history names the first without digits.
        let name = if n == 0 { slot(0).supervisor.to_string() } else { format!("s{}-abc", n + 1) };
        name.parse().expect("valid id")
    }

    async fn register(&self, n: usize) {
        let path = Ephemeral::Supervisor(Self::id_of(n)).path();
        let register = Op::Create { path, data: Vec::new(), mode: CreateMode::Ephemeral };
        self.history.commit(&self.supervisors[n], [register]).await;
    }

    async fn deregister(&self, n: usize) {
        let path = layout::supervisor(&Self::id_of(n));
        self.history.commit(&self.supervisors[n], [delete(path)]).await;
    }

    async fn announce_stop(&self, by: usize, of: usize) {
        let path = layout::stopped_supervisor(&Self::id_of(of));
        self.history.commit(&self.supervisors[by], [create(path, Vec::new())]).await;
    }

    /// The sessions of both workers end; their processes may be cut off.
    async fn end_heartbeats(&self) {
        for n in 0..2 {
            for task in tasks_of(n).iter() {
                let beat = delete(layout::taskbeat(&id(), task));
                self.history.commit(&self.history.workers[usize::from(n)], [beat]).await;
            }
        }
    }

    /// Moves the first worker away; returns the violation.
    async fn violation_of_move(self) -> Option<String> {
        assert_eq!(self.history.violation(), None);
        let data = record::encode_assignment(&assignment(&[1]));
        self.history.commit_as_leader([set(layout::assignment(&id()), data)]).await;
        let journal = self.history.env.journal();
        journal.violation().map(ToString::to_string)
    }
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_host_loses_its_workers() {
    let hosts = Hosts::running().await;
    hosts.deregister(0).await;
    hosts.end_heartbeats().await;
    pass(1).await;
    assert_eq!(hosts.violation_of_move().await, None);
}

#[tokio::test(start_paused = true)]
async fn lost_hosts_is_violated_by_a_move_of_a_host_that_is_not_lost() {
    let moved = "lost hosts: the worker in s1:6700 of wc-1-100 was moved, although ";
    let healthy = "moves: the healthy worker in s1:6700 of wc-1-100 was moved or restarted";

    let hosts = Hosts::running().await;
    hosts.announce_stop(0, 0).await;
    hosts.deregister(0).await;
    hosts.end_heartbeats().await;
    // The processes end with the container.
    hosts.history.end("w0");
    hosts.history.end("w1");
    pass(1).await;
    let reason = format!("{moved}its supervisor has announced its stop");
    assert_eq!(hosts.violation_of_move().await, Some(reason));

    let hosts = Hosts::running().await;
    hosts.deregister(0).await;
    pass(1).await;
    assert_eq!(hosts.violation_of_move().await.as_deref(), Some(healthy), "its workers have heartbeats");

    let hosts = Hosts::running().await;
    hosts.deregister(0).await;
    hosts.deregister(1).await;
    hosts.end_heartbeats().await;
    hosts.history.end("w0");
    hosts.history.end("w1");
    pass(11).await;
    let reason = format!("{moved}2 of 3 supervisors vanished together");
    assert_eq!(hosts.violation_of_move().await, Some(reason));

    let hosts = Hosts::running().await;
    hosts.deregister(0).await;
    hosts.end_heartbeats().await;
    hosts.history.commit_as_leader([delete(layout::leader())]).await;
    hosts.history.elect(&hosts.history.leader).await;
    pass(5).await;
    assert_eq!(hosts.history.violation(), None);
    let check = Op::Check { path: layout::term(), version: Some(Version(2)) };
    let data = record::encode_assignment(&assignment(&[1]));
    hosts.history.commit(&hosts.history.leader, [check, set(layout::assignment(&id()), data)]).await;
    assert_eq!(hosts.history.violation(), Some("moves"), "the leader has not settled");
}

#[tokio::test(start_paused = true)]
async fn fencing_is_violated_by_an_announcement_of_another_process() {
    let hosts = Hosts::running().await;
    hosts.announce_stop(1, 1).await;
    assert_eq!(hosts.history.violation(), None);
    hosts.announce_stop(1, 2).await;
    assert_eq!(hosts.history.violation(), Some("fencing"));

    let hosts = Hosts::running().await;
    let path = layout::stopped_supervisor(&Hosts::id_of(1));
    hosts.history.commit(&hosts.history.workers[0], [create(path, Vec::new())]).await;
    assert_eq!(hosts.history.violation(), Some("fencing"));
}

#[tokio::test(start_paused = true)]
async fn moves_is_violated_by_a_grow_back_of_a_topology_that_did_not_ask_for_it() {
    for (asked, violation) in [(Some(60), None), (None, Some("moves"))] {
        let Hosts { history, supervisors: _supervisors } = Hosts::running().await;
        let pending = PendingChange::Rebalance {
            deadline: START,
            resume: TopologyStatus::Active,
            workers: None,
            parallelism: Default::default(),
            only_drained: false,
            restart: false,
            grow_back: true,
        };
        let before = TopologyRecord {
            grow_back_secs: asked,
            pending: Some(pending),
            ..topology_record(TopologyStatus::Rebalancing)
        };
        let after = TopologyRecord { pending: None, status: TopologyStatus::Active, ..before.clone() };
        history.commit_as_leader([set(layout::storm(&id()), record::encode(&before))]).await;
        assert_eq!(history.violation(), None);
        let moved = set(layout::assignment(&id()), record::encode_assignment(&assignment(&[1])));
        let resumed = set(layout::storm(&id()), record::encode(&after));
        history.commit_as_leader([resumed, moved]).await;
        assert_eq!(history.violation(), violation, "{asked:?}");
    }
}

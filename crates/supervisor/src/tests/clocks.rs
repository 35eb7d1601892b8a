//! The clock and the cluster secret of a supervisor that differ from the leader's.

use async_trait::async_trait;

use super::*;
use stormkeeper_api_types::{
    http,
    leader_clock::{NimbusTime, SelfReport},
    proof_check::{ProofFault, ShowProof, Verdict},
};
use stormkeeper_coordination::cluster::record::{Leader, SupervisorRecord};
use stormkeeper_model::Term;

/// A leader whose clock is a minute ahead of `clock`.
#[derive(Debug)]
struct FastLeader {
    clock: Clock,
}

#[async_trait]
impl NimbusTime for FastLeader {
    async fn ask(&self, api: &str) -> Result<SelfReport, http::Error> {
        assert_eq!(api, "leader:1");
        let time = Some(self.clock.now().plus(Duration::from_secs(60)));
        Ok(SelfReport { time, ..SelfReport::default() })
    }
}

/// A leader with another secret than the supervisor.
#[derive(Debug)]
struct OtherSecret;

#[async_trait]
impl ShowProof for OtherSecret {
    async fn show(&self, api: &str) -> Verdict {
        assert_eq!(api, "leader:1");
        Verdict::Refused(ProofFault::OtherSecret)
    }
}

async fn put_leader(world: &World) {
    let leader = Leader {
        nimbus: "n1".parse().expect("valid id"),
        api: "leader:1".to_owned(),
        term: Term(1),
        unknown_fields: Default::default(),
    };
    world.put(&layout::leader(), record::encode(&leader)).await;
}

#[tokio::test(start_paused = true)]
async fn supervisor_reports_a_clock_that_differs_from_the_leaders() {
    let world = World::new().await;
    put_leader(&world).await;
    let agent = world.agent(world.processes.clone()).await.expect("started");
    let path = layout::supervisor(&agent.status().borrow().supervisor);
    agent.compare_clocks(Arc::new(FastLeader { clock: world.clock.clone() }));
    let stop = CancellationToken::new();
    let until = stop.clone();
    world.tasks.start("supervisor", OnExit::Ignore, async move {
        agent.run(until).await.expect("nothing broke");
    });
    wait_until("the record has the difference", TIMEOUT, async || {
        let node = world.tree.get(&path).await.expect("read").ok_or("not registered".to_owned())?;
        let record: SupervisorRecord = record::decode(&path, &node.data).expect("readable");
        match record.clock_ahead_ms {
            Some(ahead) if (-60_010..=-59_990).contains(&ahead) => Ok(()),
            ahead => Err(format!("{ahead:?}")),
        }
    })
    .await;
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn supervisor_reports_that_the_leader_refuses_its_proofs_before_it_has_something_to_send() {
    let world = World::new().await;
    put_leader(&world).await;
    let agent = world.agent(world.processes.clone()).await.expect("started");
    let path = layout::supervisor(&agent.status().borrow().supervisor);
    agent.show_proof(Arc::new(OtherSecret));
    let stop = CancellationToken::new();
    let until = stop.clone();
    world.tasks.start("supervisor", OnExit::Ignore, async move {
        agent.run(until).await.expect("nothing broke");
    });
    wait_until("the record has the problem", Duration::from_secs(15), async || {
        let node = world.tree.get(&path).await.expect("read").ok_or("not registered".to_owned())?;
        let record: SupervisorRecord = record::decode(&path, &node.data).expect("readable");
        match &record.problems[..] {
            [problem] if problem.text.contains("supervisor at h has another cluster secret") => Ok(()),
            problems => Err(format!("{problems:?}")),
        }
    })
    .await;
    stop.cancel();
}

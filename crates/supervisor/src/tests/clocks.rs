//! The clock of a supervisor that differs from the leader's.

use async_trait::async_trait;

use super::*;
use stormkeeper_api_types::{
    http,
    leader_clock::{NimbusTime, SelfReport},
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
        Ok(SelfReport { time, process: None })
    }
}

#[tokio::test(start_paused = true)]
async fn supervisor_reports_a_clock_that_differs_from_the_leaders() {
    let world = World::new().await;
    let leader = Leader {
        nimbus: "n1".parse().expect("valid id"),
        api: "leader:1".to_owned(),
        term: Term(1),
        unknown_fields: Default::default(),
    };
    world.put(&layout::leader(), record::encode(&leader)).await;
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

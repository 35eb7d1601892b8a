//! Announcement of a clean stop.

use std::sync::Mutex;

use super::*;
use stormkeeper_coordination::{
    cluster::record::StoppedSupervisor,
    tree::{Op, memory::listener::What},
};

/// The changes of the registration and of the announcement, in order.
fn record_changes(world: &World) -> Arc<Mutex<Vec<String>>> {
    let changes = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&changes);
    world.server.listen(move |commit| {
        let mut all = Vec::new();
        match commit.what {
            What::SessionEnded(paths) => all.extend(paths.iter().map(|path| format!("ends {path}"))),
            What::Transaction { ops, .. } => all.extend(ops.iter().filter_map(|op| match op {
                Op::Create { path, .. } => Some(format!("creates {path}")),
                Op::Set { path, .. } => Some(format!("sets {path}")),
                Op::Delete { path, .. } => Some(format!("deletes {path}")),
                Op::Check { .. } => None,
            })),
        }
        let of_supervisors = all.into_iter().filter(|change| change.contains("supervisors/"));
        seen.lock().expect("not poisoned").extend(of_supervisors);
    });
    changes
}

async fn is_registered(world: &World, me: &SupervisorId) {
    wait_until("it is registered and its stop is withdrawn", TIMEOUT, || async {
        let registered = world.tree.get(&layout::supervisor(me)).await.expect("read");
        let stopped = world.tree.get(&layout::stopped_supervisor(me)).await.expect("read");
        match (registered, stopped) {
            (Some(_), None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn clean_stop_is_announced_while_the_supervisor_is_registered() {
    for on_stop in [OnStop::LeaveWorkers, OnStop::StopWorkers] {
        let mut world = World::new().await;
        world.on_stop = on_stop;
        let supervisor = world.supervisor().await;
        let me = supervisor.me.clone();
        is_registered(&world, &me).await;
        let changes = record_changes(&world);
        supervisor.stop().await;
        let path = layout::stopped_supervisor(&me);
        let node = world.tree.get(&path).await.expect("read").expect("the stop is announced");
        let stopped: StoppedSupervisor = record::decode(&path, &node.data).expect("readable");
        assert_eq!(stopped.host, "h");

        let again = world.supervisor().await;
        is_registered(&world, &again.me).await;
        let expected = [
            format!("creates /stopped-supervisors/{me}"),
            format!("deletes /supervisors/{me}"),
            format!("creates /supervisors/{me}"),
            format!("deletes /stopped-supervisors/{me}"),
        ];
        assert_eq!(*changes.lock().expect("not poisoned"), expected);
        again.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn registration_says_that_stops_are_announced() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    is_registered(&world, &supervisor.me).await;
    let path = layout::supervisor(&supervisor.me);
    let node = world.tree.get(&path).await.expect("read").expect("registered");
    assert!(record::decode::<record::SupervisorRecord>(&path, &node.data).expect("readable").announces_stop);
    supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_takes_effect_although_it_cannot_be_announced() {
    let world = World::new().await;
    let supervisor = world.supervisor().await;
    is_registered(&world, &supervisor.me).await;
    world.server.set_online(false);
    let began = tokio::time::Instant::now();
    supervisor.stop().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

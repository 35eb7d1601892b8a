//! Ends of log levels.

use super::{
    effects,
    world::{SECOND, World},
};
use crate::log_levels::with_level;
use stormkeeper_api_types::message::LogLevelRequest;
use stormkeeper_model::{Timestamp, log_control::LogLevel};

#[test]
fn a_leader_ends_a_log_level_at_its_time_and_a_new_leader_does_it_too() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    let request = LogLevelRequest { component: None, level: Some(LogLevel::Debug), for_secs: Some(60) };
    world.edit(&id, |record| *record = with_level(record, &request, Timestamp::from_millis(1_000_000)));
    let plan = world.decide();
    assert_eq!(plan.actions, []);
    assert!(plan.next.is_some_and(|next| next <= 60 * SECOND), "{:?}", plan.next);
    world.wait(59 * SECOND);
    world.send_heartbeats();
    assert_eq!(world.decide().actions, []);
    world.fail_over();
    world.wait(SECOND);
    world.send_heartbeats();
    let plan = world.decide();
    assert_eq!(effects(&plan), ["end log levels"]);
    world.execute(&plan);
    assert_eq!(world.topology_record(&id).expect("there").log_levels, None);
    assert_eq!(world.decide().actions, []);
}

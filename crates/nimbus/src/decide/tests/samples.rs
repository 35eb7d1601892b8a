//! Ends of samples of tuples.

use super::{
    effects,
    world::{SECOND, World},
};
use crate::samples::with_sample;
use stormkeeper_api_types::message::SampleRequest;
use stormkeeper_model::Timestamp;

#[test]
fn a_leader_ends_a_sample_at_its_time_and_a_new_leader_does_it_too() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    let component = "split".parse().expect("valid");
    let request = SampleRequest { component, one_in: None, per_sec: None, for_secs: Some(60), stop: false };
    world.edit(&id, |record| *record = with_sample(record, &request, Timestamp::from_millis(1_000_000)));
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
    assert_eq!(effects(&plan), ["end samples of tuples"]);
    world.execute(&plan);
    assert_eq!(world.topology_record(&id).expect("there").tuple_samples, None);
    assert_eq!(world.decide().actions, []);
}

use super::world::{SECOND, World};
use super::{NOW, effects};
use crate::plan::{ClusterProblem, Effect};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::TopologyId;

#[test]
fn an_unreadable_record_is_reported_and_its_topology_unchanged() {
    let roots: [fn(&TopologyId) -> stormkeeper_coordination::tree::TreePath; 3] =
        [layout::storm, layout::tasks, layout::assignment];
    for root in roots {
        let mut world = World::with_supervisors(2, 2);
        let id = world.running("bad", 4, 2);
        let before = world.nodes.clone();
        world.put(root(&id), b"garbage".to_vec());
        world.remove_supervisor("s1");
        world.send_heartbeats();
        world.decide();
        world.wait(3600 * SECOND);
        let plan = world.decide();
        assert_eq!(plan.actions, [], "with an unreadable {}", root(&id));
        assert!(
            matches!(&plan.findings[0].problem, ClusterProblem::Unreadable { path, .. } if *path == root(&id))
        );
        let others = |nodes: &std::collections::BTreeMap<stormkeeper_coordination::tree::TreePath, _>| {
            nodes.keys().filter(|path| !path.as_str().contains("beats")).cloned().collect::<Vec<_>>()
        };
        let gone: Vec<_> =
            others(&before).into_iter().filter(|path| !world.nodes.contains_key(path)).collect();
        assert_eq!(gone, [layout::supervisor(&"s1".parse().expect("valid"))]);
        // The others are placed, but in no slot that the unreadable one may have.
        world.supervisor("s2", 1);
        let good = world.submit("good", 2, 2);
        world.settle();
        world.check();
        let placed = world.assignment(&good).expect("placed");
        if root(&id) == layout::assignment(&id) {
            assert!(placed.supervisors().all(|supervisor| supervisor.as_str() == "s2"), "{placed:?}");
        }
    }
}

#[test]
fn supervisor_assignments_of_a_newer_build_are_never_overwritten() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    let supervisor = world.assignment(&id).expect("placed").supervisors().next().expect("one").clone();
    let path = layout::supervisor_assignments(&supervisor);
    for (data, is_rebuilt) in [(&b"garbage"[..], true), (br#"{"v":99}"#, false)] {
        world.put(path.clone(), data.to_vec());
        let plan = world.decide();
        assert_eq!(plan.actions.len(), usize::from(is_rebuilt), "{:?}", plan.actions);
        let [finding] = &plan.findings[..] else { panic!("{:?}", plan.findings) };
        assert_eq!(matches!(&finding.problem, ClusterProblem::Rebuilt { .. }), is_rebuilt, "{finding:?}");
        assert_eq!(matches!(&finding.problem, ClusterProblem::Unreadable { .. }), !is_rebuilt, "{finding:?}");
    }
}

#[test]
fn damaged_fingerprint_of_metrics_is_said_to_be_written_again_unless_a_newer_build_wrote_it() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("wc", 4, 2);
    for (data, is_rebuilt) in [(&b"garbage"[..], true), (br#"{"v":99}"#, false)] {
        world.put(layout::metrics(&id), data.to_vec());
        let plan = world.decide();
        assert_eq!(plan.actions, [], "the plan does not touch it");
        let [finding] = &plan.findings[..] else { panic!("{:?}", plan.findings) };
        let text = finding.problem.to_string();
        assert_eq!(text.contains("writes it again from its metric store"), is_rebuilt, "{text}");
        assert_eq!(matches!(&finding.problem, ClusterProblem::Unreadable { .. }), !is_rebuilt, "{finding:?}");
    }
}

#[test]
fn a_killed_topology_with_an_unreadable_assignment_can_be_removed() {
    let mut world = World::with_supervisors(2, 2);
    let id = world.running("bad", 4, 2);
    world.put(layout::assignment(&id), b"garbage".to_vec());
    world.put(layout::tasks(&id), b"garbage".to_vec());
    world.kill(&id, NOW);
    world.settle();
    world.send_heartbeats();
    world.settle();
    assert!(!world.nodes.keys().any(|path| path.as_str().contains(id.as_str())));
    assert!(
        world
            .view()
            .supervisor_assignments
            .values()
            .all(|supervisor_assignments| supervisor_assignments.value.topologies.is_empty())
    );
}

#[test]
fn differing_supervisor_assignments_are_corrected() {
    let mut world = World::with_supervisors(1, 2);
    world.running("wc", 2, 1);
    let path = layout::supervisor_assignments(&"s0".parse().expect("valid"));
    let right = world.nodes[&path].0.clone();
    for wrong in [&br#"{"v":1,"topologies":{"x-1-1":3}}"#[..], br#"{"v":1,"topologies":{}}"#, b"garbage"] {
        world.put(path.clone(), wrong.to_vec());
        let plan = world.decide();
        assert_eq!(effects(&plan), ["correct /supervisor-assignments/s0"]);
        world.execute(&plan);
        assert_eq!(world.nodes[&path].0, right);
    }
    world.nodes.remove(&path);
    assert_eq!(effects(&world.decide()), ["correct /supervisor-assignments/s0"]);
}

#[test]
fn a_missing_parent_of_heartbeats_is_created_again() {
    let mut world = World::with_supervisors(1, 2);
    let id = world.running("wc", 2, 1);
    world.nodes.retain(|path, _| !path.is_at_or_below(&layout::taskbeats(&id)));
    let plan = world.decide();
    assert!(matches!(plan.actions[0].effect, Effect::RestoreParents { heartbeats: true, errors: false, .. }));
}

#[test]
fn an_oversized_assignment_is_reported_and_does_not_block_others() {
    let mut world = World::with_supervisors(1, 2);
    for n in 0..3000 {
        world.supervisor(&format!("{}-{n}", "long-name".repeat(15)), 1);
    }
    let big = world.submit("big", 3000, 3000);
    let small = world.submit("small", 2, 1);
    let plan = world.decide();
    assert!(matches!(plan.findings[0].problem, ClusterProblem::TooLarge { .. }), "{:?}", plan.findings);
    world.execute(&plan);
    assert!(world.assignment(&big).is_none() && world.assignment(&small).is_some());
}

#[test]
fn topology_with_the_name_of_another_is_reported() {
    let mut world = World::with_supervisors(2, 2);
    let (first, second) = (world.running("al", 2, 1), world.running("wc", 2, 1));
    world.edit(&second, |record| record.name = "al".parse().expect("valid"));
    let plan = world.decide();
    assert_eq!(plan.actions, [], "both run on");
    let [finding] = &plan.findings[..] else { panic!("{:?}", plan.findings) };
    assert_eq!(finding.topology.as_ref(), Some(&second));
    let text = finding.problem.to_string();
    assert!(
        text.starts_with(&format!("/storms/{second} has the name al, which is the name of {first} too")),
        "{text}"
    );
}

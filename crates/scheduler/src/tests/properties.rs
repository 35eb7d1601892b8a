//! Properties of placements of random problems.

use super::*;

/// A cluster and topologies of all shapes; nothing placed yet.
pub(crate) fn problems() -> impl Strategy<Value = Problem> {
    let supervisors = prop::collection::vec((0usize..5, 0u16..5), 0..8);
    let topologies = prop::collection::vec((1u32..7, prop::collection::vec(1u32..7, 1..4)), 1..6);
    (supervisors, topologies).prop_map(|(supervisors, topologies)| Problem {
        supervisors: supervisors
            .into_iter()
            .enumerate()
            .map(|(n, (host, slots))| (supervisor_id(n), supervisor(&format!("h{host}"), slots)))
            .collect(),
        topologies: topologies
            .into_iter()
            .enumerate()
            .map(|(n, (workers, parallelism))| topology(n, workers, &parallelism))
            .collect(),
        ..Problem::default()
    })
}

/// Marks some tasks as dead, by a pattern of bits.
pub(crate) fn with_dead(problem: &mut Problem, pattern: u64) {
    for (n, topology) in problem.topologies.iter_mut().enumerate() {
        let lives = |task: TaskId| pattern.rotate_left(task.0 + 7 * u32::try_from(n).expect("few")) & 1 == 0;
        topology.keep = Keep::Healthy(topology.tasks.tasks().iter().filter(|task| lives(*task)).collect());
    }
}

fn is_even(sizes: impl Iterator<Item = usize> + Clone) -> bool {
    sizes.clone().max().unwrap_or(0) <= sizes.min().unwrap_or(0) + 1
}

proptest! {
    #[test]
    fn every_solution_passes_the_lint_and_solving_again_changes_nothing(mut problem in problems()) {
        let first = solve(&problem, &Solution::default());
        prop_assert_eq!(violations(&problem, &Solution::default(), &first), []);
        all_healthy(&mut problem);
        prop_assert_eq!(solve(&problem, &first), first);
    }

    #[test]
    fn new_workers_are_even_in_size_and_in_tasks_of_each_component(problem in problems()) {
        let solution = solve(&problem, &Solution::default());
        for topology in &problem.topologies {
            let workers = &solution.placements[&topology.id].workers;
            prop_assert!(is_even(workers.values().map(TaskSet::len)));
            for tasks in topology.tasks.0.values() {
                let of_it = |worker: &TaskSet| worker.iter().filter(|task| tasks.contains(*task)).count();
                prop_assert!(is_even(workers.values().map(of_it)));
            }
        }
    }

    #[test]
    fn a_single_topology_is_even_over_hosts(
        hosts in 1usize..6, slots in 1u16..4, workers in 1u32..20,
    ) {
        let mut problem = cluster(hosts, slots);
        problem.topologies = vec![topology(0, workers, &[20])];
        let placement = &solve(&problem, &Solution::default()).placements[&topology_id(0)];
        let expected = (workers as usize).min(hosts * usize::from(slots));
        prop_assert_eq!(placement.workers.len(), expected);
        let counts = per_host(&problem, placement);
        let all = problem.supervisors.values().map(|s| counts.get(s.host.as_str()).copied().unwrap_or(0));
        prop_assert!(is_even(all));
    }

    #[test]
    fn no_slot_is_free_while_a_task_is_unplaced(problem in problems()) {
        let solution = solve(&problem, &Solution::default());
        let n_slots: usize = problem.supervisors.values().map(|s| s.ports.len()).sum();
        let n_used: usize = solution.placements.values().map(|p| p.workers.len()).sum();
        let waits = solution.placements.values().any(|p| p.unplaced.is_some());
        prop_assert!(!waits || n_used == n_slots);
        // No topology has two workers more than a topology with fewer workers than it requested.
        for poor in &problem.topologies {
            let n_poor = solution.placements[&poor.id].workers.len();
            let wanted = (poor.workers as usize).min(poor.tasks.n_tasks());
            if n_poor < wanted {
                prop_assert!(solution.placements.values().all(|p| p.workers.len() <= n_poor + 1));
            }
        }
    }

    #[test]
    fn healthy_tasks_never_move_whichever_tasks_die(mut problem in problems(), pattern: u64) {
        let before = solve(&problem, &Solution::default());
        with_dead(&mut problem, pattern);
        let after = solve(&problem, &before);
        // `violations` compares every healthy task's slot.
        prop_assert_eq!(violations(&problem, &before, &after), []);
        for topology in &problem.topologies {
            let Keep::Healthy(healthy) = &topology.keep else { continue };
            for (slot, tasks) in &before.placements[&topology.id].workers {
                if tasks.iter().all(|task| healthy.contains(task)) {
                    let stays = after.placements[&topology.id].workers.get(slot);
                    prop_assert_eq!(stays, Some(tasks), "an intact worker was changed");
                }
            }
        }
        all_healthy(&mut problem);
        prop_assert_eq!(solve(&problem, &after), after);
    }

    #[test]
    fn losing_a_supervisor_moves_only_its_tasks(mut problem in problems(), lost in 0usize..8) {
        let before = solve(&problem, &Solution::default());
        let lost = supervisor_id(lost);
        problem.supervisors.remove(&lost);
        all_healthy(&mut problem);
        let after = solve(&problem, &before);
        prop_assert_eq!(violations(&problem, &before, &after), []);
        for (id, placement) in &before.placements {
            for (slot, tasks) in placement.workers.iter().filter(|(slot, _)| slot.supervisor != lost) {
                for task in tasks.iter() {
                    prop_assert!(after.placements[id].workers[slot].contains(task));
                }
            }
        }
    }

    #[test]
    fn a_rebalance_that_changes_nothing_moves_nothing_the_second_time(mut problem in problems()) {
        let before = solve(&problem, &Solution::default());
        all_healthy(&mut problem);
        problem.topologies[0].keep = Keep::EvenSpread;
        let first = solve(&problem, &before);
        prop_assert_eq!(violations(&problem, &before, &first), []);
        prop_assert_eq!(solve(&problem, &first), first);
    }

    #[test]
    fn a_rebalance_spreads_tasks_evenly_whatever_was_before_and_then_rests(
        mut problem in problems(), pattern: u64, workers in 1u32..7,
    ) {
        let first = solve(&problem, &Solution::default());
        with_dead(&mut problem, pattern);
        let before = solve(&problem, &first);
        all_healthy(&mut problem);
        problem.topologies[0].keep = Keep::EvenSpread;
        problem.topologies[0].workers = workers;
        let after = solve(&problem, &before);
        prop_assert_eq!(violations(&problem, &before, &after), []);
        let placed = &after.placements[&problem.topologies[0].id].workers;
        prop_assert!(is_even(placed.values().map(TaskSet::len)));
        for tasks in problem.topologies[0].tasks.0.values() {
            let of_it = |worker: &TaskSet| worker.iter().filter(|task| tasks.contains(*task)).count();
            prop_assert!(is_even(placed.values().map(of_it)));
        }
        prop_assert_eq!(solve(&problem, &after), after);
    }

    #[test]
    fn a_rebalance_to_more_or_fewer_workers_moves_no_task_that_an_even_spread_lets_stay(
        n_tasks in 8u32..40, before in 1u32..8, after in 1u32..8,
    ) {
        let mut problem = cluster(1, 8);
        problem.topologies = vec![topology(0, before, &[n_tasks])];
        let first = solve(&problem, &Solution::default());
        problem.topologies[0].keep = Keep::EvenSpread;
        problem.topologies[0].workers = after;
        let second = solve(&problem, &first);
        let id = topology_id(0);
        let (old, new) = (&first.placements[&id].workers, &second.placements[&id].workers);
        let stay = |slot: &Slot, task: &TaskId| old.get(slot).is_some_and(|tasks| tasks.contains(*task));
        let n_moved = new.iter().flat_map(|(slot, tasks)| tasks.iter().map(move |task| (slot, task)));
        let n_moved = n_moved.filter(|(slot, task)| !stay(slot, task)).count();
        let share = |workers: u32| (n_tasks / workers, n_tasks % workers);
        let least = match after > before {
            // The new workers get the small shares, as far as there are enough.
            true => (after - before) * share(after).0 + share(after).1.saturating_sub(before),
            // The workers that end had the small shares.
            false => (before - after) * share(before).0 + share(before).1.saturating_sub(after),
        };
        prop_assert_eq!(n_moved, least as usize);
    }

    #[test]
    fn any_previous_solution_gives_a_valid_one(
        mut problem in problems(),
        garbage in prop::collection::vec((0usize..7, 0usize..9, 6699u16..6704, 0u32..20, 0u32..5), 0..30),
        pattern: u64, drained in prop::option::of(0usize..8), away in prop::option::of(0usize..8),
        occupied in prop::collection::btree_set((0usize..9, 6700u16..6704), 0..4),
    ) {
        let mut previous = Solution::default();
        for (topology, supervisor, port, first, n) in garbage {
            let placement = previous.placements.entry(topology_id(topology)).or_default();
            placement.workers.insert(slot(supervisor, port), TaskSet::range(first, first + n));
        }
        with_dead(&mut problem, pattern);
        if let Some(supervisor) = drained.and_then(|n| problem.supervisors.get_mut(&supervisor_id(n))) {
            supervisor.standing = Standing::Drained;
        }
        problem.occupied = occupied.into_iter().map(|(n, port)| slot(n, port)).collect::<BTreeSet<_>>();
        if let Some(supervisor) = away.and_then(|n| problem.supervisors.get_mut(&supervisor_id(n))) {
            supervisor.standing = Standing::Away;
        }
        let after = solve(&problem, &previous);
        prop_assert_eq!(violations(&problem, &previous, &after), []);
    }
}

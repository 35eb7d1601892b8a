//! Tests of the slot's state machine: properties in a small random world, and single rules.

use proptest::prelude::*;

use super::*;
use stormkeeper_model::{BlobKey, Timestamp, assignment::AssignedWorker, clock::Clock, task_set::TaskSet};

const TIMEOUTS: WorkerTimeouts = WorkerTimeouts {
    start: Duration::from_secs(120),
    silence: Duration::from_secs(30),
    grace: Duration::from_secs(3),
};

fn desired(n: u8) -> DesiredWorker {
    DesiredWorker {
        topology: format!("t-{n}-100").parse().expect("valid id"),
        worker: AssignedWorker {
            host: "h".to_owned(),
            tasks: TaskSet::range(1, 3),
            start: Timestamp::from_millis(u64::from(n)),
        },
        blob: BlobKey::of(&[n]),
        owner: String::new(),
    }
}

/// One slot with its process and the effects of the supervisor.
#[derive(Debug, Clone)]
struct World {
    clock: Clock,
    state: SlotState,
    target: Target,
    blob: Blob,
    /// The time of the last reading of heartbeats; now, unless a test stops the reading.
    heartbeats_read_at: Option<Monotonic>,
    launched: Option<Launched>,
    n_launches: u32,
    obeys_sigterm: bool,
    actions: Vec<SlotAction>,
}

/// A random event.
#[derive(Debug, Clone)]
enum Input {
    Pass(u64),
    SetTarget(Target),
    Blob(Blob),
    LaunchDone,
    LaunchFailed,
    Heartbeat,
    Exit(ExitReport),
    ObeySigterm(bool),
}

impl World {
    fn new() -> Self {
        Self {
            clock: Clock::manual(Timestamp::from_millis(1)),
            state: SlotState::Empty,
            target: Target::Nothing,
            blob: Blob::Present,
            heartbeats_read_at: None,
            launched: None,
            n_launches: 0,
            obeys_sigterm: true,
            actions: Vec::new(),
        }
    }

    fn observed(&self) -> Observed {
        Observed {
            now: self.clock.monotonic(),
            heartbeats_read_at: self.heartbeats_read_at.unwrap_or(self.clock.monotonic()),
            target: self.target.clone(),
            blob: self.blob,
            launched: self.launched.clone(),
            next_worker_id: format!("w{}", self.n_launches).parse().expect("valid id"),
            timeouts: TIMEOUTS,
        }
    }

    fn progress(&self) -> Option<&Progress> {
        self.launched.as_ref().map(|launched| &launched.progress)
    }

    fn set(&mut self, progress: Progress) {
        self.launched.as_mut().expect("a launch").progress = progress;
    }

    fn is_alive(&self) -> bool {
        matches!(self.progress(), Some(Progress::Alive { .. }))
    }

    fn apply(&mut self, input: &Input) {
        match input {
            Input::Pass(millis) => self.clock.advance(Duration::from_millis(*millis)),
            Input::SetTarget(target) => self.target = target.clone(),
            Input::Blob(blob) => self.blob = *blob,
            Input::ObeySigterm(obeys) => self.obeys_sigterm = *obeys,
            Input::LaunchDone if self.progress() == Some(&Progress::Launching) => {
                self.set(Progress::Alive { heartbeat: None });
            }
            Input::LaunchFailed if self.progress() == Some(&Progress::Launching) => {
                self.set(Progress::Failed("no such file".into()));
            }
            Input::Heartbeat if self.is_alive() => {
                self.set(Progress::Alive { heartbeat: Some(self.clock.monotonic()) });
            }
            Input::Exit(report) if self.is_alive() => self.set(Progress::Exited(*report)),
            Input::LaunchDone | Input::LaunchFailed | Input::Heartbeat | Input::Exit(_) => {}
        }
    }

    /// Makes one step with its effects. Panics if a rule is broken.
    fn step(&mut self) -> Vec<SlotAction> {
        let seen = self.observed();
        let (state, actions) = self.state.clone().step(&seen);
        assert_eq!(state.clone().step(&seen), (state.clone(), vec![]), "not a fixed point");
        self.state = state;
        for action in &actions {
            match action {
                SlotAction::Launch { worker, .. } => {
                    assert!(
                        self.launched.as_ref().is_none_or(Launched::is_over),
                        "launched beside {:?}",
                        self.launched
                    );
                    let progress = Progress::Launching;
                    self.launched = Some(Launched { worker: worker.clone(), progress });
                    self.n_launches += 1;
                }
                SlotAction::Signal { worker, signal, .. } => {
                    assert!(self.is_alive(), "signalled a process that does not exist");
                    assert_eq!(self.launched.as_ref().map(|l| &l.worker), Some(worker));
                    if *signal == StopSignal::Kill {
                        self.set(Progress::Exited(ExitReport::Signal(9)));
                    } else if self.obeys_sigterm {
                        self.set(Progress::Exited(ExitReport::Code(0)));
                    }
                }
                SlotAction::Report { reason, .. } => assert!(reason.is_workers_fault()),
            }
        }
        self.actions.extend(actions.iter().cloned());
        actions
    }

    /// Runs a healthy host for `secs` seconds in steps of half a second.
    fn heal(&mut self, secs: u64) {
        self.blob = Blob::Present;
        for _ in 0..secs * 2 {
            self.apply(&Input::LaunchDone);
            self.apply(&Input::Heartbeat);
            self.step();
            self.apply(&Input::Pass(500));
        }
    }

    /// A slot in which `desired(1)` has run for `secs` seconds.
    fn running_for(secs: u64) -> Self {
        let mut world = Self::new();
        world.target = Target::Worker(desired(1));
        world.heal(secs);
        assert_eq!(world.state.name(), "running");
        world.actions.clear();
        world
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let target = prop_oneof![
        Just(Target::Unknown),
        Just(Target::Nothing),
        (1u8..4).prop_map(|n| Target::Worker(desired(n))),
    ];
    let report = prop_oneof![
        Just(ExitReport::Code(0)),
        Just(ExitReport::Code(1)),
        Just(ExitReport::Signal(9)),
        Just(ExitReport::Unknown),
    ];
    prop_oneof![
        4 => (0u64..70_000).prop_map(Input::Pass),
        3 => target.prop_map(Input::SetTarget),
        1 => prop_oneof![Just(Blob::Present), Just(Blob::Fetching)].prop_map(Input::Blob),
        4 => Just(Input::LaunchDone),
        1 => Just(Input::LaunchFailed),
        4 => Just(Input::Heartbeat),
        2 => report.prop_map(Input::Exit),
        1 => any::<bool>().prop_map(Input::ObeySigterm),
    ]
}

proptest! {
    /// `World::step` checks at every step: no second process in a slot, no signal to no process,
    /// and a fixed point.
    #[test]
    fn healthy_machine_reaches_the_target_from_any_state(
        inputs in proptest::collection::vec(any_input(), 0..60),
        target in proptest::option::of(1u8..4),
    ) {
        let mut world = World::new();
        for input in &inputs {
            world.apply(input);
            world.step();
        }
        world.target = target.map_or(Target::Nothing, |n| Target::Worker(desired(n)));
        world.heal(2 * RELAUNCH_DELAY_MAX.as_secs());
        match target {
            None => {
                prop_assert_eq!(&world.state, &SlotState::Empty);
                prop_assert!(!world.is_alive());
            }
            Some(n) => {
                prop_assert_eq!(world.state.name(), "running");
                prop_assert!(world.is_alive());
                prop_assert!(world.state.desired().expect("held").is_same_worker(&desired(n)));
            }
        }
    }

    /// A healthy process is signalled only if another target is known, whatever else happens.
    #[test]
    fn unknown_target_stops_nothing(passes in proptest::collection::vec(0u64..29_000, 0..20)) {
        let mut world = World::running_for(1);
        world.target = Target::Unknown;
        for millis in passes {
            world.apply(&Input::Pass(millis));
            world.apply(&Input::Heartbeat);
            world.step();
        }
        prop_assert_eq!(&world.actions, &vec![]);
    }
}

/// Checks that the next launch comes after `pause` and not before.
fn check_relaunch(world: &mut World, pause: Duration) {
    world.step();
    if !pause.is_zero() {
        assert_eq!(world.state.name(), "relaunching");
        world.clock.advance(pause - Duration::from_millis(1));
        world.step();
        assert_eq!(world.state.name(), "relaunching", "launched before {pause:?}");
        world.clock.advance(Duration::from_millis(1));
        world.step();
    }
    assert_eq!(world.state.name(), "starting", "not launched after {pause:?}");
}

#[test]
fn worker_with_a_present_blob_is_launched_in_the_same_step() {
    let mut world = World::new();
    world.target = Target::Worker(desired(1));
    let actions = world.step();
    assert!(matches!(&actions[..], [SlotAction::Launch { reason: SlotReason::Assigned, .. }]), "{actions:?}");
}

#[test]
fn worker_that_had_run_is_relaunched_at_once_and_then_backs_off() {
    let mut world = World::running_for(60);
    let crash = |world: &mut World| {
        world.apply(&Input::LaunchDone);
        world.apply(&Input::Heartbeat);
        world.step();
        world.apply(&Input::Exit(ExitReport::Signal(9)));
    };
    for secs in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
        crash(&mut world);
        check_relaunch(&mut world, Duration::from_secs(secs));
    }
    world.heal(HEALTHY_AFTER.as_secs() + 1);
    crash(&mut world);
    check_relaunch(&mut world, Duration::ZERO);
}

#[test]
fn failing_launch_backs_off_from_the_first_failure() {
    let mut world = World::new();
    world.target = Target::Worker(desired(1));
    world.step();
    for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
        world.apply(&Input::LaunchFailed);
        check_relaunch(&mut world, Duration::from_secs(secs));
    }
}

#[test]
fn clean_exit_is_not_reported_and_relaunched_after_a_pause() {
    let mut world = World::running_for(60);
    world.apply(&Input::Exit(ExitReport::Code(0)));
    check_relaunch(&mut world, CLEAN_EXIT_PAUSE);
    assert!(!world.actions.iter().any(|a| matches!(a, SlotAction::Report { .. })), "{:?}", world.actions);
}

#[test]
fn silent_worker_is_stopped_reported_and_relaunched() {
    let mut world = World::running_for(60);
    world.apply(&Input::Pass(TIMEOUTS.silence.as_millis() as u64));
    world.step();
    assert!(matches!(
        &world.actions[..],
        [
            SlotAction::Report { reason: SlotReason::HeartbeatTimedOut { .. }, .. },
            SlotAction::Signal { signal: StopSignal::Terminate, .. },
        ]
    ));
    check_relaunch(&mut world, Duration::from_secs(1));
}

#[test]
fn worker_without_a_first_heartbeat_is_reported_and_stopped() {
    let mut world = World::new();
    world.target = Target::Worker(desired(1));
    world.step();
    world.apply(&Input::LaunchDone);
    world.apply(&Input::Pass(TIMEOUTS.start.as_millis() as u64));
    world.step();
    assert!(matches!(
        &world.actions[1..],
        [
            SlotAction::Report { reason: SlotReason::StartTimedOut { .. }, .. },
            SlotAction::Signal { signal: StopSignal::Terminate, .. },
        ]
    ));
}

#[test]
fn process_that_ignores_sigterm_is_killed_repeatedly() {
    let mut world = World::running_for(60);
    world.obeys_sigterm = false;
    world.target = Target::Nothing;
    let mut signals = vec![];
    for _ in 0..100 {
        let seen = world.observed();
        let (state, actions) = world.state.clone().step(&seen);
        world.state = state;
        signals.extend(actions.into_iter().map(|action| match action {
            SlotAction::Signal { signal, .. } => (seen.now, signal),
            SlotAction::Launch { .. } | SlotAction::Report { .. } => panic!("unexpected {action:?}"),
        }));
        world.apply(&Input::Pass(100));
    }
    let sent: Vec<StopSignal> = signals.iter().map(|(_, signal)| *signal).collect();
    assert_eq!(sent, [StopSignal::Terminate, StopSignal::Kill, StopSignal::Kill]);
    assert_eq!(signals[1].0.since(signals[0].0), TIMEOUTS.grace);
    assert_eq!(signals[2].0.since(signals[1].0), KILL_AGAIN_AFTER);
}

#[test]
fn next_worker_waits_for_the_end_of_the_previous_worker() {
    let mut world = World::running_for(60);
    world.obeys_sigterm = false;
    world.target = Target::Worker(desired(2));
    world.step();
    world.apply(&Input::Pass(1000));
    world.step();
    assert_eq!(world.state.name(), "stopping");
    assert!(!world.actions.iter().any(|a| matches!(a, SlotAction::Launch { .. })));
    world.apply(&Input::Exit(ExitReport::Code(0)));
    world.step();
    assert_eq!(world.state.worker().expect("launched").1, &desired(2));
}

#[test]
fn unassigned_launch_is_stopped_once_its_process_exists() {
    let mut world = World::new();
    world.target = Target::Worker(desired(1));
    world.step();
    world.target = Target::Nothing;
    assert_eq!(world.step(), []);
    assert_eq!(world.state.name(), "stopping");
    world.apply(&Input::LaunchDone);
    assert!(matches!(&world.step()[..], [SlotAction::Signal { signal: StopSignal::Terminate, .. }]));
    world.step();
    assert_eq!(world.state, SlotState::Empty);
}

#[test]
fn adopted_worker_gets_time_for_its_next_heartbeat() {
    let mut world = World::running_for(60);
    let worker = world.state.worker().expect("running").0.clone();
    world.state = SlotState::adopted(worker, desired(1), world.clock.monotonic());
    world.set(Progress::Alive { heartbeat: None });
    world.apply(&Input::Pass(TIMEOUTS.silence.as_millis() as u64 - 1));
    assert_eq!(world.step(), []);
    assert_eq!(world.state.name(), "running");
}

#[test]
fn silence_without_a_reading_of_heartbeats_does_not_count() {
    let mut world = World::running_for(60);
    world.heartbeats_read_at = Some(world.clock.monotonic());
    world.apply(&Input::Pass(1_000_000));
    assert_eq!(world.step(), []);
    world.heartbeats_read_at = None;
    assert!(!world.step().is_empty());
}

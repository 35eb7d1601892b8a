//! What goes wrong, and when: all of it decided by one seed.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::cluster::{Mode, SESSION_TIMEOUT, Shape};

/// Something that goes wrong, or is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    KillNimbus(usize),
    StartNimbus(usize),
    FreezeNimbus(usize),
    ThawNimbus(usize),
    KillSupervisor(usize),
    StartSupervisor(usize),
    FreezeSupervisor(usize),
    ThawSupervisor(usize),
    /// The worker at this place among those there are, counted round.
    KillWorker(usize),
    KillServer(usize),
    StartServer(usize),
    FreezeServer(usize),
    ThawServer(usize),
    KillServers,
    StartServers,
    /// Of the proxy of this daemon, nimbuses first.
    Set(usize, Mode),
    Cut(usize),
    /// The answer to a transaction of the leader is swallowed after so many more.
    Swallow(u32),
}

/// What can have one lasting fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Nimbus(usize),
    Supervisor(usize),
    /// One for all servers: with one of three gone the others go on.
    ZooKeeper,
    Wire(usize),
}

/// Events in their order, each at its time from the start.
pub(super) struct Plan {
    pub(super) events: Vec<(Duration, Event)>,
}

/// Between two faults. Many overlap, as they last up to twice a session timeout.
const PAUSE_MS: std::ops::Range<u64> = 500..2000;

/// How long a fault lasts.
const LASTS_MS: std::ops::Range<u64> = 200..2 * SESSION_TIMEOUT.as_millis() as u64;

impl Plan {
    pub(super) fn new(seed: u64, length: Duration, shape: Shape) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut events = Vec::new();
        let mut busy_until = BTreeMap::<Target, Duration>::new();
        let mut now = Duration::ZERO;
        loop {
            now += Duration::from_millis(random.u64(PAUSE_MS));
            if now >= length {
                break;
            }
            let (target, breaks, mends) = fault(&mut random, shape);
            let Some(mends) = mends else {
                events.push((now, breaks));
                continue;
            };
            let end = now + Duration::from_millis(random.u64(LASTS_MS));
            // What has a fault already gets no second one, which could mend the first.
            if busy_until.get(&target).is_none_or(|until| *until < now) {
                busy_until.insert(target, end);
                events.extend([(now, breaks), (end, mends)]);
            }
        }
        events.sort_by_key(|(at, _)| *at);
        Self { events }
    }
}

/// A fault, and what mends it, when it lasts.
fn fault(random: &mut fastrand::Rng, shape: Shape) -> (Target, Event, Option<Event>) {
    let n_wires = shape.nimbuses + shape.supervisors;
    match random.u8(0..20) {
        0..=2 => {
            lasting(Target::Nimbus, random.usize(..shape.nimbuses), Event::KillNimbus, Event::StartNimbus)
        }
        3..=5 => {
            lasting(Target::Nimbus, random.usize(..shape.nimbuses), Event::FreezeNimbus, Event::ThawNimbus)
        }
        6 => {
            let i = random.usize(..shape.supervisors);
            lasting(Target::Supervisor, i, Event::KillSupervisor, Event::StartSupervisor)
        }
        7 => {
            let i = random.usize(..shape.supervisors);
            lasting(Target::Supervisor, i, Event::FreezeSupervisor, Event::ThawSupervisor)
        }
        8..=9 => (Target::ZooKeeper, Event::KillWorker(random.usize(..100)), None),
        10 => lasting(
            |_| Target::ZooKeeper,
            random.usize(..shape.zookeepers),
            Event::KillServer,
            Event::StartServer,
        ),
        11 => lasting(
            |_| Target::ZooKeeper,
            random.usize(..shape.zookeepers),
            Event::FreezeServer,
            Event::ThawServer,
        ),
        12 => (Target::ZooKeeper, Event::KillServers, Some(Event::StartServers)),
        13..=14 => (Target::ZooKeeper, Event::Cut(random.usize(..n_wires)), None),
        15..=16 => (Target::ZooKeeper, Event::Swallow(random.u32(..4)), None),
        kind => {
            let i = random.usize(..n_wires);
            let mode = match kind {
                17 => Mode::Delay(Duration::from_millis(random.u64(5..100))),
                18 => Mode::Refuse,
                _ => Mode::HoldTransactions,
            };
            (Target::Wire(i), Event::Set(i, mode), Some(Event::Set(i, Mode::Pass)))
        }
    }
}

fn lasting(
    target: impl Fn(usize) -> Target,
    i: usize,
    breaks: impl Fn(usize) -> Event,
    mends: impl Fn(usize) -> Event,
) -> (Target, Event, Option<Event>) {
    (target(i), breaks(i), Some(mends(i)))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|(at, event)| writeln!(f, "{:>6.1} s {event:?}", at.as_secs_f64()))
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all_and_everything_is_mended() {
        let length = Duration::from_secs(600);
        let plan = Plan::new(7, length, Shape::REPLICATED).to_string();
        assert_eq!(plan, Plan::new(7, length, Shape::REPLICATED).to_string());
        assert_ne!(plan, Plan::new(8, length, Shape::REPLICATED).to_string());
        let n = |what: &str| plan.matches(what).count();
        for (breaks, mends) in [
            ("KillNimbus", "StartNimbus"),
            ("FreezeNimbus", "ThawNimbus"),
            ("KillSupervisor", "StartSupervisor"),
            ("FreezeSupervisor", "ThawSupervisor"),
            ("KillServer(", "StartServer("),
            ("FreezeServer", "ThawServer"),
            ("KillServers", "StartServers"),
        ] {
            assert!(n(breaks) > 0 && n(breaks) == n(mends), "{breaks}: {plan}");
        }
        let n_modes = n("Refuse") + n("Hold") + n("Delay");
        assert!(n("KillWorker") > 0 && n("Cut") > 0 && n("Swallow") > 0 && n_modes == n("Pass"), "{plan}");
    }
}

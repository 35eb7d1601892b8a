//! Plan of the faults and their times, decided by one seed.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::cluster::{Mode, SESSION_TIMEOUT, Shape};

/// Start or end of a fault.
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
    /// Index of the worker, modulo the number of workers.
    KillWorker(usize),
    KillServer(usize),
    StartServer(usize),
    FreezeServer(usize),
    ThawServer(usize),
    KillServers,
    StartServers,
    /// Mode of the proxy of this daemon, nimbuses first.
    Set(usize, Mode),
    Disconnect(usize),
    /// The reply to a transaction of the leader is dropped after this number of further replies.
    DropReply(u32),
}

/// A part of the cluster that can have one lasting fault at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Nimbus(usize),
    Supervisor(usize),
    /// One target for all servers: the ensemble works with one of three servers missing.
    ZooKeeper,
    Network(usize),
}

/// Events in order, each with its time since the start.
pub(super) struct Plan {
    pub(super) events: Vec<(Duration, Event)>,
}

/// Time between two faults. Many overlap, as they last for up to two session timeouts.
const PAUSE_MS: std::ops::Range<u64> = 500..2000;

/// Duration of a fault.
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
            // A target with a fault receives no second one, whose end could end the first.
            if busy_until.get(&target).is_none_or(|until| *until < now) {
                busy_until.insert(target, end);
                events.extend([(now, breaks), (end, mends)]);
            }
        }
        events.sort_by_key(|(at, _)| *at);
        Self { events }
    }
}

/// Returns a random fault, and the event that ends it if it lasts.
fn fault(random: &mut fastrand::Rng, shape: Shape) -> (Target, Event, Option<Event>) {
    let n_proxies = shape.nimbuses + shape.supervisors;
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
        13..=14 => (Target::ZooKeeper, Event::Disconnect(random.usize(..n_proxies)), None),
        15..=16 => (Target::ZooKeeper, Event::DropReply(random.u32(..4)), None),
        kind => {
            let i = random.usize(..n_proxies);
            let mode = match kind {
                17 => Mode::Delay(Duration::from_millis(random.u64(5..100))),
                18 => Mode::Refuse,
                _ => Mode::HoldTransactions,
            };
            (Target::Network(i), Event::Set(i, mode), Some(Event::Set(i, Mode::Pass)))
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
    fn plan_depends_on_the_seed_only_and_ends_every_fault() {
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
        assert!(
            n("KillWorker") > 0 && n("Disconnect") > 0 && n("DropReply") > 0 && n_modes == n("Pass"),
            "{plan}"
        );
    }
}

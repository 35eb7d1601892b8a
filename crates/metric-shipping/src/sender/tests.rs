//! Each count is stored once, whatever requests are lost or repeated and whichever nimbus leads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use stormkeeper_metrics::{
    Leaf, MetricType, Minute, Point, Snapshot, Subject,
    name::{CLUSTER, SYS},
    point::Counter,
    protocol::{Registered, StoredCut},
};
use stormkeeper_model::{TaskId, Timestamp};

fn topology() -> TopologyId {
    "t-1-1".parse().expect("valid")
}

fn worker(n: usize) -> WorkerId {
    format!("w{n}").parse().expect("valid")
}

fn metric(task: usize) -> (MetricId, MetricName) {
    let task = TaskId(u32::try_from(task).expect("small"));
    let subject = Subject::Task { component: "c".parse().expect("valid"), task };
    let name = MetricName::new(topology(), MetricType::Counter, subject, SYS, "Emitted").expect("valid");
    (MetricId::of(&name.to_string(), 0), name)
}

/// A report of a worker that counts `count` for its own task.
fn cut(n: usize, number: u64, minute: u32, count: u64) -> Cut {
    let leaves = vec![Leaf { id: metric(n).0, point: Point::Counter(Counter { count }), total: None }];
    let (topology, worker) = (topology(), worker(n));
    let started = Timestamp::from_millis(1);
    let snapshot = Snapshot { topology, worker, number, minute: Minute(minute), started, leaves };
    Cut { first: number, snapshot }
}

/// The metric store of one nimbus. The next leader may be missing the entries after the committed
/// state.
#[derive(Debug, Clone, Default)]
struct StoreState {
    known: BTreeMap<MetricId, String>,
    last: BTreeMap<WorkerId, u64>,
    counts: BTreeMap<MetricId, u64>,
    seq: u64,
}

#[derive(Debug, Default)]
struct Leader {
    now: StoreState,
    committed: StoreState,
    term: i32,
    /// True if the leader assigns another id to some metrics.
    renames: bool,
}

impl Leader {
    fn register(&mut self, request: &RegisterRequest) -> RegisterAnswer {
        let answer = |claim: &stormkeeper_metrics::protocol::Claim| {
            let other = self.renames && claim.name.contains("@1@");
            let id = if other { MetricId::of(&claim.name, 1) } else { claim.id };
            self.now.known.insert(id, claim.name.clone());
            Registered::As(id)
        };
        RegisterAnswer { claims: request.claims.iter().map(answer).collect() }
    }

    fn contribute(&mut self, contribution: &Contribution) -> ContributeAnswer {
        let unknown = contribution.points.iter().filter(|(id, _)| !self.now.known.contains_key(id));
        let ids: Vec<_> = unknown.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            return ContributeAnswer::Unregistered { ids };
        }
        let last_of = |worker: &WorkerId| self.now.last.get(worker).copied().unwrap_or(0);
        let at = Position { term: self.term, seq: self.now.seq };
        let safe = Position { term: self.term, seq: self.committed.seq };
        if contribution.cuts.iter().all(|cuts| cuts.last <= last_of(&cuts.worker)) {
            return ContributeAnswer::Stored { at, safe };
        }
        if contribution.cuts.iter().any(|cuts| cuts.first <= last_of(&cuts.worker)) {
            let stored =
                self.now.last.iter().map(|(worker, last)| StoredCut { worker: worker.clone(), last: *last });
            return ContributeAnswer::Overlaps { stored: stored.collect() };
        }
        for cuts in &contribution.cuts {
            assert_eq!(cuts.first, last_of(&cuts.worker) + 1, "reports come without gaps");
        }
        for cuts in &contribution.cuts {
            self.now.last.insert(cuts.worker.clone(), cuts.last);
        }
        for (id, point) in &contribution.points {
            let Point::Counter(Counter { count }) = point else { panic!("only counters") };
            *self.now.counts.entry(*id).or_default() += count;
        }
        self.now.seq += 1;
        ContributeAnswer::Stored { at: Position { seq: self.now.seq, ..at }, safe }
    }

    /// Makes another nimbus the leader, which has the committed state and no names.
    fn change(&mut self) {
        self.now = StoreState { known: BTreeMap::new(), ..self.committed.clone() };
        self.term += 1;
    }

    fn count(&self, name: &str) -> u64 {
        let ids = self.now.known.iter().filter(|(_, known)| *known == name).map(|(id, _)| id);
        ids.map(|id| self.now.counts.get(id).copied().unwrap_or(0)).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Cut {
        worker: usize,
        count: u64,
        minutes: u32,
    },
    Exchange,
    LostAnswer,
    LostRequest,
    NotNow,
    Replicate,
    ChangeLeader,
    /// The sender ends; another sender gets all uncommitted reports.
    Move,
    Resend,
}

struct Scenario {
    delivery: Delivery,
    leader: Leader,
    uncommitted: BTreeMap<usize, Vec<Cut>>,
    made: BTreeMap<usize, (u64, u64, u32)>,
}

impl Scenario {
    fn new(renames: bool) -> Self {
        let leader = Leader { renames, ..Leader::default() };
        let mut scenario = Self {
            delivery: Delivery::new(topology()),
            leader,
            uncommitted: BTreeMap::new(),
            made: BTreeMap::new(),
        };
        scenario.begin();
        scenario
    }

    fn begin(&mut self) {
        self.delivery = Delivery::new(topology());
        for cut in self.uncommitted.values().flatten() {
            enqueue(&mut self.delivery, cut);
        }
    }

    /// Sends one request, and handles its answer unless the answer is lost.
    fn exchange(&mut self, answer_arrives: bool) -> bool {
        self.delivery.set_leader_term(Term(self.leader.term));
        match self.delivery.next_request() {
            None => return false,
            Some(Request::Register(request)) => {
                let answer = self.leader.register(&request);
                if answer_arrives {
                    assert_eq!(self.delivery.on_registered(&answer), NextStep::Continue);
                }
            }
            Some(Request::Contribute(contribution)) => {
                let answer = self.leader.contribute(&contribution);
                if answer_arrives {
                    assert_eq!(self.delivery.on_ingested(answer, Monotonic::START), NextStep::Continue);
                }
            }
        }
        for (worker, safe) in self.delivery.newly_safe() {
            for cuts in self.uncommitted.values_mut() {
                cuts.retain(|cut| cut.snapshot.worker != worker || cut.snapshot.number > safe);
            }
        }
        true
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Cut { worker, count, minutes } => {
                let (number, sum, minute) = self.made.entry(worker).or_default();
                (*number, *sum, *minute) = (*number + 1, *sum + count, *minute + minutes);
                let cut = cut(worker, *number, *minute, count);
                enqueue(&mut self.delivery, &cut);
                self.uncommitted.entry(worker).or_default().push(cut);
            }
            Step::Exchange => drop(self.exchange(true)),
            Step::LostAnswer => drop(self.exchange(false)),
            Step::LostRequest => {
                self.delivery.set_leader_term(Term(self.leader.term));
                let _lost = self.delivery.next_request();
            }
            Step::NotNow => {
                self.delivery.set_leader_term(Term(self.leader.term));
                if let Some(Request::Contribute(_)) = self.delivery.next_request() {
                    let answer = ContributeAnswer::NotNow { reason: String::new() };
                    assert_eq!(self.delivery.on_ingested(answer, Monotonic::START), NextStep::Pause);
                }
            }
            Step::Replicate => self.leader.committed = self.leader.now.clone(),
            Step::ChangeLeader => self.leader.change(),
            Step::Move => self.begin(),
            Step::Resend => self.delivery.ask_again(Monotonic::START),
        }
    }
}

fn enqueue(delivery: &mut Delivery, cut: &Cut) {
    match delivery.add(cut.clone()) {
        Added::Taken => {}
        Added::Nameless(ids) => {
            let names: Vec<_> = (0..4).map(metric).filter(|(id, _)| ids.contains(id)).collect();
            delivery.learn(&cut.snapshot.worker, &names);
            assert_eq!(delivery.add(cut.clone()), Added::Taken);
        }
        added @ (Added::Safe | Added::Full) => panic!("{added:?}"),
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let cut = (0..4_usize, 1..100_u64, 0..3_u32);
    prop_oneof![
        4 => cut.prop_map(|(worker, count, minutes)| Step::Cut { worker, count, minutes }),
        6 => Just(Step::Exchange),
        2 => Just(Step::LostAnswer),
        1 => Just(Step::LostRequest),
        1 => Just(Step::NotNow),
        2 => Just(Step::Replicate),
        1 => Just(Step::ChangeLeader),
        1 => Just(Step::Move),
        1 => Just(Step::Resend),
    ]
}

proptest! {
    #[test]
    fn each_count_is_stored_once_on_every_level(
        steps in prop::collection::vec(any_step(), 0..80),
        renames in any::<bool>(),
    ) {
        let mut scenario = Scenario::new(renames);
        for step in &steps {
            scenario.step(step);
        }
        // Without further faults everything is committed after a bounded number of requests.
        for round in 0.. {
            prop_assert!(round < 5, "{:?}", scenario.delivery);
            scenario.step(&Step::Resend);
            for request in 0.. {
                prop_assert!(request < 300, "too many requests");
                if !scenario.exchange(true) {
                    break;
                }
            }
            if scenario.delivery.is_empty() {
                break;
            }
            scenario.step(&Step::Replicate);
        }
        prop_assert_eq!(scenario.uncommitted.values().flatten().count(), 0);
        prop_assert_eq!(scenario.delivery.dropped_reports(), 0);
        let mut total = 0;
        scenario.leader.change();
        for n in 0..4 {
            let text = metric(n).1.to_string();
            for probe in 0..2 {
                scenario.leader.now.known.insert(MetricId::of(&text, probe), text.clone());
            }
            let made = scenario.made.get(&n).map_or(0, |made| made.1);
            prop_assert_eq!(scenario.leader.count(&text), made);
            total += made;
        }
        let above = stormkeeper_metrics::rollup::ancestors(&metric(0).1);
        prop_assert!(above.iter().any(|name| name.topology().as_str() == CLUSTER));
        for name in above {
            let text = name.to_string();
            let ids: BTreeSet<_> = (0..2).map(|probe| MetricId::of(&text, probe)).collect();
            let stored: u64 = ids.iter().filter_map(|id| scenario.leader.now.counts.get(id)).sum();
            prop_assert_eq!(stored, total, "{}", text);
        }
    }
}

#[test]
fn rejected_reports_are_dropped_counted_and_released() {
    let mut scenario = Scenario::new(false);
    scenario.step(&Step::Cut { worker: 0, count: 5, minutes: 1 });
    scenario.exchange(true);
    assert!(matches!(scenario.delivery.next_request(), Some(Request::Contribute(_))));
    let answer = ContributeAnswer::Refused { reason: "nonsense".to_owned() };
    assert_eq!(scenario.delivery.on_ingested(answer, Monotonic::START), NextStep::Continue);
    assert_eq!(scenario.delivery.dropped_reports(), 1);
    assert_eq!(scenario.delivery.newly_safe(), BTreeMap::from([(worker(0), 1)]));
    assert!(scenario.delivery.is_empty() && scenario.delivery.next_request().is_none());
}

#[test]
fn a_rejected_name_removes_its_own_points_only() {
    let mut scenario = Scenario::new(false);
    scenario.step(&Step::Cut { worker: 0, count: 5, minutes: 1 });
    scenario.delivery.set_leader_term(Term(0));
    let Some(Request::Register(request)) = scenario.delivery.next_request() else { panic!("names first") };
    let mut answer = scenario.leader.register(&request);
    answer.claims[0] = Registered::Refused("too many".to_owned());
    assert_eq!(scenario.delivery.on_registered(&answer), NextStep::Continue);
    let Some(Request::Contribute(contribution)) = scenario.delivery.next_request() else {
        panic!("then points")
    };
    assert_eq!(contribution.points.len(), request.claims.len() - 1);
    assert!(contribution.points.iter().all(|(id, _)| *id != request.claims[0].id));
}

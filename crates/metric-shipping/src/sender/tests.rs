//! Each count is stored once, whatever requests are lost or repeated and whichever nimbus leads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use stormkeeper_metrics::{
    Leaf, MetricReport, MetricType, Minute, Point, Subject,
    name::{CLUSTER, SYS},
    point::Counter,
    protocol::{IngestedUpTo, Registered},
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
fn spooled(n: usize, number: u64, minute: u32, count: u64) -> SpooledReport {
    let leaves = vec![Leaf { id: metric(n).0, point: Point::Counter(Counter { count }), total: None }];
    let (topology, worker) = (topology(), worker(n));
    let started = Timestamp::from_millis(1);
    let report = MetricReport { topology, worker, number, minute: Minute(minute), started, leaves };
    SpooledReport { first: number, report }
}

/// The metric store of one nimbus. The next leader may be missing the entries after the committed
/// state.
#[derive(Debug, Clone, Default)]
struct StoreState {
    known: BTreeMap<MetricId, String>,
    last: BTreeMap<WorkerId, u64>,
    counts: BTreeMap<MetricId, u64>,
    index: u64,
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
    fn register(&mut self, request: &RegisterRequest) -> RegisterResponse {
        let answer = |registration: &stormkeeper_metrics::protocol::Registration| {
            let other = self.renames && registration.name.contains("@1@");
            let id = if other { MetricId::of(&registration.name, 1) } else { registration.id };
            self.now.known.insert(id, registration.name.clone());
            Registered::Accepted(id)
        };
        RegisterResponse { results: request.registrations.iter().map(answer).collect() }
    }

    fn ingest(&mut self, batch: &MetricBatch) -> IngestResponse {
        let unknown = batch.points.iter().filter(|(id, _)| !self.now.known.contains_key(id));
        let ids: Vec<_> = unknown.map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            return IngestResponse::UnknownMetrics { ids };
        }
        let last_of = |worker: &WorkerId| self.now.last.get(worker).copied().unwrap_or(0);
        let at = LogPosition { term: self.term, index: self.now.index };
        let high_watermark = LogPosition { term: self.term, index: self.committed.index };
        if batch.reports.iter().all(|reports| reports.last <= last_of(&reports.worker)) {
            return IngestResponse::Accepted { at, high_watermark };
        }
        if batch.reports.iter().any(|reports| reports.first <= last_of(&reports.worker)) {
            let stored = self
                .now
                .last
                .iter()
                .map(|(worker, last)| IngestedUpTo { worker: worker.clone(), last: *last });
            return IngestResponse::Overlapping { stored: stored.collect() };
        }
        for reports in &batch.reports {
            assert_eq!(reports.first, last_of(&reports.worker) + 1, "reports come without gaps");
        }
        for reports in &batch.reports {
            self.now.last.insert(reports.worker.clone(), reports.last);
        }
        for (id, point) in &batch.points {
            let Point::Counter(Counter { count }) = point else { panic!("only counters") };
            *self.now.counts.entry(*id).or_default() += count;
        }
        self.now.index += 1;
        IngestResponse::Accepted { at: LogPosition { index: self.now.index, ..at }, high_watermark }
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
    SpooledReport {
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
    delivery: ReportSender,
    leader: Leader,
    uncommitted: BTreeMap<usize, Vec<SpooledReport>>,
    made: BTreeMap<usize, (u64, u64, u32)>,
}

impl Scenario {
    fn new(renames: bool) -> Self {
        let leader = Leader { renames, ..Leader::default() };
        let mut scenario = Self {
            delivery: ReportSender::new(topology()),
            leader,
            uncommitted: BTreeMap::new(),
            made: BTreeMap::new(),
        };
        scenario.begin();
        scenario
    }

    fn begin(&mut self) {
        self.delivery = ReportSender::new(topology());
        for spooled in self.uncommitted.values().flatten() {
            enqueue(&mut self.delivery, spooled);
        }
    }

    /// Sends one request, and handles its response unless the response is lost.
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
            Some(Request::Ingest(batch)) => {
                let answer = self.leader.ingest(&batch);
                if answer_arrives {
                    assert_eq!(self.delivery.on_ingested(answer, Monotonic::START), NextStep::Continue);
                }
            }
        }
        for (worker, high_watermark) in self.delivery.take_committed() {
            for reports in self.uncommitted.values_mut() {
                reports.retain(|spooled| {
                    spooled.report.worker != worker || spooled.report.number > high_watermark
                });
            }
        }
        true
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::SpooledReport { worker, count, minutes } => {
                let (number, sum, minute) = self.made.entry(worker).or_default();
                (*number, *sum, *minute) = (*number + 1, *sum + count, *minute + minutes);
                let spooled = spooled(worker, *number, *minute, count);
                enqueue(&mut self.delivery, &spooled);
                self.uncommitted.entry(worker).or_default().push(spooled);
            }
            Step::Exchange => drop(self.exchange(true)),
            Step::LostAnswer => drop(self.exchange(false)),
            Step::LostRequest => {
                self.delivery.set_leader_term(Term(self.leader.term));
                let _lost = self.delivery.next_request();
            }
            Step::NotNow => {
                self.delivery.set_leader_term(Term(self.leader.term));
                if let Some(Request::Ingest(_)) = self.delivery.next_request() {
                    let answer = IngestResponse::RetryLater { reason: String::new() };
                    assert_eq!(self.delivery.on_ingested(answer, Monotonic::START), NextStep::Pause);
                }
            }
            Step::Replicate => self.leader.committed = self.leader.now.clone(),
            Step::ChangeLeader => self.leader.change(),
            Step::Move => self.begin(),
            Step::Resend => self.delivery.resend_stored(Monotonic::START),
        }
    }
}

fn enqueue(delivery: &mut ReportSender, spooled: &SpooledReport) {
    match delivery.add(spooled.clone()) {
        Enqueued::Queued => {}
        Enqueued::UnknownNames(ids) => {
            let names: Vec<_> = (0..4).map(metric).filter(|(id, _)| ids.contains(id)).collect();
            delivery.learn(&spooled.report.worker, &names);
            assert_eq!(delivery.add(spooled.clone()), Enqueued::Queued);
        }
        added @ (Enqueued::Committed | Enqueued::Full) => panic!("{added:?}"),
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let spooled = (0..4_usize, 1..100_u64, 0..3_u32);
    prop_oneof![
        4 => spooled.prop_map(|(worker, count, minutes)| Step::SpooledReport { worker, count, minutes }),
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
    scenario.step(&Step::SpooledReport { worker: 0, count: 5, minutes: 1 });
    scenario.exchange(true);
    assert!(matches!(scenario.delivery.next_request(), Some(Request::Ingest(_))));
    let answer = IngestResponse::Rejected { reason: "nonsense".to_owned() };
    assert_eq!(scenario.delivery.on_ingested(answer, Monotonic::START), NextStep::Continue);
    assert_eq!(scenario.delivery.dropped_reports(), 1);
    assert_eq!(scenario.delivery.take_committed(), BTreeMap::from([(worker(0), 1)]));
    assert!(scenario.delivery.is_empty() && scenario.delivery.next_request().is_none());
}

#[test]
fn a_rejected_name_removes_its_own_points_only() {
    let mut scenario = Scenario::new(false);
    scenario.step(&Step::SpooledReport { worker: 0, count: 5, minutes: 1 });
    scenario.delivery.set_leader_term(Term(0));
    let Some(Request::Register(request)) = scenario.delivery.next_request() else { panic!("names first") };
    let mut answer = scenario.leader.register(&request);
    answer.results[0] = Registered::Rejected("too many".to_owned());
    assert_eq!(scenario.delivery.on_registered(&answer), NextStep::Continue);
    let Some(Request::Ingest(batch)) = scenario.delivery.next_request() else { panic!("then points") };
    assert_eq!(batch.points.len(), request.registrations.len() - 1);
    assert!(batch.points.iter().all(|(id, _)| *id != request.registrations[0].id));
}

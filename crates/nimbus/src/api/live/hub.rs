//! Live hub: the numbers of one topology, for all who look at it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    Hub, Inner,
    agent::{self, News},
    merge::{Expected, Merge},
};
use crate::{Handle, api::logs::asked_of};
use stormkeeper_api_types::{agent_client::AgentClient, message::live::TopologyLive};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_model::{Slot, SupervisorId, TopologyId, clock::Monotonic};
use stormkeeper_runtime::tasks::{OnExit, Tasks};

/// Time between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(100);

/// Longest time between two texts, and the time between two looks at the assignment.
const PERIOD: Duration = Duration::from_secs(1);

/// Shortest time between two texts.
const APART: Duration = Duration::from_millis(500);

/// Time without a reader after which a hub ends.
const IDLE: Duration = Duration::from_secs(10);

/// Lines of agents that wait to be merged; agents wait for room then.
const NEWS_MAX: usize = 256;

/// Maximum number of agents of one topology that are read.
const AGENTS_MAX: usize = 1000;

/// Maximum number of missing workers that an answer names; `workersTotal` counts all.
const MISSING_MAX: usize = 50;

/// The numbers at one moment.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) live: TopologyLive,
    /// Event with the numbers, for streams.
    pub(super) event: Bytes,
    /// Whether each worker has a sample, or a reason why it has none.
    pub(super) has_counts: bool,
    /// Whether each worker has two of them, or a reason.
    pub(super) has_rates: bool,
}

/// State of a running hub.
pub(super) struct Run {
    pub(super) nimbus: Handle,
    pub(super) agents: AgentClient,
    pub(super) id: TopologyId,
    pub(super) hub: Arc<Hub>,
    pub(super) hubs: Weak<Inner>,
    pub(super) tasks: Tasks,
}

/// What the hub knows of the workers.
#[derive(Default)]
struct Known {
    expected: BTreeMap<Slot, Expected>,
    merge: Merge,
    /// Agents that are read: their addresses, and the tasks that read them.
    agents: BTreeMap<SupervisorId, (Result<String, String>, Option<Tasks>)>,
    state: u64,
    published: Option<Monotonic>,
    looked: Option<Monotonic>,
}

impl Run {
    /// Runs until nobody looks, or the topology is gone.
    pub(super) async fn run(self) {
        let (news, mut received) = mpsc::channel(NEWS_MAX);
        let mut known = Known::default();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: no line is taken unless the call returns, and a tick has no state.
            tokio::select! {
                Some(line) = received.recv() => self.take(&mut known, line),
                _ = looks.tick() => {
                    let now = self.nimbus.clock().monotonic();
                    let is_due = known.looked.is_none_or(|looked| now.since(looked) >= PERIOD);
                    if is_due && !self.look(&mut known, &news, now) {
                        return;
                    }
                    self.publish_if_due(&mut known, now);
                }
            }
        }
    }

    fn take(&self, known: &mut Known, line: News) {
        match line {
            News::Sample { supervisor, port, worker, sample, kept } => {
                let now = self.nimbus.clock().monotonic();
                let slot = Slot { supervisor, port };
                // What no assignment names any more is not kept.
                if known.expected.contains_key(&slot) {
                    known.merge.take(slot, worker, sample, now.minus(kept));
                }
            }
            News::Worker { supervisor, port, problem } => {
                let slot = Slot { supervisor, port };
                if known.expected.contains_key(&slot) {
                    known.merge.take_problem(slot, problem);
                }
            }
            News::Agent { supervisor, problem } => {
                let slots: Vec<Slot> =
                    known.expected.keys().filter(|slot| slot.supervisor == supervisor).cloned().collect();
                slots.into_iter().for_each(|slot| known.merge.take_problem(slot, problem.clone()));
            }
        }
    }

    /// Looks at readers and at the assignment. Returns false if the hub must end.
    fn look(&self, known: &mut Known, news: &mpsc::Sender<News>, now: Monotonic) -> bool {
        known.looked = Some(now);
        let Some(hubs) = self.hubs.upgrade() else { return false };
        let view = self.nimbus.observation().map(|observation| observation.view);
        let is_gone = view.as_ref().is_ok_and(|view| !view.topologies.contains_key(&self.id));
        {
            let mut all = hubs.hubs();
            if is_gone || !self.hub.is_read(now, IDLE) {
                all.remove(&self.id);
                self.hub.end(is_gone);
                return false;
            }
        }
        // A view that cannot be read leaves what is known.
        let Ok(view) = view else { return true };
        let assignment = view.assignments.get(&self.id);
        let workers = assignment.iter().flat_map(|assignment| &assignment.value.workers);
        known.expected = workers
            .map(|(slot, worker)| {
                let (host, tasks) = (worker.host.clone(), worker.tasks.clone());
                (slot.clone(), Expected { host, tasks })
            })
            .collect();
        known.merge.keep_only(&known.expected);
        known.state = state(&view, &self.id);
        self.follow_agents(known, &view, news);
        true
    }

    /// Reads the agents of the supervisors that have workers, and no others.
    fn follow_agents(&self, known: &mut Known, view: &ClusterView, news: &mpsc::Sender<News>) {
        let mut wanted: BTreeMap<SupervisorId, Result<String, String>> = BTreeMap::new();
        for slot in known.expected.keys() {
            if !wanted.contains_key(&slot.supervisor) {
                let agent = match wanted.len() < AGENTS_MAX {
                    true => asked_of(view, &slot.supervisor).agent,
                    false => Err(format!("of one topology {AGENTS_MAX} agents are asked at most")),
                };
                wanted.insert(slot.supervisor.clone(), agent);
            }
        }
        // Dropping the tasks of an agent that is not wanted ends them.
        known.agents.retain(|supervisor, (agent, _)| wanted.get(supervisor) == Some(agent));
        for (supervisor, agent) in wanted {
            if let Err(problem) = &agent {
                let of_supervisor = known.expected.keys().filter(|slot| slot.supervisor == supervisor);
                for slot in of_supervisor.cloned().collect::<Vec<_>>() {
                    known.merge.take_problem(slot, problem.clone());
                }
            }
            if known.agents.contains_key(&supervisor) {
                continue;
            }
            let tasks = agent.as_ref().ok().map(|address| {
                let tasks = self.tasks.child();
                let asked = (supervisor.clone(), address.clone());
                let following = agent::follow(self.agents.clone(), asked, self.id.clone(), news.clone());
                tasks.start("live numbers of an agent", OnExit::Ignore, following);
                tasks
            });
            known.agents.insert(supervisor, (agent, tasks));
        }
    }

    /// Publishes the numbers a second after the last ones, or sooner if all of them are new.
    fn publish_if_due(&self, known: &mut Known, now: Monotonic) {
        let is_due = known.published.is_none_or(|last| {
            let passed = now.since(last);
            passed >= PERIOD || (passed >= APART && known.merge.is_newer(last, now))
        });
        let [has_counts, has_rates] = [1, 2].map(|n| known.merge.is_complete(&known.expected, n));
        // Who waits for the first numbers gets them at once.
        let (had_counts, had_rates) = self.hub.is_complete();
        let is_news = (has_counts && !had_counts) || (has_rates && !had_rates);
        if !is_due && !is_news {
            return;
        }
        known.published = Some(now);
        let numbers = known.merge.numbers(&known.expected, now);
        let mut missing = numbers.missing;
        missing.truncate(MISSING_MAX);
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let live = TopologyLive {
            id: self.id.clone(),
            time_ms: self.nimbus.clock().now(),
            age_ms: numbers.age.map(millis),
            state: known.state,
            workers_live: numbers.n_live,
            workers_total: known.expected.len(),
            missing,
            components: numbers.components,
            tasks: Vec::new(),
            omitted: numbers.omitted,
        };
        let event = event(&live);
        let live = TopologyLive { tasks: numbers.tasks, ..live };
        self.hub.publish(Published { live, event, has_counts, has_rates });
    }
}

/// Returns an event with the numbers.
fn event(live: &TopologyLive) -> Bytes {
    let data = serde_json::to_string(live).expect("numbers are finite, and keys are texts");
    let mut text = String::with_capacity(data.len() + 64);
    // A text of JSON has no line break outside of its strings, and escapes those within.
    write!(text, "event: live\nid: {}\ndata: {data}\n\n", live.time_ms.as_millis())
        .expect("a text takes what fits the memory");
    text.into()
}

/// Returns a number that changes with the records of a topology, its live tasks and its problems.
fn state(view: &ClusterView, id: &TopologyId) -> u64 {
    let mut hasher = DefaultHasher::new();
    let record = view.topologies.get(id).map(|record| record.version);
    let assignment = view.assignments.get(id).map(|assignment| assignment.version);
    let heartbeats = view.heartbeats.get(id).map(ToString::to_string);
    format!("{record:?} {assignment:?} {heartbeats:?}").hash(&mut hasher);
    // JavaScript has no larger integers.
    hasher.finish() >> 11
}

//! What a nimbus does while it leads.
//!
//! One task owns all that leading needs and makes every write, one after the other:
//!
//! ```text
//!   view changed ┐
//!   deadline ────┼─▶ observe ─▶ decide ─▶ apply ─▶ read again ─▶ … until nothing is left
//!   command ─────┘
//! ```
//!
//! So two requests never race each other, and a plan is always decided on what the last one
//! wrote. Another leader may be writing all the same: the fence and the versions see to that.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::{
    clock::{Clock, Monotonic},
    cluster::{
        layout,
        observer::{Observation, Observer},
        record::Storm,
        store::Store,
    },
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    election::{FencedWriter, Leadership},
    model::{HostName, Term, TopologyId},
    nimbus::{
        Options,
        apply::apply,
        blobs::BlobStore,
        change::{self, Change},
        decide::{Moment, decide},
        drain::{self, DrainChange},
        liveness::Liveness,
        measure::{self, Measure},
        plan::Finding,
        policy::Policy,
        refusal::Refusal,
        submit::{self, Ids, Prepared},
    },
    tree::TreePath,
};

/// How many requests may wait for the leader; more are refused. Each takes milliseconds.
pub(super) const COMMANDS: usize = 64;

/// Changes that come in a row, as when the tasks of a topology start to beat, are gathered
/// for this long before the next decision. Short against the time a worker takes to start.
const GATHER: Duration = Duration::from_millis(20);

/// After this many plans in a row without a pause, something undoes what we write, or cannot
/// be written: the leader takes a breath before it tries again.
const ROUNDS_IN_A_ROW: usize = 50;

/// That breath, and the pause after a plan that could not be carried out whole.
const BREATH: Duration = Duration::from_millis(500);

/// How long a leader that must stop may take to finish the write it is in.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A write that someone asked for.
#[derive(Debug)]
pub(super) enum Command {
    Submit {
        prepared: Box<Prepared>,
        by: Option<String>,
        reply: oneshot::Sender<Result<(TopologyId, Storm), Refusal>>,
    },
    Change {
        topology: String,
        change: Change,
        by: Option<String>,
        reply: oneshot::Sender<Result<(TopologyId, Storm), Refusal>>,
    },
    Drain {
        host: HostName,
        change: DrainChange,
        by: Option<String>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Makes the leading task panic.
    #[cfg(test)]
    Break,
}

/// What was last found, for those who ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderStatus {
    /// The term, while this nimbus leads.
    pub term: Option<Term>,
    /// What needs a person, as of the last decision; while this nimbus follows, what it would
    /// find if it led.
    pub findings: Vec<Finding>,
}

/// What a leader needs of its nimbus.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) options: Arc<Options>,
    pub(super) observer: Observer,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) commands: watch::Sender<Option<mpsc::Sender<Command>>>,
    pub(super) status: watch::Sender<LeaderStatus>,
    /// Its metrics, if it has any, and what they need.
    pub(super) measure: Option<(Measure, BlobStore)>,
}

/// A nimbus that leads: its leadership and the task that acts on it.
#[derive(Debug)]
pub(super) struct Leader {
    leadership: Leadership,
    tasks: Tasks,
    setting: Setting,
    /// Ends what a leader does for metrics; nothing waits for that.
    _measures: Option<measure::Leading>,
}

/// What a leader can go on without no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its leadership.
    Leadership,
    /// Its leading task, which panicked or was told to stop.
    Task,
}

impl Leader {
    /// Starts to lead.
    pub(super) fn start(leadership: Leadership, setting: Setting, owner: &Tasks) -> Self {
        let tasks = owner.child();
        let (commands, waiting) = mpsc::channel(COMMANDS);
        let leading = Leading {
            writer: leadership.writer(),
            ids: Ids::new(leadership.term()),
            liveness: Liveness::new(setting.clock.monotonic()),
            policy: Policy::from(&*setting.options),
            pace: Pace::default(),
            observations: setting.observer.observe(),
            waiting,
            setting: setting.clone(),
        };
        let cancelled = tasks.cancelled();
        tasks.start_graceful("leader", Ending::StopsOwner, leading.run(cancelled));
        setting.commands.send_replace(Some(commands));
        setting.status.send_replace(LeaderStatus { term: Some(leadership.term()), findings: Vec::new() });
        let lead = |(measure, blobs): &(Measure, BlobStore)| measure.lead(leadership.writer(), blobs.clone());
        let measures = setting.measure.as_ref().map(lead);
        Self { leadership, tasks, setting, _measures: measures }
    }

    /// Waits until this nimbus leads no longer, or its leading task broke, and says which.
    pub(super) async fn lost(&self) -> Lost {
        let broken = self.tasks.cancelled();
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = self.leadership.lost() => Lost::Leadership,
            () = broken.cancelled() => Lost::Task,
        }
    }

    /// Ends all that only a leader does. Requests that were not begun are refused.
    pub(super) async fn stop(self) -> Leadership {
        self.setting.commands.send_replace(None);
        self.setting.status.send_replace(LeaderStatus::default());
        if !self.tasks.stop(STOP_PATIENCE).await {
            // Whatever it still writes is fenced.
            warn!(term = %self.leadership.term(), "the leading task did not end in time");
        }
        self.leadership
    }
}

/// How many tasks may still leave a lost place in this period.
#[derive(Debug, Default)]
struct Pace {
    began: Option<Monotonic>,
    n_moved: usize,
}

impl Pace {
    fn moves_left(&mut self, now: Monotonic, period: Duration, most: usize) -> usize {
        if self.began.is_none_or(|began| now.since(began) >= period) {
            (self.began, self.n_moved) = (None, 0);
        }
        most.saturating_sub(self.n_moved)
    }

    fn moved(&mut self, n: usize, now: Monotonic) {
        if n > 0 {
            self.began.get_or_insert(now);
            self.n_moved += n;
        }
    }
}

struct Leading {
    setting: Setting,
    writer: FencedWriter,
    ids: Ids,
    liveness: Liveness,
    policy: Policy,
    pace: Pace,
    observations: watch::Receiver<Observation>,
    waiting: mpsc::Receiver<Command>,
}

/// What to do after a decision.
enum Next {
    /// Decide again on what was written.
    Again,
    /// Wait for something to happen, at most so long.
    Wait(Duration),
}

impl Leading {
    async fn run(mut self, cancelled: tokio_util::sync::CancellationToken) {
        // What the leader before us wrote last, and that we lead, is in the view from the start.
        self.read_again(Vec::new()).await;
        let mut n_in_a_row = 0;
        while !cancelled.is_cancelled() {
            let wait = match self.round().await {
                Next::Again if n_in_a_row < ROUNDS_IN_A_ROW => {
                    n_in_a_row += 1;
                    continue;
                }
                Next::Again => BREATH,
                Next::Wait(wait) => wait,
            };
            n_in_a_row = 0;
            tokio::select! {
                // After a command comes a round, which looks at all the rest.
                biased;
                // Cancel-safe: a command that is not returned stays in the queue, the others only wait.
                () = cancelled.cancelled() => {}
                Some(command) = self.waiting.recv() => self.execute(command).await,
                changed = self.observations.changed() => match changed {
                    Ok(()) => tokio::time::sleep(GATHER).await,
                    // The observer ends with the whole nimbus.
                    Err(_ended) => cancelled.cancelled().await,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Decides once and carries it out.
    async fn round(&mut self) -> Next {
        let Observation { view, fresh, .. } = self.observations.borrow_and_update().clone();
        let period = self.setting.options.monitor_period;
        if !fresh {
            self.liveness.interrupt();
            return Next::Wait(period);
        }
        let monotonic = self.setting.clock.monotonic();
        self.liveness.observe(&view, monotonic);
        let most = self.policy.max_moves_per_round;
        let moves_left = self.pace.moves_left(monotonic, period, most);
        let moment = Moment { wall: self.setting.clock.now(), monotonic, moves_left };
        let mut plan = decide(&view, &self.liveness, moment, &self.policy);
        if plan.actions.iter().any(|action| action.reason.asks_for_a_look()) {
            // An event that was lost may hide what is there: look, before it is given up.
            let Ok(view) = self.setting.observer.read_now().await else { return Next::Wait(BREATH) };
            self.liveness.observe(&view, monotonic);
            plan = decide(&view, &self.liveness, moment, &self.policy);
        }
        self.report(plan.findings.clone());
        if plan.actions.is_empty() {
            let next = plan.next.unwrap_or(period).max(Duration::from_millis(1));
            return Next::Wait(next.min(period));
        }
        let applied = apply(&plan, &self.writer, &self.setting.store.tree()).await;
        self.pace.moved(applied.n_moved, monotonic);
        debug!(?applied, "carried out a plan");
        // What was written must be in the view before anything else is decided. If not all of
        // it was, the view may be wrong anywhere.
        let is_whole = !applied.is_cut_short && applied.n_refused == 0;
        let is_read = match is_whole {
            true => self.read_again(plan.records()).await,
            false => self.setting.observer.read_now().await.is_ok(),
        };
        match is_whole && is_read {
            true => Next::Again,
            false => Next::Wait(BREATH),
        }
    }

    /// Has the view show what was `written`, and which records there are. Answers whether it
    /// does.
    async fn read_again(&self, written: Vec<TreePath>) -> bool {
        let read = self.setting.observer.read_again(written).await;
        if let Err(error) = &read {
            info!(%error, "could not read the cluster state");
        }
        read.is_ok()
    }

    /// Logs what is found when it is new, and shows it to those who ask.
    fn report(&self, findings: Vec<Finding>) {
        self.setting.status.send_if_modified(|status| {
            if status.findings == findings {
                return false;
            }
            for finding in findings.iter().filter(|finding| !status.findings.contains(finding)) {
                let topology = finding.topology.as_ref().map(tracing::field::display);
                warn!(topology, "{}", finding.trouble);
            }
            status.findings = findings;
            true
        });
    }

    async fn execute(&mut self, command: Command) {
        let now = self.setting.clock.now();
        let term = self.writer.term();
        let store = &self.setting.store;
        // Commands see what the last one wrote, and every topology that there is: the leader
        // before us may have added one a moment ago.
        let view = match self.setting.observer.read_again(Vec::new()).await {
            Ok(view) => view,
            Err(error) => return command.refuse(error.into()),
        };
        let (result, reply, verb, by) = match command {
            Command::Submit { prepared, by, reply } => {
                let asked = (&*prepared, &by);
                let result = submit::carry_out(asked, &mut self.ids, now, &view, store, &self.writer).await;
                (result, reply, "submit", by)
            }
            Command::Change { topology, change, by, reply } => {
                let result = match change::find(&view, &topology) {
                    Ok(id) => change::carry_out(&id, (&change, &by), now, store, &self.writer)
                        .await
                        .map(|storm| (id, storm)),
                    Err(refusal) => Err(refusal),
                };
                (result, reply, change.verb(), by)
            }
            Command::Drain { host, change, by, reply } => {
                let result = drain::carry_out(&host, (change, &by), now, &view, &self.writer).await;
                match &result {
                    Ok(()) => info!(%term, %host, by, "{}", change.verb()),
                    Err(refusal) => info!(%term, %host, %refusal, "{} was refused", change.verb()),
                }
                self.read_again(vec![layout::drain(&host)]).await;
                // The asker may have given up; what was done stands.
                let _gone = reply.send(result);
                return;
            }
            #[cfg(test)]
            Command::Break => panic!("told to break"),
        };
        match &result {
            Ok((id, storm)) => info!(%term, topology = %id, status = %storm.status, by, "{verb}"),
            Err(refusal) => info!(%term, %refusal, by, "{verb} was refused"),
        }
        // The next round decides on what was just written, not on what was there before.
        if let Ok((id, _)) = &result {
            self.read_again(layout::records_of(id)).await;
        }
        // The asker may have given up; what was done stands.
        let _gone = reply.send(result);
    }
}

impl Command {
    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Submit { reply, .. } | Self::Change { reply, .. } => {
                // The asker may have given up.
                let _gone = reply.send(Err(refusal));
            }
            Self::Drain { reply, .. } => {
                let _gone = reply.send(Err(refusal));
            }
            #[cfg(test)]
            Self::Break => {}
        }
    }
}

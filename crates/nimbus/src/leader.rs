//! Leader loop of a nimbus.
//!
//! One task owns everything that leading requires and makes all writes, one after the other:
//!
//! ```text
//!   view changed ┐
//!   deadline ────┼─▶ observe ─▶ decide ─▶ apply ─▶ read again ─▶ … until nothing is left
//!   command ─────┘
//! ```
//!
//! So two requests never race each other, and each plan is decided on a view that contains the
//! writes of the last one. Another leader may be writing at the same time: the fence and the
//! versions protect against that.

mod command;
mod drains;
mod updates;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    Options,
    apply::apply,
    blobs::BlobStore,
    credentials,
    decide::{Moment, decide},
    liveness::Liveness,
    plan::Finding,
    policy::Policy,
    submit::TopologyIds,
    table_check::TableChecker,
};
pub(super) use command::Command;
use drains::DrainLooks;
use stormkeeper_access::{file::WatchedFile, secret::Secrets};
use stormkeeper_coordination::{
    cluster::{
        observer::{Observation, Observer},
        store::{self, Store},
        tree_id::TreeMemory,
        view::ClusterView,
    },
    election::{FencedWriter, Leadership, keep_tree_id},
    tree::TreePath,
};
use stormkeeper_metrics_service as metrics_service;
use stormkeeper_metrics_service::MetricsService;
use stormkeeper_model::{
    SupervisorId, Term,
    clock::{Clock, Monotonic},
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};
use updates::UpdateLooks;

/// Most requests that may wait for the leader; more are rejected. Each takes milliseconds.
pub(super) const COMMANDS_MAX: usize = 64;

/// Time for which changes in quick succession are collected before the next decision, for
/// example the first heartbeats of a topology. Short compared with the start of a worker.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Most plans in a row without a pause. After that, something undoes our writes, or they cannot
/// be made: the leader pauses before it tries again.
const ROUNDS_IN_A_ROW: usize = 50;

/// Pause after that, and pause after a plan of which not every action was applied.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Time that a leader may take on a stop to finish the write in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Result of the last decision, for the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderStatus {
    /// The term if this nimbus leads.
    pub term: Option<Term>,
    /// Findings of the last decision that need an operator; on a follower, those of its dry run.
    pub findings: Vec<Finding>,
}

/// Parts of the nimbus that the leader loop and the dry run use.
#[derive(Debug, Clone)]
pub(super) struct LeaderContext {
    pub(super) options: Arc<Options>,
    pub(super) observer: Observer,
    pub(super) store: Store,
    /// Memory of the nimbus about its tree.
    pub(super) tree: TreeMemory,
    pub(super) clock: Clock,
    pub(super) commands: watch::Sender<Option<mpsc::Sender<Command>>>,
    pub(super) status: watch::Sender<LeaderStatus>,
    /// The supervisors that announce their stops, as the dry run last saw.
    pub(super) announcers: watch::Sender<BTreeSet<SupervisorId>>,
    /// The topology packages of this nimbus.
    pub(super) blobs: BlobStore,
    /// The metrics service, if metrics are enabled.
    pub(super) metrics: Option<MetricsService>,
}

/// A nimbus that leads: its leadership and the leader task.
#[derive(Debug)]
pub(super) struct Leader {
    leadership: Leadership,
    tasks: Tasks,
    context: LeaderContext,
    /// Ends the leadership in the metrics service when dropped; nothing waits for that.
    _metrics_leadership: Option<metrics_service::Leading>,
}

/// Reason why a leader must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// The leadership was lost.
    LeadershipLost,
    /// The leader task panicked or was cancelled.
    TaskEnded,
}

impl Leader {
    /// Starts the leader task and the leadership in the metrics service.
    pub(super) fn start(leadership: Leadership, context: LeaderContext, owner: &Tasks) -> Self {
        let tasks = owner.child();
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let leading = LeaderLoop {
            writer: leadership.writer(),
            ids: TopologyIds::new(leadership.term()),
            liveness: Liveness::new(context.clock.monotonic()).with_announcers(&context.announcers.borrow()),
            tables: TableChecker::new(context.blobs.clone()),
            policy: Policy::from(&*context.options),
            move_budget: MoveBudget::default(),
            drains: DrainLooks::default(),
            updates: UpdateLooks::default(),
            observations: context.observer.observe(),
            n_interruptions: 0,
            commands,
            context: context.clone(),
        };
        let cancelled = tasks.cancelled();
        tasks.start_graceful("leader", OnExit::StopOwner, leading.run(cancelled));
        let identity = keep_tree_id(leadership.writer(), context.store.tree(), context.tree.clone());
        tasks.start("tree id", OnExit::Ignore, identity);
        context.commands.send_replace(Some(sender));
        context.status.send_replace(LeaderStatus { term: Some(leadership.term()), findings: Vec::new() });
        let lead =
            |metrics: &MetricsService| metrics.lead(leadership.writer(), Arc::new(context.blobs.clone()));
        let metrics_leadership = context.metrics.as_ref().map(lead);
        Self { leadership, tasks, context, _metrics_leadership: metrics_leadership }
    }

    /// Waits until this nimbus must stop leading and returns the reason.
    pub(super) async fn lost(&self) -> StopCause {
        let ended = self.tasks.cancelled();
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            () = self.leadership.lost() => StopCause::LeadershipLost,
            () = ended.cancelled() => StopCause::TaskEnded,
        }
    }

    /// Ends the leader task. Requests that have not begun are rejected.
    pub(super) async fn stop(self) -> Leadership {
        self.context.commands.send_replace(None);
        self.context.status.send_replace(LeaderStatus::default());
        if !self.tasks.stop(STOP_TIMEOUT).await {
            // Its later writes are rejected by the fence.
            warn!(term = %self.leadership.term(), "the leader task did not end in time; its writes are fenced");
        }
        self.leadership
    }
}

/// Number of tasks that may still be moved away from lost workers in this period.
#[derive(Debug, Default)]
struct MoveBudget {
    began: Option<Monotonic>,
    n_moved: usize,
}

impl MoveBudget {
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

struct LeaderLoop {
    context: LeaderContext,
    writer: FencedWriter,
    ids: TopologyIds,
    liveness: Liveness,
    tables: TableChecker,
    policy: Policy,
    move_budget: MoveBudget,
    drains: DrainLooks,
    updates: UpdateLooks,
    observations: watch::Receiver<Observation>,
    /// Interruptions of the observations that `liveness` knows of.
    n_interruptions: u64,
    commands: mpsc::Receiver<Command>,
}

/// Next step after a decision.
enum Next {
    /// Decide again, on the view that contains the writes.
    Again,
    /// Wait for an event, at most this long.
    Wait(Duration),
}

impl LeaderLoop {
    async fn run(mut self, cancelled: tokio_util::sync::CancellationToken) {
        // The view contains the last writes of the previous leader, and our leadership.
        self.read_written(Vec::new()).await;
        let mut n_in_a_row = 0;
        while !cancelled.is_cancelled() {
            let wait = match self.round().await {
                Next::Again if n_in_a_row < ROUNDS_IN_A_ROW => {
                    n_in_a_row += 1;
                    continue;
                }
                Next::Again => RETRY_PAUSE,
                Next::Wait(wait) => wait,
            };
            n_in_a_row = 0;
            tokio::select! {
                // Each command is followed by a round, which reads everything else.
                biased;
                // Cancel-safe: a command not returned stays in the queue, the others only wait.
                () = cancelled.cancelled() => {}
                Some(command) = self.commands.recv() => self.execute(command).await,
                changed = self.observations.changed() => match changed {
                    Ok(()) => tokio::time::sleep(DEBOUNCE).await,
                    // The observer ends with the whole nimbus.
                    Err(_ended) => cancelled.cancelled().await,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Decides once and applies the plan.
    async fn round(&mut self) -> Next {
        let _stopwatch = self.context.metrics.as_ref().map(MetricsService::time_decision);
        let Observation { view, fresh, n_interruptions, .. } = self.observations.borrow_and_update().clone();
        let period = self.context.options.monitor_period;
        if !fresh {
            self.liveness.interrupt();
            return Next::Wait(period);
        }
        // This loop may have been busy throughout an interruption.
        if std::mem::replace(&mut self.n_interruptions, n_interruptions) != n_interruptions {
            self.liveness.interrupt();
        }
        let view = self.tables.check(view).await;
        let monotonic = self.context.clock.monotonic();
        self.liveness.observe(&view, monotonic);
        let waits_for_drain =
            self.look_at_drains(&view, monotonic).await | self.look_at_updates(&view, monotonic).await;
        let most = self.policy.max_moves_per_round;
        let moves_left = self.move_budget.moves_left(monotonic, period, most);
        let moment = Moment { wall: self.context.clock.now(), monotonic, moves_left };
        let mut plan = decide(&view, &self.liveness, moment, &self.policy);
        if plan.actions.iter().any(|action| action.reason.needs_fresh_view()) {
            // A lost event may hide a record: read before anything is treated as missing.
            let Ok(view) = self.context.observer.read_all().await else { return Next::Wait(RETRY_PAUSE) };
            if self.observations.borrow().n_interruptions != n_interruptions {
                return Next::Wait(RETRY_PAUSE);
            }
            let view = self.tables.check(view).await;
            self.liveness.observe(&view, monotonic);
            plan = decide(&view, &self.liveness, moment, &self.policy);
        }
        plan.findings.extend(self.review_credentials(&view).await);
        self.report(plan.findings.clone());
        if plan.actions.is_empty() {
            let most = if waits_for_drain { drains::LOOK_PERIOD } else { period };
            let next = plan.next.unwrap_or(period).max(Duration::from_millis(1));
            return Next::Wait(next.min(most));
        }
        let applied = apply(&plan, &self.writer, &self.context.store.tree()).await;
        self.move_budget.moved(applied.n_moved, monotonic);
        for (id, path) in &applied.undeletable {
            self.liveness.note_undeletable(id, path, monotonic);
        }
        debug!(?applied, "applied a plan");
        // The view must contain the writes before anything else is decided. If an action was
        // not applied, any part of the view may be out of date.
        let is_whole = !applied.is_aborted && applied.n_refused == 0;
        if applied.n_refused > 0
            && let Err(error) = self.context.store.restore_parents().await
        {
            debug!(%error, "cannot check the parents of the records");
        }
        let is_read = match is_whole {
            true => self.read_written(plan.records()).await,
            false => self.context.observer.read_all().await.is_ok(),
        };
        match is_whole && is_read {
            true => Next::Again,
            false => Next::Wait(RETRY_PAUSE),
        }
    }

    /// The cluster secrets, as last read.
    fn secrets(&self) -> Option<Arc<Secrets>> {
        self.context.options.locks.secrets().map(WatchedFile::get)
    }

    /// Seals credentials with the first cluster secret which another one has sealed. Returns problems of
    /// those that none of them opens. A write that fails is made in a later round.
    async fn review_credentials(&self, view: &ClusterView) -> Vec<Finding> {
        let secrets = self.secrets();
        let (ops, findings) = credentials::review(view, secrets.as_deref());
        for op in ops {
            let path = op.path().clone();
            match self.writer.commit(vec![op]).await {
                Ok(_) => info!(%path, "sealed the credentials of a topology with the first cluster secret"),
                Err(error) => {
                    info!(%path, %error, "cannot seal the credentials of a topology again; trying again")
                }
            }
        }
        findings
    }

    /// Updates the view with the records in `written` and with the list of all records. Returns
    /// whether it succeeded.
    async fn read_written(&self, written: Vec<TreePath>) -> bool {
        let read = self.context.observer.read_written(written).await;
        match &read {
            Err(store::Error::Tree(error)) if !error.root().is_retryable() => {
                warn!(%error, "could not read the cluster state; retrying");
            }
            Err(error) => info!(%error, "could not read the cluster state; retrying"),
            Ok(_) => {}
        }
        read.is_ok()
    }

    /// Logs each new finding and publishes all of them for the API.
    fn report(&self, findings: Vec<Finding>) {
        self.context.status.send_if_modified(|status| {
            if status.findings == findings {
                return false;
            }
            for finding in findings.iter().filter(|finding| !status.findings.contains(finding)) {
                let topology = finding.topology.as_ref().map(tracing::field::display);
                warn!(topology, "{}", finding.problem);
            }
            status.findings = findings;
            true
        });
    }
}
